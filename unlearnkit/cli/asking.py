"""What commands about a user's own network ask for."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, NamedTuple

import tyro

from unlearnkit.cli.study import STORE
from unlearnkit.reading import AS_FOUND, Reading

Names = tuple[str, ...]
_NOT_ASKED = ("store", "overwrite", "json", "cache", "minutes")
"""Options that leave the answer as it is."""


@dataclasses.dataclass(frozen=True)
class OnData:
    """A network, and the data that it is about.

    Attributes:
      data: a dataset's name, or the path of a file or folder; settings may follow, as
        digits:train_rows=500.
      model: a network's name, maybe with settings, as mlp:widths=[64]; or package.module:factory.
      out: the folder of the results; it is made.
      data_dir: where prepared TFDS datasets are.
      reading: how files of your own are read that do not say it themselves.
      normalisation: unit, symmetric or standard; or means/deviations of the channels, as
        0.49,0.48,0.45/0.25,0.24,0.26. By default what the weights say, else standard.
      seed: of the key that decides everything.
      store: the folder that keeps the results of stages; the same command goes on where it ended.
      overwrite: replace what --out holds.
      json: print the outcome as one line of JSON.
      cache: keep compiled programs in the user's cache folder for the next time.
    """

    data: Annotated[str, tyro.conf.arg(metavar="NAME|FILE|FOLDER")]
    model: Annotated[str, tyro.conf.arg(metavar="NAME|PACKAGE:FACTORY")]
    out: Path
    data_dir: Path | None = None
    reading: tyro.conf.OmitArgPrefixes[Reading] = AS_FOUND
    normalisation: str | None = None
    seed: int = 0
    store: Path = STORE
    overwrite: bool = False
    json: bool = False
    cache: bool = True

    def asked(self) -> dict[str, object]:
        """Returns the options that decide the answer, as JSON values."""
        said = dataclasses.asdict(self)
        return {
            name: str(value) if isinstance(value, Path) else value
            for name, value in said.items()
            if name not in _NOT_ASKED
        }


class Matching(NamedTuple):
    """How names in a file of weights are matched, see `weights.read_weights`.

    Attributes:
      part: the beginning of those that count.
      names: OLD=NEW.
      by_order: whether order tells where names do not.
    """

    part: str | None = None
    names: Names = ()
    by_order: bool = False


@dataclasses.dataclass(frozen=True)
class OnWeights(OnData):
    """A trained network, and the rows that it is to forget.

    Attributes:
      weights: the trained weights: .safetensors, .npz, or what else `unlearnkit inspect` reads.
      forget: the list of rows to forget: a file, maybe as rows.csv#column or
        rows.csv@train.csv#id; or random:0.1, class:3, within:3:0.5.
      part: the beginning of the names in the file that count, as state_dict_ema.
      names: OLD=NEW for a beginning of names in the file and what the network calls it.
      by_order: match layers whose names tell nothing by the order in which they stand.
      recipe: how the network was trained, as epochs=30 batch_size=128; by default what the weights
        say. It tells what Retrain costs, and how --reference trains.
    """

    weights: Path = dataclasses.field(kw_only=True)
    forget: Annotated[str, tyro.conf.arg(metavar="ROWS.csv|random:0.1|…")] = dataclasses.field(
        kw_only=True
    )
    part: str | None = dataclasses.field(default=None, kw_only=True)
    names: Names = dataclasses.field(default=(), kw_only=True)
    by_order: bool = dataclasses.field(default=False, kw_only=True)
    recipe: Names = dataclasses.field(default=(), kw_only=True)

    @property
    def matching(self) -> Matching:
        """How the names of the file are matched."""
        return Matching(self.part, self.names, self.by_order)
