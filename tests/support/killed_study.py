"""Kills a study at moments spread over a whole run, in processes that are forked from this one.

    python killed_study.py FOLDER KILLS

What was found is printed as JSON. The library is imported, but JAX computes nothing before a fork.
"""

import contextlib
import importlib
import json
import os
import random
import signal
import sys
import time
from pathlib import Path

import unlearnkit.cli  # noqa: F401 (all that the children need, imported once)


def start(folder, output):
    """Returns the process that runs the study on a store."""
    child = os.fork()
    if child:
        return child
    status = 1
    with contextlib.suppress(BaseException):
        importlib.import_module("tiny_study").main(folder, output)
        status = 0
    os._exit(status)


def finish(folder, output):
    """Runs the study to its end, and returns its table and how long it took."""
    _, status = os.waitpid(start(folder, output), 0)
    assert status == 0
    return json.loads(output.read_text())


def stages(folder):
    """Returns the names of the stages that are there whole."""
    return sorted(path.parent.name for path in folder.glob("stages/*/*/*/stage.json"))


def main(folder, kills):
    whole = finish(folder / "whole", folder / "whole.json")
    expected = stages(folder / "whole")
    store, generator = folder / "killed", random.Random(0)
    rows = []
    for number in range(kills):
        child = start(store, folder / "killed.json")
        # The number of stages that are there at a kill rises evenly from none to all of them.
        enough = number * len(expected) / kills
        ended = 0
        while not ended and len(stages(store)) < enough:
            time.sleep(0.002)
            ended, _ = os.waitpid(child, os.WNOHANG)
        if not ended:
            time.sleep(generator.uniform(0, 0.1))
            os.kill(child, signal.SIGKILL)
            _, status = os.waitpid(child, 0)
            ended = status != signal.SIGKILL
        rows.append({"killed": not ended, "stages": len(stages(store))})
    before = stages(store)
    again = finish(store, folder / "killed.json")
    print(
        json.dumps(
            {
                "seconds": whole["seconds"],
                "kills": rows,
                "all": len(expected),
                "same_table": again["table"] == whole["table"],
                "rows": len(whole["table"]),
                "kept": set(before) <= set(stages(store)),
                "same_stages": stages(store) == expected,
            }
        )
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
