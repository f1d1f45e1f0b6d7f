"""Trains one network, or many at once."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Int, Key

from unlearnkit.base import (
    Cost,
    Dataset,
    Model,
    OnEpoch,
    OnSnapshot,
    Trained,
    TrainInfo,
    Variables,
)
from unlearnkit.costs import Stopwatch
from unlearnkit.host.arrays import put
from unlearnkit.host.order import several_epochs
from unlearnkit.host.random import host_key
from unlearnkit.host.reserve import reserve
from unlearnkit.io.files import sha256_of_array
from unlearnkit.models.fresh import check_fresh
from unlearnkit.training.checkpoint import Progress
from unlearnkit.training.divergence import refuse_divergence, refuse_infinite_weights
from unlearnkit.training.identity import identify
from unlearnkit.training.logged_run import descend_logged
from unlearnkit.training.recipe import Recipe, rate_table, split_recipe
from unlearnkit.training.resuming import Checkpoints, Identity, pack_history, unpack_history
from unlearnkit.training.step import CrossEntropy, Objective, TrainState, start_state
from unlearnkit.training.unit import Measured, take_steps, take_steps_together
from unlearnkit.validation import check_compatible, check_dataset, check_variables

Batching = Literal["vmap", "map"]


def fit(
    key: Key[Array, ""],
    model: Model,
    dataset: Dataset,
    recipe: Recipe,
    *,
    variables: Variables | None = None,
    objective: Objective | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    checkpoint_every: int = 1,
    checkpoint_seconds: float = 0.0,
    trajectory: str | os.PathLike[str] | None = None,
    every: int = 100,
    epochs_per_call: int = 1,
    on_epoch: OnEpoch | None = None,
    on_snapshot: OnSnapshot | None = None,
    devices: Sequence[jax.Device] | None = None,
) -> Trained:
    """Returns a network trained on `dataset` by minimising the mean cross-entropy, or `objective`.

    The same key, data and recipe give the same bits on the same device, whether or not the run was
    interrupted and resumed in between.

    Args:
      key: a typed key; its halves initialise the network and drive the run.
      model: the network.
      dataset: [n] examples.
      recipe: how to train.
      variables: where to start; None starts from a fresh initialisation.
      objective: to minimise; None takes `CrossEntropy(model, recipe)`.
      checkpoint: a folder; the run resumes from the checkpoint in it, and saves its progress there.
        The checkpoint must be of this run: the same initial weights, objective, network, recipe,
        data and key (see `unlearnkit.training.identity`). The number of epochs may be increased if
        that does not change the learning rates so far.
      checkpoint_every: epochs between two checkpoints.
      checkpoint_seconds: in its place, the least seconds between two; then there is none at the end
        of the run, for who keeps the result itself.
      trajectory: a folder for a log (proof of learning) from which others can verify the run, see
        `unlearnkit.forging.verify`; the run resumes from it. The log records whether the run
        started from a fresh initialisation, which others can derive from the key, or from
        `variables`.
      every: steps between two checkpoints of that log, each one compiled call.
      epochs_per_call: epochs between two transfers of metrics to the host; more than one helps on
        an accelerator where an epoch takes milliseconds. The result is the same, bit for bit.
      on_epoch: called after each epoch; with `epochs_per_call` > 1 for several epochs at the end of
        a call, with a trajectory after the segment in which the epoch ends.
      on_snapshot: called with the network after each epoch; not with several epochs per call, and
        not with a trajectory, which keeps its own.
      devices: devices for data-parallel training: each takes an equal share of every batch;
        gradients, batch statistics and metrics are averaged, and BatchNorm normalises each share by
        itself. They may belong to several processes that `jax.distributed` has joined: each calls
        `fit` with the same arguments. None takes the default device. On a CPU,
        `JAX_NUM_CPU_DEVICES=2` simulates two devices.

    Raises:
      ValueError: data or variables that do not fit the model, a batch larger than the data, a
        trajectory together with a checkpoint, an objective, snapshots or several epochs per call,
        or snapshots with several epochs per call.
      CheckpointError: the folder holds a corrupt checkpoint or log, or another run's.
      DivergedError: the loss is no longer finite.

    Example:
      recipe = training.Recipe(epochs=10, batch_size=128, learning_rate=0.1)
      variables, info = training.fit(key, model, train, recipe)
      print(info.history["accuracy"][-1], info.cost.seconds)
    """
    check_data(dataset, model, recipe)
    recipe.steps_per_epoch(dataset.size)
    if checkpoint is not None and trajectory is not None:
        raise ValueError("a trajectory is its own checkpoint; give one of the two folders")
    if objective is not None and trajectory is not None:
        raise ValueError(
            "a trajectory can be verified only of the cross-entropy, which its log can name; "
            "leave out the objective or the trajectory"
        )
    if devices is not None and trajectory is not None:
        raise ValueError(
            "a trajectory is replayed on one device; leave out the devices or the trajectory"
        )
    mesh = _share_mesh(devices, recipe)
    if every < 1:
        raise ValueError(f"every must be >= 1 steps, got {every}")
    if epochs_per_call < 1:
        raise ValueError(f"epochs_per_call must be >= 1, got {epochs_per_call}")
    if epochs_per_call > 1 and trajectory is not None:
        raise ValueError(
            "a call of a run with a trajectory is one segment of its log; choose every= in the "
            "place of epochs_per_call"
        )
    if on_snapshot is not None and (epochs_per_call > 1 or trajectory is not None):
        raise ValueError(
            "on_snapshot is called after each epoch; leave out epochs_per_call and the trajectory"
        )
    init_key, run_key = (half.typed() for half in host_key(key).split())
    derived = variables is None
    if variables is None:
        check_fresh(model)
        variables = jax.jit(model.init)(init_key)
    check_variables(variables, model)
    if trajectory is not None:
        return descend_logged(
            key,
            model,
            dataset,
            recipe,
            variables,
            derived=derived,
            folder=Path(trajectory),
            every=every,
            on_epoch=on_epoch,
        )
    folder = None if checkpoint is None else Path(checkpoint)
    return descend(
        run_key,
        objective or CrossEntropy(model, recipe),
        recipe,
        dataset,
        variables,
        checkpoint=folder,
        checkpoint_every=checkpoint_every,
        checkpoint_seconds=checkpoint_seconds,
        epochs_per_call=epochs_per_call,
        on_epoch=on_epoch,
        on_snapshot=on_snapshot,
        mesh=mesh,
    )


def descend(
    key: Key[Array, ""],
    objective: Objective,
    recipe: Recipe,
    dataset: Dataset,
    variables: Variables,
    *,
    context: Any = None,
    checkpoint: Path | None = None,
    checkpoint_every: int = 1,
    checkpoint_seconds: float = 0.0,
    epochs_per_call: int = 1,
    on_epoch: OnEpoch | None = None,
    on_snapshot: OnSnapshot | None = None,
    mesh: Mesh | None = None,
) -> Trained:
    """Returns the network after `recipe.epochs` epochs of descending `objective` from `variables`.

    `variables` themselves are left untouched. See `fit`.

    Args:
      key: its halves drive the order of batches and the steps.
      objective: what to descend.
      recipe: how to train.
      dataset: [n] examples.
      variables: where to start.
      context: passed on to the objective, as a teacher's weights.
      checkpoint: a folder to resume from and to write to; None for none.
      checkpoint_every: epochs between two checkpoints.
      checkpoint_seconds: see `fit`.
      epochs_per_call: epochs of one compiled call.
      on_epoch: called after each epoch.
      on_snapshot: called with the network after each epoch; needs `epochs_per_call` 1.
      mesh: of one axis, whose devices take an equal share of each batch; None for one device.

    Raises:
      CheckpointError: the folder holds a corrupt checkpoint, or another run's.
      DivergedError: the loss is no longer finite.
    """
    steps = recipe.steps_per_epoch(dataset.size)
    order_key, drives = host_key(key).split()
    step_key = drives.typed()
    fresh = start_state(variables, recipe=split_recipe(recipe)[0])

    def identity() -> Identity:
        shares = 1 if mesh is None else mesh.size
        return {**identify(key, objective, recipe, dataset, variables, context), "shares": shares}

    kept = Checkpoints(checkpoint, identity, every=checkpoint_every, seconds=checkpoint_seconds)
    if checkpoint is None and on_snapshot is None:
        kept = Checkpoints.of_series(identity)
    progress = kept.load(fresh, recipe, steps)
    if progress is None:
        progress = Progress(fresh, 0, {}, (0.0, 0.0), recipe.epochs)
    state, done, history, seconds, _ = progress
    kept.tell_earlier(on_epoch, done, history)
    with Stopwatch() as watch:
        held = reserve(dataset)
        rates = rate_table(recipe, steps, recipe.epochs * steps)
    seconds = (seconds[0] + watch.seconds, seconds[1] + watch.compile_seconds)
    while done < recipe.epochs:
        epochs = min(epochs_per_call, recipe.epochs - done)
        epochs = min(epochs, kept.most_epochs(done) or epochs)
        now = range(done, done + epochs)
        with Stopwatch() as watch:
            state, metrics = take_steps(
                state,
                held,
                several_epochs(order_key, now, dataset.size, recipe.batch_size),
                rates[now.start * steps : now.stop * steps],
                step_key,
                context,
                objective=objective,
                recipe=recipe,
                mesh=mesh,
            )
        seconds = (seconds[0] + watch.seconds, seconds[1] + watch.compile_seconds)
        measured = _in_epochs(metrics, epochs, steps)
        for epoch, of_epoch in zip(now, measured, strict=True):
            refuse_divergence(of_epoch["loss"], epoch, recipe)
            for name, value in of_epoch.items():
                history.setdefault(name, []).append(value)
        done = now.stop
        kept.save(Progress(state, done, history, seconds, recipe.epochs))
        if on_epoch is not None:
            for epoch, of_epoch in zip(now, measured, strict=True):
                on_epoch(epoch + 1, of_epoch)
        if on_snapshot is not None:
            on_snapshot(done, state.variables)
    refuse_infinite_weights(state.variables, recipe)
    cost = Cost(recipe.example_gradients(dataset.size), *seconds)
    arrays = {name: put(np.array(values)) for name, values in history.items()}
    return Trained(state.variables, TrainInfo(arrays, cost))


def _in_epochs(metrics: Measured, epochs: int, steps: int) -> list[dict[str, float]]:
    """Returns the mean metrics of each of several epochs of equally many steps."""
    parts = [slice(epoch * steps, (epoch + 1) * steps) for epoch in range(epochs)]
    return [{name: float(np.mean(values[p])) for name, values in metrics.items()} for p in parts]


def fit_many(
    keys: Key[Array, " seeds"],
    model: Model,
    dataset: Dataset,
    recipe: Recipe,
    *,
    subsets: Int[Array, "seeds n"] | Int[np.ndarray, "seeds n"] | None = None,
    variables: Variables | None = None,
    batching: Batching | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    checkpoint_seconds: float = 0.0,
    epochs_per_call: int = 1,
    on_epoch: OnEpoch | None = None,
) -> Trained:
    """Trains one network per key; every array of the result has a leading seed axis.

    Run i is `fit(keys[i], model, dataset.take(subsets[i]), recipe)`: bit for bit with
    `batching="map"`, up to rounding with `vmap`. Several devices share the runs evenly.

    Args:
      keys: [seeds] typed keys.
      model: the network.
      dataset: the examples, shared by all runs.
      recipe: how to train.
      subsets: [seeds, n] the rows of `dataset` that each run trains on; None for all rows.
      variables: where all runs start; None starts each from a fresh initialisation.
      batching: `vmap` trains all runs in one batched program, `map` one after another, epoch by
        epoch; None takes the faster one: `map` on a CPU, `vmap` elsewhere.
      checkpoint: a folder to resume from and to write to, as that of `fit`; it must be of the same
        runs in the same batching on as many devices.
      checkpoint_seconds: the least seconds between two checkpoints; 0 writes one after each epoch.
      epochs_per_call: see `fit`.
      on_epoch: called after each epoch, of several at the end of their call, with metrics of shape
        [seeds].

    Raises:
      ValueError: data or variables that do not fit the model, a batch larger than the data, or
        subsets out of range.
      CheckpointError: the folder holds a corrupt checkpoint, or that of other runs.
      DivergedError: the loss of a run is no longer finite.

    Example:
      keys = jax.random.split(key, 5)  # five networks at once
      trained = training.fit_many(keys, model, train, training.Recipe(epochs=10))
      first = jax.tree.map(lambda leaf: leaf[0], trained.variables)
    """
    check_data(dataset, model, recipe)
    n_seeds = keys.shape[0]
    if n_seeds == 0:
        raise ValueError("keys must hold at least one key, got none")
    if epochs_per_call < 1:
        raise ValueError(f"epochs_per_call must be >= 1, got {epochs_per_call}")
    rows = _check_subsets(subsets, n_seeds, dataset.size)
    steps = recipe.steps_per_epoch(rows.shape[1])
    batching = batching or ("map" if jax.default_backend() == "cpu" else "vmap")
    places = jax.local_devices()[:n_seeds]
    shares = np.array_split(np.arange(n_seeds), len(places))
    history: dict[str, list[np.ndarray]] = {}
    done, earlier = 0, (0.0, 0.0)
    folder = None if checkpoint is None else Path(checkpoint)

    def identity() -> Identity:
        first = host_key(keys[0]).split()[0].typed()
        start = jax.jit(model.init)(first) if variables is None else variables
        told = identify(keys, CrossEntropy(model, recipe), recipe, dataset, start)
        return {
            **told, "rows": sha256_of_array(rows), "batching": batching, "devices": len(places)
        }  # fmt: skip

    kept = Checkpoints(folder, identity, seconds=checkpoint_seconds)
    if folder is None:
        kept = Checkpoints.of_series(identity)
    with Stopwatch() as watch, ThreadPoolExecutor(len(places)) as pool:
        held = reserve(dataset)
        make = partial(_Runs, keys, model, held, recipe, rows, batching, variables)
        # One device leaves the data where they are.
        on = places if len(places) > 1 else [None]
        runs = list(pool.map(make, shares, on))
        found = kept.load([run.states for run in runs], recipe, steps)
        if found is not None:
            done, earlier = found.epoch, found.seconds
            history = unpack_history(found.history, n_seeds)
            for run, reached in zip(runs, found.state, strict=True):
                run.resume(reached)
            kept.tell_earlier(on_epoch, done, history)
        while done < recipe.epochs:
            now = range(done, min(done + epochs_per_call, recipe.epochs))
            parts = list(pool.map(partial(_Runs.go_on, epochs=now), runs))
            metrics = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
            of_seeds = [
                _in_epochs(
                    {name: values[seed] for name, values in metrics.items()}, len(now), steps
                )
                for seed in range(n_seeds)
            ]
            for index, epoch in enumerate(now):
                of_epoch = {
                    name: np.array([measured[index][name] for measured in of_seeds], values.dtype)
                    for name, values in metrics.items()
                }
                refuse_divergence(of_epoch["loss"], epoch, recipe)
                for name, value in of_epoch.items():
                    history.setdefault(name, []).append(value)
                if on_epoch is not None:
                    on_epoch(epoch + 1, of_epoch)
            done = now.stop
            seconds = earlier[0] + watch.lap()[0], earlier[1] + watch.lap()[1]
            states = [run.states for run in runs]
            kept.save(Progress(states, done, pack_history(history), seconds, recipe.epochs))
        networks = _join([run.variables() for run in runs], places)
    refuse_infinite_weights(networks, recipe)
    stacked = {name: put(np.stack(values, axis=1)) for name, values in history.items()}
    examples = n_seeds * recipe.example_gradients(rows.shape[1])
    cost = Cost(examples, earlier[0] + watch.seconds, earlier[1] + watch.compile_seconds)
    return Trained(networks, TrainInfo(stacked, cost))


class _Runs:
    """The runs of `fit_many` on one device, one after another or in one batched program."""

    def __init__(
        self,
        keys: Key[Array, " seeds"],
        model: Model,
        dataset: Dataset,
        recipe: Recipe,
        rows: Int[np.ndarray, "seeds n"],
        batching: Batching,
        start: Variables | None,
        which: Int[np.ndarray, " share"],
        place: jax.Device | None,
    ):
        form, _ = split_recipe(recipe)
        halves = [host_key(keys[seed]).split() for seed in which]
        orders = [run_key.split() for _, run_key in halves]
        self._orders = [order_key for order_key, _ in orders]
        self._rows, self._recipe, self._together = rows[which], recipe, batching == "vmap"
        self._steps = recipe.steps_per_epoch(rows.shape[1])
        self._rates = rate_table(recipe, self._steps, recipe.epochs * self._steps)
        self._objective = CrossEntropy(model, recipe)
        if start is None:
            check_fresh(model)
        init = jax.jit(model.init)
        starts = [init(init_key.typed()) if start is None else start for init_key, _ in halves]
        check_variables(starts[0], model)
        states = [start_state(variables, recipe=form) for variables in starts]
        step_keys = [step_key.typed() for _, step_key in orders]
        if self._together:
            states, step_keys = [_stack(states)], [jnp.stack(step_keys)]
        if place is not None:
            dataset, states, step_keys = jax.device_put((dataset, states, step_keys), place)
        self._place = place
        self._dataset, self.states, self._step_keys = dataset, states, step_keys

    def go_on(self, *, epochs: range) -> Measured:
        """Takes the steps of these epochs; returns metrics [seeds, steps]."""
        n, batch_size = self._rows.shape[1], self._recipe.batch_size
        batches = np.stack(
            [
                rows[several_epochs(key, epochs, n, batch_size)]
                for key, rows in zip(self._orders, self._rows, strict=True)
            ]
        )
        rates = self._rates[epochs.start * self._steps : epochs.stop * self._steps]
        settings: Any = {"objective": self._objective, "recipe": self._recipe}
        if self._together:
            lanes = np.broadcast_to(rates, (len(batches), len(rates)))
            (state,), (key,) = self.states, self._step_keys
            state, metrics = take_steps_together(
                state, self._dataset, batches, lanes, key, **settings
            )
            self.states = [state]
            return metrics
        done: list[Measured] = []
        for seed, (state, key) in enumerate(zip(self.states, self._step_keys, strict=True)):
            self.states[seed], metrics = take_steps(
                state, self._dataset, batches[seed], rates, key, **settings
            )
            done.append(metrics)
        return {name: np.stack([metrics[name] for metrics in done]) for name in done[0]}

    def resume(self, states: Sequence[TrainState]) -> None:
        """Goes on from these states."""
        self.states = list(jax.device_put(list(states), self._place))

    def variables(self) -> Variables:
        """Returns the networks, with a leading axis."""
        reached = [state.variables for state in self.states]
        found: Variables = reached[0] if self._together else _stack(reached, self._place)
        return found


def _stack(trees: Sequence[Any], place: jax.Device | None = None) -> Any:
    """Returns trees as one with a leading axis, put together on the host."""
    fetched = jax.device_get(list(trees))
    return jax.device_put(jax.tree.map(lambda *leaves: np.stack(leaves), *fetched), place)


def _join(trees: Sequence[Any], places: Sequence[jax.Device]) -> Any:
    """Concatenates trees along their leading axis, one tree per device.

    If all are equally long, each stays on its device.
    """
    if len(trees) == 1:
        return trees[0]
    if len({jax.tree.leaves(tree)[0].shape[0] for tree in trees}) == 1:
        spread = NamedSharding(Mesh(np.array(places), ("seed",)), PartitionSpec("seed"))
        return jax.tree.map(lambda *leaves: _spread(leaves, spread), *trees)
    fetched = jax.device_get(list(trees))
    return jax.device_put(jax.tree.map(lambda *leaves: np.concatenate(leaves), *fetched))


def _spread(parts: Sequence[Array], sharding: NamedSharding) -> Array:
    """Concatenates arrays of equal shape along their first axis, one array per device."""
    first, *rest = parts[0].shape
    shape = (first * len(parts), *rest)
    return jax.make_array_from_single_device_arrays(shape, sharding, list(parts))


def _share_mesh(devices: Sequence[jax.Device] | None, recipe: Recipe) -> Mesh | None:
    if devices is None:
        return None
    if not devices or recipe.batch_size % len(devices) != 0:
        raise ValueError(
            f"devices must divide batch_size={recipe.batch_size} evenly, got {len(devices)}; "
            "choose another batch size or other devices"
        )
    return Mesh(np.array(devices), ("share",)) if len(devices) > 1 else None


def check_data(dataset: Dataset, model: Model, recipe: Recipe) -> None:
    """Raises ValueError if a network cannot be trained on a dataset by a recipe.

    Args:
      dataset: [n] examples.
      model: the network.
      recipe: how it is to be trained.
    """
    check_dataset(dataset)
    check_compatible(dataset, model)
    if recipe.augmentation != "none" and dataset.x.ndim != 4:
        raise ValueError(
            f"augmentation={recipe.augmentation!r} needs images [n, height, width, channels], "
            f"got x {list(dataset.x.shape)}; choose augmentation='none'"
        )


def _check_subsets(subsets: Any, n_seeds: int, n: int) -> Int[np.ndarray, "seeds n"]:
    if subsets is None:
        return np.broadcast_to(np.arange(n, dtype=np.int32), (n_seeds, n))
    rows = np.asarray(subsets)
    if not np.issubdtype(rows.dtype, np.integer) or rows.ndim != 2 or rows.shape[0] != n_seeds:
        raise ValueError(
            f"subsets must be integers of shape [{n_seeds}, n], one row a key, "
            f"got {rows.dtype} {list(rows.shape)}"
        )
    if rows.size and (rows.min() < 0 or rows.max() >= n):
        raise ValueError(
            f"subsets must be in 0 … {n - 1}, got {int(rows.min())} … {int(rows.max())}"
        )
    return rows.astype(np.int32)
