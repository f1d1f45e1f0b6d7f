"""What is left of a poisoning after unlearning: all effects that the attack's poisons can have."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

from jaxtyping import Array, Key

from unlearnkit.auditing.accuracy_drop import AccuracyDrop
from unlearnkit.auditing.case import Case, CaseAudit, NotApplicable, Subject, extras_of
from unlearnkit.auditing.evaluate import accuracy
from unlearnkit.auditing.gaussian_unlearning import GaussianUnlearningScore
from unlearnkit.auditing.model_shift import model_shift
from unlearnkit.auditing.targeted_success import TargetedSuccess, has_targets
from unlearnkit.auditing.trigger_success import TriggerSuccess
from unlearnkit.base import Audited
from unlearnkit.trials import AuditTrial


@dataclasses.dataclass(frozen=True)
class PoisonEffects:
    """Accuracies, the drop of accuracy, and what this attack's poisons do besides.

    Metrics:
      accuracy_{retain,forget}: on the clean examples that stay, if any, and on the poisons
      accuracy_test, accuracy_clean, accuracy_drop, accuracy_drop_se: see `AccuracyDrop`
      gaussian_*: see `GaussianUnlearningScore`; where the attack kept its noise
      targets_*: see `TargetedSuccess`; where the attack had targets
      trigger_*: see `TriggerSuccess`; where the attack has a trigger
      shift_{l1,l2}: how far the weights are from those that trained on the poisons
      compute: example-gradients, as a share of those of retraining, where that takes any

    Example:
      study = studies.Study(
          data=studies.Pair(train, test),
          networks=model,
          recipes=training.Recipe(),
          attacks=poisoning.GaussianPoison(),
          audits={"effects": auditing.PoisonEffects()},
      )

    Source: Pawelczyk et al. 2024, §4 and §5.1.
    """

    trial: ClassVar[AuditTrial] = AuditTrial(
        tells=("accuracy_forget", 1), key_may_not_matter=True, attack="label_flip"
    )

    def judge(self, key: Key[Array, ""], case: Case, subject: Subject) -> Audited:
        """Returns the metrics above, and the curves of the parts, prefixed likewise.

        Raises:
          NotApplicable: the training set was not poisoned.
          DivergedError: a network that cannot be audited.
        """
        if case.poisoned is None:
            raise NotApplicable("the training set was not poisoned; PoisonEffects needs an attack")
        metrics: dict[str, float] = {}
        curves: dict[str, Any] = {}
        for name in ("retain", "forget"):
            part = getattr(case.task, name)
            if part.size:
                metrics[f"accuracy_{name}"] = accuracy(case.model, subject.variables, part)
        for prefix, audit in _effects(case).items():
            found = audit.judge(key, case, subject)
            metrics |= {f"{prefix}{name}": value for name, value in found.metrics.items()}
            curves |= {f"{prefix}{name}": value for name, value in found.curves.items()}
        shift = model_shift(subject.variables.params, case.original.params)
        metrics |= {"shift_l1": shift.l1, "shift_l2": shift.l2}
        if case.full_gradients > 0:
            metrics["compute"] = subject.cost.example_gradients / case.full_gradients
        return Audited(metrics, curves)


def _effects(case: Case) -> dict[str, CaseAudit]:
    """Returns the audits of the effects of this attack, by the prefix of their metrics."""
    assert case.poisoned is not None
    chosen: dict[str, CaseAudit] = {"": AccuracyDrop()}
    extras = extras_of(case.poisoned)
    if "noise" in extras:
        chosen["gaussian_"] = GaussianUnlearningScore()
    if has_targets(case.poisoned):
        chosen["targets_"] = TargetedSuccess()
    if "trigger" in extras:
        chosen["trigger_"] = TriggerSuccess()
    return chosen
