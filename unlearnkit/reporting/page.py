"""One self-contained HTML page of a run."""

from __future__ import annotations

import html
import json
from collections.abc import Mapping, Sequence
from typing import Any

from unlearnkit.io.files import as_json
from unlearnkit.records import Record, row_name
from unlearnkit.reporting.escaping import MISSING, one_line
from unlearnkit.reporting.figures import gap_against_cost, loss_histograms, roc_curves
from unlearnkit.reporting.table import COLUMNS, Column, present, rows

_STYLE = """
:root { color-scheme: light; }
body { font: 15px/1.5 system-ui, sans-serif; color: #1c1917; background: #fff;
       max-width: 84rem; margin: 2rem auto; padding: 0 1.25rem; }
h1 { font-size: 1.5rem; margin-bottom: .2rem; }
h2 { font-size: 1.1rem; margin-top: 2.2rem; border-bottom: 1px solid #e7e5e4; }
p.lead { color: #57534e; margin-top: 0; max-width: 60rem; }
.scroll { overflow-x: auto; margin-block: 1rem; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .6rem; font-size: .92rem; text-align: right; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; }
table.prose :is(th, td) { text-align: left; white-space: normal; vertical-align: top; }
thead th { border-bottom: 2px solid #1c1917; }
tbody tr:nth-child(even) { background: #fafaf9; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .15rem 1rem; font-size: .9rem; }
dt { font-weight: 600; } dd { margin: 0; color: #57534e; }
figure { margin: 1rem 0; } figure svg { max-width: 100%; height: auto; }
figcaption { color: #57534e; font-size: .9rem; max-width: 60rem; }
pre { background: #fafaf9; padding: 1rem; overflow-x: auto; font-size: .8rem; }
"""


def report_page(records: Sequence[Record], run: Mapping[str, Any], *, title: str) -> str:
    """Returns the page: table, legend, figures, settings and provenance; it needs no network.

    Args:
      records: of the run.
      run: settings and provenance, shown as they are.
      title: of the page.
    """
    finished = [record for record in records if record.finished]
    drawn = _drawable(finished)
    sections = [table_section(records), _problems(records)]
    if drawn:
        sections += [
            figure_section(
                "Losses",
                loss_histograms(drawn),
                "Cross-entropy of the forget set against unseen data. After good unlearning both "
                "lie as they do for a network that never saw the forget set: on each other where "
                "it is a random part of the data, far apart where it is a whole class.",
            ),
            figure_section(
                "Membership inference",
                roc_curves(drawn),
                "How well the loss tells the forget set from unseen data. The dashed line is "
                "chance; a curve below it is as telling as one above.",
            ),
            figure_section(
                "Distance to Retrain and cost",
                gap_against_cost(drawn),
                "Mean over the seeds with standard deviation. Retrain's own distance, between two "
                "independent retrainings, is the floor.",
            ),
        ]
    lead = (
        "Mean ± standard deviation over the seeds. Every distance to Retrain is to "
        "a reference network retrained without the forget set; the row <em>retrain</em> is a "
        "second retraining with another key."
    )
    return compose_page([*sections, settings_section(run)], title=title, lead=lead)


def _drawable(records: Sequence[Record]) -> list[Record]:
    """Returns the records with all that is drawn; none where they answer several questions."""
    if len({row_name(record._replace(method="")) for record in records}) > 1:
        return []
    curves = {"loss_forget", "loss_test", "mia_loss_logistic_fpr"}
    return [r for r in records if curves <= r.curves.keys() and "average_gap" in r.metrics]


def compose_page(sections: Sequence[str], *, title: str, lead: str) -> str:
    """Returns a self-contained page of HTML sections.

    Args:
      sections: HTML, as the functions below make it.
      title: plain text.
      lead: HTML; what a reader must know first.
    """
    heading = _line(title)
    return (
        "<!doctype html>\n"
        f'<html lang="en"><head><meta charset="utf-8"><title>{heading}</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<style>{_STYLE}</style></head><body><h1>{heading}</h1>"
        f'<p class="lead">{lead}</p>' + "\n".join(sections) + "</body></html>\n"
    )


def settings_section(run: Mapping[str, Any]) -> str:
    """Returns settings and provenance as they are."""
    settings = _text(json.dumps(as_json(run), indent=2, ensure_ascii=False))
    return f"<h2>Settings and provenance</h2><pre>{settings}</pre>"


def table_section(records: Sequence[Record], columns: Sequence[Column] = COLUMNS) -> str:
    """Returns the table of the records, and what its columns mean."""
    shown = present(records, columns)
    titles = ["Method", *(column.title for column in shown)]
    legend = "".join(
        f"<dt>{_line(column.title)}</dt><dd>{_line(column.explanation)}</dd>" for column in shown
    )
    body = rows(records, columns)
    if any(MISSING in cell or "missing)" in cell for cells in body for cell in cells[1:]):
        legend += f"<dt>{MISSING}</dt><dd>missing: not measured, or not a finite number</dd>"
    return f"{html_table(titles, body)}<dl>{legend}</dl>"


def html_table(head: Sequence[str], body: Sequence[Sequence[str]], *, prose: bool = False) -> str:
    """Returns a table of plain text; with `prose`, of sentences, which are wrapped.

    Args:
      head: titles of the columns.
      body: rows of as many cells, in plain text.
      prose: whether cells are wrapped, as sentences are.
    """
    kind = ' class="prose"' if prose else ""
    titles = "".join(f"<th>{_line(title)}</th>" for title in head)
    lines = "".join(
        "<tr>" + "".join(f"<td>{_line(cell)}</td>" for cell in cells) + "</tr>" for cells in body
    )
    return (
        f'<div class="scroll"><table{kind}><thead><tr>{titles}</tr></thead>'
        f"<tbody>{lines}</tbody></table></div>"
    )


def _problems(records: Sequence[Record]) -> str:
    lines = "".join(
        f"<li>{_line(row_name(r))}, seed {r.seed}: {_line(r.problem)}</li>"
        for r in records
        if r.problem is not None
    )
    return f"<h2>Without a result</h2><ul>{lines}</ul>" if lines else ""


def figure_section(title: str, svg: str, caption: str) -> str:
    """Returns one figure under its title, the caption in plain text.

    Args:
      title: in plain text.
      svg: the picture, as an SVG element.
      caption: in plain text.
    """
    return f"<h2>{_line(title)}</h2><figure>{svg}<figcaption>{_line(caption)}</figcaption></figure>"


def _line(text: str) -> str:
    return html.escape(one_line(text))


def _text(text: str) -> str:
    return "\n".join(_line(line) for line in text.split("\n"))
