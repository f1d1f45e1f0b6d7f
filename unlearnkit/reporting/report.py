"""The report of a study: one HTML file for those who decide and for those who look closer."""

from __future__ import annotations

import dataclasses
import io
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from unlearnkit.records import Cell, Record, row_name
from unlearnkit.reporting.escaping import MISSING, slug
from unlearnkit.reporting.findings import find, table_of
from unlearnkit.reporting.glossary import Meaning, terms
from unlearnkit.reporting.overview import (
    LEVELS,
    Interval,
    Place,
    difference,
    level,
    measured,
    places,
    shade,
)
from unlearnkit.reporting.page import (
    Entry,
    compose_page,
    entry_table,
    image_source,
    settings_text,
    table_section,
    template,
)
from unlearnkit.reporting.verdicts import verdict_rows
from unlearnkit.reporting.views import (
    LEAST_EXAMPLES,
    Drawn,
    Gallery,
    example_rows,
    method_figures,
    question_figures,
    shows_sets,
)
from unlearnkit.studies import ORIGINAL, RETRAIN

if TYPE_CHECKING:
    from markupsafe import Markup

MINUS = "\N{MINUS SIGN}"
_FACTS = ("accuracy_forget", "accuracy_test", "accuracy_retain", "mia_loss_logistic_auc")


@dataclasses.dataclass(frozen=True)
class ReportOptions:
    """What a report is made with, besides the records.

    Attributes:
      cells: verdicts, from `studies.significance`.
      primary: the metric that they are about.
      correction: of their p-values.
      command: that makes the report again; "" leaves commands out.
      show_examples: whether scores of single forgotten examples are shown; such a report is to be
        kept and deleted as the data themselves.
      galleries: pictures, which are shown only with `show_examples`.
    """

    cells: Sequence[Cell] = ()
    primary: str | None = None
    correction: str = "holm"
    command: str = ""
    show_examples: bool = False
    galleries: Sequence[Gallery] = ()


DEFAULT_OPTIONS = ReportOptions()


def report_page(
    records: Sequence[Record],
    run: Mapping[str, object],
    *,
    title: str,
    options: ReportOptions = DEFAULT_OPTIONS,
) -> str:
    """Returns the report as one HTML file, which needs no network.

    The first screen says in plain words what was asked, what was found, how sure that is and what
    it cannot show. Then come methods against audits, all measures, and a section for each method.
    It holds no forgotten example and no score of a single one unless that is asked for;
    distributions over fewer than 10 forgotten examples, which tell of each, count as such.

    Args:
      records: of the run.
      run: settings and provenance; `study`, the text of its TOML file, and `provenance` are read.
      title: of the page.
      options: what else there is.

    Example:
      page = reporting.report_page(records, {"study": text}, title="Audit of 3 June")
      Path("report.html").write_text(page)
    """
    from markupsafe import Markup

    questions = places(records)
    study = str(run.get("study") or "")
    found = find(
        records,
        questions,
        study,
        cells=options.cells,
        primary=options.primary,
        correction=options.correction,
    )
    matrices = [matrix for place in questions if (matrix := _matrix(place, options))]
    methods = list(_methods(questions, study, options))
    examples = _examples(questions) if options.show_examples else []
    problems = [
        f"{row_name(r)}, seed {r.seed}: {r.problem}" for r in records if r.problem is not None
    ]
    galleries = _galleries(options) if options.show_examples else []
    parts = {
        "overview": ("Overview", matrices),
        "table": ("All measures", True),
        "verdicts": ("Verdicts", options.cells),
        "methods": ("Methods", methods),
        "examples": ("Forgotten examples", examples or galleries),
        "problems": ("Without a result", problems),
        "provenance": ("Where this comes from", True),
        "glossary": ("Glossary", True),
    }
    said = {name: value for name, value in run.items() if name != "study"}
    body = template("report.html.j2").render(
        byline=_byline(run, records),
        cards=[
            ("What was asked", "asked", found.asked),
            ("What was found", "found", found.found),
            ("How sure this is", "sure", found.sure),
            ("What this cannot show", "limits", found.not_shown),
        ],
        contents=[(anchor, name) for anchor, (name, there) in parts.items() if there],
        matrices=matrices,
        levels=LEVELS,
        table=Markup(table_section(records, grid=True)),
        verdicts=_verdicts(options.cells),
        primary=options.primary or "",
        methods=methods,
        examples=examples,
        galleries=galleries,
        problems=problems,
        provenance=list(_provenance(run)),
        command=options.command,
        study=study,
        settings=settings_text(said),
        glossary=list(terms().items()),
    )
    return compose_page([body], title=title, lead="")


