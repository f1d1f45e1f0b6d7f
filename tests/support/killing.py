"""Starts runs of `killed_run.py`, kills them at random moments, and reads what they ended with."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from killed_run import RECIPES

from unlearnkit.base import Variables
from unlearnkit.training import load_variables

ROOT = Path(__file__).parents[2]
SCRIPT = Path(__file__).with_name("killed_run.py")
EPOCHS = {kind: recipe.epochs for kind, recipe in RECIPES.items()}


def start(kind: str, folder: Path) -> subprocess.Popen[str]:
    """Starts a run that writes to a folder, and beside it what it ended with."""
    return subprocess.Popen(
        [sys.executable, str(SCRIPT), kind, str(folder), str(folder.with_suffix(".st"))],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )


def finish(kind: str, folder: Path) -> list[str]:
    """Runs to the end and returns the lines that were printed."""
    lines = start(kind, folder).communicate(timeout=300)[0].split("\n")
    assert "done" in lines
    return lines


def kill(kind: str, folder: Path, *, times: int, most_lines: int, seed: int) -> Iterator[list[str]]:
    """Yields the lines of each run until it was killed, within `most_lines` of them or just after.

    All runs write to one folder.
    """
    generator = random.Random(seed)
    for _ in range(times):
        process = start(kind, folder)
        stop_at, lines = generator.randint(0, most_lines), []
        for line in process.stdout:
            lines.append(line)
            if len(lines) > stop_at:
                break
        time.sleep(generator.uniform(0, 0.03))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert process.returncode == -signal.SIGKILL
        yield lines


def result(folder: Path) -> tuple[Variables, Any]:
    """Returns the weights and the history of a run that ended."""
    path = folder.with_suffix(".st")
    metadata = json.loads(path.with_name(f"{path.name}.json").read_text())["metadata"]
    return load_variables(path), metadata["history"]
