"""A user's arrays in one `.npz` of `x_train`, `y_train`, `x_test`, `y_test`: Keras's layout."""

from __future__ import annotations

import dataclasses
import zipfile
import zlib
from pathlib import Path

import numpy as np

from unlearnkit.data.source import (
    SPLITS,
    Description,
    Pixels,
    Progress,
    fingerprint_files,
    measure,
)
from unlearnkit.validation import check_finite, check_labels

_KEYS = ("x_train", "y_train", "x_test", "y_test")
# What numpy and zipfile raise for damaged, encrypted or foreign files.
_UNREADABLE = (OSError, EOFError, ValueError, RuntimeError, zipfile.BadZipFile, zlib.error)


@dataclasses.dataclass(frozen=True)
class Arrays:
    """The arrays of one `.npz` file.

    `x_*` is uint8 or floating point in [0, 1], [n, h, w, c], [n, h, w] (one channel) or [n, d]; or
    integer token ids [n, length].
    `y_*` is [n] integers from 0. The number of classes is the largest training label plus one.
    """

    path: Path

    @property
    def cache(self) -> Path:
        """The folder beside the file."""
        return self.path.parent / ".unlearnkit" / self.path.name

    def describe(self) -> Description:
        """Returns shape, classes and sizes; reads the labels and the headers of the images."""
        headers = self._headers()
        n_classes = self._n_classes()
        return Description(
            str(self.path),
            _with_channel(headers["x_train"][0])[1:],
            n_classes,
            tuple(str(i) for i in range(n_classes)),
            {split: headers[f"y_{split}"][0][0] for split in SPLITS},
        )

    def fingerprint(self) -> str:
        """Returns a digest of the file's name, size and time."""
        return fingerprint_files([self.path], root=self.path.parent)

    def read(self, split: str, progress: Progress | None) -> Pixels:
        """Returns one split after checking it."""
        self._headers()
        x, y = self._array(f"x_{split}"), self._array(f"y_{split}")
        check_labels(y, name=f"{split} in {self.path}", n_classes=self._n_classes())
        x = x.reshape(_with_channel(x.shape))
        if x.dtype == np.uint8:
            return measure(x, y, white=255)
        if np.issubdtype(x.dtype, np.integer):
            return Pixels(x, y.astype(np.int32), 1, (), ())
        name = f"{split} in {self.path}"
        check_finite(x, name=name)
        outside = (x < 0) | (x > 1)
        if outside.any():
            first = tuple(int(i) for i in np.argwhere(outside)[0])
            raise ValueError(
                f"x of {name} must be uint8 or lie in [0, 1], got {float(x[first])} at index "
                f"{first}; store pixels as uint8, or divide them by their white value"
            )
        return measure(x.astype(np.float32), y, white=1)

    def _n_classes(self) -> int:
        """Returns the number of classes in the training labels."""
        y = self._array("y_train")
        check_labels(y, name=f"train in {self.path}")
        return int(y.max()) + 1

    def _array(self, key: str) -> np.ndarray:
        try:
            with np.load(self.path, allow_pickle=False) as file:
                found: np.ndarray = file[key]
                return found
        except _UNREADABLE as error:
            raise self._unreadable(error) from error

    def _unreadable(self, error: Exception) -> ValueError:
        return ValueError(
            f"cannot read {self.path} as a .npz file ({error}); it is damaged, truncated or of "
            "another format, save it again with numpy.savez"
        )

    def _headers(self) -> dict[str, tuple[tuple[int, ...], np.dtype]]:
        """Returns shape and type by key, checked, without reading the arrays."""
        try:
            with zipfile.ZipFile(self.path) as archive:
                there = [name.removesuffix(".npy") for name in archive.namelist()]
                missing = [key for key in _KEYS if key not in there]
                headers = {key: _header(archive, key) for key in _KEYS if key in there}
        except _UNREADABLE as error:
            raise self._unreadable(error) from error
        if missing:
            raise ValueError(
                f"{self.path} must hold {', '.join(_KEYS)}; it lacks {', '.join(missing)} "
                f"and holds {', '.join(there) or 'nothing'}"
            )
        for key, (shape, dtype) in headers.items():
            _check_header(f"{key} in {self.path}", shape, dtype, pixels=key.startswith("x"))
        for split in SPLITS:
            n_x, n_y = headers[f"x_{split}"][0][0], headers[f"y_{split}"][0][0]
            if n_x != n_y:
                raise ValueError(
                    f"{self.path} must hold one label per example, "
                    f"got {n_x} in x_{split} and {n_y} in y_{split}"
                )
        train, test = (headers[f"x_{split}"][0][1:] for split in SPLITS)
        if train != test:
            raise ValueError(
                f"examples in {self.path} must have one shape, "
                f"got {train} in x_train and {test} in x_test"
            )
        return headers


def _header(archive: zipfile.ZipFile, key: str) -> tuple[tuple[int, ...], np.dtype]:
    with archive.open(f"{key}.npy") as file:
        version = np.lib.format.read_magic(file)
        if version == (1, 0):
            shape, _, dtype = np.lib.format.read_array_header_1_0(file)
        elif version == (2, 0):
            shape, _, dtype = np.lib.format.read_array_header_2_0(file)
        else:
            raise ValueError(f"{key} has the .npy format version {version}")
    return shape, dtype


def _check_header(name: str, shape: tuple[int, ...], dtype: np.dtype, *, pixels: bool) -> None:
    if dtype.hasobject:
        raise TypeError(
            f"{name} holds Python objects, which are never unpickled; "
            "save it as an array of numbers, all examples of one shape"
        )
    if not shape or 0 in shape:
        raise ValueError(f"{name} must hold at least one example, got the shape {shape}")
    if not pixels:
        return
    if len(shape) not in (2, 3, 4):
        raise ValueError(f"{name} must be [n, h, w, c], [n, h, w] or [n, d], got the shape {shape}")
    tokens = len(shape) == 2 and np.issubdtype(dtype, np.integer)
    if not tokens and dtype != np.uint8 and not np.issubdtype(dtype, np.floating):
        raise TypeError(
            f"{name} must be uint8, or floating point in [0, 1], got {dtype}; "
            "convert pixels in 0..255 with x.astype(numpy.uint8)"
        )


def _with_channel(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Returns the shape [n, h, w, 1] of grey images [n, h, w]; others as they are."""
    return (*shape, 1) if len(shape) == 3 else shape
