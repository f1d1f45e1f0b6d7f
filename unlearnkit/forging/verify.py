"""Verification of a log of training by replaying it."""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Key

from unlearnkit.base import Cost, Dataset, Model, Variables
from unlearnkit.costs import Stopwatch
from unlearnkit.forging.calibration import Calibration
from unlearnkit.forging.findings import find_batches, find_moves, find_start
from unlearnkit.forging.limits import (
    Move,
    Tolerance,
    as_tolerance,
    caps_of,
    power,
    state_move,
)
from unlearnkit.forging.norms import Norm, check_norm, error_between
from unlearnkit.forging.opening import open_log
from unlearnkit.forging.replay import replay_segments
from unlearnkit.forging.report import VerificationReport
from unlearnkit.host.random import host_key
from unlearnkit.io.provenance import environment
from unlearnkit.io.text import escaped
from unlearnkit.training import Claim, Trajectory, TrajectoryError
from unlearnkit.training.checkpoint import flatten

_CHOICE = re.compile(r"(random|top):([1-9]\d{0,8})")


def verify(
    path: str | os.PathLike[str],
    dataset: Dataset,
    *,
    tolerance: float | Tolerance | None = None,
    calibration: Calibration | None = None,
    norm: Norm = "l2",
    steps: str = "all",
    model: Model | None = None,
    start: Variables | None = None,
    key: Key[Array, ""] | None = None,
    head: str | None = None,
    devices: Sequence[jax.Device] | None = None,
    parallel: int | None = None,
    at_once: int = 1,
) -> VerificationReport:
    """Returns what replaying a log of training on `dataset` gives.

    Each segment, the steps between two checkpoints θ_i and θ_{i+k}, is replayed from θ_i with the
    log's own batches, keys, optimiser memory and matmul precision to θ̂_{i+k}. It is accepted where

      ‖θ_{i+k} - θ̂_{i+k}‖ <= min(tolerance, 1e-4 ‖θ_{i+k} - θ_i‖),

    and so for optimiser memory and for BatchNorm statistics: a log that could change these between
    segments could steer the next one. The second bound holds whatever tolerance is asked for, so
    that none is wide enough for other weights; where full float32 is not what both devices compute
    in, it is 0.1, and the summary says how much of it the tolerance takes. On the device, versions
    and flags of the training the error is 0 to the last bit.

    Beside that, the first weights must be those that the log's key initialises, and the batches
    those that it draws; the log must reach the end of its run; its steps must train, and use every
    class. The verdict (`unlearnkit.forging.Verdict`) says which of this failed. Every file is
    hashed and checked before anything is replayed.

    What the log says of its run is bound by its chain of digests, but a liar can forge the chain
    too: only a `head` that was published before ties a log to a moment.

    Args:
      path: the folder of the log.
      dataset: what it was trained on, in the same order; see `match_rows` for a part of it.
      tolerance: the largest error that is accepted: a number for the weights, or one for each part;
        None takes the calibration's, or 0, which wants every bit.
      calibration: what `calibrate` measured on this very log.
      norm: the measure of errors and tolerance; under `cosine` alone no log is VALID.
      steps: which segments: `all`, `random:n` of them, `top:q`, the q of each epoch that move the
        weights the furthest, or `top:q+random:n`. Under `top:q` alone no log is VALID: who knows
        which segments are replayed can forge the others (Fang et al. 2023).
      model: the network; None makes the one that the log names.
      start: the weights that a run from given (pretrained) weights must have begun at; None leaves
        such a run UNPROVEN.
      key: for `random:n`; whoever made the log must not know it.
      head: what the log's head must be.
      devices: where to replay; None takes all local ones.
      parallel: segments that run side by side on each device; None takes one per core on a CPU, and
        one elsewhere. The errors do not depend on it.
      at_once: segments in one batched call, which accelerators run faster and round differently.

    Raises:
      TrajectoryError: the log cannot be verified: it is corrupt, foreign, about other data, or
        holds no whole segment; or the calibration is another log's.
      ValueError: an argument out of its range.

    Example:
      training.fit(key, model, train, training.Recipe(), trajectory="log", every=100)
      report = forging.verify("log", train, tolerance=0)
      print(report.summary())

    Source: Suliman et al. 2024, definition 1; choice of segments, distances and the test of the
    first weights as in Jia et al. 2021.
    """
    check_norm(norm)
    if calibration is not None and calibration.norm != norm:
        raise ValueError(f"the calibration was measured in {calibration.norm}, not {norm}")
    if tolerance is None:
        tolerance = 0.0 if calibration is None else calibration.limits
    accepted = as_tolerance(tolerance)
    if at_once < 1 or (parallel is not None and parallel < 1):
        raise ValueError(f"at_once and parallel must be >= 1, got {at_once} and {parallel}")
    choice = _parse_choice(steps, key)
    log, model = open_log(path, dataset, model)
    if head is not None and head != log.head:
        raise TrajectoryError(f"the log's head is {log.head}, but {head} was promised")
    if calibration is not None and calibration.head != log.head:
        raise TrajectoryError(
            f"the calibration was measured on the log of head {calibration.head}, this one's head "
            f"is {log.head}; calibrate this log"
        )
    way = _measure_movement(log, model, norm)
    found_start = find_start(log, model, start, accepted)
    batches = find_batches(log, dataset)
    distances = np.array([move.distance for move in way.moves])
    segments, drawn = _choose(choice, key, log, distances)
    with Stopwatch() as watch:
        replayed = replay_segments(
            log,
            model,
            dataset,
            segments,
            norm=norm,
            devices=devices,
            parallel=parallel,
            at_once=at_once,
        )
    limits = _limits(log, way.moves, accepted, norm)
    moved = np.array([move.moved.weights for move in way.moves])
    with np.errstate(divide="ignore", invalid="ignore"):
        ratios = np.where(limits[:, 0] > 0, limits[:, 0] / moved, 0.0) ** (1 / power(norm))
    here, there = environment(), log.claim.environment
    errors = np.array([one.errors for one in replayed])
    ends = np.array([log.claim.checkpoint_step(index) for index in range(1, len(log.digests))])
    count = sum(len(log.rows(one.segment)) for one in replayed)
    return VerificationReport(
        steps=ends[segments],
        errors=errors[:, 0],
        memory_errors=errors[:, 1],
        statistics_errors=errors[:, 2],
        limits=limits[segments],
        ratios=ratios,
        distances=distances,
        tolerance=accepted.weights,
        norm=norm,
        chosen=steps,
        drawn=drawn,
        n_parameters=way.n_parameters,
        replayed_steps=count,
        logged_steps=log.steps,
        claimed_steps=log.claim.steps,
        start=found_start,
        batches=batches,
        moves=find_moves(log, way.moves, way.covered),
        about=_describe(log.claim),
        head=log.head,
        differences=tuple(
            (name, there.get(name, ""), here.get(name, ""))
            for name in sorted(here.keys() | there.keys())
            if here.get(name) != there.get(name)
        ),
        cost=Cost(float(count * log.claim.recipe.batch_size), watch.seconds, watch.compile_seconds),
    )


