"""`unlearnkit train`: weights from data, with a record of how they came about."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from unlearnkit.cli.asking import Names, OnData
from unlearnkit.cli.interruption import Interruption

WEIGHTS = "weights.safetensors"


@dataclasses.dataclass(frozen=True)
class Train(OnData):
    """Trains a network on a dataset: weights, and a record of data, recipe, cost and command.

    The sidecar of the weights names recipe and normalisation, which `unlearn`, `recommend` and
    `audit` then need not be told.

    Attributes:
      recipe: settings of the training; epochs=40 batch_size=32 by default.
      start: weights to begin with, in the place of a fresh initialisation.
      log: a new folder for a log of the training, which `unlearnkit verify` replays; a run that was
        ended goes on in it.
      every: steps between two checkpoints of the log; an epoch by default.
    """

    recipe: Names = ("epochs=40", "batch_size=32")
    start: Path | None = None
    log: Path | None = None
    every: int | None = None

    def __call__(self, interruption: Interruption) -> int:
        """Returns the exit code."""
        from unlearnkit.cli import verbs

        return verbs.train(self, interruption)
