"""The datasets of a run: files packed for a machine without TFDS, unpacked once.

A packed file (`.npz.xz`) holds JPEGs one after another (`train_jpeg`, `train_offsets`, `train_y`,
and the same of `test`); an unpacked one (`.npz`) has Keras's layout, uint8 `x_train`, `y_train`,
`x_test`, `y_test`. Which dataset a file holds is read off the shape of its images.
"""

from __future__ import annotations

import io
import lzma
import zipfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

SHAPES = {(32, 32, 3): "cifar10", (28, 28): "mnist", (28, 28, 1): "mnist"}
SPLITS = ("train", "test")


def prepare(files: Sequence[Path], work: Path) -> list[str]:
    """Puts each file's dataset into `work`, as `<name>.npz`; returns the names.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: a file of another kind, or of images that no job knows.
    """
    names = []
    for file in files:
        if not file.is_file():
            raise FileNotFoundError(f"there is no file {file}")
        names.append(_prepare(file, work))
    return names


def _prepare(file: Path, work: Path) -> str:
    try:
        arrays = _read(file)
    except (KeyError, ValueError, OSError, EOFError, lzma.LZMAError, zipfile.BadZipFile) as error:
        raise ValueError(
            f"{file} is neither a packed .npz.xz nor an .npz with x_train, y_train, x_test and "
            f"y_test ({error!s:.100})"
        ) from None
    name = _name(file, arrays["x_train"])
    _save(work / f"{name}.npz", arrays)
    return name


def _read(file: Path) -> dict[str, np.ndarray]:
    if file.suffix == ".xz":
        return unpack(np.load(io.BytesIO(lzma.open(file).read())))
    held = np.load(file)
    if not isinstance(held, np.lib.npyio.NpzFile):
        raise ValueError("one array alone")
    with held:
        return {f"{part}_{split}": held[f"{part}_{split}"] for split in SPLITS for part in "xy"}


def unpack(packed: np.lib.npyio.NpzFile) -> dict[str, np.ndarray]:
    """Returns the arrays of an unpacked file: images decoded, labels as they are."""
    arrays = {}
    with ThreadPoolExecutor(8) as pool:
        for split in SPLITS:
            blob, offsets = packed[f"{split}_jpeg"].tobytes(), packed[f"{split}_offsets"]
            parts = np.array_split(np.arange(len(offsets) - 1), 64)
            decoded = pool.map(lambda rows, o=offsets, b=blob: _decode(b, o, rows), parts)
            arrays[f"x_{split}"] = np.concatenate([part for part in decoded if len(part)])
            arrays[f"y_{split}"] = packed[f"{split}_y"]
    return arrays


def _decode(blob: bytes, offsets: np.ndarray, rows: np.ndarray) -> np.ndarray:
    from PIL import Image

    images = [
        np.asarray(Image.open(io.BytesIO(blob[offsets[i] : offsets[i + 1]])).convert("RGB"))
        for i in rows
    ]
    return np.array(images)


def make_noise(work: Path, *, train: int, test: int) -> list[str]:
    """Puts noise in the shapes of both datasets into `work`, for a rehearsal; returns the names."""
    for name, shape in (("cifar10", (32, 32, 3)), ("mnist", (28, 28))):
        rng = np.random.default_rng(0)
        arrays = {}
        for split, n in (("train", train), ("test", test)):
            arrays[f"x_{split}"] = rng.integers(0, 256, (n, *shape), np.uint8)
            arrays[f"y_{split}"] = np.arange(n) % 10
        _save(work / f"{name}.npz", arrays)
    return ["cifar10", "mnist"]


def shorten(work: Path, names: Sequence[str], *, train: int, test: int) -> None:
    """Leaves the first examples of each dataset in `work`, for a rehearsal with real images."""
    for name in names:
        path = work / f"{name}.npz"
        with np.load(path) as held:
            sizes = {"train": train, "test": test}
            arrays = {key: held[key][: sizes[key.partition("_")[2]]] for key in held.files}
        _save(path, arrays)


def _save(path: Path, arrays: dict[str, Any]) -> None:
    np.savez(path, **arrays)


def _name(file: Path, images: np.ndarray) -> str:
    shape = images.shape[1:]
    if shape not in SHAPES:
        raise ValueError(
            f"{file} holds images of shape {list(shape)}, which no job knows; known are "
            "32x32x3 (cifar10) and 28x28 (mnist)"
        )
    return SHAPES[shape]
