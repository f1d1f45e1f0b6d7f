"""What Golatkar et al. 2020b claim, judged from our figures; see `experiments.claims`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from experiments.claims import Claim, Judge, Runs, Statement, judge_all
from experiments.ntk_scrubbing.measure import OTHER
from unlearnkit.reporting import charts
from unlearnkit.studies import Record


def judge(records: Sequence[Record], figures: Sequence[Mapping[str, Any]]) -> list[Claim]:
    """Returns the claims of section 5.5.

    Bounds span decades, and are compared by their logarithms to base 10.

    Args:
      records: of every method and seed; the scrubbed network is `ntk_fisher`.
      figures: the numbers of the figures, one per seed.
    """
    runs, tradeoffs = Runs(records), [figure["tradeoff"] for figure in figures]

    def nearer(claim: Statement) -> list[float]:
        """By how much one method is further from Retrain than another."""
        one, other = claim.rows

        def gap(found: Mapping[str, Record]) -> float:
            ours, theirs, goal = (found[name].metrics[claim.metric] for name in (one, other, OTHER))
            return abs(ours - goal) - abs(theirs - goal)

        return runs.paired(gap, one, other, OTHER)

    def bound(claim: Statement) -> list[float]:
        """By how many decades NTK scrubbing's bound of one query exceeds another, on average."""
        method, kind = claim.rows
        pairs = [(t["ntk"]["black_box"], t[method][kind]) for t in tradeoffs]
        return [float(np.mean(np.log10(one) - np.log10(other))) for one, other in pairs]

    def leak(_: Statement) -> list[float]:
        medians = [
            (np.median(told["forget"]), np.median([*told["retain"], *told["test"]]))
            for told in (figure["leakage"] for figure in figures)
        ]
        return [float(np.log10(forget) - np.log10(others)) for forget, others in medians]

    def rise(_: Statement) -> list[float]:
        return [t["ntk"]["test_error"][-1] - t["ntk"]["test_error"][0] for t in tradeoffs]

    def gap(claim: Statement) -> list[float]:
        return runs.gaps(claim.metric, *claim.rows)

    def band(claim: Statement) -> list[float]:
        """How far a method is outside of Retrain's mean ± deviation; below 0 is inside."""
        ours, goal = (
            np.array([r.metrics[claim.metric] for r in records if r.method == name])
            for name in claim.rows
        )
        return list(np.abs(ours - goal.mean()) - charts.deviation(goal))

    def dip(_: Statement) -> list[float]:
        """By how much the distance at the scrubbed network exceeds the least before it."""
        forget = [figure["activations"]["forget"] for figure in figures]
        return [path[-1] - min(path[:-1]) for path in forget]

    def swing(_: Statement) -> list[float]:
        """The range on the retain set, as a share of the fall on the forget set."""
        paths = [figure["activations"] for figure in figures]
        return [float(np.ptp(p["retain"])) / (p["forget"][0] - p["forget"][-1]) for p in paths]

    ways = (nearer, gap, bound, leak, rise, band, dip, swing)
    return judge_all("ntk_scrubbing", {of.__name__: _judging(of) for of in ways})


def _judging(values: Callable[[Statement], list[float]]) -> Judge:
    return lambda claim: [claim.judge(values(claim))]
