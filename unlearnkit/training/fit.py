"""Training runs: one network, or many at once."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Int, Key

from unlearnkit.base import Cost, Dataset, Model, OnEpoch, Trained, TrainInfo, Variables
from unlearnkit.costs import Stopwatch
from unlearnkit.training.checkpoint import (
    CheckpointError,
    Progress,
    load_progress,
    save_progress,
)
from unlearnkit.training.divergence import refuse_divergence, refuse_infinite_weights
from unlearnkit.training.identity import identify
from unlearnkit.training.logged_run import descend_logged
from unlearnkit.training.recipe import Recipe, learning_rate_schedule
from unlearnkit.training.step import (
    CrossEntropy,
    Metrics,
    Objective,
    TrainState,
    epoch_batches,
    init_train_state,
    run_epoch,
    train_epoch,
    train_epochs,
)
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
    trajectory: str | os.PathLike[str] | None = None,
    every: int = 100,
    epochs_per_call: int = 1,
    on_epoch: OnEpoch | None = None,
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
      objective: what to descend; None takes `CrossEntropy(model, recipe)`.
      checkpoint: a folder; the run resumes from what it holds, and writes its progress there. It
        must be this run's: the same bits of the start, objective, network, recipe, data and key
        (see `unlearnkit.training.identity`). More epochs than before may be asked for where the
        learning rates so far do not depend on their number.
      checkpoint_every: epochs between two checkpoints.
      trajectory: a folder for a log from which others can verify the run, a proof of learning
        (see `unlearnkit.forging.verify`); the run resumes from what it holds. It tells a run from
        a fresh initialisation, which others derive from the key again, from one from `variables`.
      every: steps between two checkpoints of that log, each one compiled call.
      epochs_per_call: epochs of one compiled call, after which their metrics come to the host; more
        than one pays on an accelerator where an epoch takes milliseconds. The bits are the same. A
        number of epochs that is no multiple, of the run or between checkpoints, compiles again.
      on_epoch: called after each epoch, of several at the end of their call; with a trajectory,
        after the segment that ends it.
      devices: take an equal share of each batch each, and average gradients, batch statistics and
        metrics over the shares, in which each normalises its own; None takes the default device.
        On a CPU, `JAX_NUM_CPU_DEVICES=2` makes two of it.

    Raises:
      ValueError: data or variables that do not fit the model, a batch larger than the data, or a
        trajectory together with a checkpoint, an objective or several epochs a call.
      CheckpointError: the folder holds a corrupt checkpoint or log, or another run's.
      DivergedError: the loss is no longer finite.

    Example:
      recipe = training.Recipe(epochs=10, batch_size=128, learning_rate=0.1)
      variables, info = training.fit(key, model, train, recipe)
      print(info.history["accuracy"][-1], info.cost.seconds)
    """
    _check_data(dataset, model, recipe)
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
    init_key, run_key = jax.random.split(key)
    derived = variables is None
    if variables is None:
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
        epochs_per_call=epochs_per_call,
        on_epoch=on_epoch,
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
    epochs_per_call: int = 1,
    on_epoch: OnEpoch | None = None,
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
      epochs_per_call: epochs of one compiled call.
      on_epoch: called after each epoch.
      mesh: of one axis, whose devices take an equal share of each batch; None for one device.

    Raises:
      CheckpointError: the folder holds a corrupt checkpoint, or another run's.
      DivergedError: the loss is no longer finite.
    """
    steps = recipe.steps_per_epoch(dataset.size)
    order_key, step_key = jax.random.split(key)
    copied = jax.tree.map(jnp.array, variables)
    fresh = init_train_state(recipe, steps, copied)
    progress = Progress(fresh, 0, {}, (0.0, 0.0), recipe.epochs)
    run: Mapping[str, Any] = {}
    if checkpoint is not None:
        checkpoint.mkdir(parents=True, exist_ok=True)
        run = identify(key, objective, recipe, dataset, variables, context)
        run["shares"] = 1 if mesh is None else mesh.size
        found = load_progress(checkpoint, progress.state, run)
        if found is not None:
            _check_epochs(checkpoint, recipe, found, steps)
            progress = found
    state, done, history, seconds, _ = progress
    settings: Any = {
        "objective": objective, "recipe": recipe, "batch_size": recipe.batch_size, "mesh": mesh
    }  # fmt: skip
    while done < recipe.epochs:
        epochs = min(epochs_per_call, recipe.epochs - done)
        if checkpoint is not None:
            epochs = min(epochs, checkpoint_every - done % checkpoint_every)
        with Stopwatch() as watch:
            keys = (order_key, step_key)
            if epochs == 1:
                state, metrics = train_epoch(state, dataset, *keys, context, **settings)
            else:
                state, metrics = train_epochs(
                    state, dataset, *keys, context, epochs=epochs, **settings
                )
            measured = {name: np.atleast_1d(value).tolist() for name, value in metrics.items()}
        seconds = (seconds[0] + watch.seconds, seconds[1] + watch.compile_seconds)
        for epoch in range(epochs):
            of_epoch = {name: values[epoch] for name, values in measured.items()}
            refuse_divergence(of_epoch["loss"], done + epoch, recipe)
            for name, value in of_epoch.items():
                history.setdefault(name, []).append(value)
        done += epochs
        if checkpoint is not None and (done % checkpoint_every == 0 or done == recipe.epochs):
            reached = Progress(state, done, history, seconds, recipe.epochs)
            save_progress(checkpoint, reached, run)
        if on_epoch is not None:
            for epoch in range(epochs):
                of_epoch = {name: values[epoch] for name, values in measured.items()}
                on_epoch(done - epochs + epoch + 1, of_epoch)
    refuse_infinite_weights(state.variables, recipe)
    cost = Cost(float(recipe.epochs * steps * recipe.batch_size), *seconds)
    arrays = {name: jnp.asarray(values) for name, values in history.items()}
    return Trained(state.variables, TrainInfo(arrays, cost))


def fit_many(
    keys: Key[Array, " seeds"],
    model: Model,
    dataset: Dataset,
    recipe: Recipe,
    *,
    subsets: Int[Array, "seeds n"] | Int[np.ndarray, "seeds n"] | None = None,
    batching: Batching | None = None,
    epochs_per_call: int = 1,
    on_epoch: OnEpoch | None = None,
) -> Trained:
    """Returns as many networks as keys, trained together; every array has a leading seed axis.

    Run i is `fit(keys[i], model, dataset.take(subsets[i]), recipe)` up to rounding. Where several
    devices are present and divide the number of runs, each takes an equal share of the runs.

    Args:
      keys: [seeds] typed keys.
      model: the network.
      dataset: the examples, shared by all runs.
      recipe: how to train.
      subsets: [seeds, n] the rows of `dataset` that each run sees; None gives all to each.
      batching: `vmap` runs all at once, `map` one after another inside one program; None takes
        what measures faster: `map` on CPU, `vmap` elsewhere.
      epochs_per_call: see `fit`.
      on_epoch: called after each epoch, of several at the end of their call, with metrics of shape
        [seeds].

    Raises:
      ValueError: data that do not fit the model, a batch larger than the data, or subsets out
        of range.
      DivergedError: the loss of a run is no longer finite.

    Example:
      keys = jax.random.split(key, 5)  # five networks at once
      trained = training.fit_many(keys, model, train, training.Recipe(epochs=10))
      first = jax.tree.map(lambda leaf: leaf[0], trained.variables)
    """
    _check_data(dataset, model, recipe)
    n_seeds = keys.shape[0]
    if n_seeds == 0:
        raise ValueError("keys must hold at least one key, got none")
    if epochs_per_call < 1:
        raise ValueError(f"epochs_per_call must be >= 1, got {epochs_per_call}")
    rows = _check_subsets(subsets, n_seeds, dataset.size)
    steps = recipe.steps_per_epoch(rows.shape[1])
    batching = batching or ("map" if jax.default_backend() == "cpu" else "vmap")
    objective = CrossEntropy(model, recipe)
    history: dict[str, list[Array]] = {}
    with Stopwatch() as watch:
        init_keys, run_keys = jax.vmap(jax.random.split, out_axes=1)(keys)
        order_keys, step_keys = jax.vmap(jax.random.split, out_axes=1)(run_keys)
        state = _init_many(init_keys, model=model, recipe=recipe, steps_per_epoch=steps)
        check_variables(jax.tree.map(lambda leaf: leaf[0], state.variables), model)
        mesh = _seed_mesh(n_seeds)
        if mesh is not None:
            shared, own = (NamedSharding(mesh, PartitionSpec(*axis)) for axis in ((), ("seed",)))
            dataset = jax.device_put(dataset, shared)
            state, rows, order_keys, step_keys = jax.device_put(
                (state, rows, order_keys, step_keys), own
            )
        for done in range(0, recipe.epochs, epochs_per_call):
            state, metrics = _train_epochs_many(
                state,
                dataset,
                rows,
                order_keys,
                step_keys,
                objective=objective,
                recipe=recipe,
                batching=batching,
                mesh=mesh,
                epochs=min(epochs_per_call, recipe.epochs - done),
            )
            for epoch, losses in enumerate(np.asarray(metrics["loss"]).T, start=done):
                refuse_divergence(losses, epoch, recipe)
                of_epoch = {name: values[:, epoch - done] for name, values in metrics.items()}
                for name, value in of_epoch.items():
                    history.setdefault(name, []).append(value)
                if on_epoch is not None:
                    on_epoch(epoch + 1, of_epoch)
        jax.block_until_ready(state)
    refuse_infinite_weights(state.variables, recipe)
    stacked = {name: jnp.stack(values, axis=1) for name, values in history.items()}
    examples = float(n_seeds * recipe.epochs * steps * recipe.batch_size)
    cost = Cost(examples, watch.seconds, watch.compile_seconds)
    return Trained(state.variables, TrainInfo(stacked, cost))


@partial(jax.jit, static_argnames=("model", "recipe", "steps_per_epoch"))
def _init_many(
    keys: Key[Array, " seeds"], *, model: Model, recipe: Recipe, steps_per_epoch: int
) -> TrainState:
    variables = jax.vmap(model.init)(keys)
    return jax.vmap(partial(init_train_state, recipe, steps_per_epoch))(variables)


@partial(
    jax.jit,
    static_argnames=("objective", "recipe", "batching", "mesh", "epochs"),
    donate_argnames=("state",),
)
def _train_epochs_many(
    state: TrainState,
    dataset: Dataset,
    rows: Int[Array, "seeds n"],
    order_keys: Key[Array, " seeds"],
    step_keys: Key[Array, " seeds"],
    *,
    objective: Objective,
    recipe: Recipe,
    batching: Batching,
    mesh: Mesh | None,
    epochs: int,
) -> tuple[TrainState, Metrics]:
    """Returns the states after `epochs` epochs, and metrics [seeds, epochs]."""

    def one(
        dataset: Dataset,
        state: TrainState,
        rows: Array,
        order_key: Key[Array, ""],
        step_key: Key[Array, ""],
    ) -> tuple[TrainState, Metrics]:
        n = rows.shape[0]

        def one_epoch(state: TrainState, _: None) -> tuple[TrainState, Metrics]:
            epoch = state.step // (n // recipe.batch_size)
            batches = rows[epoch_batches(order_key, epoch, n, recipe.batch_size)]
            return run_epoch(objective, recipe, state, dataset, batches, step_key)

        if epochs > 1:
            return jax.lax.scan(one_epoch, state, length=epochs)
        state, metrics = one_epoch(state, None)
        return state, jax.tree.map(lambda value: value[None], metrics)

    def several(dataset: Dataset, *runs: Any) -> tuple[TrainState, Metrics]:
        if batching == "vmap":
            return jax.vmap(partial(one, dataset))(*runs)
        return jax.lax.map(lambda run: one(dataset, *run), runs)

    runs = (state, rows, order_keys, step_keys)
    if mesh is None:
        return several(dataset, *runs)
    seed_axis = PartitionSpec("seed")
    specs = (PartitionSpec(), *(seed_axis for _ in runs))
    sharded = jax.shard_map(
        several, mesh=mesh, in_specs=specs, out_specs=seed_axis, check_vma=False
    )
    return sharded(dataset, *runs)


def _share_mesh(devices: Sequence[jax.Device] | None, recipe: Recipe) -> Mesh | None:
    if devices is None:
        return None
    if not devices or recipe.batch_size % len(devices) != 0:
        raise ValueError(
            f"devices must divide batch_size={recipe.batch_size} evenly, got {len(devices)}; "
            "choose another batch size or other devices"
        )
    return Mesh(np.array(devices), ("share",)) if len(devices) > 1 else None


def _seed_mesh(n_seeds: int) -> Mesh | None:
    devices = jax.local_devices()
    if len(devices) == 1 or n_seeds % len(devices) != 0:
        return None
    return Mesh(np.array(devices), ("seed",))


def _check_epochs(folder: Path, recipe: Recipe, found: Progress, steps: int) -> None:
    """Refuses another number of epochs where the epochs that are done would have differed."""
    if found.epoch > recipe.epochs:
        raise CheckpointError(
            f"{folder} holds {found.epoch} epochs of this run, more than the {recipe.epochs} that "
            "are asked for; ask for as many, or choose another folder"
        )
    earlier = dataclasses.replace(recipe, epochs=found.planned)
    taken = jnp.arange(found.epoch * steps)
    then, now = (
        np.broadcast_to(learning_rate_schedule(each, steps)(taken), taken.shape)
        for each in (earlier, recipe)
    )
    if not np.array_equal(then, now):
        raise CheckpointError(
            f"{folder} holds {found.epoch} of {found.planned} epochs, and a run of {recipe.epochs} "
            f"would have had other learning rates in them: schedule={recipe.schedule!r} with "
            f"warmup_epochs={recipe.warmup_epochs:g} depends on the number of epochs; ask for "
            f"{found.planned}, or choose another folder"
        )


def _check_data(dataset: Dataset, model: Model, recipe: Recipe) -> None:
    check_dataset(dataset)
    check_compatible(dataset, model)
    if recipe.augmentation != "none" and dataset.x.ndim != 4:
        raise ValueError(
            f"augmentation={recipe.augmentation!r} needs images [n, height, width, channels], "
            f"got x {list(dataset.x.shape)}; choose augmentation='none'"
        )


def _check_subsets(subsets: Any, n_seeds: int, n: int) -> Int[Array, "seeds n"]:
    if subsets is None:
        return jnp.broadcast_to(jnp.arange(n, dtype=jnp.int32), (n_seeds, n))
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
    return jnp.asarray(rows, dtype=jnp.int32)
