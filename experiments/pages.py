"""A paper's page, and the Markdown beside each result: tables, judged claims, notes, pictures."""

from __future__ import annotations

import dataclasses
import html
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from experiments.claims import Claim, read_toml
from unlearnkit import reporting
from unlearnkit.io.files import write_text
from unlearnkit.reporting import Column, html_table
from unlearnkit.reporting.both_forms import Table
from unlearnkit.reporting.both_forms import plain_table as plain_table
from unlearnkit.reporting.both_forms import records_table as records_table
from unlearnkit.studies import Record

if TYPE_CHECKING:
    from experiments.frame import PaperCommand


def formatted_table(name: str, rows: Sequence[Mapping[str, Any]]) -> Table:
    """Returns a table of rows that are no records, a cell empty where a row lacks what it shows.

    Args:
      name: in columns.toml, where each head has the format of its cells.
      rows: what the formats name.
    """
    formats: dict[str, str] = read_toml(__file__, "columns.toml")[name]

    def cell(row: Mapping[str, Any], form: str) -> str:
        try:
            return form.format(**row)
        except KeyError:
            return ""

    return plain_table(list(formats), [[cell(row, f) for f in formats.values()] for row in rows])


def read_columns(*names: str) -> tuple[Column, ...]:
    """Returns the columns of these names in columns.toml."""
    said = read_toml(__file__, "columns.toml")
    return tuple(column(**told) for name in names for told in said[name])


def column(metric: str, scale: float = 1.0, **told: Any) -> Column:
    """Returns a column of a metric, NaN where it was not measured; or of a part of the cost."""
    part = metric.removeprefix("cost.")

    def value(record: Record) -> float:
        own = part == metric
        measured = record.metrics.get(metric, np.nan) if own else getattr(record.cost, part)
        return float(scale * measured)

    return Column(value=value, **told)


def claims_table(claims: Sequence[Claim]) -> Table:
    """Returns the table of claims with their verdicts."""
    head = ["Claim", "Where", "Ours", "Paper", "Verdict"]
    body = [[c.text, c.where, c.ours, c.paper, c.verdict] for c in claims]
    marked = [[*map(reporting.markdown_cell, cells), f"**{verdict}**"] for *cells, verdict in body]
    return Table(plain_table(head, marked).markdown, html_table(head, body, prose=True))


def front(choices: Mapping[str, Any], names: Mapping[str, str]) -> tuple[list[Table], list[str]]:
    """Returns the table of all hyperparameters that were tried, and what is to be said of them.

    Args:
      choices: `studies.Tuning.as_json`, with the `rule`, the number of `tries` and perhaps a
        `note`; may be empty.
      names: of the methods, as the page calls them.
    """
    if not choices:
        return [], []
    networks = {"the original": choices["original"], "Retrain": choices["reference"]}
    rows = [{"name": name, "values": "", "taken": "", **of} for name, of in networks.items()]
    notes = [
        f"Values were chosen on other examples, by {choices['rule']}, on {choices['tries']} "
        "networks, the worst of which decides what is refused; every method had as many trials.",
        *([choices["note"]] if "note" in choices else []),
    ]
    for name, method in choices["methods"].items():
        for place, trial in enumerate(method["tried"]):
            values = ", ".join(f"{key} {value:g}" for key, value in trial["values"].items())
            lost = f" ({trial['diverged']} diverged)" if trial["diverged"] else ""
            taken = "taken" if place == method["taken"] else ""
            told = {"name": names[name], "values": values + lost, "taken": taken}
            rows.append({**trial, **told})
        if method["taken"] is None:
            notes.append(f"{names[name]} is in no table: the rule refuses all of its values.")
    return [formatted_table("tuning", rows)], notes


def details(caption: str, head: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    """Returns a table that is folded away under its caption."""
    return f"<details><summary>{html.escape(caption)}</summary>{html_table(head, body)}</details>"


@dataclasses.dataclass(frozen=True)
class Section:
    """What is said of one result.

    Attributes:
      title: in plain text.
      tables: in the order in which they are shown.
      claims: judged from the result.
      notes: in plain text.
      pictures: as SVG text by name; "" is none, and None is what a run has drawn, if it has.
      more: further HTML.
    """

    title: str
    tables: Sequence[Table] = ()
    claims: Sequence[Claim] = ()
    notes: Sequence[str] = ()
    pictures: Mapping[str, str | None] = dataclasses.field(default_factory=dict)
    more: Sequence[str] = ()

    def markdown(self) -> str:
        """Returns tables, claims and notes."""
        tables, notes = [table.markdown for table in self.tables], [f"{n}\n" for n in self.notes]
        return "\n".join([*tables, claims_table(self.claims).markdown, *notes])

    def html(self, result: Path, captions: Mapping[str, str]) -> list[str]:
        """Returns all of it; what was drawn is written beside the result."""
        notes = "".join(f"<li>{html.escape(note)}</li>" for note in self.notes)
        parts = [f"<h2>{html.escape(self.title)}</h2>", *(table.html for table in self.tables)]
        parts += [claims_table(self.claims).html, f"<ul>{notes}</ul>" if notes else "", *self.more]
        for name, svg in self.pictures.items():
            draw(result, name, svg)
            path = picture_path(result, name)
            if svg != "" and path.is_file():
                caption = captions[name.partition("-")[0]]
                drawn = path.read_text(encoding="utf-8")
                parts.append(reporting.figure_section(f"{self.title}: {name}", drawn, caption))
        return parts


def picture_path(result: Path, name: str) -> Path:
    """Returns where a picture of a result is drawn; git ignores that folder."""
    return result.parent / "pictures" / f"{result.stem}-{name}.svg"


def draw(result: Path, name: str, svg: str | None) -> None:
    """Writes a picture of a result, if there is one."""
    if svg:
        path = picture_path(result, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, svg)


def write_page(
    command: PaperCommand,
    sections: Mapping[str, Section],
    runs: Mapping[str, Any],
    more: Sequence[str] = (),
) -> Path:
    """Writes the page of a scale, and the Markdown and the pictures of each result.

    Args:
      command: whose results they are; what the page says is in pages.toml.
      sections: by the name of the result.
      runs: settings and provenance, as they are shown.
      more: further HTML, after the sections.

    Raises:
      FileNotFoundError: there are no results.
    """
    if not runs:
        raise FileNotFoundError(f"no result of scale {command.scale} in {command.folder}")
    texts = read_toml(__file__, "pages.toml")
    said = texts[command.paper]
    body: list[str] = []
    for name, section in sections.items():
        path = command.path(name)
        write_text(path.with_suffix(".md"), section.markdown())
        body += section.html(path, said["captions"])
    page = command.folder / f"{command.scale}.html"
    body += [*more, reporting.settings_section(runs)]
    title = f"{said['title']}, scale {command.scale}"
    lead = f"{said['lead']} {texts['together']}"
    write_text(page, reporting.compose_page(body, title=title, lead=lead))
    return page
