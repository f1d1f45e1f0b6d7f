"""The records of a study as tidy rows: for pandas, JSON lines and Parquet."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from unlearnkit.io.files import as_json, write_bytes, write_text
from unlearnkit.records import Record

if TYPE_CHECKING:
    import pandas

Each = Literal["metric", "cell"]

COORDINATES = (
    "dataset", "network", "recipe", "question", "defence", "method", "budget", "identified", "seed"
)  # fmt: skip
"""What tells one record from another."""


def to_rows(records: Sequence[Record], *, each: Each = "metric") -> list[dict[str, Any]]:
    """Returns tidy rows, every one with all coordinates.

    Args:
      records: of a study.
      each: `metric` gives a row for each metric of each cell (columns `metric` and `value`), and
        one without for a cell that has no result; `cell` gives a row for each cell, its metrics as
        columns.
    """
    rows = []
    for record in records:
        said: dict[str, Any] = {name: getattr(record, name) for name in COORDINATES}
        said |= {
            "example_gradients": record.cost.example_gradients,
            "seconds": record.cost.seconds,
            "compile_seconds": record.cost.compile_seconds,
            "problem": record.problem,
        }
        if each == "cell":
            rows.append({**said, **record.metrics})
        elif record.metrics:
            rows += [{**said, "metric": n, "value": v} for n, v in record.metrics.items()]
        else:
            rows.append({**said, "metric": None, "value": None})
    return rows


def to_pandas(records: Sequence[Record], *, each: Each = "metric") -> pandas.DataFrame:
    """Returns the rows of `to_rows` as a table of pandas.

    Args:
      records: of a study.
      each: see `to_rows`.

    Raises:
      ImportError: pandas is not installed (`pip install unlearnkit[tables]`).

    Example:
      table = reporting.to_pandas(records)
      table[table.metric == "average_gap"].groupby(["question", "method"]).value.mean()
    """
    import pandas

    return pandas.DataFrame(to_rows(records, each=each))


def write_jsonl(path: str | Path, records: Sequence[Record], *, each: Each = "metric") -> None:
    """Writes the rows of `to_rows` as JSON lines; NaN is null, an infinity its name.

    Args:
      path: of the file, which is replaced at once.
      records: of a study.
      each: see `to_rows`.

    Raises:
      OSError: the file cannot be written.
    """
    lines = [json.dumps(as_json(row), allow_nan=False) for row in to_rows(records, each=each)]
    write_text(Path(path), "".join(f"{line}\n" for line in lines))


def write_parquet(path: str | Path, records: Sequence[Record], *, each: Each = "metric") -> None:
    """Writes the rows of `to_rows` as a Parquet file.

    Args:
      path: of the file, which is replaced at once.
      records: of a study.
      each: see `to_rows`.

    Raises:
      ImportError: pandas or pyarrow is not installed (`pip install unlearnkit[tables]`).
      OSError: the file cannot be written.
    """
    content = to_pandas(records, each=each).to_parquet(index=False)
    write_bytes(Path(path), content)
