"""Tables as Markdown and as HTML, for a page and for the text beside it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from unlearnkit.records import Record
from unlearnkit.reporting.escaping import markdown_table
from unlearnkit.reporting.page import html_table, table_section
from unlearnkit.reporting.table import Column, to_markdown


class Table(NamedTuple):
    """A table in both forms."""

    markdown: str
    html: str


def plain_table(head: Sequence[str], body: Sequence[Sequence[str]]) -> Table:
    """Returns a table of text.

    Args:
      head: titles of the columns.
      body: rows of as many cells; in Markdown they stand as they are.
    """
    return Table(markdown_table([head, ["---"] * len(head), *body]), html_table(head, body))


def records_table(records: Sequence[Record], columns: Sequence[Column]) -> Table:
    """Returns the table of records, a row per method.

    Args:
      records: of a result.
      columns: those that are shown where a record has them.
    """
    return Table(to_markdown(records, columns), table_section(records, columns))
