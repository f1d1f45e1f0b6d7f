"""Membership inference against the forget set."""

from __future__ import annotations

import dataclasses

import jax
import numpy as np
from jaxtyping import Array, Float, Key
from scipy import stats
from sklearn.metrics import roc_curve
from sklearn.model_selection import StratifiedKFold

from unlearnkit.auditing._linear_attackers import AttackerName, decide
from unlearnkit.auditing._one_member import attack_one
from unlearnkit.auditing.intervals import CONFIDENCE, clopper_pearson
from unlearnkit.auditing.scores import LOW_FPRS, auc, placements, tpr_at_fpr
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

DEFAULT_FOLDS = 10
"""The default number of folds."""
TAIL = (1 - CONFIDENCE) / 2


@dataclasses.dataclass(frozen=True)
class MembershipInference:
    """Attacks the forget set (members) against the test set (non-members) of one model.

    The larger of the two sets is subsampled to the size of the smaller; a linear classifier on
    standardised features is trained and scored by stratified cross-validation, all of it `repeats`
    times.

    Two things make its numbers uncertain. Which subsample and folds were drawn: the standard
    deviation over the repeats, `{metric}_split_std`, 2.2 points of accuracy at 100 forget examples
    and 6.2 at 20; repeating makes the mean's share of it smaller. And which examples there were to
    forget and to test on: the interval `{metric}_low`, `{metric}_high`. It is the one that counts
    for any conclusion, and no repeating makes it smaller.

    Attributes:
      feature: what the attacker sees; see `membership_features`.
      attacker: `logistic` regression or linear `svm`.
      folds: of the cross-validation. None takes 10, or as many as the smaller set has examples
        where these are fewer (leave one out of each; the metric `folds` says so). A single forget
        example is ranked among the others instead, see `attack_one`.
      C: inverse strength of the attacker's L2 penalty.
      repeats: subsamples and folds that are drawn; metrics are means over them.

    Example:
      audit = auditing.MembershipInference("loss", "logistic", repeats=5)
      metrics, curves = audit(key, model, variables, task)

    Source: Di et al. 2024, §6.2 (accuracy, AUC and F1 by 10-fold cross-validation); Nadeau & Bengio
    2003 (corrected variance over folds); TPR at low FPR as Carlini et al. 2022 ask for. A model
    that over-forgets has an AUC near 0 and is as distinguishable as one near 1, so the larger tail
    is reported beside the AUC. F1 is there for comparison with Di et al. 2024 alone: on pure noise
    it is .3 ± .2, as it depends on which of two answers an ignorant classifier gives.
    """

    feature: FeatureName = "loss"
    attacker: AttackerName = "logistic"
    folds: int | None = None
    C: float = 1.0
    repeats: int = 5

    def __post_init__(self) -> None:
        check_known("feature", self.feature, FEATURES)
        check_known("attacker", self.attacker, ("logistic", "svm"))
        check_at_least(self, 2, "repeats")
        if self.folds is not None:
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
        """Returns the attack's metrics on given features.

        Metrics: `accuracy`, `auc` and `f1`, means over the folds; `auc_max`; `tpr_at_fpr_*` of the
        out-of-fold scores of all folds together, at the largest FPR that is not above the target;
        and of each `_split_std`, over the repeats. `_low` and `_high` are the ends of a 95 %
        interval over the examples. With the classifiers given it is exact for rates, of
        2 size decisions for the accuracy and of the members for a TPR, and ± 1.96 `auc_se` (DeLong)
        for the AUC; for accuracy and AUC the corrected variance over the folds, s² (1 / all folds +
        1 / (folds - 1)), counts where it is wider, as classifiers vary with the examples too. They
        hold the truth in some 95 % of cases where there is something to find; on pure noise, where
        even the sign of the classifier is chance, in 92 % (accuracy) and 78 % (AUC). F1 has none.

        Curves: `fpr` and `tpr` of the first repeat.

        Args:
          key: chooses the subsamples and the folds.
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
        if self.folds is not None and size < self.folds:
            remedy = f"choose folds <= {size}, or None" if size > 1 else "choose folds=None"
            raise ValueError(
                f"{self.folds} folds need at least {self.folds} forget and test examples each, "
                f"got {len(members)} and {len(others)}; {remedy}"
            )
        seed = int(jax.random.randint(key, (), 0, np.iinfo(np.int32).max))
        if len(members) == 1:
            return attack_one(self._decide, members, others, seed)
        if size == 1:
            raise ValueError("at least 2 test examples are needed beside several members, got 1")
        later = np.random.default_rng(seed).integers(np.iinfo(np.int32).max, size=self.repeats - 1)
        count = self.folds or min(DEFAULT_FOLDS, size)
        y = np.repeat([1, 0], size)
        splits, folds = [], []
        for split_seed in (seed, *later.tolist()):
            generator = np.random.default_rng(split_seed)
            chosen = [part[generator.permutation(len(part))[:size]] for part in (members, others)]
            x = np.concatenate(chosen).astype(np.float64)
            scores, found = self._cross_validate(x, y, count, split_seed)
            splits.append(scores)
            folds.append(found)
        fpr, tpr, _ = roc_curve(y, splits[0])
        folds_used = {"folds": float(count)} if count < DEFAULT_FOLDS and self.folds is None else {}
        return Audited({**_summarise(y, splits, folds), **folds_used}, {"fpr": fpr, "tpr": tpr})

    def _cross_validate(
        self, x: np.ndarray, y: np.ndarray, count: int, seed: int
    ) -> tuple[np.ndarray, list[dict[str, float]]]:
        """Returns the out-of-fold scores of one split, and what each fold's achieve."""
        splitter = StratifiedKFold(count, shuffle=True, random_state=seed)
        parts = [held_out for _, held_out in splitter.split(x, y)]
        trained = np.ones((count, len(y)))
        for fold, held_out in enumerate(parts):
            trained[fold, held_out] = 0
        decisions = self._decide(x, y, trained)
        scores = np.empty(len(y))
        folds = []
        for decision, held_out in zip(decisions, parts, strict=True):
            scores[held_out] = decision[held_out]
            folds.append(_of_fold(scores[held_out], y[held_out] == 1))
        return scores, folds

    def _decide(self, x: np.ndarray, y: np.ndarray, weights: np.ndarray) -> np.ndarray:
        return decide(x, y, weights, attacker=self.attacker, C=self.C)


