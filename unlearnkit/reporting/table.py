"""The table of a run: method × metrics, mean ± standard deviation over the seeds."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from unlearnkit.records import Record, row_name, shared_coordinates
from unlearnkit.reporting.escaping import (
    MISSING,
    latex_cell,
    markdown_cell,
    markdown_name,
    markdown_table,
    one_line,
)


@dataclasses.dataclass(frozen=True)
class Column:
    """One column.

    Attributes:
      title: its head.
      value: what it shows of a record; NaN where the record lacks it.
      decimals: digits after the point.
      explanation: what it means, for the page's legend.
      spread: whether the standard deviation over the seeds is shown.
      brief: whether the terminal's table, which must be narrow, has it too.
    """

    title: str
    value: Callable[[Record], float]
    decimals: int
    explanation: str
    spread: bool = True
    brief: bool = True


def _metric(name: str, *, scale: float = 1.0) -> Callable[[Record], float]:
    return lambda record: scale * record.metrics.get(name, math.nan)


def _mia_reach(record: Record) -> float:
    """Returns half the 95 % interval of the loss attack's accuracy over the examples."""
    name = "mia_loss_logistic_accuracy"
    low, high = (record.metrics.get(f"{name}_{end}", math.nan) for end in ("low", "high"))
    return (high - low) / 2


COLUMNS = (
    Column("Retain", _metric("accuracy_retain", scale=100), 1, "accuracy on the retain set, %"),
    Column("Forget", _metric("accuracy_forget", scale=100), 1, "accuracy on the forget set, %"),
    Column("Test", _metric("accuracy_test", scale=100), 1, "accuracy on unseen data, %"),
    Column(
        "MIA",
        _metric("mia_loss_logistic_accuracy", scale=100),
        1,
        "accuracy of the loss attack telling the forget set from the test set, % (50 is chance)",
    ),
    Column(
        "MIA ±",
        lambda record: 100 * _mia_reach(record),
        1,
        "half the 95 % interval of MIA over the examples, in one run, points",
        spread=False,
        brief=False,
    ),
    Column(
        "MIA splits",
        _metric("mia_loss_logistic_accuracy_split_std", scale=100),
        1,
        "standard deviation of MIA over the attack's own random splits, points",
        spread=False,
        brief=False,
    ),
    Column(
        "AUC*",
        _metric("mia_loss_logistic_auc_max", scale=100),
        1,
        "the larger of AUC and 1 - AUC of the same attack, %",
        brief=False,
    ),
    Column("KS", _metric("ks_statistic"), 3, "Kolmogorov-Smirnov statistic, forget against test"),
    Column(
        "W₁",
        _metric("wasserstein"),
        3,
        "Wasserstein distance of these losses, nats",
        brief=False,
    ),
    Column(
        "L₁",
        _metric("activation_distance_forget"),
        3,
        "mean L1 distance of the forget set's predicted probabilities to the reference's",
    ),
    Column(
        "Gap",
        _metric("average_gap", scale=100),
        2,
        "distance to Retrain: mean |difference| of Retain, Forget, Test and MIA to the reference, "
        "points",
    ),
    Column(
        "MIA-eff.",
        _metric("optml_mia_efficacy", scale=100),
        1,
        "share of the forget set that an attack trained on retain against test calls non-member, % "
        "(MIA-efficacy of published tables; their UA is 100 - Forget, RA is Retain, TA is Test)",
        brief=False,
    ),
    Column(
        "Avg. gap",
        _metric("optml_gap", scale=100),
        2,
        "the average gap of published tables: mean |difference| of UA, RA, TA and MIA-efficacy to "
        "the reference, points",
    ),
    Column(
        "Gradients",
        lambda record: record.cost.example_gradients,
        0,
        "cost in example-gradients",
        spread=False,
    ),
    Column(
        "Time", lambda record: record.cost.seconds, 2, "seconds without compilation", spread=False
    ),
    Column(
        "Compile",
        lambda record: record.cost.compile_seconds,
        2,
        "seconds of tracing and compilation, which come once and are kept",
        spread=False,
        brief=False,
    ),
)


BRIEF_COLUMNS = tuple(column for column in COLUMNS if column.brief)


def present(records: Sequence[Record], columns: Sequence[Column] = COLUMNS) -> list[Column]:
    """Returns the columns that some finished record can fill, all where none is finished."""
    finished = [record for record in records if record.finished]
    filled = [c for c in columns if any(not math.isnan(c.value(record)) for record in finished)]
    return filled if finished else list(columns)


