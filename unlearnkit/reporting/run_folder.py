"""A run on disk: what was asked, what was measured, and the pages made from it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from unlearnkit.base import Cost, Record
from unlearnkit.files import write_json, write_text

_RUN, _METRICS, _CURVES = "run.json", "metrics.jsonl", "curves"


class RunFolderError(RuntimeError):
    """The output folder cannot be used."""


class RunFolder:
    """Writes a run as it goes, so that what is done is never lost.

    The folder holds `run.json` (settings and provenance), `metrics.jsonl` (one line a record),
    `curves/` (one `.npz` a record), and the tables and pages made from these. When the disk fails
    during the run, the first error is kept in `problem`, and what was written stays.
    """

    def __init__(self, path: str | Path, run: Mapping[str, Any], *, overwrite: bool = False):
        """Claims the folder before anything is computed.

        Args:
          path: the folder; made if it is not there.
          run: JSON values: settings and provenance.
          overwrite: whether a folder that holds another run is emptied.

        Raises:
          RunFolderError: the folder holds another run or other files, or cannot be written.
        """
        self.path = Path(path)
        self.problem: OSError | None = None
        _claim(self.path, overwrite=overwrite)
        try:
            (self.path / _CURVES).mkdir(parents=True, exist_ok=True)
            write_json(self.path / _RUN, dict(run))
        except OSError as error:
            raise RunFolderError(
                f"cannot write to {self.path}: {error}; choose another folder"
            ) from error

    def add(self, record: Record) -> None:
        """Appends one record."""
        line = {
            "method": record.method,
            "seed": record.seed,
            "diverged": record.diverged,
            "metrics": dict(record.metrics),
            "cost": record.cost._asdict(),
        }
        try:
            with (self.path / _METRICS).open("a", encoding="utf-8") as file:
                file.write(json.dumps(line, allow_nan=False) + "\n")
            curves: Any = {name: np.asarray(values) for name, values in record.curves.items()}
            np.savez(self.path / _CURVES / f"{record.method}-{record.seed}.npz", **curves)
        except OSError as error:
            self.problem = self.problem or error

    def write(self, name: str, text: str) -> None:
        """Writes a table or a page."""
        try:
            write_text(self.path / name, text)
        except OSError as error:
            self.problem = self.problem or error


def read_run(path: str | Path) -> dict[str, Any]:
    """Returns the settings and the provenance of a run."""
    return json.loads((Path(path) / _RUN).read_text(encoding="utf-8"))


def read_records(path: str | Path) -> list[Record]:
    """Returns the records of a run; a last line that a crash cut short is left out."""
    folder = Path(path)
    records = []
    for text in (folder / _METRICS).read_text(encoding="utf-8").splitlines(keepends=True):
        if not text.endswith("\n"):
            break
        line = json.loads(text)
        curves = folder / _CURVES / f"{line['method']}-{line['seed']}.npz"
        records.append(
            Record(
                line["method"],
                line["seed"],
                line["metrics"],
                Cost(**line["cost"]),
                line["diverged"],
                dict(np.load(curves, allow_pickle=False)) if curves.exists() else {},
            )
        )
    return records


def _claim(path: Path, *, overwrite: bool) -> None:
    if path.exists() and not path.is_dir():
        raise RunFolderError(f"{path} is a file; choose a folder")
    if not path.exists() or not any(path.iterdir()):
        return
    if not (path / _RUN).exists():
        raise RunFolderError(
            f"{path} holds files that are no run's; choose an empty or a new folder"
        )
    if not overwrite:
        raise RunFolderError(
            f"{path} holds another run; choose another folder, or give --overwrite to replace it"
        )
    shutil.rmtree(path)
