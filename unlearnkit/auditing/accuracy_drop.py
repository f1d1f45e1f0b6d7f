"""How much accuracy an indiscriminate poisoning takes from a network."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import ClassVar

import jax
import numpy as np
from jaxtyping import Array, Key

from unlearnkit.auditing.case import Case, NotApplicable, Subject
from unlearnkit.auditing.evaluate import correct_predictions
from unlearnkit.auditing.intervals import mean_and_error
from unlearnkit.base import Audited, Dataset, Model, Poisoned, Task, Variables
from unlearnkit.training import fit, predict
from unlearnkit.trials import AuditTrial
from unlearnkit.validation import (
    check_at_least,
    check_compatible,
    check_dataset,
    check_variables,
)


@dataclasses.dataclass(frozen=True, eq=False)
class AccuracyDrop:
    """Compares the test accuracy with that of a network trained on the clean data.

    drop = 1/n Σ_i ([argmax f_clean(x_i) = y_i] - [argmax f(x_i) = y_i])

    over the test set, in evaluation mode. Both networks are asked the same questions: the standard
    error is that of the paired difference, smaller than that of two accuracies.

    What a training on poisons ends in differs from key to key; the mean over several `victims` is
    nearer to what the poisons do. Each is trained beside a clean network of its own, by the same
    key, and all figures are means over the pairs.

    Attributes:
      clean: weights of the network trained on the clean data; None, in a study, takes the case's.
      victims: pairs of networks, the first of which is the case's. Further ones are trained in a
        study, for the untouched network without a defence; all else is judged by the first alone.

    Example:
      audit = auditing.AccuracyDrop(clean=original)
      metrics, curves = audit(key, model, variables, task)

    Source: Pawelczyk et al. 2024, §5.1 and Table 2; Lu et al. 2022, §5.
    """

    clean: Variables | None = None
    victims: int = 1

    trial: ClassVar[AuditTrial] = AuditTrial(
        tells=("accuracy_drop", 1), key_may_not_matter=True, attack="label_flip"
    )

    def __post_init__(self) -> None:
        check_at_least(self, 1, "victims")

    def __call__(
        self, key: Key[Array, ""], model: Model, variables: Variables, task: Task
    ) -> Audited:
        """Returns the drop.

        Metrics: `accuracy_test`, `accuracy_clean`; `accuracy_drop` and `accuracy_drop_se`, its
        standard error over the test examples; all fractions.

        Raises:
          ValueError: a test set or variables that do not fit the model, fewer than two test
            examples, or no clean weights.
        """
        if self.clean is None:
            raise ValueError("clean weights must be given outside of a study")
        check_dataset(task.test, name="test")
        check_compatible(task.test, model, name="test")
        check_variables(variables, model)
        check_variables(self.clean, model)
        return _judged([_lost(model, variables, self.clean, task.test)])

    def judge(self, key: Key[Array, ""], case: Case, subject: Subject) -> Audited:
        """Returns the drop against the case's clean network, see `__call__`.

        Raises:
          NotApplicable: the training set was not poisoned.
          ValueError: a task or variables that do not fit the model.
        """
        clean = case.clean if self.clean is None else self.clean
        if clean is None:
            raise NotApplicable("AccuracyDrop needs a poisoned training set and a clean network")
        first = AccuracyDrop(clean)(key, case.model, subject.variables, case.task)
        if self.victims == 1 or not is_untouched(case, subject):
            return first
        poisons, before_them = poisons_of(case)
        sets, pairs = (poisons.dataset, before_them), [(subject.variables, clean)]
        for number in range(1, self.victims):
            poisoned, before = (
                train_another(case, case.model, dataset, number, start=case.start)
                for dataset in sets
            )
            pairs.append((poisoned, before))
        return _judged([_lost(case.model, *pair, case.task.test) for pair in pairs])


def poisons_of(case: Case) -> tuple[Poisoned, Dataset]:
    """Returns the poisoned training set of a case, and the clean one.

    Raises:
      NotApplicable: the training set was not poisoned.
    """
    if case.poisoned is None or case.clean_data is None:
        raise NotApplicable("the training set was not poisoned")
    return case.poisoned, case.clean_data


def is_untouched(case: Case, subject: Subject) -> bool:
    """Returns whether nothing was done to a network after its training, nor before by a defence."""
    return not (subject.is_reference or subject.unlearner is not None or case.defence is not None)


def train_another(
    case: Case, model: Model, dataset: Dataset, number: int, *, start: Variables | None = None
) -> Variables:
    """Returns weights trained by the recipe of a case.

    Args:
      case: has the recipe and the key.
      model: the network.
      dataset: what it is trained on.
      number: 0 trains by the key of the case's network, others by keys of their own.
      start: weights to begin with; None begins with a fresh initialisation.
    """
    key = jax.random.clone(case.key if case.train_key is None else case.train_key)
    own = jax.random.fold_in(key, number) if number else key
    return fit(own, model, dataset, case.recipe, variables=start).variables


def _lost(model: Model, poisoned: Variables, clean: Variables, test: Dataset) -> np.ndarray:
    """Returns [n, 2]: whether each network is right, the poisoned one first."""
    return np.stack([_right(model, one, test) for one in (poisoned, clean)], axis=1)


def _judged(pairs: Sequence[np.ndarray]) -> Audited:
    right, before = np.mean(pairs, axis=0).T
    drop, error = mean_and_error(before - right)
    metrics = {"accuracy_test": float(right.mean()), "accuracy_clean": float(before.mean())}
    return Audited(metrics | {"accuracy_drop": drop, "accuracy_drop_se": error})


def _right(model: Model, variables: Variables, dataset: Dataset) -> np.ndarray:
    logits = predict(model, variables, dataset.x)
    return correct_predictions(logits, dataset.y).astype(np.float64)
