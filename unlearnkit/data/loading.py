"""Loads any source as a normalised `Dataset` on the device."""

from __future__ import annotations

import difflib
import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import jax.numpy as jnp
import numpy as np

from unlearnkit.base import Dataset, Normalisation, Tokens
from unlearnkit.data import prepared
from unlearnkit.data.arrays import Arrays
from unlearnkit.data.bundled import find_breast_cancer, find_digits, find_mnist_5000
from unlearnkit.data.cache import read_cached
from unlearnkit.data.faces import Olivetti, find_olivetti
from unlearnkit.data.folders import Folders
from unlearnkit.data.idx import Idx, find_idx
from unlearnkit.data.lists import read_list
from unlearnkit.data.normalising import check_normalisation, normalise
from unlearnkit.data.pickled import CifarBatches, is_cifar
from unlearnkit.data.source import SPLITS, Description, Pixels, Progress, Source
from unlearnkit.data.svhn import Svhn, is_svhn
from unlearnkit.data.tables import Tables
from unlearnkit.reading import AS_FOUND, TABLES, Reading, is_table
from unlearnkit.registry import Registry
from unlearnkit.validation import check_tokens

DATASETS: Registry[Source] = Registry(
    "dataset",
    {
        "digits": find_digits,
        "breast_cancer": find_breast_cancer,
        "mnist_5000": find_mnist_5000,
        "mnist": partial(prepared.find, "mnist"),
        "fashion_mnist": partial(prepared.find, "fashion_mnist"),
        "cifar10": partial(prepared.find, "cifar10"),
        "cifar100": partial(prepared.find, "cifar100"),
        "svhn_cropped": partial(prepared.find, "svhn_cropped"),
    },
)
"""Sources of datasets by name; each takes `data_dir` and `download`."""
NAMES = tuple(DATASETS)
_SAVE = "save its arrays by numpy.savez('data.npz', x_train=…, y_train=…, x_test=…, y_test=…)"


def load(
    name: str | os.PathLike[str],
    *,
    split: str,
    data_dir: str | os.PathLike[str] | None = None,
    download: bool = False,
    normalisation: str | Normalisation | Tokens = "unit",
    reading: Reading = AS_FOUND,
    progress: Progress | None = None,
) -> Dataset:
    """Returns one split of a dataset on the device, x float32 normalised (or token ids), y int32.

    The images are decoded once and kept as uint8, beside the source or, where that cannot be
    written, in the user's cache.

    Args:
      name: `digits`, `breast_cancer`; `mnist`, `fashion_mnist`, `cifar10`, `cifar100` or
        `svhn_cropped`, prepared by TensorFlow Datasets; or a path: an `.npz` with x_train, y_train,
        x_test and y_test (`Arrays`), a `.csv`, `.tsv` or `.parquet` or a folder of these
        (`Tables`), a folder with train/<class>/<image> and test/<class>/<image> (`Folders`), IDX
        files as MNIST's (`Idx`), `cifar-10-batches-py` (`CifarBatches`), the Olivetti faces of
        scikit-learn (`Olivetti`).
      split: `train` or `test`.
      data_dir: the folder of prepared datasets, and what a relative path starts from. None means
        TFDS's default, and the current folder.
      download: prepare a TFDS dataset that is missing, which needs the network and TensorFlow.
      normalisation: `unit` ([0, 1]), `symmetric` ([-1, 1]), `standard` (mean 0 and standard
        deviation 1 in each channel of the training split), or one of your own; `Tokens` where the
        arrays [n, length] of an `.npz` are token ids, which stay the integers they are. Numbers of
        any range, which are no pixels, need `standard` or one of your own; under `standard` a
        feature that is constant becomes 0.
      reading: how files are read that do not say it themselves, see `Reading`.
      progress: called with (images decoded, images in all) while images are decoded one by one;
        never for arrays or where the cache serves.

    Raises:
      ImportError: the extra that reads the source is not installed.
      FileNotFoundError: no such file or folder, or a dataset that is not prepared.
      TypeError: arrays or labels of the wrong type.
      ValueError: an unknown name, data that breaks a rule of its source, or token ids that are not
        in the vocabulary.

    Example:
      train = data.load("digits", split="train")
      own = data.load("own.npz", split="train", data_dir="~/data", normalisation="standard")
    """
    if split not in SPLITS:
        raise ValueError(f"split must be one of {', '.join(SPLITS)}, got {split!r}")
    check_normalisation(normalisation)
    source = _open(name, data_dir=data_dir, download=download, reading=reading)
    pixels = read_cached(source, split, progress)
    if isinstance(normalisation, Tokens):
        check_tokens(pixels.x, normalisation, name=f"{split} in {name}")
        # Copies: JAX may keep a view of a host array, and these are files of the cache.
        x, y = (jnp.asarray(np.array(part, np.int32)) for part in (pixels.x, pixels.y))
        return Dataset(x, y, normalisation)

    def train() -> Pixels:
        return pixels if split == "train" else read_cached(source, "train", progress)

    return normalise(pixels, normalisation, train=train, name=f"{split} in {name}")


