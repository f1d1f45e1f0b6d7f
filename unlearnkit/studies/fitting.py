"""One training as a stage: kept in a store, and gone on with where it was ended."""

from __future__ import annotations

import os
from pathlib import Path

from jaxtyping import Array, Key

from unlearnkit.base import Dataset, Model, OnEpoch, Trained, Variables
from unlearnkit.host.random import AnyKey, host_key
from unlearnkit.studies import stage_cache
from unlearnkit.studies.announcing import OnStage, announce
from unlearnkit.studies.stage_cache import StageCache, start_input
from unlearnkit.studies.store import Store
from unlearnkit.training import Recipe, fit


def train(
    key: Key[Array, ""],
    model: Model,
    dataset: Dataset,
    recipe: Recipe,
    *,
    store: Store | str | os.PathLike[str] | None = None,
    start: Variables | None = None,
    on_stage: OnStage | None = None,
) -> Trained:
    """Returns a trained network, from the store where it is there already.

    It is `training.fit` with these arguments, bit for bit; a long training that was killed goes on
    where its last checkpoint was.

    Args:
      key: its halves initialise the network and drive the run.
      model: the network.
      dataset: [n] examples.
      recipe: how to train.
      store: keeps the result; a folder, or None for none.
      start: weights to begin with; None begins with a fresh initialisation.
      on_stage: called as the work goes on.

    Raises:
      ValueError: data or weights that do not fit the model, or a batch larger than the data.
      DivergedError: the loss is no longer finite, now or when it was computed.
      StoreError: the store's folder cannot be used.

    Example:
      trained = studies.train(key, model, dataset, training.Recipe(epochs=10), store="runs/store")
    """
    kept = Store(Path(store)) if isinstance(store, str | os.PathLike) else store
    cache, own = StageCache(kept), host_key(key)
    cache.patient = True
    return fit_once(
        *(cache, own, model, dataset, recipe),
        kind="trained", say="training", start=start, on_stage=on_stage,
    )  # fmt: skip


def fit_once(
    cache: StageCache,
    key: AnyKey,
    model: Model,
    dataset: Dataset,
    recipe: Recipe,
    *,
    kind: str,
    say: str,
    start: Variables | None = None,
    on_stage: OnStage | None = None,
) -> Trained:
    """Returns a network that trained on a dataset, which is computed where it is not there.

    Args:
      cache: of the stages.
      key: of the training.
      model: the network.
      dataset: [n] examples.
      recipe: how to train.
      kind: of the stage.
      say: the stage in words.
      start: weights to begin with; None begins with a fresh initialisation.
      on_stage: told by these words; None for nobody.
    """

    def compute(folder: Path | None) -> Trained:
        on_epoch = announce(on_stage, say, recipe.epochs)
        return fit_in(folder, key, model, dataset, recipe, start=start, on_epoch=on_epoch)

    inputs = {"key": key.typed(), "model": model, "data": dataset, **start_input(start)}
    return cache.obtain_resumable(kind, recipe, inputs, compute, say=say)


def fit_in(
    folder: Path | None,
    key: AnyKey,
    model: Model,
    dataset: Dataset,
    recipe: Recipe,
    *,
    start: Variables | None = None,
    on_epoch: OnEpoch | None = None,
) -> Trained:
    """Returns a network that trained on a dataset, going on from the checkpoints of a folder.

    Args:
      folder: of the checkpoints, or None for none.
      key: of the training.
      model: the network.
      dataset: [n] examples.
      recipe: how to train.
      start: weights to begin with; None begins with a fresh initialisation.
      on_epoch: called after each epoch.
    """
    return fit(
        key.typed(),
        model,
        dataset,
        recipe,
        variables=start,
        checkpoint=folder,
        checkpoint_seconds=stage_cache.CHECKPOINT_SECONDS,
        on_epoch=on_epoch,
    )
