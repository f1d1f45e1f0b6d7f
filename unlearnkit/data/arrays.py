"""A user's arrays in one `.npz`, or in `.npy` files: Keras's names, MedMNIST's, and others."""

from __future__ import annotations

import dataclasses
import io
import zipfile
import zlib
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import IO, NamedTuple, TypeAlias

import numpy as np

from unlearnkit.data.labels import as_labels, hold_out, name_classes, to_classes
from unlearnkit.data.pixels import as_pixels, check_stored, input_shape
from unlearnkit.data.source import (
    HELD_OUT,
    SPLITS,
    Description,
    Pixels,
    Progress,
    cache_of,
    choose_splits,
    fingerprint_files,
)
from unlearnkit.reading import AS_FOUND, Reading

# What numpy and zipfile raise for damaged, encrypted or foreign files.
_UNREADABLE = (OSError, EOFError, ValueError, RuntimeError, zipfile.BadZipFile, zlib.error)
_INPUTS = ("x", "image", "images", "img", "imgs", "data", "feature", "features", "input", "inputs")
_HEAD = 1 << 16
_LABELS = ("y", "label", "labels", "target", "targets")
_Headers: TypeAlias = Mapping[str, tuple[tuple[int, ...], np.dtype]]


class _Place(NamedTuple):
    """Where a split is: the names of its arrays, and its rows of them, None for all."""

    x: str
    y: str
    rows: np.ndarray | None = None


@dataclasses.dataclass(frozen=True)
class Arrays:
    """The arrays of one `.npz` file, or of a folder of `.npy` files.

    Their names are `x_train, y_train, x_test, y_test`, or `train_images, train_labels, …`, or other
    such words. A file without a test set is tested on its validation set, or on the share of the
    training set that `reading.test_fraction` says. Inputs are what `as_pixels` takes, labels what
    `as_labels` does. The classes are 0 to the largest training label, or the texts.
    """

    path: Path
    reading: Reading = AS_FOUND

    @property
    def cache(self) -> Path:
        """The folder beside the file, or a hidden one inside the folder."""
        return cache_of(self.path)

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
        """Returns a digest of the files' names, sizes and times, and of how they are read."""
        if self.path.is_dir():
            return fingerprint_files(self._files(), root=self.path, told=self.reading.told)
        return fingerprint_files([self.path], root=self.path.parent, told=self.reading.told)

    def is_there(self) -> bool:
        """Returns whether a folder has arrays of a split."""
        return bool(_pairs(path.stem for path in self._files()))

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
        pairs = _pairs(headers) or _only_pair(headers)
        if not pairs:
            raise ValueError(
                f"{self.path} must hold a training set; it lacks train and holds "
                f"{', '.join(headers) or 'nothing'}; call its arrays x_train, y_train, x_test and "
                "y_test, as numpy.savez(FILE, x_train=…) does"
            )
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

    def _files(self) -> list[Path]:
        """Returns the files of a folder."""
        return sorted(path for path in self.path.iterdir() if path.suffix == ".npy")

    def _array(self, key: str) -> np.ndarray:
        try:
            if self.path.is_dir():
                return np.asarray(np.load(self.path / f"{key}.npy", allow_pickle=False))
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
            if self.path.is_dir():
                headers = {path.stem: _header(path.open("rb")) for path in self._files()}
            else:
                with zipfile.ZipFile(self.path) as archive:
                    names = archive.namelist()
                    headers = {n.removesuffix(".npy"): _header(archive.open(n)) for n in names}
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
        split, role = _split_and_role(name.lower().replace("_", ""))
        for kind, known in (("x", _INPUTS), ("y", _LABELS)):
            if role in known:
                keys.setdefault((split, kind), name)
    splits = dict.fromkeys(split for split, _ in keys)
    return {
        split: _Place(keys[split, "x"], keys[split, "y"])
        for split in splits
        if (split, "x") in keys and (split, "y") in keys
    }


def _split_and_role(name: str) -> tuple[str, str]:
    for split in sorted(("train", *HELD_OUT), key=len, reverse=True):
        if name.startswith(split) or name.endswith(split):
            return split, name.removeprefix(split).removesuffix(split)
    return "", name


def _only_pair(headers: _Headers) -> dict[str, _Place]:
    """Returns where inputs and labels are if they are all there is, of any names."""
    if len(headers) != 2:
        return {}
    x, y = sorted(headers, key=lambda name: -len(headers[name][0]))
    of_x, of_y = headers[x][0], headers[y][0]
    told_apart = len(of_x) > len(of_y) == 1 and of_x[0] == of_y[0]
    return {"": _Place(x, y)} if told_apart else {}


def _header(opened: AbstractContextManager[IO[bytes]]) -> tuple[tuple[int, ...], np.dtype]:
    with opened as found:
        file = io.BytesIO(found.read(_HEAD))
    version = np.lib.format.read_magic(file)
    if version == (1, 0):
        shape, _, dtype = np.lib.format.read_array_header_1_0(file)
    elif version == (2, 0):
        shape, _, dtype = np.lib.format.read_array_header_2_0(file)
    else:
        raise ValueError(f"an array has the .npy format version {version}")
    return shape, dtype
