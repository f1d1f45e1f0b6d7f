"""Drawings of the audits of a scrubbed network: paths, information, and the way to it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from unlearnkit.reporting import charts
from unlearnkit.reporting.charts import BLUE, GREY, ORANGE, RED, chart

Curves: TypeAlias = dict[str, Any]
"""What audits measured, by name, as lists of numbers."""
SETS = {"forget": RED, "retain": BLUE, "test": GREY}


@chart
def training_paths(figure: Curves) -> Figure:
    """Returns both trainings in their principal plane, and the noise of two methods at their ends.

    Args:
      figure: `all`, `retain` [k, 2], `explained` [2], and `fisher_noise` [m, 2], `fisher_mean` [2],
        `ntk_noise`, `ntk_mean`.
    """
    canvas, (whole, *ends) = charts.panels(11.4, 3.4, 3)
    _draw_paths(whole, figure)
    shares = " and ".join(f"{100 * share:.0f} %" for share in figure["explained"])
    whole.set(title="fine-tuning", xlabel=f"principal directions ({shares})")
    whole.legend()
    clouds = [figure["fisher_noise"], figure["ntk_noise"]]
    near = np.concatenate([*clouds, figure["all"][-1:], figure["retain"][-1:]])
    middle, reach = near.mean(0), 1.1 * np.abs(near - near.mean(0)).max()
    xlim, ylim = ((centre - reach, centre + reach) for centre in middle)
    for axes, name, title in zip(
        ends, ("fisher", "ntk"), ("Fisher forgetting", "NTK scrubbing"), strict=True
    ):
        x, y = np.transpose(figure[f"{name}_noise"])
        axes.scatter(x, y, s=8, color=GREY, alpha=0.5)
        _draw_paths(axes, figure)
        axes.plot(*figure[f"{name}_mean"], "x", color=RED, markersize=8, label="before noise")
        axes.set(title=f"{title}: where the paths end", xlim=xlim, ylim=ylim)
    ends[1].legend(*(part[-1:] for part in ends[1].get_legend_handles_labels()))
    return canvas


def _draw_paths(axes: Axes, figure: Curves) -> None:
    for path, colour, label in (("all", BLUE, "on all"), ("retain", ORANGE, "on retain")):
        points = np.transpose(figure[path])
        axes.plot(*points, color=colour, linewidth=1.4, label=label)
        axes.plot(*points[:, -1:], "o", color=colour, markersize=5)


@chart
def information(seeds: Sequence[Curves]) -> Figure:
    """Returns the bounds of equations (6) and (7) against test error, and which queries tell.

    Args:
      seeds: of each, the curves of `information_tradeoff` for `fisher` and `ntk` as `tradeoff`, and
        those of `sample_leakage` as `leakage`.
    """
    canvas, (white, black, leaks) = charts.panels(11.4, 3.2, 3)
    for axes, bound, what, title in (
        (white, "white_box", "in the weights", "white box"),
        (black, "black_box", "a query", "black box, queries of the forget set"),
    ):
        for name, colour in (("fisher", GREY), ("ntk", RED)):
            curves = (seed["tradeoff"][name] for seed in seeds)
            x, error = np.mean([(curve[bound], curve["test_error"]) for curve in curves], axis=0)
            axes.plot(x, 100 * error, "o-", ms=3, color=colour, label=name)
        axes.set(title=title, xscale="log", xlabel=f"information {what} (nats, at most)")
        axes.set_ylabel("test error, %")
    white.legend()
    pooled = {name: np.concatenate([seed["leakage"][name] for seed in seeds]) for name in SETS}
    everything = np.concatenate(list(pooled.values()))
    edges = np.geomspace(everything.min(), everything.max(), 30).tolist()
    for name, colour in SETS.items():
        weights = np.full(len(pooled[name]), 100 / len(pooled[name]))
        leaks.hist(pooled[name], edges, weights=weights, alpha=0.45, color=colour, label=name)
    leaks.set(xscale="log", xlabel="information of a query (nats, at most)", ylabel="% of the set")
    leaks.set_title("which queries tell")
    leaks.legend()
    return canvas


@chart
def activations(seeds: Sequence[Curves]) -> Figure:
    """Returns the distances of `scrubbing_path`, with their spread over seeds.

    Args:
      seeds: of each, its curves as `activations`.
    """
    canvas, (axes,) = charts.panels(4.6, 3.0)
    alpha = seeds[0]["activations"]["alpha"]
    for name in ("forget", "retain"):
        values = [seed["activations"][name] for seed in seeds]
        charts.band(axes, alpha, values, color=SETS[name], label=name)
    axes.set(xlabel="place from original (0) to scrubbed (1)", ylabel="L1 distance to Retrain")
    axes.set_ylim(bottom=0)
    axes.legend()
    return canvas
