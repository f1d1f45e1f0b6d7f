"""`unlearnkit run STUDY.toml`: a declared study, resumable, from the command line."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import jax
import tyro

from unlearnkit.io.files import write_json
from unlearnkit.io.provenance import provenance
from unlearnkit.io.text import escaped
from unlearnkit.records import Record, row_name
from unlearnkit.reporting import (
    RunFolder,
    read_run,
    report_page,
    to_markdown,
    verdicts_to_markdown,
    write_jsonl,
)
from unlearnkit.studies import (
    Cell,
    Declared,
    Store,
    cell_to_json,
    check,
    read_study,
    run,
    significance,
)


@dataclasses.dataclass(frozen=True)
class RunStudy:
    """Runs the study that a TOML file declares, and goes on where an earlier run was ended.

    Attributes:
      study: the TOML file; see unlearnkit.studies.read_study for what it holds.
      out: the folder of the results: table.md, verdicts.md, records.jsonl, report.html.
      store: the folder that keeps the results of stages; several runs may share it.
      reuse: any-version takes stages that another version of the program, its libraries or another
        device computed, where there are none of this one; the records say so.
      overwrite: replace the results of another study that --out holds; those of this one are made
        anew from the store in any case.
      only_check: check the study, say what it holds, and stop before any training.
      cache: keep compiled programs in the user's cache folder for the next time.
    """

    study: Annotated[Path, tyro.conf.Positional]
    out: Path = Path("runs/study")
    store: Path = Path("runs/store")
    reuse: Literal["any-version"] | None = None
    overwrite: bool = False
    only_check: bool = False
    cache: bool = True

    def __call__(self) -> int:
        """Returns the exit code: 0, or 1 where a cell failed or not all could be written."""
        started = time.perf_counter()
        declared = read_study(self.study)
        key = jax.random.key(declared.seed)
        check(declared.study, key)
        print(describe(declared))
        if self.only_check:
            return 0
        text = self.study.read_text(encoding="utf-8")
        header: dict[str, object] = {"study": text, "provenance": provenance()}
        again = self.overwrite or _holds(self.out, text)
        folder = RunFolder(self.out, header, overwrite=again)
        records: list[Record] = []
        store = Store(self.store, reuse=self.reuse)
        for record in run(declared.study, key, store=store, on_stage=_Lines(started)):
            folder.add(record)
            records.append(record)
            if record.problem is not None:
                print(f"  {escaped(row_name(record), 200)}: {escaped(record.problem, 300)}")
        return self._report(declared, records, header, folder, started)

    def _report(
        self,
        declared: Declared,
        records: list[Record],
        header: dict[str, object],
        folder: RunFolder,
        started: float,
    ) -> int:
        folder.write("table.md", to_markdown(records))
        folder.write("report.html", report_page(records, header, title=self.study.stem))
        write_jsonl(self.out / "records.jsonl", records)
        problems = [] if folder.problem is None else [f"not all was written: {folder.problem}"]
        if declared.primary is not None:
            try:
                cells = significance(records, declared.primary, correction=declared.correction)
            except ValueError as error:  # mended in the file, it costs only another run
                problems.append(f"no verdicts: {error}")
            else:
                self._write_verdicts(cells, header, folder, started)
        failed = sum(record.failed is not None for record in records)
        print(f"{len(records)} records in {self.out}" + (f", {failed} failed" if failed else ""))
        for problem in problems:
            print(escaped(problem, 2000))
        return int(failed > 0 or bool(problems))

    def _write_verdicts(
        self,
        cells: Sequence[Cell],
        header: dict[str, object],
        folder: RunFolder,
        started: float,
    ) -> None:
        table = verdicts_to_markdown(cells)
        folder.write("verdicts.md", table)
        said = {
            **header,
            "seconds": round(time.perf_counter() - started, 1),
            "cells": [cell_to_json(cell) for cell in cells],
        }
        write_json(self.out / "verdicts.json", said)
        print(table)


def _holds(folder: Path, study: str) -> bool:
    """Returns whether a folder holds results of this very study, finished or not."""
    with contextlib.suppress(OSError, ValueError):
        return bool(read_run(folder).get("study") == study)
    return False


def describe(declared: Declared) -> str:
    """Returns what a study holds, in a line."""
    study, named = declared.study, declared.study.named
    parts = {
        "datasets": len(named.data),
        "networks": len(named.networks),
        "recipes": len(named.recipes),
        "questions": len(named.forget) + len(named.attacks),
        "defences": len(study.defences),
        "methods": len(study.methods),
        "budgets": len(study.budgets),
        "audits": len(study.audits),
    }
    counts = [f"{count} {name}" for name, count in parts.items() if count]
    return f"{', '.join(counts)}, {study.seeds} seeds"


class _Lines:
    """Prints a line as each stage begins."""

    def __init__(self, started: float) -> None:
        self._started, self._stage = started, ""

    def __call__(self, stage: str, done: int, total: int) -> None:
        if stage != self._stage:
            elapsed = time.perf_counter() - self._started
            print(f"[{elapsed:6.1f} s] {escaped(stage, 200)}", flush=True)
        self._stage = stage
