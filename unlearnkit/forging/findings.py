"""What a log shows before anything is replayed: its start, its batches, how far it moves."""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import numpy as np
from scipy import stats

from unlearnkit.base import Dataset, Model, Variables
from unlearnkit.forging import detectors
from unlearnkit.forging.limits import ROUNDING, Move, Tolerance
from unlearnkit.forging.norms import error_between
from unlearnkit.training import Trajectory, TrajectoryError
from unlearnkit.training.checkpoint import flatten, same_bits
from unlearnkit.training.claim import variables_sha256
from unlearnkit.validation import check_variables

START_ROUNDING = 1e-6
"""How far initialisations of one key may differ between devices, of the weights' norm."""
LEAST_RATE = 1e-4
"""A step at a smaller share of the recipe's rate hardly trains."""
_DRAWS = 4
_CHANCE = 1e-6
_MOST_VALUES = 100_000


class StartFinding(NamedTuple):
    """Where the run of a log began.

    Attributes:
      derived: whether the log says that its key initialised the network.
      sha256: of the first weights and statistics.
      error: their distance to what the key initialises, or to the start that the verifier knows,
        ‖θ_0 - θ̂_0‖₂; NaN where the log began at unknown weights.
      limit: the largest that is accepted.
      unlikely: of such unknown weights, those that are not distributed as an initialisation.
    """

    derived: bool
    sha256: str
    error: float
    limit: float
    unlikely: tuple[str, ...]

    @property
    def known(self) -> bool:
        """Whether there is something to compare the start with."""
        return self.derived or not math.isnan(self.error)

    @property
    def right(self) -> bool:
        """Whether the start is what it should be, as far as that is known."""
        return not self.known or self.error <= self.limit


def find_start(
    log: Trajectory, model: Model, start: Variables | None, tolerance: Tolerance
) -> StartFinding:
    """Returns what is known of the weights at which a log begins.

    Args:
      log: whose claim says where it began.
      model: the network, which initialises.
      start: the weights that the verifier knows it to have begun at.
      tolerance: 0 wants every bit of an initialisation; else its rounding on another device is
        accepted, 1e-6 of its norm.

    Raises:
      TrajectoryError: a start of another digest than the log says.
      ValueError: a `start` that does not fit, or beside a log that its key began.
    """
    claim = log.claim
    found = log.read(0, model).state.variables
    digest = variables_sha256(found)
    if digest != claim.start.sha256:
        raise TrajectoryError("the log's first checkpoint is not the start that its manifest names")
    if start is not None:
        if claim.start.derived:
            raise ValueError("the log's key initialised its network; leave out start")
        check_variables(start, model)
        error = 0.0 if same_bits(start, found) else _distance(start, found)
        return StartFinding(False, digest, error, 0.0, ())
    if not claim.start.derived:
        return StartFinding(False, digest, math.nan, 0.0, unlikely_initialisation(model, found))
    with jax.default_matmul_precision(claim.matmul_precision):
        expected = jax.jit(model.init)(claim.init_key)
    error = 0.0 if same_bits(expected, found) else _distance(expected, found)
    size = math.sqrt(sum(float(np.sum(np.square(a, dtype=float))) for a in flatten(found).values()))
    limit = START_ROUNDING * size if tolerance.weights > 0 else 0.0
    return StartFinding(True, digest, error, limit, ())


def _distance(one: Variables, other: Variables) -> float:
    """Returns a distance above 0 of variables that are not the same bits."""
    return max(error_between(flatten(one), flatten(other)), math.ulp(0.0))


def unlikely_initialisation(model: Model, variables: Variables) -> tuple[str, ...]:
    """Returns the arrays that are not distributed as the network's own initialisation, by name.

    The entries of each array are compared with those of fresh initialisations by the two-sample
    Kolmogorov-Smirnov test, at one in a million for all arrays together; arrays that are always
    initialised to one value must hold it. Weights that were trained for long differ; weights chosen
    to pass will pass.

    Source: Jia et al. 2021, section on the initial state.
    """
    keys = jax.random.split(jax.random.key(0), _DRAWS)
    fresh = flatten(jax.jit(jax.vmap(model.init))(keys))
    odd = []
    arrays = flatten(variables)
    for name, array in arrays.items():
        drawn, values = (a.ravel()[:_MOST_VALUES] for a in (fresh[name], array))
        if drawn.min() == drawn.max():
            unlikely = bool((array != drawn[0]).any())
        else:
            unlikely = stats.ks_2samp(values, drawn).pvalue < _CHANCE / len(arrays)
        if unlikely:
            odd.append(name)
    return tuple(odd)


class BatchFinding(NamedTuple):
    """How a log uses the data.

    Attributes:
      redrawn: steps, from 0, whose batches are not those that the log's key draws.
      repeated: how often an example occurs again within an epoch; 0 in an honest log.
      never: rows of the data that no logged step used.
      missing_classes: classes of the data that no logged step used.
    """

    redrawn: np.ndarray
    repeated: int
    never: np.ndarray
    missing_classes: tuple[int, ...]


def find_batches(log: Trajectory, dataset: Dataset) -> BatchFinding:
    """Returns how the logged steps use the examples."""
    usage = detectors.frequency_of_use(log)
    y = np.asarray(dataset.y)
    used = np.unique(y[usage.counts > 0])
    missing = np.setdiff1d(np.unique(y), used)
    return BatchFinding(
        detectors.redrawn_steps(log),
        int(usage.repeated.sum()),
        usage.never,
        tuple(missing.tolist()),
    )


class MoveFinding(NamedTuple):
    """Whether the logged steps train.

    Attributes:
      still: steps of the checkpoints that end segments whose every step moves the weights by less
        than their rounding, ‖θ' - θ‖₂ <= 2⁻²⁴ steps ‖θ'‖₂.
      slow: steps, from 0, whose rate is under 1e-4 of the recipe's, or of the run's largest.
      idle: how many logged steps are in such segments, or slow.
      covered: ‖θ_T - θ_0‖₂, how far the whole log moves the weights.
      size: ‖θ_T‖₂.
    """

    still: np.ndarray
    slow: np.ndarray
    idle: int
    covered: float
    size: float


def find_moves(log: Trajectory, moves: list[Move], covered: float) -> MoveFinding:
    """Returns which steps train.

    Args:
      log: whose schedule is read.
      moves: of its segments.
      covered: ‖θ_T - θ_0‖₂.
    """
    claim = log.claim
    rates = claim.rates
    slow = rates[: log.steps] < LEAST_RATE * max(claim.recipe.learning_rate, rates.max())
    ends = np.array([claim.checkpoint_step(i + 1) for i in range(log.segments)])
    lengths = np.diff(ends, prepend=0)
    distances, sizes = (np.array([getattr(m, n) for m in moves]) for n in ("distance", "weights"))
    still = distances <= ROUNDING / 2 * lengths * sizes
    idle = slow | np.repeat(still, lengths)
    return MoveFinding(
        ends[still], np.flatnonzero(slow), int(idle.sum()), covered, float(sizes[-1])
    )
