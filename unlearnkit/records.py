"""What studies yield: one row per method and seed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from unlearnkit.base import Cost


class Record(NamedTuple):
    """One method on one seed.

    Attributes:
      method: its name in the study.
      seed: which repetition.
      metrics: what `evaluate` measured; empty where the method diverged.
      cost: what unlearning took.
      diverged: why there is no result, or None.
      curves: arrays for plots.
    """

    method: str
    seed: int
    metrics: Mapping[str, float]
    cost: Cost
    diverged: str | None = None
    curves: Mapping[str, Any] = {}


class PoisonRecord(NamedTuple):
    """What one method left of one attack's effects, on one seed.

    Attributes:
      attack: its name in the study.
      method: its name in the study, `ORIGINAL` (no unlearning) or `RETRAIN`.
      budget: the share of Retrain's example-gradients that it was allowed; None for these two.
      seed: which repetition.
      metrics: of `poison_effects`; empty where there is no result.
      cost: what unlearning took.
      diverged: how a training or an unlearning diverged, or left a network that cannot be audited,
        or None.
      over_budget: what the least that the method can do costs, where that is too much, or None.
      curves: arrays for plots.
    """

    attack: str
    method: str
    budget: float | None
    seed: int
    metrics: Mapping[str, float]
    cost: Cost
    diverged: str | None = None
    over_budget: str | None = None
    curves: Mapping[str, Any] = {}

    @property
    def finished(self) -> bool:
        """Whether there is a result."""
        return self.diverged is None and self.over_budget is None
