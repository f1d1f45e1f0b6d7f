"""Hypothesis 2 on a linear regression (Pawelczyk et al. 2024, C.2): where clean gradients lead."""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from unlearnkit.auditing import model_shift, update_cosines


@dataclasses.dataclass(frozen=True)
class LeastSquares:
    """The regression, its poisons, and what Pawelczyk et al. 2024 leave open.

    x_i ~ N(0, I) in the first `informative` coordinates and N(0, 1e-4 I) in the others;
    y_i = <w_1, x_i> + N(0, 1e-2) for the first half, <w_2, x_i> + N(0, 1e-2) for the other, w_1 and
    w_2 orthogonal, of norm 1, 0 in the other coordinates. Second arguments of N are variances.

    θ(S) is what mini-batch gradient descent on (<w, x> - y)²/2 from 0 ends at. Pawelczyk et al.
    2024 name neither its rate nor its length; the exact minimiser cannot be meant, whose weights in
    the coordinates without information are nearly noise (their ℓ1 norm is in the hundreds, the
    reported shift 3.3).

    Attributes:
      samples, features, informative: N, d, and how many coordinates are informative.
      poisons: of gradient canceling, made of as many random samples and added.
      removed: random samples of the second half, taken away in the place of poisons.
      batch_size, learning_rate, epochs: of every training.
      steps, rate: of gradient canceling.
      radius: ‖θ_low - θ‖₂, reached in `ascents` steps of GradPC of length `ascent`.
      repetitions: other initial poisons, other random samples.

    Source: Pawelczyk et al. 2024, C.2 and A.1.3 (rate 0.1, radius 1, 500 epochs, 5 repetitions).
    """

    samples: int = 10_000
    features: int = 1000
    informative: int = 50
    poisons: int = 1000
    removed: int = 3200
    batch_size: int = 100
    learning_rate: float = 0.01
    epochs: int = 30
    steps: int = 500
    rate: float = 0.1
    radius: float = 1.0
    ascents: int = 20
    ascent: float = 0.1
    repetitions: int = 5


class Samples(NamedTuple):
    """Covariates [n, d] and labels [n]."""

    x: Float[Array, "n d"]
    y: Float[Array, " n"]

    def take(self, rows: Int[Array, " k"] | np.ndarray) -> Samples:
        """Returns the samples of these rows."""
        return Samples(self.x[rows], self.y[rows])


class Course(NamedTuple):
    """Gradient descent with what stays, on its way from somewhere.

    Attributes:
      shift_l1, shift_l2: from θ(S_corr) to θ(S_corr ∖ S_poison).
      from_trained: [t] cosines of g_t with θ(S_corr) - θ(S_corr ∖ S_poison), starting at θ(S_corr).
      from_random: [t] with θ_random - θ(S_corr ∖ S_poison), starting at θ_random.
    """

    shift_l1: float
    shift_l2: float
    from_trained: list[float]
    from_random: list[float]


WEIGHINGS = ("printed", "per example")
"""g_c + g_p of equation (4); and g_c + (m/n) g_p, the gradient of the poisoned set."""


def study_updates(key: Key[Array, ""], setting: LeastSquares) -> dict[str, list[dict[str, Any]]]:
    """Returns the courses of Figure 5 by what is unlearned, the fields of one per repetition.

    `printed` and `per example` are poisons of gradient canceling under either weighing, `random`
    clean samples.
    """
    data_key, train_key, key = jax.random.split(key, 3)
    clean = draw(data_key, setting)
    trained, _ = descend(train_key, clean, jnp.zeros(setting.features), setting)
    low = corrupt_parameters(trained, clean, setting)
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in (*WEIGHINGS, "random")}
    for repetition in range(setting.repetitions):
        base_key, rest_key, *keys = jax.random.split(jax.random.fold_in(key, repetition), 5)
        base = clean.take(
            jax.random.choice(base_key, len(clean.y), (setting.poisons,), replace=False)
        )
        for weighing, course_key in zip(WEIGHINGS, keys, strict=False):
            share = 1.0 if weighing == "printed" else setting.poisons / setting.samples
            poisons = cancel(base, low, clean, jnp.float32(share), setting=setting)
            both = Samples(*(jnp.concatenate(pair) for pair in zip(clean, poisons, strict=True)))
            found[weighing].append(follow(course_key, both, clean, setting)._asdict())
        half = setting.samples // 2  # the samples taken away are of the second
        others = jax.random.choice(
            rest_key, setting.samples - half, (setting.removed,), replace=False
        )
        rest = clean.take(np.delete(np.arange(setting.samples), half + np.asarray(others)))
        found["random"].append(follow(keys[-1], clean, rest, setting)._asdict())
    return found


