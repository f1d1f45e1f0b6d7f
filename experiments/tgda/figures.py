"""Figures 1, 3, 4 and 5 of the paper, as SVG text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.claims import interval
from experiments.tgda.claims import Runs
from experiments.tgda.paper import title
from experiments.tgda.runs import Sample
from unlearnkit.reporting import STYLE, to_svg
from unlearnkit.studies import Record

COLOURS = {
    "tgda": "#c2410c",
    "label_flip": "#0e7490",
    "min_max": "#4d7c0f",
    "poison_svm": "#6d28d9",
    "back_gradient": "#b45309",
    "influence": "#be185d",
    "kkt": "#1d4ed8",
    "improved_min_max": "#57534e",
}
MAGNIFIED = 10
"""How many times a perturbation is shown."""
_GAP = 1


def epsilon_figure(records: Sequence[Record]) -> str | None:
    """Returns the drop against ε, means with 95 % intervals (Figure 4); None for one ε alone."""
    runs = Runs(records)
    swept = {attack: runs.sweep(attack) for attack in ("tgda", "label_flip", "min_max")}
    swept = {attack: names for attack, names in swept.items() if len(names) > 1}
    if not swept:
        return None
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(5.2, 3.0), layout="constrained")
        axes: Axes = figure.subplots()
        for attack, names in swept.items():
            drops = [list(runs.drops(name).values()) for name in names.values()]
            _line(axes, [100 * epsilon for epsilon in names], drops, attack)
        axes.set(xscale="log", xlabel="ε, % of the training set", ylabel="accuracy drop, points")
        axes.legend()
        return to_svg(figure)


def size_figure(records: Mapping[int, Sequence[Record]]) -> str:
    """Returns the drop against the number of training examples (Figure 1).

    Args:
      records: by training examples.
    """
    runs = {size: Runs(found) for size, found in sorted(records.items())}
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(5.2, 3.0), layout="constrained")
        axes: Axes = figure.subplots()
        for attack in COLOURS:
            drops = {size: list(run.drops(attack).values()) for size, run in runs.items()}
            drops = {size: found for size, found in drops.items() if found}
            if drops:
                _line(axes, list(drops), list(drops.values()), attack)
        axes.set(xscale="log", xlabel="training examples", ylabel="accuracy drop, points")
        axes.legend(ncols=2)
        return to_svg(figure)


def _line(axes: Axes, x: Sequence[float], values: Sequence[Sequence[float]], attack: str) -> None:
    means, reaches = np.array([interval(found) for found in values]).T
    axes.errorbar(
        x,
        means,
        yerr=np.nan_to_num(reaches),
        color=COLOURS[attack],
        label=title(attack),
        linewidth=1.2,
        marker="o",
        markersize=3,
        capsize=2,
    )


def poison_figure(samples: Mapping[str, Sample]) -> str:
    """Returns a panel per attack: base images, poisons, and the perturbation ten times, on grey.

    Poisons that were made of no image stand alone. Of an attack at several ε the default's are
    shown.
    """
    shown = {n: s for n, s in samples.items() if "@" not in n or n.split("@")[0] not in samples}
    columns = 3
    lines = -(-len(shown) // columns)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(10.2, 1.9 * lines), layout="constrained")
        grid = figure.subplots(lines, columns, squeeze=False)
        for axes in grid.flat:
            axes.set_axis_off()
        for axes, (name, sample) in zip(grid.flat, shown.items(), strict=False):
            axes.imshow(montage(sample), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
            axes.set_title(title(name))
        return to_svg(figure)


def montage(sample: Sample) -> np.ndarray:
    """Returns one image [h, w] or [h, w, 3]: rows of bases, of poisons, of perturbations."""
    rows = [sample.poison]
    if sample.base is not None:
        change = np.clip(0.5 + MAGNIFIED * (sample.poison - sample.base) / 2, 0, 1)
        rows = [sample.base, sample.poison, change]
    bands = [np.concatenate([_framed(image) for image in row], axis=1) for row in rows]
    whole = np.clip(np.concatenate(bands, axis=0), 0, 1)
    return whole[..., 0] if whole.shape[-1] == 1 else whole


def _framed(image: np.ndarray) -> np.ndarray:
    return np.pad(image, ((0, _GAP), (0, _GAP), (0, 0)), constant_values=1.0)
