"""Runs a study for the command line: progress, results, and what to say in the end."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import shlex
import time
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal

import jax
import numpy as np
from rich.console import Console

from unlearnkit.base import Dataset, Normalisation, Poisoned
from unlearnkit.cli.interruption import Interruption
from unlearnkit.cli.study import NOT_FINISHED
from unlearnkit.io.files import write_bytes, write_json, write_text
from unlearnkit.io.provenance import provenance
from unlearnkit.io.text import escaped
from unlearnkit.io.warned import collect_warnings
from unlearnkit.records import Cell, Record, record_to_dict, row_name
from unlearnkit.registry import tell_known
from unlearnkit.reporting import (
    Gallery,
    ReportOptions,
    RunFolder,
    RunFolderError,
    StageProgress,
    read_records,
    read_run,
    report_figures,
    report_page,
    to_latex,
    to_markdown,
    to_picture,
    to_rich,
    verdicts_to_markdown,
    verdicts_to_text,
    write_jsonl,
)
from unlearnkit.reporting.theme import Format
from unlearnkit.studies import (
    Declared,
    Store,
    Unfinished,
    cell_to_json,
    check,
    count_records,
    forgotten_of,
    parse_executor,
    parse_shard,
    parse_study,
    run,
    significance,
)
from unlearnkit.studies.running import check_minutes
from unlearnkit.studies.significance import Correction
from unlearnkit.studies.stage_cache import UnkeptWarning
from unlearnkit.studies.store.claims import locked

_LONGEST = 2000
AT_ONCE = 1e-9
"""Minutes in which nothing is computed."""
_UNWRITTEN = "not all was written"


@dataclasses.dataclass(frozen=True)
class Asked:
    """A study that is to be run.

    Attributes:
      text: of its TOML file.
      name: of the text, for errors.
      out: the folder of the results.
      store: the folder of the stages.
      reuse: see `Store`.
      executor: see `studies.parse_executor`.
      shard: see `studies.parse_shard`; None for the whole study.
      minutes: see `studies.run`.
      as_json: whether the outcome is printed as JSON.
      title: of table and page; None takes the folder's name.
    """

    text: str
    name: str
    out: Path
    store: Path
    reuse: Literal["any-version"] | None = None
    executor: str = "serial"
    shard: str | None = None
    minutes: float | None = None
    as_json: bool = False
    title: str | None = None


def run_study(
    asked: Asked,
    interruption: Interruption,
    *,
    overwrite: bool = False,
    only_check: bool = False,
    preview: bool = False,
) -> int:
    """Runs a study, writes and prints its results; returns the exit code.

    Args:
      asked: the study.
      interruption: is told how to go on.
      overwrite: whether results of another study are replaced.
      only_check: whether to stop before any training.
      preview: whether a table is printed as soon as the first seed has been answered.
    """
    started = time.perf_counter()
    check_minutes(asked.minutes)
    executor = parse_executor(asked.executor)
    shard = None if asked.shard is None else parse_shard(asked.shard)
    out = _folder_of(asked.out, shard)
    declared = parse_study(asked.text, name=asked.name)
    key = jax.random.key(declared.seed)
    check(declared.study, key)
    total = count_records(declared.study, shard)
    if not asked.as_json:
        print(describe(declared))
    if only_check:
        if asked.as_json:
            print(json.dumps({"checked": True, "records": total}))
        return 0
    header: dict[str, object] = {
        "study": asked.text,
        "n_records": total,
        **({} if asked.shard is None else {"shard": asked.shard}),
        "provenance": provenance(),
    }
    with written_by_one(out):
        again = overwrite or holds_study(out, asked.text)
        # Where the store is, is of this machine alone: for `resume`, and on no page.
        there = {**header, "store": str(asked.store.absolute())}
        folder = RunFolder(out, there, overwrite=again)
        store = Store(asked.store, reuse=asked.reuse)
        store.remember(asked.text)
        go_on = f"go on with: unlearnkit resume {shlex.quote(str(out))}"
        interruption.how = f"what is done is kept; {go_on}"
        records, unkept = list[Record](), list[str]()
        with (
            StageProgress(total=total) as progress,
            until_unfinished() as unfinished,
            collect_warnings(unkept, UnkeptWarning),
        ):
            for record in run(
                declared.study,
                key,
                store=store,
                on_stage=progress,
                checked=True,
                executor=executor,
                shard=shard,
                minutes=asked.minutes,
            ):
                if preview and record.seed == 1 and records[-1].seed == 0:
                    progress.show(_preview(records, declared.study.seeds, progress.width))
                folder.add(record)
                records.append(record)
                progress.advance()
                if record.problem is not None:
                    said = f"{escaped(row_name(record))}: {escaped(record.problem, 300)}"
                    progress.say(said)
        header["seconds"] = round(time.perf_counter() - started, 1)
        if unfinished:
            return _say_unfinished(asked, out, len(records), total, go_on)
        # A shard has not all seeds that a verdict needs.
        primary = declared.primary if shard is None else None
        results = Results(out, records, header, primary, declared.correction)
        if not asked.as_json:
            results.print_table(title=asked.title)
        problems = results.write(title=asked.title)
        if folder.problem is not None and not any(p.startswith(_UNWRITTEN) for p in problems):
            problems.insert(0, f"{_UNWRITTEN}: {folder.problem}")
        if unkept:
            more = f" (and {len(unkept) - 1} more stages)" if len(unkept) > 1 else ""
            problems.insert(0, f"not all is in the store: {unkept[0]}{more}")
        results.print_outcome(problems, as_json=asked.as_json)
        return int(results.failed > 0 or bool(problems))


@contextlib.contextmanager
def written_by_one(out: Path) -> Iterator[None]:
    """Holds the folder of the results, so that no other process mixes its own into them.

    Raises:
      RunFolderError: another process holds it.
    """
    with contextlib.ExitStack() as held:
        mine = True
        with contextlib.suppress(OSError):  # no locks; or no folder, which is told in a moment
            place = out.absolute()
            place.parent.mkdir(parents=True, exist_ok=True)
            path = place.with_name(f".{place.name}.running")
            mine = held.enter_context(locked([path], wait=False))
        if not mine:
            raise RunFolderError(
                f"another process writes its results to {out} now; wait for it, or choose another "
                "folder by --out: the stages of both may be in one --store"
            )
        yield


@contextlib.contextmanager
def until_unfinished() -> Iterator[list[Unfinished]]:
    """Yields a list that holds the reason where the time was over before the study was."""
    found: list[Unfinished] = []
    try:
        yield found
    except Unfinished as error:
        found.append(error)


def _say_unfinished(asked: Asked, out: Path, done: int, total: int, go_on: str) -> int:
    if asked.as_json:
        print(json.dumps({"out": str(out), "records": done, "n_records": total, "finished": False}))
    else:
        print(f"{asked.minutes:g} minutes are over: {done} of {total} records are there; {go_on}")
    return NOT_FINISHED


def _folder_of(out: Path, shard: tuple[int, int] | None) -> Path:
    """Returns the folder of a shard's results, which is that of the study where there is none."""
    if shard is None:
        return out
    suffix = f"-shard-{shard[0]}-of-{shard[1]}"
    return out if out.name.endswith(suffix) else out.with_name(out.name + suffix)


