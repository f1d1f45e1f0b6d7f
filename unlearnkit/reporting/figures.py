"""The figures of a run, as SVG text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from unlearnkit.records import Record
from unlearnkit.reporting.charts import chart, panels
from unlearnkit.reporting.escaping import figure_label

if TYPE_CHECKING:  # matplotlib takes half a second, which a command spends when it draws
    from matplotlib.figure import Figure

FORGET_COLOUR, TEST_COLOUR = "#c2410c", "#0e7490"
BAND_COLOUR = "#e7e5e4"
_LEAST_LOSS = 1e-12


@chart
def loss_histograms(records: Sequence[Record]) -> Figure:
    """Returns histograms of the cross-entropy on forget and test set, one panel per method.

    All seeds are pooled; losses below 1e-12 nats stand in the first bin.
    """
    methods = _by_method(records)
    columns = min(3, len(methods))
    lines = -(-len(methods) // columns)
    edges = np.logspace(np.log10(_LEAST_LOSS), 1.5, 46)
    figure, grid = panels(3.1 * columns, 2.1 * lines, columns, lines, sharex=True, sharey=True)
    for axes, (name, group) in zip(grid, methods.items(), strict=False):
        for part, colour in (("forget", FORGET_COLOUR), ("test", TEST_COLOUR)):
            losses = np.concatenate([record.curves[f"loss_{part}"] for record in group])
            shown = np.clip(losses[~np.isnan(losses)], edges[0], edges[-1])
            weights = np.full(len(shown), 100 / len(losses))
            axes.hist(shown, edges.tolist(), weights=weights, color=colour, alpha=0.5, label=part)
        axes.set(title=figure_label(name), xscale="log")
    for axes in grid[len(methods) :]:
        axes.set_visible(False)
    for axes in grid[::columns]:
        axes.set_ylabel("% of the set")
    for axes in grid[max(len(methods) - columns, 0) : len(methods)]:
        axes.set_xlabel("loss (nats)")
        axes.tick_params(labelbottom=True)
    grid[0].legend()
    return figure


@chart
def roc_curves(records: Sequence[Record], attack: str = "mia_loss_logistic") -> Figure:
    """Returns ROC curves of one membership attack, the mean over the seeds per method.

    Both tails can be read: on the left linear axes, on the right logarithmic ones.
    """
    rates = np.concatenate([[0.0], np.logspace(-3.5, 0, 200)])
    figure, (linear, logarithmic) = panels(8.4, 3.4, 2)
    for name, group in _by_method(records).items():
        curve = np.mean([_interpolate(record, attack, rates) for record in group], axis=0)
        for axes in (linear, logarithmic):
            axes.plot(rates, curve, label=figure_label(name), linewidth=1.4)
    for axes in (linear, logarithmic):
        axes.plot(rates, rates, color="0.6", linewidth=0.8, linestyle="--")
        axes.set(xlabel="false positive rate", ylabel="true positive rate")
    linear.set(title="ROC of the loss attack, forget against test")
    logarithmic.set(xscale="log", yscale="log", xlim=(10**-3.5, 1), ylim=(10**-3.5, 1))
    logarithmic.set(title="the same, low false positive rates")
    linear.legend(loc="lower right")
    return figure


@chart
def gap_against_cost(records: Sequence[Record], reference: str = "retrain") -> Figure:
    """Returns the average gap to Retrain against the cost as a share of Retrain's.

    Seeds whose gap or cost is not a finite number are left out.
    """
    known = [r for r in records if r.diverged is None and np.all(np.isfinite(_gap_and_cost(r)))]
    methods = _by_method(known)
    costs = [r.cost.example_gradients for r in methods.get(reference, [])]
    unit = np.mean([cost for cost in costs if cost > 0] or [1.0])
    figure, (axes,) = panels(4.6, 3.0)
    for name, group in methods.items():
        cost = 100 * np.mean([record.cost.example_gradients for record in group]) / unit
        gaps = [100 * record.metrics["average_gap"] for record in group]
        marks: Any = {"fmt": "o", "capsize": 3, "label": figure_label(name)}
        axes.errorbar(cost, np.mean(gaps), np.std(gaps), **marks)
    axes.set_ylim(bottom=0)
    axes.set(xlabel="cost, % of Retrain's example-gradients", ylabel="gap to Retrain (points)")
    if methods:
        axes.legend()
    return figure


@chart
def verification_errors(
    steps: np.ndarray,
    errors: np.ndarray,
    carried_errors: np.ndarray,
    tolerance: float,
    norm: str,
    band: tuple[float, float] | None = None,
) -> Figure:
    """Returns the errors of a verified log against the step, and their distribution.

    Args:
      steps: [m] the steps of the checkpoints.
      errors: [m] of their weights; those that are not finite are left out.
      carried_errors: [m] of what else the checkpoints hold.
      tolerance: drawn as a line.
      norm: the measure, for the axis.
      band: the least and the largest error of honest replays, shaded.
    """
    finite = np.isfinite(errors) & np.isfinite(carried_errors)
    steps, errors, carried_errors = steps[finite], errors[finite], carried_errors[finite]
    shown = (*errors.tolist(), *carried_errors.tolist(), tolerance, *(band or ()))
    positive = [value for value in shown if value > 0] or [1e-8]
    least, top = min(positive), 2 * max(positive)
    edges = np.concatenate([[0.0], np.geomspace(least, top, 30)])
    figure, (by_step, spread) = panels(8.4, 3.0, 2, sharey=True, width_ratios=(3, 1))
    marks: dict[str, Any] = {"color": TEST_COLOUR, "markersize": 4, "clip_on": False}
    by_step.plot(steps, errors, "o", label="weights", **marks)
    by_step.plot(
        steps, carried_errors, "o", markerfacecolor="none", label="memory, statistics", **marks
    )
    spread.hist(errors, edges.tolist(), orientation="horizontal", color=TEST_COLOUR)
    shade: dict[str, Any] = {"color": BAND_COLOUR, "linewidth": 0, "zorder": 0}
    for axes in (by_step, spread):
        axes.axhline(tolerance, color=FORGET_COLOUR, linewidth=1, label="tolerance")
        if band is not None:
            axes.axhspan(*band, label="honest replays", **shade)
    by_step.set_yscale("symlog", linthresh=least)
    by_step.set(ylim=(0, top), title="error of each checkpoint")
    by_step.set(xlabel="step", ylabel=f"error ({norm})")
    spread.set(xlabel="checkpoints", title="distribution")
    figure.legend(*by_step.get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return figure


def _gap_and_cost(record: Record) -> tuple[float, float]:
    return record.metrics["average_gap"], record.cost.example_gradients


def _by_method(records: Sequence[Record]) -> dict[str, list[Record]]:
    groups: dict[str, list[Record]] = {}
    for record in records:
        if record.diverged is None:
            groups.setdefault(record.method, []).append(record)
    return groups


def _interpolate(record: Record, attack: str, rates: np.ndarray) -> np.ndarray:
    """Returns the highest true positive rate at each false positive rate: a step, never a chord."""
    fpr, tpr = record.curves[f"{attack}_fpr"], record.curves[f"{attack}_tpr"]
    step: np.ndarray = tpr[np.searchsorted(fpr, rates, side="right") - 1]
    return step
