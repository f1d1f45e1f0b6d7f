"""A run on disk: what was asked, what was measured, and the pages made from it."""

from __future__ import annotations

import io
import json
import shutil
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from unlearnkit.io.files import as_json, write_bytes, write_json, write_text
from unlearnkit.records import Record, record_from_dict, record_to_dict, row_name
from unlearnkit.reporting.escaping import slug

_RUN, _METRICS, _CURVES = "run.json", "metrics.jsonl", "curves"


class RunFolderError(RuntimeError):
    """The output folder cannot be used."""


class RunFolder:
    """Writes a run as it goes, so that what is done is never lost.

    The folder holds `run.json` (settings and provenance), `metrics.jsonl` (one line per record),
    `curves/` (one `.npz` a record, called by the method's name where that is a plain one), and the
    tables and pages made from these. A metric that is NaN is null there, an infinite one its name.
    When the disk fails during the run, the first error is kept in `problem`, and what was written
    stays.
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
            write_json(self.path / _RUN, as_json(run))
        except OSError as error:
            raise RunFolderError(
                f"cannot write to {self.path}: {error}; choose another folder"
            ) from error

    def add(self, record: Record) -> None:
        """Appends one record."""
        line = record_to_dict(record, curves=False)
        content = _npz_content(record.curves)
        try:
            with (self.path / _METRICS).open("a", encoding="utf-8") as file:
                file.write(json.dumps(as_json(line), allow_nan=False) + "\n")
            write_bytes(_curves_path(self.path, record), content)
        except OSError as error:
            self.problem = self.problem or error

    def write(self, name: str, text: str) -> None:
        """Writes a table or a page.

        Raises:
          ValueError: a name that leads out of the folder, or that the run itself has.
        """
        if Path(name).name != name or name in ("", ".", "..", _RUN, _METRICS, _CURVES):
            raise ValueError(
                f"a table or a page must have a plain file name other than {_RUN}, {_METRICS} and "
                f"{_CURVES}, got {name!r}"
            )
        try:
            write_text(self.path / name, text)
        except OSError as error:
            self.problem = self.problem or error


def read_run(path: str | Path) -> dict[str, Any]:
    """Returns the settings and the provenance of a run."""
    run: dict[str, Any] = json.loads((Path(path) / _RUN).read_text(encoding="utf-8"))
    return run


def read_records(path: str | Path) -> list[Record]:
    """Returns the records of a run; a last line that a crash cut short is left out."""
    folder = Path(path)
    records = []
    for text in (folder / _METRICS).read_text(encoding="utf-8").splitlines(keepends=True):
        if not text.endswith("\n"):
            break
        record = record_from_dict(json.loads(text))
        curves = _curves_path(folder, record)
        if curves.exists():
            record = record._replace(curves=dict(np.load(curves, allow_pickle=False)))
        records.append(record)
    return records


def _curves_path(folder: Path, record: Record) -> Path:
    return folder / _CURVES / f"{slug(row_name(record))}-{int(record.seed)}.npz"


def _npz_content(arrays: Mapping[str, Any]) -> bytes:
    """Returns the content of a `.npz` file; `numpy.savez` has names of its own that it refuses."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name, values in arrays.items():
            member = io.BytesIO()
            np.lib.format.write_array(member, np.asarray(values), allow_pickle=False)
            archive.writestr(f"{name}.npy", member.getvalue())
    return content.getvalue()


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
