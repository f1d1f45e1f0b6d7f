"""What a report draws of a question and of each method; what records lack is left out."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from unlearnkit.records import Record
from unlearnkit.reporting.escaping import slug
from unlearnkit.reporting.figures import (
    LEAST_RATE,
    Point,
    confusion_chart,
    course_chart,
    example_chart,
    loss_chart,
    plane_chart,
    points_chart,
    roc_chart,
)
from unlearnkit.reporting.overview import Place, level
from unlearnkit.reporting.theme import SERIES
from unlearnkit.studies import ORIGINAL, RETRAIN

if TYPE_CHECKING:
    from unlearnkit.reporting.theme import AnyChart

LEAST_EXAMPLES = 10
"""Of fewer forgotten examples even a distribution tells of single ones."""
_MOST_CLASSES = 30
_MOST_ATTACKS = 3
_MOST_EXAMPLES = 500
_HERE, _RETRAIN, _UNTOUCHED = SERIES
_COURSES = {
    "accuracy_retain": "retained",
    "accuracy_forget": "forgotten",
    "accuracy_test": "unseen",
    "mia_loss_logistic_accuracy": "membership attack",
}


class Drawn(NamedTuple):
    """A figure of the report.

    Attributes:
      name: by which it is asked for again; a file's name.
      title: above it.
      caption: what it shows, in plain text.
      chart: the chart.
      said: what it shows, for who does not see it.
    """

    name: str
    title: str
    caption: str
    chart: AnyChart
    said: str


class Gallery(NamedTuple):
    """Pictures that a report shows when it is asked for examples.

    Attributes:
      title: above them.
      caption: what they are.
      images: by what is said under each, [h, w] or [h, w, c] in [0, 1].
    """

    title: str
    caption: str
    images: Mapping[str, np.ndarray]


def question_figures(place: Place, primary: str | None = None) -> list[Drawn]:
    """Returns the distance of every method to Retrain, and what each cost.

    Args:
      place: a question.
      primary: the distance; `average_gap` where None.
    """
    found = []
    metric = primary or "average_gap"
    rows = place.finished
    gaps = [
        Point(name, *level(mine, metric)[:3], kind=_kind(name))
        for name, mine in rows.items()
        if any(metric in r.metrics for r in mine)
    ]
    known = [point for point in gaps if np.isfinite(point.mean)]
    ending = f"-{slug(place.name)}" if place.name else ""
    if known:
        best = min(known, key=lambda point: abs(point.mean))
        title = "distance to Retrain" if metric == "average_gap" else metric
        found.append(
            Drawn(
                f"distance{ending}",
                "Distance to Retrain" if metric == "average_gap" else metric,
                "Mean over the seeds with its 95 % interval; nearer to the left is closer to a "
                "network that never saw the forget set.",
                points_chart(known, title=title, domain=_domain(known)),
                f"{len(known)} rows; the least is {best.name} with {best.mean:.3g}",
            )
        )
    costs = {
        n: float(np.mean([r.cost.example_gradients for r in mine])) for n, mine in rows.items()
    }
    full = costs.get(RETRAIN, 0.0)
    if full > 0 and len(costs) > 2:
        shares = [Point(n, 100 * c / full, *_NONE, _kind(n)) for n, c in costs.items() if c > 0]
        spread = max(p.mean for p in shares) / min(p.mean for p in shares)
        cheapest = min(shares, key=lambda point: point.mean)
        found.append(
            Drawn(
                f"cost{ending}",
                "Cost",
                "Example-gradients, in % of those of Retrain; methods that need none are left out.",
                points_chart(shares, title="% of Retrain's cost", logarithmic=spread > 50),
                f"{len(shares)} rows; the cheapest is {cheapest.name} with {cheapest.mean:.3g} %",
            )
        )
    return found


def method_figures(place: Place, row: str, *, show_examples: bool = False) -> list[Drawn]:
    """Returns what the records of a method hold for the eye.

    Args:
      place: the question.
      row: of the method.
      show_examples: whether scores of single forgotten examples are drawn.
    """
    series = _series(place, row)
    views = [*_losses(series), *_rocs(series)] if shows_sets(place, show_examples) else []
    views += [*_classes(series, place, show_examples), *_courses(series), *_paths(series)]
    views += [*_information(series), *_layers(series), *_planes(series, show_examples)]
    if show_examples:
        views += [*_examples(series)]
    where = f"{slug(place.name)}-" if place.name else ""
    return [view._replace(name=f"{view.name}-{where}{slug(row)}") for view in views]


def shows_sets(place: Place, show_examples: bool) -> bool:
    """Returns whether distributions over the forget set may be shown: those of a few tell of each.

    Args:
      place: the question.
      show_examples: whether the reader asked for single examples.
    """
    return show_examples or min(place.forgotten, default=LEAST_EXAMPLES) >= LEAST_EXAMPLES


def example_rows(place: Place) -> tuple[list[str], list[list[float]]]:
    """Returns the losses of each forgotten example of the first seed: a row each, a column a row.

    Args:
      place: the question.
    """
    columns: dict[str, np.ndarray] = {}
    for name, mine in place.finished.items():
        first = min(mine, key=lambda record: record.seed)
        if "loss_forget" in first.curves:
            columns[name] = np.asarray(first.curves["loss_forget"], float)
    size = min((len(values) for values in columns.values()), default=0)
    shown = min(size, _MOST_EXAMPLES)
    return list(columns), [[float(v[i]) for v in columns.values()] for i in range(shown)]


_NONE = (math.nan, math.nan)
_Series = Mapping[str, Sequence[Record]]


def _kind(name: str) -> str:
    return {RETRAIN: _RETRAIN, ORIGINAL: _UNTOUCHED}.get(name, _HERE)


def _series(place: Place, row: str) -> _Series:
    rows = place.finished
    names = {_HERE: row, _RETRAIN: RETRAIN, _UNTOUCHED: ORIGINAL}
    return {kind: rows[name] for kind, name in names.items() if name in rows}


def _domain(points: Sequence[Point]) -> tuple[float, float] | None:
    """Returns [0, the largest end]: intervals of a distance do not reach below 0."""
    if any(point.mean < 0 for point in points):
        return None
    ends = [e for point in points for e in (point.mean, point.high) if np.isfinite(e)]
    return (0.0, 1.05 * max(ends)) if max(ends) > 0 else None


def _losses(series: _Series) -> Iterator[Drawn]:
    losses = {
        name: np.concatenate([np.asarray(r.curves["loss_forget"], float) for r in held])
        for name, mine in series.items()
        if (held := [r for r in mine if "loss_forget" in r.curves])
    }
    unseen = [r.curves["loss_test"] for r in series[_HERE] if "loss_test" in r.curves]
    if _HERE not in losses or not unseen:
        return
    losses["unseen data"] = np.concatenate([np.asarray(values, float) for values in unseen])
    if not all(np.isfinite(values).any() for values in losses.values()):
        return
    medians = {name: float(np.nanmedian(values)) for name, values in losses.items()}
    yield Drawn(
        "losses",
        "Losses",
        "The share of the forget set, all seeds, with a loss below each value; after good "
        "unlearning the method's line lies on Retrain's. Unseen data are the method's.",
        loss_chart(losses),
        "median loss: " + ", ".join(f"{name} {value:.3g}" for name, value in medians.items()),
    )


def _rocs(series: _Series) -> Iterator[Drawn]:
    for attack in _attacks(series[_HERE])[:_MOST_ATTACKS]:
        ends = f"{attack}_fpr", f"{attack}_tpr"
        curves = {
            name: [(np.asarray(r.curves[ends[0]]), np.asarray(r.curves[ends[1]])) for r in held]
            for name, mine in series.items()
            if (held := [r for r in mine if ends[0] in r.curves])
        }
        known = [r.metrics[f"{attack}_auc"] for r in series[_HERE] if f"{attack}_auc" in r.metrics]
        auc = f"; the area is {np.mean(known):.3f}" if known else ""
        words = attack.removeprefix("mia_").replace("_", ", ") or "attack"
        yield Drawn(
            f"roc-{slug(attack)}",
            f"Membership attack: {words}",
            "ROC curve on logarithmic axes, mean over the seeds; the thin line is chance. Rates "
            f"below {LEAST_RATE:g} lie on the edge.",
            roc_chart(curves),
            f"ROC curves of {len(curves)} networks{auc}",
        )


def _attacks(records: Sequence[Record]) -> list[str]:
    names = {n.removesuffix("_fpr") for r in records for n in r.curves if n.endswith("_fpr")}
    whole = [n for n in names if all(f"{n}_tpr" in r.curves for r in records)]
    return sorted(whole, key=lambda name: (name != "mia_loss_logistic", name))


def _classes(series: _Series, place: Place, show_examples: bool) -> Iterator[Drawn]:
    for part, words in (("forget", "the forget set"), ("test", "unseen data")):
        if part == "forget" and not shows_sets(place, show_examples):
            continue
        name = f"confusion_{part}"
        held = [np.asarray(r.curves[name]) for r in series[_HERE] if name in r.curves]
        if not held or len(held[0]) > _MOST_CLASSES:
            continue
        counts = np.sum(held, axis=0)
        classes = [str(i) for i in range(len(counts))]
        right = float(np.trace(counts) / max(counts.sum(), 1))
        yield Drawn(
            f"classes-{part}",
            f"Classes: {words}",
            f"What each class of {words} is taken for after the method, as shares of the class, "
            "all seeds.",
            confusion_chart(counts, classes),
            f"{100 * right:.1f} % of {words} are taken for their own class",
        )


def _courses(series: _Series) -> Iterator[Drawn]:
    courses: dict[str, np.ndarray] = {}
    for metric, words in _COURSES.items():
        names = {n for r in series[_HERE] for n in r.curves if n.endswith(f"course_{metric}")}
        for name in sorted(names):
            runs = [np.asarray(r.curves[name], float) for r in series[_HERE] if name in r.curves]
            shortest = min(map(len, runs))
            if shortest > 1:
                courses[words] = np.stack([values[:shortest] for values in runs])
    if courses:
        yield Drawn(
            "course",
            "Accuracy as the method goes on",
            "Accuracies after each epoch of unlearning, means over the seeds with 95 % intervals.",
            course_chart(courses, title="accuracy", shares=True),
            "; ".join(f"{n}: from {v[:, 0].mean():.2f} to {v[:, -1].mean():.2f}"
                      for n, v in courses.items()),
        )  # fmt: skip


def _paths(series: _Series) -> Iterator[Drawn]:
    for prefix in _prefixes(series[_HERE], ("alpha", "forget", "retain")):
        runs = [r.curves for r in series[_HERE] if f"{prefix}alpha" in r.curves]
        along = np.asarray(runs[0][f"{prefix}alpha"], float)
        courses = {
            f"{part} set": np.stack(
                [np.asarray(curves[f"{prefix}{part}"], float) for curves in runs]
            )
            for part in ("forget", "retain")
        }
        least = float(along[courses["forget set"].mean(0).argmin()])
        yield Drawn(
            "-".join(["path", *_named(prefix)]),
            "The way of the weights",
            "L1 distance of the answers to Retrain's, on the line from the untouched weights (0) "
            "to the method's (1) and beyond: where it falls, the method moves towards Retrain.",
            course_chart(
                courses, title="L1 distance to Retrain", horizontal="weights (alpha)", places=along
            ),
            f"nearest to Retrain on the forget set at alpha = {least:g}",
        )


def _information(series: _Series) -> Iterator[Drawn]:
    names = ("level", "white_box", "test_error")
    for prefix in _prefixes(series[_HERE], names):
        runs = [r.curves for r in series[_HERE] if f"{prefix}level" in r.curves]
        errors = np.stack([np.asarray(c[f"{prefix}test_error"], float) for c in runs])
        nats = np.mean([np.asarray(c[f"{prefix}white_box"], float) for c in runs], axis=0)
        order = np.argsort(nats)
        yield Drawn(
            "-".join(["information", *_named(prefix)]),
            "Information against error",
            "An upper bound on what the weights tell of the forget set, in nats, against the error "
            "on unseen data, as noise is added.",
            course_chart(
                {"test error": errors[:, order]},
                title="test error",
                horizontal="information (nats)",
                places=nats[order],
                shares=True,
            ),
            f"from {nats.min():.3g} nats at error {errors.mean(0)[order[0]]:.2f}",
        )


def _layers(series: _Series) -> Iterator[Drawn]:
    for prefix in _prefixes(series[_HERE], ("layer_moved",)):
        name = f"{prefix}layer_moved"
        courses = {
            kind: np.stack([np.asarray(r.curves[name], float) for r in records if name in r.curves])
            for kind, records in series.items()
            if kind != _UNTOUCHED and any(name in r.curves for r in records)
        }
        mean = courses[_HERE].mean(0)
        yield Drawn(
            "-".join(["layers", *_named(prefix)]),
            "How far each layer moved",
            "The distance of a layer's weights from the untouched ones, as a share of their norm, "
            "from input to output.",
            course_chart(courses, title="moved, share of the norm", horizontal="layer"),
            f"{len(mean)} layers; layer {int(mean.argmax()) + 1} moved most, by {mean.max():.3g}",
        )


def _planes(series: _Series, show_examples: bool) -> Iterator[Drawn]:
    names = ("plane_retain", "plane_test", "plane_forget", "plane_class_forget")
    for prefix in _prefixes(series[_HERE], names):
        forgotten = "each forgotten one" if show_examples else "the means of forgotten classes"
        for kind in (_UNTOUCHED, _HERE, _RETRAIN):
            runs = [r for r in series.get(kind, ()) if f"{prefix}plane_retain" in r.curves]
            if not runs:
                continue
            first = min(runs, key=lambda record: record.seed)
            points = _points(first.curves, prefix, show_examples)
            yield Drawn(
                "-".join(["features", *_named(prefix), kind.lower().replace(" ", "_")]),
                f"What the last layer sees: {kind}",
                f"Penultimate features of retained and of unseen examples, and {forgotten}, in the "
                "two principal directions of the untouched network's features; first seed.",
                plane_chart(points),
                ", ".join(f"{len(places)} {name}" for name, places in points.items()),
            )


def _points(
    curves: Mapping[str, np.ndarray], prefix: str, show_examples: bool
) -> dict[str, np.ndarray]:
    """Returns coordinates and class of what may be shown of each set.

    Of forgotten examples that is the mean of each class that has `LEAST_EXAMPLES` of them.
    """
    found = {}
    for said, name in (("retained", "retain"), ("unseen", "test"), ("forgotten", "forget")):
        places = np.asarray(curves[f"{prefix}plane_{name}"], float)
        labels = np.asarray(curves[f"{prefix}plane_class_{name}"])
        found[said] = np.column_stack([places, labels])
    if show_examples:
        return found
    forgotten = found.pop("forgotten")
    classes, counts = np.unique(forgotten[:, 2], return_counts=True)
    means = [forgotten[forgotten[:, 2] == c].mean(0) for c in classes[counts >= LEAST_EXAMPLES]]
    if means:
        found["mean of forgotten"] = np.stack(means)
    return found


def _named(prefix: str) -> list[str]:
    name = prefix.strip("_")
    return [slug(name)] if name else []


def _prefixes(records: Sequence[Record], names: Sequence[str]) -> list[str]:
    """Returns what stands before these names of curves, where some record has all of them."""
    found = []
    for record in records:
        ends = [n.removesuffix(names[0]) for n in record.curves if n.endswith(names[0])]
        found += [p for p in ends if all(f"{p}{name}" in record.curves for name in names)]
    return list(dict.fromkeys(found))


def _examples(series: _Series) -> Iterator[Drawn]:
    other = _RETRAIN if _RETRAIN in series else _UNTOUCHED
    if other not in series:
        return
    seed = min(record.seed for record in series[_HERE])
    pair = [
        next((r.curves["loss_forget"] for r in series[name]
              if r.seed == seed and "loss_forget" in r.curves), None)
        for name in (_HERE, other)
    ]  # fmt: skip
    here, there = pair
    if here is None or there is None or len(here) != len(there):
        return
    yield Drawn(
        "examples",
        "Each forgotten example",
        f"The loss of every forgotten example of seed {seed}, which is its membership score, "
        f"against that of {other}.",
        example_chart(
            np.asarray(here, float), np.asarray(there, float), horizontal=f"loss of {other} (nats)"
        ),
        f"{len(here)} forgotten examples",
    )
