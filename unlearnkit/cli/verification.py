"""`unlearnkit verify LOG` and `calibrate LOG`: a log of training, judged from files."""

from __future__ import annotations

import dataclasses
import json
import os
import secrets
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from unlearnkit.cli.interruption import Interruption
from unlearnkit.reading import AS_FOUND, Reading

if TYPE_CHECKING:
    import jax
    import numpy as np

    from unlearnkit.base import Dataset, Model
    from unlearnkit.forging import Calibration

EXIT_CODES = {"VALID": 0, "INVALID": 1, "UNREADABLE": 2, "INCOMPLETE": 3, "UNPROVEN": 4}
"""Of each `forging.Verdict`."""
Norm = Literal["l2", "l2_squared", "l2_squared_per_parameter", "linf", "cosine"]
"""As `forging.Norm`, without what that imports."""


@dataclasses.dataclass(frozen=True)
class LogArguments:
    """A log of training, and the data that it is about.

    Attributes:
      log: the folder of the log.
      data: digits, mnist, fashion_mnist, cifar10, cifar100, svhn_cropped, an .npz, or a folder of
        images; normalised as the log says. Of these, the examples that the log names are taken.
      split: train or test.
      rows: a .npy, .json or .txt file: the rows of the split that the log must be about, in its
        order; without it they are found, and reported.
      model: package.module:factory, a function that returns the network, where the log has no
        name that makes it; it may take input_shape and n_classes.
      data_dir: the folder of prepared datasets.
      reading: how files of your own are read that do not say it themselves.
      norm: the measure of errors.
      seed: of what is drawn at random, 0 to 4294967295; without one it is drawn from the system's
        entropy, so that it cannot be predicted.
      cache: keep compiled programs in the user's cache folder for the next time.
    """

    log: Annotated[Path, tyro.conf.Positional]
    data: str
    split: str = "train"
    rows: Path | None = None
    model: str | None = None
    data_dir: Path | None = None
    reading: tyro.conf.OmitArgPrefixes[Reading] = AS_FOUND
    norm: Norm = "l2"
    seed: int | None = None
    cache: bool = True

    def load(self) -> Dataset:
        """Returns the log's examples under its normalisation."""
        found, rows = self.find()
        return found.take(rows)

    def find(self) -> tuple[Dataset, np.ndarray]:
        """Returns the data under the log's normalisation, and its rows that the log is about."""
        import numpy as np

        from unlearnkit import data
        from unlearnkit.data.indices import as_indices
        from unlearnkit.data.lists import read_positions
        from unlearnkit.forging import match_rows
        from unlearnkit.training import read_trajectory

        log = read_trajectory(self.log)
        found = data.load(
            self.data,
            split=self.split,
            data_dir=self.data_dir,
            reading=self.reading,
            normalisation=log.claim.data.normalisation,
        )
        if self.rows is not None:
            return found, _check_rows(as_indices(read_positions(self.rows), name="rows"), found)
        rows = match_rows(log, found)
        named, order = np.unique(rows), "in their order"
        if not np.array_equal(rows, np.arange(len(rows))):
            order = "in another order"
        print(f"data: {len(named)} of the {found.size} rows of {self.data} {self.split}, {order}")
        return found, rows

    def network(self) -> Model | None:
        """Returns the network that --model makes, None without one."""
        return None if self.model is None else _make_model(self.model, self.log)

    def key(self) -> jax.Array:
        """Returns the key of what is drawn at random."""
        import jax

        seed = secrets.randbits(32) if self.seed is None else self.seed
        if not 0 <= seed < 2**32:
            raise ValueError(f"seed must be in 0 … {2**32 - 1}, got {seed}")
        return jax.random.key(seed)


