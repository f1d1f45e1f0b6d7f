"""What every experiment shares: scales, progress on the terminal, committed results."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, NoReturn, TextIO, TypeVar

from unlearnkit.io.files import as_json, write_json, write_text
from unlearnkit.io.programs import keep_programs
from unlearnkit.records import record_from_dict, record_to_dict
from unlearnkit.reporting import RunFolderError, to_markdown
from unlearnkit.studies import OnStage, Record
from unlearnkit.training import DivergedError, TrajectoryError

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, TaskID

T = TypeVar("T")
C = TypeVar("C", bound="Command")
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

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
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


def load_present(
    load: Callable[[], T], dataset: str, *, asked: bool, on_stage: OnStage
) -> T | None:
    """Returns what `load` returns; None, with a message, where an optional one is missing.

    Raises:
      ImportError, FileNotFoundError: it is missing and was asked for.
    """
    try:
        return load()
    except (ImportError, FileNotFoundError) as error:
        if asked:
            raise
        on_stage(f"{dataset} is not present ({error}); going on without it", 0, 1)
        return None


@contextlib.contextmanager
def collect_warnings(messages: list[str], kind: type[Warning]) -> Iterator[None]:
    """Adds the text of each warning of a kind to `messages`, once; others warn as ever."""
    with warnings.catch_warnings():
        warnings.simplefilter("always", kind)
        show = warnings.showwarning

        def note(
            message: Warning | str,
            category: type[Warning],
            filename: str,
            lineno: int,
            file: TextIO | None = None,
            line: str | None = None,
        ) -> None:
            if not issubclass(category, kind):
                show(message, category, filename, lineno, file, line)
            elif str(message) not in messages:
                messages.append(str(message))

        warnings.showwarning = note
        yield


def save_result(
    path: Path, records: Sequence[Record], run: Mapping[str, Any], *, table: str | None = None
) -> None:
    """Writes a result that is small enough to be committed: `path` (JSON) and its table beside it.

    Args:
      path: as `results/<paper>/<name>-<scale>.json`.
      records: of the run; their curves are left out.
      run: settings and provenance.
      table: Markdown; None makes it from the records.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [record_to_dict(record, curves=False) for record in records]
    write_json(path, as_json({**run, "records": lines}))
    write_text(path.with_suffix(".md"), table if table is not None else to_markdown(records))


def load_result(path: Path) -> tuple[dict[str, Any], list[Record]]:
    """Returns the settings with the provenance, and the records, of a committed result."""
    content = json.loads(path.read_text(encoding="utf-8"))
    return content, [record_from_dict(line) for line in content.pop("records")]
