"""A paper's page, and the Markdown beside each result: tables, judged claims, notes, pictures."""

from __future__ import annotations

import dataclasses
import html
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from experiments.charts import Picture
from experiments.claims import Claim
from experiments.frame import PaperCommand
from unlearnkit.io.files import write_text
from unlearnkit.reporting import (
    Column,
    compose_page,
    figure_section,
    html_table,
    markdown_cell,
    settings_section,
    table_section,
    to_markdown,
)
from unlearnkit.studies import Record


class Table(NamedTuple):
    """A table in both forms."""

    markdown: str
    html: str


def plain_table(head: Sequence[str], body: Sequence[Sequence[str]]) -> Table:
    """Returns a table of text."""
    lines = [head, ["---"] * len(head), *body]
    markdown = "\n".join(f"| {' | '.join(cells)} |" for cells in lines) + "\n"
    return Table(markdown, html_table(head, body))


def records_table(records: Sequence[Record], columns: Sequence[Column]) -> Table:
    """Returns the table of records, a row per method."""
    return Table(to_markdown(records, columns), table_section(records, columns))


def read_columns(*names: str) -> tuple[Column, ...]:
    """Returns the columns of these names in columns.toml."""
    said = tomllib.loads(Path(__file__).with_name("columns.toml").read_text(encoding="utf-8"))
    return tuple(column(**told) for name in names for told in said[name])


def column(metric: str, scale: float = 1.0, **told: Any) -> Column:
    """Returns a column of a metric, or of a part of the cost: `cost.seconds`."""
    part = metric.removeprefix("cost.")

    def value(record: Record) -> float:
        measured = record.metrics[metric] if part == metric else getattr(record.cost, part)
        return float(scale * measured)

    return Column(value=value, **told)


def claims_markdown(claims: Sequence[Claim]) -> str:
    """Returns the claims with their verdicts as a Markdown table."""
    head = ["Claim", "Where", "Ours", "Paper", "Verdict"]
    body = [(c.text, c.where, c.ours, c.paper, f"**{c.verdict}**") for c in claims]
    return plain_table(head, [[markdown_cell(cell) for cell in cells] for cells in body]).markdown


def claims_table(claims: Sequence[Claim]) -> str:
    """Returns the claims with their verdicts as an HTML table."""
    head = ["Claim of the paper", "Verdict", "Ours", "The paper's", "Where"]
    body = [[c.text, c.verdict, c.ours, c.paper, c.where] for c in claims]
    return html_table(head, body, prose=True)


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
      pictures: by name; None is none, and one without SVG is what a run has drawn, if it has.
      more: further HTML.
    """

    title: str
    tables: Sequence[Table] = ()
    claims: Sequence[Claim] = ()
    notes: Sequence[str] = ()
    pictures: Mapping[str, Picture | None] = dataclasses.field(default_factory=dict)
    more: Sequence[str] = ()

    def markdown(self) -> str:
        """Returns tables, claims and notes."""
        tables, notes = [table.markdown for table in self.tables], [f"{n}\n" for n in self.notes]
        return "\n".join([*tables, claims_markdown(self.claims), *notes])

    def html(self, result: Path) -> list[str]:
        """Returns all of it; what was drawn is written beside the result."""
        notes = "".join(f"<li>{html.escape(note)}</li>" for note in self.notes)
        parts = [f"<h2>{html.escape(self.title)}</h2>", *(table.html for table in self.tables)]
        parts += [claims_table(self.claims), f"<ul>{notes}</ul>" if notes else "", *self.more]
        for name, picture in self.pictures.items():
            if picture is None:
                continue
            draw(result, name, picture)
            path = picture_path(result, name)
            if path.is_file():
                svg = path.read_text(encoding="utf-8")
                parts.append(figure_section(f"{self.title}: {name}", svg, picture.caption))
        return parts


def picture_path(result: Path, name: str) -> Path:
    """Returns where a picture of a result is drawn; git ignores that folder."""
    return result.parent / "pictures" / f"{result.stem}-{name}.svg"


def draw(result: Path, name: str, picture: Picture) -> None:
    """Writes a picture of a result, if it is drawn."""
    if picture.svg is not None:
        path = picture_path(result, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, picture.svg)


def write_page(
    command: PaperCommand,
    sections: Mapping[str, Section],
    runs: Mapping[str, Any],
    *,
    title: str,
    lead: str,
    more: Sequence[str] = (),
) -> Path:
    """Writes the page of a scale, and the Markdown and the pictures of each result.

    Args:
      command: whose results they are.
      sections: by the name of the result.
      runs: settings and provenance, as they are shown.
      title: of the page.
      lead: what a reader must know first, in HTML.
      more: further HTML, after the sections.

    Raises:
      FileNotFoundError: there are no results.
    """
    if not runs:
        raise FileNotFoundError(f"no result of scale {command.scale} in {command.folder}")
    body: list[str] = []
    for name, section in sections.items():
        path = command.path(name)
        write_text(path.with_suffix(".md"), section.markdown())
        body += section.html(path)
    page = command.folder / f"{command.scale}.html"
    body += [*more, settings_section(runs)]
    write_text(page, compose_page(body, title=f"{title}, scale {command.scale}", lead=lead))
    return page
