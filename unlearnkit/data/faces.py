"""The Olivetti faces as scikit-learn keeps them, read without unpickling anything."""

from __future__ import annotations

import dataclasses
import zlib
from pathlib import Path

import numpy as np

from unlearnkit.data.labels import hold_out
from unlearnkit.data.source import (
    Description,
    Pixels,
    Progress,
    cache_of,
    fingerprint_files,
    measure,
)
from unlearnkit.reading import AS_FOUND, Reading

_FILES = ("olivetti_py3.pkz", "olivettifaces.mat")
_PERSONS, _EACH, _SIDE = 40, 10, 64
_TEST_FRACTION = 0.5
_LONGEST_HEAD = 1024


@dataclasses.dataclass(frozen=True)
class Olivetti:
    """Ten pictures of each of 40 persons, 64x64 and grey; half of each person's is held out.

    The file is `olivetti_py3.pkz`, which `sklearn.datasets.fetch_olivetti_faces` leaves in its
    `data_home`, or the `olivettifaces.mat` that it is made of. The first is a pickle of joblib's,
    whose last bytes are the pixels: they are taken as they are, and no code of it runs.

    Attributes:
      path: of the file.
      reading: its `test_fraction` alone can be said.
    """

    path: Path
    reading: Reading = AS_FOUND

    def __post_init__(self) -> None:
        if self.reading not in (AS_FOUND, Reading(test_fraction=self.reading.test_fraction)):
            raise ValueError(
                f"{self.path} is read as it is, but for test_fraction, got {self.reading.told}"
            )

    @property
    def cache(self) -> Path:
        """A hidden folder beside the file."""
        return cache_of(self.path)

    def describe(self) -> Description:
        """Returns shape, classes and sizes."""
        sizes = {split: int(mask.sum()) for split, mask in self._held().items()}
        names = tuple(str(person) for person in range(_PERSONS))
        return Description(str(self.path), (_SIDE, _SIDE, 1), _PERSONS, names, sizes)

    def fingerprint(self) -> str:
        """Returns a digest of the file's name, size and time, and of how it is read."""
        return fingerprint_files([self.path], root=self.path.parent, told=self.reading.told)

    def read(self, split: str, progress: Progress | None) -> Pixels:
        """Returns one split, ordered by person."""
        rows = self._held()[split]
        # Each face is stored by columns.
        x = _load(self.path).reshape(-1, _SIDE, _SIDE, 1).swapaxes(1, 2)
        return measure(x[rows], _labels()[rows].astype(np.int32), white=255)

    def _held(self) -> dict[str, np.ndarray]:
        return hold_out(_labels(), self.reading.test_fraction or _TEST_FRACTION)


def find_olivetti(path: Path) -> Path | None:
    """Returns the file of the Olivetti faces: `path`, or one within it; None where it is none."""
    here = [path] if path.name in _FILES else [path / name for name in _FILES]
    return next((file for file in here if file.is_file()), None)


def _labels() -> np.ndarray:
    return np.repeat(np.arange(_PERSONS), _EACH)


def _load(path: Path) -> np.ndarray:
    """Returns the faces [400, 4096], uint8."""
    wanted = (_PERSONS * _EACH, _SIDE**2)
    try:
        if path.suffix == ".mat":
            from scipy.io import loadmat

            return np.asarray(loadmat(path)["faces"], np.uint8).T.reshape(wanted)
        raw = path.read_bytes()
        content = zlib.decompress(raw) if raw[:1] == b"\x78" else raw
        size = wanted[0] * wanted[1]
        head, pixels, end = content[: -1 - size], content[-1 - size : -1], content[-1:]
        if b"NumpyArrayWrapper" not in head or len(head) > _LONGEST_HEAD or end != b".":
            raise ValueError("it is no array of bytes of joblib's")
        return np.frombuffer(pixels, np.uint8).reshape(wanted)
    except (OSError, KeyError, TypeError, ValueError, zlib.error) as error:
        raise ValueError(
            f"cannot read {path} as {wanted[0]} faces of {_SIDE}x{_SIDE} ({error}); it is damaged, "
            "or not as scikit-learn leaves it"
        ) from error
