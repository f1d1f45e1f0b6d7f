"""A step of gradient matching: signed Adam, all restarts at once, against every surrogate."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, Key

from unlearnkit.base import Model, Params, Variables
from unlearnkit.poisoning._gradients import cosine_distance, judge_gradient
from unlearnkit.poisoning.bounds import Region
from unlearnkit.training.augmentation import flip_images, glide_images, shift_images


class Match(NamedTuple):
    """What is matched on one surrogate.

    Attributes:
      variables: of the surrogate network.
      target: the gradient of the adversarial loss, like its parameters.
      region: [m] where the poisons may lie.
      labels: [m] of the poisons.
      black: what is shifted in, as the network sees a black pixel.
    """

    variables: Variables
    target: Params
    region: Region
    labels: Int[Array, " m"]
    black: Float[Array, "#c"]


@dataclasses.dataclass(frozen=True)
class Matching:
    """The static part of a step; see `GradientMatching`."""

    model: Model
    optimizer: optax.GradientTransformation
    shift: int
    subpixel: bool
    flip: bool
    chunk: int

    def augment(
        self, key: Key[Array, ""], x: Float[Array, "m ..."], black: Array
    ) -> Float[Array, "m ..."]:
        """Returns the poisons as one batch of training may see them; linear in `x`."""
        shift_key, flip_key = jax.random.split(key)
        if self.shift:
            move = glide_images if self.subpixel else shift_images
            x = move(shift_key, x, by=self.shift, fill=black)
        return flip_images(flip_key, x) if self.flip else x

    def loss_and_slope(
        self, x: Float[Array, "m ..."], match: Match, key: Key[Array, ""]
    ) -> tuple[Float[Array, ""], Float[Array, "m ..."]]:
        """Returns 1 - cosine on augmented poisons, and its derivative in the poisons."""
        seen, pull_back = jax.vjp(lambda x: self.augment(key, x, match.black), x)
        loss, slope = self._judge(seen, match)
        return loss, pull_back(slope)[0]

    def loss(self, x: Float[Array, "m ..."], match: Match) -> Float[Array, ""]:
        """Returns 1 - cosine on the poisons as they are."""
        return self._judge(x, match)[0]

    def _judge(self, x: Array, match: Match) -> tuple[Array, Array]:
        return judge_gradient(
            lambda g: cosine_distance(g, match.target),
            self.model,
            match.variables,
            x,
            match.labels,
            chunk=self.chunk,
        )


def step_all(
    x: Float[Array, "restarts m ..."],
    memory: optax.OptState,
    matches: Sequence[Match],
    keys: Key[Array, " restarts"],
    *,
    rules: Matching,
) -> tuple[Float[Array, "restarts m ..."], optax.OptState, Float[Array, " restarts"]]:
    """Returns the poisons of all restarts after a step, Adam's memory, and the losses before.

    x <- Π(x - Adam(sign(1/k Σ_s ∂L_s/∂x))),   the mean over the k surrogates

    All surrogates see the same augmented poisons, one after another, by one program.

    Args:
      x: poisons of each restart.
      memory: of Adam.
      matches: one for each surrogate.
      keys: of the augmentation of each restart.
      rules: the static part.
    """
    found = [_slopes(x, match, jax.random.clone(keys), rules=rules) for match in matches]
    losses, slopes = (_mean(parts) for parts in zip(*found, strict=True))
    return *_move(x, memory, slopes, matches[0].region, rules=rules), losses


def judge_all(
    x: Float[Array, "restarts m ..."], matches: Sequence[Match], *, rules: Matching
) -> Float[Array, " restarts"]:
    """Returns the loss of each restart, without augmentation, the mean over the surrogates."""
    return _mean([_losses(x, match, rules=rules) for match in matches])


@partial(jax.jit, static_argnames="rules")
def _slopes(
    x: Float[Array, "restarts m ..."],
    match: Match,
    keys: Key[Array, " restarts"],
    *,
    rules: Matching,
) -> tuple[Float[Array, " restarts"], Float[Array, "restarts m ..."]]:
    return jax.vmap(lambda x, key: rules.loss_and_slope(x, match, key))(x, keys)


@partial(jax.jit, static_argnames="rules")
def _losses(
    x: Float[Array, "restarts m ..."], match: Match, *, rules: Matching
) -> Float[Array, " restarts"]:
    return jax.vmap(lambda x: rules.loss(x, match))(x)


@partial(jax.jit, static_argnames="rules")
def _move(
    x: Float[Array, "restarts m ..."],
    memory: optax.OptState,
    slopes: Float[Array, "restarts m ..."],
    region: Region,
    *,
    rules: Matching,
) -> tuple[Float[Array, "restarts m ..."], optax.OptState]:
    updates, memory = rules.optimizer.update(jnp.sign(slopes), memory, x)
    return jax.vmap(region.project)(optax.apply_updates(x, updates)), memory


def _mean(parts: Sequence[Array]) -> Array:
    return parts[0] if len(parts) == 1 else jnp.stack(parts).mean(0)


@functools.lru_cache(maxsize=16)
def signed_adam(learning_rate: float, steps: int) -> optax.GradientTransformation:
    """Returns Adam with its rate tenfold lower after 3/8, 5/8 and 7/8 of the steps.

    Equal calls return the same one, for `jax.jit`.
    """
    drops = {steps * eighths // 8: 0.1 for eighths in (3, 5, 7) if steps * eighths // 8 > 0}
    return optax.adam(optax.piecewise_constant_schedule(learning_rate, drops))
