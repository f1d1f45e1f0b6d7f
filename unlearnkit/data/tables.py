"""Tables: `.csv`, `.tsv` and `.parquet`, of numbers or, as Hugging Face has them, of images."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from unlearnkit.data.columns import choose_column
from unlearnkit.data.frames import Frame, pandas_for, read_table
from unlearnkit.data.images import decode_image, is_image
from unlearnkit.data.labels import as_labels, hold_out, name_classes, to_classes
from unlearnkit.data.pixels import as_pixels
from unlearnkit.data.source import (
    HELD_OUT,
    SPLITS,
    Description,
    Pixels,
    Progress,
    cache_of,
    choose_splits,
    fingerprint_files,
    measure,
    report,
)
from unlearnkit.reading import AS_FOUND, Reading, is_table
from unlearnkit.validation import check_finite

_LABELS = ("label", "labels", "y", "target", "class", "fine_label", "diagnosis", "species")
_SPLITS = ("train", *HELD_OUT)
_IMAGES = ("image", "img", "images")


@dataclasses.dataclass(frozen=True)
class Tables:
    """One table, or a folder of them whose names begin with their split: `train*`, `test*`.

    They may be in folders `train` and `test` of any names too.

    A row is an example. The column of the labels is the one that `reading.label` names, or the only
    one with a usual name (`label`, `target`, `class`, …). Where a column `image` (or `img`) holds
    encoded images, these are the inputs; else all other columns are, which must be numbers. Their
    range is any: load them with `normalisation="standard"`. A first line of numbers is no header.

    Reading needs pandas, and parquet pyarrow: `pip install 'unlearnkit[tables]'`.
    """

    path: Path
    reading: Reading = AS_FOUND

    @property
    def cache(self) -> Path:
        """The folder beside the file, or a hidden one inside the folder."""
        return cache_of(self.path)

    def describe(self) -> Description:
        """Returns shape, classes and sizes; reads the tables."""
        splits = self._splits()
        frames = {split: self._rows(split, splits) for split in SPLITS}
        y = self._labels(frames["train"])
        classes = name_classes(y, name=str(self.path))
        head = frames["train"].iloc[:1]
        shape = self._pixels(head, np.zeros(1, np.int32), None).x.shape[1:]
        sizes = {split: len(frame) for split, frame in frames.items()}
        return Description(str(self.path), shape, len(classes), classes, sizes)

    def fingerprint(self) -> str:
        """Returns a digest of the files' names, sizes and times, and of how they are read."""
        paths = {path for group in self._files().values() for path in group}
        root = self.path if self.path.is_dir() else self.path.parent
        return fingerprint_files(paths, root=root, told=self.reading.told)

    def read(self, split: str, progress: Progress | None) -> Pixels:
        """Returns one split."""
        splits, name = self._splits(), f"{split} in {self.path}"
        frame = self._rows(split, splits)
        train = frame if split == "train" else self._rows("train", splits)
        frame = self._as_columns_of(train, frame)
        classes = name_classes(self._labels(train), name=name)
        y = to_classes(self._labels(frame), classes, name=name)
        return self._pixels(frame, y, progress)

    def is_there(self) -> bool:
        """Returns whether there is a table of a split."""
        return bool(self._files())

    def column(self, split: str, name: str | None) -> list[object]:
        """Returns a column of a split, one entry per example.

        Args:
          split: `train` or `test`.
          name: of the column; None takes the only one with a usual name of ids.

        Raises:
          ValueError: no such column, or none that is called as ids are.
        """
        frame = self._rows(split, self._splits())
        names = list(map(str, frame.columns))
        chosen = choose_column(names, name, where=str(self.path), what="column")
        return list(frame[frame.columns[names.index(chosen)]].tolist())

    def _files(self) -> dict[str, list[Path]]:
        """Returns the files of each part, "" where one file is all there is."""
        if self.path.is_file():
            return {"": [self.path]}
        files: dict[str, list[Path]] = {}
        for folder in (self.path, self.path / "data", *(self.path / name for name in _SPLITS)):
            for path in sorted(folder.iterdir()) if folder.is_dir() else ():
                named = folder.name if folder.name in _SPLITS else path.name.lower()
                part = next((name for name in _SPLITS if named.startswith(name)), None)
                if part is not None and is_table(path):
                    files.setdefault(part, []).append(path)
        return files

    def _splits(self) -> dict[str, list[Path]]:
        files = self._files()
        holds = [path.name for group in files.values() for path in group]
        names = choose_splits(files, self.reading, where=str(self.path), holds=holds)
        return {split: files[name] for split, name in names.items()}

    def _rows(self, split: str, splits: Mapping[str, Sequence[Path]]) -> Frame:
        """Returns the rows of a split."""
        pandas = pandas_for(str(self.path))
        parts = [read_table(path) for path in splits[split]]
        columns = [list(part.columns) for part in parts]
        if any(names != columns[0] for names in columns):
            raise ValueError(f"the files of {split} in {self.path} must have the same columns")
        frame = pandas.concat(parts, ignore_index=True)
        if splits["train"] != splits["test"]:
            return frame
        assert self.reading.test_fraction is not None
        mask = hold_out(self._labels(frame), self.reading.test_fraction)[split]
        return frame[mask]

    def _as_columns_of(self, train: Frame, frame: Frame) -> Frame:
        """Returns a split with its columns in the order of the training set."""
        odd = [
            name for name in (*train.columns, *frame.columns) if (name in train) != (name in frame)
        ]
        if odd:
            raise ValueError(
                f"train and test in {self.path} must have the same columns, but only one has "
                f"{_listed(odd)}; leave it out there"
            )
        return frame[train.columns]

    def _label(self, frame: Frame) -> str | int:
        """Returns the name of the column of the labels."""
        columns: list[str | int] = list(frame.columns)
        said = self.reading.label
        if said is not None:
            if said in columns:
                return said
            place = int(said) if str(said).lstrip("-").isdigit() else len(columns)
            if not -len(columns) <= place < len(columns):
                raise ValueError(f"{self.path} has no column {said!r}; it has {_listed(columns)}")
            return columns[place]
        usual = [name for name in columns if str(name).lower() in _LABELS]
        if len(usual) == 1:
            return usual[0]
        raise ValueError(
            f"{self.path} has {'several columns' if usual else 'no column'} with a usual name of "
            f"labels; it has {_listed(columns)}; say which one holds the classes, as label="
            f"{columns[-1]!r} or, by its position, label=-1"
        )

    def _labels(self, frame: Frame) -> np.ndarray:
        column = frame[self._label(frame)]
        if column.isna().any():
            raise ValueError(
                f"labels of {self.path} are missing, first in row {_gap(column.isna())}"
            )
        values = column.to_numpy()
        return as_labels(
            values.astype(str) if values.dtype.kind == "O" else values, name=str(self.path)
        )

    def _pixels(self, frame: Frame, y: np.ndarray, progress: Progress | None) -> Pixels:
        """Returns the rows as inputs."""
        dropped = [name for name in self.reading.drop if name not in frame.columns]
        if dropped:
            raise ValueError(
                f"{self.path} has no column {dropped[0]!r} to leave out; it has "
                f"{_listed(list(frame.columns))}"
            )
        others = frame.drop(columns=[self._label(frame), *self.reading.drop])
        images = next((name for name in others.columns if str(name).lower() in _IMAGES), None)
        if images is not None:
            return self._images(others[images], y, progress)
        texts = [name for name in others.columns if others[name].dtype.kind not in "biuf"]
        files = [name for name in texts if _names_images(others[name])]
        if files:
            raise ValueError(
                f"column {files[0]} of {self.path} names images in files: put each image into the "
                "folder of its class, as train/CLASS/IMAGE and test/CLASS/IMAGE, and load these"
            )
        if texts:
            raise ValueError(
                f"columns of {self.path} must be numbers, but {_listed(texts)} "
                f"{'is not' if len(texts) == 1 else 'are not'}; leave them out, as "
                f"drop={tuple(map(str, texts))}, or encode them"
            )
        gaps = others.isna().any(axis=1)
        if gaps.any():
            raise ValueError(
                f"{int(gaps.sum())} rows of {self.path} lack a number, the first is row "
                f"{_gap(gaps)}; remove or fill them"
            )
        x = others.to_numpy().astype(np.float32)
        check_finite(x, name=str(self.path))
        return measure(x, y, white=1)._replace(features=True)

    def _images(self, column: Frame, y: np.ndarray, progress: Progress | None) -> Pixels:
        images = []
        for row, cell in enumerate(column):
            content = cell.get("bytes") if isinstance(cell, Mapping) else cell
            if not isinstance(content, bytes):
                raise ValueError(
                    f"row {row} of {self.path} must hold an encoded image, got "
                    f"{type(cell).__name__}"
                )
            where = f"row {row} of {self.path}"
            images.append(decode_image(io.BytesIO(content), where=where, reading=self.reading))
            if images[-1].shape != images[0].shape:
                raise ValueError(
                    f"images must have one size and number of channels, got {images[-1].shape} in "
                    f"{where} and {images[0].shape} in row 0; bring them to one by "
                    f"resize={images[0].shape[0]} (--resize) or mode='rgb' (--mode)"
                )
            report(progress, row + 1, len(column))
        return as_pixels(np.stack(images), y, Reading(white=255), name=str(self.path))


def _names_images(column: Frame) -> bool:
    return all(isinstance(cell, str) and is_image(Path(cell)) for cell in column)


def _gap(gaps: Frame) -> int:
    return int(gaps.index[gaps.to_numpy().argmax()])


def _listed(names: Sequence[object]) -> str:
    shown = ", ".join(map(str, names[:8]))
    return shown if len(names) <= 8 else f"{shown}, … ({len(names)} columns)"
