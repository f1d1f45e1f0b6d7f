"""How much accuracy an indiscriminate poisoning takes from a network."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import numpy as np
from jaxtyping import Array, Key

from unlearnkit.auditing.case import Case, NotApplicable, Subject
from unlearnkit.auditing.evaluate import correct_predictions
from unlearnkit.auditing.intervals import mean_and_error
from unlearnkit.base import Audited, Dataset, Model, Task, Variables
from unlearnkit.training import predict
from unlearnkit.trials import AuditTrial
from unlearnkit.validation import check_task, check_variables


@dataclasses.dataclass(frozen=True, eq=False)
class AccuracyDrop:
    """Compares the test accuracy with that of a network trained on the clean data.

    drop = 1/n Σ_i ([argmax f_clean(x_i) = y_i] - [argmax f(x_i) = y_i])

    over the test set, in evaluation mode. Both networks are asked the same questions: the standard
    error is that of the paired difference, smaller than that of two accuracies.

    Attributes:
      clean: weights of the network trained on the clean data; None, in a study, takes the case's.

    Example:
      audit = auditing.AccuracyDrop(clean=original)
      metrics, curves = audit(key, model, variables, task)

    Source: Pawelczyk et al. 2024, §5.1 and Table 2; Lu et al. 2022, §5.
    """

    clean: Variables | None = None

    trial: ClassVar[AuditTrial] = AuditTrial(
        tells=("accuracy_drop", 1), key_may_not_matter=True, attack="label_flip"
    )

    def __call__(
        self, key: Key[Array, ""], model: Model, variables: Variables, task: Task
    ) -> Audited:
        """Returns the drop.

        Metrics: `accuracy_test`, `accuracy_clean`; `accuracy_drop` and `accuracy_drop_se`, its
        standard error over the test examples; all fractions.

        Raises:
          ValueError: a task or variables that do not fit the model, fewer than two test
            examples, or no clean weights.
        """
        if self.clean is None:
            raise ValueError("clean weights must be given outside of a study")
        check_task(task, model)
        check_variables(variables, model)
        check_variables(self.clean, model)
        right = _right(model, variables, task.test)
        before = _right(model, self.clean, task.test)
        drop, error = mean_and_error(before - right)
        metrics = {
            "accuracy_test": float(right.mean()),
            "accuracy_clean": float(before.mean()),
            "accuracy_drop": drop,
            "accuracy_drop_se": error,
        }
        return Audited(metrics)

    def judge(self, key: Key[Array, ""], case: Case, subject: Subject) -> Audited:
        """Returns the drop against the case's clean network, see `__call__`.

        Raises:
          NotApplicable: the training set was not poisoned.
          ValueError: a task or variables that do not fit the model.
        """
        clean = case.clean if self.clean is None else self.clean
        if clean is None:
            raise NotApplicable("AccuracyDrop needs a poisoned training set and a clean network")
        return AccuracyDrop(clean)(key, case.model, subject.variables, case.task)


def _right(model: Model, variables: Variables, dataset: Dataset) -> np.ndarray:
    logits = predict(model, variables, dataset.x)
    return correct_predictions(logits, dataset.y).astype(np.float64)
