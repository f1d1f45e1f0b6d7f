"""Which column of a table, array of a file or field of an object is meant."""

from __future__ import annotations

from collections.abc import Sequence

POSITIONS = (
    *("index", "indices", "idx", "idxs", "row", "rows", "position", "positions", "forget"),
    *("forget_index", "forget_indices", "forget_idx", "forget_rows", "forget_mask"),
)
"""Usual names of positions of training examples."""
IDS = ("id", "ids", "image_id", "example_id", "sample_id", "name", "file", "filename", "path")
"""Usual names of ids of training examples."""


class UnclearListError(ValueError):
    """Several readings, and no option that says which."""


def choose_column(names: Sequence[str], column: str | None, *, where: str, what: str) -> str:
    """Returns the column that is meant.

    Args:
      names: of the columns.
      column: a name, or a position counted from 0; None takes the only one, or the only one with a
        usual name of positions or, failing these, of ids.
      where: what messages call the file.
      what: what they call a column.

    Raises:
      ValueError: no such column, or several that may be meant.
    """
    if column is not None:
        if column in names:
            return column
        if column.lstrip("-").isdigit() and -len(names) <= int(column) < len(names):
            return names[int(column)]
        raise UnclearListError(
            f"{where} has no {what} {column!r}; it has {', '.join(names) or 'none'}"
        )
    if len(names) == 1:
        return names[0]
    for usual in (POSITIONS, IDS):
        there = [name for name in names if name.lower() in usual]
        if len(there) == 1:
            return there[0]
    raise UnclearListError(
        f"{where} has the {what}s {', '.join(names) or 'of no list'}; say which one lists the "
        f"examples, as file:{where}#{names[0] if names else 'NAME'} (column= in Python)"
    )
