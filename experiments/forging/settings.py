"""What each scale runs: networks, datasets, batch sizes, attacks."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import numpy as np

from experiments.frame import Data, Scale
from unlearnkit import forging
from unlearnkit.auditing import ForgedForgetting
from unlearnkit.base import Forger
from unlearnkit.data import RandomForget
from unlearnkit.poisoning import Budget, GaussianPoison
from unlearnkit.studies import Pair, Study
from unlearnkit.training import Recipe

RATE = 0.01
"""η of the paper."""
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

    def study(self, data: Data) -> Study:
        """Returns the study, of this network on the first of these data."""
        own = Pair(data.train.take(np.arange(self.train)), data.test)
        audits = {
            name: ForgedForgetting(forger, segments=self.segments, shuffles=self.segments)
            for name, forger in self.forgers.items()
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
    train: int | None
    epochs: int
    triples: int
    attacks: dict[str, Attack]
    shuffles: int = 100
    exact: tuple[int, int] | None = None
    forgetting: Forgetting | None = None

    @property
    def name(self) -> str:
        """Names the setting's files."""
        return f"{self.model}-{self.dataset}-{self.batch_size}"

    @property
    def title(self) -> str:
        """Names the setting for readers."""
        return f"{self.model} on {self.dataset}, b = {self.batch_size}"

    @property
    def recipe(self) -> Recipe:
        """How the logged run descends."""
        return plain(self.epochs, self.batch_size, RATE)


def plain(epochs: int, batch_size: int, learning_rate: float) -> Recipe:
    """Returns a recipe without momentum or decay: θ' = θ - η ∇L."""
    return Recipe(
        epochs=epochs, batch_size=batch_size, learning_rate=learning_rate, momentum=0,
        weight_decay=0,
    )  # fmt: skip


def settings(scale: Scale) -> dict[str, Setting]:
    """Returns the settings of a scale by name."""
    made = {"smoke": _smoke, "cpu": _cpu, "paper": _paper}[scale]()
    return {setting.name: setting for setting in made}


def _smoke() -> list[Setting]:
    greedy = forging.GreedyForger(100, 200)
    swap = forging.SwapForger(100, 200, restarts=1, relaxation_steps=100)
    network = Setting(
        "digits", "mlp", 20, train=400, epochs=1, triples=4, shuffles=8,
        attacks={
            "greedy": Attack(greedy, 4),
            "swap": Attack(swap, 3),
            **_optimisers(noise=(30, 2), adam=(60, 3), grid=3),
            SECOND_ORDER: Attack(forging.LevenbergMarquardtForger(5, 10, restarts=1), 2),
        },
        exact=(60, 200),
        forgetting=Forgetting(
            train=300, counts=(1, 30), poisons=0.1, noise_std=1.0, recipe=plain(30, 50, 0.5),
            forgers={"substitution": forging.SubstitutionForger(50)}, segments=4, seeds=2,
        ),
    )  # fmt: skip
    regression = Setting(
        "digits", "logistic", 20, train=400, epochs=1, triples=4, shuffles=8,
        attacks={
            "greedy": Attack(greedy, 4),
            "swap": Attack(swap, 3),
            "logistic": Attack(forging.LogisticForger(), 4),
            "logistic_near": Attack(forging.LogisticForger("allowed"), 4),
            "grid_logistic": Attack(forging.GridLogisticForger(swap, iterations=50, rounds=100), 1),
        },
    )  # fmt: skip
    return [network, regression]


def _optimisers(*, noise: tuple[int, int], adam: tuple[int, int], grid: int) -> dict[str, Attack]:
    """Returns the attacks that descend: iterations and triples of each, Adam's also on the grid."""
    return {
        "noise": Attack(forging.NoiseForger(iterations=noise[0]), noise[1]),
        "adam": Attack(forging.OptimiseForger(iterations=adam[0]), adam[1]),
        "adam_grid": Attack(forging.OptimiseForger(iterations=adam[0], domain="grid"), grid),
    }


