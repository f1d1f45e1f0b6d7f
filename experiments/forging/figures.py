"""Figures 2, 3 and 4 of the paper, the errors at a glance, and the forged logs, as SVG text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from experiments.charts import INK, RUST, TEAL, Picture, chart, gallery, mosaic, panels
from unlearnkit.reporting import verification_errors

LABELS = {
    "real": "real batch",
    "greedy": "greedy search",
    "swap": "exchanges",
    "noise": "noise",
    "adam": "Adam",
    "adam_grid": "Adam on the pixel grid",
    "logistic": "exact, least norm",
    "logistic_near": "exact, near examples",
    "grid_logistic": "exact, then the pixel grid",
}
LEAST = 1e-10
"""Where errors of zero are drawn on a logarithmic axis."""
IMAGES = "A real batch and what stands in for it (Figure 3); its first examples."


@chart("Every replay and every forged batch, a row each (Tables 1 and 3).")
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


@chart("Errors of optimisation, a line per run (Figure 2).")
def curves_figure(curves: Mapping[str, Any], tolerance: float) -> Figure:
    figure, grid = panels(3.6 * len(curves), 2.6, len(curves), sharey=True)
    for axes, (name, runs) in zip(grid, curves.items(), strict=True):
        for run in runs:
            axes.plot(*np.transpose(run), color=RUST, alpha=0.6, linewidth=1.0)
        axes.axhline(tolerance, color=INK, linewidth=0.8)
        axes.set(title=LABELS[name], xlabel="iteration", yscale="log")
    grid[0].set_ylabel("error (the line: tolerance)")
    return figure


@chart("Errors of shuffling the batches, a dot a shuffle (Figure 4).")
def shuffles_figure(errors: Sequence[float]) -> Figure:
    figure, (axes,) = panels(4.6, 2.4)
    axes.plot(np.arange(1, len(errors) + 1), errors, "o", color=TEAL, markersize=3)
    axes.set(xlabel="shuffle", ylabel="error", ylim=(0, None))
    return figure


@chart(IMAGES)
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


def log_figure(found: Mapping[str, Any]) -> Picture:
    """Returns the errors of the last forged log, with its tolerance and the honest band."""
    log = list(found["logs"].values())[-1]
    steps, errors, carried = (
        np.asarray(log[key], float) for key in ("steps", "errors", "carried_errors")
    )
    low, high = found["band"]
    svg = verification_errors(steps, errors, carried, found["tolerance"], "l2", (low, high))
    return Picture(svg, "The forged log under the verifier, against the calibrated tolerance.")
