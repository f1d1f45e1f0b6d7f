"""How far apart two honest computations of the same steps are."""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Iterator, Sequence
from typing import Any, Literal, NamedTuple, TypeAlias, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from unlearnkit import models
from unlearnkit.base import Dataset, Model, Params, State, Variables
from unlearnkit.forging.calibration import Band, Calibration
from unlearnkit.forging.limits import (
    REDUCED_RATIO,
    Tolerance,
    caps_of,
    largest_ratio,
    power,
    state_errors,
    state_move,
)
from unlearnkit.forging.norms import Norm, check_norm
from unlearnkit.forging.opening import open_log
from unlearnkit.forging.replay import replay
from unlearnkit.host.random import host_key
from unlearnkit.training import (
    CrossEntropy,
    Recipe,
    TrainState,
    Trajectory,
    TrajectoryError,
    cross_entropy,
)
from unlearnkit.training.step import Metrics, augment, forward_train

Change: TypeAlias = Literal[
    "batch order", "matmul precision", "convolution", "activations", "device"
]
CHANGES: tuple[Change, ...] = get_args(Change)
_DIGITS = {"bfloat16": 8, "tensorfloat32": 11, "default": 11, "high": 22, "highest": 24}
"""Bits of precision that a matmul precision promises on the hardware that honours it least."""


def calibrate(
    key: Key[Array, ""],
    path: str | os.PathLike[str],
    dataset: Dataset,
    *,
    norm: Norm = "l2",
    model: Model | None = None,
    segments: int = 5,
    shuffles: int = 100,
    margin: float = 2.0,
    changes: Sequence[Change] = CHANGES,
) -> Calibration:
    """Returns the reproduction errors of a log's segments, and the tolerance that they propose.

    Segments drawn at random are replayed from the logged checkpoints as the log says, and again
    with the examples of each batch in another order, with other matmul precisions, with the other
    convolution, in bfloat16, and on every other kind of device at hand. All errors are between two
    replays of ours: the checkpoint that the owner claims to have reached plays no part, so that a
    forged log cannot widen its own tolerance. Weights, optimiser memory and statistics have limits
    of their own, and the calibration holds for the log of this head alone.

    Nor may chaos widen it: where rounding makes a ReLU or a maximum fall otherwise the difference
    can grow ten-thousandfold before the segment ends, to the size of a forgery. Replays that err by
    more than 100 times the median are reported, but do not count. A verifier that rejects such a
    segment of an honest log needs checkpoints at shorter intervals. Where the median is that large
    itself, so that the limits would come to more than 1e-4 of how far a segment moves, nothing can
    be proven and the log is refused; where one of the computations is not in full float32, or on
    another device, more than 0.1.

    Args:
      key: chooses segments and shuffles.
      path: the folder of the log.
      dataset: what it was trained on.
      norm: the measure.
      model: the network; None makes the one that the log names.
      segments: how many are replayed.
      shuffles: how many orders of the batches, spread over these segments.
      margin: the tolerance is so many times the largest benign error.
      changes: which kinds of change are made.

    Raises:
      TrajectoryError: see `verify`; a replay that is not finite, or replays that differ too much.
      ValueError: an argument out of its range.

    Example:
      calibration = forging.calibrate(key, "log", train, segments=3)
      report = forging.verify("log", train, calibration=calibration)

    Source: Suliman et al. 2024, §3 (hardware), A.3.2 and Fig. 4 (100 shuffles of a batch).
    """
    check_norm(norm)
    if segments < 1 or shuffles < 1:
        raise ValueError(f"segments and shuffles must be >= 1, got {segments} and {shuffles}")
    if not (margin >= 1 and math.isfinite(margin)):
        raise ValueError(f"margin must be >= 1 and finite, got {margin}")
    if unknown := set(changes) - set(CHANGES):
        raise ValueError(f"changes must be of {', '.join(CHANGES)}, got {', '.join(unknown)}")
    log, network = open_log(path, dataset, model)
    choice_key, shuffle_key = jax.random.split(key)
    order = host_key(choice_key).permutation(log.segments)
    bench = _Bench(log, network, dataset, norm, sorted(order[:segments].tolist()))
    bands = [bench.measure(_Changed("the same again", True, bench.all(), bench.ratio))]
    left_out: dict[str, str] = {}
    for kind in changes:
        for change in _changed_runs(bench, shuffle_key, shuffles, kind):
            if isinstance(change, _LeftOut):
                left_out[change.name] = change.reason
            else:
                bands.append(bench.measure(change))
    benign = [band for band in bands if band.benign]
    largest = np.max([band.largest for band in benign], axis=0)
    if not np.all(np.isfinite(largest)):
        raise TrajectoryError("a replay of the log is not finite; there is nothing to calibrate")
    _refuse_chaos(log, benign, margin)
    limits = Tolerance(*(margin * largest).tolist())
    ratio = float(margin * np.max([band.largest_ratio for band in benign]))
    return Calibration(tuple(bands), left_out, norm, margin, limits, ratio, log.head)


