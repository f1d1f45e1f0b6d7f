"""The test suite's own time: from a clean clone without compiled programs, and again with them.

`python -m benchmarks suite` clones the last commit and runs its suite twice with this Python: some
forty minutes on two cores, which must be quiet.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.frame import Row, Timing, write_json

ROOT = Path(__file__).resolve().parents[1]
GOALS = {"without compiled programs": 12.0, "again, with what the first run compiled": 8.0}
"""Minutes that each run is meant to take at most."""
_TESTS_FAILED = 1
"""pytest's exit code where the suite ran to its end."""


def run() -> list[Row]:
    """Returns a row per run; where tests fail, the row names them.

    Raises:
      RuntimeError: the suite did not run to its end.
      subprocess.CalledProcessError: the repository cannot be cloned.
    """
    with tempfile.TemporaryDirectory() as folder:
        clone = Path(folder) / "clone"
        subprocess.run(["git", "clone", "--quiet", ROOT, clone], check=True)
        rows: list[Row] = []
        for state, goal in GOALS.items():
            rows.append(_time(clone, state, goal))
            write_json("suite", rows)  # the second run may not come to its end
        return rows


def _time(clone: Path, state: str, goal: float) -> Row:
    started = time.perf_counter()
    finished = subprocess.run(
        [sys.executable, "-m", "pytest", "--durations=40"],
        cwd=clone,
        env={
            **os.environ,
            "PYTHONPATH": str(clone),
            "JAX_COMPILATION_CACHE_DIR": str(clone / ".programs"),
        },
        capture_output=True,
        text=True,
    )
    seconds = time.perf_counter() - started
    summary = finished.stdout.strip().rpartition("\n")[2]
    if finished.returncode > _TESTS_FAILED:
        raise RuntimeError(f"the suite did not run: {summary or finished.stderr[-400:]}")
    failed = re.findall(r"^FAILED (\S+)", finished.stdout, re.MULTILINE)
    slowest = finished.stdout.partition("slowest 40 durations")[2]
    print(f"{state}: {summary} {' '.join(failed)}\n{slowest}", flush=True)
    return Row(
        "the test suite (minutes)",
        f"a clean clone, {state}",
        Timing(seconds, seconds, 1),
        value=seconds / 60,
        goal=goal,
        lower_is_better=True,
        accuracy=", ".join([summary, *failed]),
    )