def report_again(
    out: Path,
    header: Mapping[str, object],
    *,
    primary: str | None,
    as_json: bool,
    pictures: Pictures | None = None,
    show_examples: bool = False,
) -> int:
    """Makes the pages of a folder anew from its records; returns the exit code.

    Args:
      out: the folder.
      header: what its `run.json` says.
      primary: the metric of the verdicts, in the place of the study's own.
      as_json: whether the records are printed.
      pictures: figures that are written as files besides.
      show_examples: whether the page shows forgotten examples and their scores.
    """
    said = tomllib.loads(str(header["study"]))
    records = read_records(out) if (out / "metrics.jsonl").exists() else []
    if not records:
        raise ValueError(f"{out} holds no records yet; go on with: unlearnkit resume {out}")
    metric = primary or (said.get("primary") if "shard" not in header else None)
    shown = {name: value for name, value in header.items() if name != "store"}
    results = Results(out, records, shown, metric, said.get("correction", "holm"))
    if show_examples:
        results.show_examples(galleries_of(header))
    total = header.get("n_records")
    # A page says that a study is finished.
    problems = results.write(page=not isinstance(total, int) or len(records) >= total)
    if pictures is not None:
        problems += results.write_pictures(pictures)
    if as_json:
        for record in records:
            print(json.dumps(record_to_dict(record, curves=False), default=float))
    else:
        results.print_table()
        results.print_outcome(problems)
    return int(results.failed > 0 or bool(problems))


