"""What a network makes of every next token of a text."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Bool, Float

from unlearnkit.base import Dataset, Model, Task, Variables
from unlearnkit.kernels import by_chunks
from unlearnkit.training.causal import next_tokens, pad_of
from unlearnkit.validation import check_task, check_variables

_CHUNK = 64


class NextTokens(NamedTuple):
    """What a network makes of every next token.

    Attributes:
      log_p: [n, length - 1] of the token that is there, in nats.
      right: [n, length - 1] whether it is the likeliest.
      there: [n, length - 1] whether it is one, and no padding.
    """

    log_p: Float[np.ndarray, "n next"]
    right: Bool[np.ndarray, "n next"]
    there: Bool[np.ndarray, "n next"]


def check_texts_of(model: Model, variables: Variables, task: Task, *, audit: str) -> int:
    """Returns the id of padding; raises ValueError if a task is no texts, or too short ones.

    Args:
      model: the network.
      variables: its weights.
      task: whose texts are looked at.
      audit: what the message calls it.

    Raises:
      ValueError: a network that does not tell every next token, a task or variables that do not fit
        it, or a text of one token.
    """
    pad = pad_of(model, what=audit)
    check_task(task, model)
    check_variables(variables, model)
    for name, part in task._asdict().items():
        short = np.flatnonzero((np.asarray(part.x)[:, 1:] == pad).all(1))
        if short.size:
            raise ValueError(
                f"text {short[0]} of {name} has one token, and no next one ({short.size} such); "
                "leave such texts out"
            )
    return pad


def look_at(model: Model, variables: Variables, dataset: Dataset, pad: int) -> NextTokens:
    """Returns what a network makes of every next token of some texts.

    Args:
      model: the network.
      variables: its weights.
      dataset: [n, length] token ids.
      pad: the id of padding.
    """

    def part(variables: Variables, x: Array) -> tuple[Array, Array, Array]:
        found: tuple[Array, Array, Array] = _look(variables, x, model=model, pad=pad)
        return found

    return NextTokens(*map(np.asarray, by_chunks(part, variables, (dataset.x,), _CHUNK)))


@partial(jax.jit, static_argnames=("model", "pad"))
def _look(variables: Variables, x: Array, *, model: Model, pad: int) -> tuple[Array, Array, Array]:
    return next_tokens(model.apply(variables, x), x, pad)


def mean_where(
    values: Float[np.ndarray, "n next"] | Bool[np.ndarray, "n next"],
    there: Bool[np.ndarray, "n next"],
) -> Float[np.ndarray, " n"]:
    """Returns the mean of each row over the tokens that are there.

    Args:
      values: of each next token.
      there: whether it is one.
    """
    found: np.ndarray = np.where(there, values, 0).sum(1, dtype=np.float64) / there.sum(1)
    return found
