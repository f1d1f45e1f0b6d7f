"""What each scale attacks: networks, their training, and the attacks with their ablations."""

from __future__ import annotations

import dataclasses
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from experiments.frame import Scale, read_scale
from unlearnkit.base import Attack, Defence, RobustTrainer
from unlearnkit.defences import DEFENCES, Sever
from unlearnkit.poisoning import ATTACKS, ImprovedMinMax
from unlearnkit.studies.declared import make_part
from unlearnkit.training import Recipe

LONG = "tgda_long"
"""TGDA for more epochs than its ablations; what it is compared with other attacks by."""
FILE = Path(__file__).with_name("settings.toml")
VARIANTS: dict[str, dict[str, Any]] = tomllib.loads(FILE.read_text(encoding="utf-8"))["variants"]
"""What is changed of TGDA, see settings.toml."""


@dataclasses.dataclass(frozen=True)
class Target:
    """One network on one dataset, and what it is attacked by.

    Attributes:
      dataset: as `unlearnkit.data.load` calls it.
      model: as `unlearnkit.models.create` calls it.
      recipe: by which it is trained, on clean and on poisoned data alike.
      attacks: by name; `tgda@0.1` is TGDA with ε = 0.1.
      train: training examples, None for all.
      classes: those that are kept and counted anew from 0, None for all.
      transfer: networks that are trained on the poisons of TGDA too (Table 9).
      defences: by name, what TGDA is tried against (Tables 10 and 11).
      seeds: repetitions: other networks, other poisons.
    """

    dataset: str
    model: str
    recipe: Recipe
    attacks: Mapping[str, Attack]
    train: int | None = None
    classes: tuple[int, ...] | None = None
    transfer: tuple[str, ...] = ()
    defences: Mapping[str, Defence | RobustTrainer] = dataclasses.field(default_factory=dict)
    seeds: int = 3

    @property
    def source(self) -> str:
        """The dataset and its classes, as `mnist17`."""
        return self.dataset + "".join(str(label) for label in self.classes or ())


@dataclasses.dataclass(frozen=True)
class Declared:
    """A target as settings.toml declares it: a `Target` with `runs` and the settings of attacks."""

    dataset: str
    model: str
    recipe: Recipe
    runs: tuple[str, ...]
    attacks: dict[str, dict[str, Any]] = dataclasses.field(default_factory=dict)
    train: int | None = None
    classes: tuple[int, ...] | None = None
    transfer: tuple[str, ...] = ()
    defences: tuple[str, ...] = ()
    seeds: int = 3

    def attack(self, name: str) -> Attack:
        """Returns the attack of a name of `runs`."""
        base, _, share = name.partition("@")
        settings = self._settings(f"{base}@" if share and f"{base}@" in self.attacks else base)
        if share:
            settings["budget"] = {"epsilon": float(share)}
        found = ATTACKS.find(settings.pop("use"))
        return self._made(name, found, settings)

    def defence(self, name: str) -> Defence | RobustTrainer:
        """Returns a defence with its defaults: each filter drops 3 % of the training set."""
        return self._made(name, DEFENCES.find(name.removesuffix("_filter")), {})

    def _settings(self, name: str) -> dict[str, Any]:
        if name in VARIANTS:
            return self._settings("tgda") | VARIANTS[name]
        own = dict(self.attacks.get(name, {}))
        if "like" in own:
            return self._settings(own.pop("like")) | own
        return {"use": "total_gradient" if name == "tgda" else name.rstrip("@"), **own}

    def _made(self, name: str, found: Any, settings: dict[str, Any]) -> Any:
        if found in (ImprovedMinMax, Sever):
            settings.setdefault("recipe", self.recipe)
        return make_part(name, found, settings)


def targets(scale: Scale) -> dict[str, Target]:
    """Returns the targets of a scale by name."""
    made = {}
    for name, told in read_scale(FILE, scale, Declared).items():
        fields = {field.name: getattr(told, field.name) for field in dataclasses.fields(told)}
        del fields["runs"]
        fields["attacks"] = {attack: told.attack(attack) for attack in told.runs}
        fields["defences"] = {defence: told.defence(defence) for defence in told.defences}
        made[name] = Target(**fields)
    return made