class ExchangedSteps(NamedTuple):
    """How steps fare whose batches were exchanged, see `verify_exchanged`.

    Attributes:
      errors: [k] of the weights after each step.
      limits: [k] the largest that are accepted.
      accepted: [k] whether memory and statistics are within their limits too.
    """

    errors: np.ndarray
    limits: np.ndarray
    accepted: np.ndarray


def verify_exchanged(
    log: Trajectory,
    model: Model,
    dataset: Dataset,
    *,
    steps: np.ndarray,
    batches: np.ndarray,
    tolerance: float | Tolerance,
) -> ExchangedSteps:
    """Returns what `verify` measures of single steps, had the log other batches there.

    Args:
      log: read and checked, with a checkpoint each step.
      model: the network that it names.
      dataset: that it was trained on.
      steps: [k] from 0.
      batches: [k, b] rows of the data, in the place of the log's.
      tolerance: see `verify`.

    Raises:
      ValueError: a log with fewer checkpoints, or a tolerance out of its range.
    """
    accepted = as_tolerance(tolerance)
    if log.claim.every != 1:
        raise ValueError(f"the log has a checkpoint every {log.claim.every} steps; it needs each")
    exchanged = log.batches.copy()
    exchanged[steps] = batches
    forged = dataclasses.replace(log, batches=exchanged)
    replayed = replay_segments(forged, model, dataset, steps.tolist(), norm="l2")
    caps, errors = caps_of(log.claim, "l2"), np.array([one.errors for one in replayed])
    limits = np.empty_like(errors)
    for place, step in enumerate(steps.tolist()):
        before, after = (log.read(index, model).state for index in (step, step + 1))
        most = caps.of(state_move(before, after, "l2"), 1)
        limits[place] = np.minimum(most, accepted)
    within = np.all(errors <= limits, axis=1)
    return ExchangedSteps(errors[:, 0], limits[:, 0], within)