@dataclasses.dataclass(frozen=True)
class Pictures:
    """Figures of a report that are wanted as files.

    Attributes:
      folder: where.
      form: svg, png or pdf.
      only: their names; all where empty.
    """

    folder: Path
    form: Format = "svg"
    only: tuple[str, ...] = ()


class Results:
    """The records of a study, and what is made of them."""

    def __init__(
        self,
        out: Path,
        records: Sequence[Record],
        header: Mapping[str, object],
        primary: str | None,
        correction: Correction,
    ) -> None:
        """Judges the records.

        Args:
          out: the folder.
          records: of the study.
          header: of the study.
          primary: the metric of the verdicts; None for none.
          correction: of their p-values.
        """
        self.out, self.records, self.header = out, records, header
        self.correction = correction
        self._examples: Sequence[Gallery] | None = None
        self.failed = sum(record.failed is not None for record in records)
        self.primary = primary
        self.cells: list[Cell] = []
        self._problems: list[str] = []
        if primary is not None:
            try:
                self.cells = significance(records, primary, correction=correction)
            except ValueError as error:  # mended in the study, it costs only another run
                self._problems.append(f"no verdicts: {error}")

    def show_examples(self, galleries: Sequence[Gallery] = ()) -> None:
        """Has the page show forgotten examples, with these pictures of them."""
        self._examples = galleries

    def write(self, *, title: str | None = None, page: bool = True) -> list[str]:
        """Writes all but the records themselves; returns what went wrong.

        Args:
          title: of the page.
          page: whether there is to be one.
        """
        problems = list(self._problems)
        try:
            write_text(self.out / "table.md", to_markdown(self.records))
            write_text(self.out / "table.tex", to_latex(self.records))
            write_jsonl(self.out / "records.jsonl", self.records)
            if self.cells:
                write_text(self.out / "verdicts.md", verdicts_to_markdown(self.cells))
                cells = [cell_to_json(cell) for cell in self.cells]
                write_json(self.out / "verdicts.json", {**self.header, "cells": cells})
            if page:
                named = title or self.out.name
                text = report_page(self.records, self.header, title=named, options=self._options())
                write_text(self.out / "report.html", text)
        except OSError as error:
            problems.append(f"{_UNWRITTEN}: {error}")
        return problems

    def write_pictures(self, asked: Pictures) -> list[str]:
        """Writes figures of the report as files; returns what went wrong.

        Args:
          asked: which, as what, and where.

        Raises:
          ValueError: a figure that the report does not have.
        """
        drawn = {each.name: each.chart for each in report_figures(self.records, self._options())}
        for name in asked.only:
            if name not in drawn:
                raise ValueError(f"unknown figure {name!r}; {tell_known(name, list(drawn))}")
        try:
            asked.folder.mkdir(parents=True, exist_ok=True)
            for name in asked.only or tuple(drawn):
                content = to_picture(drawn[name], asked.form)
                write_bytes(asked.folder / f"{name}.{asked.form}", content)
        except OSError as error:
            return [f"{_UNWRITTEN}: {error}"]
        return []

    def _options(self) -> ReportOptions:
        """Returns what the report is made with; no page says where a folder of this machine is."""
        folder = self.out.name if self.out.is_absolute() else str(self.out)
        more = "" if self._examples is None else " --show-examples"
        return ReportOptions(
            cells=self.cells,
            primary=self.primary if self.cells else None,
            correction=self.correction,
            command=f"unlearnkit report {shlex.quote(folder)}{more}",
            show_examples=self._examples is not None,
            galleries=self._examples or (),
        )

    def print_table(self, *, title: str | None = None) -> None:
        """Prints the table and the verdicts.

        Args:
          title: of the table; None takes the folder.
        """
        console = Console()
        console.print(to_rich(self.records, title=title or str(self.out), width=console.width))
        if self.cells:
            print(f"{self.primary}: distance to Retrain, 95 % interval of the difference")
            print(verdicts_to_text(self.cells), flush=True)

    def print_outcome(self, problems: Sequence[str], *, as_json: bool = False) -> None:
        """Prints where everything is, and what went wrong.

        Args:
          problems: that there were.
          as_json: whether as one line of JSON.
        """
        if as_json:
            said = {
                "out": str(self.out),
                "records": len(self.records),
                "finished": True,
                "failed": self.failed,
                "problems": list(problems),
                "seconds": self.header.get("seconds"),
                "verdicts": [cell_to_json(cell) for cell in self.cells],
            }
            print(json.dumps(said, default=float))
            return
        failed = f", {self.failed} failed" if self.failed else ""
        print(f"{len(self.records)} records in {self.out}{failed}")
        for problem in problems:
            print(escaped(problem, _LONGEST))
        if (self.out / "report.html").exists():
            print(f"open {self.out / 'report.html'}")


