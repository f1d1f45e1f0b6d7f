"""`unlearnkit poison`, `forge` and `purge`: poisoned data, forged logs, and clearing up."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

import tyro

from unlearnkit.cli.asking import Names, OnData
from unlearnkit.cli.interruption import Interruption
from unlearnkit.cli.verification import LogArguments
from unlearnkit.reading import AS_FOUND, Reading


@dataclasses.dataclass(frozen=True)
class Poison(OnData):
    """Poisons a training set: a dataset file, and a record of which rows are poisons.

    A network is trained on the clean data for the attack to look at, and another one on the
    poisoned data; the record says what the poisons do to it.

    Attributes:
      attack: its name, maybe with settings, as gaussian:noise_std=0.5; `unlearnkit list attacks`
        has all.
      set: settings of the attack, as budget.epsilon=0.1.
      recipe: settings of both trainings; epochs=40 batch_size=32 by default.
    """

    attack: Annotated[str, tyro.conf.arg(metavar="NAME")] = dataclasses.field(kw_only=True)
    set: Names = ()
    recipe: Names = ("epochs=40", "batch_size=32")

    def __call__(self, interruption: Interruption) -> int:
        """Returns the exit code."""
        from unlearnkit.cli import poisons_verbs

        return poisons_verbs.poison(self, interruption)


@dataclasses.dataclass(frozen=True)
class Forge(LogArguments):
    """Forges a log of training, so that it claims the data without some rows.

    The weights stay, and the batches that hold these rows are exchanged for others that take nearly
    the same steps. `unlearnkit verify` reads the result as any other log.

    Attributes:
      forget: the list of rows that the log is not to name: a file, or a short form as class:3.
      forger: its name, maybe with settings; one that chooses among rows: substitution, greedy or
        swap.
      out: a new folder for the log; OUT.json has the record, OUT.rows.npy the rows that it claims,
        for `verify --rows`.
    """

    forget: Annotated[str, tyro.conf.arg(metavar="ROWS.csv|random:0.1|…")] = dataclasses.field(
        kw_only=True
    )
    out: Path = dataclasses.field(kw_only=True)
    forger: str = "substitution"

    def __call__(self, interruption: Interruption) -> int:
        """Returns the exit code."""
        from unlearnkit.cli import poisons_verbs

        return poisons_verbs.forge(self, interruption)


@dataclasses.dataclass(frozen=True)
class Purge:
    """Removes from stores and results what holds rows that were to be forgotten.

    That is what holds the rows themselves, or what was made of them (poisoned sets, forged images),
    and what holds values of single examples (losses, scores, curves), which a store computes again
    where it is needed. What still holds the rows is listed: weights that were trained on them, and
    files of no known kind. Exit code: 0 nothing holds them any more, 1 something is listed.

    Attributes:
      places: stores, and folders of results.
      forget: the list of rows: a file, or a short form as class:3.
      data: the dataset that they are rows of: a name, or a path.
      data_dir: where prepared TFDS datasets are.
      reading: how files of your own are read that do not say it themselves.
      dry_run: say what would be removed, and remove nothing.
      json: print the outcome as one line of JSON.
    """

    places: Annotated[tuple[Path, ...], tyro.conf.Positional]
    forget: Annotated[str, tyro.conf.arg(metavar="ROWS.csv|class:3|…")]
    data: Annotated[str, tyro.conf.arg(metavar="NAME|FILE|FOLDER")]
    data_dir: Path | None = None
    reading: tyro.conf.OmitArgPrefixes[Reading] = AS_FOUND
    dry_run: bool = False
    json: bool = False

    def __call__(self, interruption: Interruption) -> int:
        """Returns the exit code."""
        from unlearnkit.cli import purge_verbs

        return purge_verbs.purge(self)
