"""The command line: `python -m unlearnkit verify LOG --data mnist --data-dir DIR`.

Exit codes: 0 the log is valid, 1 it is not, 2 it cannot be verified (unreadable, tampered with,
about other data, or arguments that make no sense).
"""

from __future__ import annotations

import dataclasses
import json
import secrets
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import jax
import tyro

from unlearnkit import data
from unlearnkit.base import Dataset
from unlearnkit.files import write_json, write_text
from unlearnkit.forging import Norm, calibrate, verify
from unlearnkit.reporting import verification_errors
from unlearnkit.training import read_trajectory

VALID, INVALID, UNREADABLE = 0, 1, 2


@dataclasses.dataclass(frozen=True)
class LogArguments:
    """A log of training, and the data that it is about.

    Attributes:
      log: the folder of the log.
      data: digits, mnist, fashion_mnist, cifar10, cifar100, svhn_cropped, an .npz, or a folder of
        images; normalised as the log says.
      split: train or test.
      data_dir: the folder of prepared datasets.
      norm: the measure of errors.
      seed: of what is drawn at random; without one it is drawn from the system's entropy.
    """

    log: Annotated[Path, tyro.conf.Positional]
    data: str
    split: str = "train"
    data_dir: Path | None = None
    norm: Norm = "l2"
    seed: int | None = None

    def load(self) -> Dataset:
        """Returns the data under the log's normalisation."""
        normalisation = read_trajectory(self.log).claim.data.normalisation
        return data.load(
            self.data, split=self.split, data_dir=self.data_dir, normalisation=normalisation
        )

    def key(self) -> jax.Array:
        """Returns the key of what is drawn at random."""
        return jax.random.key(secrets.randbits(32) if self.seed is None else self.seed)


@dataclasses.dataclass(frozen=True)
class Verify(LogArguments):
    """Replays a log of training and judges it.

    Attributes:
      tolerance: the largest error that is accepted; 0 wants every bit.
      calibration: what `calibrate --json` wrote, for its tolerance and its band of honest errors.
      steps: all, random:N segments, or top:Q of each epoch.
      head: what the log's head must be.
      at_once: segments in one batched call.
      json: a file for the report.
      figure: an SVG file for the errors.
    """

    tolerance: float | None = None
    calibration: Path | None = None
    steps: str = "all"
    head: str | None = None
    at_once: int = 1
    json: Path | None = None
    figure: Path | None = None

    def __call__(self) -> int:
        """Returns the exit code."""
        tolerance, band = self._accepted()
        report = verify(
            self.log,
            self.load(),
            tolerance=tolerance,
            norm=self.norm,
            steps=self.steps,
            key=self.key(),
            head=self.head,
            at_once=self.at_once,
        )
        print(report.summary())
        if self.json is not None:
            write_json(self.json, report.as_json())
        if self.figure is not None:
            errors = (report.errors, report.carried_errors)
            drawn = verification_errors(report.steps, *errors, tolerance, self.norm, band)
            write_text(self.figure, drawn)
        return VALID if report.valid else INVALID

    def _accepted(self) -> tuple[float, tuple[float, float] | None]:
        """Returns the tolerance, and the least and largest error of honest replays if known."""
        if self.calibration is None:
            return self.tolerance or 0.0, None
        found = json.loads(self.calibration.read_text(encoding="utf-8"))
        try:
            norm, proposed, (least, largest) = (found[n] for n in ("norm", "tolerance", "band"))
        except (KeyError, TypeError, ValueError):
            raise ValueError(f"{self.calibration} is not what calibrate --json writes") from None
        if norm != self.norm:
            raise ValueError(
                f"{self.calibration} was measured in {norm}, not {self.norm}; "
                f"give --norm {norm}, or calibrate anew"
            )
        return proposed if self.tolerance is None else self.tolerance, (least, largest)


@dataclasses.dataclass(frozen=True)
class Calibrate(LogArguments):
    """Measures how far honest replays of a log differ, and proposes a tolerance.

    Attributes:
      segments: how many are replayed.
      shuffles: orders of the batches that are tried.
      margin: the tolerance is so many times the largest benign error.
      json: a file for the result, which `verify --calibration` reads.
    """

    segments: int = 5
    shuffles: int = 100
    margin: float = 2.0
    json: Path | None = None

    def __call__(self) -> int:
        """Returns the exit code."""
        calibration = calibrate(
            self.key(),
            self.log,
            self.load(),
            norm=self.norm,
            segments=self.segments,
            shuffles=self.shuffles,
            margin=self.margin,
        )
        print(calibration.summary())
        if self.json is not None:
            write_json(self.json, calibration.as_json())
        return VALID


def run(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit code of a command line."""
    command = tyro.extras.subcommand_cli_from_dict(
        {"verify": Verify, "calibrate": Calibrate},
        prog="python -m unlearnkit",
        description=__doc__,
        args=None if arguments is None else list(arguments),
    )
    try:
        return command()
    except (ValueError, TypeError, OSError, ImportError) as error:
        print(f"cannot be verified: {error}", file=sys.stderr)
        return UNREADABLE


def main() -> None:
    """Runs the command line and exits."""
    sys.exit(run())