def report_figures(
    records: Sequence[Record], options: ReportOptions = DEFAULT_OPTIONS
) -> Iterator[Drawn]:
    """Yields the figures of a report, to be written as pictures.

    Args:
      records: of the run.
      options: those of the report.

    Example:
      for drawn in reporting.report_figures(records):
          Path(f"{drawn.name}.svg").write_bytes(reporting.to_picture(drawn.chart))
    """
    questions = places(records)
    for place in questions:
        yield from question_figures(place, options.primary)
    for row in dict.fromkeys(row for place in questions for row in place.methods):
        for place in questions:
            if row in place.finished:
                yield from method_figures(place, row, show_examples=options.show_examples)


def _matrix(place: Place, options: ReportOptions) -> dict[str, object] | None:
    """Returns the overview of a question, or None where there is nothing to compare with."""
    columns, rows = measured(place), place.finished
    if not columns or len(rows) < 2:
        return None
    gaps = {
        name: {metric: difference(mine, rows[RETRAIN], metric) for metric in columns}
        for name, mine in rows.items()
        if name != RETRAIN
    }
    largest = {
        metric: max((abs(row[metric].mean) for row in gaps.values()
                     if np.isfinite(row[metric].mean)), default=0.0)
        for metric in columns
    }  # fmt: skip
    head = [Entry("Method"), *(_head(said) for said in columns.values())]
    goal = [Entry("Retrain", under="its own values", order=None)]
    goal += [_value(level(rows[RETRAIN], metric), said) for metric, said in columns.items()]
    body = [goal]
    for name, row in gaps.items():
        shown = "untouched" if name == ORIGINAL else name
        line = [Entry(shown, under="less Retrain")]
        line += [_gap(row[m], said, largest[m]) for m, said in columns.items()]
        body.append(line)
    return {
        "name": place.name,
        "head": head,
        "body": body,
        "figures": question_figures(place, options.primary),
    }


def _head(said: Meaning) -> Entry:
    return Entry(said.title, under="points of %" if said.share else "", note=said.says)


def _value(found: Interval, said: Meaning) -> Entry:
    if not np.isfinite(found.mean):
        return Entry(MISSING)
    unit = " %" if said.share else ""
    return Entry(f"{_number(found.mean, said)}{unit}", under=_ends(found, said), order=found.mean)


def _gap(found: Interval, said: Meaning, largest: float) -> Entry:
    if not np.isfinite(found.mean):
        return Entry(MISSING)
    ends = _ends(found, said, signed=True) or "one seed"
    kind = f"heat-{shade(found, largest)}"
    return Entry(_number(found.mean, said, signed=True), ends, kind, order=found.mean)


def _ends(found: Interval, said: Meaning, *, signed: bool = False) -> str:
    if not (np.isfinite(found.low) and np.isfinite(found.high)):
        return ""
    low, high = (_number(end, said, signed=signed) for end in (found.low, found.high))
    return f"[{low}, {high}]"


def _number(value: float, said: Meaning, *, signed: bool = False) -> str:
    form = f"{'+' if signed else ''}{'.1f' if said.share else '.3f'}"
    shown = f"{100 * value if said.share else value:{form}}"
    return shown.replace("-", MINUS)


def _methods(
    questions: Sequence[Place], study: str, options: ReportOptions
) -> Iterator[dict[str, object]]:
    from markupsafe import Markup

    settings = _settings(study)
    for row in dict.fromkeys(row for place in questions for row in place.methods):
        answered = []
        for place in questions:
            mine = place.finished.get(row)
            if not mine:
                continue
            few = not shows_sets(place, options.show_examples)
            answered.append(
                {
                    "name": place.name,
                    "verdict": _verdict(options.cells, mine[0]),
                    "facts": Markup(_facts(place, row)),
                    "figures": method_figures(place, row, show_examples=options.show_examples),
                    "withheld": _withheld() if few else "",
                }
            )
        if answered:
            name = row.split(",")[0]
            yield {
                "name": row,
                "anchor": f"method-{slug(row)}".replace("~", "-"),
                "settings": settings.get(name, ""),
                "places": answered,
            }


def _withheld() -> str:
    return (
        f"Fewer than {LEAST_EXAMPLES} examples were to be forgotten: distributions over so few "
        "tell of each, and are left out. --show-examples asks for them."
    )


