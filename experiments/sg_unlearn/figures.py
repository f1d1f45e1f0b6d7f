"""Figures 1 to 5 of the paper, as SVG text."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from experiments.sg_unlearn.claims import MIA
from experiments.sg_unlearn.runs import Ablation
from unlearnkit.records import Record
from unlearnkit.reporting.charts import RUST, TEAL, band, chart, panels, reach
from unlearnkit.reporting.escaping import figure_label

COLOURS = {"1": TEAL, "0": RUST}


@chart
def ablation_figure(ablation: Ablation) -> Figure:
    panel_values = {
        "defender's utility": lambda trace: np.subtract(trace["accuracy_test"], trace[MIA]),
        "test accuracy": lambda trace: np.asarray(trace["accuracy_test"]),
        "MIA accuracy": lambda trace: np.asarray(trace[MIA]),
        "Wasserstein distance (nats)": lambda trace: np.asarray(trace["wasserstein"]),
    }
    figure, grid = panels(12.4, 2.8, 4)
    for axes, (title, read) in zip(grid, panel_values.items(), strict=True):
        for alpha, trace in ablation.traces.items():
            values = read(trace)
            line = {"color": COLOURS[alpha], "label": f"SG-{alpha}", "linewidth": 1.4}
            band(axes, np.arange(values.shape[1]), values, spread=reach, **line)
        axes.set(title=title, xlabel="epoch")
    grid[0].legend()
    return figure


@chart
def sweep_figure(ablation: Ablation) -> Figure:
    alphas = [float(alpha) for alpha in ablation.sweep]
    scale = mpl.colors.LogNorm(min(alphas), max(alphas))
    titles = {MIA: "MIA accuracy", "ks_statistic": "KS statistic", "wasserstein": "Wasserstein"}
    figure, grid = panels(10.4, 3.0, 3, sharey=True)
    for axes, (metric, title) in zip(grid, titles.items(), strict=True):
        x, y = (
            [np.mean(ends[name]) for ends in ablation.sweep.values()]
            for name in (metric, "accuracy_test")
        )
        dots = axes.scatter(x, y, c=alphas, norm=scale, cmap="viridis", s=32)
        for draw, name in ((axes.axvline, metric), (axes.axhline, "accuracy_test")):
            goal = float(np.mean(ablation.retrain[name]))
            draw(goal, color="#b91c1c", linestyle="--", linewidth=0.8)
        axes.set(title=title, xlabel=title.lower().replace("mia", "MIA").replace("ks", "KS"))
    grid[0].set_ylabel("test accuracy")
    figure.colorbar(dots, ax=grid, label="alpha")
    return figure


@chart
def retrain_figure(losses: Sequence[Sequence[float]]) -> Figure:
    figure, (axes,) = panels(4.6, 2.6)
    for line in losses:
        axes.plot(np.arange(1, len(line) + 1), line, color=TEAL, alpha=0.6, linewidth=1.2)
    axes.set(xlabel="epoch", ylabel="loss (nats)", yscale="log")
    return figure


@chart
def loss_histograms(records: Sequence[Record]) -> Figure:
    """Returns Figure 4: the losses on forget and test set, all seeds pooled, a panel per method."""
    methods: dict[str, list[Record]] = {}
    for record in records:
        methods.setdefault(record.method, []).append(record)
    columns, edges = min(3, len(methods)), np.logspace(-12, 1.5, 46)
    lines = -(-len(methods) // columns)
    figure, grid = panels(3.1 * columns, 2.1 * lines, columns, lines, sharex=True, sharey=True)
    for axes, (name, group) in zip(grid, methods.items(), strict=False):
        for part, colour in (("forget", RUST), ("test", TEAL)):
            losses = np.concatenate([record.curves[f"loss_{part}"] for record in group])
            shown = np.clip(losses[~np.isnan(losses)], edges[0], edges[-1])
            weights = np.full(len(shown), 100 / len(losses))
            axes.hist(shown, edges.tolist(), weights=weights, color=colour, alpha=0.5, label=part)
        axes.set(title=figure_label(name), xscale="log", xlabel="loss (nats)", ylabel="% of set")
        axes.label_outer()
    for axes in grid[len(methods) :]:
        axes.set_visible(False)
    grid[0].legend()
    return figure
