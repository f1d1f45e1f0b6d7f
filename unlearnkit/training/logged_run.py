"""Training runs that write a log as they proceed.

The manifest is replaced atomically, after the files that it adds are on disk: a process killed at
any moment leaves a log that is complete up to the last checkpoint in the manifest, and the run
resumes from there with the same bits. Since a manifest lists all checkpoints, rewriting it for each
one would take quadratic time; it is rewritten when the log has grown by 1/32, and at the end of the
run, failed or not. A killed run therefore repeats at most 1/32 of its steps.

`network.json` beside the log holds a digest of the network's computation, so that a run resumes
only with its own network. It is not verified, since it depends on the version of JAX.
"""

from __future__ import annotations

import hashlib
import io
import json
import warnings
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Key

from unlearnkit.base import Cost, Dataset, Model, OnEpoch, Trained, TrainInfo, Variables
from unlearnkit.costs import Stopwatch
from unlearnkit.host.order import several_epochs
from unlearnkit.host.random import host_key
from unlearnkit.host.reserve import reserve
from unlearnkit.io.files import read_regular_file, write_bytes, write_json
from unlearnkit.io.provenance import environment
from unlearnkit.training import manifest
from unlearnkit.training.checkpoint import (
    CheckpointWarning,
    differences,
    flatten,
    same_bits,
    save_arrays,
)
from unlearnkit.training.claim import (
    Claim,
    StartClaim,
    TrajectoryError,
    claim_run,
    example_digests,
    variables_sha256,
)
from unlearnkit.training.divergence import (
    DivergedError,
    refuse_divergence,
    refuse_infinite_weights,
)
from unlearnkit.training.identity import identify_network
from unlearnkit.training.recipe import Recipe, rate_table
from unlearnkit.training.step import (
    CrossEntropy,
    TrainState,
    init_train_state,
)
from unlearnkit.training.trajectory import METRICS, Logged, first_not_finite, read_trajectory
from unlearnkit.training.unit import take_steps

_LAG = 32
_NETWORK = "network.json"


class TrajectoryWriter:
    """Writes a log checkpoint by checkpoint.

    Attributes:
      folder: where it is.
      claim: what it says of its run.
      digests: the SHA-256 of each checkpoint's file so far.
    """

    def __init__(self, folder: Path, claim: Claim, digests: Sequence[str] = ()):
        """Appends after the checkpoints `digests`; the folder holds the batches already.

        Args:
          folder: where it is.
          claim: what it says of its run.
          digests: the SHA-256 of each checkpoint's file so far.
        """
        self.folder, self.claim, self.digests = folder, claim, list(digests)
        self._named = len(self.digests)

    def append(self, logged: Logged) -> None:
        """Writes the next checkpoint, and the manifest if it lags by 1/32 or the run is over.

        Raises:
          DivergedError: a value is not finite; nothing is written.
        """
        step = self.claim.checkpoint_step(len(self.digests))
        arrays = flatten(logged)
        if odd := first_not_finite(arrays):
            raise DivergedError(
                f"training diverged before step {step}: {odd} is not finite; lower "
                f"learning_rate={self.claim.recipe.learning_rate:g}, or set clip_norm"
            )
        self.digests.append(save_arrays(self.folder / manifest.state_file(step), arrays))
        if len(self.digests) - self._named > self._named // _LAG or step == self.claim.steps:
            self.name_all()

    def name_all(self) -> None:
        """Writes the manifest, unless it names every checkpoint already."""
        if self._named < len(self.digests):
            write_json(self.folder / manifest.MANIFEST, manifest.encode(self.claim, self.digests))
            self._named = len(self.digests)


