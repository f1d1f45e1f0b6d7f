"""What each scale attacks: networks, their training, and the attacks with their ablations."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from experiments.claims import read_toml
from experiments.frame import Scale, read_scale
from unlearnkit.defences import DEFENCES, Sever
from unlearnkit.poisoning import ATTACKS, ImprovedMinMax, ModelTargeted, PoisoningGan
from unlearnkit.studies.declared import make_part
from unlearnkit.training import Recipe

LONG = "tgda_long"
"""TGDA for more epochs than its ablations; what it is compared with other attacks by."""
FILE = Path(__file__).with_name("settings.toml")
LIKE_THE_TARGET = (ImprovedMinMax, ModelTargeted, PoisoningGan, Sever)
"""What trains networks of its own by the target's recipe, where its settings give none."""
VARIANTS: dict[str, dict[str, Any]] = read_toml(__file__, FILE.name)["variants"]
"""What is changed of TGDA, see settings.toml."""


@dataclasses.dataclass(frozen=True)
class Target:
    """One network on one dataset, and what it is attacked by.

    Attributes:
      dataset: as `unlearnkit.data.load` calls it.
      model: as `unlearnkit.models.create` calls it.
      recipe: by which it is trained, on clean and on poisoned data alike.
      attacks: by name; `tgda@0.1` is TGDA with ε = 0.1. In settings.toml, the settings of some.
      train: training examples, None for all.
      classes: those that are kept and counted anew from 0, None for all.
      transfer: networks that are trained on the poisons of TGDA too (Table 9).
      defences: by name, what TGDA is tried against (Tables 10 and 11).
      seeds, victims: repetitions, of other poisons; pairs of networks that judge each of them.
      runs: in settings.toml, the names of all attacks.
    """

    dataset: str
    model: str
    recipe: Recipe
    attacks: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    train: int | None = None
    classes: tuple[int, ...] | None = None
    transfer: tuple[str, ...] = ()
    defences: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    seeds: int = 3
    victims: int = 1
    runs: tuple[str, ...] = ()

    @property
    def source(self) -> str:
        """The dataset and its classes, as `mnist17`."""
        return self.dataset + "".join(str(label) for label in self.classes or ())


def targets(scale: Scale) -> dict[str, Target]:
    """Returns the targets of a scale by name."""
    return {name: _made(told) for name, told in read_scale(FILE, scale, Target).items()}


def _made(told: Target) -> Target:
    """Returns a target as it is declared with its attacks and defences."""

    def make(name: str, kind: Any, settings: Mapping[str, Any]) -> Any:
        own = {"recipe": told.recipe} if kind in LIKE_THE_TARGET else {}
        return make_part(name, kind, {**own, **settings})

    def settings(name: str) -> dict[str, Any]:
        own = dict(VARIANTS.get(name) or told.attacks.get(name, {}))
        use = "total_gradient" if name == "tgda" else name.rstrip("@")
        return (settings(own.pop("like")) if "like" in own else {"use": use}) | own

    attacks = {}
    for name in told.runs:
        base, _, share = name.partition("@")
        own = settings(f"{base}@" if share and f"{base}@" in told.attacks else base)
        budget = {"budget": {"epsilon": float(share)}} if share else {}
        attacks[name] = make(name, ATTACKS.find(own.pop("use")), {**own, **budget})
    found = {name: DEFENCES.find(name.removesuffix("_filter")) for name in told.defences}
    defences = {name: make(name, kind, {}) for name, kind in found.items()}
    return dataclasses.replace(told, attacks=attacks, defences=defences, runs=())
