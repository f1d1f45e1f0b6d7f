"""The charts of a run, as Vega-Lite specifications made by altair."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from unlearnkit.auditing import mean_and_reach
from unlearnkit.reporting.escaping import figure_label
from unlearnkit.reporting.theme import DASHES, SERIES, colour, dashes, dressed, legend, named_series

if TYPE_CHECKING:
    import altair as alt

    from unlearnkit.reporting.theme import AnyChart

LEAST_LOSS = 1e-6
"""Losses below it, in nats, are drawn as this."""
LEAST_RATE = 1e-3
"""Where the logarithmic axes of a ROC curve begin; lower rates lie on the edge."""
_PLACES = 61
_ROLES = {
    **dict(zip(SERIES, zip(("method", "retrain", "untouched"), DASHES, strict=True), strict=True)),
    "unseen data": ("unseen", [8, 2, 2, 2]),
}
"""Colour and dash of each distribution of losses."""
Curves = Mapping[str, Sequence[tuple[np.ndarray, np.ndarray]]]


class Point(NamedTuple):
    """A mean over seeds and its interval.

    Attributes:
      name: of the row.
      mean: NaN where there is none.
      low: end of the interval; NaN where one seed has none.
      high: its other end.
      kind: of `SERIES`, for the colour.
    """

    name: str
    mean: float
    low: float
    high: float
    kind: str = SERIES[0]


def loss_chart(losses: Mapping[str, Float[np.ndarray, " n"]]) -> AnyChart:
    """Returns the share of each set with a smaller loss, against the loss: the distributions.

    Args:
      losses: in nats, by name: those of `SERIES` on the forget set, and `unseen data`.
    """
    import altair as alt

    finite = {name: values[np.isfinite(values)] for name, values in losses.items()}
    pooled = np.clip(np.concatenate(list(finite.values())), LEAST_LOSS, None)
    least, most = (float(f(pooled, initial=1.0)) for f in (np.min, np.max))
    places = np.geomspace(least / 1.2, max(most, 10 * least) * 1.2, _PLACES)
    rows = [
        {"set": name, "loss": float(f"{x:.4g}"), "share": round(100 * y, 2)}
        for name, values in finite.items()
        for x, y in zip(places, _below(np.maximum(values, LEAST_LOSS), places), strict=True)
    ]
    scale = alt.Scale(type="log", domain=[float(places[0]), float(places[-1])], nice=False)
    x = alt.X("loss:Q", title="loss (nats), logarithmic", scale=scale)
    x = x.axis(format="~e", tickCount=6, grid=False)
    y = alt.Y("share:Q", title="% of the set with less", scale=alt.Scale(domain=[0, 100]))
    shown = [name for name in _ROLES if name in finite]
    palette = alt.Scale(domain=shown, range=[colour(_ROLES[name][0]) for name in shown])
    dash = alt.Scale(domain=shown, range=[_ROLES[name][1] for name in shown])
    encoded = _chart(rows).encode(
        x=x,
        y=y.axis(tickCount=5),
        color=alt.Color("set:N", scale=palette, legend=legend()),
        strokeDash=alt.StrokeDash("set:N", scale=dash, legend=legend()),
    )
    lines = encoded.mark_line(interpolate="step-after", strokeWidth=2, clip=True)
    return dressed(lines.encode(tooltip=["set:N", "loss:Q", "share:Q"]), 210)


def _below(
    values: Float[np.ndarray, " n"], places: Float[np.ndarray, " k"]
) -> Float[np.ndarray, " k"]:
    """Returns the share of values that are not above each place."""
    share: np.ndarray = np.searchsorted(np.sort(values), places, side="right") / max(len(values), 1)
    return share


def roc_chart(curves: Curves) -> AnyChart:
    """Returns ROC curves on logarithmic axes, the mean over the seeds of each.

    Args:
      curves: by name of `SERIES`, the rates (false positive, true positive) of each seed.
    """
    import altair as alt

    rates = np.concatenate([[0.0], np.geomspace(LEAST_RATE, 1, 61)])
    rows: list[dict[str, object]] = []
    for name, seeds in curves.items():
        mean = np.mean([interpolate(*rate, rates) for rate in seeds], axis=0)
        rows += [
            {
                "network": name,
                "fpr": float(f"{max(x, LEAST_RATE):.4g}"),
                "tpr": float(f"{min(max(y, LEAST_RATE), 1.0):.4g}"),
                "n": i,
            }
            for i, (x, y) in enumerate(zip(rates, mean.tolist(), strict=True))
        ]
    axis = alt.Axis(values=[0.001, 0.01, 0.1, 1], format="~g")
    scale = alt.Scale(type="log", domain=[LEAST_RATE, 1], nice=False, clamp=True)
    series = named_series()
    lines = (
        _chart(rows)
        .mark_line(interpolate="step-after", strokeWidth=2)
        .encode(
            x=alt.X("fpr:Q", title="false positive rate", scale=scale, axis=axis),
            y=alt.Y("tpr:Q", title="true positive rate", scale=scale, axis=axis),
            order="n:Q",
            color=alt.Color("network:N", scale=series, legend=legend()),
            strokeDash=alt.StrokeDash("network:N", scale=dashes(), legend=legend()),
            tooltip=["network:N", alt.Tooltip("fpr:Q"), alt.Tooltip("tpr:Q")],
        )
    )
    ends = [{"fpr": rate, "tpr": rate} for rate in (LEAST_RATE, 1.0)]
    chance = (
        _chart(ends)
        .mark_line(strokeWidth=1, color=colour("quiet"), opacity=0.7)
        .encode(x=alt.X("fpr:Q", scale=scale, axis=axis), y=alt.Y("tpr:Q", scale=scale, axis=axis))
    )
    return dressed(alt.layer(chance, lines), 210)


def points_chart(
    points: Sequence[Point],
    *,
    title: str,
    domain: tuple[float, float] | None = None,
    logarithmic: bool = False,
) -> AnyChart:
    """Returns means with their intervals, a row for each name, in the order given.

    Args:
      points: what is drawn.
      title: of the axis.
      domain: of the axis; nothing is drawn beyond it. None fits the values.
      logarithmic: whether the axis is; values that are not above 0 are left out.
    """
    import altair as alt

    rows = []
    for point in points:
        low, high = (end if np.isfinite(end) else point.mean for end in (point.low, point.high))
        if not np.isfinite(point.mean) or (logarithmic and point.mean <= 0):
            continue
        if domain is not None:
            low, high = max(low, domain[0]), min(high, domain[1])
        if logarithmic:
            low = max(low, point.mean / 10)
        row = {"name": figure_label(point.name), "kind": point.kind}
        rows.append(row | {"mean": point.mean, "low": low, "high": high})
    scale = alt.Scale(
        type="log" if logarithmic else "linear",
        domain=list(domain) if domain else alt.Undefined,
        zero=alt.Undefined if logarithmic else True,
        nice=domain is None,
    )
    order = list(dict.fromkeys(figure_label(point.name) for point in points))
    axis = alt.Axis(format="~g", tickCount=4 if logarithmic else 5, grid=not logarithmic)
    base = _chart(rows).encode(
        y=alt.Y("name:N", sort=order, title=None).axis(
            labelLimit=150,
            labelPadding=9,
            ticks=False,
            domain=False,
            labelColor=colour("ink"),
            labelOverlap=False,
        ),
        color=alt.Color("kind:N", scale=named_series(), legend=None),
    )
    bars = base.mark_rule(strokeWidth=2).encode(
        x=alt.X("low:Q", title=title, scale=scale, axis=axis), x2="high:Q"
    )
    shown = [alt.Tooltip("name:N"), *(alt.Tooltip(f"{n}:Q", format=".4~g") for n in _ENDS)]
    dots = base.mark_point(filled=True, size=70, opacity=1).encode(
        x=alt.X("mean:Q", title=title, scale=scale, axis=axis),
        shape=alt.Shape("kind:N", scale=_shapes(), legend=None),
        tooltip=shown,
    )
    return dressed(alt.layer(bars, dots), 22 * max(len(rows), 1) + 10)


_ENDS = ("mean", "low", "high")


def _shapes() -> alt.Scale:
    import altair as alt

    return alt.Scale(domain=list(SERIES), range=["circle", "diamond", "square"])


def course_chart(
    courses: Mapping[str, Float[np.ndarray, "seeds epochs"]],
    *,
    title: str,
    horizontal: str = "epoch of unlearning",
    places: Float[np.ndarray, " epochs"] | None = None,
    shares: bool = False,
) -> AnyChart:
    """Returns means over seeds as lines along epochs, or other places, with their 95 % intervals.

    Args:
      courses: by name.
      title: of the vertical axis.
      horizontal: of the other.
      places: on it; 1, 2, ... where None.
      shares: whether values are in [0, 1], which is then the axis.
    """
    import altair as alt

    rows = []
    for name, values in courses.items():
        means, reaches = mean_and_reach(values)
        reaches = np.nan_to_num(reaches)  # of one seed
        along = np.arange(1, values.shape[1] + 1) if places is None else places
        for x, mean, reach in zip(along.tolist(), means.tolist(), reaches.tolist(), strict=True):
            low, high = mean - reach, mean + reach
            if shares:
                low, high = max(low, 0.0), min(high, 1.0)
            rows.append({"what": name, "x": x, "mean": mean, "low": low, "high": high})
    scale = alt.Scale(domain=[0, 1], nice=False) if shares else alt.Scale(zero=False)
    range_ = [colour(role) for role in ("method", "retrain", "unseen", "untouched")]
    names = list(courses)
    encoded = alt.Color(
        "what:N", scale=alt.Scale(domain=names, range=range_[: len(names)]), legend=legend()
    )
    base = _chart(rows).encode(
        x=alt.X("x:Q", title=horizontal)
        .scale(zero=False, nice=False)
        .axis(tickMinStep=1 if places is None else 0),
        color=encoded,
    )
    y = alt.Y("mean:Q", title=title, scale=scale)
    band = base.mark_area(opacity=0.18).encode(y=alt.Y("low:Q", scale=scale), y2="high:Q")
    line = base.mark_line(strokeWidth=2, point=alt.OverlayMarkDef(size=24)).encode(
        y=y,
        tooltip=[alt.Tooltip("what:N"), alt.Tooltip("x:Q"), alt.Tooltip("mean:Q", format=".4~g")],
    )
    return dressed(alt.layer(band, line), 200)


def confusion_chart(counts: Int[np.ndarray, "c c"], classes: Sequence[str]) -> AnyChart:
    """Returns which classes examples are taken for, as shares of each true class.

    Args:
      counts: examples by true class (rows) and predicted class.
      classes: their names.
    """
    import altair as alt

    sizes = counts.sum(1)
    rows = [
        {
            "true": classes[i],
            "predicted": classes[j],
            "share": round(float(counts[i, j] / sizes[i]), 4),
        }
        for i in np.flatnonzero(sizes).tolist()
        for j in range(len(classes))
    ]
    scale = alt.Scale(scheme="cividis", domain=[0, 1])
    axis = alt.Axis(labelColor=colour("ink"), ticks=False, domain=False, labelAngle=0)
    chart = (
        _chart(rows)
        .mark_rect(stroke=colour("paper"), strokeWidth=1)
        .encode(
            x=alt.X("predicted:N", sort=list(classes), title="predicted class").axis(axis),
            y=alt.Y("true:N", sort=list(classes), title="true class").axis(axis),
            color=alt.Color("share:Q", scale=scale).legend(
                orient="top", title=None, format=".0%", gradientLength=140, tickCount=3
            ),
            tooltip=["true:N", "predicted:N", alt.Tooltip("share:Q", format=".1%")],
        )
    )
    return dressed(chart, max(18 * int(np.count_nonzero(sizes)), 36))


def example_chart(
    here: Float[np.ndarray, " n"], there: Float[np.ndarray, " n"], *, horizontal: str
) -> AnyChart:
    """Returns the loss of each forgotten example against that of Retrain; for those who ask.

    Args:
      here: losses of the method, in nats.
      there: losses of the network it is compared with.
      horizontal: title of its axis.
    """
    import altair as alt

    x, y = (np.clip(values, LEAST_LOSS, None) for values in (there, here))
    known = np.isfinite(x) & np.isfinite(y)
    rows = [
        {"example": int(i), "there": float(f"{x[i]:.4g}"), "here": float(f"{y[i]:.4g}")}
        for i in np.flatnonzero(known)
    ]
    axis = alt.Axis(format="~e", tickCount=5, grid=False)
    ends = np.concatenate([x[known], y[known], [1.0]])
    scale = alt.Scale(type="log", domain=[float(ends.min()) / 1.3, float(ends.max()) * 1.3])
    dots = (
        _chart(rows)
        .mark_point(filled=True, size=40, opacity=0.7, color=colour("method"))
        .encode(
            x=alt.X("there:Q", title=horizontal, scale=scale, axis=axis),
            y=alt.Y("here:Q", title="loss after the method (nats)", scale=scale, axis=axis),
            tooltip=["example:Q", "here:Q", "there:Q"],
        )
    )
    return dressed(dots, 260)


def plane_chart(sets: Mapping[str, Float[np.ndarray, "n 3"]]) -> AnyChart:
    """Returns features in a plane.

    Args:
      sets: by the set's name, the two coordinates and the class of each example, or of what stands
        for several.
    """
    import altair as alt

    rows = [
        {
            "set": name,
            "one": float(f"{one:.4g}"),
            "two": float(f"{two:.4g}"),
            "class": str(int(label)),
        }
        for name, points in sets.items()
        for one, two, label in points
    ]
    axis = alt.Axis(format="~g", tickCount=4, grid=False)
    dots = (
        _chart(rows)
        .mark_point(filled=True, size=30, opacity=0.7)
        .encode(
            x=alt.X("one:Q", title="first direction", axis=axis),
            y=alt.Y("two:Q", title="second direction", axis=axis),
            color=alt.Color("class:N", title="class"),
            shape=alt.Shape("set:N", title="set", sort=list(sets)),
            tooltip=["set:N", "class:N"],
        )
    )
    return dressed(dots, 260)


def verification_chart(
    steps: Int[np.ndarray, " m"],
    errors: Float[np.ndarray, " m"],
    carried_errors: Float[np.ndarray, " m"],
    tolerance: float,
    norm: str,
    band: tuple[float, float] | None = None,
) -> AnyChart:
    """Returns the errors of a verified log against the step.

    Args:
      steps: of the checkpoints.
      errors: of their weights; those that are not finite are left out.
      carried_errors: of what else the checkpoints hold.
      tolerance: drawn as a line.
      norm: the measure, for the axis.
      band: the least and the largest error of honest replays, shaded.
    """
    import altair as alt

    finite = np.isfinite(errors) & np.isfinite(carried_errors)
    shown = {"weights": errors[finite], "memory, statistics": carried_errors[finite]}
    lines = {"tolerance": tolerance}
    every = [*np.concatenate(list(shown.values())).tolist(), tolerance, *(band or ())]
    positive = [value for value in every if value > 0] or [1e-8]
    scale = alt.Scale(
        type="symlog", constant=min(positive), domain=[0, 2 * max(positive)], nice=False
    )
    axis = alt.Axis(format="~e", tickCount=6)
    names = [*shown, *lines, *(["honest replays"] if band is not None else [])]
    roles = ["retrain", "unseen", "method", "rule"]
    palette = alt.Scale(domain=names, range=[colour(role) for role in roles[: len(names)]])
    encoded = alt.Color("what:N", scale=palette, legend=legend())
    dots = [
        {"step": int(step), "error": float(value), "what": name}
        for name, values in shown.items()
        for step, value in zip(steps[finite], values, strict=True)
    ]
    title = f"error ({norm})"
    y = alt.Y("error:Q", title=title, scale=scale, axis=axis)
    layers = [
        _chart([{"error": tolerance, "what": "tolerance"}])
        .mark_rule(strokeWidth=1.5)
        .encode(y=y, color=encoded),
        _chart(dots)
        .mark_point(filled=True, size=45, opacity=0.9)
        .encode(
            x=alt.X("step:Q", title="step").scale(zero=False),
            y=y,
            color=encoded,
            shape=alt.Shape(
                "what:N",
                scale=alt.Scale(domain=list(shown), range=["circle", "square"]),
                legend=None,
            ),
            tooltip=["what:N", "step:Q", "error:Q"],
        ),
    ]
    if band is not None:
        area = {"error": band[0], "most": band[1], "what": "honest replays"}
        layers.insert(
            0,
            _chart([area]).mark_rect(opacity=0.8).encode(y=y, y2="most:Q", color=encoded),
        )
    return dressed(alt.layer(*layers), 260)


def _chart(rows: Sequence[Mapping[str, object]]) -> alt.Chart:
    import altair as alt

    return alt.Chart(alt.InlineData(values=[dict(row) for row in rows]))


def interpolate(
    fpr: Float[np.ndarray, " k"], tpr: Float[np.ndarray, " k"], rates: Float[np.ndarray, " r"]
) -> Float[np.ndarray, " r"]:
    """Returns the highest true positive rate at each false positive rate: a step, never a chord.

    Args:
      fpr: [k] of a ROC curve, ascending.
      tpr: [k] of it.
      rates: [r] that are asked for.
    """
    step: np.ndarray = tpr[np.searchsorted(fpr, rates, side="right") - 1]
    return step
