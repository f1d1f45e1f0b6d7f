"""One look of all charts: colours that follow the page's theme, and pictures for papers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:  # altair takes a second, which a command spends when it draws
    import altair as alt

    AnyChart = alt.Chart | alt.LayerChart | alt.FacetChart

Format = Literal["svg", "png", "pdf"]

COLOURS = {
    "ink": "#1f2933",
    "quiet": "#52606d",
    "rule": "#d5dbe1",
    "paper": "#ffffff",
    "method": "#b8400c",
    "retrain": "#0b63a5",
    "untouched": "#6b7280",
    "unseen": "#3d7a5c",
}
"""What charts are drawn in, on white; a page gives the names other values in the dark.

Vermilion against blue is told apart with every kind of colour blindness, and series differ in the
dash of their lines besides.
"""
SERIES = ("this method", "Retrain", "untouched")
DASHES = ([1, 0], [6, 3], [2, 2])
_FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'DejaVu Sans', sans-serif"


def colour(name: str) -> str:
    """Returns a colour of `COLOURS` as the page's style sheet calls it."""
    return f"var(--{name})"


def named_series(names: Sequence[str] = SERIES) -> alt.Scale:
    """Returns the colours of the method, of Retrain and of the untouched network."""
    import altair as alt

    return alt.Scale(
        domain=list(names), range=[colour(n) for n in ("method", "retrain", "untouched")]
    )


def dashes(names: Sequence[str] = SERIES) -> alt.Scale:
    """Returns the dashes of the same lines."""
    import altair as alt

    return alt.Scale(domain=list(names), range=[list(dash) for dash in DASHES])


def legend() -> alt.Legend:
    """Returns a legend above the panel, in columns that a narrow screen has room for."""
    import altair as alt

    return alt.Legend(
        orient="top",
        title=None,
        columns=2,
        symbolType="stroke",
        symbolStrokeWidth=2.5,
        labelLimit=240,
    )


def dressed(chart: AnyChart, height: int | None = 200) -> AnyChart:
    """Returns the chart in the one look, as wide as its place on the page.

    Args:
      chart: of one panel.
      height: of the panel in pixels; None leaves it as it is.
    """
    import altair as alt

    sized = chart.properties(
        width="container",
        autosize=alt.AutoSizeParams(type="fit-x", contains="padding", resize=True),
        background="transparent",
        padding={"left": 2, "right": 10, "top": 4, "bottom": 2},
    )
    if height is not None:
        sized = sized.properties(height=height)
    looked: AnyChart = sized.configure(
        aria=False,
        font=_FONT,
        axis=alt.AxisConfig(
            domainColor=colour("quiet"),
            tickColor=colour("quiet"),
            gridColor=colour("rule"),
            labelColor=colour("quiet"),
            titleColor=colour("quiet"),
            titleFontWeight="normal",
            labelFontSize=11,
            titleFontSize=12,
            titlePadding=6,
            labelOverlap="greedy",
            labelSeparation=6,
        ),
        legend=alt.LegendConfig(labelColor=colour("ink"), labelFontSize=12, symbolSize=120),
        view=alt.ViewConfig(stroke=None),
    )
    return looked


def specification(chart: AnyChart) -> dict[str, object]:
    """Returns the Vega-Lite specification of a chart, the same for the same data."""
    said: dict[str, object] = chart.to_dict()
    return said


def to_picture(chart: AnyChart, form: Format = "svg", *, width: int = 460) -> bytes:
    """Returns a chart as a picture on white, from the specification that the page draws.

    Args:
      chart: one of `reporting`'s.
      form: `svg`, `png` (at 300 dots an inch) or `pdf`.
      width: in pixels of 1/96 inch, of charts that take the width of their place.

    Raises:
      ValueError: another format.

    Example:
      Path("roc.pdf").write_bytes(to_picture(roc_chart(series), "pdf"))
    """
    import vl_convert

    from unlearnkit.validation import check_choice

    check_choice("form", form, Format)
    text = json.dumps(specification(chart))
    for name, value in COLOURS.items():
        text = text.replace(colour(name), value)
    said = json.loads(text)
    if said.get("width") == "container":
        said["width"] = width
    said["background"] = "white"
    if form == "svg":
        return vl_convert.vegalite_to_svg(said).encode()
    if form == "png":
        return vl_convert.vegalite_to_png(said, ppi=300)
    return vl_convert.vegalite_to_pdf(said)


def to_svg(chart: AnyChart, *, width: int = 460) -> str:
    """Returns a chart as an SVG element, the same text for the same data.

    Args:
      chart: one of `reporting`'s.
      width: see `to_picture`.
    """
    return to_picture(chart, "svg", width=width).decode()
