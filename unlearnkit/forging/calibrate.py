"""How far apart two honest computations of the same steps are."""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple, TypeAlias, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from unlearnkit import models
from unlearnkit.base import Dataset, Model, Params, State, Variables
from unlearnkit.forging.norms import Norm, check_norm
from unlearnkit.forging.replay import replay, state_errors
from unlearnkit.forging.verify import open_log
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
JUMP = 100
_DIGITS = {"bfloat16": 8, "tensorfloat32": 11, "default": 11, "high": 22, "highest": 24}
"""Bits of precision that a matmul precision promises on the hardware that honours it least."""


class Band(NamedTuple):
    """The errors of one benign or deliberate change of the computation.

    Attributes:
      name: what was changed.
      errors: [m] of the weights at the end of a segment, against the unchanged replay.
      carried_errors: [m] of optimiser memory and statistics.
      benign: whether an honest owner's computation may differ so.
    """

    name: str
    errors: np.ndarray
    carried_errors: np.ndarray
    benign: bool

    @property
    def jumped(self) -> np.ndarray:
        """Which replays err by more than `JUMP` times the median replay: [m]."""
        median = np.median(self.errors)
        return (median > 0) & (self.errors > JUMP * median)

    @property
    def largest(self) -> float:
        """The largest error of those that did not jump, of weights or of what else is carried."""
        kept = ~self.jumped
        return float(np.max([self.errors[kept], self.carried_errors[kept]]))

    def summary(self) -> str:
        """Returns a line, and one more where replays jumped."""
        counted = "" if self.benign else " (not counted: another precision than the log claims)"
        line = (
            f"{self.name}: weights median {np.median(self.errors):.3g}, largest "
            f"{np.max(self.errors):.3g}; memory and statistics largest "
            f"{np.max(self.carried_errors):.3g}{counted}"
        )
        jumps = int(np.sum(self.jumped))
        if not self.benign or jumps == 0:
            return line
        return (
            f"{line}\n  {jumps} of {len(self.errors)} replays jumped to over {JUMP} times the "
            "median, where a ReLU or a maximum fell otherwise and the difference grew with each "
            "step: not counted, an honest segment may be rejected so; fewer steps between "
            "checkpoints make it rare"
        )


class Calibration(NamedTuple):
    """What the reproduction of a log's steps varies by.

    Attributes:
      bands: one a change that could be made here.
      left_out: why others could not, by name.
      norm: the measure of all errors.
      margin: what the largest benign error, jumps apart, is multiplied by.
      tolerance: the product, proposed for `verify`.
    """

    bands: tuple[Band, ...]
    left_out: Mapping[str, str]
    norm: Norm
    margin: float
    tolerance: float

    @property
    def band(self) -> tuple[float, float]:
        """The least and the largest error of the weights in benign replays that err at all."""
        benign = np.concatenate([band.errors[~band.jumped] for band in self.bands if band.benign])
        return float(np.min(benign[benign > 0], initial=np.max(benign))), float(np.max(benign))

    def as_json(self) -> dict[str, Any]:
        """Returns the calibration as JSON values."""
        return {
            "norm": self.norm,
            "margin": self.margin,
            "tolerance": self.tolerance,
            "band": list(self.band),
            "bands": [
                {
                    "name": band.name,
                    "benign": band.benign,
                    "errors": band.errors.tolist(),
                    "carried_errors": band.carried_errors.tolist(),
                }
                for band in self.bands
            ],
            "left_out": dict(self.left_out),
        }

    def summary(self) -> str:
        """Returns a line a band, and the proposal."""
        lines = [band.summary() for band in self.bands]
        lines += [f"{name}: left out, {reason}" for name, reason in self.left_out.items()]
        return "\n".join(
            [
                *lines,
                f"tolerance ({self.norm}): {self.tolerance:.3g}, {self.margin:g} x the largest",
            ]
        )


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
    forged log cannot widen its own tolerance.

    Nor may chaos widen it: where rounding makes a ReLU or a maximum fall otherwise the difference
    can grow ten-thousandfold before the segment ends, to the size of a forgery. Replays that err by
    more than 100 times the median are told of, but do not count. A verifier that rejects such a
    segment of an honest log needs checkpoints at shorter intervals.

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
      TrajectoryError: see `verify`; or a replay that is not finite.
      ValueError: an argument out of its range.

    Source: 000, section 3 (hardware), A.3.2 and Fig. 4 (100 shuffles of a batch).
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
    order = np.asarray(jax.random.permutation(choice_key, log.segments))
    bench = _Bench(log, network, dataset, norm, sorted(order[:segments].tolist()))
    bands = [bench.measure(_Changed("the same again", True, bench.all()))]
    left_out: dict[str, str] = {}
    for kind in changes:
        for change in _changed_runs(bench, shuffle_key, shuffles, kind):
            if isinstance(change, _LeftOut):
                left_out[change.name] = change.reason
            else:
                bands.append(bench.measure(change))
    largest = float(np.max([band.largest for band in bands if band.benign]))
    if not math.isfinite(largest):
        raise TrajectoryError("a replay of the log is not finite; there is nothing to calibrate")
    return Calibration(tuple(bands), left_out, norm, margin, margin * largest)


class _Changed(NamedTuple):
    """One change, and lazily the segments' ends under it."""

    name: str
    benign: bool
    runs: Iterator[tuple[int, TrainState]]


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
        self._starts = [log.read(segment, model).state for segment in segments]
        self._ends = [self.run(index) for index in range(len(segments))]

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
        errors = [state_errors(end, self._ends[index], self.norm) for index, end in change.runs]
        weights, carried = np.array(errors).T
        return Band(change.name, weights, carried, change.benign)

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
        yield _Changed(change, True, shuffled)
    elif change == "matmul precision":
        claimed = bench.log.claim.matmul_precision or "default"
        promised = _DIGITS.get(claimed, _DIGITS["highest"])
        for precision, digits in _DIGITS.items():
            runs = bench.all(precision=precision)
            yield _Changed(f"{change} {precision}", digits >= promised, runs)
    elif change == "convolution":
        for implementation in ("xla", "patches"):
            other = _with_implementation(bench.model, implementation)
            if other is None:
                yield _LeftOut(change, "the network has no such option")
                return
            yield _Changed(f"{change} {implementation}", True, bench.all(model=other))
    elif change == "activations":
        reduced = dataclasses.replace(bench.recipe, compute_dtype="bfloat16")
        benign = bench.recipe.compute_dtype == "bfloat16"
        yield _Changed("activations in bfloat16", benign, bench.all(recipe=reduced))
    else:
        devices = _other_devices()
        if not devices:
            yield _LeftOut(change, "there is no other kind here")
        for device in devices:
            yield _Changed(f"{change} {device.device_kind}", True, bench.all(device=device))


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
