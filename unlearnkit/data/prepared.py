"""Datasets that TensorFlow Datasets has prepared, read without TensorFlow."""

from __future__ import annotations

import dataclasses
import importlib
import importlib.util
import io
import json
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from unlearnkit.data.images import decode_image
from unlearnkit.data.source import (
    SPLITS,
    Description,
    Pixels,
    Progress,
    fingerprint_files,
    measure,
    report,
)
from unlearnkit.validation import check_labels

NAMES = ("mnist", "fashion_mnist", "cifar10", "cifar100", "svhn_cropped")
_FORMAT = "array_record"
_BATCH = 500
# TFDS learns these only while it prepares the data itself.
_CIFAR10 = (
    *("airplane", "automobile", "bird", "cat", "deer"),
    *("dog", "frog", "horse", "ship", "truck"),
)


@dataclasses.dataclass(frozen=True)
class Prepared:
    """One prepared dataset.

    Attributes:
      name: as TFDS calls it.
      folder: where its records are, `data_dir/name/version`.
    """

    name: str
    folder: Path

    @property
    def cache(self) -> Path:
        """The folder beside all datasets of the data_dir."""
        data_dir = self.folder.parent.parent
        return data_dir / ".unlearnkit" / f"{self.name}-{self.folder.name}"

    def describe(self) -> Description:
        """Returns shape, classes and sizes from TFDS's metadata."""
        info = self._builder().info
        names = tuple(info.features["label"].names)
        if self.name == "cifar10" and names == tuple(str(i) for i in range(10)):
            names = _CIFAR10
        return Description(
            self.name,
            tuple(info.features["image"].shape),
            len(names),
            names,
            {split: info.splits[split].num_examples for split in SPLITS},
        )

    def fingerprint(self) -> str:
        """Returns a digest of all files' names, sizes and times."""
        files = (path for path in self.folder.iterdir() if path.is_file())
        return fingerprint_files(files, root=self.folder)

    def read(self, split: str, progress: Progress | None) -> Pixels:
        """Returns one split."""
        description = self.describe()
        n = description.sizes[split]
        # Our own decoding of whole batches of records takes half the time of TFDS's one by one.
        skip = {"image": _tfds(self.name).decode.SkipDecoding()}
        records = self._builder().as_data_source(split=split, decoders=skip)
        x = np.empty((n, *description.input_shape), np.uint8)
        y = np.empty(n, np.int64)
        for start in range(0, n, _BATCH):
            stop = min(start + _BATCH, n)
            for i, record in zip(
                range(start, stop), self._batch(records, start, stop), strict=True
            ):
                image = decode_image(io.BytesIO(record["image"]), where=f"{self.name} {split} {i}")
                if image.shape != description.input_shape:
                    raise ValueError(
                        f"{self.name} {split} {i} has the shape {image.shape}, but its metadata "
                        f"says {description.input_shape}; prepare the dataset again"
                    )
                x[i], y[i] = image, record["label"]
            report(progress, stop, n, every=1)
        check_labels(y, name=f"{self.name} {split}", n_classes=description.n_classes)
        return measure(x, y, white=255)

    def records(self, split: str) -> Iterator[dict[str, Any]]:
        """Yields every record of a split as TFDS decodes it."""
        found = self._builder().as_data_source(split=split)
        for start in range(0, len(found), _BATCH):
            yield from self._batch(found, start, min(start + _BATCH, len(found)))

    def _batch(self, records: Any, start: int, stop: int) -> list[dict[str, Any]]:
        try:
            return list(records.__getitems__(list(range(start, stop))))
        # array_record and protobuf each raise types of their own for damaged files.
        except Exception as error:
            raise ValueError(
                f"cannot read the records {start} to {stop} of {self.folder} ({error}); "
                "the files are damaged or truncated, prepare the dataset again"
            ) from error

    def _builder(self) -> Any:
        return _tfds(self.name).builder_from_directory(self.folder)


def find(name: str, *, data_dir: Path | None, download: bool) -> Prepared:
    """Returns the prepared dataset, after downloading and preparing it if that is asked for.

    Args:
      name: one of `NAMES`.
      data_dir: TFDS's folder of datasets; None means TFDS's own default.
      download: prepare the dataset where it is missing, which needs TensorFlow and the network.

    Raises:
      ImportError: tensorflow-datasets is missing, or TensorFlow where it has to prepare.
      FileNotFoundError: not prepared.
      ConnectionError: the download failed.
      ValueError: prepared in a format that only TensorFlow reads.
    """
    tfds = _tfds(name)
    if data_dir is None:
        default = Path.home() / "tensorflow_datasets"
        data_dir = Path(os.environ.get("TFDS_DATA_DIR") or default).expanduser()
    formats = _prepared_formats(data_dir / name)
    if _FORMAT not in formats.values() and download:
        _download(tfds, name, data_dir)
        formats = _prepared_formats(data_dir / name)
    readable = [folder for folder, kind in formats.items() if kind == _FORMAT]
    if readable:
        return Prepared(name, max(readable, key=_version))
    if formats:
        folder, kind = next(iter(formats.items()))
        raise ValueError(
            f"{folder} is prepared as {kind}, which only TensorFlow reads; prepare {name} as "
            f"{_FORMAT} in another data_dir with download=True (--download)"
        )
    raise FileNotFoundError(
        f"{name} is not prepared in {data_dir}; name the folder that holds it with data_dir "
        "(--data-dir), or prepare it there with download=True (--download)"
    )


def _tfds(name: str) -> ModuleType:
    """Returns tensorflow_datasets, which does not import TensorFlow by itself."""
    try:
        with warnings.catch_warnings():
            # Its dependencies' own deprecations are nothing that a user here can act on.
            warnings.simplefilter("ignore", DeprecationWarning)
            for module in ("array_record", "importlib_resources", "tensorflow_datasets"):
                imported = importlib.import_module(module)
    except ImportError as error:
        raise ImportError(
            f"{name} is read by TensorFlow Datasets ({error}); pip install 'unlearnkit[tfds]'"
        ) from error
    return imported


def _prepared_formats(folder: Path) -> dict[Path, str]:
    """Returns the file format of every prepared version in `data_dir/name`."""
    formats = {}
    for info in sorted(folder.glob("[0-9]*.*.*/dataset_info.json")):
        try:
            formats[info.parent] = str(json.loads(info.read_text(encoding="utf-8"))["fileFormat"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f"cannot read {info} ({error!r}); remove {info.parent} and prepare it again"
            ) from error
    return formats


def _version(folder: Path) -> tuple[int, ...]:
    return tuple(int(part) for part in folder.name.split(".") if part.isdigit())


def _download(tfds: ModuleType, name: str, data_dir: Path) -> None:
    if importlib.util.find_spec("tensorflow") is None:
        raise ImportError(
            f"preparing {name} needs TensorFlow (reading it later does not): "
            "pip install tensorflow, or name a folder that holds it with data_dir (--data-dir)"
        )
    try:
        builder = tfds.builder(name, data_dir=str(data_dir), file_format=_FORMAT)
        builder.download_and_prepare()
    except OSError as error:
        raise ConnectionError(
            f"{name} could not be downloaded to {data_dir} ({error}); check the network and the "
            "space there, or name a folder that holds it with data_dir (--data-dir)"
        ) from error
