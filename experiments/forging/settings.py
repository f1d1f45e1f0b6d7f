"""What each scale runs: networks, datasets, batch sizes, attacks."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from experiments.frame import Data, Scale, read_scale
from unlearnkit.auditing import ForgedForgetting
from unlearnkit.base import Forger
from unlearnkit.data import RandomForget
from unlearnkit.poisoning import Budget, GaussianPoison
from unlearnkit.studies import Pair, Study
from unlearnkit.training import Recipe

NOISE = "noise"
"""The question whose forgotten examples are Gaussian poisons."""
SECOND_ORDER = "levenberg_marquardt"


class Attack(NamedTuple):
    """A forger, and how many of the triples it forges."""

    forger: Forger
    triples: int


@dataclasses.dataclass(frozen=True)
class Forgetting:
    """A study of logs that are forged to forget.

    Attributes:
      train: training examples.
      counts: of them that are to be forgotten, a question each.
      poisons: the fraction that is given Gaussian noise, which is to be forgotten in one more.
      noise_std: of that noise, in the units of the network.
      recipe: plain descent, so that what a step leaves is its weights alone.
      forgers: by name; each forges the whole log.
      samples: by name; each forges 4 steps of the first, the middle and the last epoch.
      segments: of each log that its calibration replays, and its shuffles.
      seeds: repetitions.
    """

    train: int
    counts: tuple[int, ...]
    poisons: float
    noise_std: float
    recipe: Recipe
    forgers: dict[str, Forger]
    segments: int
    seeds: int
    samples: dict[str, Forger] = dataclasses.field(default_factory=dict)

    def study(self, data: Data) -> Study:
        """Returns the study, of this network on the first of these data."""
        own = Pair(data.train.take(np.arange(self.train)), data.test)
        last = self.recipe.epochs
        replays: dict[str, Any] = {"segments": self.segments, "shuffles": self.segments}
        audits = {name: ForgedForgetting(f, **replays) for name, f in self.forgers.items()}
        audits |= {
            name: ForgedForgetting(f, (1, (1 + last) // 2, last), most_steps=4, **replays)
            for name, f in self.samples.items()
        }
        noise = GaussianPoison(Budget(self.poisons), noise_std=self.noise_std)
        requests = {str(count): RandomForget(count=count) for count in self.counts}
        return Study(
            own, data.model, self.recipe, requests, {NOISE: noise}, audits=audits, seeds=self.seeds
        )


@dataclasses.dataclass(frozen=True)
class Setting:
    """One network on one dataset with one batch size.

    Attributes:
      dataset: as `unlearnkit.data.load` calls it.
      model: as `unlearnkit.models.create` calls it.
      batch_size: b.
      train: training examples, None for all.
      epochs: of the logged run, from a fresh initialisation, by plain descent at η = 0.01.
      triples: steps of the log that are measured, drawn at random.
      shuffles: of a batch, as in Figure 4.
      attacks: by name.
      exact: points and candidates of the search in integer arithmetic, or None.
      forgetting: the run that is audited, or None.
    """

    dataset: str
    model: str
    batch_size: int
    epochs: int
    triples: int
    attacks: dict[str, Attack]
    train: int | None = None
    shuffles: int = 100
    exact: tuple[int, int] | None = None
    forgetting: Forgetting | None = None

    @property
    def title(self) -> str:
        """Names the setting for readers."""
        return f"{self.model} on {self.dataset}, b = {self.batch_size}"

    @property
    def recipe(self) -> Recipe:
        """How the logged run descends: θ' = θ - η ∇L, at the paper's η."""
        return Recipe(self.epochs, self.batch_size, learning_rate=0.01, momentum=0, weight_decay=0)


def settings(scale: Scale) -> dict[str, Setting]:
    """Returns the settings of a scale by name."""
    return read_scale(Path(__file__).with_name("settings.toml"), scale, Setting)
