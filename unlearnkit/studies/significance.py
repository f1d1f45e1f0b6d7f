"""Whether a method is nearer to Retrain than doing nothing is: paired over seeds, corrected."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
from jaxtyping import Float
from scipy import stats

from unlearnkit.auditing import mean_and_reach
from unlearnkit.io.files import as_json, numbers_from_json
from unlearnkit.records import NO_DEFENCE, Cell, Difference, Record, Verdict, method_name
from unlearnkit.studies.study import ORIGINAL, RETRAIN
from unlearnkit.validation import check_choice

Correction = Literal["holm", "benjamini-hochberg", "none"]

NOT_QUESTIONED = frozenset({ORIGINAL, RETRAIN})


def significance(
    records: Sequence[Record],
    primary: str,
    *,
    correction: Correction = "holm",
    level: float = 0.95,
) -> list[Cell]:
    """Returns a verdict for each cell of a study, on one metric that was chosen beforehand.

    A metric whose reference row exists (as `accuracy_drop`, or `gaussian_gus`) is turned into the
    distance |metric - metric of Retrain| of each seed; one that already is a distance to the
    reference (as `average_gap`), which the reference's row then lacks, is taken as it is. Both rows
    of a seed share the reference, so that differences to the untouched network are paired:

        d_s = distance(method, s) - distance(original, s),   t = mean(d) √n / std(d)

    with n - 1 degrees of freedom. Seeds on which an attack had no effect on its own victim
    (`Record.no_effect`) are left out. p-values are corrected over all cells that were tested: by
    Holm, which bounds the probability of a single wrong verdict, or by Benjamini and Hochberg,
    which bounds the expected share of wrong ones.

    Args:
      records: of a study, all seeds of it.
      primary: the metric.
      correction: `holm`, `benjamini-hochberg` or `none`.
      level: of intervals and verdicts, in (0, 1).

    Raises:
      ValueError: a metric that no record has, a level outside its range, or an unknown correction.

    Example:
      for cell in studies.significance(records, "average_gap"):
          print(cell.question, cell.method, cell.words)

    Source: Holm 1979; Benjamini and Hochberg 1995.
    """
    check_choice("correction", correction, Correction)
    if not 0 < level < 1:
        raise ValueError(f"level must be in (0, 1), got {level}")
    if not any(primary in record.metrics for record in records):
        known = sorted({name for record in records for name in record.metrics})
        raise ValueError(
            f"no record has the metric {primary!r}; there are {', '.join(known) or 'none'}"
        )
    places: dict[tuple[str, str, str, str, str], list[Record]] = {}
    for record in records:
        places.setdefault(_place(record), []).append(record)
    raw = []
    for place, mine in places.items():
        # Behind a defence the reference is the one of no defence.
        references = _by_seed(places.get((*place[:4], NO_DEFENCE), []), RETRAIN, primary)
        untouched = _distances(_by_seed(mine, ORIGINAL, primary), references)
        asked = [r for r in mine if r.method not in NOT_QUESTIONED]
        for method, budget in dict.fromkeys((method_name(r), r.budget) for r in asked):
            found = _by_seed(mine, method, primary, budget)
            where = (*place, method, budget)
            away = _distances(found, references)
            shared = sorted(away.keys() & untouched.keys())
            paired = np.array([away[s] - untouched[s] for s in shared])
            same = sorted(found.keys() & references.keys())
            to_retrain = np.array([found[s] - references[s] for s in same])
            idle = [r.seed for r in asked if r.no_effect is not None]
            raw.append((where, away, paired, to_retrain, len(set(idle))))
    adjust = _CORRECTIONS[correction]
    firsts = adjust(np.array([_p_value(paired) for _, _, paired, _, _ in raw]))
    seconds = adjust(np.array([_p_value(to_retrain) for *_, to_retrain, _ in raw]))
    return [
        _cell(*figures, adjusted, level)
        for figures, adjusted in zip(raw, zip(firsts, seconds, strict=True), strict=True)
    ]


def cell_to_json(cell: Cell) -> dict[str, Any]:
    """Returns a cell as JSON, in which NaN is null and an infinity its name."""
    differences = ("to_original", "to_retrain")
    said = {**cell._asdict(), **{name: getattr(cell, name)._asdict() for name in differences}}
    described: dict[str, Any] = as_json(said)
    return described


def cell_from_json(said: Mapping[str, Any]) -> Cell:
    """Returns the cell that `cell_to_json` described."""
    differences = {
        name: Difference(**numbers_from_json(said[name])) for name in ("to_original", "to_retrain")
    }
    distance = numbers_from_json({"distance": said["distance"]})
    return Cell(**{**said, **differences, **distance, "where": tuple(said["where"])})


def holm(p_values: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """Returns p-values corrected by Holm's step-down procedure; NaNs are no tests and stay.

    p̃_(i) = max_{j ≤ i} min(1, (m - j + 1) p_(j)) over the m ordered p-values.
    """
    adjusted = np.full(len(p_values), np.nan)
    tested = np.flatnonzero(~np.isnan(p_values))
    order = tested[np.argsort(p_values[tested], kind="stable")]
    factors = np.arange(len(order), 0, -1)
    adjusted[order] = np.maximum.accumulate(np.minimum(1.0, factors * p_values[order]))
    return adjusted


def benjamini_hochberg(p_values: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """Returns p-values corrected by Benjamini and Hochberg; NaNs are no tests and stay."""
    adjusted = np.full(len(p_values), np.nan)
    tested = ~np.isnan(p_values)
    if tested.any():
        adjusted[tested] = stats.false_discovery_control(p_values[tested], method="bh")
    return adjusted


_CORRECTIONS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "holm": holm,
    "benjamini-hochberg": benjamini_hochberg,
    "none": lambda p_values: p_values,
}


def _place(record: Record) -> tuple[str, str, str, str, str]:
    return (record.dataset, record.network, record.recipe, record.question, record.defence)


def _by_seed(
    records: Sequence[Record], method: str, metric: str, budget: float | None = None
) -> dict[int, float]:
    """Returns the finite values of a metric by seed."""
    found = {
        r.seed: float(r.metrics[metric])
        for r in records
        if (method_name(r), r.budget) == (method, budget)
        and metric in r.metrics
        and r.no_effect is None
    }
    return {seed: value for seed, value in found.items() if np.isfinite(value)}


def _distances(found: dict[int, float], references: dict[int, float]) -> dict[int, float]:
    if not references:
        return found
    return {s: abs(value - references[s]) for s, value in found.items() if s in references}


def _p_value(differences: np.ndarray) -> float:
    """Returns the two-sided p-value of a zero mean; NaN of fewer than two, or of equal ones."""
    if len(differences) < 2:
        return float("nan")
    spread = differences.std(ddof=1)
    if spread == 0:
        return 1.0 if differences[0] == 0 else 0.0
    t = differences.mean() * np.sqrt(len(differences)) / spread
    return float(2 * stats.t.sf(abs(t), len(differences) - 1))


def _difference(values: np.ndarray, adjusted: float, level: float) -> Difference:
    if not len(values):
        return Difference(*[float("nan")] * 5)
    mean, reach = map(float, mean_and_reach(values, level))
    if len(values) < 2:
        return Difference(mean, -np.inf, np.inf, float("nan"), float("nan"))
    return Difference(mean, mean - reach, mean + reach, _p_value(values), float(adjusted))


def _cell(
    where: tuple[str, str, str, str, str, str, float | None],
    away: dict[int, float],
    paired: np.ndarray,
    to_retrain: np.ndarray,
    idle: int,
    adjusted: tuple[float, float],
    level: float,
) -> Cell:
    to_original = _difference(paired, adjusted[0], level)
    verdict: Verdict = "undecided"
    if not away:
        verdict = "no result"
    elif to_original.adjusted < 1 - level:
        verdict = "nearer" if to_original.mean < 0 else "farther"
    words = {
        "no result": "no seed has a result",
        "nearer": "nearer to Retrain than the untouched network",
        "farther": "farther from Retrain than the untouched network",
        "undecided": "not told from the untouched network by these seeds",
    }[verdict]
    if verdict in ("nearer", "farther"):
        words += f" by {abs(to_original.mean):.3g} (p = {to_original.adjusted:.2g}, corrected)"
    if idle:
        words += f"; left out: {idle} on which the attack had no effect on its own victim"
    distance = float(np.mean(list(away.values()))) if away else float("nan")
    difference = _difference(to_retrain, adjusted[1], level)
    return Cell(where, len(away), distance, to_original, difference, verdict, words)
