"""`unlearnkit run`, `resume`, `status` and `report`: a declared study."""

from __future__ import annotations

import dataclasses
import json
import time
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from unlearnkit.cli.declaring import declare
from unlearnkit.cli.interruption import Interruption
from unlearnkit.io.text import escaped

if TYPE_CHECKING:
    from unlearnkit.cli.running import Asked

OUT, STORE = Path("runs/study"), Path("runs/store")
DONE, SOME_FAILED, NOT_FINISHED = 0, 1, 3
_RECIPE = ("epochs=40", "batch_size=32")
Names = tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Running:
    """What running and going on have in common.

    Attributes:
      reuse: any-version takes stages that another version of the program, its libraries or another
        device computed, where there are none of this one; the records say so.
      executor: where the parts of the study are computed: serial (here), processes:4, dask:4 for a
        local cluster, or dask://HOST:PORT; all workers must see the store.
      minutes: after which no further stage begins; `resume` goes on.
      json: print the outcome as JSON.
      cache: keep compiled programs in the user's cache folder for the next time.
    """

    reuse: Literal["any-version"] | None = None
    executor: str = "serial"
    minutes: float | None = None
    json: bool = False
    cache: bool = True


@dataclasses.dataclass(frozen=True)
class Run(Running):
    """Runs a study: of a TOML file, or declared by options.

    An entry of --data, --networks, --attacks, --defences, --methods and --audits is a name, or
    name:setting=value,setting=value. `unlearnkit list` has the names, `unlearnkit show NAME` the
    settings. Where an earlier run of the same study was ended, this one goes on.

    Attributes:
      study: the TOML file, in the place of the options that declare one.
      data: datasets, or paths of .npz files and folders of images; digits by default.
      networks: mlp by default.
      recipe: settings of the training; epochs=40 batch_size=32 by default.
      forget: requests, as random:0.1, random:500, within:3:0.5, class:3 or file:PATH; random:0.1 by
        default where there are no attacks.
      attacks: whose poisons are to be forgotten.
      defences: that stand between the attacks and the methods.
      methods: unlearners, or `all`.
      audits: more of them than those that are asked anyway.
      seeds: repetitions; 1 by default.
      seed: of the key that decides everything; 0 by default.
      budget: shares of Retrain's example-gradients that methods may take.
      primary: the metric of the verdicts; average_gap by default where something is forgotten.
      out: the folder of the results: table.md, verdicts.md, records.jsonl, report.html.
      store: the folder that keeps the results of stages; several runs may share it.
      shard: 1/4 computes the first fourth of the study alone, and writes to a folder of its own,
        beside --out; when all shards are done, the same command without --shard collects them.
      overwrite: replace the results of another study that --out holds; those of this one are made
        anew from the store in any case.
      only_check: check the study, say what it holds, and stop before any training.
    """

    study: Annotated[Path | None, tyro.conf.Positional] = None
    data: Names = ()
    networks: Names = ()
    recipe: Names = ()
    forget: Names = ()
    attacks: Names = ()
    defences: Names = ()
    methods: Names = ()
    audits: Names = ()
    seeds: int | None = None
    seed: int | None = None
    budget: tuple[float, ...] = ()
    primary: str | None = None
    out: Path = OUT
    store: Path = STORE
    shard: str | None = None
    overwrite: bool = False
    only_check: bool = False

    def __call__(self, interruption: Interruption) -> int:
        """Returns the exit code."""
        asked = self._asked()
        from unlearnkit.cli.running import run_study

        return run_study(asked, interruption, overwrite=self.overwrite, only_check=self.only_check)

    def _asked(self) -> Asked:
        """Returns the study's text and where its results go."""
        declared = {
            f.name: value
            for f in dataclasses.fields(self)
            if f.name in _DECLARING and (value := getattr(self, f.name)) not in ((), None)
        }
        if self.study is not None:
            if declared:
                raise ValueError(
                    f"give a file or --{next(iter(declared))}, not both: what is said in "
                    f"{self.study} would be said twice"
                )
            text = self.study.read_bytes().decode("utf-8", errors="strict")
            name = str(self.study)
        elif not declared:
            raise ValueError(
                "give the TOML file of a study, or declare one by options, as "
                "unlearnkit run --methods fine_tune scrub --seeds 3; `unlearnkit list` has names"
            )
        else:
            text, name = self._text(), "the options"
        return _asked(self, text, name, self.out, self.store, self.shard)

    def _text(self) -> str:
        methods = self.methods
        if methods == ("all",):
            from unlearnkit.cli.catalogue import Catalogue

            methods = tuple(Catalogue().names("methods"))
        forget = self.forget or (() if self.attacks else ("random:0.1",))
        return declare(
            data=self.data or ("digits",),
            networks=self.networks or ("mlp",),
            recipe=self.recipe or _RECIPE,
            forget=forget,
            parts={
                "attacks": self.attacks,
                "defences": self.defences,
                "methods": methods,
                "audits": self.audits,
            },
            numbers={
                "seeds": 1 if self.seeds is None else self.seeds,
                "seed": self.seed or 0,
                "budgets": list(self.budget) or None,
                "primary": self.primary or ("average_gap" if forget else None),
            },
        )


_DECLARING = (
    *("data", "networks", "recipe", "forget", "attacks", "defences", "methods", "audits"),
    *("seeds", "seed", "budget", "primary"),
)


