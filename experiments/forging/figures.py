"""Figures 2, 3 and 4 of the paper, the errors at a glance, and the forged logs, as SVG text."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from unlearnkit.reporting import STYLE, to_svg, verification_errors

HONEST, FORGED = "#0e7490", "#c2410c"
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


def errors_figure(result: Mapping[str, Any]) -> str:
    """Returns every error of honest replays and of forged batches, a row each."""
    bands = {
        f"{band['name']}{'' if band['benign'] else ' (not benign)'}": band["errors"]
        for band in result["reproduction"]["bands"]
    }
    attacks = {
        LABELS[name]: attack["errors"] for name, attack in result["forged"]["attacks"].items()
    }
    rows = [(name, errors, HONEST) for name, errors in bands.items()]
    rows += [(name, errors, FORGED) for name, errors in attacks.items()]
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(8.4, 0.26 * len(rows) + 0.9), layout="constrained")
        axes: Axes = figure.subplots()
        for height, (_, errors, colour) in enumerate(reversed(rows)):
            shown = np.maximum(np.asarray(errors, float), LEAST)
            axes.plot(shown, np.full(len(shown), height), "|", color=colour, markersize=9)
        axes.axvline(result["reproduction"]["tolerance"], color="#1c1917", linewidth=0.8)
        axes.set_yticks(range(len(rows)), [name for name, _, _ in reversed(rows)])
        axes.set(xscale="log", xlabel="‖θ' - θ̂'‖₂ (0 is drawn at 1e-10; the line: tolerance)")
        return to_svg(figure)


def curves_figure(attacks: Mapping[str, Any], tolerance: float) -> str:
    """Returns Figure 2: the error over the iterations, a line per run, a panel per attack."""
    panels = {name: attack["curves"] for name, attack in attacks.items() if "curves" in attack}
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(3.6 * len(panels), 2.6), layout="constrained")
        grid = np.atleast_1d(figure.subplots(1, len(panels), sharey=True))
        for axes, (name, curves) in zip(grid, panels.items(), strict=True):
            for curve in curves:
                steps, errors = np.asarray(curve).T
                axes.plot(steps, errors, color=FORGED, alpha=0.6, linewidth=1.0)
            axes.axhline(tolerance, color="#1c1917", linewidth=0.8)
            axes.set(title=LABELS[name], xlabel="iteration", yscale="log")
        grid[0].set_ylabel("error (the line: tolerance)")
        return to_svg(figure)


def shuffles_figure(errors: Sequence[float]) -> str:
    """Returns Figure 4: the error of each shuffle of a batch."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(4.6, 2.4), layout="constrained")
        axes: Axes = figure.subplots()
        axes.plot(np.arange(1, len(errors) + 1), errors, "o", color=HONEST, markersize=3)
        axes.set(xlabel="shuffle", ylabel="error", ylim=(0, None))
        return to_svg(figure)


def pictures_figure(pictures: Mapping[str, np.ndarray]) -> str:
    """Returns Figure 3: the images of real and forged batches, side by side.

    A batch that leaves the range of pixels is drawn from its least to its largest value, which its
    title tells.
    """
    columns = min(3, len(pictures))
    lines = -(-len(pictures) // columns)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(2.9 * columns, 3.1 * lines), layout="constrained")
        grid = np.atleast_1d(figure.subplots(lines, columns)).ravel()
        for axes in grid:
            axes.set_axis_off()
        for axes, (name, images) in zip(grid, pictures.items(), strict=False):
            least, most = float(images.min()), float(images.max())
            inside = least >= -1e-3 and most <= 1 + 1e-3
            low, high = (0.0, 1.0) if inside else (least, most)
            shown = mosaic((np.clip(images, low, high) - low) / (high - low))
            picture = np.round(255 * shown).astype(np.uint8)
            axes.imshow(picture, cmap="gray", vmin=0, vmax=255, interpolation="none")
            note = "" if inside else f"\npixels {least:.3g} … {most:.3g}"
            axes.set_title(f"{LABELS[name]}{note}")
        return to_svg(figure)


def mosaic(images: np.ndarray) -> np.ndarray:
    """Returns images [n, h, w, c] as one picture, row by row; grey where c = 1."""
    n, height, width, channels = images.shape
    columns = math.ceil(math.sqrt(n))
    lines = -(-n // columns)
    padded = np.ones((lines * columns, height + 1, width + 1, channels))
    padded[:n, :height, :width] = images
    tiled = padded.reshape(lines, columns, height + 1, width + 1, channels).swapaxes(1, 2)
    picture = tiled.reshape(lines * (height + 1), columns * (width + 1), channels)
    return picture[..., 0] if channels == 1 else picture


def log_figure(found: Mapping[str, Any], name: str) -> str:
    """Returns the errors of a verified log, with its tolerance and the honest band."""
    log = found["logs"][name]
    steps, errors, carried = (
        np.asarray(log[key], float) for key in ("steps", "errors", "carried_errors")
    )
    low, high = found["band"]
    return verification_errors(steps, errors, carried, found["tolerance"], "l2", (low, high))
