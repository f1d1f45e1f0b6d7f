"""Loads any source as a normalised `Dataset` on the device."""

from __future__ import annotations

import difflib
import os
from functools import partial
from pathlib import Path

import jax.numpy as jnp
import numpy as np

from unlearnkit.base import UNIT, Dataset, Normalisation, Tokens
from unlearnkit.data import prepared
from unlearnkit.data.arrays import Arrays
from unlearnkit.data.cache import read_cached
from unlearnkit.data.digits import find_digits
from unlearnkit.data.folders import Folders
from unlearnkit.data.source import SPLITS, Description, Progress, Source
from unlearnkit.registry import Registry
from unlearnkit.validation import check_tokens

DATASETS: Registry[Source] = Registry(
    "dataset",
    {
        "digits": find_digits,
        "mnist": partial(prepared.find, "mnist"),
        "fashion_mnist": partial(prepared.find, "fashion_mnist"),
        "cifar10": partial(prepared.find, "cifar10"),
        "cifar100": partial(prepared.find, "cifar100"),
        "svhn_cropped": partial(prepared.find, "svhn_cropped"),
    },
)
"""Sources of datasets by name; each takes `data_dir` and `download`."""
NAMES = tuple(DATASETS)
NORMALISATIONS = ("unit", "symmetric", "standard")
SYMMETRIC = Normalisation("symmetric", (0.5,), (0.5,))


def load(
    name: str | os.PathLike[str],
    *,
    split: str,
    data_dir: str | os.PathLike[str] | None = None,
    download: bool = False,
    normalisation: str | Normalisation | Tokens = "unit",
    progress: Progress | None = None,
) -> Dataset:
    """Returns one split of a dataset on the device, x float32 normalised (or token ids), y int32.

    The images are decoded once and kept as uint8, beside the source or, where that cannot be
    written, in the user's cache.

    Args:
      name: `digits`; `mnist`, `fashion_mnist`, `cifar10`, `cifar100` or `svhn_cropped`, prepared by
        TensorFlow Datasets; the path of an `.npz` with x_train, y_train, x_test and y_test; or of a
        folder with train/<class>/<image> and test/<class>/<image>.
      split: `train` or `test`.
      data_dir: the folder of prepared datasets, and what a relative path starts from. None means
        TFDS's default, and the current folder.
      download: prepare a TFDS dataset that is missing, which needs the network and TensorFlow.
      normalisation: `unit` ([0, 1]), `symmetric` ([-1, 1]), `standard` (mean 0 and standard
        deviation 1 in each channel of the training split), or one of your own; `Tokens` where the
        arrays [n, length] of an `.npz` are token ids, which stay the integers they are.
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
      images = data.load("cifar10", split="test", data_dir="~/data", normalisation="standard")
    """
    if split not in SPLITS:
        raise ValueError(f"split must be one of {', '.join(SPLITS)}, got {split!r}")
    _check_normalisation(normalisation)
    source = _open(name, data_dir=data_dir, download=download)
    pixels = read_cached(source, split, progress)
    # A copy: JAX may keep a view of a host array, and this one is a file of the cache.
    y = jnp.asarray(np.array(pixels.y, np.int32))
    if isinstance(normalisation, Tokens):
        check_tokens(pixels.x, normalisation, name=f"{split} in {name}")
        return Dataset(jnp.asarray(np.array(pixels.x, np.int32)), y, normalisation)
    if pixels.x.dtype not in (np.uint8, np.float32):
        raise TypeError(
            f"x of {split} in {name} is {pixels.x.dtype}: pixels must be uint8, or floating point "
            "in [0, 1]; convert pixels in 0..255 with x.astype(numpy.uint8), or say that these "
            "are token ids by normalisation=Tokens(vocabulary=…, pad=…)"
        )
    if normalisation == "standard":
        train = pixels if split == "train" else read_cached(source, "train", progress)
        normalisation = _standard(train.mean, train.std)
    elif isinstance(normalisation, str):
        normalisation = {"unit": UNIT, "symmetric": SYMMETRIC}[normalisation]
    channels = pixels.x.shape[-1]
    if len(normalisation.mean) not in (1, channels):
        raise ValueError(
            f"normalisation {normalisation.name!r} has {len(normalisation.mean)} channels, but "
            f"{name} has {channels}; give one mean and std, or one per channel"
        )
    # Pixels travel to the device as bytes. Outside jit: a fused division by a constant becomes a
    # product with its rounded reciprocal, and white would leave [-1, 1] by a bit.
    x = normalisation.apply(jnp.asarray(pixels.x).astype(jnp.float32) / pixels.white)
    return Dataset(x.astype(jnp.float32), y, normalisation)


def describe(
    name: str | os.PathLike[str],
    *,
    data_dir: str | os.PathLike[str] | None = None,
    download: bool = False,
) -> Description:
    """Returns shape, classes and sizes of a dataset without decoding it.

    Args:
      name: see `load`.
      data_dir: see `load`.
      download: see `load`.

    Raises:
      ImportError: see `load`.
      FileNotFoundError: see `load`.
      ValueError: see `load`.
    """
    return _open(name, data_dir=data_dir, download=download).describe()


def _open(
    name: str | os.PathLike[str], *, data_dir: str | os.PathLike[str] | None, download: bool
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
        return DATASETS.create(name, data_dir=folder, download=download)
    path = (folder or Path()) / Path(name).expanduser()
    if name and path.is_dir():
        return Folders(path)
    if path.suffix == ".npz":
        if not path.is_file():
            raise FileNotFoundError(f"there is no file {path}")
        return Arrays(path)
    known = DATASETS.known()
    close = difflib.get_close_matches(name, known, n=1)
    raise ValueError(
        f"dataset must be one of {', '.join(known)}, the path of an .npz file or of a folder with "
        f"train and test, got {name!r}" + (f"; did you mean {close[0]}?" if close else "")
    )


def _check_normalisation(normalisation: str | Normalisation | Tokens) -> None:
    if isinstance(normalisation, str) and normalisation not in NORMALISATIONS:
        raise ValueError(
            f"normalisation must be one of {', '.join(NORMALISATIONS)} or a Normalisation, or "
            f"Tokens, got {normalisation!r}"
        )


def _standard(mean: tuple[float, ...], std: tuple[float, ...]) -> Normalisation:
    if 0 in std:
        raise ValueError(
            f"channel {std.index(0)} has one value in the whole training split, so it has no "
            "standard deviation to divide by; use normalisation='unit' or 'symmetric'"
        )
    return Normalisation("standard", mean, std)
