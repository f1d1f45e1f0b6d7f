"""The compiled part of error-minimising noise: a turn of the network, then one of the noise."""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from unlearnkit.base import Dataset, Model, Params, State, Variables
from unlearnkit.kernels import map_batches
from unlearnkit.poisoning.bounds import Region
from unlearnkit.training import (
    CrossEntropy,
    Objective,
    Recipe,
    TrainState,
    cross_entropy,
    epoch_batches,
    predict,
    run_epoch,
)
from unlearnkit.training.step import Metrics

Scope = Literal["sample", "class"]


@dataclasses.dataclass(frozen=True)
class Rules:
    """The static part of a turn; see `ErrorMinimizing`."""

    model: Model
    recipe: Recipe
    scope: Scope
    steps: int
    step_size: float
    batches: int
    adversary: float
    adversary_steps: int

    def worst(
        self, variables: Variables, x: Array, y: Int[Array, " n"], unit: Array
    ) -> Float[Array, "n ..."]:
        """Returns `x` moved within the adversary's radius to where the loss is largest."""
        if self.adversary == 0:
            return x
        reach, step = self.adversary * unit, 2.5 * self.adversary / self.adversary_steps * unit

        def ascend(moved: Array, _: None) -> tuple[Array, None]:
            slope = jax.grad(self._loss, argnums=1)(variables, moved, y)
            return jnp.clip(moved + step * jnp.sign(slope), x - reach, x + reach), None

        moved, _ = jax.lax.scan(ascend, x, length=self.adversary_steps)
        return jax.lax.stop_gradient(moved)

    def slope(
        self, variables: Variables, x: Array, y: Int[Array, " n"], unit: Array
    ) -> Float[Array, "n ..."]:
        """Returns the gradient of the summed loss at `x`, or at the worst point near it."""
        found: Array = jax.grad(self._loss, argnums=1)(
            variables, self.worst(variables, x, y, unit), y
        )
        return found

    def _loss(self, variables: Variables, x: Array, y: Int[Array, " n"]) -> Array:
        return cross_entropy(self.model.apply(variables, x), y) * x.shape[0]


class Noise(NamedTuple):
    """The poisons as they stand, and the noise of each class (no rows for noise of samples)."""

    x: Float[Array, "m ..."]
    of_class: Float[Array, "c ..."]


@partial(jax.jit, static_argnames="rules")
def take_turn(
    state: TrainState,
    noise: Noise,
    clean: Dataset,
    base: Int[Array, " m"],
    region: Region,
    unit: Array,
    order_key: Key[Array, ""],
    step_key: Key[Array, ""],
    turn: Int[Array, ""],
    *,
    rules: Rules,
) -> tuple[TrainState, Noise, Float[Array, ""], Int[Array, ""]]:
    """Returns network and noise after a turn of each, the loss, and how many poisons it gets wrong.

    The network sees the whole training set with the poisons in place; poisons are stepped by chunks
    of the recipe's batch size.
    """
    data = clean._replace(x=clean.x.at[base].set(noise.x))
    size = rules.recipe.batch_size
    order = epoch_batches(order_key, turn, clean.size, size)
    batches = order[jnp.arange(rules.batches) % order.shape[0]]
    plain = CrossEntropy(rules.model, rules.recipe)
    objective: Objective = WorstCase(rules) if rules.adversary else plain
    state, metrics = run_epoch(objective, rules.recipe, state, data, batches, step_key, unit)
    y = clean.y[base]
    if rules.scope == "class":
        noise = step_classes(rules, state.variables, noise, region, y, unit)
    else:
        noise = step_samples(rules, state.variables, noise, region, y, unit)
    wrong = jnp.argmax(predict(rules.model, state.variables, noise.x), axis=-1) != y
    return state, noise, metrics["loss"], wrong.sum()


@dataclasses.dataclass(frozen=True)
class WorstCase:
    """The cross-entropy of a batch at the worst point near each example (adversarial training)."""

    rules: Rules

    def __call__(
        self,
        params: Params,
        state: State,
        batch: Dataset,
        key: Key[Array, ""],
        context: Array,
    ) -> tuple[Float[Array, ""], tuple[State, Metrics]]:
        """Returns the loss, and the new state with the batch's metrics; the unit is the context."""
        x = self.rules.worst(Variables(params, state), batch.x, batch.y, context)
        plain = CrossEntropy(self.rules.model, self.rules.recipe)
        return plain(params, state, batch._replace(x=x), key)


def step_samples(
    rules: Rules, variables: Variables, noise: Noise, region: Region, y: Array, unit: Array
) -> Noise:
    """Returns the poisons after all steps, each with a noise of its own."""

    def all_steps(variables: Variables, x: Array, base: Array, labels: Array) -> Array:
        own = region._replace(base=base)

        def step(x: Array, _: None) -> tuple[Array, None]:
            slope = rules.slope(variables, x, labels, unit)
            return own.project(x - rules.step_size * unit * jnp.sign(slope)), None

        return jax.lax.scan(step, x, length=rules.steps)[0]

    arrays = (noise.x, region.base, y)
    return noise._replace(x=map_batches(all_steps, variables, arrays, rules.recipe.batch_size))


def step_classes(
    rules: Rules, variables: Variables, noise: Noise, region: Region, y: Array, unit: Array
) -> Noise:
    """Returns the poisons after all steps of the noise that each class shares."""

    def slopes(variables: Variables, x: Array, labels: Array) -> Array:
        return rules.slope(variables, x, labels, unit)

    def step(shared: Array, _: None) -> tuple[Array, None]:
        x = region.project(region.base + shared[y])
        each = map_batches(slopes, variables, (x, y), rules.recipe.batch_size)
        total = jnp.zeros_like(shared).at[y].add(each)
        moved = shared - rules.step_size * unit * jnp.sign(total)
        return jnp.clip(moved, -region.reach, region.reach), None

    shared, _ = jax.lax.scan(step, noise.of_class, length=rules.steps)
    return Noise(region.project(region.base + shared[y]), shared)
