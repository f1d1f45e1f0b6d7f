"""Figures 1, 3, 4 and 5 of the paper, as SVG text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from experiments.claims import interval
from experiments.tgda.claims import Drops
from experiments.tgda.paper import title
from experiments.tgda.runs import CLEAN, Sample
from unlearnkit.reporting.charts import chart, gallery, montage, panels


def epsilon_figure(drops: Drops) -> str:
    """Returns the drop against ε, means with 95 % intervals (Figure 4); "" for one ε alone."""
    swept = {attack: drops.sweep(attack) for attack in ("tgda", "label_flip", "min_max")}
    lines = {
        attack: {100 * epsilon: drops.values(name, "drop") for epsilon, name in names.items()}
        for attack, names in swept.items() if len(names) > 1
    }  # fmt: skip
    return _lines(lines, "ε, % of the training set") if lines else ""


def size_figure(by_size: Mapping[int, Drops]) -> str:
    """Returns the drop against the number of training examples (Figure 1)."""
    sizes = sorted(by_size.items())
    lines = {a: {float(n): d.values(a, "drop") for n, d in sizes} for a in sizes[0][1].methods()}
    shown = {a: line for a, line in lines.items() if a != CLEAN and all(line.values())}
    return _lines(shown, "training examples")


@chart
def _lines(lines: Mapping[str, Mapping[float, list[float]]], xlabel: str) -> Figure:
    """Draws the drops over the seeds, by attack and place on the axis."""
    figure, (axes,) = panels(5.2, 3.0)
    for attack, line in lines.items():
        means, reaches = np.transpose([interval(found) for found in line.values()])
        look: Any = {"label": title(attack), "marker": "o", "markersize": 3, "capsize": 2}
        axes.errorbar(list(line), means, np.nan_to_num(reaches), linewidth=1.2, **look)
    axes.set(xscale="log", xlabel=xlabel, ylabel="accuracy drop, points")
    axes.legend(ncols=1 if len(lines) < 4 else 2)
    return figure


@chart
def poison_figure(samples: Mapping[str, Sample]) -> Figure:
    """Returns a panel per attack; of an attack at several ε the default's is shown."""
    shown = {n: s for n, s in samples.items() if "@" not in n or n.split("@")[0] not in samples}
    images = {title(name): montage(*sample) for name, sample in shown.items()}
    return gallery(images, columns=3, width=3.4, height=1.9)[0]
