"""Figures 1 to 4 of Golatkar et al. 2020b, as SVG text, from what a run measured."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.ntk_scrubbing.measure import RETRAIN
from unlearnkit.reporting import STYLE, Column, to_svg
from unlearnkit.studies import Record

BLUE, ORANGE, RED, GREEN, GREY = "#1d4ed8", "#ea580c", "#b91c1c", "#16a34a", "#78716c"
SETS = {"forget": RED, "retain": BLUE, "test": GREY}


def training_paths(figure: dict[str, Any]) -> str:
    """Returns Figure 1: the paths in their plane, and their ends with each method's noise."""
    with mpl.rc_context(STYLE):
        canvas = Figure(figsize=(11.4, 3.4), layout="constrained")
        whole, *ends = canvas.subplots(1, 3)
        _draw_paths(whole, figure)
        shares = " and ".join(f"{100 * share:.0f} %" for share in figure["explained"])
        whole.set(title="fine-tuning", xlabel=f"principal directions ({shares})")
        whole.legend()
        methods = {"fisher": "Fisher forgetting", "ntk": "NTK scrubbing"}
        near = np.concatenate([figure[f"{name}_noise"] for name in methods])
        near = np.concatenate([near, figure["all"][-1:], figure["retain"][-1:]])
        middle, reach = near.mean(0), 1.1 * np.abs(near - near.mean(0)).max()
        for axes, (name, title) in zip(ends, methods.items(), strict=True):
            axes.scatter(*np.transpose(figure[f"{name}_noise"]), s=8, color=GREY, alpha=0.5)
            _draw_paths(axes, figure)
            axes.plot(*figure[f"{name}_mean"], "x", color=RED, markersize=8, label="before noise")
            axes.set(
                title=f"{title}: where the paths end",
                xlim=(middle[0] - reach, middle[0] + reach),
                ylim=(middle[1] - reach, middle[1] + reach),
            )
        ends[1].legend(*(part[-1:] for part in ends[1].get_legend_handles_labels()))
        return to_svg(canvas)


def _draw_paths(axes: Axes, figure: dict[str, Any]) -> None:
    for path, colour, label in (("all", BLUE, "on all"), ("retain", ORANGE, "on retain")):
        points = np.transpose(figure[path])
        axes.plot(*points, color=colour, linewidth=1.4, label=label)
        axes.plot(*points[:, -1:], "o", color=colour, markersize=5)


def readouts(records: Sequence[Record], columns: Sequence[Column]) -> str:
    """Returns Figure 2: each readout of each method, mean and deviation, in Retrain's band."""
    names = [name for name in dict.fromkeys(r.method for r in records) if name != RETRAIN]
    with mpl.rc_context(STYLE):
        canvas = Figure(figsize=(2.3 * len(columns), 2.9), layout="constrained")
        for axes, column in zip(canvas.subplots(1, len(columns)), columns, strict=True):
            low, high = _band(_values(records, RETRAIN, column))
            axes.axhspan(low, high, color=GREEN, alpha=0.25, linewidth=0)
            axes.axhline((low + high) / 2, color=GREEN, linewidth=0.8)
            for place, name in enumerate(names):
                values = _values(records, name, column)
                axes.bar(place, np.mean(values), color=BLUE, alpha=0.75)
                axes.errorbar(place, np.mean(values), _spread(values), color="0.2", capsize=3)
            axes.set_xticks(range(len(names)), names, rotation=60, ha="right")
            axes.set_title(column.title)
        return to_svg(canvas)


def information(seeds: Sequence[dict[str, Any]]) -> str:
    """Returns Figure 3: information against test error, and what each query tells."""
    with mpl.rc_context(STYLE):
        canvas = Figure(figsize=(11.4, 3.2), layout="constrained")
        white, black, leaks = canvas.subplots(1, 3)
        for name, colour in (("fisher", GREY), ("ntk", RED)):
            curves = {
                key: np.mean([seed["tradeoff"][name][key] for seed in seeds], axis=0)
                for key in ("white_box", "black_box", "test_error")
            }
            for axes, key in ((white, "white_box"), (black, "black_box")):
                axes.plot(
                    curves[key], 100 * curves["test_error"], "o-", ms=3, color=colour, label=name
                )
        for axes, what in ((white, "in the weights"), (black, "a query")):
            axes.set(xscale="log", xlabel=f"information {what} (nats, at most)")
            axes.set_ylabel("test error, %")
        white.set_title("white box")
        black.set_title("black box, queries of the forget set")
        white.legend()
        _leakage(leaks, [seed["leakage"] for seed in seeds])
        return to_svg(canvas)


def _leakage(axes: Axes, seeds: Sequence[dict[str, Any]]) -> None:
    pooled = {name: np.concatenate([seed[name] for seed in seeds]) for name in SETS}
    everything = np.concatenate(list(pooled.values()))
    edges: Any = np.geomspace(everything.min(), everything.max(), 30)
    for name, colour in SETS.items():
        weights = np.full(len(pooled[name]), 100 / len(pooled[name]))
        axes.hist(pooled[name], edges, weights=weights, alpha=0.45, color=colour, label=name)
    axes.set(xscale="log", xlabel="information of a query (nats, at most)", ylabel="% of the set")
    axes.set_title("which queries tell")
    axes.legend()


def activations(seeds: Sequence[dict[str, Any]]) -> str:
    """Returns Figure 4: the outputs' distance to Retrain's on the way from original to scrubbed."""
    with mpl.rc_context(STYLE):
        canvas = Figure(figsize=(4.6, 3.0), layout="constrained")
        axes = canvas.subplots()
        alpha = np.asarray(seeds[0]["activations"]["alpha"])
        for name in ("forget", "retain"):
            values = np.array([seed["activations"][name] for seed in seeds])
            mean = values.mean(0)
            spread = values.std(0, ddof=1) if len(values) > 1 else 0 * mean
            axes.plot(alpha, mean, color=SETS[name], label=name)
            axes.fill_between(alpha, mean - spread, mean + spread, color=SETS[name], alpha=0.2)
        axes.set(xlabel="place from original (0) to scrubbed (1)", ylabel="L1 distance to Retrain")
        axes.set_ylim(bottom=0)
        axes.legend()
        return to_svg(canvas)


def _values(records: Sequence[Record], name: str, column: Column) -> list[float]:
    return [column.value(record) for record in records if record.method == name]


def _spread(values: Sequence[float]) -> float:
    return float(np.std(values, ddof=1)) if len(values) > 1 else 0.0


def _band(values: Sequence[float]) -> tuple[float, float]:
    mean, spread = float(np.mean(values)), _spread(values)
    return mean - spread, mean + spread
