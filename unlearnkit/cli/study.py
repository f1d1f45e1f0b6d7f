"""`unlearnkit run STUDY.toml`: a declared study, resumable, from the command line."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path
from typing import Annotated

import jax
import tyro

from unlearnkit.io.files import write_json
from unlearnkit.io.provenance import provenance
from unlearnkit.io.text import escaped
from unlearnkit.records import Record, row_name
from unlearnkit.reporting import (
    RunFolder,
    report_page,
    to_markdown,
    verdicts_to_markdown,
    write_jsonl,
)
from unlearnkit.studies import Declared, cell_to_json, check, read_study, run, significance


@dataclasses.dataclass(frozen=True)
class RunStudy:
    """Runs the study that a TOML file declares, and goes on where an earlier run was ended.

    Attributes:
      study: the TOML file; see unlearnkit.studies.read_study for what it holds.
      out: the folder of the results: table.md, verdicts.md, records.jsonl, report.html.
      store: the folder that keeps the results of stages; several runs may share it.
      overwrite: replace the results that --out holds; the store stays.
      only_check: check the study, say what it holds, and stop before any training.
      cache: keep compiled programs in the user's cache folder for the next time.
    """

    study: Annotated[Path, tyro.conf.Positional]
    out: Path = Path("runs/study")
    store: Path = Path("runs/store")
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
        header: dict[str, object] = {
            "study": self.study.read_text(encoding="utf-8"),
            "provenance": provenance(),
        }
        folder = RunFolder(self.out, header, overwrite=self.overwrite)
        records: list[Record] = []
        for record in run(declared.study, key, store=self.store, on_stage=_Lines(started)):
            folder.add(record)
            records.append(record)
            if record.problem is not None:
                print(f"  {escaped(row_name(record), 200)}: {escaped(record.problem, 300)}")
        records.sort(key=lambda record: record.seed)
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
        if declared.primary is not None:
            cells = significance(records, declared.primary, correction=declared.correction)
            table = verdicts_to_markdown(cells)
            folder.write("verdicts.md", table)
            said = {**header, "seconds": round(time.perf_counter() - started, 1)}
            described = [cell_to_json(cell) for cell in cells]
            write_json(self.out / "verdicts.json", {**said, "cells": described})
            print(table)
        failed = sum(record.failed is not None for record in records)
        print(f"{len(records)} records in {self.out}" + (f", {failed} failed" if failed else ""))
        if folder.problem is not None:
            print(f"not all was written: {folder.problem}")
        return int(failed > 0 or folder.problem is not None)


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
