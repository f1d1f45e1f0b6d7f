"""What every source of data gives: a description, a fingerprint of its files, decoded pixels."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import warnings
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol, TypeAlias, runtime_checkable

import numpy as np

from unlearnkit.reading import Reading
from unlearnkit.validation import InputWarning

Progress: TypeAlias = Callable[[int, int], None]
"""Called with (examples decoded, examples in all) while a source is read."""

SPLITS = ("train", "test")
HELD_OUT = ("test", "validation", "valid", "val", "dev")
"""Names of held-out parts, those first that are a test set before others."""
_CHUNK = 1000


@dataclasses.dataclass(frozen=True)
class Description:
    """What is known of a dataset without decoding it.

    Attributes:
      name: as given to `load`.
      input_shape: the shape of one example; images are (height, width, channels).
      n_classes: labels are 0, ..., n_classes - 1.
      class_names: one per class, in the order of the labels.
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
      x: [n, ...] uint8, or float32 in [0, 1] where the source holds floats; [n, length] integers
        where it may hold tokens.
      y: [n] int32.
      white: the value in `x` of a pixel that is 1.
      mean: of x / white, one value per channel; none of tokens.
      std: likewise.
      features: whether `x` is [n, d] numbers of any range that are no pixels.
    """

    x: np.ndarray
    y: np.ndarray
    white: float
    mean: tuple[float, ...]
    std: tuple[float, ...]
    features: bool = False


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


def report(progress: Progress | None, done: int, total: int, *, every: int = 500) -> None:
    """Tells how many examples are decoded: after each `every` of them, and at the end.

    Args:
      progress: is told; None for nobody.
      done: examples.
      total: likewise.
      every: examples.
    """
    if progress is not None and (done % every == 0 or done == total):
        progress(done, total)


def measure(x: np.ndarray, y: np.ndarray, *, white: float) -> Pixels:
    """Returns the split with the mean and standard deviation of each channel.

    Args:
      x: [n, ..., c] uint8 or float32.
      y: [n] integers.
      white: the value in `x` of a pixel that is 1.
    """
    mean, std = _byte_moments(x) if x.dtype == np.uint8 else _float_moments(x)
    return Pixels(
        x,
        y.astype(np.int32),
        white,
        tuple(float(m) for m in mean / white),
        tuple(float(s) for s in std / white),
    )


def _byte_moments(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns mean and standard deviation by channel from exact histograms, a sixth of the time."""
    channels = x.shape[-1]
    counts = np.zeros((channels, 256), np.int64)
    # In chunks, because counting makes 8 bytes of every byte.
    for start in range(0, len(x), _CHUNK):
        rows = x[start : start + _CHUNK].reshape(-1, channels)
        for channel in range(channels):
            counts[channel] += np.bincount(rows[:, channel], minlength=256)
    values = np.arange(256)
    n = x.size // channels
    mean = counts @ values / n
    return mean, np.sqrt(np.maximum(counts @ values**2 / n - mean**2, 0))


def _float_moments(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns mean and standard deviation by channel, in float64."""
    axes = tuple(range(x.ndim - 1))
    mean = x.mean(axes, dtype=np.float64)
    squares = np.zeros_like(mean)
    for start in range(0, len(x), _CHUNK):
        squares += ((x[start : start + _CHUNK] - mean) ** 2).sum(axes)
    std = np.sqrt(squares / (x.size // x.shape[-1]))
    # A rounded mean leaves a constant channel a deviation that one could divide by.
    return mean, np.where(x.min(axes) == x.max(axes), 0, std)


def choose_splits(
    found: Collection[str], reading: Reading, *, where: str, holds: Sequence[str]
) -> dict[str, str]:
    """Returns which of the parts that a source has is `train`, and which is `test`.

    A validation set stands for a test set that is missing, which is told. Both are the same part
    where a share of it is held out.

    Args:
      found: the parts: `train`, or "" for one without a name, and those of `HELD_OUT`.
      reading: its `test_fraction` says whether a share is held out.
      where: what messages call the source.
      holds: what it holds, for messages.

    Raises:
      ValueError: no training set; no test set and no share to hold out, or both.

    Warns:
      InputWarning: a validation set stands for the test set.
    """
    train = next((name for name in ("train", "") if name in found), None)
    test = next((name for name in HELD_OUT if name in found), None)
    if train is None:
        raise ValueError(
            f"{where} must hold a training set; it lacks train and holds "
            f"{', '.join(holds) or 'nothing'}"
        )
    if reading.test_fraction is not None:
        if test is not None:
            raise ValueError(
                f"{where} has a test set ({test}): test_fraction={reading.test_fraction} would "
                "hold out another one; leave it out"
            )
        return {"train": train, "test": train}
    if test is None:
        raise ValueError(
            f"{where} lacks a test set and holds {', '.join(holds)}; add one, or say how much of "
            "each class to hold out, as test_fraction=0.2"
        )
    if test != "test":
        warnings.warn(
            f"{where} has no test set: its validation set ({test}) stands for it",
            InputWarning,
            stacklevel=2,
        )
    return {"train": train, "test": test}


def cache_of(path: Path) -> Path:
    """Returns where what is read of a path is kept: a hidden folder beside a file, or inside one.

    Inside a folder of data no class or split is looked for there.
    """
    folder = path if path.is_dir() else path.parent
    return folder / ".unlearnkit" / path.resolve().name


def fingerprint_files(paths: Iterable[Path], *, root: Path, told: str = "") -> str:
    """Returns a digest of the names, sizes and modification times of files.

    Args:
      paths: the files.
      root: names count from here, so that a path may be written in any way and the data may move.
      told: how they are read, where that is not the usual way.
    """
    stats = ((path.relative_to(root).as_posix(), path.stat()) for path in sorted(paths))
    rows = [(name, stat.st_size, stat.st_mtime_ns) for name, stat in stats]
    return hashlib.sha256((json.dumps(rows) + told).encode()).hexdigest()