def _refuse_chaos(log: Trajectory, benign: Sequence[Band], margin: float) -> None:
    """Raises ValueError if `verify` would not grant these limits: other weights would fit in."""
    for band in benign:
        shares = margin * np.array(band.largest_share)
        if np.any(shares > 1):
            part = Tolerance._fields[int(np.argmax(shares))]
            raise TrajectoryError(
                f"honest replays of this log ({band.name}) differ in {part} by {np.max(shares):.3g}"
                f" times what a limit may be, {band.ratio:g} of how far a segment moves: nothing "
                f"would differ from a forgery; train with checkpoints more often than each "
                f"{log.claim.every} steps, or at a lower rate"
            )


class _Changed(NamedTuple):
    """One change, lazily the segments' ends under it, and the ratio that a limit may have."""

    name: str
    benign: bool
    runs: Iterator[tuple[int, TrainState]]
    ratio: float


class _LeftOut(NamedTuple):
    """One change that cannot be made here."""

    name: str
    reason: str


class _Bench:
    """The chosen segments with their unchanged replays."""

    def __init__(
        self, log: Trajectory, model: Model, dataset: Dataset, norm: Norm, segments: list[int]
    ):
        self.log, self.model, self.dataset, self.norm = log, model, dataset, norm
        self.recipe = log.claim.recipe
        self.segments = segments
        self.ratio = largest_ratio(log.claim)
        self._starts = [log.read(segment, model).state for segment in segments]
        self._ends = [self.run(index) for index in range(len(segments))]
        self._moves = [
            state_move(*states, norm) for states in zip(self._starts, self._ends, strict=True)
        ]

    def run(
        self,
        index: int,
        *,
        precision: str | None = None,
        recipe: Recipe | None = None,
        model: Model | None = None,
        order: Key[Array, ""] | None = None,
        device: jax.Device | None = None,
    ) -> TrainState:
        """Returns the end of a segment, one thing changed."""
        recipe, model = recipe or self.recipe, model or self.model
        log = self.log
        if precision is not None:
            claim = log.claim._replace(matmul_precision=precision)
            log = dataclasses.replace(log, claim=claim)
        objective = CrossEntropy(model, recipe) if order is None else Reordered(model, recipe)
        start, dataset = jax.device_put((self._starts[index], self.dataset), device)
        segment = self.segments[index]
        return replay(log, segment, start, dataset, objective, recipe=recipe, context=order)

    def measure(self, change: _Changed) -> Band:
        """Returns the errors of changed runs against the unchanged."""
        errors, ratios, shares, p = [], [], [], power(self.norm)
        for index, end in change.runs:
            found = state_errors(end, self._ends[index], self.norm)
            steps, move = len(self.log.rows(self.segments[index])), self._moves[index]
            limits = caps_of(self.log.claim, self.norm, change.ratio).of(move, steps)
            errors.append(found)
            pairs = zip(found, limits, strict=True)
            shares.append([(e / most) ** (1 / p) if e > 0 else 0.0 for e, most in pairs])
            moved = move.moved.weights
            ratios.append((found.weights / moved) ** (1 / p) if moved > 0 else 0.0)
        weights, memory, statistics = np.array(errors).T
        return Band(
            change.name,
            weights,
            memory,
            statistics,
            change.benign,
            change.ratio,
            np.array(ratios),
            np.array(shares),
        )

    def all(self, **change: Any) -> Iterator[tuple[int, TrainState]]:
        """Yields every segment's end with one thing changed."""
        return ((index, self.run(index, **change)) for index in range(len(self.segments)))


