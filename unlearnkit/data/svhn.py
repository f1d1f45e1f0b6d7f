"""SVHN as its authors give it out: `train_32x32.mat` and `test_32x32.mat`."""

from __future__ import annotations

import dataclasses
from pathlib import Path

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

_CLASSES = tuple("0123456789")
_DAMAGED = (OSError, ValueError, TypeError, KeyError, IndexError, NotImplementedError, MemoryError)


@dataclasses.dataclass(frozen=True)
class Svhn:
    """The cropped digits of SVHN in MATLAB's files: X [32, 32, 3, n], y [n, 1], 10 for the zero."""

    folder: Path
    reading: Reading = AS_FOUND

    @property
    def cache(self) -> Path:
        """A hidden folder inside the folder."""
        return cache_of(self.folder)

    def describe(self) -> Description:
        """Returns shape, classes and sizes; reads the files."""
        found = {split: self._load(split)[0] for split in SPLITS}
        x = found["train"]
        shape = input_shape(x.shape, x.dtype, self.reading, name=str(self.folder))
        sizes = {split: len(of) for split, of in found.items()}
        return Description(str(self.folder), shape, len(_CLASSES), _CLASSES, sizes)

    def fingerprint(self) -> str:
        """Returns a digest of the files' names, sizes and times, and of how they are read."""
        files = [_file(self.folder, split) for split in SPLITS]
        return fingerprint_files(files, root=self.folder, told=self.reading.told)

    def read(self, split: str, progress: Progress | None) -> Pixels:
        """Returns one split."""
        name, (x, y) = f"{split} in {self.folder}", self._load(split)
        return as_pixels(x, to_classes(y, _CLASSES, name=name), self.reading, name=name)

    def _load(self, split: str) -> tuple[np.ndarray, np.ndarray]:
        from scipy.io import loadmat

        path = _file(self.folder, split)
        try:
            found = loadmat(path, variable_names=("X", "y"))
            x, y = np.moveaxis(found["X"], -1, 0), np.asarray(found["y"], np.int64).reshape(-1)
        except _DAMAGED as error:
            raise ValueError(
                f"cannot read {path} ({error!r}); it is damaged, or no file of SVHN's"
            ) from error
        if len(x) != len(y):
            raise ValueError(f"{path} must hold one label per image, got {len(x)} and {len(y)}")
        return x, np.where(y == len(_CLASSES), 0, y)


def is_svhn(folder: Path) -> bool:
    """Returns whether a folder holds SVHN's files of cropped digits."""
    return all(_file(folder, split).is_file() for split in SPLITS)


def _file(folder: Path, split: str) -> Path:
    return folder / f"{split}_32x32.mat"
