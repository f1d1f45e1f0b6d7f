"""IDX files, as MNIST and Fashion-MNIST are given out: `train-images-idx3-ubyte`, maybe `.gz`."""

from __future__ import annotations

import dataclasses
import gzip
import struct
from pathlib import Path

import numpy as np

from unlearnkit.data.labels import name_classes, to_classes
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

_TYPES = {8: ">u1", 9: ">i1", 11: ">i2", 12: ">i4", 13: ">f4", 14: ">f8"}
_STARTS = {"train": "train", "test": "t10k"}
_PARTS = {"x": "images", "y": "labels"}


@dataclasses.dataclass(frozen=True)
class Idx:
    """The four IDX files of a folder: images and labels of `train` and of `t10k` (or `test`)."""

    folder: Path
    reading: Reading = AS_FOUND

    @property
    def cache(self) -> Path:
        """A hidden folder inside the folder."""
        return cache_of(self.folder)

    def describe(self) -> Description:
        """Returns shape, classes and sizes; reads the labels."""
        y = {split: read_idx(self._file(split, "y")) for split in SPLITS}
        x = read_idx(self._file("train", "x"))
        shape = input_shape(x.shape, x.dtype, self.reading, name=str(self.folder))
        classes = name_classes(y["train"], name=str(self.folder))
        sizes = {split: len(labels) for split, labels in y.items()}
        return Description(str(self.folder), shape, len(classes), classes, sizes)

    def fingerprint(self) -> str:
        """Returns a digest of the files' names, sizes and times, and of how they are read."""
        paths = [self._file(split, part) for split in SPLITS for part in _PARTS]
        return fingerprint_files(paths, root=self.folder, told=self.reading.told)

    def read(self, split: str, progress: Progress | None) -> Pixels:
        """Returns one split."""
        x, y = (read_idx(self._file(split, part)) for part in _PARTS)
        name = f"{split} in {self.folder}"
        if len(x) != len(y):
            raise ValueError(f"{name} must hold one label per image, got {len(x)} and {len(y)}")
        classes = name_classes(read_idx(self._file("train", "y")), name=name)
        return as_pixels(x, to_classes(y, classes, name=name), self.reading, name=name)

    def _file(self, split: str, part: str) -> Path:
        found = find_idx(self.folder, split, part)
        if found is None:
            raise FileNotFoundError(
                f"{self.folder} lacks the {_PARTS[part]} of {split}, a file as "
                f"{_STARTS[split]}-{_PARTS[part]}-idx{3 if part == 'x' else 1}-ubyte.gz"
            )
        return found


def find_idx(folder: Path, split: str, part: str) -> Path | None:
    """Returns the IDX file of a split's inputs or labels, None where there is none.

    Args:
      folder: where it is looked for.
      split: `train` or `test`.
      part: `x` or `y`.
    """
    starts = {_STARTS[split], split}
    found = (
        path
        for start in sorted(starts, reverse=True)
        for path in sorted(folder.glob(f"{start}-{_PARTS[part]}*idx*"))
    )
    return next(found, None)


def read_idx(path: Path) -> np.ndarray:
    """Returns the array of an IDX file.

    Raises:
      ValueError: another format, or a truncated file.
    """
    try:
        raw = path.read_bytes()
        content = gzip.decompress(raw) if raw.startswith(b"\x1f\x8b") else raw
        zeros, kind, n_axes = struct.unpack(">HBB", content[:4])
        shape = struct.unpack(f">{n_axes}I", content[4 : 4 + 4 * n_axes])
        if zeros != 0 or kind not in _TYPES:
            raise ValueError("it does not begin as such a file does")
        found = np.frombuffer(content, _TYPES[kind], offset=4 + 4 * n_axes).reshape(shape)
    except (OSError, EOFError, ValueError, struct.error) as error:
        raise ValueError(f"cannot read {path} as an IDX file ({error}); it is damaged") from error
    return found.astype(found.dtype.newbyteorder("="))