def describe(
    name: str | os.PathLike[str],
    *,
    data_dir: str | os.PathLike[str] | None = None,
    download: bool = False,
    reading: Reading = AS_FOUND,
) -> Description:
    """Returns shape, classes and sizes of a dataset without decoding it.

    Args:
      name: see `load`.
      data_dir: see `load`.
      download: see `load`.
      reading: see `load`.

    Raises:
      ImportError: see `load`.
      FileNotFoundError: see `load`.
      ValueError: see `load`.
    """
    return _open(name, data_dir=data_dir, download=download, reading=reading).describe()


def training_ids(
    name: str | os.PathLike[str], column: str | None = None, *, reading: Reading = AS_FOUND
) -> Sequence[object]:
    """Returns the id of each training example, in the order of the examples.

    Args:
      name: a table or a folder of tables, whose `column` holds the ids; a folder of images, whose
        ids are their paths below the folder of the training set; or a list, see `read_list`.
      column: of a table, or of a list with several.
      reading: see `load`.

    Raises:
      FileNotFoundError: no such file or folder.
      ValueError: no such column, or nothing that has ids.
    """
    path = Path(name).expanduser()
    divided = path.is_dir() or reading.test_fraction is not None
    source = _find(path, reading) if divided else None
    if isinstance(source, Folders):
        return source.names("train")
    if isinstance(source, Tables):
        return source.column("train", column)
    return list(read_list(path, column).tolist())


def _open(
    name: str | os.PathLike[str],
    *,
    data_dir: str | os.PathLike[str] | None,
    download: bool,
    reading: Reading,
) -> Source:
    """Returns the source that `name` stands for."""
    name = os.fspath(name)
    folder = None if data_dir is None else Path(data_dir).expanduser()
    may_appear = download and name in prepared.NAMES
    if folder is not None and not folder.is_dir() and not may_appear:
        raise FileNotFoundError(
            f"data_dir {folder} is not a folder; name the one that holds {name} (--data-dir)"
        )
    # Other packages are asked for names that are not ours alone.
    if name in DATASETS or name in DATASETS.known():
        if reading.told:
            raise ValueError(f"{name} is read as it is; {reading.told} is for files of your own")
        return DATASETS.create(name, data_dir=folder, download=download)
    path = (folder or Path()) / Path(name).expanduser()
    if name and (found := _find(path, reading)) is not None:
        return found
    if path.suffix.lower() in (".npz", *TABLES):
        raise FileNotFoundError(f"there is no file {path}")
    if name and path.is_file():
        raise ValueError(f"{path} is of a kind that is not read: {_remedy(path)}")
    known = DATASETS.known()
    close = difflib.get_close_matches(name, known, n=1)
    raise ValueError(
        f"dataset must be one of {', '.join(known)}, the path of a {', '.join(('.npz', *TABLES))} "
        f"file or of a folder with train and test, got {name!r}"
        + (f"; did you mean {close[0]}?" if close else "")
    )


def _find(path: Path, reading: Reading) -> Source | None:
    """Returns the source that a path is, None where there is nothing that is known."""
    if (faces := find_olivetti(path)) is not None:
        return Olivetti(faces, reading)
    if path.is_file():
        if path.suffix.lower() == ".npz":
            return Arrays(path, reading)
        return Tables(path, reading) if is_table(path) or _is_text_table(path) else None
    if not path.is_dir():
        return None
    for folder in (path, *sorted(p for p in path.iterdir() if p.is_dir())):
        if is_cifar(folder):
            return CifarBatches(folder, reading)
        if find_idx(folder, "train", "x") is not None:
            return Idx(folder, reading)
    if is_svhn(path):
        return Svhn(path, reading)
    for source in (Tables(path, reading), Arrays(path, reading)):
        if source.is_there():
            return source
    return Folders(path, reading)


def _is_text_table(path: Path) -> bool:
    """Returns whether a file of no telling name is text in columns."""
    if path.suffix.lower() not in ("", ".txt"):
        return False
    with path.open("rb") as file:
        head = file.read(1 << 12)
    return b"\0" not in head and any(mark in head.partition(b"\n")[0] for mark in b",;\t| ")


def _remedy(path: Path) -> str:
    """Returns what to do with a file that is not read."""
    match path.suffix.lower():
        case ".gz" | ".zip" | ".tar" | ".tgz" | ".xz" | ".bz2" | ".7z":
            return "unpack it"
        case ".xlsx" | ".xls" | ".ods":
            return "save the sheet as CSV"
        case ".pkl" | ".pickle":
            return "no pickle is opened: read it where it is trusted, and " + _SAVE
    return f"{_SAVE}, or a table as CSV"
