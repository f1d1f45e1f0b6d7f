"""Membership by quantile regression: one threshold per example, no shadow networks."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import numpy as np
from jaxtyping import Array, Float, Key
from sklearn.decomposition import PCA
from sklearn.ensemble import HistGradientBoostingRegressor

from unlearnkit.auditing.intervals import rate
from unlearnkit.auditing.scores import check_scores, score_attack
from unlearnkit.auditing.threshold import ScoreName, membership_scores
from unlearnkit.base import Audited, Dataset, Model, Task, Variables
from unlearnkit.kernels import MEMBER_SIGNS
from unlearnkit.trials import AuditTrial
from unlearnkit.validation import (
    check_continuous,
    check_held_out,
    check_known,
    check_task,
    check_variables,
)


@dataclasses.dataclass(frozen=True)
class QuantileAttack:
    """Calls an example a member where its score exceeds what unseen examples like it reach.

    On the validation set, which was not trained on, boosted trees regress the (1 - α)-quantile
    q_α(x, y) of the score on the input and its label, by the pinball loss; an example is called a
    member where score > q_α(x, y). About a share α of unseen examples is then called so.

    Attributes:
      feature: whose score is compared, see `ThresholdAttack`.
      levels: α, in (0, 1).
      components: principal components of the input that the trees see, at most.
      iterations: trees.

    Example:
      audit = auditing.QuantileAttack("margin")
      metrics, curves = audit(key, model, variables, task)

    Source: Bertran et al. 2023, Scalable membership inference attacks via quantile regression. They
    regress with a neural network on images; trees on principal components keep it in seconds.
    """

    feature: ScoreName = "margin"
    levels: tuple[float, ...] = (0.1, 0.01)
    components: int = 16
    iterations: int = 50

    trial: ClassVar[AuditTrial] = AuditTrial(
        small={"levels": (0.1, 0.05), "components": 4, "iterations": 10}, key_may_not_matter=True
    )

    def __post_init__(self) -> None:
        check_known("feature", self.feature, MEMBER_SIGNS)
        if not self.levels or not all(0 < level < 1 for level in self.levels):
            raise ValueError(f"levels must be in (0, 1), got {self.levels}")
        if self.components < 1 or self.iterations < 1:
            raise ValueError(
                f"components and iterations must be >= 1, got {self.components} and "
                f"{self.iterations}"
            )

    def __call__(
        self, key: Key[Array, ""], model: Model, variables: Variables, task: Task
    ) -> Audited:
        """Returns the share of the forget set called member at each level.

        Metrics: `tpr_at_level_{α}` of the forget set and `fpr_at_level_{α}` of the test set, with
        exact 95 % intervals `_low`, `_high`; `auc`, `auc_se`, `auc_max`, `tpr_at_fpr_*` and
        `accuracy` of the score's distance to its regressed median, see `score_attack`.

        Raises:
          ValueError: a task or variables that do not fit the model; fewer than 1 / α validation
            examples for the smallest level; outputs that are not finite.
        """
        check_task(task, model)
        check_continuous(task.retain, method="QuantileAttack")
        check_held_out((task.retain, task.forget), task.test)
        check_variables(variables, model)
        least = min(self.levels)
        if task.validation.size < 1 / least:
            raise ValueError(
                f"the level {least:g} needs at least {int(np.ceil(1 / least))} validation "
                f"examples, got {task.validation.size}; choose larger levels"
            )
        names = ("forget", "test", "validation")
        parts = {name: getattr(task, name) for name in names}
        scores = {
            name: membership_scores(self.feature, model, variables, part)
            for name, part in parts.items()
        }
        check_scores(scores["forget"], scores["test"])
        check_scores(scores["validation"], scores["test"])
        inputs = self._inputs(parts, model.n_classes)
        known = inputs["validation"], scores["validation"]
        above = self._above(0.5, *known, inputs, scores)
        audited = score_attack(above["forget"], above["test"])
        metrics = dict(audited.metrics)
        for level in self.levels:
            above = self._above(1 - level, *known, inputs, scores)
            for short, name in (("tpr", "forget"), ("fpr", "test")):
                called = int(np.sum(above[name] > 0))
                metrics |= rate(f"{short}_at_level_{level:g}", called, len(above[name]))
        return Audited(metrics, audited.curves)

    def _inputs(self, parts: dict[str, Dataset], n_classes: int) -> dict[str, np.ndarray]:
        """Returns what the trees see: principal components of the input, and the label."""
        flat = {name: np.asarray(part.x).reshape(part.size, -1) for name, part in parts.items()}
        kept = min(self.components, *flat["validation"].shape)
        project = PCA(kept, svd_solver="full").fit(flat["validation"])
        onehot = {name: np.eye(n_classes)[np.asarray(part.y)] for name, part in parts.items()}
        return {
            name: np.concatenate([project.transform(x), onehot[name]], axis=1)
            for name, x in flat.items()
        }

    def _above(
        self,
        quantile: float,
        known: Float[np.ndarray, "k d"],
        population: Float[np.ndarray, " k"],
        inputs: dict[str, np.ndarray],
        scores: dict[str, np.ndarray],
    ) -> dict[str, np.ndarray]:
        """Returns each score less its regressed quantile."""
        regressor = HistGradientBoostingRegressor(
            loss="quantile",
            quantile=quantile,
            max_iter=self.iterations,
            early_stopping=False,
            random_state=0,
        ).fit(known, population)
        return {name: scores[name] - regressor.predict(inputs[name]) for name in ("forget", "test")}
