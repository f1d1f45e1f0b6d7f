"""What Golatkar et al. 2020b claim, judged from our figures; see `experiments.claims`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from experiments.claims import Claim, Judge, Runs, Statement, judge_all
from experiments.ntk_scrubbing.measure import OTHER
from unlearnkit.studies import Record


def judge(records: Sequence[Record], figures: Sequence[Mapping[str, Any]]) -> list[Claim]:
    """Returns the claims of section 5.5, on records and on the numbers of the figures, per seed.

    Bounds span decades, and are compared by their logarithms to base 10.
    """
    runs, tradeoffs = Runs(records), [figure["tradeoff"] for figure in figures]

    def nearer(claim: Statement) -> list[float]:
        """By how much one method is further from Retrain than another."""

        def gap(found: Mapping[str, Record]) -> float:
            values = [found[name].metrics[claim.metric] for name in (*claim.rows, OTHER)]
            return abs(values[0] - values[2]) - abs(values[1] - values[2])

        return runs.paired(gap, *claim.rows, OTHER)

    def bound(claim: Statement) -> list[float]:
        """By how many decades NTK scrubbing's bound of one query exceeds another, on average."""
        method, kind = claim.rows
        pairs = [(t["ntk"]["black_box"], t[method][kind]) for t in tradeoffs]
        return [float(np.mean(np.log10(one) - np.log10(other))) for one, other in pairs]

    def leak(_: Statement) -> list[float]:
        told = [figure["leakage"] for figure in figures]
        others = [np.median([*sets["retain"], *sets["test"]]) for sets in told]
        return list(np.log10([np.median(sets["forget"]) for sets in told]) - np.log10(others))

    def rise(_: Statement) -> list[float]:
        return [t["ntk"]["test_error"][-1] - t["ntk"]["test_error"][0] for t in tradeoffs]

    def gap(claim: Statement) -> list[float]:
        return runs.gaps(claim.metric, *claim.rows)

    def band(claim: Statement) -> list[float]:
        return runs.outside(claim.metric, *claim.rows)

    def dip(_: Statement) -> list[float]:
        """By how much the distance at the scrubbed network exceeds the least before it."""
        return [
            f["activations"]["forget"][-1] - min(f["activations"]["forget"][:-1]) for f in figures
        ]

    def swing(_: Statement) -> list[float]:
        """The range on the retain set, as a share of the fall on the forget set."""
        paths = [figure["activations"] for figure in figures]
        return [float(np.ptp(p["retain"])) / (p["forget"][0] - p["forget"][-1]) for p in paths]

    def hidden(_: Statement) -> list[float]:
        return [f["null_space"]["share"] for f in figures if "null_space" in f]

    def craft(_: Statement) -> list[float]:
        told = [f["crafted"] for f in figures if "crafted" in f]
        return [float(np.median(np.log10(t["after"]) - np.log10(t["before"]))) for t in told]

    def judging(values: Callable[[Statement], list[float]]) -> Judge:
        return lambda claim: [claim.judge(found)] if (found := values(claim)) else []

    ways = (nearer, gap, bound, leak, rise, band, dip, swing, hidden, craft)
    return judge_all("ntk_scrubbing", {of.__name__: judging(of) for of in ways})
