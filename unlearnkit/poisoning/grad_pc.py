"""Bad weights near the trained ones (gradient-based parameter corruption, GradPC)."""

from __future__ import annotations

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Bool, Float

from unlearnkit.base import Cost, Dataset, Model, Params, Variables
from unlearnkit.poisoning._gradients import mean_gradient
from unlearnkit.poisoning.bounds import Norm
from unlearnkit.validation import check_at_least, check_choice


@dataclasses.dataclass(frozen=True)
class GradPC:
    """Moves weights up the training loss within a ball around where they are.

    l2:   w <- w₀ + Π_r(w + step_size g / ‖g‖₂ - w₀),   g = ∇ mean CE(w)
    linf: w <- w₀ + clip(w + step_size sign g - w₀, ±r)

    With `top` only the entries of the `top` largest |∇ CE(w₀)| move, the rest of g is 0.

    Attributes:
      radius: r of the ball, in the units of the weights.
      norm: of the ball and of a step: `l2` over all weights together, or `linf`.
      top: how many entries may move; None for all.
      steps: how many.
      step_size: of each, in the units of the weights.
      chunk: examples at a time.

    Source: Sun et al. 2020, Algorithm 1 and §3.2; Pawelczyk et al. 2024, A.1.3, has l2 with radius
    1. BatchNorm statistics stay as they are.
    """

    radius: float = 1.0
    norm: Norm = "l2"
    top: int | None = None
    steps: int = 20
    step_size: float = 0.1
    chunk: int = 1000

    def __post_init__(self) -> None:
        check_choice("norm", self.norm, Norm)
        for name in ("radius", "step_size"):
            if not 0 < getattr(self, name) < float("inf"):
                raise ValueError(f"{name} must be finite and > 0, got {getattr(self, name)}")
        check_at_least(self, 1, "steps", "chunk")
        if self.top is not None and self.top < 1:
            raise ValueError(f"top must be >= 1, got {self.top}; None moves all weights")

    def __call__(self, model: Model, variables: Variables, dataset: Dataset) -> Variables:
        """Returns the corrupted weights.

        Args:
          model: the network.
          variables: its trained weights, the centre of the ball.
          dataset: the clean training set.

        Raises:
          ValueError: `top` is more than there are weights.
        """
        size = sum(leaf.size for leaf in jax.tree.leaves(variables.params))
        if self.top is not None and self.top > size:
            raise ValueError(f"top must be <= {size}, the number of weights, got {self.top}")
        gradient = mean_gradient(model, variables, dataset.x, dataset.y, chunk=self.chunk)
        mask = _largest(gradient, size if self.top is None else self.top)
        moved = variables
        for step in range(self.steps):
            if step:
                gradient = mean_gradient(model, moved, dataset.x, dataset.y, chunk=self.chunk)
            params = _move(moved.params, variables.params, gradient, mask, attack=self)
            moved = moved._replace(params=params)
        return moved

    def cost(self, n: int) -> Cost:
        """Returns the example-gradients for n examples, without times."""
        return Cost(float(self.steps * n), 0.0)


@partial(jax.jit, static_argnames="top")
def _largest(gradient: Params, top: int) -> Bool[Array, " p"]:
    """Returns where the `top` largest entries are; of equal ones the first."""
    size = jnp.abs(ravel_pytree(gradient)[0])
    return jnp.zeros(size.shape, bool).at[jnp.argsort(-size)[:top]].set(True)


@partial(jax.jit, static_argnames="attack")
def _move(
    params: Params, start: Params, gradient: Params, mask: Bool[Array, " p"], *, attack: GradPC
) -> Params:
    """Returns the weights after one step and its projection."""
    w, unravel = ravel_pytree(params)
    centre = ravel_pytree(start)[0]
    slope = jnp.where(mask, ravel_pytree(gradient)[0], 0)
    if attack.norm == "linf":
        moved = w - centre + attack.step_size * jnp.sign(slope)
        return unravel(centre + jnp.clip(moved, -attack.radius, attack.radius))
    moved = w - centre + attack.step_size * slope / _length(slope)
    return unravel(centre + moved * jnp.minimum(1, attack.radius / _length(moved)))


def _length(vector: Float[Array, " p"]) -> Float[Array, ""]:
    """Returns ‖v‖₂, or 1 for v = 0."""
    length = jnp.linalg.norm(vector)
    return jnp.where(length > 0, length, 1)
