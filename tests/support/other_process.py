"""Scripts of tests that need processes of their own, as devices are simulated before JAX starts."""

import os
import subprocess
import sys
from pathlib import Path

SUPPORT = Path(__file__).parent
LIMIT_SECONDS = 300


def start(script, *arguments, **environment):
    """Returns the process of a script, which finds the repository and what supports the tests."""
    paths = os.pathsep.join(map(str, (SUPPORT.parents[1], SUPPORT)))
    return subprocess.Popen(
        [sys.executable, str(script), *map(str, arguments)],
        env=os.environ | {"PYTHONPATH": paths} | environment,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def output(process):
    """Returns what a script printed; fails with its errors where it failed or took too long."""
    try:
        printed, errors = process.communicate(timeout=LIMIT_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()  # else its pipes are left open, which fails a test that comes later
        process.communicate()
        raise
    assert process.returncode == 0, errors
    return printed