def _of_fold(scores: np.ndarray, is_member: np.ndarray) -> dict[str, float]:
    """Returns what the scores of one held-out fold achieve."""
    called = scores > 0
    found = int(np.sum(called & is_member))
    return {
        "accuracy": float(np.mean(called == is_member)),
        "auc": float(placements(scores[is_member], scores[~is_member]).mean()),
        "f1": 2 * found / int(called.sum() + is_member.sum()),
    }


def _summarise(
    y: np.ndarray, splits: list[np.ndarray], folds: list[list[dict[str, float]]]
) -> dict[str, float]:
    """Returns the metrics of out-of-fold scores, one entry per split; see `attack`."""
    size = int(y.sum())
    metrics: dict[str, float] = {}
    reach: dict[str, float] = {}
    for name in folds[0][0]:
        values = np.array([[fold[name] for fold in split] for split in folds])
        metrics[name] = float(values.mean())
        metrics[f"{name}_split_std"] = float(values.mean(axis=1).std(ddof=1))
        error = values.std(ddof=1) * np.sqrt(1 / values.size + 1 / (values.shape[1] - 1))
        reach[name] = float(error * stats.t.isf(TAIL, values.size - 1))
    for target in LOW_FPRS:
        name = f"tpr_at_fpr_{target:g}"
        tprs = [tpr_at_fpr(s[y == 1], s[y == 0], target)[name] for s in splits]
        metrics[name] = float(np.mean(tprs))
        metrics[f"{name}_split_std"] = float(np.std(tprs, ddof=1))
        ends = clopper_pearson(round(metrics[name] * size), size)
        metrics[f"{name}_low"], metrics[f"{name}_high"] = ends
    ends = clopper_pearson(round(metrics["accuracy"] * 2 * size), 2 * size)
    metrics["auc_max"] = max(metrics["auc"], 1 - metrics["auc"])
    metrics["auc_se"] = float(np.mean([auc(s[y == 1], s[y == 0]).standard_error for s in splits]))
    reach["auc"] = max(reach["auc"], float(stats.norm.isf(TAIL)) * metrics["auc_se"])
    for name, (low, high) in {"accuracy": ends, "auc": (1.0, 0.0)}.items():
        metrics[f"{name}_low"] = max(min(low, metrics[name] - reach[name]), 0.0)
        metrics[f"{name}_high"] = min(max(high, metrics[name] + reach[name]), 1.0)
    return metrics
