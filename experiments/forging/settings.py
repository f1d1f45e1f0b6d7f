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
from unlearnkit.poisoning import GaussianPoison
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
    """The parts of a study of logs that are forged to forget.

    Attributes:
      train: training examples.
      recipe: plain descent, so that what a step leaves is its weights alone.
      forget: what is to be forgotten, by the number of examples.
      attacks: `noise`, whose poisons are to be forgotten in one more question.
      audits: by name, a forger of the whole log, or of 4 steps of its first, middle and last epoch.
      seeds: repetitions.
    """

    train: int
    recipe: Recipe
    forget: dict[str, RandomForget]
    attacks: dict[str, GaussianPoison]
    audits: dict[str, ForgedForgetting]
    seeds: int

    def study(self, data: Data) -> Study:
        """Returns the study, of this network on the first of these data."""
        own = Pair(data.train.take(np.arange(self.train)), data.test)
        asked = self.recipe, self.forget, self.attacks
        return Study(own, data.model, *asked, audits=self.audits, seeds=self.seeds)


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

    def described(self) -> dict[str, Any]:
        """Returns it but for its attacks, which are listed with their results."""
        recipe, forgetting = (
            dataclasses.asdict(self.recipe),
            self.forgetting and repr(self.forgetting),
        )
        own = {**vars(self), "title": self.title, "recipe": recipe, "forgetting": forgetting}
        return {name: value for name, value in own.items() if name != "attacks"}


def settings(scale: Scale) -> dict[str, Setting]:
    """Returns the settings of a scale by name."""
    return read_scale(Path(__file__).with_name("settings.toml"), scale, Setting)
