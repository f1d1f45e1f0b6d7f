"""scikit-learn's digits: 1,797 real images of 8x8 pixels, shipped inside an installed package."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits

from unlearnkit.data.labels import hold_out
from unlearnkit.data.source import Description, Pixels, Progress, measure

_TEST_FRACTION = 0.5


@dataclasses.dataclass(frozen=True)
class Digits:
    """The digits, 899 for training and 898 for testing, every class in the same proportion.

    The images have no official split. Ours tests on half of each class, see `hold_out`: with fewer
    training examples a network fits them all and still errs on unseen ones, which is what
    unlearning and its audits are about.
    """

    name: str = "digits"
    cache: Path | None = None

    def describe(self) -> Description:
        """Returns shape, classes and sizes."""
        y = load_digits().target
        sizes = {split: int(mask.sum()) for split, mask in hold_out(y, _TEST_FRACTION).items()}
        return Description(self.name, (8, 8, 1), 10, tuple(str(i) for i in range(10)), sizes)

    def fingerprint(self) -> str:
        """Returns a constant: the images do not change."""
        return "digits"

    def read(self, split: str, progress: Progress | None) -> Pixels:
        """Returns one split; the pixels are 0, ..., 16."""
        digits = load_digits()
        chosen = hold_out(digits.target, _TEST_FRACTION)[split]
        x = digits.images[chosen].astype(np.uint8)[..., None]
        return measure(x, digits.target[chosen], white=16)


def find_digits(*, data_dir: Path | None, download: bool) -> Digits:
    """Returns scikit-learn's digits: 899 images of 8x8 to train on, 898 to test on, 10 classes.

    Args:
      data_dir: not read; the images come with scikit-learn.
      download: not read.
    """
    return Digits()
