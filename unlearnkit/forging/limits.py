"""How far a replay may end from a checkpoint: never so far that another network fits in between."""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import numpy as np

from unlearnkit.forging.norms import Norm, error_between
from unlearnkit.training import Claim, TrainState
from unlearnkit.training.checkpoint import flatten

LARGEST_RATIO = 1e-4
"""Of how far a segment moves, where both computations are in full float32."""
REDUCED_RATIO = 1e-1
"""Likewise where one of them may round to fewer bits."""
ROUNDING = 2.0**-23
"""The relative distance of neighbouring float32 numbers, above which a limit is not forced."""


class Tolerance(NamedTuple):
    """Errors that are accepted, each in units of its own.

    Attributes:
      weights: of the trained weights.
      memory: of the optimiser's memory.
      statistics: of BatchNorm's and other state.
    """

    weights: float
    memory: float
    statistics: float


def as_tolerance(value: float | Tolerance) -> Tolerance:
    """Returns the tolerance of each part; a number is that of the weights.

    Memory and statistics have other units: beside a number above 0 they are limited by how far they
    move alone, beside 0 by 0.

    Raises:
      ValueError: a negative number or NaN, or weights without a limit.
    """
    if not isinstance(value, Tolerance):
        others = math.inf if value > 0 else 0.0
        value = Tolerance(float(value), others, others)
    if not (all(part >= 0 for part in value) and math.isfinite(value.weights)):
        shown = value.weights if math.isnan(value.weights) or value.weights < 0 else tuple(value)
        raise ValueError(f"tolerance must be >= 0 and finite, got {shown}")
    return value


def largest_ratio(claim: Claim) -> float:
    """Returns the share of a segment's move that a limit may be: 1e-4, or 0.1 at reduced precision.

    Full precision is float32 activations with matrix products that are float32 on both devices, as
    they always are on CPUs.
    """
    on_cpus = {jax.default_backend(), claim.environment.get("platform")} == {"cpu"}
    products = on_cpus or claim.matmul_precision in ("highest", "float32")
    full = products and claim.recipe.compute_dtype == "float32"
    return LARGEST_RATIO if full else REDUCED_RATIO


def state_errors(one: TrainState, other: TrainState, norm: Norm) -> Tolerance:
    """Returns the errors between two states.

    Args:
      one: the weights, memory and statistics of one computation.
      other: those of another, of the same shapes.
      norm: the measure, see `error_between`.
    """
    pairs = zip(_parts(one), _parts(other), strict=True)
    return Tolerance(*(error_between(a, b, norm) for a, b in pairs))


class Move(NamedTuple):
    """One segment's way.

    Attributes:
      distance: how far the weights moved, ‖θ' - θ‖₂.
      moved: how far each part moved, in the norm.
      sizes: of each part at the end, ‖·‖ in the norm.
      weights: ‖θ'‖₂.
    """

    distance: float
    moved: Tolerance
    sizes: Tolerance
    weights: float


def state_move(before: TrainState, after: TrainState, norm: Norm) -> Move:
    """Returns how far a segment moved; integers, which count steps, are left out.

    Args:
      before: where the segment begins.
      after: where it ends.
      norm: the measure, see `error_between`.
    """
    starts, ends = ([_floats(part) for part in _parts(state)] for state in (before, after))
    pairs = list(zip(ends, starts, strict=True))
    moved = Tolerance(*(error_between(a, b, norm) for a, b in pairs))
    origin = [{name: np.zeros_like(array) for name, array in part.items()} for part in ends]
    sizes = Tolerance(*(error_between(a, o, norm) for a, o in zip(ends, origin, strict=True)))
    if norm == "l2":
        return Move(moved.weights, moved, sizes, sizes.weights)
    return Move(error_between(*pairs[0]), moved, sizes, error_between(ends[0], origin[0]))


def power(norm: Norm) -> int:
    """Returns the power of a distance that a norm grows with."""
    return 1 if norm in ("l2", "linf") else 2


class Caps(NamedTuple):
    """The largest limits that the segments of a log may have.

    Attributes:
      norm: of errors.
      ratio: of a limit to how far the segment moves.
      memory: what an error of momentum is worth in weights, at the run's largest rate η:
        η / (1 - momentum); 0 for other optimisers.
    """

    norm: Norm
    ratio: float
    memory: float

    def of(self, move: Move, steps: int) -> Tolerance:
        """Returns the largest limits for a segment, in the norm.

        Weights: ratio ‖θ' - θ‖, or where they hardly move, as at the end of a cosine schedule, the
        rounding of their numbers over the steps, 2⁻²³ √steps ‖θ'‖. Memory: likewise, or what moves
        the weights no further than their own limit does. Statistics steer no step: ratio ‖s'‖.

        Args:
          move: of the segment.
          steps: its length.
        """
        p = power(self.norm)
        rounding, ratio = (ROUNDING * math.sqrt(steps)) ** p, self.ratio**p
        moved, sizes = move.moved, move.sizes
        weights = max(ratio * moved.weights, rounding * sizes.weights)
        memory = max(ratio * moved.memory, rounding * sizes.memory)
        if self.memory > 0:
            memory = max(memory, weights / self.memory**p)
        return Tolerance(weights, memory, ratio * max(moved.statistics, sizes.statistics))


def caps_of(claim: Claim, norm: Norm, ratio: float | None = None) -> Caps:
    """Returns the largest limits of a log; None takes `largest_ratio`.

    Args:
      claim: what the log says of its run.
      norm: the measure of errors, see `error_between`.
      ratio: the share of a segment's move that a limit may be.
    """
    recipe = claim.recipe
    momentum = recipe.optimizer == "sgd" and recipe.momentum > 0
    worth = float(np.max(claim.rates, initial=0.0)) / (1 - recipe.momentum)
    return Caps(norm, ratio or largest_ratio(claim), worth if momentum else 0.0)


def _parts(state: TrainState) -> list[dict[str, np.ndarray]]:
    """Returns weights; memory with the count of steps; statistics."""
    parts = (state.variables.params, (state.opt_state, state.step), state.variables.state)
    return [flatten(part) for part in parts]


def _floats(part: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name: array for name, array in part.items() if array.dtype.kind not in "iub"}
