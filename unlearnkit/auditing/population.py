"""Membership by comparison with the scores of a population that was not trained on."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import numpy as np
from jaxtyping import Array, Float, Key

from unlearnkit.auditing.intervals import rate
from unlearnkit.auditing.scores import check_scores, score_attack
from unlearnkit.auditing.threshold import ScoreName, membership_scores
from unlearnkit.base import Audited, Model, Task, Variables
from unlearnkit.kernels import MEMBER_SIGNS
from unlearnkit.trials import AuditTrial
from unlearnkit.validation import check_held_out, check_known, check_task, check_variables

LEVELS = (0.1, 0.01, 0.001)


@dataclasses.dataclass(frozen=True)
class PopulationAttack:
    """Calls an example a member where few of a population score as high.

    Each example has the p-value (1 + #{population scores >= its own}) / (1 + population); it is
    called a member at level α where p <= α. The validation set is the population. For an example
    that was not trained on p is uniform, so that α bounds the false positive rate before any test
    example is seen; levels below 1 / (1 + population) call nothing a member.

    Attributes:
      feature: whose score is compared, see `ThresholdAttack`.
      per_class: whether an example is compared with the population of its own label.
      levels: α, in (0, 1).

    Example:
      audit = auditing.PopulationAttack("loss")
      metrics, curves = audit(key, model, variables, task)

    Source: Ye et al. 2022, Enhanced membership inference attacks, attack P; one attacker for all
    examples is what Hayes et al. 2024 call a population U-MIA.
    """

    feature: ScoreName = "loss"
    per_class: bool = False
    levels: tuple[float, ...] = LEVELS

    trial: ClassVar[AuditTrial] = AuditTrial(key_may_not_matter=True)

    def __post_init__(self) -> None:
        check_known("feature", self.feature, MEMBER_SIGNS)
        if not self.levels or not all(0 < level < 1 for level in self.levels):
            raise ValueError(f"levels must be in (0, 1), got {self.levels}")

    def __call__(
        self, key: Key[Array, ""], model: Model, variables: Variables, task: Task
    ) -> Audited:
        """Returns the share of the forget set called member at each level.

        Metrics: `tpr_at_level_{α}` of the forget set and `fpr_at_level_{α}` of the test set, with
        exact 95 % intervals `_low`, `_high`; `auc`, `auc_se`, `auc_max`, `tpr_at_fpr_*` and
        `accuracy` of 1 - p, see `score_attack`. Curves: `fpr`, `tpr`; `p_forget` and `p_test`.

        Raises:
          ValueError: a task or variables that do not fit the model; with `per_class`, a class of
            the forget or test set that validation lacks; outputs that are not finite.
        """
        check_task(task, model)
        check_held_out((task.retain, task.forget), task.test)
        check_variables(variables, model)
        scores = {
            name: membership_scores(self.feature, model, variables, getattr(task, name))
            for name in ("forget", "test", "validation")
        }
        check_scores(scores["forget"], scores["test"])
        check_scores(scores["validation"], scores["test"])
        p = {name: self._p_values(scores, task, name) for name in ("forget", "test")}
        audited = score_attack(1 - p["forget"], 1 - p["test"])
        metrics = dict(audited.metrics)
        for level in self.levels:
            for short, name in (("tpr", "forget"), ("fpr", "test")):
                called = int(np.sum(p[name] <= level))
                metrics |= rate(f"{short}_at_level_{level:g}", called, len(p[name]))
        curves = {**audited.curves, "p_forget": p["forget"], "p_test": p["test"]}
        return Audited(metrics, curves)

    def _p_values(self, scores: dict[str, np.ndarray], task: Task, name: str) -> np.ndarray:
        if not self.per_class:
            return p_values(scores[name], scores["validation"])
        labels, known = np.asarray(getattr(task, name).y), np.asarray(task.validation.y)
        p = np.empty(len(labels))
        for label in np.unique(labels):
            population = scores["validation"][known == label]
            if not len(population):
                raise ValueError(
                    f"class {label} of the {name} set has no population: validation holds none of "
                    "its examples; choose per_class=False"
                )
            p[labels == label] = p_values(scores[name][labels == label], population)
        return p


def p_values(
    scores: Float[np.ndarray, " n"], population: Float[np.ndarray, " k"]
) -> Float[np.ndarray, " n"]:
    """Returns (1 + #{population >= score}) / (1 + k) of every score."""
    below = np.searchsorted(np.sort(population), scores, side="left")
    return (1 + len(population) - below) / (1 + len(population))
