"""CIFAR as its authors give it out: pickles, of which nothing but arrays is read."""

from __future__ import annotations

import dataclasses
import io
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from unlearnkit.data.labels import to_classes
from unlearnkit.data.pixels import as_pixels, input_shape
from unlearnkit.data.source import (
    SPLITS,
    Description,
    Pixels,
    Progress,
    cache_of,
    fingerprint_files,
)
from unlearnkit.reading import AS_FOUND, Reading

_LAYOUTS: dict[str, tuple[dict[str, tuple[str, ...]], str, str, str]] = {
    "data_batch_1": (
        {"train": tuple(f"data_batch_{i}" for i in range(1, 6)), "test": ("test_batch",)},
        "labels",
        "batches.meta",
        "label_names",
    ),
    "train": ({"train": ("train",), "test": ("test",)}, "fine_labels", "meta", "fine_label_names"),
}
_SHAPE = (3, 32, 32)


@dataclasses.dataclass(frozen=True)
class CifarBatches:
    """The folder `cifar-10-batches-py` or `cifar-100-python`.

    Their pickles are read by an unpickler that knows NumPy's arrays and nothing else: a file that
    names any other code is refused, and none of it runs.
    """

    folder: Path
    reading: Reading = AS_FOUND

    @property
    def cache(self) -> Path:
        """A hidden folder inside the folder."""
        return cache_of(self.folder)

    def describe(self) -> Description:
        """Returns shape, classes and sizes; reads the labels."""
        classes, sizes = self._classes(), {split: len(self._load(split)[1]) for split in SPLITS}
        shape = input_shape((1, *_SHAPE), np.dtype(np.uint8), self.reading, name=str(self.folder))
        return Description(str(self.folder), shape, len(classes), classes, sizes)

    def fingerprint(self) -> str:
        """Returns a digest of the files' names, sizes and times, and of how they are read."""
        files = [self.folder / name for split in SPLITS for name in self._layout()[0][split]]
        return fingerprint_files(files, root=self.folder, told=self.reading.told)

    def read(self, split: str, progress: Progress | None) -> Pixels:
        """Returns one split, in the order of its files."""
        name, (x, y) = f"{split} in {self.folder}", self._load(split)
        return as_pixels(x, to_classes(y, self._classes(), name=name), self.reading, name=name)

    def _layout(self) -> tuple[dict[str, tuple[str, ...]], str, str, str]:
        return next(of for first, of in _LAYOUTS.items() if (self.folder / first).is_file())

    def _classes(self) -> tuple[str, ...]:
        *_, file, key = self._layout()
        names = load_arrays(self.folder / file)[key.encode()]
        return tuple(name.decode() if isinstance(name, bytes) else str(name) for name in names)

    def _load(self, split: str) -> tuple[np.ndarray, np.ndarray]:
        batches, key, *_ = self._layout()
        parts = [load_arrays(self.folder / name) for name in batches[split]]
        try:
            x = np.concatenate([np.asarray(part[b"data"]).reshape(-1, *_SHAPE) for part in parts])
            y = np.concatenate([np.asarray(part[key.encode()], np.int64) for part in parts])
        except (KeyError, ValueError, TypeError) as error:
            raise ValueError(
                f"cannot read {split} of {self.folder} ({error!r}); its files are damaged"
            ) from error
        return x.transpose(0, 2, 3, 1), y


def is_cifar(folder: Path) -> bool:
    """Returns whether a folder holds CIFAR's files."""
    cifar10 = (folder / "data_batch_1").is_file()
    return cifar10 or all((folder / name).is_file() for name in ("train", "test", "meta"))


def load_arrays(path: Path) -> Any:
    """Returns what a pickle holds if it is made of NumPy arrays and plain Python values.

    Raises:
      ValueError: no pickle, a damaged one, or one that names other code.
    """
    try:
        return _Unpickler(io.BytesIO(path.read_bytes()), encoding="bytes").load()
    except _FOREIGN as error:
        raise ValueError(f"cannot read {path} ({error!r}); it is damaged or no such file") from (
            error
        )


_FOREIGN = (
    *(OSError, EOFError, ValueError, TypeError, AttributeError, IndexError, KeyError),
    *(ImportError, MemoryError, OverflowError, pickle.UnpicklingError),
)
"""What damaged pickles raise."""


def _reconstruct(kind: type, shape: tuple[int, ...], dtype: bytes | str) -> np.ndarray:
    """Returns the empty array that a pickled one is filled into, as NumPy's own does."""
    if kind is not np.ndarray:
        raise pickle.UnpicklingError("only arrays are read")
    return np.ndarray(shape, np.dtype(dtype.decode() if isinstance(dtype, bytes) else dtype))


def _encode(text: str, encoding: str) -> bytes:
    """Returns the bytes that Python 2 kept as text."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"the encoding {encoding!r} is none of such a file's")
    return text.encode(encoding)


_ALLOWED: dict[tuple[str, str], Callable[..., object]] = {
    ("numpy", "dtype"): np.dtype,
    ("numpy", "ndarray"): np.ndarray,
    ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy._core.multiarray", "_reconstruct"): _reconstruct,
    ("_codecs", "encode"): _encode,
}
"""All that such a pickle may name; anything else is refused before it is imported."""


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        try:
            return _ALLOWED[module, name]
        except KeyError:
            raise pickle.UnpicklingError(
                f"it names {module}.{name}, which is no array, and is not read"
            ) from None
