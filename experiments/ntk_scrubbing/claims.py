"""What Golatkar et al. 2020b claim, judged from our figures; see `experiments.claims`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from experiments.claims import Claim, Runs, claim_difference
from unlearnkit.studies import Record

ORIGINAL, RETRAIN, FISHER, NTK = "original", "retrain", "fisher", "ntk_fisher"
BASELINES = ("fine_tune", FISHER)


def judge(records: Sequence[Record], figures: Sequence[Mapping[str, Any]]) -> list[Claim]:
    """Returns the claims of section 6.

    Args:
      records: of every method and seed; the scrubbed network is `ntk_fisher`.
      figures: the numbers of the figures, one per seed.
    """
    runs = Runs(records)
    claims = [
        _nearer(runs, metric, words, where, baseline)
        for metric, words, where in (
            ("error_forget", "forget error", "Figure 2 (b)"),
            ("relearn_time", "relearn time", "Figure 2 (d)"),
            ("member_share_forget", "share called member", "Figure 2 (e)"),
        )
        for baseline in BASELINES
    ]
    for text, where, values, sign, ours in (
        ("Fisher forgetting has a higher error on what stays than NTK scrubbing", "Figure 2 (a)",
         runs.gaps("error_retain", FISHER, NTK), 1, "{}"),
        ("NTK scrubbing brings the forget set's activations nearer to Retrain's", "Figure 4",
         runs.gaps("activation_distance_forget", NTK, ORIGINAL), -1, "{}"),
        *_bounds(figures),
    ):  # fmt: skip
        claims.append(claim_difference(text, f"section 6, {where}", values, sign, ours))
    return claims


def _nearer(runs: Runs, metric: str, words: str, where: str, baseline: str) -> Claim:
    def gap(records: Mapping[str, Record]) -> float:
        found = {name: record.metrics[metric] for name, record in records.items()}
        goal = found[RETRAIN]
        return abs(found[NTK] - goal) - abs(found[baseline] - goal)

    text = f"NTK scrubbing's {words} is closer to Retrain's than that of {baseline}"
    values = runs.paired(gap, NTK, baseline, RETRAIN)
    return claim_difference(text, f"section 6, {where}", values, -1)


def _bounds(figures: Sequence[Mapping[str, Any]]) -> Sequence[tuple[str, str, Any, int, str]]:
    """Bounds span decades, and are compared by their logarithms to base 10."""
    tradeoffs = [figure["tradeoff"] for figure in figures]

    def decades(method: str, bound: str) -> list[float]:
        """Returns by how much NTK scrubbing's bound of one query exceeds another, on average."""
        pairs = [(t["ntk"]["black_box"], t[method][bound]) for t in tradeoffs]
        return [float(np.mean(np.log10(one) - np.log10(other))) for one, other in pairs]

    leaks = []
    for leakage in (figure["leakage"] for figure in figures):
        others = np.median([*leakage["retain"], *leakage["test"]])
        leaks.append(float(np.log10(np.median(leakage["forget"])) - np.log10(others)))
    rising = [t["ntk"]["test_error"][-1] - t["ntk"]["test_error"][0] for t in tradeoffs]
    over_noises = "decades, mean over the noises: {}"
    return (
        ("The black-box bound of one query lies below the white-box bound",
         "Figure 3, left, centre", decades("ntk", "white_box"), -1, over_noises),
        ("NTK scrubbing leaves less information for a query than Fisher at equal noise",
         "Figure 3, centre", decades("fisher", "black_box"), -1, over_noises),
        ("Less information costs test error",
         "Figure 3, left, centre", rising, 1, "most noise less least noise: {}"),
        ("Queries of the forget set tell more than others",
         "Figure 3, right", leaks, 1, "decades between the medians: {}"),
    )  # fmt: skip