def galleries_of(header: Mapping[str, object], *, most: int = 24) -> list[Gallery]:
    """Returns pictures of what was to be forgotten on the first seed, where the data are images.

    Poisons are read from the store of the run; nothing is computed anew, so that those that the
    store no longer holds are left out.

    Args:
      header: what `run.json` says.
      most: pictures of each question.
    """
    declared = parse_study(str(header["study"]), name="the study")
    key = jax.random.key(declared.seed)
    found = dict(forgotten_of(declared.study, key))
    poisoned: dict[str, Dataset] = {}

    def keep(name: str, seed: int, made: Poisoned) -> None:
        if seed == 0:
            poisoned.setdefault(name, made.dataset.take(np.flatnonzero(made.is_poison)))

    store = Path(str(header.get("store") or ""))
    if declared.study.attacks and (store / "store.json").exists():
        with until_unfinished():
            for _ in run(
                declared.study, key, store=store, minutes=AT_ONCE, on_poisoned=keep, checked=True
            ):
                pass
    sets = [(name, "To be forgotten", data) for name, data in found.items()]
    sets += [(name, "Poisons", data) for name, data in poisoned.items()]
    return [
        Gallery(
            f"{what}: {name}",
            f"The first {min(most, data.size)} of {data.size}, of seed 0; with their labels.",
            {
                f"{i}: class {int(data.y[i])}": pixels_of(data, i)
                for i in range(min(most, data.size))
            },
        )
        for name, what, data in sets
        if data.x.ndim == 4 and data.x.shape[-1] in (1, 3)
    ]


def pixels_of(data: Dataset, row: int) -> np.ndarray:
    """Returns an image of a dataset as pixels in [0, 1], [h, w, c]."""
    assert isinstance(data.normalisation, Normalisation)
    pixels: np.ndarray = np.clip(np.asarray(data.normalisation.invert(data.x[row])), 0, 1)
    return pixels


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
    parts["seeds"] = study.seeds
    counts = [_counted(count, name) for name, count in parts.items() if count]
    return f"{', '.join(counts)}: {_counted(count_records(study), 'records')}"


def _counted(count: int, plural: str) -> str:
    return f"{count} {plural if count != 1 else plural.removesuffix('s')}"


def _preview(records: Sequence[Record], seeds: int, width: int) -> object:
    return to_rich(records, title=f"after 1 of {seeds} seeds:", width=width)


def holds_study(folder: Path, study: str) -> bool:
    """Returns whether a folder holds results of this very study, finished or not."""
    with contextlib.suppress(OSError, ValueError):
        return bool(read_run(folder).get("study") == study)
    return False
