"""Verification of a log of training by replaying it."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Sequence

import jax
import numpy as np
from jaxtyping import Array, Key

from unlearnkit import models
from unlearnkit.base import Cost, Dataset, Model
from unlearnkit.clock import Stopwatch
from unlearnkit.forging.norms import Norm, check_norm, error_between
from unlearnkit.forging.replay import Replayed, replay_segments
from unlearnkit.forging.report import VerificationReport
from unlearnkit.provenance import environment
from unlearnkit.training import (
    Claim,
    Trajectory,
    TrajectoryError,
    init_train_state,
    read_trajectory,
)
from unlearnkit.training.checkpoint import flatten, same_bits
from unlearnkit.training.claim import claim_data
from unlearnkit.validation import check_dataset

_CHOICE = re.compile(r"(random|top):([1-9]\d{0,8})")


def verify(
    path: str | os.PathLike[str],
    dataset: Dataset,
    *,
    tolerance: float,
    norm: Norm = "l2",
    steps: str = "all",
    model: Model | None = None,
    key: Key[Array, ""] | None = None,
    head: str | None = None,
    devices: Sequence[jax.Device] | None = None,
    parallel: int | None = None,
    at_once: int = 1,
) -> VerificationReport:
    """Returns what replaying a log of training on `dataset` gives.

    Each segment, the steps between two checkpoints θ_i and θ_{i+k}, is replayed from θ_i with the
    log's own batches, keys, optimiser memory and matmul precision to θ̂_{i+k}. It is accepted where

      ‖θ_{i+k} - θ̂_{i+k}‖ <= tolerance,

    and so for optimiser memory and BatchNorm statistics: a log that could change these between
    segments could steer the next one. On the device, versions and flags of the training the error
    is 0 to the last bit. Every file is hashed and checked before anything is replayed.

    What the log says of its run is bound by its chain of digests, but a liar can forge the chain
    too: only a `head` that was published before ties a log to a moment.

    Args:
      path: the folder of the log.
      dataset: what it was trained on, in the same order.
      tolerance: the largest error that is accepted; `calibrate` proposes one.
      norm: the measure of errors and tolerance.
      steps: which segments: `all`, `random:n` of them, or `top:q`, the q of each epoch that move
        the weights the furthest.
      model: the network; None makes the one that the log names.
      key: for `random:n`.
      head: what the log's head must be.
      devices: where to replay; None takes all local ones.
      parallel: segments that run side by side on each device; None takes one a core on a CPU, and
        one elsewhere. The errors do not depend on it.
      at_once: segments in one batched call, which accelerators run faster and round differently.

    Raises:
      TrajectoryError: the log cannot be verified: it is corrupt, foreign, about other data, or
        holds no whole segment.
      ValueError: an argument out of its range.

    Source: 000, definition 1; choice of segments and distances as in Jia et al. 2021.
    """
    if not (tolerance >= 0 and math.isfinite(tolerance)):
        raise ValueError(f"tolerance must be >= 0 and finite, got {tolerance}")
    check_norm(norm)
    if at_once < 1 or (parallel is not None and parallel < 1):
        raise ValueError(f"at_once and parallel must be >= 1, got {at_once} and {parallel}")
    _check_choice(steps, key)
    log, model = open_log(path, dataset, model)
    if head is not None and head != log.head:
        raise TrajectoryError(f"the log's head is {log.head}, but {head} was promised")
    distances = _distances(log, model)
    segments = _choose(steps, key, log, distances)
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
    weights = jax.tree.leaves(log.read(0, model).state.variables.params)
    n_parameters = sum(leaf.size for leaf in weights)
    return _report(log, replayed, distances, n_parameters, tolerance, norm, watch)


def open_log(
    path: str | os.PathLike[str], dataset: Dataset, model: Model | None
) -> tuple[Trajectory, Model]:
    """Returns a log about `dataset`, and its network.

    Raises:
      TrajectoryError: see `verify`.
    """
    log = read_trajectory(os.fspath(path))
    check_dataset(dataset)
    _check_data(log.claim, dataset)
    network = _network(log.claim, model)
    if log.segments == 0:
        raise TrajectoryError(f"{log.folder} holds no whole segment: there is nothing to replay")
    if int(dataset.y.max()) >= network.n_classes:
        raise TrajectoryError(f"the log's network has {network.n_classes} classes, the data more")
    start = log.read(0, network).state
    fresh = init_train_state(log.claim.recipe, log.claim.steps_per_epoch, start.variables)
    if not same_bits(fresh.opt_state, start.opt_state):
        raise TrajectoryError("the log begins in mid-run: its optimiser already remembers steps")
    return log, network


def _check_data(claim: Claim, dataset: Dataset) -> None:
    found = claim_data(dataset)
    differing = [
        name for name in found._fields if getattr(found, name) != getattr(claim.data, name)
    ]
    if differing:
        raise TrajectoryError(
            f"the log is about other data (differs in {', '.join(differing)}); give the dataset, "
            "split and normalisation that it was trained on, in the same order"
        )


def _network(claim: Claim, model: Model | None) -> Model:
    name, options, shape, n_classes = claim.network
    if model is not None:
        if (tuple(model.input_shape), model.n_classes) != (shape, n_classes):
            raise TrajectoryError(
                f"the log's network maps {shape} to {n_classes} classes, the one given "
                f"{tuple(model.input_shape)} to {model.n_classes}"
            )
        return model
    if name is None:
        raise TrajectoryError("the log does not name its network; give it as model=")
    try:
        return models.create(name, input_shape=shape, n_classes=n_classes, **options)
    except Exception as error:  # whatever a factory says to values that a stranger wrote
        raise TrajectoryError(f"the log's network cannot be made: {error!s:.300}") from None


def _check_choice(steps: str, key: Key[Array, ""] | None) -> None:
    if steps == "all":
        return
    if _CHOICE.fullmatch(steps) is None:
        raise ValueError(f"steps must be 'all', 'random:n' or 'top:q', got {steps!r}")
    if steps.startswith("random") and key is None:
        raise ValueError("steps='random:n' needs a key")


def _choose(
    steps: str, key: Key[Array, ""] | None, log: Trajectory, distances: np.ndarray
) -> list[int]:
    if steps == "all":
        return list(range(log.segments))
    kind, _, count = steps.partition(":")
    if kind == "random" and key is not None:
        order = np.asarray(jax.random.permutation(key, log.segments))
        return sorted(order[: int(count)].tolist())
    chosen: list[int] = []
    epochs = np.array([(end - 1) // log.claim.steps_per_epoch for end in _ends(log)])
    for epoch in np.unique(epochs):
        members = np.flatnonzero(epochs == epoch)
        furthest = members[np.argsort(-distances[members], kind="stable")]
        chosen += furthest[: int(count)].tolist()
    return sorted(chosen)


def _distances(log: Trajectory, model: Model) -> np.ndarray:
    """Returns how far each segment moved the weights, after reading and checking every file."""
    before = flatten(log.read(0, model).state.variables.params)
    distances = []
    for index in range(1, len(log.digests)):
        after = flatten(log.read(index, model).state.variables.params)
        distances.append(error_between(after, before))
        before = after
    return np.array(distances)


def _ends(log: Trajectory) -> list[int]:
    return [log.claim.checkpoint_step(index) for index in range(1, len(log.digests))]


def _report(
    log: Trajectory,
    replayed: Sequence[Replayed],
    distances: np.ndarray,
    n_parameters: int,
    tolerance: float,
    norm: Norm,
    watch: Stopwatch,
) -> VerificationReport:
    here, there = environment(), log.claim.environment
    ends = np.array(_ends(log))
    lengths = [len(log.rows(one.segment)) for one in replayed]
    return VerificationReport(
        steps=ends[[one.segment for one in replayed]],
        errors=np.array([one.error for one in replayed]),
        carried_errors=np.array([one.carried_error for one in replayed]),
        distances=distances,
        tolerance=tolerance,
        norm=norm,
        n_parameters=n_parameters,
        replayed_steps=sum(lengths),
        logged_steps=log.steps,
        claimed_steps=log.claim.steps,
        head=log.head,
        differences=tuple(
            (name, there.get(name, ""), here.get(name, ""))
            for name in sorted(here.keys() | there.keys())
            if here.get(name) != there.get(name)
        ),
        cost=Cost(
            float(sum(lengths) * log.claim.recipe.batch_size), watch.seconds, watch.compile_seconds
        ),
    )
