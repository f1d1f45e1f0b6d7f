"""What the attacks on linear classifiers of two classes share: the classifier and its loss."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from unlearnkit.base import Dataset, Model
from unlearnkit.kernels import svm
from unlearnkit.kernels.svm import Loss
from unlearnkit.poisoning._ascent import climb
from unlearnkit.poisoning.bounds import Region
from unlearnkit.poisoning.placing import warn


class Binary(NamedTuple):
    """A problem of two classes, 0 and 1, as signs -1 and +1.

    Attributes:
      features: [n, d] of the clean examples that the simulated defender trains on.
      signs: [n].
      share: [] how many examples of the whole clean set each of them stands for.
      held_out: [v, d] of the attacker's.
      held_out_signs: [v].
    """

    features: Float[Array, "n d"]
    signs: Float[Array, " n"]
    share: Float[Array, ""]
    held_out: Float[Array, "v d"]
    held_out_signs: Float[Array, " v"]


class SolveDiagnostics(NamedTuple):
    """How the defender's training went before a move: whether it converged, and its steps."""

    converged: Bool[Array, ""]
    steps: Int[Array, ""]


def check_binary_linear(attack: str, model: Model) -> None:
    """Raises ValueError if the network is no linear classifier of two classes.

    Raises:
      ValueError: not two classes, or more than one layer.
    """
    others = "total_gradient, back_gradient, meta_poison or min_max"
    if model.n_classes != 2:
        raise ValueError(
            f"{attack} attacks linear classifiers of two classes, got {model.n_classes} classes; "
            f"for more classes use {others}"
        )
    if len(model.layers) != 1:
        raise ValueError(
            f"{attack} attacks linear classifiers, as models.logistic, got {len(model.layers)} "
            f"layers; for networks use {others}"
        )


def check_settings(C: float, steps: int, step_size: float) -> None:
    """Raises ValueError if a hyperparameter is out of its range."""
    for name, value in (("C", C), ("step_size", step_size)):
        if not value > 0:
            raise ValueError(f"{name} must be > 0, got {value}")
    if steps < 1:
        raise ValueError(f"steps must be >= 1, got {steps}")


def signs(y: Int[Array, " n"]) -> Float[Array, " n"]:
    """Returns -1 for class 0 and +1 for class 1."""
    return 2.0 * y - 1.0


def make_binary(clean: Dataset, held_out: Dataset) -> Binary:
    """Returns both parts as features and signs."""
    return Binary(
        clean.x.reshape(clean.size, -1),
        signs(clean.y),
        jnp.asarray((clean.size + held_out.size) / clean.size, clean.x.dtype),
        held_out.x.reshape(held_out.size, -1),
        signs(held_out.y),
    )


def margin_loss(margins: Float[Array, " n"], loss: Loss) -> Float[Array, " n"]:
    """Returns the loss of each margin y (w·x + b)."""
    if loss == "logistic":
        return jax.nn.softplus(-margins)
    excess = jnp.maximum(1 - margins, 0)
    return excess if loss == "hinge" else excess**2


def held_out_loss(
    x: Float[Array, "m ..."],
    x_signs: Float[Array, " m"],
    weight: Float[Array, " m"],
    binary: Binary,
    *,
    C: float,
    loss: Loss,
) -> tuple[Float[Array, ""], SolveDiagnostics]:
    """Returns the mean held-out loss of the classifier trained on clean examples and poisons.

    ℓ = mean l(y (w*·x + b*)) on held-out examples, (w*, b*) = argmin 1/2 ‖w‖² + C Σ s_i l_i

    Its derivative in x is that of the optimality conditions: for a smooth loss the influence
    function, -∂²L/∂x∂w H⁻¹ ∇ℓ; for the hinge the system of the examples on the margin.

    Args:
      x: poisons.
      x_signs: their labels as signs.
      weight: how often each is in the training set; 0 for not at all.
      binary: the clean examples.
      C: weight of the losses.
      loss: of defender and attacker.
    """
    features = jnp.concatenate([binary.features, x.reshape(x.shape[0], -1)])
    labels = jnp.concatenate([binary.signs, x_signs])
    weights = jnp.concatenate([jnp.full_like(binary.signs, binary.share), weight])
    solution = svm(features, labels, C=C, loss=loss, sample_weight=weights)
    margins = binary.held_out_signs * solution.decision(binary.held_out)
    diagnostics = SolveDiagnostics(solution.info.converged, solution.info.steps)
    return margin_loss(margins, loss).mean(), diagnostics


@partial(jax.jit, static_argnames=("C", "loss", "steps", "step_size"))
def move(
    x: Float[Array, "m ..."],
    rows: Int[Array, " g"],
    x_signs: Float[Array, " m"],
    weight: Float[Array, " m"],
    region: Region,
    binary: Binary,
    *,
    C: float,
    loss: Loss,
    steps: int,
    step_size: float,
) -> tuple[Float[Array, "m ..."], tuple[Float[Array, " steps"], SolveDiagnostics]]:
    """Returns the poisons after those of `rows` were moved, the defender trained anew each time."""

    def objective(moving: Array) -> tuple[Array, SolveDiagnostics]:
        return held_out_loss(x.at[rows].set(moving), x_signs, weight, binary, C=C, loss=loss)

    with jax.default_matmul_precision("highest"):
        moved, history = climb(
            objective, x[rows], region.take(rows), steps=steps, step_size=step_size
        )
    return x.at[rows].set(moved), history


def warn_unconverged(converged: Bool[np.ndarray, " k"]) -> None:
    """Warns how many trainings of the defender did not converge."""
    failed = int((~converged).sum())
    if failed:
        warn(
            f"{failed} of {len(converged)} trainings of the defender did not converge, and their "
            "derivatives are not those of a minimum; lower C, or scale the data"
        )
