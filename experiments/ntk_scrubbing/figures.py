"""Figure 2 of Golatkar et al. 2020b, as SVG text, from what a run measured."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from experiments.ntk_scrubbing.measure import OTHER as RETRAIN
from unlearnkit.reporting import Column, charts
from unlearnkit.reporting.charts import BLUE, GREEN, chart
from unlearnkit.studies import Record


@chart
def readouts(records: Sequence[Record], columns: Sequence[Column]) -> Figure:
    names = [name for name in dict.fromkeys(r.method for r in records) if name != RETRAIN]
    canvas, grid = charts.panels(2.3 * len(columns), 2.9, len(columns))
    for axes, column in zip(grid, columns, strict=True):
        by_name = {n: [r for r in records if r.method == n] for n in (RETRAIN, *names)}
        values = {name: [column.value(r) for r in rows] for name, rows in by_name.items()}
        mean, spread = float(np.mean(values[RETRAIN])), float(charts.deviation(values[RETRAIN]))
        axes.axhspan(mean - spread, mean + spread, color=GREEN, alpha=0.25, linewidth=0)
        axes.axhline(mean, color=GREEN, linewidth=0.8)
        for place, name in enumerate(names):
            charts.bar(axes, place, values[name], BLUE, alpha=0.75)
        charts.name_places(axes, names, 60)
        axes.set_title(column.title)
    return canvas
