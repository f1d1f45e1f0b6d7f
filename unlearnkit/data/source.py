"""What every source of data gives: a description, a fingerprint of its files, decoded pixels."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import NamedTuple, Protocol, TypeAlias, runtime_checkable

import numpy as np

Progress: TypeAlias = Callable[[int, int], None]
"""Called with (examples decoded, examples in all) while a source is read."""

SPLITS = ("train", "test")
_CHUNK = 1000


@dataclasses.dataclass(frozen=True)
class Description:
    """What is known of a dataset without decoding it.

    Attributes:
      name: as given to `load`.
      input_shape: the shape of one example; images are (height, width, channels).
      n_classes: labels are 0, ..., n_classes - 1.
      class_names: one a class, in the order of the labels.
      sizes: examples by split.
    """

    name: str
    input_shape: tuple[int, ...]
    n_classes: int
    class_names: tuple[str, ...]
    sizes: Mapping[str, int]


class Pixels(NamedTuple):
    """One split on the host, decoded and not yet normalised.

    Attributes:
      x: [n, ...] uint8, or float32 in [0, 1] where the source holds floats.
      y: [n] int32.
      white: the value in `x` of a pixel that is 1.
      mean: of x / white, one value a channel.
      std: likewise.
    """

    x: np.ndarray
    y: np.ndarray
    white: int
    mean: tuple[float, ...]
    std: tuple[float, ...]


@runtime_checkable
class Source(Protocol):
    """Where a dataset comes from.

    Attributes:
      cache: the folder beside the source where decoded data may be kept; None where decoding costs
        nothing.
    """

    @property
    def cache(self) -> Path | None: ...

    def describe(self) -> Description: ...

    def fingerprint(self) -> str: ...

    def read(self, split: str, progress: Progress | None) -> Pixels: ...


def measure(x: np.ndarray, y: np.ndarray, *, white: int) -> Pixels:
    """Returns the split with the mean and standard deviation of each channel.

    Args:
      x: [n, ..., c] uint8 or float32.
      y: [n] integers.
      white: the value in `x` of a pixel that is 1.
    """
    # Integers are summed exactly, in chunks: a float64 copy of CIFAR-10 would take 1.2 GB.
    total_type = np.int64 if x.dtype == np.uint8 else np.float64
    total = np.zeros(x.shape[-1], total_type)
    squares = np.zeros(x.shape[-1], total_type)
    for start in range(0, len(x), _CHUNK):
        rows = x[start : start + _CHUNK].reshape(-1, x.shape[-1]).astype(total_type)
        total += rows.sum(0)
        squares += (rows * rows).sum(0)
    n = x.size // x.shape[-1]
    mean = total / n
    variance = np.maximum(squares / n - mean**2, 0)
    std = np.sqrt(variance)
    return Pixels(
        x,
        y.astype(np.int32),
        white,
        tuple(float(m) for m in mean / white),
        tuple(float(s) for s in std / white),
    )


def fingerprint_files(paths: Iterable[Path], *, root: Path) -> str:
    """Returns a digest of the names, sizes and modification times of files.

    Args:
      paths: the files.
      root: names count from here, so that a path may be written in any way and the data may move.
    """
    stats = ((path.relative_to(root).as_posix(), path.stat()) for path in sorted(paths))
    rows = [(name, stat.st_size, stat.st_mtime_ns) for name, stat in stats]
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()
