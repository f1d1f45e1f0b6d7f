"""Methods against audits: the difference of each measure to Retrain, with its interval."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from unlearnkit.auditing import mean_and_reach
from unlearnkit.records import PLACE, Record, method_name
from unlearnkit.reporting.glossary import Meaning, meaning
from unlearnkit.studies import ORIGINAL, RETRAIN

LEVELS = 6
"""Shades of the overview; 0 is what cannot be told from Retrain."""
_MOST = 12
_FIRST = ("accuracy_forget", "accuracy_test", "accuracy_retain", "mia_loss_logistic_auc")


class Interval(NamedTuple):
    """A mean over seeds, with its 95 % interval.

    Attributes:
      mean: over the seeds that have a value; NaN where none has.
      low: end of the interval; NaN where fewer than two seeds have a value.
      high: its other end.
      seeds: how many have a value.
    """

    mean: float
    low: float
    high: float
    seeds: int

    @property
    def told(self) -> bool:
        """Whether the interval leaves out 0."""
        return self.low > 0 or self.high < 0


class Place(NamedTuple):
    """One question of a study: all its methods answer the same.

    Attributes:
      name: dataset, network, recipe, question and defence, as far as they tell questions apart.
      rows: the records by row, in order: Retrain, the untouched network, then methods.
    """

    name: str
    rows: Mapping[str, Sequence[Record]]

    @property
    def finished(self) -> Mapping[str, Sequence[Record]]:
        """The rows that have a result, with the records that have."""
        kept = {name: [r for r in mine if r.finished] for name, mine in self.rows.items()}
        return {name: mine for name, mine in kept.items() if mine}

    @property
    def forgotten(self) -> list[int]:
        """How many examples were to be forgotten, by record; none where the records do not say."""
        curves = [r.curves for mine in self.finished.values() for r in mine]
        return [len(each["loss_forget"]) for each in curves if "loss_forget" in each]

    @property
    def methods(self) -> Mapping[str, Sequence[Record]]:
        """The rows but for Retrain itself and the untouched network."""
        return {n: mine for n, mine in self.rows.items() if n not in (ORIGINAL, RETRAIN)}


def places(records: Iterable[Record]) -> list[Place]:
    """Returns the questions of a study, in their order."""
    kept = list(records)
    coordinates = (*PLACE, "defence")
    shown = [n for n in coordinates if len({getattr(r, n) for r in kept}) > 1]
    found: dict[tuple[str, ...], dict[str, list[Record]]] = {}
    for record in kept:
        rows = found.setdefault(tuple(getattr(record, n) for n in coordinates), {})
        rows.setdefault(row_of(record), []).append(record)
    order = {RETRAIN: 0, ORIGINAL: 1}
    return [
        Place(
            ", ".join(
                f"behind {value}" if name == "defence" else value
                for name, value in zip(coordinates, where, strict=True)
                if name in shown and value
            ),
            {name: rows[name] for name in sorted(rows, key=lambda name: order.get(name, 2))},
        )
        for where, rows in found.items()
    ]


def row_of(record: Record) -> str:
    """Returns the name of a record's row within its question."""
    budget = "" if record.budget is None else f", {100 * record.budget:g} % of Retrain"
    return f"{method_name(record)}{budget}"


def level(records: Sequence[Record], metric: str) -> Interval:
    """Returns the mean of a metric, a share never beyond [0, 1]."""
    values = [r.metrics[metric] for r in records if np.isfinite(r.metrics.get(metric, np.nan))]
    found = _interval(values)
    if not _is_share(metric):
        return found
    return found._replace(low=max(found.low, 0.0), high=min(found.high, 1.0))


def difference(records: Sequence[Record], reference: Sequence[Record], metric: str) -> Interval:
    """Returns the mean difference of a metric to Retrain's, paired by seed; a share's within reach.

    Args:
      records: of one row.
      reference: of Retrain, on the same question.
      metric: its name.
    """
    there = {r.seed: r.metrics.get(metric, np.nan) for r in reference}
    gaps = [r.metrics.get(metric, np.nan) - there[r.seed] for r in records if r.seed in there]
    found = _interval([gap for gap in gaps if np.isfinite(gap)])
    goal = level(reference, metric).mean
    if not _is_share(metric) or not np.isfinite(goal):
        return found
    return found._replace(low=max(found.low, -goal), high=min(found.high, 1 - goal))


def measured(place: Place) -> dict[str, Meaning]:
    """Returns the metrics that the overview has columns for: known ones that Retrain has too."""
    names = {n for r in place.finished.get(RETRAIN, ()) for n in r.metrics}
    known = {name: meaning(name) for name in sorted(names)}
    first = [name for name in _FIRST if known.get(name) is not None]
    found = [*first, *(name for name in known if name not in first)]
    shown = {name: said for name in found if (said := known[name]) is not None}
    return dict(list(shown.items())[:_MOST])


def shade(found: Interval, largest: float) -> int:
    """Returns how far a difference is from Retrain: 0 where it is not told from it, to `LEVELS`.

    Args:
      found: the difference.
      largest: of its column, in absolute value.
    """
    if not np.isfinite(found.mean) or found.mean == 0 or largest == 0:
        return 0
    if found.seeds > 1 and not found.told:
        return 0
    return max(1, round(LEVELS * abs(found.mean) / largest))


def _is_share(metric: str) -> bool:
    known = meaning(metric)
    return known is not None and known.share


def _interval(values: Sequence[float]) -> Interval:
    if not values:
        return Interval(np.nan, np.nan, np.nan, 0)
    mean, reach = map(float, mean_and_reach(values))
    return Interval(mean, mean - reach, mean + reach, len(values))
