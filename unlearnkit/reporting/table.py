"""The table of a run: method × metrics, mean ± standard deviation over the seeds."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from unlearnkit.base import Record


@dataclasses.dataclass(frozen=True)
class Column:
    """One column.

    Attributes:
      title: its head.
      value: what it shows of a record.
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
    return lambda record: scale * record.metrics[name]


COLUMNS = (
    Column("Retain", _metric("accuracy_retain", scale=100), 1, "accuracy on what stays, %"),
    Column("Forget", _metric("accuracy_forget", scale=100), 1, "accuracy on the forget set, %"),
    Column("Test", _metric("accuracy_test", scale=100), 1, "accuracy on unseen data, %"),
    Column(
        "MIA",
        _metric("mia_loss_logistic_accuracy", scale=100),
        1,
        "accuracy of the loss attack telling the forget set from the test set, % (50 is chance)",
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
        "Gradients",
        lambda record: record.cost.example_gradients,
        0,
        "cost in example-gradients",
        spread=False,
    ),
    Column(
        "Time", lambda record: record.cost.seconds, 2, "seconds without compilation", spread=False
    ),
)


BRIEF_COLUMNS = tuple(column for column in COLUMNS if column.brief)


def rows(records: Sequence[Record], columns: Sequence[Column] = COLUMNS) -> list[list[str]]:
    """Returns the cells of each method in order of appearance, its name first.

    A method that diverged on a seed says so; its other seeds are averaged.
    """
    methods = dict.fromkeys(record.method for record in records)
    return [_row(name, [r for r in records if r.method == name], columns) for name in methods]


def to_rich(
    records: Sequence[Record], *, title: str, columns: Sequence[Column] = BRIEF_COLUMNS
) -> Any:
    """Returns the `rich.table.Table` for a terminal, with the columns that matter most."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title, title_justify="left", header_style="bold", box=SIMPLE_HEAD)
    table.add_column("Method", no_wrap=True)
    for column in columns:
        table.add_column(column.title, justify="right", no_wrap=True)
    for name, *cells in rows(records, columns):
        table.add_row(Text(name), *cells)
    return table


def to_markdown(records: Sequence[Record], columns: Sequence[Column] = COLUMNS) -> str:
    """Returns the table in Markdown."""
    head = ["Method", *(column.title for column in columns)]
    rule = ["---", *("---:" for _ in columns)]
    lines = [head, rule, *rows(records, columns)]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines) + "\n"


def to_latex(records: Sequence[Record]) -> str:
    """Returns the table as a LaTeX `tabular` (booktabs)."""
    head = ["Method", *(column.title for column in COLUMNS)]
    body = [head, *rows(records)]
    first, *rest = (" & ".join(_escape(cell) for cell in cells) + r" \\" for cells in body)
    columns = "l" + "r" * len(COLUMNS)
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
    finished = [record for record in records if record.diverged is None]
    if not finished:
        return [name, "diverged", *("" for _ in columns[1:])]
    lost = len(records) - len(finished)
    label = f"{name} ({lost} of {len(records)} diverged)" if lost else name
    return [label, *(_cell(column, finished) for column in columns)]


def _cell(column: Column, records: Sequence[Record]) -> str:
    values = np.array([column.value(record) for record in records])
    mean = f"{values.mean():,.{column.decimals}f}".replace(",", "\N{THIN SPACE}")
    if not column.spread or len(values) < 2:
        return mean
    return f"{mean}±{values.std(ddof=1):.{column.decimals}f}"


_LATEX = {
    "%": r"\%",
    "&": r"\&",
    "_": r"\_",
    "±": r"$\pm$",
    "₁": r"$_1$",
    "\N{THIN SPACE}": r"\,",
}


def _escape(cell: str) -> str:
    return "".join(_LATEX.get(character, character) for character in cell)
