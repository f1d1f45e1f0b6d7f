"""Whether a method moves the weights towards the retrained network's outputs."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from unlearnkit.base import Audited, Model, Task, Variables
from unlearnkit.training import predict
from unlearnkit.validation import check_task, check_variables

SETS = ("forget", "retain")


def scrubbing_path(
    model: Model,
    original: Variables,
    scrubbed: Variables,
    retrained: Variables,
    task: Task,
    *,
    alphas: Float[np.ndarray, " k"] | None = None,
) -> Audited:
    """Returns the distance to the retrained outputs along the line from original to scrubbed.

    d(α) = mean_x ‖softmax f(w_α, x) - softmax f(w_retrained, x)‖₁,
    w_α = (1 - α) w_original + α w_scrubbed.

    The running statistics are interpolated like the weights.

    Args:
      model: the network.
      original: the weights at α = 0.
      scrubbed: the weights at α = 1.
      retrained: weights trained without the forget set.
      task: the distances are means over its forget and its retain set.
      alphas: where on the line; 11 points from 0 to 1 where None. Values beyond 1 go further.

    Returns:
      Curves: `alpha`, `forget` and `retain`, [k]. Metrics: `distance_{set}_original` (α = 0),
      `distance_{set}_scrubbed` (α = 1), and `best_alpha`, where on `alphas` the distance of the
      forget set is least.

    Raises:
      ValueError: a task or weights that do not fit the model, or alphas that are none or not
        finite.

    Source: Golatkar et al. 2020b, figure 4 and §5.5 (closeness of activations).
    """
    check_task(task, model)
    for variables in (original, scrubbed, retrained):
        check_variables(variables, model)
    along = np.linspace(0, 1, 11) if alphas is None else np.asarray(alphas, np.float64)
    if along.ndim != 1 or not along.size or not np.all(np.isfinite(along)):
        raise ValueError(f"alphas must be a list of finite numbers, got {alphas}")
    places = jnp.asarray(np.concatenate([[0.0, 1.0], along]), jnp.float32)
    curves: dict[str, np.ndarray] = {"alpha": along}
    metrics: dict[str, float] = {}
    for name in SETS:
        x = getattr(task, name).x
        distances = np.asarray(_distances(original, scrubbed, retrained, x, places, model=model))
        curves[name] = distances[2:]
        metrics[f"distance_{name}_original"] = float(distances[0])
        metrics[f"distance_{name}_scrubbed"] = float(distances[1])
    metrics["best_alpha"] = float(along[np.argmin(curves["forget"])])
    return Audited(metrics, curves)


@partial(jax.jit, static_argnames="model")
def _distances(
    original: Variables,
    scrubbed: Variables,
    retrained: Variables,
    x: Array,
    alphas: Float[Array, " k"],
    *,
    model: Model,
) -> Float[Array, " k"]:
    target = jax.nn.softmax(predict(model, retrained, x))

    def at(alpha: Array) -> Array:
        # (1 - α) a + α b, and not a + α (b - a), so that both ends are met exactly.
        between = jax.tree.map(lambda a, b: (1 - alpha) * a + alpha * b, original, scrubbed)
        return jnp.abs(jax.nn.softmax(predict(model, between, x)) - target).sum(-1).mean()

    found: Array = jax.lax.map(at, alphas)
    return found
