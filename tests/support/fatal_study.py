"""A study whose workers die, or take their time."""

import dataclasses
import os
import signal
import time
from pathlib import Path

from tiny_study import study

from unlearnkit.base import Cost, Unlearned, UnlearnInfo
from unlearnkit.unlearning import FineTune


@dataclasses.dataclass(frozen=True)
class DiesOnce:
    """Fine-tunes, but ends its process where a file is not there yet."""

    mark: str

    def __call__(self, key, model, variables, task, *, on_epoch=None) -> Unlearned:
        if not Path(self.mark).exists():
            Path(self.mark).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return FineTune(epochs=1, batch_size=20, learning_rate=0.1)(key, model, variables, task)


@dataclasses.dataclass(frozen=True)
class Waits:
    """Leaves the network as it is, after some time; says in a folder that it was called."""

    name: str
    folder: str
    seconds: float

    def __call__(self, key, model, variables, task, *, on_epoch=None) -> Unlearned:
        Path(self.folder, f"{self.name}-{os.getpid()}-{time.monotonic_ns()}").touch()
        time.sleep(self.seconds)
        return Unlearned(variables, UnlearnInfo({}, Cost(1.0, 0.0)))


def dying(folder, **changes):
    """Returns a study of one method that ends its first worker."""
    methods = {"dies": DiesOnce(str(Path(folder) / "mark")), "waits": Waits("w", str(folder), 0.0)}
    return study(methods=methods, **changes)


def slow(folder, count, seconds):
    """Returns a study of one seed whose methods take their time."""
    methods = {f"m{i}": Waits(f"m{i}", str(folder), seconds) for i in range(count)}
    return study(methods=methods, seeds=1)
