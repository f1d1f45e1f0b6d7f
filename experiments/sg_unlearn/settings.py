"""What each scale runs: datasets, networks, training and every method of the paper."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TypeAlias

from experiments.frame import Scale, read_scale
from experiments.sg_unlearn.paper import NAMES
from unlearnkit.base import Unlearner
from unlearnkit.data import ClassForget, ForgetRequest, RandomForget
from unlearnkit.studies import RULES, RetrainLike, Rule
from unlearnkit.studies.rules import RuleName
from unlearnkit.training import Recipe
from unlearnkit.unlearning import UNLEARNERS, create

Kind = Literal["random", "class"]
Grids: TypeAlias = dict[str, dict[str, tuple[Any, ...]]]


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
      grids: by method, hyperparameters and the values that are tried before the tables are made,
        one after another: the first of each, then the second. As many for every method; one
        without a grid keeps what `tuned` says.
      class_wise: `tuned` and `grids` of methods that are set otherwise to forget a class.
      rule: by which values are chosen, see `studies.RULES`.
      tolerance: of `retrain_like`.
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
    class_wise: dict[str, Any] = dataclasses.field(default_factory=dict)
    rule: RuleName = "retrain_like"
    tolerance: float = 0.02
    tries: int = 2
    label: int = 0
    seeds: int = 5
    traces: int = 5
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def of(self, kind: Kind) -> Setting:
        """Returns the setting of a kind of forgetting."""
        own = self.class_wise if kind == "class" else {}
        tuned, grids = ({**getattr(self, p), **own.get(p, {})} for p in ("tuned", "grids"))
        return dataclasses.replace(self, tuned=tuned, grids=grids, class_wise={})

    def judge(self) -> Rule:
        """Returns the rule with this tolerance."""
        return RULES[self.rule] if self.rule != "retrain_like" else RetrainLike(self.tolerance)

    def forgetting(self, kind: Kind) -> ForgetRequest:
        """Returns what is to be forgotten.

        A forgotten class is taken from the held-out data too, as in the paper, whose accuracy of
        Retrain on the forget set is 0 while that on the test set is not lower for it.
        """
        if kind == "random":
            return RandomForget(fraction=self.forget)
        return ClassForget(self.label, in_test=False)

    def methods(self) -> dict[str, Unlearner]:
        """Returns the methods of the paper that the library has, Retrain first."""
        return {name: self._method(name) for name in NAMES if name in UNLEARNERS}

    def _method(self, name: str) -> Unlearner:
        if name == "retrain":
            return create(name, recipe=self.recipe)
        shared: dict[str, Any] = {}
        fields = {field.name for field in dataclasses.fields(UNLEARNERS[name])}  # type: ignore[arg-type]
        if "batch_size" in fields:  # they take after the training, but at one constant rate each
            like = dataclasses.replace(self.recipe, schedule="constant", milestones=())
            shared = {"batch_size": self.recipe.batch_size, "train_like": like}
        return create(name, **{**shared, **self.tuned.get(name, {})})


def settings(scale: Scale) -> dict[str, Setting]:
    """Returns the settings of a scale by dataset, see settings.toml."""
    return read_scale(Path(__file__).with_name("settings.toml"), scale, Setting)
