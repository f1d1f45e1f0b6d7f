"""The order of the examples, drawn on the host: today's batches without a compiled program."""

from __future__ import annotations

import jax
import numpy as np
from jaxtyping import Array, Int, Key

from unlearnkit.host.random import AnyKey, host_key


def epoch_rows(key: AnyKey, epoch: int, n: int, batch_size: int) -> Int[np.ndarray, "steps batch"]:
    """Returns the batches of one epoch: the rows of a fresh permutation of range(n).

    The last partial batch is dropped. The same as `epoch_batches`.

    Args:
      key: of all epochs.
      epoch: from 0.
      n: examples.
      batch_size: examples per step, at most n.
    """
    steps = n // batch_size
    order = key.fold_in(epoch).permutation(n)
    return order[: steps * batch_size].reshape(steps, batch_size)


def several_epochs(
    key: AnyKey, epochs: range, n: int, batch_size: int
) -> Int[np.ndarray, "steps batch"]:
    """Returns the batches of successive epochs, one after another; see `epoch_rows`.

    Args:
      key: of all epochs.
      epochs: their numbers.
      n: examples.
      batch_size: examples per step, at most n.
    """
    rows = [epoch_rows(key, epoch, n, batch_size) for epoch in epochs]
    return np.concatenate(rows) if rows else np.zeros((0, batch_size), np.int32)


def whole_rows(key: AnyKey, index: int, n: int, batch_size: int) -> Int[np.ndarray, "steps batch"]:
    """Returns the batches of a pass in which every one of range(n) is seen.

    They are the rows of a fresh permutation. The last one, where that leaves it short, is filled
    from the permutation of the next pass, with the first examples there that it does not hold.

    Args:
      key: of all passes.
      index: of this pass.
      n: examples.
      batch_size: at most n.
    """
    order = key.fold_in(index).permutation(n)
    missing = -n % batch_size
    if missing:
        following = key.fold_in(index + 1).permutation(n)
        held = np.zeros(n, bool)
        held[order[n - n % batch_size :]] = True
        order = np.concatenate([order, following[~held[following]][:missing]])
    return order.reshape(-1, batch_size)


def cycled_rows(
    key: AnyKey, first: int, n: int, batch_size: int, steps: int
) -> Int[np.ndarray, "steps batch"]:
    """Returns `steps` batches of whole passes over range(n) that follow one another.

    Args:
      key: of all passes.
      first: the batches that were taken before: the cycle goes on where it stood.
      n: examples.
      batch_size: at most n.
      steps: how many batches.
    """
    per_pass = -(-n // batch_size)
    passes = range(first // per_pass, -(-(first + steps) // per_pass))
    rows = [whole_rows(key, index, n, batch_size) for index in passes]
    begin = first - passes.start * per_pass
    return np.concatenate(rows)[begin : begin + steps]


def choose_rows(key: Key[Array, ""], n: int, m: int) -> Int[Array, " m"]:
    """Returns m of n rows drawn without replacement, ascending.

    Args:
      key: draws them.
      n: how many there are.
      m: how many are drawn, at most n.
    """
    found: Array = jax.device_put(np.sort(host_key(key).permutation(n)[:m]))
    return found
