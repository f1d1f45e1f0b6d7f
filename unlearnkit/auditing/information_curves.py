"""Information over seeds, against test error as the noise grows, and query by query."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, Key, Num

from unlearnkit.auditing.gaussian_kl import gaussian_kl
from unlearnkit.auditing.information import (
    Correlations,
    GaussianWeights,
    observed,
    query_gaussians,
    query_information,
    query_set_information,
    weight_gaussians,
    white_box_information,
)
from unlearnkit.auditing.intervals import mean_and_error
from unlearnkit.base import Audited, Dataset, Model, Task, Variables
from unlearnkit.training import predict
from unlearnkit.validation import check_known, check_task


def information_bounds(
    model: Model,
    seeds: Sequence[tuple[GaussianWeights, GaussianWeights]],
    x: Num[Array, "n ..."],
    *,
    correlations: Correlations = "full",
    damping: float = 0.0,
) -> Audited:
    """Returns the three bounds of proposition 1 in nats, as means over training runs.

    Args:
      model: the network.
      seeds: of each run the scrubbed weights and the reference trained with the same seed.
      x: the queries.
      correlations: see `query_information`.
      damping: see `query_information`.

    Returns:
      Metrics: `white_box`, of the weights; `black_box`, of one query, averaged over
      the queries; `black_box_set`, of all queries together; each with its standard error
      over the runs, `_se`. Curves: the same by their names, a value per run.

    Raises:
      ValueError: fewer than two runs, or whatever `query_set_information` refuses.

    Source: Golatkar et al. 2020b, proposition 1, as corrected in `gaussian_kl`.
    """
    options: dict[str, Any] = {"correlations": correlations, "damping": damping}
    curves = {
        "white_box": np.array([white_box_information(*pair) for pair in seeds]),
        "black_box": np.array(
            [query_information(model, *pair, x, **options).mean() for pair in seeds]
        ),
        "black_box_set": np.array(
            [query_set_information(model, *pair, x, **options) for pair in seeds]
        ),
    }
    metrics = {}
    for name, values in curves.items():
        metrics[name], metrics[f"{name}_se"] = mean_and_error(values)
    return Audited(metrics, curves)


def information_tradeoff(
    key: Key[Array, ""],
    model: Model,
    scrubbed: GaussianWeights,
    reference: GaussianWeights,
    task: Task,
    *,
    levels: Sequence[float],
    draws: int = 5,
    queries: int = 100,
    asked: str = "forget",
    correlations: Correlations = "full",
    damping: float = 0.0,
) -> Audited:
    """Returns the remaining information and the test error against the level of the noise.

    At level s the noise of scrubbing and reference is N(0, s Σ) and N(0, s Σ₀). More noise leaves
    less information and makes more errors.

    Args:
      key: draws the noise and chooses the queries.
      model: the network.
      scrubbed: h(w) and Σ.
      reference: w_r and Σ₀.
      task: its test set gives the error, and one of its sets the queries.
      levels: s > 0.
      draws: scrubbed networks per level whose test error is averaged, at least 2.
      queries: examples that are asked, all where there are fewer.
      asked: of which set: `forget`, `retain` or `test`, as the public code does.
      correlations: see `query_information`.
      damping: see `query_information`.

    Returns:
      Curves, a value per level: `level`, `white_box` (nats), `black_box` (nats per query, mean over
      the queries) and its standard error `black_box_se`, `test_error` and `test_error_se` over the
      draws.

    Raises:
      ValueError: levels that are not > 0, fewer than 2 draws or queries, an unknown set, whatever
        `query_information` refuses.

    Source: Golatkar et al. 2020b, figure 3, left and centre.
    """
    check_task(task, model)
    scales = np.asarray(levels, np.float64)
    if scales.ndim != 1 or not scales.size or not np.all(scales > 0):
        raise ValueError(f"levels must be numbers > 0, got {levels}")
    if draws < 2 or queries < 2:
        raise ValueError(f"draws and queries must be >= 2, got {draws} and {queries}")
    check_known("asked", asked, ("forget", "retain", "test"))
    choose_key, noise_key = jax.random.split(key)
    x = getattr(task, asked).x
    x = x[jax.random.permutation(choose_key, len(x))[:queries]]
    answers = list(query_gaussians(model, scrubbed, reference, x))
    shift, *covariances = weight_gaussians(scrubbed, reference)
    noise = _root(covariances[0])
    columns = []
    for scale in scales:
        white = gaussian_kl(shift, *(scale * sigma for sigma in covariances))
        black = [
            gaussian_kl(delta, *observed([scale * s for s in sigmas], correlations, damping))
            for delta, *sigmas in answers
        ]
        errors = _noisy_errors(
            noise_key,
            scrubbed.variables,
            jnp.asarray(np.sqrt(scale) * noise, jnp.float32),
            task.test,
            model=model,
            draws=draws,
        )
        columns.append((scale, white, *mean_and_error(black), *mean_and_error(np.asarray(errors))))
    names = ("level", "white_box", "black_box", "black_box_se", "test_error", "test_error_se")
    return Audited({}, dict(zip(names, np.array(columns).T, strict=True)))


def sample_leakage(
    model: Model,
    scrubbed: GaussianWeights,
    reference: GaussianWeights,
    task: Task,
    *,
    limit: int = 500,
    correlations: Correlations = "full",
    damping: float = 0.0,
) -> Audited:
    """Returns the information that queries of the forget, retain and test set give, one by one.

    Args:
      model: the network.
      scrubbed: h(w) and Σ.
      reference: w_r and Σ₀.
      task: whose examples are asked.
      limit: the first examples of each set, at most.
      correlations: see `query_information`.
      damping: see `query_information`.

    Returns:
      Curves: `{forget,retain,test}`, nats of each query. Metrics: `information_{set}`, their mean,
      and `information_{set}_se`.

    Raises:
      ValueError: fewer than two examples of a set, or whatever `query_information` refuses.

    Source: Golatkar et al. 2020b, figure 3, right.
    """
    check_task(task, model)
    metrics, curves = {}, {}
    for name in ("forget", "retain", "test"):
        x = getattr(task, name).x[:limit]
        nats = query_information(
            model, scrubbed, reference, x, correlations=correlations, damping=damping
        )
        curves[name] = nats
        metrics[f"information_{name}"], metrics[f"information_{name}_se"] = mean_and_error(nats)
    return Audited(metrics, curves)


def _root(sigma: np.ndarray) -> np.ndarray:
    return np.sqrt(sigma) if sigma.ndim == 1 else np.linalg.cholesky(sigma)


@partial(jax.jit, static_argnames=("model", "draws"))
def _noisy_errors(
    key: Key[Array, ""],
    variables: Variables,
    root: Float[Array, "*s"],
    test: Dataset,
    *,
    model: Model,
    draws: int,
) -> Float[Array, " draws"]:
    mean, unravel = ravel_pytree(variables.params)

    def one(draw_key: Key[Array, ""]) -> Array:
        normal = jax.random.normal(draw_key, mean.shape)
        noisy = mean + (root * normal if root.ndim == 1 else root @ normal)
        logits = predict(model, Variables(unravel(noisy), variables.state), test.x)
        return jnp.mean(jnp.argmax(logits, -1) != test.y)

    found: Array = jax.lax.map(one, jax.random.split(key, draws))
    return found
