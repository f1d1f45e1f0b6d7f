"""What is being done, on a terminal or in a log: the one progress of all commands."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from unlearnkit.io.text import escaped

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, TaskID

_BAR_WIDTH = 16
_LONGEST = 200


class StageProgress:
    """Shows what is being done: live bars on a terminal, one line a stage elsewhere.

    Call it with a stage's name, the epochs that are done, and all its epochs; call `advance` as
    each of the `total` records is there. On a terminal the bar of all records, with their rate and
    the time that remains, stands above the bar of the stage; both fit the width, and go away in
    the end.

    Example:
      with StageProgress(total=6) as progress:
          for record in studies.run(study, key, on_stage=progress):
              progress.advance()
    """

    def __init__(
        self, console: Console | None = None, *, total: int | None = None, unit: str = "records"
    ) -> None:
        """Makes a progress that begins with its `with` block.

        Args:
          console: where to; None takes the standard error stream.
          total: how many records there will be; None shows stages alone.
          unit: what is counted, in the plural.
        """
        from rich.console import Console

        self._console = console or Console(stderr=True)
        self._total, self._unit = total, unit
        self._done, self._stage = 0, ""
        self._indent = "" if total is None else "  "
        self._started = time.perf_counter()
        self._bars: Progress | None = None
        self._whole: TaskID | None = None
        self._part: TaskID | None = None
        if self._console.is_terminal:
            self._bars = _bars(self._console)
            if total is not None:
                self._whole = self._bars.add_task("", total=total, beside="")
            self._part = self._bars.add_task(f"{self._indent}starting", total=None, beside="")

    def __enter__(self) -> StageProgress:
        if self._bars is not None:
            self._show()
            self._bars.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self._bars is not None:
            self._bars.stop()

    def __call__(self, stage: str, done: int, total: int) -> None:
        """Shows a stage.

        Args:
          stage: what is being done.
          done: its epochs so far.
          total: all its epochs.
        """
        if self._bars is not None and self._part is not None:
            beside = f"{done}/{total}" if total > 1 else ""
            self._bars.update(
                self._part,
                description=f"{self._indent}{escaped(stage, _LONGEST)}",
                completed=done,
                total=total,
                beside=beside,
            )
        elif stage != self._stage:
            counted = "" if self._total is None else f" {self._done}/{self._total}"
            self._line(f"[{self._seconds():6.1f} s]{counted} {escaped(stage, _LONGEST)}")
        self._stage = stage

    def advance(self, records: int = 1) -> None:
        """Counts records that are there."""
        self._done += records
        if self._bars is not None:
            self._show()

    def show(self, table: object) -> None:
        """Prints what rich can print, above the bars."""
        self._console.print(table)

    @property
    def width(self) -> int:
        """Columns of the terminal."""
        return self._console.width

    def say(self, text: str) -> None:
        """Prints a line that stays, above the bars."""
        self._line(text)

    def _line(self, text: str) -> None:
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    def _seconds(self) -> float:
        return time.perf_counter() - self._started

    def _show(self) -> None:
        if self._bars is None or self._whole is None or self._total is None:
            return
        said, rate = f"{self._done} of {self._total} {self._unit}", ""
        if self._done:
            each = self._seconds() / self._done
            rate = f"{1 / each:.1f}/s" if each <= 1 else f"{each:.1f} s each"
            rate += f", {_clock(each * (self._total - self._done))} left"
        self._bars.update(self._whole, description=said, completed=self._done, beside=rate)


def _bars(console: Console) -> Progress:
    from rich.progress import BarColumn, Progress, TextColumn
    from rich.table import Column

    left = Column(ratio=1, no_wrap=True, overflow="ellipsis")
    right = Column(no_wrap=True, justify="right")
    return Progress(
        TextColumn("{task.description}", table_column=left, markup=False),
        BarColumn(bar_width=_BAR_WIDTH),
        TextColumn("{task.fields[beside]}", table_column=right, markup=False),
        console=console,
        transient=True,
        expand=True,
        refresh_per_second=4,
    )


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
