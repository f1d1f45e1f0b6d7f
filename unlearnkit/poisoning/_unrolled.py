"""The compiled part of MetaPoison: poisons against many young networks at once."""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, Key

from unlearnkit.base import Dataset, Model, Params, State, Variables
from unlearnkit.poisoning.bounds import Region
from unlearnkit.training import cross_entropy


class AttackData(NamedTuple):
    """What the poisons are made against.

    Attributes:
      clean: the defender's part of the clean training set.
      judged: the examples on which the attacker judges a network.
      wanted: [] the class that they are to be given; -1 for any but theirs.
      region: [m] where the poisons may lie.
      labels: [m] of the poisons.
      unit: one pixel unit in the units of the network.
    """

    clean: Dataset
    judged: Dataset
    wanted: Int[Array, ""]
    region: Region
    labels: Int[Array, " m"]
    unit: Float[Array, "#c"] | Float[Array, ""]


class Surrogates(NamedTuple):
    """Networks of all ages: variables with a leading axis, and [k] the steps each has taken."""

    variables: Variables
    age: Int[Array, " k"]


@dataclasses.dataclass(frozen=True)
class Unrolling:
    """The static part of a step; see `MetaPoison`.

    Attributes:
      clean_weight: of the clean examples' mean loss in what a network descends.
      poison_weight: of the poisons' mean loss.
    """

    model: Model
    clean_weight: float
    poison_weight: float
    unroll_steps: int
    batch_size: int
    network_rate: float
    advance_steps: int
    horizon: int
    optimizer: Any

    def anticipated(
        self, x: Float[Array, "m ..."], variables: Variables, data: AttackData, key: Key[Array, ""]
    ) -> Float[Array, ""]:
        """Returns what the attacker descends: its loss, averaged over the K steps of a network."""
        losses = []
        for k in range(self.unroll_steps):  # few, and convolutions are slow in a loop's body
            variables = self.train(variables, x, data, jax.random.fold_in(key, k))
            losses.append(self.attacker_loss(variables, data))
        return jnp.stack(losses).mean()

    def attacker_loss(self, variables: Variables, data: AttackData) -> Float[Array, ""]:
        """Returns -CE of what is judged, or max(0, max_{j≠a} z_j - z_a) for the wanted class a."""
        logits = self.model.apply(variables, data.judged.x)
        wanted = jnp.arange(logits.shape[1]) == data.wanted
        other = jnp.where(wanted, -jnp.inf, logits).max(1)
        gap = jnp.maximum(other - jnp.where(wanted, logits, 0).sum(1), 0).mean()
        return jnp.where(data.wanted >= 0, gap, -cross_entropy(logits, data.judged.y))

    def train(
        self, variables: Variables, x: Float[Array, "m ..."], data: AttackData, key: Key[Array, ""]
    ) -> Variables:
        """Returns a network after one step of SGD on a batch of clean examples and all poisons."""
        row_key, dropout_key = jax.random.split(key)
        rows = jax.random.randint(row_key, (self.batch_size,), 0, data.clean.size)
        inputs = jnp.concatenate([data.clean.x[rows], x])
        labels = jnp.concatenate([data.clean.y[rows], data.labels])

        def loss(params: Params) -> tuple[Array, State]:
            logits, state = self.model.apply_train(
                Variables(params, variables.state), inputs, dropout_key
            )
            each = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
            good, bad = each[: self.batch_size].mean(), each[self.batch_size :].mean()
            return self.clean_weight * good + self.poison_weight * bad, state

        slope, state = jax.grad(loss, has_aux=True)(variables.params)
        params = jax.tree.map(lambda w, g: w - self.network_rate * g, variables.params, slope)
        return Variables(params, state)


@partial(jax.jit, static_argnames="rules")
def make_surrogates(
    x: Float[Array, "m ..."], data: AttackData, keys: Key[Array, " k"], *, rules: Unrolling
) -> Surrogates:
    """Returns fresh networks, the i-th of k trained for i/k of the horizon."""
    k = keys.shape[0]
    ages = jnp.arange(k) * rules.horizon // k

    def one(part: tuple[Array, Array]) -> Variables:
        key, age = part
        init_key, train_key = jax.random.split(key)

        def step(i: Array, variables: Variables) -> Variables:
            return rules.train(variables, x, data, jax.random.fold_in(train_key, i))

        found: Variables = jax.lax.fori_loop(0, age, step, rules.model.init(init_key))
        return found

    return Surrogates(jax.lax.map(one, (keys, ages)), ages)


@partial(jax.jit, static_argnames="rules")
def craft(
    x: Float[Array, "m ..."],
    memory: Any,
    surrogates: Surrogates,
    data: AttackData,
    key: Key[Array, ""],
    *,
    rules: Unrolling,
) -> tuple[Float[Array, "m ..."], Any, Surrogates, Float[Array, ""]]:
    """Returns poisons, optimiser and networks after one step of each, and the attacker's loss.

    The networks go on training on the poisons as they were; one that is past the horizon begins
    anew.
    """
    k = surrogates.age.shape[0]

    def one(part: tuple[Surrogates, Array]) -> tuple[Array, Array, Surrogates]:
        surrogate, own_key = part
        unroll_key, train_key, init_key = jax.random.split(own_key, 3)
        value, slope = jax.value_and_grad(rules.anticipated)(
            x, surrogate.variables, data, unroll_key
        )

        def step(i: Array, variables: Variables) -> Variables:
            return rules.train(variables, x, data, jax.random.fold_in(train_key, i))

        older = jax.lax.fori_loop(0, rules.advance_steps, step, surrogate.variables)
        age = surrogate.age + rules.advance_steps
        fresh, over = rules.model.init(init_key), age >= rules.horizon
        renewed = jax.tree.map(lambda new, old: jnp.where(over, new, old), fresh, older)
        return value, slope, Surrogates(renewed, jnp.where(over, 0, age))

    values, slopes, surrogates = jax.lax.map(one, (surrogates, jax.random.split(key, k)))
    updates, memory = rules.optimizer.update(slopes.mean(0), memory)
    return data.region.project(x + updates * data.unit), memory, surrogates, values.mean()
