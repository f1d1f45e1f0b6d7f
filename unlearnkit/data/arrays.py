"""A user's arrays in one `.npz`: Keras's names, MedMNIST's, and others of the kind."""

from __future__ import annotations

import dataclasses
import zipfile
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple, TypeAlias

import numpy as np

from unlearnkit.data.labels import as_labels, hold_out, name_classes, to_classes
from unlearnkit.data.pixels import as_pixels, check_stored, input_shape
from unlearnkit.data.source import (
    HELD_OUT,
    SPLITS,
    Description,
    Pixels,
    Progress,
    choose_splits,
    fingerprint_files,
)
from unlearnkit.reading import AS_FOUND, Reading

# What numpy and zipfile raise for damaged, encrypted or foreign files.
_UNREADABLE = (OSError, EOFError, ValueError, RuntimeError, zipfile.BadZipFile, zlib.error)
_INPUTS = ("x", "image", "images", "data", "feature", "features", "input", "inputs")
_LABELS = ("y", "label", "labels", "target", "targets")
_Headers: TypeAlias = Mapping[str, tuple[tuple[int, ...], np.dtype]]


class _Place(NamedTuple):
    """Where a split is: the names of its arrays, and its rows of them, None for all."""

    x: str
    y: str
    rows: np.ndarray | None = None


@dataclasses.dataclass(frozen=True)
class Arrays:
    """The arrays of one `.npz` file.

    Their names are `x_train, y_train, x_test, y_test`, or `train_images, train_labels, …`, or other
    such words. A file without a test set is tested on its validation set, or on the share of the
    training set that `reading.test_fraction` says. Inputs are what `as_pixels` takes, labels what
    `as_labels` does. The classes are 0 to the largest training label, or the texts.
    """

    path: Path
    reading: Reading = AS_FOUND

    @property
    def cache(self) -> Path:
        """The folder beside the file."""
        return self.path.parent / ".unlearnkit" / self.path.name

    def describe(self) -> Description:
        """Returns shape, classes and sizes; reads the labels and the headers of the images."""
        headers = self._headers()
        places = self._places(headers)
        classes = self._classes(places)
        key = places["train"].x
        shape = input_shape(*headers[key], self.reading, name=f"{key} in {self.path}")
        sizes = {
            split: headers[place.y][0][0] if place.rows is None else int(place.rows.sum())
            for split, place in places.items()
        }
        return Description(str(self.path), shape, len(classes), classes, sizes)

    def fingerprint(self) -> str:
        """Returns a digest of the file's name, size and time, and of how it is read."""
        return fingerprint_files([self.path], root=self.path.parent, told=self.reading.told)

    def read(self, split: str, progress: Progress | None) -> Pixels:
        """Returns one split after checking it."""
        places = self._places(self._headers())
        place, name = places[split], f"{split} in {self.path}"
        x, y = self._array(place.x), as_labels(self._array(place.y), name=name)
        if place.rows is not None:
            x, y = x[place.rows], y[place.rows]
        return as_pixels(
            x, to_classes(y, self._classes(places), name=name), self.reading, name=name
        )

    def _classes(self, places: Mapping[str, _Place]) -> tuple[str, ...]:
        """Returns the names of the classes of the training labels."""
        name = f"train in {self.path}"
        return name_classes(as_labels(self._array(places["train"].y), name=name), name=name)

    def _places(self, headers: _Headers) -> dict[str, _Place]:
        """Returns where the splits are; all that can be seen in headers is right."""
        pairs = _pairs(headers)
        names = choose_splits(pairs, self.reading, where=str(self.path), holds=list(headers))
        found = {split: pairs[name] for split, name in names.items()}
        for place in found.values():
            n_x, n_y = (headers[key][0][0] for key in place[:2])
            if n_x != n_y:
                raise ValueError(
                    f"{self.path} must hold one label per example, "
                    f"got {n_x} in {place.x} and {n_y} in {place.y}"
                )
        train, test = (headers[found[split].x][0][1:] for split in SPLITS)
        if train != test:
            raise ValueError(
                f"examples in {self.path} must have one shape, "
                f"got {train} in {found['train'].x} and {test} in {found['test'].x}"
            )
        if found["train"] == found["test"]:
            assert self.reading.test_fraction is not None
            y = as_labels(self._array(found["train"].y), name=str(self.path))
            rows = hold_out(y, self.reading.test_fraction)
            return {split: found[split]._replace(rows=rows[split]) for split in SPLITS}
        return found

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

    def _headers(self) -> _Headers:
        """Returns shape and type by key, without reading the arrays; a split's are checked."""
        try:
            with zipfile.ZipFile(self.path) as archive:
                names = [name.removesuffix(".npy") for name in archive.namelist()]
                headers = {name: _header(archive, name) for name in names}
        except _UNREADABLE as error:
            raise self._unreadable(error) from error
        for place in _pairs(headers).values():
            input_shape(*headers[place.x], self.reading, name=f"{place.x} in {self.path}")
            check_stored(*headers[place.y], name=f"{place.y} in {self.path}")
        return headers


def _pairs(names: Iterable[str]) -> dict[str, _Place]:
    """Returns where inputs and labels are, by the split in their names, "" where there is none."""
    keys: dict[tuple[str, str], str] = {}
    for name in names:
        words = name.lower().split("_")
        split = next((word for word in words if word in ("train", *HELD_OUT)), "")
        role = "_".join(word for word in words if word != split)
        for kind, known in (("x", _INPUTS), ("y", _LABELS)):
            if role in known:
                keys.setdefault((split, kind), name)
    splits = dict.fromkeys(split for split, _ in keys)
    return {
        split: _Place(keys[split, "x"], keys[split, "y"])
        for split in splits
        if (split, "x") in keys and (split, "y") in keys
    }


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
