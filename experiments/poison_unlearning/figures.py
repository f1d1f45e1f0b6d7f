"""Figures 2 to 9 of Pawelczyk et al. 2024 for vision, as SVG text, from what a run measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure
from scipy import stats

from experiments.charts import (
    BLUE,
    ORANGE,
    RED,
    band,
    bar,
    chart,
    gallery,
    mosaic,
    name_places,
    panels,
)
from experiments.poison_unlearning.claims import (
    EFFECTS,
    FPR,
    WORDS,
    Cells,
    Row,
    by_seed,
    largest_budget,
    pooled,
)
from experiments.poison_unlearning.shift import SHARES
from unlearnkit.base import Dataset, Poisoned
from unlearnkit.poisoning import perturbation
from unlearnkit.studies import ORIGINAL, RETRAIN, Record
from unlearnkit.validation import check_continuous

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
SHOWN = 4
MAGNIFIED = 10
IMAGES = (
    "Base images, poisons, and their difference times ten around grey; what is beyond black and"
    " white is cut off."
)


@chart(
    "Figure 2, Figure 3 or Table 2: what each method leaves at the largest budget. The lines "
    "are the network that nothing was done to (solid) and Retrain (dashed)."
)
def methods_against_retrain(kind: str, records: Sequence[Record]) -> Figure:
    metric = EFFECTS[kind][0]
    titles = {metric: WORDS[kind], "accuracy_test": "test accuracy"}
    most = largest_budget(records)
    seeds = by_seed(records, records[0].question)
    names = [name for name in NAMES if any((name, most) in cells for cells in seeds)]
    figure, grid = panels(4.2 * len(titles), 3.2, len(titles))
    for axes, (name, title) in zip(grid, titles.items(), strict=True):
        for place, method in enumerate(names):
            values = [c[method, most][name] for c in seeds if (method, most) in c]
            bar(axes, place, values, ORANGE if name == metric else BLUE)
        for row, style, label in ((ORIGINAL, "-", "no unlearning"), (RETRAIN, "--", "Retrain")):
            level = float(np.mean([cells[row, None][name] for cells in seeds]))
            axes.axhline(level, color="0.3", linestyle=style, linewidth=1, label=label)
        name_places(axes, [NAMES[name] for name in names], 50)
        axes.set_title(title)
    grid[0].legend()
    return figure


@chart("Figure 8: what is left as the budget grows. The dashed line is Retrain.")
def budgets(kind: str, records: Sequence[Record]) -> Figure:
    metric = EFFECTS[kind][0]
    seeds = by_seed(records, records[0].question)
    levels = sorted({r.budget for r in records if r.budget is not None})
    drawn = list(dict.fromkeys((metric, "accuracy_test")))
    figure, grid = panels(4.0 * len(drawn) + 1.4, 3.2, len(drawn))
    for axes, name in zip(grid, drawn, strict=True):
        for index, (method, label) in enumerate(NAMES.items()):
            means = {100 * b: _mean(seeds, (method, b), name) for b in levels}
            shown = {budget: mean for budget, mean in means.items() if mean is not None}
            if shown:
                line: Any = {"color": f"C{index}", "label": label}
                axes.plot(list(shown), list(shown.values()), "o-", ms=3, **line)
        retrained = _mean(seeds, (RETRAIN, None), name)
        if retrained is not None:
            axes.axhline(retrained, color="0.3", linestyle="--", linewidth=1)
        axes.set(xlabel="% of Retrain's example-gradients")
        axes.set_title(WORDS[kind] if name == metric else "test accuracy")
    figure.legend(*grid[0].get_legend_handles_labels(), loc="outside right center")
    return figure


@chart("Figure 9: the same attack on other shares of the training set.")
def sizes(records: Sequence[Record]) -> Figure:
    attacks = list(dict.fromkeys(r.question for r in records))
    most = largest_budget(records)
    rows: dict[str, Row] = {"no unlearning": (ORIGINAL, None)}
    rows |= {label: (name, most) for name, label in NAMES.items() if name != "retrain"}
    figure, (axes,) = panels(8.4, 2.9)
    for index, attack in enumerate(attacks):
        seeds = by_seed(records, attack)
        heights = [_mean(seeds, row, EFFECTS["gaussian"][0]) or 0.0 for row in rows.values()]
        places = np.arange(len(rows)) + 0.8 * (index + 0.5) / len(attacks) - 0.4
        axes.bar(places, heights, 0.8 / len(attacks), color=f"C{index}", label=attack)
    axes.axhline(FPR, color="0.3", linestyle="--", linewidth=1, label="Retrain must give")
    name_places(axes, list(rows), 40)
    axes.set_title(WORDS["gaussian"])
    axes.legend()
    return figure


@chart(
    "Figures 6 and 7: the statistic of all poisons of all seeds, and how many it gives away at "
    "each false positive rate."
)
def statistics(records: Sequence[Record]) -> Figure:
    figure, (histogram, tradeoff) = panels(8.6, 3.0, 2)
    grid = np.linspace(-6, 6, 200)
    histogram.plot(grid, stats.norm.pdf(grid), color="0.3", linewidth=1, label="N(0, 1)")
    rates = np.logspace(-3, 0, 100)
    threshold = stats.norm.isf(rates / 2)
    for method, label, colour in ((ORIGINAL, "no unlearning", RED), (RETRAIN, "Retrain", BLUE)):
        values = pooled(records, records[0].question, method)
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


@chart(
    "Figure 4: distance between logistic regressions on features with the poisons, and without "
    "a share β of them, against as many random clean samples."
)
def shifts(seeds: Sequence[Mapping[str, Any]]) -> Figure:
    figure, grid = panels(8.4, 3.0, 2)
    for axes, norm in zip(grid, ("l1", "l2"), strict=True):
        for kind, colour in (("indiscriminate", BLUE), ("targeted", RED), ("random", ORANGE)):
            values = [seed[norm][kind] for seed in seeds]
            band(axes, 100 * np.array(SHARES), values, color=colour, label=kind)
        axes.set(xlabel="β, % taken away", title=f"model shift, {norm.upper()}")
        axes.set_ylim(bottom=0)
    grid[-1].legend()
    return figure


@chart(
    "Figure 5: cosine of each mini-batch gradient of what stays with the way from where descent"
    " begins to where training without the poisons ends."
)
def updates(courses: Mapping[str, Sequence[Mapping[str, Any]]]) -> Figure:
    titles = {
        "printed": "poisons, equation (4) as printed",
        "per example": "poisons, each example once",
        "random": "random samples",
    }
    starts = (
        ("from_trained", BLUE, "from θ(S_corr)"), ("from_random", RED, "from random weights")
    )  # fmt: skip
    figure, grid = panels(10.4, 2.9, len(titles), sharey=True)
    for axes, (name, title) in zip(grid, titles.items(), strict=True):
        for start, colour, label in starts:
            values = np.array([course[start] for course in courses[name]])
            band(axes, np.arange(values.shape[1]), values, color=colour, label=label)
        axes.axhline(0, color="0.6", linewidth=0.8)
        axes.set(xlabel="t", title=title)
    grid[0].set_ylabel("cosine")
    grid[0].legend()
    return figure


def _mean(seeds: Sequence[Cells], row: Row, name: str) -> float | None:
    values = [cells[row][name] for cells in seeds if row in cells]
    return float(np.mean(values)) if values else None


class Shown(NamedTuple):
    """Some poisons of one attack, in pixel units.

    Attributes:
      base: [k, h, w, c] the images that they were made of, in [0, 1].
      poison: [k, h, w, c], which may leave [0, 1] where the attack has no bounds.
      delta: their differences.
    """

    base: np.ndarray
    poison: np.ndarray
    delta: np.ndarray


def show(poisoned: Poisoned, clean: Dataset) -> Shown:
    """Returns the first poisons of an attack."""
    normalisation = check_continuous(clean, method="a picture")
    scale = jnp.asarray(normalisation.std)
    delta = np.asarray(perturbation(poisoned, clean)[:SHOWN] * scale)
    base = np.asarray(normalisation.invert(clean.x[poisoned.info.base[:SHOWN]]))
    return Shown(base, base + delta, delta)


@chart(IMAGES)
def poisons_figure(attacks: Mapping[str, Shown]) -> Figure:
    images = {}
    for name, shown in attacks.items():
        columns = (shown.base, shown.poison, 0.5 + MAGNIFIED * shown.delta)
        for column, title in zip(columns, ("base", "poison", f"{MAGNIFIED} δ"), strict=True):
            images[f"{name}\n{title}"] = mosaic(column, columns=1)
    return gallery(images, columns=len(images), width=1.1, height=0.85 * SHOWN + 0.6)[0]