def _cpu() -> list[Setting]:
    greedy, swap = forging.GreedyForger(1000, 2000), forging.SwapForger(1000, 2000)
    wide, wider = forging.GreedyForger(1500, 2000), forging.SwapForger(1500, 2000, restarts=1)
    few, fewer = forging.GreedyForger(150, 2000), forging.SwapForger(150, 2000)
    lenet = Setting(
        "mnist", "lenet", 100, train=10_000, epochs=2, triples=100,
        attacks={
            "greedy": Attack(greedy, 100),
            "swap": Attack(swap, 10),
            **_optimisers(noise=(200, 2), adam=(500, 10), grid=3),
            SECOND_ORDER: Attack(forging.LevenbergMarquardtForger(), 10),
        },
        exact=(500, 20_000),
        forgetting=Forgetting(
            train=1000, counts=(1, 10, 100), poisons=0.05, noise_std=1.0,
            recipe=plain(40, 100, 0.1), forgers={"substitution": forging.SubstitutionForger()},
            segments=20, seeds=3,
        ),
    )  # fmt: skip
    large = Setting(
        "mnist", "lenet", 1000, train=25_000, epochs=4, triples=100,
        attacks={"greedy": Attack(wide, 100), "swap": Attack(wider, 3)},
    )  # fmt: skip
    vggmini = Setting(
        "cifar10", "vggmini", 100, train=500, epochs=1, triples=3, shuffles=10,
        attacks={
            "greedy": Attack(few, 3),
            "swap": Attack(fewer, 1),
            "adam": Attack(forging.OptimiseForger(iterations=20), 2),
        },
    )  # fmt: skip
    return [lenet, large, vggmini, *_regressions(train=25_000, points=2000, grid=2)]


def _regressions(*, train: int | None, points: int, grid: int) -> list[Setting]:
    """Returns logistic regression on MNIST with both batch sizes, 200 and 100 steps or more."""
    greedy, swap = forging.GreedyForger(points, 2000), forging.SwapForger(points, 2000, restarts=1)
    exact = {
        "greedy": Attack(greedy, 100),
        "swap": Attack(swap, 5),
        "logistic": Attack(forging.LogisticForger(), 100),
        "logistic_near": Attack(forging.LogisticForger("allowed"), 100),
    }
    grids = {"grid_logistic": Attack(forging.GridLogisticForger(swap), grid)}
    return [
        Setting("mnist", "logistic", 100, train, 1, 100, exact | grids),
        Setting("mnist", "logistic", 1000, train, 4, 100, exact),
    ]


def _paper() -> list[Setting]:
    """Returns the paper's setting with its 100 triples, and searches as wide as memory lets be."""
    greedy, swap = forging.GreedyForger(10_000, 1_000_000), forging.SwapForger(10_000, 10_000)
    adam = _optimisers(noise=(2000, 10), adam=(10_000, 10), grid=10)
    adam |= {SECOND_ORDER: Attack(forging.LevenbergMarquardtForger(60, 60), 10)}
    searches = {"greedy": Attack(greedy, 100), "swap": Attack(swap, 100)}
    forgetting = Forgetting(
        train=10_000, counts=(1, 10, 100, 500), poisons=0.015, noise_std=0.3,
        recipe=plain(30, 100, 0.1), segments=100, seeds=5,
        forgers={
            "greedy": forging.GreedyForger(2000, 100_000),
            "swap": forging.SwapForger(2000, 2000),
            "substitution": forging.SubstitutionForger(),
        },
    )  # fmt: skip
    narrow = {
        "greedy": Attack(forging.GreedyForger(2000, 1_000_000), 100),
        "swap": Attack(forging.SwapForger(2000, 2000), 100),
    }
    exact = (2000, 1_000_000)
    return [
        Setting(
            "mnist", "lenet", 100, None, 2, 100, searches | adam, exact=exact, forgetting=forgetting
        ),
        Setting("mnist", "lenet", 1000, None, 5, 100, searches | adam),
        Setting("cifar10", "vggmini", 100, None, 1, 100, narrow | adam),
        *_regressions(train=None, points=10_000, grid=10),
    ]