def rows(records: Sequence[Record], columns: Sequence[Column] = COLUMNS) -> list[list[str]]:
    """Returns the cells of each method in order of appearance, its name first.

    Records of several questions, defences or budgets have a row for each, which names them.

    A method that diverged on a seed says so; its other seeds are averaged. So are the values that
    are finite; a cell says how many are missing, and is a dash where all are. The columns are those
    of `present`.
    """
    columns = present(records, columns)
    named: dict[str, list[Record]] = {}
    hidden = shared_coordinates(records)
    for record in records:
        named.setdefault(row_name(record, hidden=hidden), []).append(record)
    return [_row(name, mine, columns) for name, mine in named.items()]


_FIRST_TO_GO = ("Time", "L₁", "KS", "Avg. gap", "MIA", "Gradients", "Retain")
"""Titles of columns that a terminal's table does without, in this order, where it is too wide."""


def to_rich(
    records: Sequence[Record],
    *,
    title: str,
    columns: Sequence[Column] = BRIEF_COLUMNS,
    width: int | None = None,
) -> Any:
    """Returns the `rich.table.Table` for a terminal, with the columns that matter most.

    Args:
      records: of methods and seeds.
      title: above the table.
      columns: what to show, in this order.
      width: of the terminal; columns are left out until the rest fits. None shows them all.
    """
    from rich.box import SIMPLE_HEAD
    from rich.markup import escape
    from rich.table import Table
    from rich.text import Text

    table = Table(
        title=escape(one_line(title)),
        title_justify="left",
        header_style="bold",
        box=SIMPLE_HEAD,
        collapse_padding=True,
        pad_edge=False,
    )
    table.add_column("Method", no_wrap=True)
    columns = present(records, columns)
    for dropped in _FIRST_TO_GO:
        if width is None or _width(records, columns) <= width:
            break
        columns = [column for column in columns if column.title != dropped]
    for column in columns:
        table.add_column(column.title, justify="right", no_wrap=True)
    for name, *cells in rows(records, columns):
        table.add_row(Text(one_line(name)), *cells)
    return table


def _width(records: Sequence[Record], columns: Sequence[Column]) -> int:
    """Returns how wide the terminal's table of these columns is, at most."""
    titles = ["Method", *(column.title for column in columns)]
    lines = [titles, *rows(records, columns)]
    return sum(max(map(len, cells)) + 2 for cells in zip(*lines, strict=True))


def to_markdown(records: Sequence[Record], columns: Sequence[Column] = COLUMNS) -> str:
    """Returns the table in Markdown."""
    shown = present(records, columns)
    head = ["Method", *(markdown_cell(column.title) for column in shown)]
    rule = ["---", *("---:" for _ in shown)]
    body = [
        [markdown_name(name), *map(markdown_cell, cells)] for name, *cells in rows(records, columns)
    ]
    return markdown_table([head, rule, *body])


def to_latex(records: Sequence[Record]) -> str:
    """Returns the table as a LaTeX `tabular` (booktabs)."""
    shown = present(records)
    head = ["Method", *(column.title for column in shown)]
    body = [head, *rows(records)]
    first, *rest = (" & ".join(latex_cell(cell) for cell in cells) + r" \\" for cells in body)
    columns = "l" + "r" * len(shown)
    return "\n".join(
        [
            rf"\begin{{tabular}}{{{columns}}}",
            r"\toprule",
            first,
            r"\midrule",
            *rest,
            r"\bottomrule",
            r"\end{tabular}",
            "",
        ]
    )


def _row(name: str, records: Sequence[Record], columns: Sequence[Column]) -> list[str]:
    finished = [record for record in records if record.finished]
    if not finished:
        return [name, why_lost(records), *("" for _ in columns[1:])]
    lost = len(records) - len(finished)
    label = f"{name} ({lost} of {len(records)} {why_lost(records)})" if lost else name
    return [label, *(_cell(column, finished) for column in columns)]


def why_lost(records: Sequence[Record]) -> str:
    """Returns in a word why some of the records have no result."""
    if any(record.failed is not None for record in records):
        return "failed"
    return "diverged" if any(r.diverged is not None for r in records) else "over budget"


def _cell(column: Column, records: Sequence[Record]) -> str:
    values = np.array([column.value(record) for record in records], float)
    finite = values[np.isfinite(values)]
    if not len(finite):
        return MISSING
    shown = f"{finite.mean():,.{column.decimals}f}".replace(",", "\N{THIN SPACE}")
    if column.spread and len(finite) > 1:
        shown += f"±{finite.std(ddof=1):.{column.decimals}f}"
    missing = len(values) - len(finite)
    return f"{shown} ({missing} missing)" if missing else shown
