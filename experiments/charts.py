"""What the papers' figures are drawn of, in colours and by helpers of their own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from experiments.claims import interval
from unlearnkit.reporting.charts import chart as chart
from unlearnkit.reporting.charts import gallery as gallery
from unlearnkit.reporting.charts import mosaic as mosaic
from unlearnkit.reporting.charts import panels as panels

BLUE, ORANGE, RED, GREEN, GREY = "#1d4ed8", "#ea580c", "#b91c1c", "#16a34a", "#78716c"
TEAL, RUST, INK = "#0e7490", "#c2410c", "#1c1917"


def deviation(values: np.ndarray | Sequence[float]) -> Any:
    """Returns the standard deviation over the first axis; 0 for one value."""
    return np.std(values, axis=0, ddof=1) if len(values) > 1 else 0 * np.asarray(values)[0]


def reach(values: np.ndarray) -> np.ndarray:
    """Returns the half-width of the 95 % interval of each column; 0 for one row."""
    return np.nan_to_num([interval(column)[1] for column in values.T])


def band(
    axes: Axes, x: Any, values: Any, *, spread: Callable[[np.ndarray], Any] = deviation, **line: Any
) -> None:
    """Draws means over the first axis as a line within a band.

    Args:
      axes: to draw on.
      x: of the columns.
      values: one row per seed.
      spread: the half-width of the band.
      line: options of the line, its colour and label among them.
    """
    array = np.asarray(values)
    mean, width = array.mean(0), spread(array)
    axes.plot(x, mean, **line)
    axes.fill_between(x, mean - width, mean + width, color=line["color"], alpha=0.2, linewidth=0)


def bar(axes: Axes, place: float, values: Sequence[float], colour: str, alpha: float = 1.0) -> None:
    """Draws a mean as a bar, with its standard deviation."""
    axes.bar(place, np.mean(values), color=colour, alpha=alpha)
    axes.errorbar(place, np.mean(values), deviation(values), color="0.2", capsize=3)


def name_places(axes: Axes, names: Sequence[str], rotation: int) -> None:
    """Writes names under the bars of a panel."""
    axes.set_xticks(range(len(names)), list(names), rotation=rotation, ha="right")
