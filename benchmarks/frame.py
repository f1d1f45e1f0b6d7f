"""What every benchmark shares: timing, provenance, one record per row, JSON and Markdown.

    timings = compare({"ours": lambda: f(x), "torch": lambda: g(x)}, repeats=5)
    row = Row("hvp", "LeNet, n 100", timings["ours"], "torch", timings["torch"], goal=4)

A ratio is only quoted between two things timed in the same run, turn by turn.
"""

from __future__ import annotations

import dataclasses
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

from unlearnkit.io.files import as_json
from unlearnkit.io.provenance import provenance
from unlearnkit.reporting import markdown_cell

RESULTS = Path(__file__).parent / "results"
PEERS = (
    "torch",
    "transformers",
    "cvxpylayers",
    "curvlinops-for-pytorch",
    "matfree",
    "traker",
)


@dataclasses.dataclass(frozen=True)
class Timing:
    """Wall times of one callable, in seconds.

    Attributes:
      seconds: the median of the repeats.
      least: the least of the repeats.
      repeats: how many there were.
      compile_seconds: the first call less the median: tracing, compilation and warming up.
    """

    seconds: float
    least: float
    repeats: int
    compile_seconds: float = 0.0


@dataclasses.dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
      kernel: what was run.
      size: on what: model, n, d.
      ours: our time, None where the row is not about time.
      peer_name: whom we compare with; empty where the goal is absolute.
      peer: the peer's time.
      value: what the goal is about; peer seconds / our seconds where not given.
      goal: the least `value` wanted (the most, where `lower_is_better`); None where there is none.
      lower_is_better: whether `goal` is an upper bound.
      accuracy: of ours, as `residual 9.1e-4`.
      peer_accuracy: of the peer.
      note: anything a reader must know.
      metrics: numbers behind the row by name, kept in the file alone.
    """

    kernel: str
    size: str
    ours: Timing | None = None
    peer_name: str = ""
    peer: Timing | None = None
    value: float | None = None
    goal: float | None = None
    lower_is_better: bool = False
    accuracy: str = ""
    peer_accuracy: str = ""
    note: str = ""
    metrics: Mapping[str, float] = dataclasses.field(default_factory=dict)

    @property
    def ratio(self) -> float | None:
        """`value`, or how many times faster than the peer we are."""
        if self.value is not None:
            return self.value
        if self.ours is None or self.peer is None:
            return None
        return self.peer.seconds / self.ours.seconds

    @property
    def reached(self) -> bool | None:
        """Whether the goal is reached; None where there is none."""
        if self.goal is None or self.ratio is None:
            return None
        return self.ratio <= self.goal if self.lower_is_better else self.ratio >= self.goal


def compare(
    calls: Mapping[str, Callable[[], Any]], *, repeats: int = 5, warmups: int = 1
) -> dict[str, Timing]:
    """Returns the timings of several callables, run in turn so that a busy machine slows all alike.

    Args:
      calls: by name; JAX results are waited for.
      repeats: timed calls of each.
      warmups: calls before, of which the first is what `compile_seconds` comes from.
    """
    first: dict[str, float] = {}
    for name, call in calls.items():
        first[name] = _seconds(call)
        for _ in range(warmups - 1):
            _seconds(call)
    taken: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(repeats):
        for name, call in calls.items():
            taken[name].append(_seconds(call))
    return {name: _timing(times, first[name]) for name, times in taken.items()}


def time_on_cpu_devices(module: str, argument: str) -> dict[str, Timing]:
    """Returns the timings that `python -m module argument` prints, with a CPU device per core.

    It ends with `print_timings`; see `run_on_cpu_devices`.
    """
    timings = run_on_cpu_devices(module, argument)
    return {name: Timing(**timing) for name, timing in timings.items()}


def run_on_cpu_devices(module: str, *arguments: str) -> Any:
    """Returns the JSON in the last line that `python -m module arguments` prints.

    There is a CPU device per core. The number of devices is fixed when JAX starts, so the module
    runs in a process of its own.
    """
    environment = os.environ | {"JAX_NUM_CPU_DEVICES": str(os.cpu_count() or 1)}
    root = Path(__file__).resolve().parents[1]
    command = [sys.executable, "-m", module, *arguments]
    output = subprocess.run(
        command, cwd=root, env=environment, capture_output=True, text=True, check=True
    ).stdout
    return json.loads(output.splitlines()[-1])


def print_timings(timings: Mapping[str, Timing]) -> None:
    """Prints the line that `time_on_cpu_devices` reads."""
    print(json.dumps({name: dataclasses.asdict(timing) for name, timing in timings.items()}))


def time_call(call: Callable[[], Any], *, repeats: int = 5) -> Timing:
    """Returns the timing of one callable."""
    return compare({"call": call}, repeats=repeats)["call"]


def _seconds(call: Callable[[], Any]) -> float:
    start = time.perf_counter()
    jax.block_until_ready(call())
    return time.perf_counter() - start


def _timing(times: Sequence[float], first: float) -> Timing:
    median = statistics.median(times)
    return Timing(median, min(times), len(times), max(first - median, 0.0))


def write_json(name: str, rows: Sequence[Row], folder: Path = RESULTS) -> Path:
    """Writes `<folder>/<name>.json`: the provenance and the rows; returns its path."""
    records = [row_to_json(row) for row in rows]
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.json"
    found = as_json({"provenance": provenance(*PEERS), "rows": records})
    path.write_text(json.dumps(found, indent=2, allow_nan=False) + "\n")
    return path


def read_json(path: Path) -> tuple[dict[str, Any], list[Row]]:
    """Returns the provenance and the rows that `write_json` wrote."""
    content = json.loads(path.read_text())
    return content["provenance"], [row_from_json(record) for record in content["rows"]]


def row_to_json(row: Row) -> dict[str, Any]:
    """Returns a row as JSON values, with what follows from them."""
    return {**dataclasses.asdict(row), "ratio": row.ratio, "reached": row.reached}


def row_from_json(record: dict[str, Any]) -> Row:
    """Returns the row that `row_to_json` made a record of."""
    names = {field.name for field in dataclasses.fields(Row)}
    values = {name: value for name, value in record.items() if name in names}
    for name in ("ours", "peer"):
        if values[name] is not None:
            values[name] = Timing(**values[name])
    return Row(**values)


HEADER = (
    "| kernel | size | ours | peer | peer's time | ratio | goal "
    "| accuracy | peer's accuracy | compile | note |"
)


def markdown(rows: Sequence[Row]) -> str:
    """Returns the table of `rows`."""
    lines = [HEADER, "|" + " --- |" * (HEADER.count("|") - 1)]
    for row in rows:
        cells = (
            row.kernel,
            row.size,
            _time(row.ours),
            row.peer_name,
            _time(row.peer),
            "" if row.ratio is None else f"{row.ratio:.3g}",
            _goal(row),
            row.accuracy,
            row.peer_accuracy,
            "" if row.ours is None else f"{row.ours.compile_seconds:.1f} s",
            row.note,
        )
        lines.append("| " + " | ".join(map(markdown_cell, cells)) + " |")
    return "\n".join(lines)


def _time(timing: Timing | None) -> str:
    if timing is None:
        return ""
    seconds = timing.seconds
    if seconds >= 1:
        return f"{seconds:.3g} s"
    return f"{1e3 * seconds:.3g} ms" if seconds >= 1e-3 else f"{1e6 * seconds:.3g} µs"


def _goal(row: Row) -> str:
    if row.goal is None:
        return ""
    return f"{'≤' if row.lower_is_better else '≥'} {row.goal:g} {'✔' if row.reached else '✘'}"
