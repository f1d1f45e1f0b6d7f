"""The compiled part of gradient canceling: one step of plain gradient descent."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from functools import partial
from typing import NamedTuple

import jax
import optax
from jaxtyping import Array, Float, Int

from unlearnkit.base import Model, Params, Variables
from unlearnkit.poisoning._gradients import judge_gradient
from unlearnkit.poisoning.bounds import Region
from unlearnkit.validation import named_leaves


class Balance(NamedTuple):
    """What is cancelled.

    Attributes:
      variables: the bad weights at which the poisons are to cancel the gradient.
      clean_gradient: g_c, of the mean loss of the clean examples, like the parameters.
      share: [] r, poisons for each clean example.
      region: [m] where the poisons may lie.
      labels: [m] of the poisons.
    """

    variables: Variables
    clean_gradient: Params
    share: Float[Array, ""]
    region: Region
    labels: Int[Array, " m"]


@dataclasses.dataclass(frozen=True)
class Canceling:
    """The static part of a step; see `GradientCanceling`."""

    model: Model
    learning_rate: float
    steps: int
    parameters: tuple[str, ...]
    chunk: int

    def residual(self, gradient: Params, balance: Balance) -> Float[Array, ""]:
        """Returns 1/2 ‖g_c + r g_p‖² over the chosen parameters."""
        total = jax.tree.map(
            lambda clean, poison: clean + balance.share * poison, balance.clean_gradient, gradient
        )
        chosen = choose(total, self.parameters)
        found: Array = optax.tree.vdot(chosen, chosen) / 2
        return found

    def loss_and_slope(
        self, x: Float[Array, "m ..."], balance: Balance
    ) -> tuple[Float[Array, ""], Float[Array, "m ..."]]:
        """Returns the residual and its derivative in the poisons."""
        return judge_gradient(
            lambda g: self.residual(g, balance),
            self.model,
            balance.variables,
            x,
            balance.labels,
            chunk=self.chunk,
        )


@partial(jax.jit, static_argnames="rules")
def step(
    x: Float[Array, "m ..."], balance: Balance, count: Int[Array, ""], *, rules: Canceling
) -> tuple[Float[Array, "m ..."], Float[Array, ""]]:
    """Returns the poisons after one step, and the residual before it.

    x_i <- Π(x_i - η_t m ∂L/∂x_i),   η_t = η (1 + cos(π t / T)) / 2
    """
    loss, slope = rules.loss_and_slope(x, balance)
    rate = optax.cosine_decay_schedule(rules.learning_rate, rules.steps)(count)
    return balance.region.project(x - rate * x.shape[0] * slope), loss


@partial(jax.jit, static_argnames="rules")
def judge(x: Float[Array, "m ..."], balance: Balance, *, rules: Canceling) -> Float[Array, ""]:
    """Returns the residual."""
    return rules.loss_and_slope(x, balance)[0]


def choose(params: Params, names: tuple[str, ...]) -> Mapping[str, Array]:
    """Returns the leaves by name that are one of `names` or under it; all where there are none."""
    return {
        name: leaf
        for name, leaf in named_leaves(params).items()
        if not names or any(name == chosen or name.startswith(f"{chosen}/") for chosen in names)
    }