def _facts(place: Place, row: str) -> str:
    """Returns a method's own values beside those of Retrain and of the untouched network."""
    rows = place.finished
    columns = [name for name in (row, RETRAIN, ORIGINAL) if name in rows]
    heads = {RETRAIN: "Retrain", ORIGINAL: "untouched"}
    known = measured(place) if RETRAIN in rows else {}
    body = [
        [Entry(said.title), *(_value(level(rows[name], metric), said) for name in columns)]
        for metric, said in known.items()
        if metric in _FACTS
    ]
    costs = [float(np.mean([r.cost.example_gradients for r in rows[name]])) for name in columns]
    seconds = [np.mean([r.cost.seconds for r in rows[name]]) for name in columns]
    body.append([Entry("Example-gradients"), *(Entry(_grouped(cost)) for cost in costs)])
    body.append([Entry("Seconds, without compilation"), *(Entry(f"{s:.2f}") for s in seconds)])
    head = [Entry("Measure"), *(Entry(heads.get(name, name)) for name in columns)]
    where = f" on {place.name}" if place.name else ""
    return entry_table(head, body, label=f"{row}{where}, Retrain and the untouched network")


def _grouped(value: float) -> str:
    return f"{value:,.0f}".replace(",", "\N{THIN SPACE}")


def _verdict(cells: Sequence[Cell], record: Record) -> str:
    place = (record.dataset, record.network, record.recipe, record.question, record.defence)
    for cell in cells:
        if cell.where[:5] == place and cell.where[6] == record.budget:
            name = record.method
            if cell.method in (name, f"{name}, {100 * record.identified:g} % identified"):
                return f"{cell.words[0].upper()}{cell.words[1:]}."
    return ""


def _verdicts(cells: Sequence[Cell]) -> Markup | str:
    from markupsafe import Markup

    if not cells:
        return ""
    head, body = verdict_rows(cells)
    entries = [[Entry(text) for text in line] for line in body]
    return Markup(entry_table([Entry(t) for t in head], entries, label="Distances and verdicts"))


def _settings(study: str) -> dict[str, str]:
    """Returns the settings of each method of a study's TOML file, in words."""
    return {
        name: ", ".join(f"{k} = {v}" for k, v in said.items())
        for name, said in table_of(study, "methods").items()
        if isinstance(said, dict)
    }


def _examples(questions: Sequence[Place]) -> list[dict[str, Markup | str]]:
    from markupsafe import Markup

    found: list[dict[str, Markup | str]] = []
    for place in questions:
        names, lines = example_rows(place)
        if not lines:
            continue
        head = [Entry("Example", note="its place in the forget set")]
        head += [Entry(f"{name}, loss") for name in names]
        body = [
            [Entry(str(i), order=float(i)), *(_loss(value) for value in line)]
            for i, line in enumerate(lines)
        ]
        title = f"Losses by example{': ' + place.name if place.name else ''}"
        table = entry_table(head, body, label=title, grid=True)
        found.append({"title": title, "table": Markup(table)})
    return found


def _loss(value: float) -> Entry:
    shown = f"{value:.3g}" if math.isfinite(value) else MISSING
    return Entry(shown, order=value if math.isfinite(value) else None)


def _galleries(options: ReportOptions) -> list[dict[str, object]]:
    return [
        {
            "title": gallery.title,
            "caption": gallery.caption,
            "pictures": [(said, _png(image)) for said, image in gallery.images.items()],
        }
        for gallery in options.galleries
    ]


def _png(image: np.ndarray) -> str:
    from PIL import Image

    pixels = np.round(255 * np.clip(np.squeeze(image), 0, 1)).astype(np.uint8)
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, "png")
    return image_source(content.getvalue(), "png")


def _byline(run: Mapping[str, object], records: Sequence[Record]) -> str:
    said = run.get("provenance")
    known = said if isinstance(said, Mapping) else {}
    parts = [str(known[name])[:10] for name in ("date",) if name in known]
    if "unlearnkit" in known:
        parts.append(f"unlearnkit {known['unlearnkit']}")
    parts.append(f"{len(records)} records")
    return " · ".join(parts)


def _provenance(run: Mapping[str, object]) -> Iterator[tuple[str, str]]:
    said = run.get("provenance")
    for name, value in (said if isinstance(said, Mapping) else {}).items():
        if isinstance(value, Mapping):
            yield name, ", ".join(f"{key} {version}" for key, version in value.items())
        else:
            yield name.replace("_", " "), str(value)
    if isinstance(run.get("seconds"), int | float):
        yield "run", f"{run['seconds']} seconds"
