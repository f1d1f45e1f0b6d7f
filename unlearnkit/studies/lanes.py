"""Trainings of several seeds, in turn or in lanes of one program."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Key

from unlearnkit.base import Cost, Dataset, Model, OnEpoch, Trained, TrainInfo, Variables
from unlearnkit.studies import stage_cache
from unlearnkit.studies.stage_cache import resume
from unlearnkit.training import DivergedError, Recipe, fit_many


def train_together(
    keys: Sequence[Key[Array, ""]],
    model: Model,
    dataset: Dataset,
    recipe: Recipe,
    rows: Sequence[np.ndarray],
    wanted: Sequence[int],
    *,
    width: int | None,
    start: Variables | None = None,
    on_epoch: OnEpoch | None = None,
    folders: Mapping[int, Path | None] | None = None,
) -> Iterator[tuple[int, Trained | DivergedError]]:
    """Yields some of several declared runs, each with its network or with how it diverged.

    In turn, a run is `fit` bit by bit, and as many go at once as there are devices. In lanes, one
    program makes `width` runs side by side; which run is in which lane follows from the declared
    ones and not from what is wanted, so that a network has the same bits whatever is missing.
    Unused lanes repeat the first one.

    Args:
      keys: of all declared runs.
      model: the network.
      dataset: shared by all.
      recipe: how to train.
      rows: [n] of `dataset`, which each run sees; n may differ from run to run.
      wanted: numbers of the runs that are needed.
      width: lanes of a program; None trains in turn.
      start: where all runs begin; None begins each from a fresh initialisation.
      on_epoch: called after each epoch of each group.
      folders: by run, where its checkpoints may be kept, until the last run of its group is there.
    """
    shared = keys, model, dataset, recipe, rows
    for group in _groups(wanted, rows, len(keys), width):
        lanes = group + group[:1] * ((width or 0) - len(group))

        def train(folder: Path | None, lanes: list[int] = lanes) -> list[Trained]:
            return _fit(*shared, lanes, width, start, on_epoch, folder)

        try:
            trained = resume(train, (folders or {}).get(group[-1]))
            yield from ((run, trained[lane]) for lane, run in enumerate(group) if run in wanted)
        except DivergedError as error:
            if len(group) == 1:
                yield group[0], error
                continue
            # Which of them it was is found out one by one, each in its lane.
            for lane, run in enumerate(group):
                alone = [run] * (width or 1)
                try:
                    again = _fit(*shared, alone, width, start, None, None)
                    result: Trained | DivergedError = again[min(lane, len(again) - 1)]
                except DivergedError as its_own:
                    result = its_own
                if run in wanted:
                    yield run, result


def _groups(
    wanted: Sequence[int],
    rows: Sequence[np.ndarray],
    declared: int,
    width: int | None,
) -> Iterator[list[int]]:
    """Yields runs that train together, with as many rows each: for all devices, or all lanes."""
    runs: Iterable[int] = wanted if width is None else range(declared)
    blocks: dict[tuple[int, int], list[int]] = {}
    for place, run in enumerate(runs):
        block = place // jax.local_device_count() if width is None else run // width
        blocks.setdefault((block, len(rows[run])), []).append(run)
    yield from (block for block in blocks.values() if set(block) & set(wanted))


def _fit(
    keys: Sequence[Key[Array, ""]],
    model: Model,
    dataset: Dataset,
    recipe: Recipe,
    rows: Sequence[np.ndarray],
    lanes: Sequence[int],
    width: int | None,
    start: Variables | None,
    on_epoch: OnEpoch | None,
    folder: Path | None,
) -> list[Trained]:
    together = fit_many(
        jnp.stack([keys[run] for run in lanes]),
        model,
        dataset,
        recipe,
        subsets=np.stack([rows[run] for run in lanes]),
        variables=start,
        batching="map" if width is None else "vmap",
        checkpoint=folder,
        checkpoint_seconds=stage_cache.CHECKPOINT_SECONDS,
        on_epoch=on_epoch,
    )
    share = Cost(*(part / len(lanes) for part in together.info.cost))
    return [
        Trained(
            jax.tree.map(lambda leaf, i=i: leaf[i], together.variables),
            TrainInfo({name: values[i] for name, values in together.info.history.items()}, share),
        )
        for i in range(len(lanes))
    ]
