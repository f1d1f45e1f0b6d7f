"""What a user says of a file that can be read in more than one way."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Literal, get_args

Layout = Literal["channels_last", "channels_first", "features"]
Mode = Literal["grey", "rgb"]
LAYOUTS: tuple[Layout, ...] = get_args(Layout)
MODES: tuple[Mode, ...] = get_args(Mode)


@dataclasses.dataclass(frozen=True)
class Reading:
    """How to read files of data where they do not say it themselves.

    Attributes:
      layout: of arrays: `channels_last` [n, h, w, c], `channels_first` [n, c, h, w], or `features`
        [n, d], numbers of any range that are no pixels. None tells the first two apart where only
        one of them has 1 or 3 channels.
      white: the value of a pixel that is 1, where arrays do not tell by their type: 255 for floats
        in 0 … 255, 1 for integers that are 0 and 1.
      resize: the height and width that images are brought to; None asks for images of one size.
      mode: `grey` or `rgb`, which all images are converted to; None asks for images of one mode.
      label: the column of the labels in a table: a name, or a position counted from 0, from the
        end if negative.
      drop: columns of a table that are not inputs.
      test_fraction: in (0, 1), the share of each class that is held out where there is no test
        set. The same examples are held out always: it depends on their positions alone.
      least_per_class: classes of an image folder with fewer images, in all splits together, are
        left out: many persons of a set of faces as LFW have one picture each. None keeps all.
    """

    layout: Layout | None = None
    white: float | None = None
    resize: int | None = None
    mode: Mode | None = None
    label: str | int | None = None
    drop: tuple[str, ...] = ()
    test_fraction: float | None = None
    least_per_class: int | None = None

    def __post_init__(self) -> None:
        for name, known in (("layout", LAYOUTS), ("mode", MODES)):
            value = getattr(self, name)
            if value is not None and value not in known:
                raise ValueError(f"{name} must be one of {', '.join(known)}, got {value!r}")
        if self.white is not None and not 0 < self.white < float("inf"):
            raise ValueError(f"white must be finite and > 0, got {self.white}")
        if self.least_per_class is not None and self.least_per_class < 1:
            raise ValueError(f"least_per_class must be >= 1, got {self.least_per_class}")
        if self.resize is not None and self.resize < 1:
            raise ValueError(f"resize must be >= 1 pixels, got {self.resize}")
        if self.test_fraction is not None and not 0 < self.test_fraction < 1:
            raise ValueError(f"test_fraction must lie in (0, 1), got {self.test_fraction}")

    @property
    def told(self) -> str:
        """What differs from the defaults, as text; empty where nothing does."""
        return ", ".join(f"{name}={value!r}" for name, value in said_of(self).items())


TABLES = (".csv", ".tsv", ".data", ".parquet", ".arrow", ".feather", ".libsvm", ".svm", ".arff")
"""Endings of files that hold tables."""
AS_FOUND = Reading()
"""Nothing is said: a file is read in the one way in which it can be, or refused."""


def said_of(reading: Reading) -> dict[str, object]:
    """Returns the fields that differ from their defaults."""
    return {
        field.name: value
        for field in dataclasses.fields(reading)
        if (value := getattr(reading, field.name)) != field.default
    }


def is_table(path: Path) -> bool:
    """Returns whether a file is a table by its ending."""
    return (path.with_suffix("") if is_packed(path) else path).suffix.lower() in TABLES


def is_packed(path: Path) -> bool:
    """Returns whether a file is packed by gzip, by its ending."""
    return path.suffix.lower() == ".gz"
