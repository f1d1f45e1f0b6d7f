"""How poisons enter a training set, and the info that every attack returns."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Literal, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Num

from unlearnkit.base import FROM_SCRATCH, Cost, Dataset, Poisoned, SolveInfo
from unlearnkit.host.arrays import concatenate_rows, replace_rows
from unlearnkit.poisoning.bounds import Bounds
from unlearnkit.rows import check_rows
from unlearnkit.validation import check_choice

Placement: TypeAlias = Literal["add", "perturb"]
"""`add`: the clean training set, then the poisons (Lu et al. 2022). `perturb`: each poison stands
in the place of the example that it was made of (Pawelczyk et al. 2024, unlearnable examples)."""


class PoisonInfo(NamedTuple):
    """What is needed to score an attack later.

    Attributes:
      base: [m] the row of the clean training set that each poison was made of, in the order of the
        poisons in the dataset; -1 for one made of none.
      bounds: within which the poisons lie.
      history: per round or epoch, by name.
      cost: what the attack took.
      solves: the convergence of the last linear solves, by name.
      extras: arrays of the attack's own by name, as noise, targets or decoy weights.
    """

    base: Int[Array, " m"]
    bounds: Bounds
    history: Mapping[str, Array]
    cost: Cost
    solves: Mapping[str, SolveInfo] = {}
    extras: Mapping[str, Array] = {}


class PoisonWarning(UserWarning):
    """An attack ran to its end, but what it did is less than what was asked for."""


def place(
    clean: Dataset,
    x: Num[Array, "m ..."],
    y: Int[Array, " m"],
    base: Int[Array, " m"],
    placement: Placement,
) -> tuple[Dataset, Bool[Array, " n"]]:
    """Returns the training set with the poisons in it, and which of its examples are poisons.

    Args:
      clean: the clean training set.
      x: poisons, normalised.
      y: their labels.
      base: the clean example that each was made of; ascending for `perturb`.
      placement: how they enter.

    Raises:
      ValueError: `perturb` without one clean example of its own for each poison, ascending.
    """
    check_choice("placement", placement, Placement)
    n, m = clean.size, y.shape[0]
    x, y = x.astype(clean.x.dtype), y.astype(clean.y.dtype)
    if placement == "add":
        both = clean._replace(x=concatenate_rows([clean.x, x]), y=concatenate_rows([clean.y, y]))
        return both, jax.device_put(np.arange(n + m) >= n)
    rows = np.asarray(check_rows(base, n, name="ascending base rows", of="the clean data"))
    if np.any(np.diff(rows) <= 0):
        raise ValueError(
            "placement='perturb' needs ascending base rows, one of its own for each poison, "
            f"got {rows[:5].tolist()}…; sort them, or use placement='add'"
        )
    replaced = clean._replace(x=replace_rows(clean.x, rows, x), y=replace_rows(clean.y, rows, y))
    return replaced, jax.device_put(np.isin(np.arange(n), rows))


def perturbation(poisoned: Poisoned, clean: Dataset) -> Float[Array, "m ..."]:
    """Returns by how much each poison differs from the clean example that it was made of.

    δ_i = x_i - x_base(i), in the units of the network.

    Args:
      poisoned: what an attack with a `PoisonInfo` returned.
      clean: the clean training set.

    Raises:
      ValueError: a poison was made of no clean example, or of another training set's.
    """
    base = poisoned.info.base
    if bool(jnp.any(base == FROM_SCRATCH)):
        raise ValueError("these poisons were made of no clean example: they have no perturbation")
    base = check_rows(base, clean.size, name="base rows", of="the clean data")
    return poisoned.dataset.x[poisoned.is_poison] - clean.x[base]


def warn(message: str) -> None:
    """Warns on the host that an attack fell short."""
    warnings.warn(message, PoisonWarning, stacklevel=3)
