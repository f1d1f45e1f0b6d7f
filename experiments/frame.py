"""What every experiment shares: its command, its data, progress on the terminal, its results."""

from __future__ import annotations

import dataclasses
import functools
import json
import sys
import time
import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple, NoReturn, TypeAlias, TypeVar

from experiments import pages
from unlearnkit import models
from unlearnkit.base import Dataset, Model, Normalisation, Tokens
from unlearnkit.data import describe, keep_classes, load
from unlearnkit.data import draw_order as draw_order
from unlearnkit.data import subset as subset
from unlearnkit.io.files import as_json, write_json
from unlearnkit.io.programs import keep_programs
from unlearnkit.io.provenance import provenance
from unlearnkit.io.warned import collect_warnings as collect_warnings
from unlearnkit.records import Record, record_from_dict, record_to_dict
from unlearnkit.reporting import RunFolderError, StageProgress
from unlearnkit.studies import OnStage
from unlearnkit.studies.declared import make_part
from unlearnkit.training import DivergedError, TrajectoryError

T = TypeVar("T")
D = TypeVar("D", bound=Any)
Result: TypeAlias = tuple[dict[str, Any], list[Record]]
"""Settings with the provenance, and records."""
Scale = Literal["smoke", "cpu", "paper"]
"""smoke: seconds, in the tests. cpu: minutes on two cores. paper: the paper's own, accelerator."""
USER_ERRORS = (
    ValueError, TypeError, ImportError, OSError, RunFolderError, DivergedError, TrajectoryError
)  # fmt: skip
"""What is reported without a traceback: bad options, missing data, runs that diverge."""
rounded = functools.partial(as_json, digits=5)
"""Returns JSON values with more digits than are shown."""


class Overview(NamedTuple):
    """What a page says before and after its results, by the name of a file; and further HTML."""

    before: Mapping[str, pages.Section] = {}
    after: Mapping[str, pages.Section] = {}
    more: Sequence[str] = ()


@dataclasses.dataclass(frozen=True)
class PaperCommand:
    """What the command of every paper's experiment takes, and how all of them run.

    A subclass says what a scale has (`settings`), what is loaded and run for each of it (`load`,
    `run_setting`), and what the page says of each result (`section`).
    """

    paper: ClassVar[str]
    """The folder of its results."""
    chosen_by: ClassVar[str] = "dataset"
    """The option that chooses one setting of the scale."""
    large: ClassVar[tuple[str, ...]] = ()
    """Parts of a result that the page draws and judges, but does not list among its settings."""
    scale: Scale = "cpu"
    """smoke (digits, seconds), cpu (subsets, minutes on two cores), paper (on an accelerator)."""
    data_dir: Path | None = None
    """Where prepared TFDS datasets are."""
    seed: int = 0
    """The key of the whole run."""
    results: Path = Path("results")
    """Where results go: a folder for each paper."""
    store: Path | None = None
    """Keeps finished stages in this folder, so that an interrupted run goes on where it was."""
    cache: bool = True
    """Keep compiled programs in the user's cache folder, so that the next run starts sooner."""

    def settings(self) -> Mapping[str, Any]:
        """Returns what the scale runs, by name."""
        raise NotImplementedError

    def load(self, setting: Any) -> Any:
        """Returns the data of a setting."""
        raise NotImplementedError

    def run_setting(self, name: str, setting: Any, data: Any, on_stage: OnStage) -> None:
        """Runs what is asked for of a setting, and writes its results."""
        raise NotImplementedError

    def section(self, name: str, run: dict[str, Any], records: list[Record]) -> pages.Section:
        """Returns what the page says of a result."""
        raise NotImplementedError

    def runs_nothing(self) -> bool:
        """Returns whether only the page is asked for, from results that are there."""
        return getattr(self, "part", "") == "page" or getattr(self, "page", False)

    def chosen(self) -> dict[str, Any]:
        """Returns the settings that are asked for.

        Raises:
          ValueError: a name that the scale does not have.
        """
        known, name = self.settings(), getattr(self, self.chosen_by, None)
        if name is None:
            return dict(known)
        if name not in known:
            raise ValueError(
                f"{self.chosen_by} must be one of {', '.join(known)} at scale {self.scale}, "
                f"got {name!r}"
            )
        return {name: known[name]}

    def run_all(self, on_stage: OnStage) -> None:
        """Runs each setting that is asked for, and writes results.

        Raises:
          ImportError, FileNotFoundError: data are missing, and were asked for by name.
        """
        chosen = self.chosen()
        for name, setting in chosen.items() if not self.runs_nothing() else ():
            try:
                data = self.load(setting)
            except (ImportError, FileNotFoundError) as error:
                if getattr(self, self.chosen_by, None) is not None:
                    raise
                on_stage(f"{name}: data are not present ({error}); going on without them", 0, 1)
            else:
                self.run_setting(name, setting, data, prefix_stage(name, on_stage))

    def names(self) -> Iterable[str]:
        """Returns the names that results of the scale may have, in the order of the page."""
        return self.settings()

    def make_page(self) -> Path | None:
        """Writes the page of all results of the scale that are there; returns its path."""
        paths = {name: self.path(name) for name in self.names()}
        found = {name: load_result(path) for name, path in paths.items() if path.is_file()}
        sections = {name: self.section(name, *result) for name, result in found.items()}
        runs = {
            name: {part: value for part, value in run.items() if part not in self.large}
            for name, (run, _) in found.items()
        }
        before, after, more = self.overview(found)
        return pages.write_page(self, {**before, **sections, **after}, runs, more)

    def overview(self, found: Mapping[str, Result]) -> Overview:
        """Returns what the page says of all results together."""
        return Overview()

    @property
    def folder(self) -> Path:
        """Where the results of this paper are."""
        return self.results / self.paper

    def path(self, name: str) -> Path:
        """Returns where the result of that name is kept."""
        return self.folder / f"{name}-{self.scale}.json"

    def describe(self, settings: Mapping[str, Any], **parts: Any) -> dict[str, Any]:
        """Returns what a result begins with: how it came about, and where."""
        settings = {"scale": self.scale, "seed": self.seed, **settings}
        run = {"experiment": self.paper, "settings": settings}
        return {**run, **parts, "provenance": provenance()}