def descend_logged(
    key: Key[Array, ""],
    model: Model,
    dataset: Dataset,
    recipe: Recipe,
    variables: Variables,
    *,
    derived: bool,
    folder: Path,
    every: int,
    on_epoch: OnEpoch | None = None,
) -> Trained:
    """Returns the network trained by `recipe` from `variables`, and writes the log of the run.

    An existing log of this run is resumed; `seconds` then count from there. Every `every` steps are
    one compiled call, and checkpoints are written while the next one runs. If writing fails, the
    log ends with a warning and training continues.

    Args:
      key: that `fit` was given; its halves initialise the network and drive the run.
      model: the network.
      dataset: [n] examples.
      recipe: how to train.
      variables: where to start.
      derived: whether `variables` are what the first half of `key` initialises.
      folder: of the log.
      every: steps between two checkpoints.
      on_epoch: called after the segment that ends an epoch.

    Raises:
      TrajectoryError: the folder holds a corrupt log, or one of another run.
      ValueError: more checkpoints than a log may have.
      DivergedError: a value is no longer finite; the log ends before it.
    """
    per_epoch = recipe.steps_per_epoch(dataset.size)
    steps = recipe.epochs * per_epoch
    if steps >= every * (manifest.MOST_CHECKPOINTS - 1):
        raise ValueError(
            f"a log holds at most {manifest.MOST_CHECKPOINTS} checkpoints; choose every >= "
            f"{steps // (manifest.MOST_CHECKPOINTS - 1) + 1} for {steps} steps"
        )
    order_key, drives = host_key(key).split()[1].split()
    step_key = drives.typed()
    objective = CrossEntropy(model, recipe)
    history = _History(per_epoch, on_epoch)
    with Stopwatch() as watch:
        epochs = range(recipe.epochs)
        batches = several_epochs(order_key, epochs, dataset.size, recipe.batch_size)
        rates = rate_table(recipe, per_epoch, steps)
        contents = npy_content(batches, "<i4")
        examples = npy_content(example_digests(dataset), "<u8")
        claim = claim_run(
            key,
            model,
            dataset,
            recipe,
            start=StartClaim(derived, variables_sha256(variables)),
            every=every,
            environment=environment(),
            batches_sha256=hashlib.sha256(contents).hexdigest(),
            examples_sha256=hashlib.sha256(examples).hexdigest(),
        )
        start = init_train_state(recipe, per_epoch, jax.tree.map(jnp.array, variables))
        network = identify_network(model, recipe, dataset)
        log, past = _open(folder, claim, (contents, examples), model, start, network)
        for logged in past:
            history.add(logged.metrics)
        state = jax.tree.map(jnp.asarray, past[-1].state) if past else start
        done = int(state.step)
        held = reserve(dataset)
        with _Background(log) as background:
            while done < claim.steps:
                now = slice(done, done + every)
                state, metrics = take_steps(
                    state,
                    held,
                    batches[now],
                    rates[now],
                    step_key,
                    objective=objective,
                    recipe=recipe,
                    keep=True,
                )
                refuse_divergence(metrics["loss"], done // per_epoch, recipe)
                done = min(now.stop, claim.steps)
                background.append(Logged(state, metrics))
                history.add(metrics, report=True)
    refuse_infinite_weights(state.variables, recipe)
    cost = Cost(float(claim.steps * recipe.batch_size), watch.seconds, watch.compile_seconds)
    return Trained(state.variables, TrainInfo(history.by_epoch(), cost))


def _open(
    folder: Path,
    claim: Claim,
    arrays: tuple[bytes, bytes],
    model: Model,
    start: TrainState,
    network: Mapping[str, Any],
) -> tuple[TrajectoryWriter, list[Logged]]:
    """Creates or opens the log; returns it and its checkpoints after the first."""
    folder.mkdir(parents=True, exist_ok=True)
    for left in folder.glob(".*.tmp"):
        left.unlink(missing_ok=True)
    if not (folder / manifest.MANIFEST).exists():
        for name, content in zip((manifest.BATCHES, manifest.EXAMPLES), arrays, strict=True):
            write_bytes(folder / name, content)
        write_json(folder / _NETWORK, network)
        log = TrajectoryWriter(folder, claim)
        log.append(Logged(start, {name: jnp.zeros(0) for name in METRICS}))
        return log, []
    found = read_trajectory(folder)
    mine, theirs = manifest.encode(claim, ()), manifest.encode(found.claim, ())
    differing = [name for name in mine if mine[name] != theirs[name] and name != "head"]
    if "start" not in differing and not same_bits(found.read(0, model).state, start):
        differing.append("start")
    if "network" not in differing:
        differing += _network_differences(folder / _NETWORK, network)
    if differing:
        raise TrajectoryError(
            f"{folder} holds the log of another run (differs in {', '.join(differing)}); "
            "choose another folder, or remove this one"
        )
    past = [found.read(index, model) for index in range(1, len(found.digests))]
    return TrajectoryWriter(folder, claim, found.digests), past


def _network_differences(path: Path, network: Mapping[str, Any]) -> list[str]:
    """Returns how the network differs from the log's; nothing if the log has no `network.json`."""
    if not path.exists():
        return []
    try:
        theirs = json.loads(read_regular_file(path, at_most=2**16))
    except (OSError, ValueError, RecursionError) as error:
        raise TrajectoryError(f"{path} cannot be read: {error!s:.300}") from None
    if not isinstance(theirs, dict):
        raise TrajectoryError(f"{path} does not say what the log's network computes")
    then, now = theirs.get("jax"), network.get("jax")
    if then is not None and now is not None and then != now:
        raise TrajectoryError(
            f"the log in {path.parent} was begun under JAX {then}, this is {now}: whether its "
            f"network is this one cannot be told; go on under JAX {then}, or choose another folder"
        )
    return differences({"network": network}, {"network": theirs})


class _Background:
    """Writes a checkpoint in a thread while the next one is computed."""

    def __init__(self, log: TrajectoryWriter):
        self._log = log
        self._pool = ThreadPoolExecutor(max_workers=1)
        self._pending: Future[None] | None = None
        self._failed = False

    def __enter__(self) -> _Background:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._settle()
        finally:
            self._pool.shutdown()
            self._attempt(self._log.name_all)

    def append(self, logged: Logged) -> None:
        self._settle()
        if not self._failed:
            self._pending = self._pool.submit(self._log.append, logged)

    def _settle(self) -> None:
        pending, self._pending = self._pending, None
        if pending is not None:
            self._attempt(pending.result)

    def _attempt(self, write: Callable[[], None]) -> None:
        try:
            write()
        except OSError as error:
            if self._failed:
                return
            self._failed = True
            warnings.warn(
                f"the log in {self._log.folder} ends before step "
                f"{self._log.claim.checkpoint_step(len(self._log.digests))} ({error}); "
                "training goes on without it",
                CheckpointWarning,
                stacklevel=5,
            )


class _History:
    """Gathers the metrics of steps into those of epochs."""

    def __init__(self, steps_per_epoch: int, on_epoch: OnEpoch | None):
        self._steps_per_epoch, self._on_epoch = steps_per_epoch, on_epoch
        self._steps: dict[str, list[float]] = {name: [] for name in METRICS}
        self._epochs: dict[str, list[float]] = {name: [] for name in METRICS}

    def add(self, metrics: Mapping[str, Any], *, report: bool = False) -> None:
        for name, values in metrics.items():
            self._steps[name].extend(np.asarray(values).tolist())
        while len(self._steps["loss"]) >= self._steps_per_epoch:
            for name, steps in self._steps.items():
                self._epochs[name].append(float(np.mean(steps[: self._steps_per_epoch])))
                self._steps[name] = steps[self._steps_per_epoch :]
            if report and self._on_epoch is not None:
                epoch = {name: values[-1] for name, values in self._epochs.items()}
                self._on_epoch(len(self._epochs["loss"]), epoch)

    def by_epoch(self) -> dict[str, Array]:
        return {name: jnp.asarray(values) for name, values in self._epochs.items() if values}


def npy_content(array: np.ndarray, dtype: str) -> bytes:
    """Returns the content of a `.npy` file."""
    content = io.BytesIO()
    rows = np.ascontiguousarray(array, dtype)
    np.lib.format.write_array(content, rows, version=(1, 0), allow_pickle=False)
    return content.getvalue()
