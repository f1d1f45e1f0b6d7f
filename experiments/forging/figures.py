"""Figures 2, 3 and 4 of the paper, the errors at a glance, and the forged logs, as SVG text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from experiments.forging.claims import forged_by_epoch
from unlearnkit.reporting.charts import INK, RUST, TEAL, chart, gallery, mosaic, panels
from unlearnkit.studies import Record

LABELS = {
    "real": "real batch",
    "greedy": "greedy search",
    "greedy_disjoint": "greedy search, candidates that share no parts",
    "swap": "exchanges",
    "noise": "noise",
    "adam": "Adam",
    "adam_grid": "Adam on the pixel grid",
    "levenberg_marquardt": "trust region",
    "logistic": "exact, least norm",
    "logistic_near": "exact, near examples",
    "grid_logistic": "exact, then the pixel grid",
}
LEAST = 1e-10
"""Where errors of zero are drawn on a logarithmic axis."""


@chart
def errors_figure(result: Mapping[str, Any]) -> Figure:
    rows = [
        (band["name"] + ("" if band["benign"] else " (not benign)"), band["errors"], TEAL)
        for band in result["reproduction"]["bands"]
    ]
    attacks = result["forged"]["attacks"]
    rows += [(LABELS[name], attack["errors"], RUST) for name, attack in attacks.items()]
    rows.reverse()
    figure, (axes,) = panels(8.4, 0.26 * len(rows) + 0.9)
    for height, (_, errors, colour) in enumerate(rows):
        shown = np.maximum(np.asarray(errors, float), LEAST)
        axes.plot(shown, np.full(len(shown), height), "|", color=colour, markersize=9)
    axes.axvline(result["reproduction"]["tolerance"], color=INK, linewidth=0.8)
    axes.set_yticks(range(len(rows)), [name for name, _, _ in rows])
    axes.set(xscale="log", xlabel="‖θ' - θ̂'‖₂ (0 is drawn at 1e-10; the line: tolerance)")
    return figure


@chart
def curves_figure(curves: Mapping[str, Any], tolerance: float) -> Figure:
    figure, grid = panels(3.6 * len(curves), 2.6, len(curves), sharey=True)
    for axes, (name, runs) in zip(grid, curves.items(), strict=True):
        for run in runs:
            axes.plot(*np.transpose(run), color=RUST, alpha=0.6, linewidth=1.0)
        axes.axhline(tolerance, color=INK, linewidth=0.8)
        axes.set(title=LABELS[name], xlabel="iteration", yscale="log")
    grid[0].set_ylabel("error (the line: tolerance)")
    return figure


@chart
def shuffles_figure(errors: Sequence[float]) -> Figure:
    figure, (axes,) = panels(4.6, 2.4)
    axes.plot(np.arange(1, len(errors) + 1), errors, "o", color=TEAL, markersize=3)
    axes.set(xlabel="shuffle", ylabel="error", ylim=(0, None))
    return figure


@chart
def pictures_figure(batches: Mapping[str, np.ndarray]) -> Figure:
    """A batch beyond the range of pixels is drawn from its least to its largest value, as told."""
    shown = {}
    for name, images in batches.items():
        low, high, note = 0.0, 1.0, ""
        least, most = float(images.min()), float(images.max())
        if least < -1e-3 or most > 1 + 1e-3:
            low, high, note = least, most, f"\npixels {least:.3g} … {most:.3g}"
        shown[f"{LABELS[name]}{note}"] = mosaic((np.clip(images, low, high) - low) / (high - low))
    return gallery(shown, columns=min(3, len(shown)), width=2.9, height=3.1)[0]


@chart
def acceptance_figure(records: Sequence[Record]) -> Figure:
    """A line per number of forgotten examples and forger, the mean over the seeds."""
    figure, (shares, errors) = panels(8.4, 2.8, 2)
    for axes, metric in ((shares, "accepted"), (errors, "error")):
        lines = forged_by_epoch(records, metric)
        for place, ((question, name), line) in enumerate(lines.items()):
            colour = matplotlib.colormaps["viridis"](place / max(len(lines), 2))
            label = f"{question} forgotten, {name}"
            axes.plot(list(line), list(line.values()), color=colour, linewidth=1.0, label=label)
    shares.set(xlabel="epoch", ylabel="accepted", ylim=(-0.02, 1.02))
    errors.set(xlabel="epoch", ylabel="error", yscale="log")
    shares.legend(fontsize="small", frameon=False)
    return figure
