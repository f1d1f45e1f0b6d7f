"""The compiled part of the min-max attacks: one poison per round, against a model that learns."""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, Key

from unlearnkit.base import Dataset, Model, Params, State, Variables
from unlearnkit.poisoning._feasible import Ball, HalfSpace, furthest, furthest_within


class FeasibleSet(NamedTuple):
    """Where poisons may lie.

    Attributes:
      ball: of each class: low and high are shared, centre [c, ...], radius [c].
      present: [c] which classes have examples.
      decoy: weights under which poisons must have a low loss; None for none.
    """

    ball: Ball
    present: Array
    decoy: Variables | None


class Point(NamedTuple):
    """A poison: its input, label, hinge loss under the model, and under the decoy (0 for none)."""

    x: Float[Array, ...]
    y: Int[Array, ""]
    loss: Float[Array, ""]
    decoy_loss: Float[Array, ""]


@dataclasses.dataclass(frozen=True)
class Saddle:
    """The rules of the rounds; hashable, for `jax.jit`.

    Attributes:
      model: the network.
      poison_weight: ε in clean loss + ε poison loss.
      learning_rate: of AdaGrad.
      weight_decay: λ in (λ/2)‖w‖².
      batch_size: clean examples of a round.
      ascent_steps: Frank-Wolfe steps of a poison; one is exact for a linear network.
      tau: the greatest hinge loss under the decoy.
    """

    model: Model
    poison_weight: float
    learning_rate: float
    weight_decay: float
    batch_size: int
    ascent_steps: int
    tau: float

    def worst_point(self, variables: Variables, feasible_set: FeasibleSet) -> Point:
        """Returns the feasible point of the largest hinge loss, over all labels.

        For each label y and each other class j, max z_j(x) - z_y(x) by Frank-Wolfe from the centre
        of the class: x <- x + γ (s - x), s the furthest feasible point along the gradient, γ = 2 /
        (k + 2). The first step of γ = 1 solves a linear network.
        """
        c = self.model.n_classes
        y, j = (pairs.ravel() for pairs in jnp.meshgrid(*[jnp.arange(c)] * 2, indexing="ij"))
        points = jax.lax.map(lambda pair: self._climb(variables, feasible_set, *pair), (y, j))
        tolerance = 1e-4 * (1 + self.tau)
        # Those that the decoy allows come first, then those that it minds least.
        excess = jnp.maximum(points.decoy_loss - self.tau - tolerance, 0)
        excess = jnp.where((y == j) | ~feasible_set.present[y], jnp.inf, excess)
        best = jnp.argmax(jnp.where(excess == excess.min(), points.loss, -jnp.inf))
        found: Point = jax.tree.map(lambda leaf: leaf[best], points)
        return found

    def _climb(self, variables: Variables, feasible_set: FeasibleSet, y: Array, j: Array) -> Point:
        ball = feasible_set.ball._replace(
            centre=feasible_set.ball.centre[y], radius=feasible_set.ball.radius[y]
        )

        def gap(x: Array) -> Array:
            logits = self._logits(variables, x)
            return logits[j] - logits[y]

        def step(x: Array, k: Array) -> tuple[Array, None]:
            way = jax.grad(gap)(x)
            if feasible_set.decoy is None:
                corner = furthest(way, ball)
            else:
                corner, _ = furthest_within(way, ball, self._allowed(feasible_set.decoy, x, y))
            return x + 2 / (k + 2) * (corner - x), None

        x, _ = jax.lax.scan(step, ball.centre, jnp.arange(self.ascent_steps, dtype=float))
        x = jnp.clip(x, ball.low, ball.high)
        decoy_loss = jnp.zeros(())
        if feasible_set.decoy is not None:
            decoy_loss = hinge(self._logits(feasible_set.decoy, x)[None], y[None])[0]
        return Point(x, y, hinge(self._logits(variables, x)[None], y[None])[0], decoy_loss)

    def _allowed(self, decoy: Variables, x: Array, y: Array) -> HalfSpace:
        """Returns where the decoy's loss, linearised at x, is at most τ."""

        def loss(x: Array) -> Array:
            logits = self._logits(decoy, x)
            other = jnp.where(jnp.arange(logits.shape[0]) == y, -jnp.inf, logits)
            return 1 + other.max() - logits[y]

        value, normal = jax.value_and_grad(loss)(x)
        return HalfSpace(normal, self.tau - value + jnp.vdot(normal, x))

    def _logits(self, variables: Variables, x: Array) -> Float[Array, " c"]:
        return self.model.apply(variables, x[None])[0]

    def objective(
        self, params: Params, state: State, clean: Dataset, point: Point
    ) -> tuple[Array, Array]:
        """Returns clean loss + ε poison loss, and the clean loss."""
        variables = Variables(params, state)
        loss = hinge(self.model.apply(variables, clean.x), clean.y).mean()
        poison = hinge(self._logits(variables, point.x)[None], point.y[None])[0]
        return loss + self.poison_weight * poison, loss


def hinge(logits: Float[Array, "n c"], y: Int[Array, " n"]) -> Float[Array, " n"]:
    """Returns max(0, 1 + max_{j≠y} z_j - z_y) of each example.

    Source: Crammer and Singer 2001; Lu et al. 2022, equation (38).
    """
    own = jax.nn.one_hot(y, logits.shape[1], dtype=bool)
    other = jnp.where(own, -jnp.inf, logits).max(1)
    true = jnp.take_along_axis(logits, y[:, None], axis=1)[:, 0]
    return jnp.maximum(0, 1 + other - true)


@partial(jax.jit, static_argnames=("saddle", "rounds"))
def play(
    variables: Variables,
    clean: Dataset,
    feasible_set: FeasibleSet,
    key: Key[Array, ""],
    *,
    saddle: Saddle,
    rounds: int,
) -> tuple[Point, Float[Array, " rounds"]]:
    """Returns the point of every round and the clean loss of its batch, as one program.

    Each round: the worst point for the weights as they stand, then one AdaGrad step of
    clean loss + ε loss of that point.
    """
    optimizer = optax.chain(
        optax.add_decayed_weights(saddle.weight_decay), optax.adagrad(saddle.learning_rate)
    )

    def body(carry: tuple[Params, Any], step: Array) -> tuple[tuple[Params, Any], Any]:
        params, memory = carry
        point = saddle.worst_point(Variables(params, variables.state), feasible_set)
        drawn = jax.random.randint(
            jax.random.fold_in(key, step), (saddle.batch_size,), 0, clean.size
        )
        (_, loss), slope = jax.value_and_grad(saddle.objective, has_aux=True)(
            params, variables.state, clean.take(drawn), point
        )
        updates, memory = optimizer.update(slope, memory, params)
        return (optax.apply_updates(params, updates), memory), (point, loss)

    start = (variables.params, optimizer.init(variables.params))
    _, (points, losses) = jax.lax.scan(body, start, jnp.arange(rounds))
    return points, losses
