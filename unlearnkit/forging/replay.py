"""Replays segments of a log: independent of each other, so side by side."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from itertools import groupby
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from unlearnkit.base import Dataset, Model
from unlearnkit.forging.limits import Tolerance, state_errors
from unlearnkit.forging.norms import Norm
from unlearnkit.host.reserve import reserve
from unlearnkit.training import CrossEntropy, Objective, Recipe, TrainState, Trajectory
from unlearnkit.training.recipe import rate_table
from unlearnkit.training.unit import take_steps, take_steps_together


class Replayed(NamedTuple):
    """One segment, replayed.

    Attributes:
      segment: which.
      errors: between the logged state at its end and the replayed one.
    """

    segment: int
    errors: Tolerance


def replay(
    log: Trajectory,
    segment: int,
    start: TrainState,
    dataset: Dataset,
    objective: Objective,
    *,
    recipe: Recipe | None = None,
    context: Any = None,
) -> TrainState:
    """Returns the state at the end of a segment, by the same program as training.

    Args:
      log: whose batches, key and matmul precision are used.
      segment: which.
      start: the state at its beginning.
      dataset: what the batches index.
      objective: what each step descends.
      recipe: in the place of the log's.
      context: passed on to the objective.
    """
    claim = log.claim
    with jax.default_matmul_precision(claim.matmul_precision):
        return take_steps(
            start,
            dataset,
            log.rows(segment),
            _rates(log, segment, recipe or claim.recipe),
            claim.step_key,
            context,
            objective=objective,
            recipe=recipe or claim.recipe,
            keep=True,
        )[0]


def _rates(log: Trajectory, segment: int, recipe: Recipe) -> np.ndarray:
    first = log.claim.checkpoint_step(segment)
    rates = rate_table(recipe, log.claim.steps_per_epoch, log.claim.steps)
    return rates[first : first + len(log.rows(segment))]


def replay_segments(
    log: Trajectory,
    model: Model,
    dataset: Dataset,
    segments: Sequence[int],
    *,
    norm: Norm,
    devices: Sequence[jax.Device] | None = None,
    parallel: int | None = None,
    at_once: int = 1,
) -> list[Replayed]:
    """Returns the errors of segments, in their order.

    Each device takes an equal share of successive segments. See `verify` for the rest.

    Args:
      log: that was read and checked.
      model: the network that it names.
      dataset: that it was trained on.
      segments: which, by the number of the checkpoint that each begins at.
      norm: the measure of errors.
      devices: where to replay; None takes all local ones.
      parallel: segments side by side on each device; None takes one a core on a CPU, else one.
      at_once: segments in one batched call.
    """
    places = list(devices or jax.local_devices())
    parallel = parallel or (_cores_each(places) if places[0].platform == "cpu" else 1)
    workers = [place for place in places for _ in range(parallel)][: len(segments)]
    shares = np.array_split(np.array(segments), len(workers))
    held = reserve(dataset)
    copies = {place: jax.device_put(held, place) for place in places}

    def work(place: jax.Device, share: np.ndarray) -> list[Replayed]:
        return _replay_share(log, model, copies[place], share.tolist(), place, norm, at_once)

    with ThreadPoolExecutor(len(workers)) as pool:
        return [replayed for part in pool.map(work, workers, shares) for replayed in part]


def _replay_share(
    log: Trajectory,
    model: Model,
    dataset: Dataset,
    segments: Sequence[int],
    place: jax.Device,
    norm: Norm,
    at_once: int,
) -> list[Replayed]:
    # The checkpoint that ends a segment begins the next one: it is read once.
    @lru_cache(maxsize=at_once + 1)
    def read(index: int) -> TrainState:
        return log.read(index, model).state

    objective = CrossEntropy(model, log.claim.recipe)
    done: list[Replayed] = []
    for group in _equally_long(log, segments, at_once):
        starts = [jax.device_put(read(segment), place) for segment in group]
        if len(group) == 1:
            ends = [replay(log, group[0], starts[0], dataset, objective)]
        else:
            ends = _replay_at_once(log, group, starts, dataset, objective)
        for segment, end in zip(group, ends, strict=True):
            done.append(Replayed(segment, state_errors(end, read(segment + 1), norm)))
    return done


def _replay_at_once(
    log: Trajectory,
    group: Sequence[int],
    starts: Sequence[TrainState],
    dataset: Dataset,
    objective: Objective,
) -> list[TrainState]:
    claim = log.claim
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *starts)
    keys = jnp.broadcast_to(claim.step_key, (len(group),))
    with jax.default_matmul_precision(claim.matmul_precision):
        ends, _ = take_steps_together(
            stacked,
            dataset,
            np.stack([log.rows(segment) for segment in group]),
            np.stack([_rates(log, segment, claim.recipe) for segment in group]),
            keys,
            objective=objective,
            recipe=claim.recipe,
        )
    return [jax.tree.map(lambda leaf, i=i: leaf[i], ends) for i in range(len(group))]


def _equally_long(log: Trajectory, segments: Sequence[int], at_once: int) -> Iterator[list[int]]:
    for _, group in groupby(segments, key=lambda segment: len(log.rows(segment))):
        members = list(group)
        yield from (members[i : i + at_once] for i in range(0, len(members), at_once))


def _cores_each(places: Sequence[jax.Device]) -> int:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return max((cores or 1) // len(places), 1)
