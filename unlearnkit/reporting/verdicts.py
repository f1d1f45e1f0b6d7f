"""Unlearners against questions: one distance with its interval, and a verdict, in each cell."""

from __future__ import annotations

import math
from collections.abc import Sequence

from unlearnkit.io.text import escaped
from unlearnkit.records import NO_DEFENCE, Cell
from unlearnkit.reporting.escaping import MISSING, markdown_cell, markdown_name, markdown_table

MARKS = {"nearer": "↓", "farther": "↑", "undecided": "", "no result": ""}
"""Of a verdict, behind the distance."""


def verdict_rows(cells: Sequence[Cell], *, decimals: int = 3) -> tuple[list[str], list[list[str]]]:
    """Returns the head and the rows of the table: a row for each method, a column each question.

    A cell reads `distance [low, high] ↓`: the mean distance to Retrain, the interval of the paired
    difference to the untouched network, and whether that is told from 0 after correction: ↓ is
    nearer to Retrain, ↑ farther; no arrow is undecided.

    Args:
      cells: from `studies.significance`.
      decimals: of all numbers.
    """
    # What all cells have in common (their dataset, network and recipe, mostly) is not repeated.
    shown = [i for i in range(5) if len({cell.where[i] for cell in cells}) > 1]
    titles = [_column(cell, shown) for cell in cells]
    columns = list(dict.fromkeys(titles))
    names = list(dict.fromkeys(_row(cell) for cell in cells))
    found = {
        (_row(cell), title): _text(cell, decimals)
        for cell, title in zip(cells, titles, strict=True)
    }
    body = [[name, *(found.get((name, c), MISSING) for c in columns)] for name in names]
    return ["Method", *columns], body


def verdicts_to_markdown(cells: Sequence[Cell], *, decimals: int = 3) -> str:
    """Returns the table of `verdict_rows` in Markdown.

    Args:
      cells: from `studies.significance`.
      decimals: of all numbers.

    Example:
      cells = studies.significance(records, "average_gap")
      print(reporting.verdicts_to_markdown(cells))
    """
    head, body = verdict_rows(cells, decimals=decimals)
    lines = [
        [markdown_cell(title) for title in head],
        ["---", *("---:" for _ in head[1:])],
        *([markdown_name(name), *map(markdown_cell, texts)] for name, *texts in body),
    ]
    return markdown_table(lines)


def verdicts_to_text(cells: Sequence[Cell], *, decimals: int = 3) -> str:
    """Returns a line for each cell: question, method, distance, interval and verdict in words.

    Args:
      cells: from `studies.significance`.
      decimals: of all numbers.
    """
    shown = [i for i in range(5) if len({cell.where[i] for cell in cells}) > 1]
    lines = [("question", "method", "distance", "less the original's", "to Retrain")]
    for cell in cells:
        difference, distance = cell.to_original, MISSING
        if not math.isnan(cell.distance):
            distance = f"{cell.distance:.{decimals}f}"
        ends = ""
        if math.isfinite(difference.low):
            ends = f"[{difference.low:+.{decimals}f}, {difference.high:+.{decimals}f}]"
        place = escaped(_column(cell, shown))
        lines.append((place, escaped(_row(cell)), distance, ends, cell.verdict))
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "".join(
        "  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip()
        + "\n"
        for line in lines
    )


def _column(cell: Cell, shown: Sequence[int]) -> str:
    said = cell.where[:5]
    *place, defence = (said[i] if i in shown else "" for i in range(5))
    if not any(place):
        place = [cell.question]
    if defence not in ("", NO_DEFENCE):
        place.append(f"behind {defence}")
    return ", ".join(part for part in place if part) or "distance"


def _row(cell: Cell) -> str:
    *_, method, budget = cell.where
    return method if budget is None else f"{method}, {100 * budget:g} %"


def _text(cell: Cell, decimals: int) -> str:
    if math.isnan(cell.distance):
        return MISSING
    difference = cell.to_original
    distance = f"{cell.distance:.{decimals}f}"
    if not math.isfinite(difference.low):
        return distance
    ends = f"[{difference.low:+.{decimals}f}, {difference.high:+.{decimals}f}]"
    return f"{distance} {ends} {MARKS[cell.verdict]}".rstrip()
