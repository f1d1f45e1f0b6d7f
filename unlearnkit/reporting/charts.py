"""Figures drawn by matplotlib (the extra `experiments`), as SVG text in one style."""

from __future__ import annotations

import functools
import io
import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ParamSpec

import numpy as np

from unlearnkit.auditing import mean_and_reach

if TYPE_CHECKING:  # matplotlib takes half a second, which a command spends when it draws
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

P = ParamSpec("P")

BLUE, ORANGE, RED, GREEN, GREY = "#1d4ed8", "#ea580c", "#b91c1c", "#16a34a", "#78716c"
TEAL, RUST, INK = "#0e7490", "#c2410c", "#1c1917"
STYLE: Any = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 9,
    "axes.titlelocation": "left",
    "legend.frameon": False,
    "svg.fonttype": "none",
    "svg.hashsalt": "unlearnkit",
}


def chart(make: Callable[P, Figure]) -> Callable[P, str]:
    """Makes a function that draws a figure return it as SVG text, in the one style."""

    @functools.wraps(make)
    def drawn(*args: P.args, **options: P.kwargs) -> str:
        import matplotlib as mpl

        with mpl.rc_context(STYLE):
            return to_svg(make(*args, **options))

    return drawn


def panels(
    width: float,
    height: float,
    columns: int = 1,
    lines: int = 1,
    *,
    sharex: bool = False,
    sharey: bool = False,
    width_ratios: Sequence[float] | None = None,
) -> tuple[Figure, list[Axes]]:
    """Returns a figure and its panels, row by row.

    Args:
      width: in inches.
      height: likewise.
      columns: how many panels stand side by side.
      lines: how many rows of them.
      sharex: whether all have one horizontal axis.
      sharey: whether all have one vertical axis.
      width_ratios: of the columns; None makes them alike.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    grid = figure.subplots(
        lines, columns, squeeze=False, sharex=sharex, sharey=sharey, width_ratios=width_ratios
    )
    return figure, list(grid.ravel())


def gallery(
    images: Mapping[str, np.ndarray], *, columns: int, width: float, height: float
) -> tuple[Figure, list[Axes]]:
    """Returns pictures side by side under their titles.

    Args:
      images: by title, [h, w] or [h, w, 3] in [0, 1]; what is beyond is cut off.
      columns: how many stand side by side.
      width: of a picture, in inches.
      height: likewise.
    """
    lines = -(-len(images) // columns)
    figure, grid = panels(width * columns, height * lines, columns, lines)
    for axes in grid:
        axes.set_axis_off()
    for axes, (title, image) in zip(grid, images.items(), strict=False):
        shown = np.clip(image, 0, 1)
        axes.imshow(shown, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
        axes.set_title(title)
    return figure, grid


def mosaic(images: np.ndarray, columns: int | None = None) -> np.ndarray:
    """Returns images [n, h, w, c] as one picture, row by row, white between; grey where c = 1.

    Without a number of columns they are laid out in a square.
    """
    n, height, width, channels = images.shape
    columns = columns or math.ceil(math.sqrt(n))
    lines = -(-n // columns)
    padded = np.ones((lines * columns, height + 1, width + 1, channels))
    padded[:n, :height, :width] = images
    tiled = padded.reshape(lines, columns, height + 1, width + 1, channels).swapaxes(1, 2)
    picture = tiled.reshape(lines * (height + 1), columns * (width + 1), channels)
    return picture[..., 0] if channels == 1 else picture


def montage(made: np.ndarray, base: np.ndarray | None, magnified: float = 10) -> np.ndarray:
    """Returns images over what they were made of and by how much they differ, as one picture.

    Its rows are the bases, the images, and 1/2 + magnified (image - base) / 2; the images alone
    where there is no base.

    Args:
      made: [n, h, w, c] pixels in [0, 1].
      base: likewise, or None.
      magnified: how many times a difference is shown.
    """
    rows = [made]
    if base is not None:
        rows = [base, made, np.clip(0.5 + magnified * (made - base) / 2, 0, 1)]
    picture = np.concatenate([mosaic(row, columns=len(row)) for row in rows])
    clipped: np.ndarray = np.clip(picture, 0, 1)
    return clipped


def to_svg(figure: Figure) -> str:
    """Returns the figure as an SVG element, the same text for the same figure."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :]


def deviation(values: np.ndarray | Sequence[float]) -> Any:
    """Returns the standard deviation over the first axis; 0 for one value."""
    return np.std(values, axis=0, ddof=1) if len(values) > 1 else 0 * np.asarray(values)[0]


def reach(values: np.ndarray) -> np.ndarray:
    """Returns the half-width of the 95 % interval of each column; 0 for one row."""
    width: np.ndarray = np.nan_to_num(mean_and_reach(values)[1])
    return width


def band(
    axes: Axes,
    x: Any,
    values: Any,
    *,
    spread: Callable[[np.ndarray], Any] = deviation,
    **line: Any,
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
    """Draws a mean as a bar, with its standard deviation.

    Args:
      axes: to draw on.
      place: of the bar.
      values: one per seed.
      colour: of the bar.
      alpha: how dense it is, 0 … 1.
    """
    axes.bar(place, np.mean(values), color=colour, alpha=alpha)
    axes.errorbar(place, np.mean(values), deviation(values), color="0.2", capsize=3)


def name_places(axes: Axes, names: Sequence[str], rotation: int) -> None:
    """Writes names under the bars of a panel.

    Args:
      axes: to write on.
      names: of the places 0, 1, ….
      rotation: of the names, in degrees.
    """
    axes.set_xticks(range(len(names)), list(names), rotation=rotation, ha="right")
