"""The results files: one small JSON file per group of jobs, whole at any moment."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Sequence
from pathlib import Path

from benchmarks.accelerator.job import Job, Outcome
from unlearnkit.io.files import write_json

MOST_FILES = 8


class Store:
    """Keeps the outcomes of jobs in a folder, and begins with what an earlier run did.

    Args:
      folder: where the files go; it is made.
      jobs: all jobs, in order.
      done: a folder with the files of earlier runs; their finished jobs are carried over.
      rehearse: whether this run's sizes are tiny; outcomes of the other kind do not count.

    Raises:
      ValueError: the folder cannot be written, `done` is none, or there are too many groups.
    """

    def __init__(self, folder: Path, jobs: Sequence[Job], done: Path | None, *, rehearse: bool):
        groups = list(dict.fromkeys(job.group for job in jobs))
        if len(groups) > MOST_FILES:
            raise ValueError(f"at most {MOST_FILES} results files may be made, got {len(groups)}")
        _check_writable(folder)
        self.folder = folder
        self._groups = {job.name: job.group for job in jobs}
        self._outcomes: dict[str, Outcome] = {}
        for source in () if done is None else (done,):
            if not source.is_dir():
                raise ValueError(f"--done must name a folder of results, got {source}")
            for group in groups:
                for outcome in read_group(source / f"{group}.json"):
                    if outcome.state == "done" and outcome.rehearsal == rehearse:
                        self._outcomes[outcome.job] = outcome

    def has(self, job: Job) -> bool:
        """Whether an earlier run finished this job."""
        return job.name in self._outcomes and self._outcomes[job.name].state == "done"

    def put(self, outcome: Outcome) -> Path:
        """Keeps an outcome, and writes the file of its group anew; returns its path."""
        self._outcomes[outcome.job] = outcome
        group = self._groups[outcome.job]
        members = [
            dataclasses.asdict(self._outcomes[name])
            for name, of in self._groups.items()
            if of == group and name in self._outcomes
        ]
        path = self.folder / f"{group}.json"
        write_json(path, {"jobs": members})
        return path

    def outcomes(self) -> list[Outcome]:
        """Returns all that is known, in the order of the jobs."""
        return [self._outcomes[name] for name in self._groups if name in self._outcomes]


def read_group(path: Path) -> list[Outcome]:
    """Returns the outcomes in a results file; none where there is no such file.

    Raises:
      ValueError: the file is no results file.
    """
    if not path.is_file():
        return []
    try:
        return [Outcome(**record) for record in json.loads(path.read_text("utf-8"))["jobs"]]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is no results file of this command ({error!r})") from None


def _check_writable(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".probe-{os.getpid()}"
        probe.write_text("")
        probe.unlink()
    except OSError as error:
        raise ValueError(
            f"--out {folder} cannot be written ({error.strerror}); name a folder that can"
        ) from None
