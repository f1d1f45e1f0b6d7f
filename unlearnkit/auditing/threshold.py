"""Membership by a threshold that is calibrated on held-out examples."""

from __future__ import annotations

import dataclasses
from typing import ClassVar, Literal

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from unlearnkit.auditing.intervals import rate
from unlearnkit.auditing.scores import check_scores, score_attack
from unlearnkit.base import Audited, Dataset, Model, Task, Variables
from unlearnkit.kernels import MEMBER_SIGNS, membership_features
from unlearnkit.training import predict
from unlearnkit.trials import AuditTrial
from unlearnkit.validation import check_held_out, check_known, check_task, check_variables

ScoreName = Literal["loss", "confidence", "entropy", "modified_entropy", "margin"]


@dataclasses.dataclass(frozen=True)
class ThresholdAttack:
    """Calls an example a member where its score exceeds a threshold.

    The score is a feature with the sign that makes members' scores larger. The threshold is the one
    of best balanced accuracy on examples whose membership the attacker knows: retain (members)
    against validation (non-members). The forget and the test set have no part in it.

    Attributes:
      feature: `loss`, `confidence`, `entropy`, `modified_entropy` or `margin`.
      per_class: whether each label has its own threshold.

    Example:
      audit = auditing.ThresholdAttack("confidence", per_class=True)
      metrics, curves = audit(key, model, variables, task)

    Source: Yeom et al. 2018 (loss); Song & Mittal 2021 (confidence, entropy and modified entropy,
    a threshold per class). They calibrate on a shadow network; here the attacker knows the retain
    set, which makes the attack stronger.
    """

    feature: ScoreName = "loss"
    per_class: bool = False

    trial: ClassVar[AuditTrial] = AuditTrial(tells=("member_share", 1), key_may_not_matter=True)

    def __post_init__(self) -> None:
        check_known("feature", self.feature, MEMBER_SIGNS)

    def __call__(
        self, key: Key[Array, ""], model: Model, variables: Variables, task: Task
    ) -> Audited:
        """Returns the share of the forget set called member, and what the score achieves at best.

        Metrics: `member_share` of the forget set and `false_positive_rate` of the test set, with
        exact 95 % intervals `_low`, `_high`; `accuracy` = (member_share + 1 - FPR) / 2; `auc`,
        `auc_se`, `auc_max` and `tpr_at_fpr_*` of the score, see `score_attack`. With `per_class`
        the score is the distance to the threshold of its class.

        Raises:
          ValueError: a task or variables that do not fit the model; with `per_class`, a class of
            the forget or test set that retain or validation lacks; outputs that are not finite.
        """
        check_task(task, model)
        check_held_out((task.retain, task.forget), task.test)
        check_variables(variables, model)
        scores = {
            name: membership_scores(self.feature, model, variables, part)
            for name, part in task._asdict().items()
        }
        check_scores(scores["retain"], scores["validation"])
        check_scores(scores["forget"], scores["test"])
        margin = {}
        for name in ("forget", "test"):
            labels = np.asarray(getattr(task, name).y)
            margin[name] = scores[name] - self._thresholds(scores, task, labels, name)
        audited = score_attack(margin["forget"], margin["test"])
        called = {name: int(np.sum(values > 0)) for name, values in margin.items()}
        metrics = {
            **audited.metrics,
            **rate("member_share", called["forget"], len(margin["forget"])),
            **rate("false_positive_rate", called["test"], len(margin["test"])),
        }
        metrics["accuracy"] = (metrics["member_share"] + 1 - metrics["false_positive_rate"]) / 2
        return Audited(metrics, audited.curves)

    def _thresholds(
        self, scores: dict[str, np.ndarray], task: Task, labels: np.ndarray, name: str
    ) -> np.ndarray:
        """Returns the threshold of each example with these labels."""
        members, others = scores["retain"], scores["validation"]
        if not self.per_class:
            return np.full(len(labels), best_threshold(members, others))
        known = np.asarray(task.retain.y), np.asarray(task.validation.y)
        thresholds = np.empty(len(labels))
        for label in np.unique(labels):
            mine = [s[y == label] for s, y in zip((members, others), known, strict=True)]
            if not all(len(s) for s in mine):
                raise ValueError(
                    f"class {label} of the {name} set has no threshold: retain holds "
                    f"{len(mine[0])} and validation {len(mine[1])} of its examples; "
                    "choose per_class=False"
                )
            thresholds[labels == label] = best_threshold(*mine)
        return thresholds


def membership_scores(
    feature: ScoreName, model: Model, variables: Variables, dataset: Dataset
) -> Float[np.ndarray, " n"]:
    """Returns a score per example that is larger for members, in float64.

    Args:
      feature: a `ScoreName`, as `loss`, `confidence` or `margin`.
      model: the network.
      variables: its weights and state.
      dataset: n examples.
    """
    return scores_of_logits(feature, predict(model, variables, dataset.x), dataset.y)


def scores_of_logits(
    feature: ScoreName, logits: Float[Array, "n c"], labels: Int[Array, " n"]
) -> Float[np.ndarray, " n"]:
    """Returns `membership_scores` of given outputs.

    Args:
      feature: see `membership_scores`.
      logits: [n, c] of the examples.
      labels: [n] their classes.
    """
    values = membership_features(feature, logits, jnp.asarray(labels))[:, 0]
    return MEMBER_SIGNS[feature] * np.asarray(values, np.float64)


def best_threshold(members: Float[np.ndarray, " m"], others: Float[np.ndarray, " k"]) -> float:
    """Returns the t that maximises P(member > t) + P(other <= t).

    It lies half-way between two neighbouring scores; of equally good ones the largest is taken,
    which calls the fewest examples members.
    """
    values = np.unique(np.concatenate([members, others]))
    between = (values[1:] + values[:-1]) / 2
    candidates = np.concatenate([[values[0] - 1.0], between, [values[-1] + 1.0]])
    above = 1 - np.searchsorted(np.sort(members), candidates, side="right") / len(members)
    below = np.searchsorted(np.sort(others), candidates, side="right") / len(others)
    # Without rounding, equally good thresholds would be separated by the last bit.
    quality = np.round(above + below, 12)
    return float(candidates[np.flatnonzero(quality == quality.max())[-1]])
