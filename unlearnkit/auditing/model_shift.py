"""Distances between weights, and the cosine of updates with a wanted direction."""

from __future__ import annotations

from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Float

from unlearnkit.base import Params
from unlearnkit.kernels._trees import check_like
from unlearnkit.validation import all_finite


class ModelShift(NamedTuple):
    """The norms of w - w_reference over all parameters together.

    Attributes:
      l1: Σ |w - w_reference|.
      l2: the Euclidean norm.
      linf: the largest entry.
      relative: `l2` over ‖w_reference‖₂.
    """

    l1: float
    l2: float
    linf: float
    relative: float


def model_shift(params: Params, reference: Params) -> ModelShift:
    """Returns how far `params` are from `reference`, summed in float64.

    Pawelczyk et al. 2024, Figure 4, plot ‖θ(S_corr) - θ(S_corr ∖ S_poison)‖₁ and call it an ℓ2
    norm in their text: both are here.

    Args:
      params: weights, a pytree.
      reference: weights of the same network.

    Raises:
      ValueError: weights of another network, or that are not finite.

    Source: Pawelczyk et al. 2024, §6 and Figure 4.
    """
    check_like("params", params, "reference", reference)
    w, w0 = _flat(params, "params"), _flat(reference, "reference")
    shift, size = w - w0, float(np.linalg.norm(w0))
    l2 = float(np.linalg.norm(shift))
    relative = l2 / size if size else float("inf") if l2 else 0.0
    return ModelShift(float(np.abs(shift).sum()), l2, float(np.abs(shift).max()), relative)


def update_cosines(updates: Params, direction: Params) -> Float[np.ndarray, " t"]:
    """Returns the cosine of each update with the direction that weights should move in.

    cos_t = <v, g_t> / (‖v‖ ‖g_t‖), over all parameters together, in float64.

    Args:
      updates: like the weights with [t] in front: g_t.
      direction: like the weights: v.

    Raises:
      ValueError: updates of another network, that are not finite, or one of which is 0; or a
        direction that is 0.

    Source: Pawelczyk et al. 2024, §6 and Figure 5.
    """
    first = jax.tree.map(lambda leaf: leaf[0], updates)
    check_like("updates (one of them)", first, "direction", direction)
    v = _flat(direction, "direction")
    steps = {leaf.shape[0] for leaf in jax.tree.leaves(updates)}
    if len(steps) != 1:
        raise ValueError(f"every array of updates must have as many steps, got {sorted(steps)}")
    if not all_finite(updates):
        raise ValueError("updates must be finite; the run has diverged")
    count = steps.pop()
    leaves = [np.asarray(g, np.float64).reshape(count, -1) for g in jax.tree.leaves(updates)]
    g = np.concatenate(leaves, axis=1)
    lengths, length = np.linalg.norm(g, axis=1), np.linalg.norm(v)
    if not length:
        raise ValueError("direction must not be 0: nothing has to move")
    if not lengths.all():
        raise ValueError(
            f"updates must not be 0, update {int(np.argmin(lengths))} is: it has no direction"
        )
    found: np.ndarray = (g @ v) / (lengths * length)
    return found


def _flat(tree: Params, name: str) -> Float[np.ndarray, " p"]:
    if not all_finite(tree):
        raise ValueError(f"{name} must be finite; the run has diverged")
    return np.concatenate([np.asarray(leaf, np.float64).ravel() for leaf in jax.tree.leaves(tree)])
