"""Cross-entropy of every next token of a text."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from unlearnkit.base import Dataset, Model, Params, State, Variables
from unlearnkit.training.recipe import Recipe
from unlearnkit.training.step import Metrics, forward_augmented

_BLOCK = 64
"""Logits whose largest is found at once, at most."""


@dataclasses.dataclass(frozen=True)
class CausalCrossEntropy:
    """The mean cross-entropy of all next tokens of a batch in training mode, times `sign`.

    L = sign · 1/N Σ_i Σ_t -log softmax(f(x_i)_t)_{x_i,t+1},   over the N tokens x_i,t+1 that are no
    padding

    for a network with the head `tokens`; labels are not looked at.

    Attributes:
      model: the network f.
      recipe: compute dtype and frozen state are read from it.
      sign: -1 for gradient ascent.

    Example:
      objective = training.CausalCrossEntropy(model, recipe)
      variables = training.fit(key, model, texts, recipe, objective=objective).variables

    Source: Radford et al. 2019; the objective of Pawelczyk et al. 2024, §5.1, for triggers.
    """

    NUMBERS: ClassVar[tuple[str, ...]] = ()

    model: Model
    recipe: Recipe
    sign: float = 1.0

    def __post_init__(self) -> None:
        pad_of(self.model, what="CausalCrossEntropy")

    def __call__(
        self,
        params: Params,
        state: State,
        batch: Dataset,
        key: Key[Array, ""],
        context: None = None,
    ) -> tuple[Float[Array, ""], tuple[State, Metrics]]:
        """Returns the loss, and the new state with `loss` and `accuracy` of the next tokens."""
        variables = Variables(params, state)
        logits, new_state = forward_augmented(self.model, self.recipe, variables, batch, key)
        log_p, right, there = next_tokens(logits, batch.x, pad_of(self.model, what="the loss"))
        count = jnp.maximum(there.sum(), 1)
        loss = -jnp.where(there, log_p, 0).sum() / count
        metrics = {"loss": loss, "accuracy": jnp.where(there, right, False).sum() / count}
        return self.sign * loss, (new_state, metrics)


def next_tokens(
    logits: Float[Array, "n length v"], x: Int[Array, "n length"], pad: int
) -> tuple[Float[Array, "n next"], Bool[Array, "n next"], Bool[Array, "n next"]]:
    """Returns of each next token its log-probability, whether it is the likeliest, and is there.

    Args:
      logits: [n, length, v] of the head `tokens`.
      x: [n, length] token ids.
      pad: the id of padding, which is no token.
    """
    # The last place, which nothing follows, is cut off last: a slice of the logits is a copy.
    following = jnp.pad(x[:, 1:], ((0, 0), (0, 1)), constant_values=pad)
    likeliest, top = _likeliest(jax.lax.stop_gradient(logits))
    own = jnp.take_along_axis(logits, following[..., None], 2)[..., 0] - top
    log_p = own - jnp.log(jnp.exp(logits - top[..., None]).sum(-1))
    return log_p[:, :-1], (likeliest == following)[:, :-1], (following != pad)[:, :-1]


def _likeliest(logits: Array) -> tuple[Array, Array]:
    """Returns the first of the largest logits, and its value, block by block.

    On a CPU an argmax takes six times as long as a maximum; here it is of few numbers.
    """
    size = logits.shape[-1]
    block = next(width for width in range(min(_BLOCK, size), 0, -1) if size % width == 0)
    blocks = logits.reshape(*logits.shape[:-1], size // block, block)
    tops = blocks.max(-1)
    best = tops.argmax(-1)
    inside = jnp.take_along_axis(blocks, best[..., None, None], -2)[..., 0, :]
    return best * block + inside.argmax(-1), tops.max(-1)


def pad_of(model: Model, *, what: str) -> int:
    """Returns the id of padding of a network that tells every next token.

    Args:
      model: the network.
      what: needs it, for the message.

    Raises:
      ValueError: another network.
    """
    tokens = model.tokens
    if tokens is not None:
        rows = jax.ShapeDtypeStruct((1, *model.input_shape), jnp.int32)
        variables = jax.eval_shape(model.init, jax.random.key(0))
        if len(jax.eval_shape(model.apply, variables, rows).shape) == 3:
            return tokens.pad
    raise ValueError(
        f"{what} needs a network that tells every next token, with tokens=Tokens(vocabulary, pad); "
        "build it with head='tokens'"
    )
