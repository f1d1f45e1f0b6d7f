"""What every experiment shares: its command, its data, progress on the terminal, its results."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple, NoReturn, TypeVar

import jax
import numpy as np

from unlearnkit import models
from unlearnkit.base import Dataset, Model
from unlearnkit.data import describe, load
from unlearnkit.io.files import as_json, write_json
from unlearnkit.io.programs import keep_programs
from unlearnkit.io.provenance import provenance
from unlearnkit.records import Record, record_from_dict, record_to_dict
from unlearnkit.reporting import RunFolderError
from unlearnkit.studies import OnStage
from unlearnkit.training import DivergedError, TrajectoryError

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, TaskID

T = TypeVar("T")
L = TypeVar("L")
C = TypeVar("C", bound="Command")
D = TypeVar("D", bound=Any)
Scale = Literal["smoke", "cpu", "paper"]
"""smoke: seconds, in the tests. cpu: minutes on two cores. paper: the paper's own, accelerator."""
USER_ERRORS = (
    ValueError, TypeError, ImportError, OSError, RunFolderError, DivergedError, TrajectoryError
)  # fmt: skip
"""What is reported without a traceback: bad options, missing data, runs that diverge."""
_TABLE_WIDTH = 132


def make_console() -> Console:
    """Returns the console, wide enough for the tables: a narrow terminal wraps what it must."""
    from rich.console import Console

    console = Console()
    return console if console.width >= _TABLE_WIDTH else Console(width=_TABLE_WIDTH)


def report_error(console: Console, error: Exception) -> int:
    """Prints what is wrong, for one of `USER_ERRORS`; returns the exit code."""
    console.print(f"error: {error}", style="bold red", markup=False, highlight=False)
    return 2


@dataclasses.dataclass(frozen=True)
class Command:
    """What every experiment's command takes."""

    cache: bool = True
    """Keep compiled programs in the user's cache folder, so that the next run starts sooner."""


@dataclasses.dataclass(frozen=True)
class PaperCommand(Command):
    """What the command of every paper's experiment takes."""

    paper: ClassVar[str]
    """The folder of its results."""
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

    @property
    def folder(self) -> Path:
        """Where the results of this paper are."""
        return self.results / self.paper

    def path(self, name: str) -> Path:
        """Returns where the result of that name is kept."""
        return self.folder / f"{name}-{self.scale}.json"

    def present(self, names: Iterable[str]) -> dict[str, Path]:
        """Returns where the results are that there are of these names."""
        paths = {name: self.path(name) for name in names}
        return {name: path for name, path in paths.items() if path.is_file()}

    def describe(self, settings: Mapping[str, Any], **parts: Any) -> dict[str, Any]:
        """Returns what a result begins with: how it came about, and where."""
        settings = {"scale": self.scale, "seed": self.seed, **settings}
        run = {"experiment": self.paper, "settings": settings}
        return {**run, **parts, "provenance": provenance()}


def run_command(main: Callable[[C], int], options: type[C]) -> NoReturn:
    """Reads the command line, runs an experiment, and exits with its code.

    Args:
      main: the experiment.
      options: a `Command` with its options.
    """
    import tyro

    chosen = tyro.cli(options)
    if chosen.cache:
        keep_programs()
    sys.exit(main(chosen))


class StageProgress:
    """Shows what is being done: a live bar on a terminal, one line per stage elsewhere.

    Call it with a stage's name, the epochs that are done, and all its epochs.
    """

    def __init__(self, console: Console):
        self._console = console
        self._bar: Progress | None = None
        self._task: TaskID
        self._stage = ""
        self._start = time.perf_counter()
        if console.is_terminal:
            from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

            columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
            self._bar = Progress(*columns, console=console, transient=True)
            self._task = self._bar.add_task("starting", total=None)

    def __enter__(self) -> StageProgress:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def __call__(self, stage: str, done: int, total: int) -> None:
        if self._bar is not None:
            self._bar.update(self._task, description=stage, completed=done, total=total)
        elif stage != self._stage:
            elapsed = time.perf_counter() - self._start
            self._console.print(f"[{elapsed:6.1f} s] {stage}", markup=False, highlight=False)
        self._stage = stage


