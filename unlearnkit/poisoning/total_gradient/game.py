"""The compiled part of the total gradient attack: rounds of a game between two networks."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any, Literal, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, Key

from unlearnkit.base import Dataset, Model, Params, State, Variables
from unlearnkit.kernels import (
    GameInfo,
    GameSolver,
    KfacInverse,
    Precision,
    follow_the_ridge,
    gradient_descent_newton,
    kfac_factors,
    kfac_inverse,
    tgda,
    tree_norm,
    ugda,
)
from unlearnkit.models.layers import convolved_as
from unlearnkit.poisoning.bounds import Region
from unlearnkit.poisoning.total_gradient.generator import Box, Generator
from unlearnkit.training import cross_entropy, epoch_batches

SolverName: TypeAlias = Literal["tgda", "fr", "gdn", "ugda"]
Inverse: TypeAlias = Literal["none", "kfac", "minres", "cg", "cgnr"]
Side: TypeAlias = Literal["attacker", "defender"]


Keys: TypeAlias = tuple[Key[Array, ""], Key[Array, ""], Key[Array, ""]]
"""For the order of clean, held-out and poisoned examples."""


class GameData(NamedTuple):
    """What both players train on.

    Attributes:
      clean: the defender's part of the clean training set.
      held_out: the attacker's part, disjoint from it.
      region: [m] where the poisons of the game may lie, with the images they are made of.
      labels: [m] of the poisons.
      box: range of the generator.
      state: of the defender's network, frozen.
      start: the defender's trained weights, for a cold start.
      kept: the inverse by K-FAC that an earlier round has made; None makes one.
    """

    clean: Dataset
    held_out: Dataset
    region: Region
    labels: Int[Array, " m"]
    box: Box
    state: State
    start: Params
    kept: KfacInverse | None = None


class BatchIndices(NamedTuple):
    """The rows of each round: [rounds, batch] of clean, held-out and poisoned examples."""

    clean: Int[Array, "rounds b"]
    held_out: Int[Array, "rounds v"]
    poison: Int[Array, "rounds p"]


@dataclasses.dataclass(frozen=True)
class Game:
    """The rules: both players' losses, and how a round goes. Hashable, for `jax.jit`.

    f(θ, w) = a CE(clean, w) + b CE(L_θ(base), w),   ℓ(w) = CE(held out, w), or f where zero-sum.

    Attributes:
      model: the defender's network.
      generator: the attacker's.
      clean_weight: a.
      poison_weight: b.
      zero_sum: whether the attacker ascends f itself.
      solver: of the leader's step.
      leads: who moves first, anticipating the other.
      attacker_steps: m.
      defender_steps: n.
      attacker_rate: α.
      defender_rate: β.
      cold_start: whether the defender starts each round at its trained weights.
      unroll_steps: k of `ugda`.
      damping: of the Hessian.
      tol: wanted relative residual.
      max_solve_steps: the most steps of a solve.
      inverse: of the Hessian: `none`, the identity in its place; `kfac`; or a solver.
      hessian_share: of a round's examples, by which the Hessian is taken.
      refresh: rounds for which the factors of K-FAC are kept.
      unit_steps: whether a step of the leader has the length of its rate.
      precision: of the matrix products of the leader's gradient.
    """

    model: Model
    generator: Generator
    clean_weight: float
    poison_weight: float
    zero_sum: bool
    solver: SolverName
    leads: Side
    attacker_steps: int
    defender_steps: int
    attacker_rate: float
    defender_rate: float
    cold_start: bool
    unroll_steps: int
    damping: float
    tol: float
    max_solve_steps: int
    inverse: Inverse = "minres"
    hessian_share: float = 1.0
    refresh: int = 1
    unit_steps: bool = False
    precision: Precision = "highest"

    def defender_loss(self, theta: Params, w: Params, data: GameData) -> Float[Array, ""]:
        """Returns f, the training loss on clean and poisoned examples in their true proportion.

        Args:
          theta: θ, the generator's weights.
          w: the defender's weights.
          data: the data of this round.
        """
        poisons = self.generate(theta, data)
        loss = self.poison_weight * self._cross_entropy(w, poisons, data.labels, data)
        if self.clean_weight == 0:
            return loss
        return loss + self.clean_weight * self._cross_entropy(w, *data.clean[:2], data)

    def attacker_loss(self, theta: Params, w: Params, data: GameData) -> Float[Array, ""]:
        """Returns ℓ, which the attacker ascends.

        Args:
          theta: θ, the generator's weights.
          w: the defender's weights.
          data: the data of this round.
        """
        if self.zero_sum:
            return self.defender_loss(theta, w, data)
        return self._cross_entropy(w, *data.held_out[:2], data)

    def generate(self, theta: Params, data: GameData) -> Float[Array, "m ..."]:
        """Returns the poisons, within their bounds."""
        poisons = self.generator(theta, data.region.base, data.labels, data.box)
        found: Array = data.region.project(poisons)
        return found

    def step_of_leader(self) -> GameSolver:
        """Returns the solver whose follower moves only where its rule says so, as along the ridge.

        The attacker leads: its ℓ against the defender's f. The defender leads: -f against -ℓ after
        one step of the defender. At fixed weights ℓ does not depend on the poisons, so that
        an attacker who answers w itself has nothing to choose.
        """
        if self.leads == "attacker":
            return self._solver(self.attacker_loss, self.defender_loss, self.attacker_rate)

        def outer(w: Params, theta: Params, data: GameData) -> Array:
            return -self.defender_loss(theta, w, data)

        def inner(w: Params, theta: Params, data: GameData) -> Array:
            return -self.anticipated(theta, w, data)

        return self._solver(outer, inner, self.defender_rate)

    def anticipated(self, theta: Params, w: Params, data: GameData) -> Float[Array, ""]:
        """Returns ℓ(w - β ∇_w f(θ, w)), or f where zero-sum.

        Args:
          theta: θ, the generator's weights.
          w: the defender's weights.
          data: the data of this round.
        """
        if self.zero_sum:
            return self.defender_loss(theta, w, data)
        return self.attacker_loss(theta, self._descended(theta, w, data), data)

    def _descended(self, theta: Params, w: Params, data: GameData) -> Params:
        slope = jax.grad(self.defender_loss, argnums=1)(theta, w, data)
        return jax.tree.map(lambda v, g: v - self.defender_rate * g, w, slope)

    def _ascended(self, theta: Params, w: Params, data: GameData) -> Params:
        slope = jax.grad(self.anticipated)(theta, w, data)
        return jax.tree.map(lambda v, g: v + self.attacker_rate * g, theta, slope)

    def _solver(
        self, outer: Callable[..., Array], inner: Callable[..., Array], rate: float
    ) -> GameSolver:
        ascend, stay = optax.sgd(rate), optax.set_to_zero()
        if self.unit_steps:
            ascend = optax.chain(optax.stateless(_of_unit_length), ascend)
        settings: dict[str, Any] = {
            "damping": self.damping,
            "tol": self.tol,
            "max_steps": self.max_solve_steps,
            "precision": self.precision,
        }
        if self.inverse not in ("none", "kfac"):
            settings["solver"] = self.inverse
        if self.solver == "tgda":
            if self.inverse == "none":
                settings["inverse"] = lambda *_: lambda v: v
            elif self.inverse == "kfac":
                settings["inverse"] = lambda theta, w, data: data.kept
            elif self.hessian_share < 1:
                settings["hessian_loss"] = lambda x, w, data: inner(x, w, self.part_of(data))
            return tgda(outer, inner, ascend, stay, **settings)
        if self.solver == "fr":
            return follow_the_ridge(outer, inner, ascend, stay, **settings)
        if self.solver == "gdn":
            return gradient_descent_newton(outer, inner, ascend, **settings)
        follower_rate = self.defender_rate if self.leads == "attacker" else self.attacker_rate
        return ugda(
            outer,
            inner,
            ascend,
            stay,
            unroll_steps=self.unroll_steps,
            unroll_rate=follower_rate,
            precision=self.precision,
        )

    def part_of(self, data: GameData) -> GameData:
        """Returns the first examples of a round, which stand in for all of them in the Hessian."""
        sizes = data.clean.size, data.labels.shape[0]
        b, p = (max(1, round(self.hessian_share * size)) for size in sizes)
        return data._replace(
            clean=data.clean.take(jnp.arange(b)),
            region=data.region.take(jnp.arange(p)),
            labels=data.labels[:p],
        )

    def invert(self, theta: Params, w: Params, data: GameData) -> KfacInverse:
        """Returns the inverse of f's damped Gauss-Newton matrix by K-FAC.

        Args:
          theta: θ, the generator's weights.
          w: the defender's weights.
          data: the data of this round.
        """
        part = self.part_of(data)
        poisons = self.generate(theta, part)
        b, p = (part.clean.size if self.clean_weight else 0), poisons.shape[0]
        x = jnp.concatenate([part.clean.x[:b], poisons])
        shares = np.repeat([self.clean_weight / max(b, 1), self.poison_weight / p], [b, p])

        def apply(w: Params, x: Array) -> Array:
            with convolved_as("bilinear" if jax.default_backend() == "cpu" else "xla"):
                return self.model.apply(Variables(w, data.state), x)

        factors = kfac_factors(
            apply, w, x, weights=jnp.asarray(shares, x.dtype), precision=self.precision
        )
        return kfac_inverse(factors, self.damping)

    def _cross_entropy(
        self, w: Params, x: Array, y: Int[Array, " n"], data: GameData
    ) -> Float[Array, ""]:
        return cross_entropy(self.model.apply(Variables(w, data.state), x), y)

    def play_round(
        self, theta: Params, w: Params, data: GameData
    ) -> tuple[Params, Params, dict[str, Array]]:
        """Returns both players after a round: first the leader's steps, then the follower's.

        Args:
          theta: θ, the generator's weights before the round.
          w: the defender's weights before the round.
          data: the data of this round.
        """
        if self.inverse == "kfac" and data.kept is None:
            data = data._replace(kept=self.invert(theta, w, data))
        solver, attacks = self.step_of_leader(), self.leads == "attacker"
        leader, follower = (theta, w) if attacks else (w, theta)
        n_leader, n_follower = self.attacker_steps, self.defender_steps
        if not attacks:
            n_leader, n_follower = n_follower, n_leader
        state, infos = jax.lax.scan(
            lambda s, _: solver.step(s, data), solver.init(leader, follower), length=n_leader
        )
        theta, w = (state.leader, state.follower) if attacks else (state.follower, state.leader)
        if attacks and self.cold_start:
            w = data.start
        if attacks:
            w, _ = jax.lax.scan(
                lambda v, _: (self._descended(theta, v, data), None), w, length=n_follower
            )
        else:
            theta, _ = jax.lax.scan(
                lambda t, _: (self._ascended(t, w, data), None), theta, length=n_follower
            )
        return theta, w, self._metrics(infos)

    def _metrics(self, infos: GameInfo) -> dict[str, Array]:
        """Returns what is kept of the leader's steps of a round."""
        attacker, defender = infos.leader_loss[0], infos.follower_loss[0]
        if self.leads == "defender":
            attacker, defender = -defender, -attacker
        metrics = {
            "attacker_loss": attacker,
            "defender_loss": defender,
            "gradient_norm": infos.leader_gradient_norm.mean(),
        }
        if infos.solves:
            first = infos.solves[0]
            steps = jnp.stack([solve.steps.sum() for solve in infos.solves]).sum()
            metrics |= {"residual": first.residual.mean(), "solve_steps": steps.astype(jnp.float32)}
        return metrics


