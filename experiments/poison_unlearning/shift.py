"""Hypothesis 1: how far poisons and clean samples move logistic regression on features."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression

from experiments.frame import Data
from experiments.poison_unlearning.settings import Setting
from unlearnkit import models
from unlearnkit.auditing import model_shift
from unlearnkit.base import Dataset, Model, Task, Variables
from unlearnkit.poisoning import Bounds, Budget, GradientCanceling, GradientMatching, GradPC
from unlearnkit.training import penultimate

SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)
"""β: how much of the poisons, or of the random samples, is taken away."""
RIDGE = 5e-4
"""λ of (λ/2)‖w‖²: without it separable features have no minimiser."""
_STEPS = 10_000
_TOLERANCE = 1e-7
"""Of each partial derivative."""
_LARGEST_RESIDUAL = 1e-4
_RATE = 100.0
"""Features that the regression fits have slopes near 0: at a rate of 10 they do not move."""


class Shifts(NamedTuple):
    """By what is taken away, ‖θ(S) - θ(S without a share β of it)‖ at each of `SHARES`.

    Attributes:
      l1, l2: by `indiscriminate`, `targeted` and `random`.
      residual: the largest gradient norm at which a training ended.
    """

    l1: dict[str, list[float]]
    l2: dict[str, list[float]]
    residual: float


def study_shift(key: Key[Array, ""], body: Variables, data: Data, setting: Setting) -> Shifts:
    """Returns the curves of Figure 4 for one set of poisons.

    Features are those before the last layer of a network trained on the clean data, standardised.
    The attacks poison features, not images: gradient canceling without bounds, gradient matching by
    at most one standard deviation of each. Both leave the training set as large as it was.

    Args:
      key: of the attacks and of the random samples.
      body: the network's weights, trained on clean data.
      data: whose features the regression is fitted to; the target is of its test set.
      setting: the scale.

    Raises:
      ValueError: a training did not converge.

    Source: Pawelczyk et al. 2024, §6, Figure 4 and C.1.
    """
    clean, unseen = (
        standard_features(data.model, body, part, data.train) for part in (data.train, data.test)
    )
    m, classes = setting.feature_poisons, data.model.n_classes
    regression = models.create("logistic", input_shape=clean.x.shape[1:], n_classes=classes)
    layer = _as_layer(regression, solve(clean.x, clean.y, classes)[0])
    last = clean.size - 1
    task = Task(clean.take(np.arange(last)), clean.take(np.array([last])), unseen, unseen)
    canceling_key, matching_key, random_key = jax.random.split(key, 3)
    canceling = GradientCanceling(
        Budget(count=m), placement="perturb", corruption=GradPC(radius=1.0), learning_rate=_RATE
    )
    bounds = Bounds(box=None, radius=1.0, units="network")
    restarts, steps = setting.matching.restarts, setting.matching.steps
    matching = GradientMatching(
        Budget(count=m), bounds, restarts=restarts, steps=steps, shift=0, flip=False
    )
    drawn = np.asarray(jax.random.permutation(random_key, clean.size))[:m]
    sets = {"random": (clean, drawn)}
    for name, attack, attack_key in (
        ("indiscriminate", canceling, canceling_key),
        ("targeted", matching, matching_key),
    ):
        poisoned = attack(attack_key, regression, layer, task)
        sets[name] = poisoned.dataset, np.flatnonzero(poisoned.is_poison)
    return _shifts(sets, classes)


def _shifts(sets: Mapping[str, tuple[Dataset, np.ndarray]], classes: int) -> Shifts:
    found, worst = Shifts({}, {}, 0.0), 0.0
    for name, (dataset, rows) in sets.items():
        gone = [rows[: round(share * len(rows))] for share in SHARES]
        kept = [dataset.take(np.setdiff1d(np.arange(dataset.size), some)) for some in gone]
        ends, residuals = zip(*(solve(part.x, part.y, classes) for part in kept), strict=True)
        moved = [model_shift({"w": ends[0]}, {"w": end}) for end in ends]
        found.l1[name] = [shift.l1 for shift in moved]
        found.l2[name] = [shift.l2 for shift in moved]
        worst = max(worst, *residuals)
    return found._replace(residual=worst)


def standard_features(
    model: Model, variables: Variables, dataset: Dataset, reference: Dataset
) -> Dataset:
    """Returns the penultimate features of `dataset`, of mean 0 and deviation 1 over `reference`.

    A feature that is constant there is 0.
    """
    base = penultimate(model, variables, reference.x)
    spread = base.std(0)
    scale = jnp.where(spread > 0, 1 / jnp.where(spread > 0, spread, 1), 0)
    seen = penultimate(model, variables, dataset.x)
    return Dataset((seen - base.mean(0)) * scale, dataset.y)


def solve(
    x: Float[Array, "n d"], y: Int[Array, " n"], n_classes: int
) -> tuple[Float[np.ndarray, "d1 c"], float]:
    """Returns the minimiser of the mean cross-entropy + (λ/2)‖w‖², and its gradient's norm.

    The last row of w is the bias. By L-BFGS on all examples: no order of batches hides a shift.

    Raises:
      ValueError: it did not converge.
    """
    whole = np.concatenate([np.asarray(x, np.float64), np.ones((len(x), 1))], axis=1)
    labels, weight = np.asarray(y), RIDGE * len(x)
    solver = LogisticRegression(C=1 / weight, fit_intercept=False, tol=_TOLERANCE, max_iter=_STEPS)
    with warnings.catch_warnings(action="ignore", category=ConvergenceWarning):
        w = solver.fit(whole, labels).coef_.T
    wrong = solver.predict_proba(whole) - np.eye(n_classes)[labels]
    residual = float(np.linalg.norm(whole.T @ wrong / len(x) + RIDGE * w))
    if residual > _LARGEST_RESIDUAL:
        raise ValueError(
            f"logistic regression ended with a gradient of norm {residual:.1e} after at most "
            f"{_STEPS} steps, above {_LARGEST_RESIDUAL}"
        )
    return w, residual


def _as_layer(regression: Model, w: Float[np.ndarray, "d1 c"]) -> Variables:
    """Returns the weights of a solution as those of the library's logistic regression."""
    (path,), found = regression.layers[-1], jnp.asarray(w, jnp.float32)
    params: Any = {"kernel": found[:-1], "bias": found[-1]}
    for name in reversed(path):
        params = {name: params}
    return Variables(params)