def _changed_runs(
    bench: _Bench, key: Key[Array, ""], shuffles: int, change: Change
) -> Iterator[_Changed | _LeftOut]:
    """Yields the changes of one kind."""
    if change == "batch order":
        if _draws_by_position(bench):
            yield _LeftOut(change, "the network draws (dropout) by an example's place in the batch")
            return
        orders = ((i % len(bench.segments), jax.random.fold_in(key, i)) for i in range(shuffles))
        shuffled = ((index, bench.run(index, order=order)) for index, order in orders)
        yield _Changed(change, True, shuffled, bench.ratio)
    elif change == "matmul precision":
        claimed = bench.log.claim.matmul_precision or "default"
        promised = _DIGITS.get(claimed, _DIGITS["highest"])
        for precision, digits in _DIGITS.items():
            runs = bench.all(precision=precision)
            yield _Changed(f"{change} {precision}", digits >= promised, runs, bench.ratio)
    elif change == "convolution":
        for implementation in ("xla", "patches"):
            other = _with_implementation(bench.model, implementation)
            if other is None:
                yield _LeftOut(change, "the network has no such option")
                return
            runs = bench.all(model=other)
            yield _Changed(f"{change} {implementation}", True, runs, bench.ratio)
    elif change == "activations":
        reduced = dataclasses.replace(bench.recipe, compute_dtype="bfloat16")
        benign = bench.recipe.compute_dtype == "bfloat16"
        runs = bench.all(recipe=reduced)
        yield _Changed("activations in bfloat16", benign, runs, bench.ratio)
    else:
        devices = _other_devices()
        if not devices:
            yield _LeftOut(change, "there is no other kind here")
        for device in devices:
            runs = bench.all(device=device)
            yield _Changed(f"{change} {device.device_kind}", True, runs, REDUCED_RATIO)


@dataclasses.dataclass(frozen=True)
class Reordered:
    """The cross-entropy of a batch with its augmented examples in another order.

    The value is the same, the order in which its sums are taken is not. The context of a step is
    the key of the order.

    Attributes:
      model: the network.
      recipe: see `CrossEntropy`.
    """

    model: Model
    recipe: Recipe

    def __call__(
        self,
        params: Params,
        state: State,
        batch: Dataset,
        key: Key[Array, ""],
        context: Any = None,
    ) -> tuple[Float[Array, ""], tuple[State, Metrics]]:
        """Returns the loss, and the new state with `loss` and `accuracy` of the batch."""
        augment_key, dropout_key = jax.random.split(key)
        x = augment(augment_key, batch, self.recipe)
        order = jax.random.permutation(context, x.shape[0])
        variables, labels = Variables(params, state), batch.y[order]
        logits, new_state = forward_train(self.model, self.recipe, variables, x[order], dropout_key)
        loss = cross_entropy(logits, labels, self.recipe.label_smoothing)
        accuracy = jnp.mean(jnp.argmax(logits, -1) == labels)
        return loss, (new_state, {"loss": loss, "accuracy": accuracy})


def _draws_by_position(bench: _Bench) -> bool:
    variables = jax.tree.map(jnp.asarray, bench.log.read(0, bench.model).state.variables)
    x = bench.dataset.x[: bench.recipe.batch_size]
    keys = (jax.random.key(seed) for seed in range(2))
    one, other = (forward_train(bench.model, bench.recipe, variables, x, k)[0] for k in keys)
    return not np.array_equal(one, other)


def _with_implementation(model: Model, implementation: str) -> Model | None:
    if model.origin is None:
        return None
    name, options = model.origin
    changed = {**dict(options), "implementation": implementation}
    shape, n_classes = model.input_shape, model.n_classes
    try:
        return models.create(name, input_shape=shape, n_classes=n_classes, **changed)
    except ValueError:
        return None


def _other_devices() -> list[jax.Device]:
    others = []
    for platform in ("cpu", "gpu", "tpu"):
        try:
            found = jax.devices(platform)
        except RuntimeError:
            continue
        if found[0].platform != jax.default_backend():
            others.append(found[0])
    return others
