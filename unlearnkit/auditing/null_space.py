"""How much of a change of weights the answers to queries do not show."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float

from unlearnkit.auditing.information import gram, jacobian_rows
from unlearnkit.base import Model, Variables
from unlearnkit.validation import check_variables


class NullSpace(NamedTuple):
    """Where a change of weights lies.

    Attributes:
      share: of its squared length, in [0, 1], that changes no answer to first order.
      by_chance: the same of a random direction, 1 - rank J / p.
      sensitivity: the squared change of the answers ‖J Δw‖² beside that of a random direction as
        long, ‖Δw‖² ‖J‖²_F / p: below 1 the change is hidden better than by chance.
    """

    share: float
    by_chance: float
    sensitivity: float


def null_space_share(
    model: Model,
    scrubbed: Variables,
    reference: Variables,
    x: Float[Array, "n ..."],
    *,
    rtol: float = 1e-6,
) -> NullSpace:
    """Returns how much of the way from reference to scrubbed weights no query shows.

    share = 1 - ‖J⁺ J Δw‖² / ‖Δw‖²,   Δw = w_scrubbed - w_reference, J the logits' Jacobian at the
    reference's weights

    Weights that differ by much answer alike where Δw lies in the null space of J, so that the bound
    of equation (7) is less than that of (6). With more weights than answers most of any direction
    lies there: `by_chance` says how much.

    Args:
      model: the network, of c outputs and p weights.
      scrubbed: the weights after forgetting.
      reference: the weights that never saw the forget set.
      x: [n, ...] the queries; their Jacobian, n c p numbers, is held.
      rtol: eigenvalues of J Jᵀ below it, relative to the largest, count as 0.

    Raises:
      ValueError: weights that do not fit, no query, or equal weights.

    Example:
      found = auditing.null_space_share(model, scrubbed, retrained, task.test.x)

    Source: Golatkar et al. 2020b, §3.3, blessing of the null-space.
    """
    for variables in (scrubbed, reference):
        check_variables(variables, model)
    if not len(x):
        raise ValueError("x must hold at least one query, got none")
    one, other = (np.asarray(ravel_pytree(v.params)[0], np.float64) for v in (scrubbed, reference))
    away = one - other
    length = float(away @ away)
    if length == 0:
        raise ValueError("scrubbed and reference must differ, got equal weights")
    rows = np.asarray(jacobian_rows(reference, x, model=model))
    rows = rows.reshape(-1, rows.shape[-1])
    values, vectors = np.linalg.eigh(gram(rows))
    alive = values > rtol * values[-1]
    seen = rows @ away
    parts = vectors[:, alive].T @ seen
    shown = float(np.sum(parts**2 / values[alive])) / length
    by_chance = 1 - int(alive.sum()) / len(away)
    chance = length * float(values.sum()) / len(away)
    return NullSpace(1 - min(shown, 1.0), by_chance, float(seen @ seen) / chance)
