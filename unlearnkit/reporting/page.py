"""Self-contained HTML pages by jinja2: sections, tables and pictures, without a network."""

from __future__ import annotations

import base64
import functools
import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from unlearnkit.io.files import as_json
from unlearnkit.records import Record
from unlearnkit.reporting import scripts
from unlearnkit.reporting.escaping import MISSING, one_line, slug
from unlearnkit.reporting.glossary import terms
from unlearnkit.reporting.table import COLUMNS, Column, present, rows
from unlearnkit.reporting.theme import specification

if TYPE_CHECKING:
    from jinja2 import Environment, Template
    from markupsafe import Markup

    from unlearnkit.reporting.theme import AnyChart


class Entry(NamedTuple):
    """A cell of a table.

    Attributes:
      text: in it.
      under: in small letters below.
      kind: a class of the style sheet, or "".
      order: what it is sorted by; None takes the text.
      note: what is said where the pointer is on it; of heads.
    """

    text: str
    under: str = ""
    kind: str = ""
    order: float | None = None
    note: str = ""


def compose_page(sections: Sequence[str], *, title: str, lead: str) -> str:
    """Returns a self-contained page of HTML sections.

    Args:
      sections: HTML, as the functions below make it.
      title: plain text.
      lead: HTML; what a reader must know first.
    """
    from markupsafe import Markup

    text = [Markup(section) for section in sections]
    needed = []
    if any('class="chart"' in section for section in sections):
        needed.append(scripts.charts_script())
    if any(" data-grid" in section for section in sections):
        needed.append(scripts.tables_script())
    if needed:
        needed.append(scripts.page_script())
    return template("page.html.j2").render(
        title=title,
        lead=Markup(lead),
        sections=text,
        style=Markup(scripts.style()),
        scripts=[Markup(script) for script in needed],
        policy=Markup(scripts.policy(needed)),
    )


def settings_section(run: Mapping[str, object]) -> str:
    """Returns settings and provenance as they are."""
    return (
        "<section><h2>Settings and provenance</h2>"
        f'<pre tabindex="0">{_lines(settings_text(run))}</pre></section>'
    )


def settings_text(run: Mapping[str, object]) -> str:
    """Returns settings and provenance as JSON."""
    return json.dumps(as_json(run), indent=2, ensure_ascii=False)


def table_section(
    records: Sequence[Record], columns: Sequence[Column] = COLUMNS, *, grid: bool = False
) -> str:
    """Returns the table of the records, and what its columns mean.

    Args:
      records: of methods and seeds.
      columns: what to show, in this order.
      grid: whether a reader can sort and filter it.
    """
    shown = present(records, columns)
    head = [Entry("Method"), *(Entry(c.title, note=c.explanation) for c in shown)]
    legend = [(column.title, column.explanation) for column in shown]
    body = rows(records, columns)
    if any(MISSING in cell or "missing)" in cell for cells in body for cell in cells[1:]):
        legend.append((MISSING, "missing: not measured, or not a finite number"))
    entries = [[Entry(name), *map(_sortable, cells)] for name, *cells in body]
    said = "".join(f"<dt>{_escaped(name)}</dt><dd>{_escaped(says)}</dd>" for name, says in legend)
    table = entry_table(head, entries, label="All measures by method", grid=grid)
    return f"{table}<details><summary>What the columns mean</summary><dl>{said}</dl></details>"


def html_table(head: Sequence[str], body: Sequence[Sequence[str]], *, prose: bool = False) -> str:
    """Returns a table of plain text; with `prose`, of sentences, which are wrapped.

    Args:
      head: titles of the columns.
      body: rows of as many cells, in plain text.
      prose: whether cells are wrapped, as sentences are.
    """
    return entry_table(
        [Entry(title) for title in head],
        [[Entry(cell) for cell in cells] for cells in body],
        label=", ".join(title for title in head if title) or "table",
        prose=prose,
    )


def entry_table(
    head: Sequence[Entry],
    body: Sequence[Sequence[Entry]],
    *,
    label: str,
    prose: bool = False,
    grid: bool = False,
) -> str:
    """Returns a table whose first column names its rows.

    Args:
      head: of the columns.
      body: rows of as many cells.
      label: what it is, for who does not see it.
      prose: whether cells are wrapped, as sentences are.
      grid: whether a reader can sort and filter it.
    """
    return template("table.html.j2").render(
        head=head, body=body, label=label, prose=prose, grid=grid
    )


def figure_section(title: str, svg: str, caption: str) -> str:
    """Returns one picture under its title; it is an image of its own, with no names in the page.

    Args:
      title: in plain text.
      svg: the picture, as an SVG element.
      caption: in plain text.
    """
    source = image_source(svg.encode(), "svg+xml")
    return (
        f'<section><h2>{_escaped(title)}</h2><figure><img src="{source}" alt="{_escaped(title)}">'
        f"<figcaption>{_escaped(caption)}</figcaption></figure></section>"
    )


def image_source(content: bytes, kind: str) -> str:
    """Returns an image as an address that holds it.

    Args:
      content: of the file.
      kind: `png` or `svg+xml`.
    """
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def template(name: str) -> Template:
    """Returns a template of the package."""
    return _environment().get_template(name)


@functools.cache
def _environment() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    found = Environment(
        loader=PackageLoader("unlearnkit.reporting"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_shown,
    )
    found.filters.update(
        anchor=lambda word: f"word-{slug(word)}".replace("~", "-"),
        meaning=lambda word: terms()[word],
        specification=_inlined,
        lines=_lines,
    )
    return found


def _shown(value: object) -> object:
    """Returns text on one line, without what would move a reader's eye; markup as it is."""
    return one_line(value) if type(value) is str else value


def _inlined(chart: AnyChart) -> Markup:
    """Returns a specification as text that cannot end the element that it stands in."""
    from markupsafe import Markup

    text = json.dumps(as_json(specification(chart)), separators=(",", ":"), allow_nan=False)
    return Markup(text.replace("<", "\\u003c").replace("\u2028", "\\u2028"))


def _lines(text: str) -> Markup:
    from markupsafe import Markup

    return Markup("\n".join(_escaped(line) for line in text.split("\n")))


def _escaped(text: str) -> str:
    from markupsafe import escape

    return str(escape(one_line(text)))


def _sortable(text: str) -> Entry:
    """Returns a cell that is sorted by the number that it begins with."""
    number = text.split("±")[0].split(" (")[0].replace("\N{THIN SPACE}", "")
    try:
        return Entry(text, order=float(number))
    except ValueError:
        return Entry(text)
