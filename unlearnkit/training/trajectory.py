"""Training logs (proofs of learning), with every byte checked before it is used.

A log is a folder with `manifest.json` (see `unlearnkit.training.manifest`), `batches.npy` (the
indices of all steps' examples, little-endian int32 [steps, batch]), `examples.npy` (a digest of
each example, little-endian uint64 [n], to locate its rows in a larger dataset) and one safetensors
file every `every` steps: weights, statistics, optimiser memory, and the metrics of the steps before
it, for resuming. Metrics and digests of examples are not verified.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import itertools
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import safetensors

from unlearnkit.base import Model
from unlearnkit.io.files import read_regular_file
from unlearnkit.training import manifest
from unlearnkit.training.checkpoint import CheckpointError, match_arrays
from unlearnkit.training.claim import Claim, TrajectoryError
from unlearnkit.training.recipe import Recipe
from unlearnkit.training.step import TrainState, init_train_state
from unlearnkit.validation import named_leaves

METRICS = ("accuracy", "loss")
_LARGEST_ARRAY = 2**30
_ARRAYS = {"<i4": "int32 indices [steps, batch]", "<u8": "uint64 digests [n]"}
_DTYPES = {
    "F64": np.dtype("<f8"),
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": jnp.dtype(jnp.bfloat16),
    "I64": np.dtype("<i8"),
    "I32": np.dtype("<i4"),
    "I8": np.dtype("i1"),
    "U32": np.dtype("<u4"),
    "U8": np.dtype("u1"),
    "BOOL": np.dtype(bool),
}
_NPY = re.compile(
    rb"\{'descr': '(<i4|<u8)', 'fortran_order': False, "
    rb"'shape': \((\d{1,10},|\d{1,10}, \d{1,10})\), \} *\n"
)


class Logged(NamedTuple):
    """One checkpoint of a log, on the host.

    Attributes:
      state: of the run at that step.
      metrics: by name, of each step since the checkpoint before.
    """

    state: TrainState
    metrics: Mapping[str, Any]


@dataclasses.dataclass(frozen=True, eq=False)
class Trajectory:
    """A log whose manifest and batches were checked; checkpoints are read on demand.

    Attributes:
      folder: where it is.
      claim: what it says of its run.
      digests: the SHA-256 of each checkpoint's file.
      batches: [steps, batch] int32, rows of the data.
      examples: [n] uint64, `unlearnkit.training.claim.example_digests` of the data.
    """

    folder: Path
    claim: Claim
    digests: tuple[str, ...]
    batches: np.ndarray
    examples: np.ndarray

    @property
    def segments(self) -> int:
        """The number of pairs of successive checkpoints."""
        return len(self.digests) - 1

    @property
    def steps(self) -> int:
        """The number of steps logged."""
        return self.claim.checkpoint_step(self.segments)

    @property
    def complete(self) -> bool:
        """Whether the log reaches the end of its run."""
        return self.steps == self.claim.steps

    @property
    def head(self) -> str:
        """The last link of the chain: it changes with any byte of the log."""
        head: str = manifest.encode(self.claim, self.digests)["head"]
        return head

    def rows(self, segment: int) -> np.ndarray:
        """Returns the batches [steps, batch] between checkpoints `segment` and `segment + 1`."""
        step = self.claim.checkpoint_step
        return self.batches[step(segment) : step(segment + 1)]

    def read(self, index: int, model: Model) -> Logged:
        """Returns checkpoint `index`, a step of `model` under the log's recipe.

        Raises:
          TrajectoryError: the file is not what the manifest says, does not fit the model, or holds
            a value that is not finite.
        """
        step = self.claim.checkpoint_step(index)
        path = self.folder / manifest.state_file(step)
        like = _logged_shapes(
            model,
            self.claim.recipe,
            self.claim.steps_per_epoch,
            step - self.claim.checkpoint_step(max(index - 1, 0)),
        )
        shapes = named_leaves(like)
        size = sum(leaf.size * leaf.dtype.itemsize for leaf in shapes.values())
        content = _read(path, size + 1024 * (len(shapes) + 1))
        if hashlib.sha256(content).hexdigest() != self.digests[index]:
            raise TrajectoryError(f"{path} is corrupt or was exchanged: its SHA-256 differs")
        try:
            logged: Logged = match_arrays(like, _parse_safetensors(content, path), path)
        except CheckpointError as error:
            raise TrajectoryError(str(error)) from None
        if odd := first_not_finite(named_leaves(logged)):
            raise TrajectoryError(f"{path} holds a value that is not finite in {odd}")
        if int(logged.state.step) != step:
            raise TrajectoryError(f"{path} says step {int(logged.state.step)} at step {step}")
        return logged


def read_trajectory(folder: str | Path) -> Trajectory:
    """Reads and checks a log, except for its checkpoints.

    Raises:
      TrajectoryError: it is not a log, or does not match its manifest.
    """
    folder = Path(folder)
    files = itertools.islice(folder.glob("state-*.safetensors"), manifest.MOST_CHECKPOINTS)
    at_most = manifest.largest_size(sum(1 for _ in files))
    claim, digests = manifest.decode(_read(folder / manifest.MANIFEST, at_most))
    shape = (claim.steps, claim.recipe.batch_size)
    batches = _read_npy(folder / manifest.BATCHES, claim.batches_sha256, "<i4", shape)
    if batches.size and (batches.min() < 0 or batches.max() >= claim.data.examples):
        raise TrajectoryError(
            f"{folder / manifest.BATCHES} holds the indices {batches.min()} … {batches.max()}, but "
            f"the data have {claim.data.examples} examples"
        )
    n = (claim.data.examples,)
    examples = _read_npy(folder / manifest.EXAMPLES, claim.examples_sha256, "<u8", n)
    return Trajectory(folder, claim, digests, batches, examples)


@functools.lru_cache(maxsize=64)
def _logged_shapes(model: Model, recipe: Recipe, steps_per_epoch: int, steps: int) -> Logged:
    def first() -> TrainState:
        return init_train_state(recipe, steps_per_epoch, model.init(jax.random.key(0)))

    metric = jax.ShapeDtypeStruct((steps,), jnp.float32)
    return Logged(jax.eval_shape(first), dict.fromkeys(METRICS, metric))


def first_not_finite(arrays: Mapping[str, np.ndarray]) -> str | None:
    """Returns the name of an array with NaN or infinity in it, or None."""
    for name, array in arrays.items():
        if jnp.issubdtype(array.dtype, jnp.floating) and not np.all(np.isfinite(array)):
            return name
    return None


def _read(path: Path, at_most: int) -> bytes:
    try:
        return read_regular_file(path, at_most=at_most)
    except FileNotFoundError:
        raise TrajectoryError(f"the log lacks {path}") from None
    except (OSError, ValueError, MemoryError) as error:
        raise TrajectoryError(f"{path} cannot be read: {error}") from None


def _read_npy(path: Path, sha256: str, descr: str, shape: tuple[int, ...]) -> np.ndarray:
    """Parses a `.npy` file without NumPy's reader, so that nothing in it is evaluated."""
    content = _read(path, _LARGEST_ARRAY)
    if hashlib.sha256(content).hexdigest() != sha256:
        raise TrajectoryError(f"{path} is corrupt or was exchanged: its SHA-256 differs")
    length = int.from_bytes(content[8:10], "little")
    header, data = content[10 : 10 + length], content[10 + length :]
    described = _NPY.fullmatch(header)
    dtype, what = np.dtype(descr), _ARRAYS[descr]
    if content[:8] != b"\x93NUMPY\x01\x00" or described is None or described[1] != descr.encode():
        raise TrajectoryError(f"{path} is no .npy of little-endian {what}")
    found = tuple(int(side) for side in described[2].split(b",") if side)
    if found != shape or len(data) != dtype.itemsize * math.prod(shape):
        raise TrajectoryError(
            f"{path} holds {len(data)} bytes for {list(found)} {what}, the manifest says "
            f"{list(shape)}"
        )
    return np.frombuffer(data, dtype).reshape(shape)


def _parse_safetensors(content: bytes, path: Path) -> dict[str, np.ndarray]:
    try:
        return {
            name: np.frombuffer(part["data"], _DTYPES[part["dtype"]]).reshape(part["shape"])
            for name, part in safetensors.deserialize(content)
        }
    except (safetensors.SafetensorError, KeyError, ValueError) as error:
        raise TrajectoryError(f"{path} is not readable as safetensors: {error}") from None
