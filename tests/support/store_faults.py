"""Puts, kills and races on a store, in processes that are forked from this one.

    python store_faults.py FOLDER

What was found is printed as JSON. JAX is imported, but computes nothing before a fork.
"""

import hashlib
import io
import itertools
import json
import os
import random
import signal
import sys
import time
import warnings
from pathlib import Path

import numpy as np

from unlearnkit.studies.store import Environment, Stage, Store, stage_key

ENVIRONMENT = Environment.of({"program": "1"})
KEY = stage_key("original", {"epochs": 3}, {}, ENVIRONMENT)
STAGE = Stage({"epochs": 3}, {"w": np.arange(40000.0), "empty": {}}, {"loss": 0.5})
POINTS = ("mkdir", "open", "write", "fsync", "rename", "replace")
OPEN = io.open


class Fault:
    """Counts what is written through the operating system, and strikes at one of the calls."""

    def __init__(self, at, strike):
        self.at, self.strike, self.calls = at, strike, 0

    def around(self, function, half=None):
        def called(*arguments, **options):
            self.calls += 1
            if self.calls == self.at:
                if half is not None:
                    half(*arguments)
                self.strike()
            return function(*arguments, **options)

        return called

    def patches(self):
        """Yields (module, name, function) of all that is to be replaced."""
        write = os.write
        for name in POINTS:
            function = getattr(os, name)
            half = (lambda to, part: write(to, part[: len(part) // 2])) if name == "write" else None
            yield os, name, self.around(function, half)
        yield io, "open", self.around(OPEN)


def full_disk():
    raise OSError(28, "No space left on device")


def damage(folder):
    """Cuts a stage's arrays short."""
    path = next(Path(folder).glob("stages/*/*/*/arrays.safetensors"))
    path.write_bytes(path.read_bytes()[:-5])


def is_whole(stage):
    return (
        stage.info == STAGE.info
        and stage.tree["empty"] == {}
        and stage.tree["w"].tobytes() == STAGE.tree["w"].tobytes()
    )


def forked(function, *arguments):
    """Returns the process number of a child that does this and ends."""
    child = os.fork()
    if child == 0:
        try:
            function(*arguments)
        except BaseException as error:
            print(repr(error), file=sys.stderr, flush=True)
            os._exit(1)
        os._exit(0)
    return child


def ended(child):
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def exits(folder):
    """A process that ends at the k-th call leaves no stage or a whole one, for every k."""

    def put(store, at):
        fault = Fault(at, lambda: os._exit(9))
        for module, name, function in list(fault.patches()):
            setattr(module, name, function)
        store.put(KEY, STAGE)

    found = {}
    for before in ("nothing", "damaged"):
        for k in itertools.count(1):
            place = folder / f"{before}-{k}"
            store = Store(place)
            if before == "damaged":
                store.put(KEY, STAGE)
                damage(place)
            code = ended(forked(put, store, k))
            with warnings.catch_warnings(record=True) as said:
                stage = store.get(KEY)
            state = "whole" if stage and is_whole(stage) else "wrong" if stage else "missing"
            state = "damaged" if said else state
            Store(place).put(KEY, STAGE)
            again = is_whole(Store(place).get(KEY))
            found[f"{before}-{k}"] = [code, state, again]
            if code != 9:
                break
    return found


def race(folder):
    """Of processes that want one stage at once, one computes it."""
    log = folder / "log"

    def compute():
        with log.open("a") as file:
            file.write(f"{os.getpid()}\n")
        time.sleep(0.3)
        return STAGE

    def obtain():
        assert is_whole(Store(folder / "store").obtain(KEY, compute))

    codes = [ended(child) for child in [forked(obtain) for _ in range(5)]]
    return {"codes": codes, "computed": len(log.read_text().splitlines())}


def claims(folder):
    """A claim holds while its process lives, and no longer."""
    store = Store(folder)
    other = stage_key("audit", {}, {}, ENVIRONMENT)
    ready, told = os.pipe()

    def hold():
        with store.claim(KEY):
            os.write(told, b"!")
            time.sleep(600)

    child = forked(hold)
    os.read(ready, 1)
    Store(folder)  # which removes nothing that is held
    found = {}
    with store.claim(other, KEY, wait=False) as mine:
        found["while it lives"] = mine
        with store.claim(other, wait=False) as mine:
            found["of what was not got"] = mine
    os.kill(child, signal.SIGKILL)
    ended(child)
    begun = time.monotonic()
    with store.claim(KEY):
        found["seconds to wait"] = time.monotonic() - begun
    with store.claim(KEY, other, wait=False) as mine:
        found["after it"] = mine
    found["left"] = len(list((folder / "claims").iterdir()))
    return found


def study(folder):
    """Computes stages, each from the one before."""
    store, state, table = Store(folder), np.arange(5000.0), []
    for step in range(25):
        key = stage_key("step", {"step": step}, {"state": state}, ENVIRONMENT)

        def compute(state=state, step=step):
            with (folder / "computed").open("a") as file:
                file.write(f"{step}\n")
            time.sleep(0.002)
            return Stage({"step": step}, np.sin(state + step), {"mean": float(state.mean())})

        stage = store.obtain(key, compute)
        state = stage.tree
        table.append([step, stage.info["mean"], hashlib.sha256(state.tobytes()).hexdigest()])
    (folder / "table").write_text(json.dumps(table))


def kills(folder):
    """A study that is killed again and again ends with the same table."""
    begun = time.monotonic()
    whole, killed = folder / "whole", folder / "killed"
    assert ended(forked(study, whole)) == 0
    seconds = time.monotonic() - begun
    generator, codes, done = random.Random(7), [], []
    for _ in range(20):
        child = forked(study, killed)
        time.sleep(generator.uniform(0, seconds / 4))
        os.kill(child, signal.SIGKILL)
        codes.append(ended(child))
        done.append(len(list(killed.glob("stages/step/*/*/stage.json"))))
    assert ended(forked(study, killed)) == 0
    computed = (killed / "computed").read_text().splitlines()
    return {
        "codes": codes,
        "done": done,
        "same": (whole / "table").read_text() == (killed / "table").read_text(),
        "computed": len(computed),
    }


def main(folder):
    found = {}
    for part in (exits, race, claims, kills):
        place = folder / part.__name__
        place.mkdir()
        found[part.__name__] = part(place)
    print(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
