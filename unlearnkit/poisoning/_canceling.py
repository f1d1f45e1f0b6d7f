"""The compiled part of gradient canceling: one step of descent, and which weights it reaches."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from functools import partial
from typing import Literal, NamedTuple, TypeAlias

import jax
import numpy as np
import optax
from jaxtyping import Array, Float, Int
from scipy.special import lambertw

from unlearnkit.base import Model, Params, Variables
from unlearnkit.poisoning._gradients import judge_gradient
from unlearnkit.poisoning.bounds import Region
from unlearnkit.validation import named_leaves

Descent: TypeAlias = Literal["sgd", "adam"]
"""How the poisons move."""


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
    optimizer: Descent
    learning_rate: float
    steps: int
    parameters: tuple[str, ...]
    chunk: int

    @property
    def direction(self) -> optax.GradientTransformation:
        """What the slope becomes before it is multiplied by the rate."""
        return optax.scale_by_adam() if self.optimizer == "adam" else optax.identity()

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
    x: Float[Array, "m ..."],
    memory: optax.OptState,
    balance: Balance,
    count: Int[Array, ""],
    *,
    rules: Canceling,
) -> tuple[Float[Array, "m ..."], optax.OptState, Float[Array, ""]]:
    """Returns the poisons after one step, the optimiser's memory, and the residual before it.

    x_i <- Π(x_i - η_t d_i),   η_t = η (1 + cos(π t / T)) / 2

    d_i is m ∂L/∂x_i, or what Adam makes of it.
    """
    loss, slope = rules.loss_and_slope(x, balance)
    rate = optax.cosine_decay_schedule(rules.learning_rate, rules.steps)(count)
    way, memory = rules.direction.update(x.shape[0] * slope, memory)
    return balance.region.project(x - rate * way), memory, loss


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


def threshold(model: Model, variables: Variables, gradient: Params) -> float:
    """Returns the least share of poisons that can cancel the gradient of the last layer.

    τ = max(0, <W, ∂L/∂W> / w((c - 1) / e)),   w the Lambert function, c classes

    W is the last layer, biases included, which maps features to logits z. <W, ∇_W CE> = <z, p - y>
    is at least -w((c - 1) / e) for any features and any label. A share r of poisons below τ leaves
    <W, g_c + r g_p> above 0, so that no poisons make these weights stationary; of a linear network
    any share above it can, with features that have no bounds.

    Args:
      model: the network, whose last layer is linear.
      variables: the weights that are to be stationary.
      gradient: g_c, of the mean loss of the clean examples, like the parameters.

    Source: Lu, Kamath and Yu 2023, Theorem 4.3 (the poisonability threshold).
    """
    found = 0.0
    for path in model.layers[-1]:
        w, g = variables.params, gradient
        for name in path:
            w, g = w[name], g[name]
        found += float(optax.tree.vdot(w, g))
    least = float(np.real(lambertw((model.n_classes - 1) / math.e)))
    return max(0.0, found / least)