def main(command: PaperCommand) -> int:
    """Runs an experiment and says where its page is; returns the exit code."""
    from rich.console import Console

    console = Console(soft_wrap=True)
    try:
        with StageProgress() as progress:
            command.run_all(progress)
            page = command.make_page()
    except USER_ERRORS as error:
        console.print(f"error: {error}", style="bold red", markup=False, highlight=False)
        return 2
    if page is not None:
        console.print(f"open {page}", highlight=False)
    return 0


def run_command(options: type[PaperCommand]) -> NoReturn:
    """Reads the command line, runs the experiment, and exits with its code."""
    import tyro

    command = tyro.cli(options)
    if command.cache:
        keep_programs()
    sys.exit(main(command))


def prefix_stage(subject: str, on_stage: OnStage) -> OnStage:
    """Returns `on_stage` for stages of one subject, which it names before each."""
    return lambda stage, done, total: on_stage(f"{subject}: {stage}", done, total)


def read_scale(path: Path, scale: Scale, make: Callable[..., T]) -> dict[str, T]:
    """Returns what a scale runs, by name: a settings file beside the code of an experiment.

    Args:
      path: of a TOML file, with a table [scale.name] for each; `like` begins with what another name
        of the scale has, and tables within are joined with those that are there.
      scale: which tables are read.
      make: the class whose fields they are.

    Raises:
      StudyFileError: an unknown field, or a value that the class refuses.
    """
    tables: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))[scale]

    def joined(name: str) -> dict[str, Any]:
        own = dict(tables[name])
        base = joined(own.pop("like")) if "like" in own else {}
        both = {field for field in base.keys() & own.keys() if isinstance(own[field], dict)}
        return {**base, **own, **{field: {**base[field], **own[field]} for field in both}}

    return {name: make_part(f"{scale}.{name}", make, joined(name)) for name in tables}


def with_seeds(settings: Mapping[str, D], seeds: int | None, *names: str) -> dict[str, D]:
    """Returns the settings with as many seeds; as they are for None.

    Args:
      settings: of a scale, by name.
      seeds: how many repetitions are asked for.
      names: of the fields that count them.

    Raises:
      ValueError: fewer than one.
    """
    if seeds is None:
        return dict(settings)
    if seeds < 1:
        raise ValueError(f"seeds must be >= 1, got {seeds}")
    changes: dict[str, Any] = dict.fromkeys(names or ("seeds",), seeds)
    return {name: dataclasses.replace(one, **changes) for name, one in settings.items()}


class Data(NamedTuple):
    """A network, the examples that it is trained on, and those that it is tested on."""

    model: Model
    train: Dataset
    test: Dataset


def load_data(
    dataset: str,
    network: str,
    data_dir: Path | None,
    *,
    normalisation: str | Normalisation | Tokens = "unit",
    classes: Sequence[int] | None = None,
    **options: Any,
) -> Data:
    """Returns a dataset and a network for it.

    Args:
      dataset: as `unlearnkit.data.load` calls it.
      network: as `unlearnkit.models.create` calls it.
      data_dir: where prepared datasets are.
      normalisation: of the images.
      classes: those that are kept and counted anew from 0, None for all.
      options: of the network.

    Raises:
      FileNotFoundError: the dataset is not prepared.
    """
    train, test = (
        load(dataset, split=split, data_dir=data_dir, normalisation=normalisation)
        for split in ("train", "test")
    )
    told = describe(dataset, data_dir=data_dir)
    shape: dict[str, Any] = {"input_shape": told.input_shape, "n_classes": told.n_classes}
    if classes is not None:
        train, test = (keep_classes(part, classes) for part in (train, test))
        shape["n_classes"] = len(classes)
    return Data(models.create(network, **shape, **options), train, test)


def save_result(
    path: Path,
    run: Mapping[str, Any],
    records: Sequence[Record] | None = None,
    *,
    started: float | None = None,
    curves: bool = False,
) -> None:
    """Writes a result that is small enough to be committed.

    Args:
      path: as `results/<paper>/<name>-<scale>.json`.
      run: settings, provenance, and what there is besides records.
      records: of the run, if it has any.
      started: what `time.perf_counter` said at the start, for the time that it took.
      curves: whether the records' curves are kept.
    """
    content = dict(run)
    if started is not None:
        content["seconds"] = round(time.perf_counter() - started, 1)
    if records is not None:
        content["records"] = [record_to_dict(record, curves=curves) for record in records]
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, as_json(content))


def load_result(path: Path) -> Result:
    """Returns the settings with the provenance, and the records, of a committed result."""
    content = json.loads(path.read_text(encoding="utf-8"))
    return content, [record_from_dict(line) for line in content.pop("records", ())]