def _parse_choice(steps: str, key: Key[Array, ""] | None) -> dict[str, int]:
    """Returns how many segments each way of choosing takes; none where all are to be replayed."""
    if steps == "all":
        return {}
    parts = [_CHOICE.fullmatch(part) for part in steps.split("+")]
    choice = {part[1]: int(part[2]) for part in parts if part is not None}
    if len(choice) != len(parts):
        raise ValueError(
            f"steps must be 'all', 'random:n', 'top:q' or 'top:q+random:n', got {steps!r}"
        )
    if "random" in choice and key is None:
        raise ValueError("steps='random:n' needs a key")
    return choice


def _choose(
    choice: Mapping[str, int], key: Key[Array, ""] | None, log: Trajectory, distances: np.ndarray
) -> tuple[list[int], int]:
    """Returns the segments to replay, and how many of them were drawn at random from all."""
    if not choice:
        return list(range(log.segments)), log.segments
    chosen: set[int] = set()
    if "random" in choice and key is not None:
        order = host_key(key).permutation(log.segments)
        chosen |= set(order[: choice["random"]].tolist())
    drawn = len(chosen)
    if "top" in choice:
        ends = [log.claim.checkpoint_step(index) for index in range(1, len(log.digests))]
        epochs = np.array([(end - 1) // log.claim.steps_per_epoch for end in ends])
        for epoch in np.unique(epochs):
            members = np.flatnonzero(epochs == epoch)
            furthest = members[np.argsort(-distances[members], kind="stable")]
            chosen |= set(furthest[: choice["top"]].tolist())
    return sorted(chosen), drawn


class _Movement(NamedTuple):
    """How far the weights of a log moved.

    Attributes:
      moves: of each segment.
      covered: ‖θ_T - θ_0‖₂.
      n_parameters: dim(θ).
    """

    moves: list[Move]
    covered: float
    n_parameters: int


def _measure_movement(log: Trajectory, model: Model, norm: Norm) -> _Movement:
    """Returns how far each segment moved, after reading and checking every file."""
    first = before = log.read(0, model).state
    moves = []
    for index in range(1, len(log.digests)):
        after = log.read(index, model).state
        moves.append(state_move(before, after, norm))
        before = after
    begin, end = (flatten(state.variables.params) for state in (first, before))
    return _Movement(moves, error_between(end, begin), sum(array.size for array in end.values()))


def _limits(log: Trajectory, moves: Sequence[Move], accepted: Tolerance, norm: Norm) -> np.ndarray:
    """Returns the largest errors that are accepted: [segments, 3]."""
    caps = caps_of(log.claim, norm)
    largest = [caps.of(move, len(log.rows(segment))) for segment, move in enumerate(moves)]
    found: np.ndarray = np.minimum(np.array(largest), np.array(accepted))
    return found


def _describe(claim: Claim) -> str:
    """Returns what was trained on what and how: only what differs from a plain recipe."""
    name, options, _, n_classes = claim.network
    made = "a network without a name" if name is None else name
    chosen = ", ".join(f"{option}={value}" for option, value in sorted(options.items()))
    changed = ", ".join(
        f"{field.name}={getattr(claim.recipe, field.name)}"
        for field in dataclasses.fields(claim.recipe)
        if getattr(claim.recipe, field.name) != field.default or field.name == "learning_rate"
    )
    return escaped(
        f"{made}({chosen}) of {n_classes} classes on {claim.data.examples} examples: {changed}",
        1000,
    )
