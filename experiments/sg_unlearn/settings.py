"""What each scale runs: datasets, networks, training and every method of the paper."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

from experiments.frame import Scale, read_scale
from experiments.sg_unlearn.paper import NAMES
from unlearnkit.base import Unlearner
from unlearnkit.training import Recipe
from unlearnkit.unlearning import UNLEARNERS, StackelbergUnlearn, create

ALPHAS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0)
"""Of Figure 2, in units of the alpha of the tables."""

Grids: TypeAlias = dict[str, tuple[str, tuple[float, ...]]]


@dataclasses.dataclass(frozen=True)
class Setting:
    """One dataset of one scale.

    Attributes:
      dataset: as `unlearnkit.data.load` calls it.
      model: as `unlearnkit.models.create` calls it.
      recipe: of the original, of Retrain and of the reference.
      forget: share of random forgetting.
      train: training examples, None for all.
      tuned: hyperparameters of the methods that differ from their defaults.
      grids: by method, the hyperparameter and the values that are tried before the tables are made,
        see `runs.choose`; a method without a grid keeps what `tuned` says.
      tries: networks that each value of a grid is tried on.
      label: the class of class-wise forgetting.
      seeds: repetitions of the tables.
      traces: repetitions of the ablation and of the sweep.
      options: of the model.
    """

    dataset: str
    model: str
    recipe: Recipe
    forget: float
    train: int | None
    tuned: dict[str, dict[str, Any]]
    grids: Grids
    tries: int = 3
    label: int = 0
    seeds: int = 3
    traces: int = 3
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def chosen(self, values: Mapping[str, float]) -> Setting:
        """Returns the setting with each method's value of its grid."""
        tuned = {
            name: {**self.tuned.get(name, {}), self.grids[name][0]: value}
            for name, value in values.items()
        }
        return dataclasses.replace(self, tuned={**self.tuned, **tuned})

    def stackelberg(self, alpha: float) -> StackelbergUnlearn:
        """Returns SG at `alpha` in units of the setting's."""
        options = {
            "batch_size": self.recipe.batch_size, "alpha": 1.0, "train_like": self._train_like(),
            **self.tuned["stackelberg"],
        }  # fmt: skip
        return StackelbergUnlearn(**{**options, "alpha": alpha * options["alpha"]})

    def methods(self) -> dict[str, Unlearner]:
        """Returns the methods of the paper that the library has, Retrain first."""
        return {name: self._method(name) for name in NAMES if name in UNLEARNERS}

    def _train_like(self) -> Recipe:
        """Returns the recipe that the methods take after: theirs is one constant rate each."""
        return dataclasses.replace(self.recipe, schedule="constant", milestones=())

    def _method(self, name: str) -> Unlearner:
        options = dict(self.tuned.get(name, {}))
        if name == "retrain":
            return create(name, recipe=self.recipe)
        if name == "stackelberg":
            return self.stackelberg(1.0)
        fields = {field.name for field in dataclasses.fields(UNLEARNERS[name])}  # type: ignore[arg-type]
        if "batch_size" in fields:
            options.setdefault("batch_size", self.recipe.batch_size)
            options.setdefault("train_like", self._train_like())
        return create(name, **options)


def settings(scale: Scale) -> dict[str, Setting]:
    """Returns the settings of a scale by dataset, see settings.toml."""
    return read_scale(Path(__file__).with_name("settings.toml"), scale, Setting)
