"""Figures 2 to 9 of Pawelczyk et al. 2024 for vision, as SVG text, from what a run measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy import stats

from experiments.poison_unlearning import claims
from experiments.poison_unlearning.claims import EFFECTS, NAMES, WORDS, at, largest_budget, runs_of
from experiments.poison_unlearning.shift import SHARES
from unlearnkit.base import Dataset, Poisoned
from unlearnkit.poisoning import perturbation
from unlearnkit.reporting import charts
from unlearnkit.reporting.charts import BLUE, ORANGE, RED, chart
from unlearnkit.studies import ORIGINAL, RETRAIN, Record
from unlearnkit.validation import check_continuous

SHOWN = 4
MAGNIFIED = 10


@chart
def methods_against_retrain(kind: str, records: Sequence[Record]) -> Figure:
    """Draws what every share of poisons leaves, a bar each, and the test accuracy."""
    titles = {EFFECTS[kind][0]: WORDS[kind], "accuracy_test": "test accuracy"}
    attacks, most = claims.attacks_of(records), largest_budget(records)
    rows = {"no unlearning": ORIGINAL, "Retrain": RETRAIN}
    rows |= {label: at(name, most) for name, label in NAMES.items()}
    figure, grid = charts.panels(5.0 * len(titles), 3.2, len(titles))
    for axes, (metric, title) in zip(grid, titles.items(), strict=True):
        for index, attack in enumerate(attacks):
            runs = runs_of(records, attack)
            own = rows.values()
            values = [runs.values(r, metric) if r in runs.methods() else [0.0] for r in own]
            places = np.arange(len(rows)) + 0.8 * (index + 0.5) / len(attacks) - 0.4
            look: Any = {"color": f"C{index}", "label": attack, "ecolor": "0.2"}
            heights, spread = map(np.mean, values), map(charts.deviation, values)
            axes.bar(places, [*heights], 0.8 / len(attacks), yerr=[*spread], **look)
        charts.name_places(axes, list(rows), 50)
        axes.set_title(title)
    grid[0].legend()
    return figure


@chart
def budgets(kind: str, records: Sequence[Record]) -> Figure:
    """Draws what is left of the first share of poisons by what unlearning may cost."""
    metric, runs = EFFECTS[kind][0], runs_of(records, records[0].question)
    levels = sorted({r.budget for r in records if r.budget is not None})
    titles = {metric: WORDS[kind], "accuracy_test": "test accuracy"}
    figure, grid = charts.panels(4.0 * len(titles) + 1.4, 3.2, len(titles))
    for axes, (name, title) in zip(grid, titles.items(), strict=True):
        curves = {
            method: {
                100 * b: runs.mean(at(method, b), name)
                for b in levels
                if at(method, b) in runs.methods()
            }
            for method in NAMES
        }
        _draw_curves(axes, curves, "% of Retrain's example-gradients", title)
        axes.axhline(runs.mean(RETRAIN, name), color="0.3", linestyle="--", linewidth=1)
    figure.legend(*grid[0].get_legend_handles_labels(), loc="outside right center")
    return figure


@chart
def identified(kind: str, shares: Sequence[float], curves: Mapping[str, list[float]]) -> Figure:
    """Draws what is left of the poisons by how many of them are identified."""
    figure, (axes,) = charts.panels(5.6, 3.2)
    points = {name: dict(zip(shares, means, strict=True)) for name, means in curves.items()}
    _draw_curves(axes, points, "share of the poisons that is identified", WORDS[kind])
    figure.legend(*axes.get_legend_handles_labels(), loc="outside right center")
    return figure


def _draw_curves(
    axes: Axes, curves: Mapping[str, Mapping[float, float]], xlabel: str, title: str
) -> None:
    for index, (name, points) in enumerate(curves.items()):
        style = "k--" if name == RETRAIN else f"C{index}o-"
        axes.plot([*points], [*points.values()], style, ms=3, label=NAMES.get(name, "Retrain"))
    axes.set(xlabel=xlabel, title=title)


@chart
def statistics(records: Sequence[Record]) -> Figure:
    figure, (histogram, tradeoff) = charts.panels(8.6, 3.0, 2)
    grid = np.linspace(-6, 6, 200)
    histogram.plot(grid, stats.norm.pdf(grid), color="0.3", linewidth=1, label="N(0, 1)")
    rates = np.logspace(-3, 0, 100)
    threshold = stats.norm.isf(rates / 2)
    for method, label, colour in ((ORIGINAL, "no unlearning", RED), (RETRAIN, "Retrain", BLUE)):
        values = claims.pooled(records, records[0].question, method)
        look: Any = {"color": colour, "label": label}
        histogram.hist(values, bins=40, range=(-6, 6), density=True, alpha=0.4, **look)
        tradeoff.plot(rates, np.mean(np.abs(values)[:, None] > threshold, axis=0), **look)
        mean = abs(float(values.mean()))
        expected = stats.norm.sf(threshold - mean) + stats.norm.cdf(-threshold - mean)
        tradeoff.plot(rates, expected, color=colour, linestyle="--", linewidth=1)
    histogram.set(xlabel="I_z", title="the noise in the network's gradients")
    histogram.legend()
    tradeoff.plot(rates, rates, color="0.6", linewidth=0.8)
    tradeoff.set(xscale="log", yscale="log", xlabel="FPR", ylabel="TPR, two-sided")
    tradeoff.set(title="trade-off; dashed: of a shifted normal", ylim=(1e-3, 1.2))
    tradeoff.legend()
    return figure


@chart
def shifts(seeds: Sequence[Mapping[str, Any]]) -> Figure:
    figure, grid = charts.panels(8.4, 3.0, 2)
    for axes, norm in zip(grid, ("l1", "l2"), strict=True):
        for kind, colour in (("indiscriminate", BLUE), ("targeted", RED), ("random", ORANGE)):
            values = [seed[norm][kind] for seed in seeds]
            charts.band(axes, 100 * np.array(SHARES), values, color=colour, label=kind)
        axes.set(xlabel="β, % taken away", title=f"model shift, {norm.upper()}")
        axes.set_ylim(bottom=0)
    grid[-1].legend()
    return figure


@chart
def updates(courses: Mapping[str, Sequence[Mapping[str, Any]]]) -> Figure:
    titles = {
        "printed": "poisons, equation (4) as printed",
        "per example": "poisons, each example once",
        "random": "random samples",
    }
    starts = (
        ("from_trained", BLUE, "from θ(S_corr)"), ("from_random", RED, "from random weights")
    )  # fmt: skip
    figure, grid = charts.panels(10.4, 2.9, len(titles), sharey=True)
    for axes, (name, title) in zip(grid, titles.items(), strict=True):
        for start, colour, label in starts:
            values = np.array([course[start] for course in courses[name]])
            charts.band(axes, np.arange(values.shape[1]), values, color=colour, label=label)
        axes.axhline(0, color="0.6", linewidth=0.8)
        axes.set(xlabel="t", title=title)
    grid[0].set_ylabel("cosine")
    grid[0].legend()
    return figure


def show(poisoned: Poisoned, clean: Dataset) -> dict[str, np.ndarray]:
    """Returns the first poisons of an attack in pixels of [0, 1], which they may leave, by title.

    What they were made of, they, and their differences, magnified around grey; each [k, h, w, c].
    """
    normalisation = check_continuous(clean, method="a picture")
    delta = np.asarray(perturbation(poisoned, clean)[:SHOWN] * jnp.asarray(normalisation.std))
    base = np.asarray(normalisation.invert(clean.x[poisoned.info.base[:SHOWN]]))
    return {"base": base, "poison": base + delta, f"{MAGNIFIED} δ": 0.5 + MAGNIFIED * delta}


@chart
def poisons_figure(name: str, shown: Mapping[str, np.ndarray]) -> Figure:
    images = {f"{name}\n{title}": charts.mosaic(x, columns=1) for title, x in shown.items()}
    return charts.gallery(images, columns=len(images), width=1.1, height=0.85 * SHOWN + 0.6)[0]