@dataclasses.dataclass(frozen=True)
class Verify(LogArguments):
    """Replays a log of training and judges it.

    Attributes:
      tolerance: the largest error of the weights that is accepted; 0 wants every bit.
      calibration: what `calibrate --json` wrote about this log, for its limits and its band of
        honest errors.
      steps: all, random:N segments, top:Q of each epoch, or top:Q+random:N.
      start: a file that save_variables wrote: the weights that a run from pretrained weights must
        have begun at; without it such a log is UNPROVEN.
      head: what the log's head must be.
      at_once: segments in one batched call.
      json: a file for the report.
      figure: an SVG file for the errors.
    """

    tolerance: float | None = None
    calibration: Path | None = None
    steps: str = "all"
    start: Path | None = None
    head: str | None = None
    at_once: int = 1
    json: Path | None = None
    figure: Path | None = None

    def __call__(self, interruption: Interruption) -> int:
        """Returns the exit code."""
        from unlearnkit.forging import verify
        from unlearnkit.io.files import write_json, write_text
        from unlearnkit.training import load_variables

        check_outputs(self.json, self.figure)
        key, calibration = self.key(), self._calibration()
        start = None if self.start is None else load_variables(self.start)
        report = verify(
            self.log,
            self.load(),
            tolerance=self.tolerance,
            calibration=calibration,
            norm=self.norm,
            steps=self.steps,
            model=self.network(),
            start=start,
            key=key,
            head=self.head,
            at_once=self.at_once,
        )
        print(report.summary())
        if self.json is not None:
            write_json(self.json, report.as_json())
        if self.figure is not None:
            from unlearnkit.reporting import to_svg, verification_chart

            errors = (report.errors, report.carried_errors)
            band = None if calibration is None else calibration.band
            drawn = verification_chart(report.steps, *errors, report.tolerance, self.norm, band)
            write_text(self.figure, to_svg(drawn))
        return EXIT_CODES[report.verdict]

    def _calibration(self) -> Calibration | None:
        if self.calibration is None:
            return None
        from unlearnkit.forging import Calibration

        try:
            found = Calibration.from_json(json.loads(self.calibration.read_text(encoding="utf-8")))
        except ValueError:
            raise ValueError(f"{self.calibration} is not what calibrate --json writes") from None
        if found.norm != self.norm:
            raise ValueError(
                f"{self.calibration} was measured in {found.norm}, not {self.norm}; "
                f"give --norm {found.norm}, or calibrate anew"
            )
        return found


@dataclasses.dataclass(frozen=True)
class Calibrate(LogArguments):
    """Measures how far honest replays of a log differ, and proposes limits for `verify`.

    Attributes:
      segments: how many are replayed.
      shuffles: orders of the batches that are tried.
      margin: the limits are so many times the largest benign errors.
      json: a file for the result, which `verify --calibration` reads.
    """

    segments: int = 5
    shuffles: int = 100
    margin: float = 2.0
    json: Path | None = None

    def __call__(self, interruption: Interruption) -> int:
        """Returns the exit code."""
        from unlearnkit.forging import calibrate
        from unlearnkit.io.files import write_json

        check_outputs(self.json)
        calibration = calibrate(
            self.key(),
            self.log,
            self.load(),
            norm=self.norm,
            model=self.network(),
            segments=self.segments,
            shuffles=self.shuffles,
            margin=self.margin,
        )
        print(calibration.summary())
        if self.json is not None:
            write_json(self.json, calibration.as_json())
        return 0


def check_outputs(*paths: Path | None) -> None:
    """Raises an error for files that could not be written, before anything is computed.

    Raises:
      FileNotFoundError: no such folder.
      PermissionError: a folder in the place of a file, or one that may not be written.
    """
    for path in paths:
        if path is None:
            continue
        folder = path.parent
        if not folder.is_dir():
            raise FileNotFoundError(f"there is no folder {folder} for {path.name}; make it first")
        if path.is_dir() or not os.access(folder, os.W_OK):
            raise PermissionError(f"{path} cannot be written; name another file")


def _check_rows(rows: np.ndarray, dataset: Dataset) -> np.ndarray:
    import numpy as np

    if rows.dtype == np.bool_ and len(rows) == dataset.size:
        return np.flatnonzero(rows)
    if rows.dtype == np.bool_ or rows.min() < 0 or rows.max() >= dataset.size:
        raise ValueError(
            f"rows must be integers in 0 … {dataset.size - 1}, or {dataset.size} booleans"
        )
    return rows


def _make_model(text: str, log: Path) -> Model:
    """Returns what the function package.module:factory makes, of the network that a log names."""
    from unlearnkit import models
    from unlearnkit.training import read_trajectory

    network = read_trajectory(log).claim.network
    if ":" not in text:
        raise ValueError(f"model must be package.module:factory, got {text!r}")
    return models.create(text, input_shape=network.input_shape, n_classes=network.n_classes)
