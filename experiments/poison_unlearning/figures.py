"""Figures 2 to 9 of Pawelczyk et al. 2024 for vision, as SVG text, from what a run measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy import stats

from experiments.poison_unlearning.claims import (
    EFFECTS,
    FPR,
    WORDS,
    by_seed,
    first_attack,
    largest_budget,
)
from experiments.poison_unlearning.shift import SHARES
from unlearnkit.reporting import STYLE, to_svg
from unlearnkit.studies import (
    ORIGINAL,
    RETRAIN,
    Record,
)

BLUE, ORANGE, RED, GREEN, GREY = "#1d4ed8", "#ea580c", "#b91c1c", "#16a34a", "#78716c"
NAMES = {
    "retrain": "Retrain, as long",
    "fine_tune": "GD",
    "noisy_descent": "NGD",
    "gradient_ascent": "GA",
    "neg_grad_plus": "NegGrad+",
    "exact_last_layers": "EU-k",
    "catastrophic_last_layers": "CF-k",
    "scrub": "SCRUB",
}


def methods_against_retrain(kind: str, records: Sequence[Record]) -> str:
    """Returns Figure 2 or 3, or Table 2 as bars: what each method leaves, and its accuracy.

    Bars are means with standard deviations over the seeds at the largest budget; the lines are the
    network that nothing was done to, and Retrain.
    """
    metric = EFFECTS[kind][0]
    panels = {metric: WORDS[kind], "accuracy_test": "test accuracy"}
    most = largest_budget(records)
    seeds = by_seed(records, first_attack(records))
    names = [name for name in NAMES if any((name, most) in cells for cells in seeds)]
    with mpl.rc_context(STYLE):
        canvas = Figure(figsize=(4.2 * len(panels), 3.2), layout="constrained")
        grid = canvas.subplots(1, len(panels), squeeze=False)[0]
        for axes, (name, title) in zip(grid, panels.items(), strict=True):
            for place, method in enumerate(names):
                values = [c[method, most][name] for c in seeds if (method, most) in c]
                axes.bar(place, np.mean(values), color=ORANGE if name == metric else BLUE)
                axes.errorbar(place, np.mean(values), _spread(values), color="0.2", capsize=3)
            for row, style, label in ((ORIGINAL, "-", "no unlearning"), (RETRAIN, "--", "Retrain")):
                level = np.mean([cells[row, None][name] for cells in seeds])
                axes.axhline(level, color="0.3", linestyle=style, linewidth=1, label=label)
            axes.set_xticks(range(len(names)), [NAMES[n] for n in names], rotation=50, ha="right")
            axes.set_title(title)
        grid[0].legend()
        return to_svg(canvas)


def budgets(kind: str, records: Sequence[Record]) -> str:
    """Returns Figure 8: what is left, and the accuracy, as the budget grows; a line per method."""
    metric = EFFECTS[kind][0]
    seeds = by_seed(records, first_attack(records))
    levels = sorted({r.budget for r in records if r.budget is not None})
    with mpl.rc_context(STYLE):
        panels = list(dict.fromkeys((metric, "accuracy_test")))
        canvas = Figure(figsize=(4.0 * len(panels) + 1.4, 3.2), layout="constrained")
        grid = canvas.subplots(1, len(panels), squeeze=False)[0]
        for axes, name in zip(grid, panels, strict=True):
            for index, (method, label) in enumerate(NAMES.items()):
                points = [(b, _mean(seeds, (method, b), name)) for b in levels]
                shown = [(100 * b, value) for b, value in points if value is not None]
                if shown:
                    axes.plot(*zip(*shown, strict=True), "o-", ms=3, color=f"C{index}", label=label)
            retrained = _mean(seeds, (RETRAIN, None), name)
            if retrained is not None:
                axes.axhline(retrained, color="0.3", linestyle="--", linewidth=1)
            axes.set(xlabel="% of Retrain's example-gradients")
            axes.set_title(WORDS[kind] if name == metric else "test accuracy")
        canvas.legend(*grid[0].get_legend_handles_labels(), loc="outside right center")
        return to_svg(canvas)


def sizes(records: Sequence[Record]) -> str:
    """Returns Figure 9: TPR at FPR 0.01 at the largest budget, by the share of poisons."""
    metric = EFFECTS["gaussian"][0]
    attacks = list(dict.fromkeys(r.question for r in records))
    most = largest_budget(records)
    rows: dict[str, tuple[str, float | None]] = {"no unlearning": (ORIGINAL, None)}
    rows |= {label: (name, most) for name, label in NAMES.items() if name != "retrain"}
    with mpl.rc_context(STYLE):
        canvas = Figure(figsize=(8.4, 2.9), layout="constrained")
        axes = canvas.subplots()
        for index, attack in enumerate(attacks):
            seeds = by_seed(records, attack)
            means = [_mean(seeds, row, metric) for row in rows.values()]
            places = np.arange(len(rows)) + 0.8 * (index + 0.5) / len(attacks) - 0.4
            heights = [0.0 if mean is None else mean for mean in means]
            axes.bar(places, heights, 0.8 / len(attacks), color=f"C{index}", label=attack)
        axes.axhline(FPR, color="0.3", linestyle="--", linewidth=1, label="Retrain must give")
        axes.set_xticks(range(len(rows)), list(rows), rotation=40, ha="right")
        axes.set_title(WORDS["gaussian"])
        axes.legend()
        return to_svg(canvas)


def statistics(records: Sequence[Record]) -> str:
    """Returns Figures 6 and 7: I_z before and after, against N(0, 1), and trade-off curves."""
    attack = first_attack(records)
    rows = {ORIGINAL: ("no unlearning", RED), RETRAIN: ("Retrain", BLUE)}
    with mpl.rc_context(STYLE):
        canvas = Figure(figsize=(8.6, 3.0), layout="constrained")
        histogram, tradeoff = canvas.subplots(1, 2)
        grid = np.linspace(-6, 6, 200)
        histogram.plot(grid, stats.norm.pdf(grid), color="0.3", linewidth=1, label="N(0, 1)")
        rates = np.logspace(-3, 0, 100)
        threshold = stats.norm.isf(rates / 2)
        for method, (label, colour) in rows.items():
            values = _pooled(records, attack, method)
            histogram.hist(
                values, bins=40, range=(-6, 6), density=True, color=colour, alpha=0.4, label=label
            )
            tpr = np.mean(np.abs(values)[:, None] > threshold, axis=0)
            tradeoff.plot(rates, tpr, color=colour, label=label)
            mean = abs(float(values.mean()))
            expected = stats.norm.sf(threshold - mean) + stats.norm.cdf(-threshold - mean)
            tradeoff.plot(rates, expected, color=colour, linestyle="--", linewidth=1)
        histogram.set(xlabel="I_z", title="the noise in the network's gradients")
        histogram.legend()
        tradeoff.plot(rates, rates, color="0.6", linewidth=0.8)
        tradeoff.set(xscale="log", yscale="log", xlabel="FPR", ylabel="TPR, two-sided")
        tradeoff.set(title="trade-off; dashed: of a shifted normal", ylim=(1e-3, 1.2))
        tradeoff.legend()
        return to_svg(canvas)


def shifts(seeds: Sequence[Mapping[str, Any]]) -> str:
    """Returns Figure 4: the model shift by how much is taken away, in ℓ1 and in ℓ2."""
    colours = {"indiscriminate": BLUE, "targeted": RED, "random": ORANGE}
    with mpl.rc_context(STYLE):
        canvas = Figure(figsize=(8.4, 3.0), layout="constrained")
        for axes, (norm, title) in zip(
            canvas.subplots(1, 2), (("l1", "L1"), ("l2", "L2")), strict=True
        ):
            for kind, colour in colours.items():
                values = np.array([seed[norm][kind] for seed in seeds])
                _band(axes, 100 * np.array(SHARES), values, colour, kind)
            axes.set(xlabel="β, % taken away", title=f"model shift, {title}")
            axes.set_ylim(bottom=0)
        axes.legend()
        return to_svg(canvas)


def updates(courses: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """Returns Figure 5: cosines of clean gradients with the shift that is wanted."""
    titles = {
        "printed": "poisons, equation (4) as printed",
        "per example": "poisons, each example once",
        "random": "random samples",
    }
    with mpl.rc_context(STYLE):
        canvas = Figure(figsize=(10.4, 2.9), layout="constrained")
        grid = canvas.subplots(1, len(titles), sharey=True)
        for axes, (name, title) in zip(grid, titles.items(), strict=True):
            for start, colour, label in (
                ("from_trained", BLUE, "from θ(S_corr)"),
                ("from_random", RED, "from random weights"),
            ):
                values = np.array([course[start] for course in courses[name]])
                _band(axes, np.arange(values.shape[1]), values, colour, label)
            axes.axhline(0, color="0.6", linewidth=0.8)
            axes.set(xlabel="t", title=title)
        grid[0].set_ylabel("cosine")
        grid[0].legend()
        return to_svg(canvas)


def _band(axes: Axes, x: np.ndarray, values: np.ndarray, colour: str, label: str) -> None:
    mean = values.mean(0)
    spread = values.std(0, ddof=1) if len(values) > 1 else 0 * mean
    axes.plot(x, mean, color=colour, label=label)
    axes.fill_between(x, mean - spread, mean + spread, color=colour, alpha=0.2, linewidth=0)


def _pooled(records: Sequence[Record], attack: str, method: str) -> np.ndarray:
    own = [
        r.curves["gaussian_statistic"]
        for r in records
        if (r.question, r.method) == (attack, method) and r.finished
    ]
    return np.concatenate([np.asarray(values) for values in own])


def _mean(
    seeds: Sequence[Mapping[tuple[str, float | None], Mapping[str, float]]],
    row: tuple[str, float | None],
    name: str,
) -> float | None:
    values = [cells[row][name] for cells in seeds if row in cells]
    return float(np.mean(values)) if values else None


def _spread(values: Sequence[float]) -> float:
    return float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
