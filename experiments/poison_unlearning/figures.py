"""Figures 2 to 9 of Pawelczyk et al. 2024 for vision, as SVG text, from what a run measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure
from scipy import stats

from experiments import charts
from experiments.charts import BLUE, ORANGE, RED, chart
from experiments.poison_unlearning import claims
from experiments.poison_unlearning.claims import EFFECTS, NAMES, WORDS, at, largest_budget, runs_of
from experiments.poison_unlearning.shift import SHARES
from unlearnkit.base import Dataset, Poisoned
from unlearnkit.poisoning import perturbation
from unlearnkit.studies import ORIGINAL, RETRAIN, Record
from unlearnkit.validation import check_continuous

SHOWN = 4
MAGNIFIED = 10


@chart
def methods_against_retrain(kind: str, records: Sequence[Record]) -> Figure:
    metric = EFFECTS[kind][0]
    titles = {metric: WORDS[kind], "accuracy_test": "test accuracy"}
    most = largest_budget(records)
    runs = runs_of(records, records[0].question)
    names = [name for name in NAMES if at(name, most) in runs.methods()]
    figure, grid = charts.panels(4.2 * len(titles), 3.2, len(titles))
    for axes, (name, title) in zip(grid, titles.items(), strict=True):
        for place, method in enumerate(names):
            values = runs.values(at(method, most), name)
            charts.bar(axes, place, values, ORANGE if name == metric else BLUE)
        for row, style, label in ((ORIGINAL, "-", "no unlearning"), (RETRAIN, "--", "Retrain")):
            look: Any = {"color": "0.3", "linestyle": style, "linewidth": 1, "label": label}
            axes.axhline(runs.mean(row, name), **look)
        charts.name_places(axes, [NAMES[name] for name in names], 50)
        axes.set_title(title)
    grid[0].legend()
    return figure


@chart
def budgets(kind: str, records: Sequence[Record]) -> Figure:
    metric = EFFECTS[kind][0]
    runs = runs_of(records, records[0].question)
    levels = sorted({r.budget for r in records if r.budget is not None})
    drawn = list(dict.fromkeys((metric, "accuracy_test")))
    figure, grid = charts.panels(4.0 * len(drawn) + 1.4, 3.2, len(drawn))
    for axes, name in zip(grid, drawn, strict=True):
        for index, (method, label) in enumerate(NAMES.items()):
            rows = {100 * b: at(method, b) for b in levels if at(method, b) in runs.methods()}
            if rows:
                means = [runs.mean(row, name) for row in rows.values()]
                axes.plot(list(rows), means, "o-", ms=3, color=f"C{index}", label=label)
        axes.axhline(runs.mean(RETRAIN, name), color="0.3", linestyle="--", linewidth=1)
        axes.set(xlabel="% of Retrain's example-gradients")
        axes.set_title(WORDS[kind] if name == metric else "test accuracy")
    figure.legend(*grid[0].get_legend_handles_labels(), loc="outside right center")
    return figure


@chart
def identified(kind: str, shares: Sequence[float], curves: Mapping[str, list[float]]) -> Figure:
    figure, (axes,) = charts.panels(5.6, 3.2)
    for index, (name, means) in enumerate(curves.items()):
        style = "k--" if name == RETRAIN else f"C{index}o-"
        axes.plot(shares, means, style, ms=3, label=NAMES.get(name, "Retrain"))
    axes.set(xlabel="share of the poisons that is identified", title=WORDS[kind])
    figure.legend(*axes.get_legend_handles_labels(), loc="outside right center")
    return figure


@chart
def sizes(records: Sequence[Record]) -> Figure:
    attacks = claims.attacks_of(records)
    most = largest_budget(records)
    rows = {"no unlearning": ORIGINAL}
    rows |= {label: at(name, most) for name, label in NAMES.items() if name != "retrain"}
    figure, (axes,) = charts.panels(8.4, 2.9)
    for index, attack in enumerate(attacks):
        runs, metric = runs_of(records, attack), EFFECTS["gaussian"][0]
        there = runs.methods()
        heights = [runs.mean(row, metric) if row in there else 0.0 for row in rows.values()]
        places = np.arange(len(rows)) + 0.8 * (index + 0.5) / len(attacks) - 0.4
        axes.bar(places, heights, 0.8 / len(attacks), color=f"C{index}", label=attack)
    axes.axhline(claims.FPR, color="0.3", linestyle="--", linewidth=1, label="Retrain must give")
    charts.name_places(axes, list(rows), 40)
    axes.set_title(WORDS["gaussian"])
    axes.legend()
    return figure


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
