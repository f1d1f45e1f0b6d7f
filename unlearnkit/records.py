"""What a study yields: one record for each cell."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any, NamedTuple

from unlearnkit.base import Cost
from unlearnkit.io.files import numbers_from_json

NO_DEFENCE = "none"


class Record(NamedTuple):
    """One cell of a study: one method's answer to one question on one seed.

    Attributes:
      method: its name in the study, `studies.ORIGINAL` or `studies.RETRAIN`.
      seed: which repetition.
      metrics: by name; empty where there is no result.
      cost: what unlearning took.
      diverged: how a training or an unlearning diverged, or left a network that cannot be audited,
        or None.
      curves: arrays for plots.
      question: the name of the forget request or of the attack.
      defence: the name of what stood between the attack and the method; `none` for nothing.
      budget: the share of Retrain's example-gradients that the method was allowed; None where it
        ran as it was given.
      over_budget: what the least that the method can do costs, where that is too much, or None.
      failed: why there is no result for another reason, or None.
      left_out: audits that had nothing to measure here, and why.
      shares_run: whether the result is an earlier epoch of the run of a larger budget: budgets of
        one run are paired.
      dataset: its name in the study.
      network: likewise.
      recipe: likewise.
    """

    method: str
    seed: int
    metrics: Mapping[str, float]
    cost: Cost
    diverged: str | None = None
    curves: Mapping[str, Any] = {}
    question: str = ""
    defence: str = NO_DEFENCE
    budget: float | None = None
    over_budget: str | None = None
    failed: str | None = None
    left_out: Mapping[str, str] = {}
    shares_run: bool = False
    dataset: str = ""
    network: str = ""
    recipe: str = ""

    @property
    def finished(self) -> bool:
        """Whether there is a result."""
        return self.diverged is None and self.over_budget is None and self.failed is None

    @property
    def problem(self) -> str | None:
        """Why there is no result, or None."""
        return self.diverged or self.over_budget or self.failed


def row_name(record: Record, *, hidden: Collection[str] = ()) -> str:
    """Returns the name of a record's row in a table: its method, and what else tells it apart.

    Args:
      record: of a study.
      hidden: coordinates that need not be said, see `shared_coordinates`.

    Example:
      row_name(record)  # "gaussian: scrub, 10 % of Retrain"
    """
    said = [getattr(record, name) for name in PLACE if name not in hidden]
    if record.defence != NO_DEFENCE:
        said.append(f"behind {record.defence}")
    where = ", ".join(part for part in said if part)
    budget = "" if record.budget is None else f", {100 * record.budget:g} % of Retrain"
    return f"{where}: {record.method}{budget}" if where else f"{record.method}{budget}"


def shared_coordinates(records: Iterable[Record]) -> frozenset[str]:
    """Returns those of dataset, network, recipe and question that all records have in common."""
    kept = list(records)
    return frozenset(name for name in PLACE if len({getattr(r, name) for r in kept}) <= 1)


PLACE = ("dataset", "network", "recipe", "question")
"""Where a cell stands, besides its defence."""


_UNSAID = {name: default for name, default in Record._field_defaults.items() if name != "curves"}
"""What a field holds that need not be written."""


def record_to_dict(record: Record, *, curves: bool = True) -> dict[str, Any]:
    """Returns a record as a dict for JSON, without the fields that say nothing.

    Args:
      record: of a study.
      curves: whether the curves are in it.
    """
    said = record._asdict()
    known = said.pop("curves")
    said = {
        name: value for name, value in said.items() if name not in _UNSAID or value != _UNSAID[name]
    }
    said |= {"metrics": dict(record.metrics), "cost": record.cost._asdict()}
    return {**said, "curves": dict(known)} if curves else said


def record_from_dict(said: Mapping[str, Any]) -> Record:
    """Returns the record that `record_to_dict` described, after a way through JSON.

    Args:
      said: with the fields of a record; those that are missing have their defaults.
    """
    metrics, cost = numbers_from_json(said["metrics"]), Cost(**numbers_from_json(said["cost"]))
    return Record(**{**said, "metrics": metrics, "cost": cost})
