"""What a study yields: one record for each cell and seed, and a verdict for each cell."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any, Literal, NamedTuple

from unlearnkit.base import Cost
from unlearnkit.io.files import numbers_from_json

NO_DEFENCE = "none"
Verdict = Literal["nearer", "farther", "undecided", "no result"]


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
      reused: digests of other environments (program, libraries, device) from which stages of this
        study were taken up to here, by the store's option.
      one_run: whether the budgets of this method and seed are one run, each taken from it after so
        many epochs, so that they are paired; otherwise each is a run of its own, with its own key.
      dataset: its name in the study.
      network: likewise.
      recipe: likewise.
      identified: the share of the poisons that the method was told of; the others it was to retain.
      no_effect: why the attack counts as without effect on the network that trained on its poisons,
        from which no verdict on unlearning follows; None where it had one, or there is no attack.
      adapted: settings of the method that its data did not allow, and what they became: defaults,
        and batches larger than the poisons that are identified.
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
    reused: tuple[str, ...] = ()
    one_run: bool = False
    dataset: str = ""
    network: str = ""
    recipe: str = ""
    identified: float = 1.0
    no_effect: str | None = None
    adapted: Mapping[str, int | str] = {}

    @property
    def finished(self) -> bool:
        """Whether there is a result."""
        return self.diverged is None and self.over_budget is None and self.failed is None

    @property
    def problem(self) -> str | None:
        """Why there is no result, or None."""
        return self.diverged or self.over_budget or self.failed


class Difference(NamedTuple):
    """A mean difference over seeds.

    Attributes:
      mean: over the seeds.
      low: end of the interval of the wanted level, not corrected for the number of cells.
      high: its other end.
      p_value: two-sided, of the mean being 0, by a paired t-test.
      adjusted: the same, corrected for all cells that were compared; NaN where nothing could be
        tested.
    """

    mean: float
    low: float
    high: float
    p_value: float
    adjusted: float


class Cell(NamedTuple):
    """How one method did on one question, over seeds.

    Attributes:
      where: dataset, network, recipe, question, defence, method, budget.
      seeds: that have a result.
      distance: the mean distance to the reference.
      to_original: distance of the method less that of the untouched network: below 0 is nearer.
      to_retrain: the metric of the method less that of the reference itself, where that has one.
      verdict: `nearer` or `farther` where the corrected p-value of `to_original` is below 1 -
        level, else `undecided`; `no result` where no seed has one.
      words: the verdict in a sentence.
    """

    where: tuple[str, str, str, str, str, str, float | None]
    seeds: int
    distance: float
    to_original: Difference
    to_retrain: Difference
    verdict: Verdict
    words: str

    @property
    def question(self) -> str:
        """The name of the forget request or attack."""
        return self.where[3]

    @property
    def method(self) -> str:
        """The name of the row."""
        return self.where[5]


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
    method = f"{method_name(record)}{budget}"
    return f"{where}: {method}" if where else method


def method_name(record: Record) -> str:
    """Returns the name of a record's method, with the share of the poisons that it was told of."""
    if record.identified == 1:
        return record.method
    return f"{record.method}, {100 * record.identified:g} % identified"


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
    reused = tuple(said.get("reused", ()))
    return Record(**{**said, "metrics": metrics, "cost": cost, "reused": reused})
