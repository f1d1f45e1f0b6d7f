"""Figures 1, 2, 3 and 5 of the paper, as SVG text; Figure 4 is `reporting.loss_histograms`."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.sg_unlearn.claims import MIA, interval
from experiments.sg_unlearn.runs import Ablation
from unlearnkit.reporting import STYLE, to_svg

COLOURS = {"1": "#0e7490", "0": "#c2410c"}


def ablation_figure(ablation: Ablation) -> str:
    """Returns four panels over the epochs, alpha 1 and 0: means with 95 % intervals."""
    panels = {
        "defender's utility": lambda trace: np.subtract(trace["accuracy_test"], trace[MIA]),
        "test accuracy": lambda trace: np.asarray(trace["accuracy_test"]),
        "MIA accuracy": lambda trace: np.asarray(trace[MIA]),
        "Wasserstein distance (nats)": lambda trace: np.asarray(trace["wasserstein"]),
    }
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(12.4, 2.8), layout="constrained")
        for axes, (title, values) in zip(figure.subplots(1, 4), panels.items(), strict=True):
            for alpha, trace in ablation.traces.items():
                _band(axes, values(trace), f"SG-{alpha}", COLOURS[alpha])
            axes.set(title=title, xlabel="epoch")
        figure.axes[0].legend()
        return to_svg(figure)


def _band(axes: Axes, values: np.ndarray, label: str, colour: str) -> None:
    epochs = np.arange(values.shape[1])
    means, reaches = np.array([interval(column) for column in values.T]).T
    axes.plot(epochs, means, color=colour, label=label, linewidth=1.4)
    reaches = np.nan_to_num(reaches)
    axes.fill_between(
        epochs, means - reaches, means + reaches, color=colour, alpha=0.2, linewidth=0
    )


def sweep_figure(ablation: Ablation) -> str:
    """Returns test accuracy against three measures of unlearning, a dot an alpha, Retrain a cross.

    The colour is alpha, on a logarithmic scale.
    """
    alphas = [float(alpha) for alpha in ablation.sweep]
    scale = mpl.colors.LogNorm(min(alphas), max(alphas))
    panels = {MIA: "MIA accuracy", "ks_statistic": "KS statistic", "wasserstein": "Wasserstein"}
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(10.4, 3.0), layout="constrained")
        grid = figure.subplots(1, 3, sharey=True)
        for axes, (metric, title) in zip(grid, panels.items(), strict=True):
            x, y = (
                [np.mean(ends[name]) for ends in ablation.sweep.values()]
                for name in (metric, "accuracy_test")
            )
            dots = axes.scatter(x, y, c=alphas, norm=scale, cmap="viridis", s=32)
            goal = [np.mean(ablation.retrain[name]) for name in (metric, "accuracy_test")]
            axes.axvline(goal[0], color="#b91c1c", linestyle="--", linewidth=0.8)
            axes.axhline(goal[1], color="#b91c1c", linestyle="--", linewidth=0.8)
            axes.set(title=title, xlabel=title.lower().replace("mia", "MIA").replace("ks", "KS"))
        grid[0].set_ylabel("test accuracy")
        figure.colorbar(dots, ax=list(grid), label="alpha")
        return to_svg(figure)


def retrain_figure(losses: Sequence[Sequence[float]]) -> str:
    """Returns Retrain's training loss over the epochs, a line per seed."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(4.6, 2.6), layout="constrained")
        axes: Axes = figure.subplots()
        for line in losses:
            axes.plot(np.arange(1, len(line) + 1), line, color="#0e7490", alpha=0.6, linewidth=1.2)
        axes.set(xlabel="epoch", ylabel="loss (nats)", yscale="log")
        return to_svg(figure)
