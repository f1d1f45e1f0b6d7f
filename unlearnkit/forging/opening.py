"""A log, the data that it is about, and its network, checked before anything is computed."""

from __future__ import annotations

import os

import jax
import numpy as np

from unlearnkit import models
from unlearnkit.base import Dataset, Model
from unlearnkit.training import (
    Claim,
    Trajectory,
    TrajectoryError,
    init_train_state,
    read_trajectory,
)
from unlearnkit.training.checkpoint import same_bits
from unlearnkit.training.claim import claim_data, example_digests
from unlearnkit.validation import check_dataset


def open_log(
    path: str | os.PathLike[str], dataset: Dataset, model: Model | None
) -> tuple[Trajectory, Model]:
    """Returns a log about `dataset`, and its network.

    Args:
      path: the folder of the log.
      dataset: what it must be about, in the same order.
      model: the network; None makes the one that the log names.

    Raises:
      TrajectoryError: see `verify`.
    """
    log = read_trajectory(os.fspath(path))
    check_dataset(dataset)
    _check_data(log.claim, dataset)
    _check_generator(log.claim)
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


def _check_generator(claim: Claim) -> None:
    name = "threefry_partitionable"
    there, here = claim.environment.get(name), str(jax.config.values[f"jax_{name}"])
    if there != here:
        raise TrajectoryError(
            f"the log was made under jax_{name}={there}, here it is {here}: the same key draws "
            "other numbers; set the flag as the log has it"
        )


def match_rows(log: Trajectory, dataset: Dataset) -> np.ndarray:
    """Returns the rows of `dataset` that a log was trained on, in its order: [n].

    `dataset.take(rows)` is then what `verify` wants; it compares every byte, so that what the log
    says of its examples is a hint alone.

    Raises:
      TrajectoryError: examples that are none of `dataset`.
    """
    places: dict[int, list[int]] = {}
    for row, digest in enumerate(example_digests(dataset).tolist()):
        places.setdefault(digest, []).append(row)
    taken: dict[int, int] = {}
    rows, missing = [], 0
    for digest in log.examples.tolist():
        candidates = places.get(digest)
        if candidates is None:
            missing += 1
            continue
        # Equal examples are distinguished by their order; one that is used more often than it is
        # there is the same row again.
        index = taken.get(digest, 0)
        rows.append(candidates[index % len(candidates)])
        taken[digest] = index + 1
    if missing:
        raise TrajectoryError(
            f"the log is about other data: {missing} of its {len(log.examples)} examples are none "
            f"of the {dataset.size} given; give the data and split that it was trained on"
        )
    return np.array(rows)