def prefix_stage(subject: str, on_stage: OnStage) -> OnStage:
    """Returns `on_stage` for stages of one subject, which it names before each."""

    def prefixed(stage: str, done: int, total: int) -> None:
        on_stage(f"{subject}: {stage}", done, total)

    return prefixed


def run_to_page(work: Callable[[StageProgress], Path | None]) -> int:
    """Runs an experiment and says where its page is; returns the exit code."""
    console = make_console()
    try:
        with StageProgress(console) as progress:
            page = work(progress)
    except USER_ERRORS as error:
        return report_error(console, error)
    if page is not None:
        console.print(f"open {page}", highlight=False)
    return 0


def choose_named(kind: str, known: Mapping[str, T], name: str | None, scale: Scale) -> dict[str, T]:
    """Returns what a scale has of that name, or all of it for None.

    Raises:
      ValueError: a name that the scale does not have.
    """
    if name is None:
        return dict(known)
    if name not in known:
        raise ValueError(f"{kind} must be one of {', '.join(known)} at scale {scale}, got {name!r}")
    return {name: known[name]}


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
    normalisation: str = "unit",
    **options: Any,
) -> Data:
    """Returns a dataset and a network for it.

    Args:
      dataset: as `unlearnkit.data.load` calls it.
      network: as `unlearnkit.models.create` calls it.
      data_dir: where prepared datasets are.
      normalisation: of the images.
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
    return Data(models.create(network, **shape, **options), train, test)


def draw_order(dataset: Dataset) -> np.ndarray:
    """Returns the examples' rows in a fixed random order, whatever the key of a run."""
    return np.asarray(jax.random.permutation(jax.random.key(0), dataset.size))


def subset(dataset: Dataset, count: int | None) -> Dataset:
    """Returns a fixed random part of a dataset; all of it for None."""
    if count is None or count >= dataset.size:
        return dataset
    return dataset.take(np.sort(draw_order(dataset)[:count]))


def load_each(
    settings: Mapping[str, T], load: Callable[[T], L], *, asked: bool, on_stage: OnStage
) -> Iterator[tuple[str, T, L]]:
    """Yields each setting with its name and its data; one whose data are missing is left out.

    Args:
      settings: by name.
      load: returns the data of a setting.
      asked: whether the settings were asked for by name, so that none may be left out.
      on_stage: is told what is left out.

    Raises:
      ImportError, FileNotFoundError: data are missing and were asked for.
    """
    for name, setting in settings.items():
        try:
            data = load(setting)
        except (ImportError, FileNotFoundError) as error:
            if asked:
                raise
            on_stage(f"{name}: data are not present ({error}); going on without them", 0, 1)
        else:
            yield name, setting, data


def replace_subtree(tree: Any, path: Sequence[str], leaf: Any) -> Any:
    """Returns nested dicts with what is at `path` replaced."""
    if not path:
        return leaf
    return {**tree, path[0]: replace_subtree(tree[path[0]], path[1:], leaf)}


def rounded(value: Any) -> Any:
    """Returns JSON values with five digits, more than is shown; infinite ones as text."""
    if isinstance(value, jax.Array | np.ndarray):
        value = np.asarray(value, np.float64).tolist()
    if isinstance(value, Mapping):
        return {name: rounded(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(one) for one in value]
    if isinstance(value, float):
        return float(f"{value:.5g}") if np.isfinite(value) else str(value)
    return value


@contextlib.contextmanager
def collect_warnings(messages: list[str], kind: type[Warning]) -> Iterator[None]:
    """Adds the text of each warning of a kind to `messages`, once; others warn as ever."""
    with warnings.catch_warnings():
        warnings.simplefilter("always", kind)
        show = warnings.showwarning

        def note(message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> None:
            if not issubclass(category, kind):
                show(message, category, *where, **more)
            elif str(message) not in messages:
                messages.append(str(message))

        warnings.showwarning = note
        yield


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


def load_result(path: Path) -> tuple[dict[str, Any], list[Record]]:
    """Returns the settings with the provenance, and the records, of a committed result."""
    content = json.loads(path.read_text(encoding="utf-8"))
    return content, [record_from_dict(line) for line in content.pop("records", ())]
