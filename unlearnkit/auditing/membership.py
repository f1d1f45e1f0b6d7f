"""Membership inference against the forget set."""

from __future__ import annotations

import dataclasses
from typing import Literal, NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Float, Key
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, f1_score, roc_auc_score, roc_curve
from sklearn.model_selection import StratifiedKFold
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC

from unlearnkit.auditing.scores import LOW_FPRS
from unlearnkit.base import Audited, Model, Task, Variables
from unlearnkit.kernels import FEATURES, FeatureName, membership_features
from unlearnkit.training import predict
from unlearnkit.validation import (
    check_above,
    check_at_least,
    check_held_out,
    check_known,
    check_task,
    check_variables,
)

AttackerName = Literal["logistic", "svm"]


@dataclasses.dataclass(frozen=True)
class MembershipInference:
    """Attacks the forget set (members) against the test set (non-members) of one model.

    The larger of the two sets is subsampled to the size of the smaller; a linear classifier on
    standardised features is trained and scored by stratified cross-validation.

    Attributes:
      feature: what the attacker sees; see `membership_features`.
      attacker: `logistic` regression or linear `svm`.
      folds: of the cross-validation.
      C: inverse strength of the attacker's L2 penalty.

    Source: 001, section 6.2 (accuracy, AUC and F1 by 10-fold cross-validation); TPR at low FPR as
    Carlini et al. 2022 ask for. A model that over-forgets has an AUC near 0 and is as
    distinguishable as one near 1, so the larger tail is reported beside the AUC.
    """

    feature: FeatureName = "loss"
    attacker: AttackerName = "logistic"
    folds: int = 10
    C: float = 1.0

    def __post_init__(self) -> None:
        check_known("feature", self.feature, FEATURES)
        check_known("attacker", self.attacker, ("logistic", "svm"))
        check_at_least(self, 2, "folds")
        check_above(self, 0, "C")

    def __call__(
        self, key: Key[Array, ""], model: Model, variables: Variables, task: Task
    ) -> Audited:
        """Returns the attack's metrics, and its ROC curve as `fpr` and `tpr`.

        Raises:
          ValueError: a task that does not fit, or fewer examples than folds in a set.
        """
        check_task(task, model)
        check_held_out((task.retain, task.forget), task.test)
        check_variables(variables, model)
        members, others = (
            np.asarray(membership_features(self.feature, predict(model, variables, part.x), part.y))
            for part in (task.forget, task.test)
        )
        return self.attack(key, members, others)

    def attack(
        self,
        key: Key[Array, ""],
        members: Float[np.ndarray, "m d"],
        others: Float[np.ndarray, "k d"],
    ) -> Audited:
        """Returns the attack's metrics on features that are at hand.

        Standard errors are those of the mean over the folds; TPRs are of the pooled out-of-fold
        scores, with binomial standard errors.

        Args:
          key: chooses the subsample and the folds.
          members: features of the forget set.
          others: features of the test set.

        Raises:
          ValueError: fewer examples than folds in a set, or features that are not finite.
        """
        for name, part in (("members", members), ("others", others)):
            if not np.all(np.isfinite(part)):
                raise ValueError(
                    f"features of {name} must be finite, got NaN or infinity; "
                    "a network that gives them has diverged and cannot be audited"
                )
        size = min(len(members), len(others))
        if size < self.folds:
            raise ValueError(
                f"{self.folds} folds need at least {self.folds} forget and test examples each, "
                f"got {len(members)} and {len(others)}; choose folds <= {size}"
            )
        seed = int(jax.random.randint(key, (), 0, np.iinfo(np.int32).max))
        generator = np.random.default_rng(seed)
        chosen = [part[generator.permutation(len(part))[:size]] for part in (members, others)]
        x = np.concatenate(chosen).astype(np.float64)
        y = np.repeat([1, 0], size)
        scores, folds = self._cross_validate(x, y, seed)
        return _summarise(y, scores, folds)

    def _cross_validate(
        self, x: np.ndarray, y: np.ndarray, seed: int
    ) -> tuple[np.ndarray, list[_FoldScores]]:
        splitter = StratifiedKFold(self.folds, shuffle=True, random_state=seed)
        scores = np.empty(len(y))
        folds = []
        for train, held_out in splitter.split(x, y):
            classifier = self._classifier(seed).fit(x[train], y[train])
            decision = classifier.decision_function(x[held_out])
            scores[held_out] = decision
            truth, guess = y[held_out], decision > 0
            folds.append(
                _FoldScores(
                    float(accuracy_score(truth, guess)),
                    float(roc_auc_score(truth, decision)),
                    float(f1_score(truth, guess, zero_division=0.0)),
                )
            )
        return scores, folds

    def _classifier(self, seed: int) -> Pipeline:
        if self.attacker == "logistic":
            return make_pipeline(
                StandardScaler(), LogisticRegression(C=self.C, solver="newton-cholesky")
            )
        svm = LinearSVC(C=self.C, loss="squared_hinge", dual=False, random_state=seed)
        return make_pipeline(StandardScaler(), svm)


class _FoldScores(NamedTuple):
    accuracy: float
    auc: float
    f1: float


def _summarise(y: np.ndarray, scores: np.ndarray, folds: list[_FoldScores]) -> Audited:
    metrics: dict[str, float] = {}
    for name, values in zip(_FoldScores._fields, np.array(folds).T, strict=True):
        metrics[name] = float(values.mean())
        metrics[f"{name}_se"] = float(values.std(ddof=1) / np.sqrt(len(values)))
    metrics["auc_max"] = max(metrics["auc"], 1 - metrics["auc"])
    fpr, tpr, _ = roc_curve(y, scores)
    n_members = int(y.sum())
    for target in LOW_FPRS:
        reached = float(tpr[fpr <= target].max())
        metrics[f"tpr_at_fpr_{target:g}"] = reached
        metrics[f"tpr_at_fpr_{target:g}_se"] = float(np.sqrt(reached * (1 - reached) / n_members))
    return Audited(metrics, {"fpr": fpr, "tpr": tpr})
