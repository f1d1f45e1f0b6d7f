"""Checks that a function treats the examples of a batch independently.

Per-example gradients, chunked sums and kernels of outputs assume that the loss of a batch is the
mean of its examples' losses, and that a row of outputs depends on its own input alone.
Normalisation by batch statistics (BatchNorm in training mode) breaks both without an error.

The probes compare one program with itself: what it says of a row beside one companion and beside
another must be equal. So rounding raises no false alarm, nor does dropout, whose mask belongs to
the place in the batch. They need values, and are skipped where arrays belong to a trace.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

CANDIDATES = 64
"""Examples among which the probes look for rows that differ."""
REMEDY = (
    "use running statistics (BatchNorm in evaluation mode, as `Model.apply` does), or a "
    "normalisation of each example by itself, as GroupNorm"
)


def check_mean_of_examples(
    loss: Callable[[Any, Array, Array], Array], params: Any, x: Any, y: Any
) -> None:
    """Raises ValueError if a loss is not the mean of its examples' losses.

    L(x_0 … x_m) = 1/m Σ_i l(x_i): the derivative in one input does not depend on the other
    inputs and labels, and two examples have half the sum of their losses. Three examples of the
    data are tried beside each other in pairs, by two compilations per function; a verdict is kept
    for the function itself. Skipped under a transformation, for integer inputs, and where every
    derivative tried is zero or not finite.

    Args:
      loss: (params, x [m, ...], y [m]) -> scalar.
      params: where.
      x: [n, ...] examples.
      y: [n] labels, or [n, c].

    Raises:
      ValueError: a loss that mixes its examples, or sums them.
    """
    if not _can_probe(params, x, y):
        return
    if _remembered(loss, _judge_loss, loss, params, x, y) == "mixes":
        raise ValueError(
            "the loss mixes the examples of a batch: its derivative in one example changes with "
            f"the others, so that no example has a gradient of its own; {REMEDY}"
        )
    if _remembered(loss, _judge_loss, loss, params, x, y) == "sums":
        raise ValueError(
            "the loss is the sum over the examples of a batch, and must be their mean; "
            "divide it by the number of examples"
        )


def check_rows_alone(
    apply: Callable[[Any, Array], Array], params: Any, x: Any, *, what: str = "apply"
) -> None:
    """Raises ValueError if a network's output at an input depends on its batch.

    Three inputs are tried beside each other in pairs, by one compilation per function; a verdict is
    kept for the function itself. Skipped under a transformation, and where no output is finite.

    Args:
      apply: (params, x [m, ...]) -> [m, ...].
      params: where.
      x: [n, ...] inputs.
      what: how the message calls the function.

    Raises:
      ValueError: a row that changes with the other rows.
    """
    if _can_probe(params, x) and _remembered(apply, _judge_rows, apply, params, x) == "mixes":
        raise ValueError(
            f"{what} mixes the examples of a batch: the output at one input changes with the "
            f"others, so that it depends on how the data are cut into chunks; {REMEDY}"
        )


def check_logits(apply: Callable[[Any, Array], Array], params: Any, x: Any) -> None:
    """Raises ValueError if a network ends in a softmax.

    Losses and membership scores take the softmax of its outputs, once more. Their log passes: it
    is as good as the logits. Asked once per function; skipped under a transformation.

    Args:
      apply: (params, x [m, ...]) -> [m, c].
      params: where.
      x: [n, ...] inputs.

    Raises:
      ValueError: every output is in [0, 1] and every row sums to 1.
    """
    if _can_probe(params, x) and _remembered(apply, _judge_sums, apply, params, x) == "softmax":
        raise ValueError(
            "the model returns probabilities (each row of outputs is in [0, 1] and sums to 1) "
            "where logits are needed: losses and scores would take the softmax twice; remove the "
            "softmax at its end, or return the log of the probabilities"
        )


def _remembered(function: Any, judge: Callable[..., str | None], *arguments: Any) -> str:
    """Returns the verdict on `function`; one that could not be reached is tried again next time."""
    try:
        known = _verdicts(function, judge)
    except TypeError:  # no hash, and so no identity to remember it by
        known = []
    if not known:
        with jax.ensure_compile_time_eval():
            verdict = judge(*arguments)
        if verdict is None:
            return "unknown"
        known.append(verdict)
    return known[0]


@lru_cache(maxsize=64)
def _verdicts(function: Any, judge: Any) -> list[str]:
    return []


def _can_probe(*trees: Any) -> bool:
    leaves = jax.tree.leaves(trees)
    arrays = all(isinstance(leaf, jax.Array | np.ndarray | np.generic | float) for leaf in leaves)
    traced = any(isinstance(leaf, jax.core.Tracer) for leaf in leaves)
    return arrays and not traced and all(jnp.size(leaf) > 0 for leaf in leaves)


def _judge_loss(loss: Any, params: Any, x: Any, y: Any) -> str | None:
    if not jnp.issubdtype(x.dtype, jnp.floating):
        return None
    inputs, rows = _three_rows(x, y)
    labels = jnp.asarray(y)[rows]
    losses, slopes = {}, {}
    for i in range(3):
        for j in range(3):
            if i != j:
                pair = jnp.array([i, j])
                both = _pair_slopes(loss, params, inputs[pair], labels[pair])
                losses[i, j], slopes[i, j] = float(both[0]), np.asarray(both[1][0], np.float64)
    verdict = _compare(slopes, float(jnp.finfo(x.dtype).eps))
    if verdict != "separate":
        return verdict
    alone = [float(_alone(loss, params, inputs[i : i + 1], labels[i : i + 1])) for i in range(3)]
    sums = all(
        np.isclose(value, alone[i] + alone[j], rtol=1e-3, atol=0)
        and not np.isclose(value, (alone[i] + alone[j]) / 2, rtol=1e-2, atol=1e-30)
        for (i, j), value in losses.items()
    )
    return "sums" if sums else verdict


def _judge_rows(apply: Any, params: Any, x: Any) -> str | None:
    inputs, _ = _three_rows(x, None)
    outputs: dict[tuple[int, int], np.ndarray] = {}
    eps = 0.0
    for i in range(3):
        for j in range(3):
            if i != j:
                rows = jnp.array([i, j])
                both = jax.tree.map(lambda leaf, rows=rows: leaf[rows], inputs)
                pair = _pair_outputs(apply, params, both)
                outputs[i, j] = np.asarray(pair[0], np.float64)
                eps = float(jnp.finfo(pair.dtype).eps)
    return _compare(outputs, eps)


def _judge_sums(apply: Any, params: Any, x: Any) -> str | None:
    inputs, _ = _three_rows(x, None)
    rows = [
        np.asarray(_pair_outputs(apply, params, inputs[jnp.array(pair)]), np.float64)
        for pair in ((0, 1), (2, 0))
    ]
    outputs = np.concatenate(rows)
    if outputs.ndim != 2 or outputs.shape[1] < 2:
        return "other"
    if not np.all(np.isfinite(outputs)):
        return None
    inside = np.all((outputs >= 0) & (outputs <= 1 + 1e-3))
    return "softmax" if inside and np.allclose(outputs.sum(1), 1, atol=1e-3) else "other"


def _compare(values: dict[tuple[int, int], np.ndarray], eps: float) -> str | None:
    """Returns whether the values of a row are equal beside both companions; None: no telling."""
    tolerance, compared = 0.1 * eps**0.5, False
    for i, (j, k) in enumerate([(1, 2), (0, 2), (0, 1)]):
        one, other = values[i, j], values[i, k]
        size = max(np.max(np.abs(one)), np.max(np.abs(other)))
        if not np.isfinite(size) or size == 0:
            continue
        compared = True
        if np.max(np.abs(one - other)) > tolerance * size:
            return "mixes"
    return "separate" if compared else None


def _three_rows(x: Any, y: Any) -> tuple[Any, np.ndarray]:
    """Returns three inputs that differ, far apart and of several labels where there are any.

    Inputs may be a tree of arrays, whose rows differ where any of their leaves do. Where the data
    hold fewer, scaled copies of the first stand in, whole numbers rounded up: no mask becomes zero.
    """
    leaves, tree = jax.tree.flatten(x)
    heads = [np.asarray(leaf[:CANDIDATES], np.float64) for leaf in leaves]
    flat = np.concatenate([head.reshape(len(head), -1) for head in heads], axis=1)
    chosen = [0]
    for _ in range(2):
        gaps = np.min([np.abs(flat - flat[i]).max(1) for i in chosen], axis=0)
        if gaps.max() == 0:
            break
        if y is not None and np.ndim(y) == 1:
            seen = np.asarray(y[: len(flat)])
            new = ~np.isin(seen, seen[chosen]) & (gaps > 0)
            gaps = np.where(new, gaps, 0) if new.any() else gaps
        chosen.append(int(gaps.argmax()))
    found = []
    for head, leaf in zip(heads, leaves, strict=True):
        inputs = [head[i] for i in chosen]
        inputs += [head[0] * factor + shift for factor, shift in ((0.5, 0.25), (0.25, 0.5))]
        rows = np.stack(inputs[:3])
        whole = not jnp.issubdtype(leaf.dtype, jnp.floating)
        found.append(jnp.asarray(np.ceil(rows) if whole else rows, leaf.dtype))
    return jax.tree.unflatten(tree, found), np.array([*chosen, 0, 0][:3])


@partial(jax.jit, static_argnums=0)
def _pair_slopes(loss: Any, params: Any, x: Array, y: Array) -> tuple[Array, Array]:
    return jax.value_and_grad(loss, argnums=1)(params, x, y)


@partial(jax.jit, static_argnums=0)
def _alone(loss: Any, params: Any, x: Array, y: Array) -> Array:
    found: Array = loss(params, x, y)
    return found


@partial(jax.jit, static_argnums=0)
def _pair_outputs(apply: Any, params: Any, x: object) -> Array:
    found: Array = apply(params, x)
    return found
