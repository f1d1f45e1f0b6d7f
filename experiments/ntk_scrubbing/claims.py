"""What Golatkar et al. 2020b claim, judged from our figures; see `experiments.claims`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from experiments.claims import Claim, judge_difference
from unlearnkit.studies import Record

ORIGINAL, RETRAIN, FISHER, NTK = "original", "retrain", "fisher", "ntk_fisher"
BASELINES = ("fine_tune", FISHER)
PAPER = "a figure without numbers"
Metrics = Mapping[str, Mapping[str, float]]


def judge(records: Sequence[Record], figures: Sequence[Mapping[str, Any]]) -> list[Claim]:
    """Returns the claims of section 6.

    Args:
      records: of every method and seed; the scrubbed network is `ntk_fisher`.
      figures: the numbers of the figures, one per seed.
    """
    seeds = _by_seed(records)
    nearer = [
        _nearer(seeds, metric, words, where, baseline)
        for metric, words, where in (
            ("error_forget", "forget error", "Figure 2 (b)"),
            ("relearn_time", "relearn time", "Figure 2 (d)"),
            ("member_share_forget", "share called member", "Figure 2 (e)"),
        )
        for baseline in BASELINES
    ]
    return [
        *nearer,
        _difference(
            seeds,
            "Fisher forgetting has a higher error on what stays than NTK scrubbing",
            "Figure 2 (a)",
            lambda m: m[FISHER]["error_retain"] - m[NTK]["error_retain"],
            1,
        ),
        _difference(
            seeds,
            "NTK scrubbing brings the forget set's activations nearer to Retrain's",
            "Figure 4",
            lambda m: (
                m[NTK]["activation_distance_forget"] - m[ORIGINAL]["activation_distance_forget"]
            ),
            -1,
        ),
        *_bounds(figures),
    ]


def _nearer(seeds: Sequence[Metrics], metric: str, words: str, where: str, baseline: str) -> Claim:
    def gap(metrics: Metrics) -> float:
        goal = metrics[RETRAIN][metric]
        return abs(metrics[NTK][metric] - goal) - abs(metrics[baseline][metric] - goal)

    text = f"NTK scrubbing's {words} is closer to Retrain's than that of {baseline}"
    return _difference(seeds, text, where, gap, -1)


def _difference(
    seeds: Sequence[Metrics], text: str, where: str, value: Callable[[Metrics], float], sign: int
) -> Claim:
    verdict, ours = judge_difference([value(metrics) for metrics in seeds], sign=sign)
    return Claim(text, f"section 6, {where}", ours, PAPER, verdict)


def _bounds(figures: Sequence[Mapping[str, Any]]) -> list[Claim]:
    """Bounds span decades, and are compared by their logarithms to base 10."""
    tradeoffs = [figure["tradeoff"] for figure in figures]
    tighter = [
        float(np.mean(np.log10(t["ntk"]["black_box"]) - np.log10(t["ntk"]["white_box"])))
        for t in tradeoffs
    ]
    less = [
        float(np.mean(np.log10(t["ntk"]["black_box"]) - np.log10(t["fisher"]["black_box"])))
        for t in tradeoffs
    ]
    leaks = [
        float(np.log10(np.median(f["leakage"]["forget"])) - np.log10(np.median(_others(f))))
        for f in figures
    ]
    rising = [t["ntk"]["test_error"][-1] - t["ntk"]["test_error"][0] for t in tradeoffs]
    claims = []
    for text, where, values, sign, unit in (
        ("The black-box bound of one query lies below the white-box bound", "left, centre",
         tighter, -1, "decades, mean over the noises: "),
        ("NTK scrubbing leaves less information for a query than Fisher at equal noise", "centre",
         less, -1, "decades, mean over the noises: "),
        ("Less information costs test error", "left, centre",
         rising, 1, "most noise less least noise: "),
        ("Queries of the forget set tell more than others", "right",
         leaks, 1, "decades between the medians: "),
    ):  # fmt: skip
        verdict, ours = judge_difference(values, sign=sign)
        claims.append(Claim(text, f"section 6, Figure 3, {where}", unit + ours, PAPER, verdict))
    return claims


def _others(figure: Mapping[str, Any]) -> list[float]:
    return [*figure["leakage"]["retain"], *figure["leakage"]["test"]]


def _by_seed(records: Sequence[Record]) -> list[Metrics]:
    seeds = sorted({record.seed for record in records})
    return [{r.method: r.metrics for r in records if r.seed == seed} for seed in seeds]