def draw_indices(
    keys: Keys, epoch: Array | int, data: GameData, sizes: tuple[int, int, int]
) -> BatchIndices:
    """Returns the rows of each round of an epoch: fresh permutations, cut into batches.

    There are as many rounds as whole batches of both parts of the clean data; poisons begin anew
    where they run out.

    Args:
      keys: for the order of clean, held-out and poisoned examples.
      epoch: its number, from 0.
      data: whose examples are used.
      sizes: batch sizes of the three.
    """
    held = (data.clean.size, data.held_out.size, data.labels.shape[0])
    parts = [epoch_batches(k, epoch, n, size) for k, n, size in zip(keys, held, sizes, strict=True)]
    rounds = min(parts[0].shape[0], parts[1].shape[0])
    again = jnp.arange(rounds) % parts[2].shape[0]
    return BatchIndices(parts[0][:rounds], parts[1][:rounds], parts[2][again])


@partial(jax.jit, static_argnames=("game", "sizes"))
def play_epoch(
    theta: Params,
    w: Params,
    data: GameData,
    keys: Keys,
    epoch: Int[Array, ""],
    *,
    game: Game,
    sizes: tuple[int, int, int],
) -> tuple[Params, Params, dict[str, Array]]:
    """Returns both players after one compiled epoch of rounds, and its history, averaged.

    Args:
      theta: the generator's weights.
      w: the defender's weights.
      data: all of the data.
      keys: for the order of examples.
      epoch: its number, from 0.
      game: the rules.
      sizes: batch sizes of clean, held-out and poisoned examples.
    """

    def batch_of(rows: BatchIndices) -> GameData:
        return data._replace(
            clean=data.clean.take(rows.clean),
            held_out=data.held_out.take(rows.held_out),
            region=data.region.take(rows.poison),
            labels=data.labels[rows.poison],
        )

    def body(
        carry: tuple[Params, Params, KfacInverse | None], part: tuple[Array, BatchIndices]
    ) -> tuple[tuple[Params, Params, KfacInverse | None], dict[str, Array]]:
        (theta, w, kept), (number, rows) = carry, part
        batch = batch_of(rows)
        if kept is not None:
            made = partial(game.invert, theta, w, batch)
            old = kept
            kept = jax.lax.cond(number % game.refresh == 0, made, lambda: old)
        theta, w, metrics = game.play_round(theta, w, batch._replace(kept=kept))
        return (theta, w, kept), metrics

    indices = draw_indices(keys, epoch, data, sizes)
    kept = None
    if game.inverse == "kfac":
        first = batch_of(jax.tree.map(lambda rows: rows[0], indices))
        blank = jax.eval_shape(game.invert, theta, w, first)
        kept = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), blank)
    rounds = jnp.arange(indices.clean.shape[0])
    (theta, w, _), history = jax.lax.scan(body, (theta, w, kept), (rounds, indices))
    return theta, w, jax.tree.map(lambda values: values.mean(0), history)


def _of_unit_length(updates: Params, _: Params | None) -> Params:
    """Returns updates of norm 1; zeros stay zeros."""
    size = tree_norm(updates)
    return jax.tree.map(lambda u: u / jnp.where(size > 0, size, 1), updates)


@partial(jax.jit, static_argnames="generator")
def generate(
    theta: Params,
    region: Region,
    labels: Int[Array, " m"],
    box: Box,
    *,
    generator: Generator,
) -> Float[Array, "m ..."]:
    """Returns poisons, within their bounds.

    Args:
      theta: the generator's weights.
      region: [m] where the poisons may lie, with the images they are made of.
      labels: [m] of the poisons.
      box: range of a value.
      generator: the network that makes them.
    """
    found: Array = region.project(generator(theta, region.base, labels, box))
    return found
