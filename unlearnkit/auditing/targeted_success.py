"""Whether a targeted poisoning still causes its misclassifications."""

from __future__ import annotations

import dataclasses
from typing import ClassVar, NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Float, Int, Key

from unlearnkit.auditing.case import Case, NotApplicable, Subject, extras_of
from unlearnkit.auditing.intervals import rate
from unlearnkit.base import Audited, Dataset, Model, Poisoned, Task, Variables
from unlearnkit.training import predict
from unlearnkit.trials import AuditTrial
from unlearnkit.validation import check_compatible, check_task, check_variables


class PoisonTargets(NamedTuple):
    """The examples that an attacker wants misclassified, and as which class.

    Attributes:
      x: [t, ...] in the units of the network, or [t, length] token ids.
      y: [t] their true labels.
      adversarial_class: what they are to be taken for, one for all or [t].
    """

    x: Float[Array, "t ..."] | Int[Array, "t length"]
    y: Int[Array, " t"]
    adversarial_class: int | Int[Array, " t"]


def has_targets(poisoned: Poisoned) -> bool:
    """Whether an attack kept targets of its poisons."""
    extras = extras_of(poisoned)
    return bool(np.size(extras.get("targets", ()))) or "target_x" in extras


def poison_targets(poisoned: Poisoned, validation: Dataset) -> PoisonTargets:
    """Returns the targets that a targeted attack kept, in whole or as rows of `validation`.

    Of rows the adversarial class is the label of the poisons, which clean-label attacks leave as it
    is.

    Args:
      poisoned: by `poisoning.GradientMatching`, `poisoning.MetaPoison` or `poisoning.TextTrigger`.
      validation: of the task that was attacked.

    Raises:
      ValueError: the poisons are of an attack without targets, or of several classes, or the
        validation set is too small to be the attacked one.
    """
    extras = extras_of(poisoned)
    if "target_x" in extras:
        return PoisonTargets(extras["target_x"], extras["target_y"], extras["adversarial"])
    rows = np.asarray(extras.get("targets", ()))
    if not rows.size:
        raise ValueError(
            "the poisoned set has no targets: only a targeted attack has a success to be asked "
            "for; make the poisons by GradientMatching, or by MetaPoison with targets"
        )
    labels = np.unique(np.asarray(poisoned.dataset.y)[np.asarray(poisoned.is_poison)])
    if len(labels) != 1:
        raise ValueError(
            f"the poisons of a targeted attack are of one class, got {labels.tolist()}"
        )
    if rows.max() >= validation.size:
        raise ValueError(
            f"targets must be rows of the validation set, 0 … {validation.size - 1}, got "
            f"{rows.tolist()}; give the validation set of the task that was attacked"
        )
    chosen = validation.take(rows)
    return PoisonTargets(chosen.x, chosen.y, int(labels[0]))


@dataclasses.dataclass(frozen=True, eq=False)
class TargetedSuccess:
    """The share of targets that a network classifies as the adversarial class.

    success = 1/t Σ_i [argmax f(x_i) = a],   misclassified = 1/t Σ_i [argmax f(x_i) ≠ y_i]

    in evaluation mode. Unlearning is judged by the distance to a retrained network's, which may
    mistake a target too.

    Attributes:
      targets: see `poison_targets`; None, in a study, takes those of each attack.

    Example:
      audit = auditing.TargetedSuccess(auditing.poison_targets(poisoned, task.validation))
      metrics, curves = audit(key, model, variables, task)

    Source: Pawelczyk et al. 2024, §4.1 and §5.1.
    """

    targets: PoisonTargets | None = None

    trial: ClassVar[AuditTrial] = AuditTrial(
        tells=("adversarial_probability", 1), key_may_not_matter=True, attack="gradient_matching"
    )

    def __post_init__(self) -> None:
        if self.targets is None:
            return
        x, y, wanted = self.targets
        if x.shape[0] != y.shape[0] or not y.shape[0]:
            raise ValueError(
                f"each target needs its label, and there must be one, got x {list(x.shape)} and "
                f"y {list(y.shape)}"
            )
        already = np.flatnonzero(np.asarray(y) == np.asarray(wanted))
        if len(already):
            raise ValueError(
                f"targets must not be of the adversarial class already, row {already[0]} of class "
                f"{int(y[already[0]])} is ({len(already)} such); leave them out"
            )

    def __call__(
        self, key: Key[Array, ""], model: Model, variables: Variables, task: Task
    ) -> Audited:
        """Returns the success; only the shape of the task is used.

        Metrics: `targeted_success` and `targeted_misclassified` with exact 95 % intervals `_low`,
        `_high`; `adversarial_probability`, the mean probability of the adversarial class.

        Curves: `adversarial_probability`, [t].

        Raises:
          ValueError: a task, variables or targets that do not fit the model, or no targets.
        """
        if self.targets is None:
            raise ValueError("targets must be given outside of a study; see poison_targets")
        check_task(task, model)
        check_variables(variables, model)
        x, y, adversarial = self.targets
        given = Dataset(x, y, task.retain.normalisation)
        check_compatible(given, model, name="the targets")
        wanted = np.broadcast_to(np.asarray(adversarial), y.shape)
        if not 0 <= wanted.min() <= wanted.max() < model.n_classes:
            raise ValueError(
                f"adversarial_class must be in 0 … {model.n_classes - 1}, got {adversarial}"
            )
        logits = predict(model, variables, x)
        predicted, count = np.asarray(logits.argmax(-1)), y.shape[0]
        probability = np.asarray(jax.nn.softmax(logits))[np.arange(count), wanted]
        metrics = {
            **rate("targeted_success", int(np.sum(predicted == wanted)), count),
            **rate("targeted_misclassified", int(np.sum(predicted != np.asarray(y))), count),
            "adversarial_probability": float(probability.mean()),
        }
        return Audited(metrics, {"adversarial_probability": probability})

    def judge(self, key: Key[Array, ""], case: Case, subject: Subject) -> Audited:
        """Returns the success on the targets of the case's poisons, see `__call__`.

        Raises:
          NotApplicable: the training set was not poisoned, or by an attack without targets.
          ValueError: targets that do not fit the model.
        """
        audit = self
        if self.targets is None:
            poisoned = case.poisoned
            if poisoned is None or not has_targets(poisoned):
                raise NotApplicable(
                    "TargetedSuccess needs poisons with targets, as GradientMatching makes them"
                )
            audit = TargetedSuccess(poison_targets(poisoned, case.task.validation))
        return audit(key, case.model, subject.variables, case.task)
