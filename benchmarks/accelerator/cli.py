"""The command: `python -m benchmarks accelerator`."""

from __future__ import annotations

import argparse
import math
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import frame
from benchmarks.accelerator import images
from benchmarks.accelerator.job import Job, Outcome
from benchmarks.accelerator.jobs import JOBS
from benchmarks.accelerator.runner import RESERVE, Runner
from benchmarks.accelerator.store import Store, read_group

REHEARSAL = {
    "JAX_PLATFORMS": "cpu",
    "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
    "CUDA_VISIBLE_DEVICES": "",
}
"""Environment of a rehearsal, which computes little and compiles much, and leaves a card alone."""
RESULTS = frame.RESULTS / "accelerator"
"""Where the files of whole runs are committed."""
TRAIN, TEST = 256, 64
"""Examples of a rehearsal's datasets."""


def main(argv: Sequence[str], jobs: Sequence[Job] = JOBS) -> int:
    """Runs the jobs; returns the exit code: 0, 1 where a job failed, 2 for what cannot begin."""
    arguments = _parse(argv, jobs)
    chosen = [job for job in jobs if arguments.jobs is None or job.name in arguments.jobs]
    try:
        _check_minutes(arguments.minutes, chosen, rehearse=arguments.rehearse)
        store = Store(arguments.out, jobs, arguments.done, rehearse=arguments.rehearse)
        with tempfile.TemporaryDirectory(prefix="unlearnkit-") as folder:
            work = arguments.work or Path(folder)
            work.mkdir(parents=True, exist_ok=True)
            outcomes = _run(arguments, chosen, store, work)
    except (ValueError, OSError, RuntimeError) as error:
        print(f"error: {error}", flush=True)
        return 2
    print(make_table(store.outcomes(), outcomes), flush=True)
    return 1 if any(outcome.state in ("failed", "cut off") for outcome in outcomes) else 0


def _run(
    arguments: argparse.Namespace, jobs: Sequence[Job], store: Store, work: Path
) -> list[Outcome]:
    with Runner(
        store,
        work,
        seconds=60 * arguments.minutes,
        rehearse=arguments.rehearse,
        tell=lambda line: print(line, flush=True),
        environment=REHEARSAL if arguments.rehearse else None,
    ) as runner:
        if arguments.rehearse:
            _prepare_rehearsal(arguments.data, work)
            return runner.run(jobs)
        todo = [job for job in jobs if not store.has(job)]
        if not todo:
            return runner.run(jobs)
        if not arguments.data and any(job.data for job in todo):
            raise ValueError(
                "--data is needed: cifar10_jpeg.npz.xz, or an .npz with x_train, y_train, x_test "
                "and y_test; --rehearse does without"
            )
        runner.open_device(todo[0].flags)  # while the data are decoded
        images.prepare(arguments.data, work)
        device = runner.describe_device()
        if device["platform"] == "cpu":
            raise RuntimeError(
                "there is no accelerator here: jax sees only a CPU; install jax for your card, "
                "or rehearse the run by --rehearse"
            )
        print(f"{device['kind']}, {device['gigabytes']:.0f} GB for jax", flush=True)
        return runner.run(jobs)


def _prepare_rehearsal(files: Sequence[Path], work: Path) -> None:
    size = {"train": TRAIN, "test": TEST}
    if files:
        images.shorten(work, images.prepare(files, work), **size)
    else:
        images.make_noise(work, **size)


def _parse(argv: Sequence[str], jobs: Sequence[Job]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks accelerator", description=__doc__)
    add = parser.add_argument
    add("--minutes", type=float, help="the budget; default 8, and 5 for a rehearsal")
    add("--out", type=Path, required=True, help="folder for the results files")
    add("--done", type=Path, help="folder with results of earlier runs, which are kept")
    add("--data", type=Path, nargs="+", default=[], help="packed .npz.xz or .npz files")
    add("--jobs", nargs="+", help="only these", choices=[job.name for job in jobs], metavar="NAME")
    add("--rehearse", action="store_true", help="the same jobs at tiny sizes on a CPU")
    add("--work", type=Path, help="folder for data and compiled programs; default: a temporary one")
    arguments = parser.parse_args(argv)
    if arguments.minutes is None:
        arguments.minutes = 5.0 if arguments.rehearse else 8.0
    return arguments


def _check_minutes(minutes: float, jobs: Sequence[Job], *, rehearse: bool) -> None:
    least = min(job.estimate(rehearse) for job in jobs)
    if not 60 * minutes - RESERVE >= least:  # NaN is refused too
        raise ValueError(
            f"--minutes {minutes:g} is too short for any job; the shortest takes {least:.0f} s, "
            f"choose at least {math.ceil((least + RESERVE) / 6) / 10:g}"
        )


def list_jobs(jobs: Sequence[Job] = JOBS) -> str:
    """Returns the table of jobs with their estimates, for the README."""
    lines = ["| job | what it tells | estimate | file |", "| --- | --- | ---: | --- |"]
    for job in jobs:
        lines.append(f"| `{job.name}` | {job.about} | {job.seconds:.0f} s | `{job.group}.json` |")
    total = sum(job.seconds for job in jobs)
    lines.append(f"| all | | {total / 60:.0f} minutes | |")
    return "\n".join(lines) + "\n\nThe estimates are for an H100, compilation included.\n"


def tables(folder: Path = RESULTS) -> str:
    """Returns a section for each results file in a folder: what ran where, and the rows."""
    sections = []
    for path in sorted(folder.glob("*.json")):
        outcomes = [outcome for outcome in read_group(path) if not outcome.rehearsal]
        rows = [frame.row_from_json(row) for outcome in outcomes for row in outcome.rows]
        places = [
            f"{', '.join(o.job for o in outcomes if o.provenance == place)}: {place['date']}, "
            f"commit {place['commit']}, {place['device']}, jax {place['versions']['jax']}."
            for place in _provenances(outcomes)
        ]
        failures = [f"{o.job}: {o.state}, {_cell(o.note)}." for o in outcomes if o.state != "done"]
        text = "\n\n".join([*places, *failures, frame.markdown(rows)])
        sections.append(f"### accelerator, {path.stem}\n\n{text}\n")
    return "\n".join(sections)


def _provenances(outcomes: Sequence[Outcome]) -> list[dict[str, Any]]:
    """Returns the different ones, in order."""
    found: list[dict[str, Any]] = []
    for outcome in outcomes:
        if outcome.provenance is not None and outcome.provenance not in found:
            found.append(outcome.provenance)
    return found


def make_table(known: Sequence[Outcome], run: Sequence[Outcome]) -> str:
    """Returns the table of all jobs and, for each with rows, the table of these."""
    shown = {outcome.job: outcome for outcome in [*known, *run]}
    lines = ["", "| job | state | took | note |", "| --- | --- | ---: | --- |"]
    lines += [
        f"| {one.job} | {one.state} | {one.seconds:.0f} s | {_cell(one.note)} |"
        for one in shown.values()
    ]
    rows = [frame.row_from_json(row) for one in shown.values() for row in one.rows]
    return "\n".join([*lines, "", frame.markdown(rows), ""])


def _cell(text: str) -> str:
    return text.replace("\n", " ").replace("|", "/")