def draw(key: Key[Array, ""], setting: LeastSquares) -> Samples:
    """Returns the samples of C.2."""
    n, d, k = setting.samples, setting.features, setting.informative
    x_key, w_key, noise_key = jax.random.split(key, 3)
    std = jnp.where(jnp.arange(d) < k, 1.0, 1e-2)
    x = std * jax.random.normal(x_key, (n, d))
    w = jnp.linalg.qr(jax.random.normal(w_key, (k, 2)))[0]
    responses = jnp.matmul(x[:, :k], w, precision="highest")
    y = jnp.where(jnp.arange(n) < n // 2, responses[:, 0], responses[:, 1])
    return Samples(x, y + 0.1 * jax.random.normal(noise_key, (n,)))


def loss(w: Float[Array, " d"], samples: Samples) -> Float[Array, ""]:
    """Returns mean (<w, x> - y)²/2."""
    return jnp.mean((jnp.matmul(samples.x, w, precision="highest") - samples.y) ** 2) / 2


@partial(jax.jit, static_argnames="setting")
def descend(
    key: Key[Array, ""], samples: Samples, start: Float[Array, " d"], setting: LeastSquares
) -> tuple[Float[Array, " d"], Float[Array, "t d"]]:
    """Returns where mini-batch gradient descent ends, and the gradients g_t of its first epoch."""
    n, size = samples.y.shape[0], setting.batch_size
    steps = n // size

    def step(w: Array, rows: Array) -> tuple[Array, Array]:
        slope = jax.grad(loss)(w, samples.take(rows))
        return w - setting.learning_rate * slope, slope

    def batches(epoch: Array) -> Array:
        order = jax.random.permutation(jax.random.fold_in(key, epoch), n)
        return order[: steps * size].reshape(steps, size)

    every = jax.vmap(batches)(jnp.arange(setting.epochs))
    w, slopes = jax.lax.scan(step, start, every.reshape(-1, size))
    return w, slopes[:steps]


def corrupt_parameters(
    trained: Float[Array, " d"], clean: Samples, setting: LeastSquares
) -> Float[Array, " d"]:
    """Returns θ_low by GradPC: normalised ascent of the clean loss within a ball."""
    w, slope_of = trained, jax.jit(jax.grad(loss))
    for _ in range(setting.ascents):
        slope = slope_of(w, clean)
        w = w + setting.ascent * slope / jnp.linalg.norm(slope)
        away = w - trained
        w = trained + away * jnp.minimum(1, setting.radius / jnp.linalg.norm(away))
    return w


@partial(jax.jit, static_argnames="setting")
def cancel(
    base: Samples,
    low: Float[Array, " d"],
    clean: Samples,
    share: Float[Array, ""],
    *,
    setting: LeastSquares,
) -> Samples:
    """Returns poisons made of `base` that minimise ‖g_c + share g_p‖²/2 at θ_low.

    Labels stay as they are.

    x_i <- x_i - rate m ∂L/∂x_i, as `poisoning.GradientCanceling` counts its rate.
    """
    goal = jax.grad(loss)(low, clean)

    def mismatch(x: Array) -> Array:
        residual = goal + share * jax.grad(loss)(low, Samples(x, base.y))
        return jnp.sum(residual**2) / 2

    def step(x: Array, _: None) -> tuple[Array, None]:
        return x - setting.rate * base.y.shape[0] * jax.grad(mismatch)(x), None

    return Samples(jax.lax.scan(step, base.x, None, length=setting.steps)[0], base.y)


def follow(key: Key[Array, ""], corrupted: Samples, rest: Samples, setting: LeastSquares) -> Course:
    """Returns how far `rest` alone leads away, and whether its gradients lead there.

    Raises:
      ValueError: a training diverged.
    """
    train_key, start_key, course_key = jax.random.split(key, 3)
    zero = jnp.zeros(setting.features)
    trained, _ = descend(train_key, corrupted, zero, setting)
    wanted, _ = descend(train_key, rest, zero, setting)
    random = jax.random.normal(start_key, (setting.features,)) / np.sqrt(setting.features)
    shift = model_shift({"w": trained}, {"w": wanted})
    cosines = [
        update_cosines(
            {"w": descend(course_key, rest, start, setting)[1]}, {"w": start - wanted}
        ).tolist()
        for start in (trained, random)
    ]
    return Course(shift.l1, shift.l2, *cosines)