@dataclasses.dataclass(frozen=True)
class Resume(Running):
    """Goes on with the study of a folder, where it was ended.

    Attributes:
      out: the folder that `run` or `quickstart` wrote to.
    """

    out: Annotated[Path, tyro.conf.Positional] = OUT

    def __call__(self, interruption: Interruption) -> int:
        """Returns the exit code."""
        header = read_header(self.out)
        from unlearnkit.cli.running import run_study

        store = Path(str(header.get("store") or STORE))
        shard = None if header.get("shard") is None else str(header["shard"])
        name = f"the study of {self.out}"
        asked = _asked(self, str(header["study"]), name, self.out, store, shard)
        return run_study(asked, interruption)


@dataclasses.dataclass(frozen=True)
class Status:
    """Says how far the study of a folder is: at once, and without disturbing a run.

    Attributes:
      out: the folder that `run` or `quickstart` writes to.
      json: print it as JSON.
    """

    out: Annotated[Path, tyro.conf.Positional] = OUT
    json: bool = False

    def __call__(self, interruption: Interruption) -> int:
        """Returns the exit code: 0, 1 where a cell failed, 3 where the study is not finished."""
        header = read_header(self.out)
        metrics = self.out / "metrics.jsonl"
        records, changed = [], None
        if metrics.exists():
            lines = metrics.read_text(encoding="utf-8").splitlines(keepends=True)
            records = [json.loads(line) for line in lines if line.endswith("\n")]
            changed = time.time() - metrics.stat().st_mtime
        failed = sum(record.get("failed") is not None for record in records)
        total, finished = header.get("n_records"), (self.out / "report.html").exists()
        said = {
            "out": str(self.out),
            "done": len(records),
            "records": total,
            "failed": failed,
            "finished": finished,
            "seconds_since_last": None if changed is None else round(changed, 1),
        }
        if self.json:
            print(json.dumps(said))
        else:
            self._print(said)
        if not finished:
            return NOT_FINISHED
        return SOME_FAILED if failed else DONE

    def _print(self, said: Mapping[str, object]) -> None:
        of = f"of {said['records']}" if said["records"] else "of an unknown number of"
        failed = f", {said['failed']} failed" if said["failed"] else ""
        print(f"{self.out}: {said['done']} {of} records{failed}")
        if said["finished"]:
            print(f"finished; open {self.out / 'report.html'}")
            return
        if said["seconds_since_last"] is not None:
            print(f"the last one {said['seconds_since_last']} s ago")
        print(f"not finished; unless it runs now, go on with: unlearnkit resume {self.out}")


@dataclasses.dataclass(frozen=True)
class Report:
    """Makes tables, verdicts and page of a folder anew from its records, and prints the table.

    Of a store of stages they are made too, of what it holds of a study, and nothing is computed.

    Attributes:
      out: the folder that `run` or `quickstart` wrote to, or a store.
      primary: the metric of the verdicts, in the place of the study's own.
      json: print the records as JSON, a line each.
      figures: also write the page's figures to this folder, as pictures for a paper.
      only: names of figures; the page has each under its picture. All of them by default.
      format: of these pictures.
      show_examples: show forgotten examples, and what was measured of each. Such a page must be
        kept and deleted as the data themselves; without this it holds neither.
      study: of a store, which of the studies that took from it: the short name that the store has
        for it, or a TOML file.
      into: of a store, the folder that the results are written to; beside it by default.
    """

    out: Annotated[Path, tyro.conf.Positional] = OUT
    primary: str | None = None
    json: bool = False
    figures: Path | None = None
    only: Names = ()
    format: Literal["svg", "png", "pdf"] = "svg"
    show_examples: bool = False
    study: str | None = None
    into: Path | None = None

    def __call__(self, interruption: Interruption) -> int:
        """Returns the exit code: 0, 1 where a cell failed or not all could be written."""
        if self.only and self.figures is None:
            raise ValueError("--only names figures that are written; give a folder by --figures")
        out = self.out
        if (out / "store.json").exists() and not (out / "run.json").exists():
            from unlearnkit.cli.stored import records_of_store

            out = records_of_store(out, study=self.study, into=self.into)
        elif self.study or self.into:
            raise ValueError(f"--study and --into are for the report of a store; {out} is none")
        header = read_header(out)
        from unlearnkit.cli.running import Pictures, report_again

        asked = None if self.figures is None else Pictures(self.figures, self.format, self.only)
        return report_again(
            out,
            header,
            primary=self.primary,
            as_json=self.json,
            pictures=asked,
            show_examples=self.show_examples,
        )


def read_header(out: Path) -> dict[str, object]:
    """Returns what `run.json` of a folder says.

    Raises:
      FileNotFoundError: there is no run.
      ValueError: it is none of a study.
    """
    path = out / "run.json"
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        near = sorted(str(p.parent) for p in out.parent.glob("*/run.json")) if out.parent else []
        told = f"; there are {', '.join(near[:5])}" if near else ""
        if (out / "store.json").exists():
            told = (
                "; it is a store of stages, of which `unlearnkit report` makes a report: name the "
                f"folder of a run that took from it{told}"
            )
        raise FileNotFoundError(f"{out} holds no study (no run.json){told}") from None
    if not isinstance(found, dict) or not isinstance(found.get("study"), str):
        raise ValueError(f"{path} is not of a study; name a folder that `unlearnkit run` wrote to")
    return found


def _asked(
    options: Running, text: str, name: str, out: Path, store: Path, shard: str | None
) -> Asked:
    # An error of syntax is told before anything is imported.
    try:
        tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"{escaped(name)} is not TOML: {error}") from error
    from unlearnkit.cli.running import Asked

    return Asked(
        text,
        name,
        out,
        store,
        reuse=options.reuse,
        executor=options.executor,
        shard=shard,
        minutes=options.minutes,
        as_json=options.json,
    )
