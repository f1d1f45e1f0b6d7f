"""Lists of examples in text: one per line, in one line, in a column of a table, or as printed."""

from __future__ import annotations

import bz2
import contextlib
import csv
import gzip
import io
import json
import lzma
import re
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

from unlearnkit.data.columns import IDS, POSITIONS, UnclearListError, choose_column

RUN = re.compile(r"(\d+)(?: ?(?:-|\u2013|\.\.) ?(\d+))?")
"""A position, or a run of them."""
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
PACKED: Mapping[str, Callable[[Path], io.BufferedIOBase]] = {
    ".gz": gzip.GzipFile,
    ".bz2": bz2.BZ2File,
    ".xz": lzma.LZMAFile,
}
"""What opens a packed file, by its ending."""
_MOST_BYTES = 1 << 26
_TRUTH = {"true": True, "false": False}
_WORDS = _TRUTH | {"yes": True, "no": False}
_Entries: TypeAlias = Sequence[int] | Sequence[float] | Sequence[bool] | Sequence[str]
_COMMENT = re.compile(r"(^|\s)#.*|^%.*")
_PRINTED = re.compile(r"[\w.]*\(?[\[({]([^\[\](){}]*)[\])}](?:, *\w+=[^\n]*)?\)?")
"""A list, a tuple, a set, an array or a tensor as Python prints it."""
_CELL = re.compile(r"'[^']*'|\"[^\"]*\"|[^\s,]+")


def read_text(path: Path, column: str | None) -> object:
    """Returns the entries of a text.

    Args:
      path: of the text, maybe packed by gzip.
      column: see `lists.read_list`.

    Raises:
      ValueError: see `lists.read_list`.
    """
    text = decode(path).strip()
    if printed := _PRINTED.fullmatch(text):
        with contextlib.suppress(ValueError):
            return json.loads(text)
        return _values([cell.strip("'\"") for cell in re.findall(_CELL, printed[1])], path)
    rows = _cells(path)
    if not rows:
        return []
    width = max(map(len, rows))
    first = rows[0]
    named = [cell.lower() for cell in first]
    header = (
        (len(rows) > 1 and not any(map(_is_entry, first)) and any(map(_is_entry, rows[1])))
        or any(name in (*POSITIONS, *IDS) for name in named)
        or (column is not None and not _is_value(column) and column in first)
    )
    if header:
        names = [cell or f"unnamed {i}" for i, cell in enumerate(first)]
        chosen = names.index(choose_column(names, column, where=str(path), what="column"))
        return _column(rows[1:], chosen, path)
    wrapped = len({len(row) for row in rows}) > 1 or len(rows) == 1
    if column is not None and column != "all":
        if not (column.lstrip("-").isdigit() and -width <= int(column) < width):
            raise UnclearListError(
                f"{path} has no column {column!r}: it has no header and {width} columns; name one "
                f"by its position, 0 … {width - 1}"
            )
        return _column(rows, int(column), path)
    if width == 1 or wrapped or column == "all":
        return _values([cell for row in rows for cell in row], path)
    raise UnclearListError(
        f"{path} has {len(rows)} lines of {width} entries: a table, of which one column lists the "
        f"examples, or one list in lines; say which, as file:{path}#0 for the first column or "
        f"file:{path}#all for a list (column= in Python)"
    )


def _cells(path: Path) -> list[list[str]]:
    """Returns the entries of a text by line."""
    lines = [_COMMENT.sub("", line).strip() for line in decode(path).splitlines()]
    lines = [line for line in lines if line]
    if lines and all(line.startswith("- ") for line in lines):  # a list in YAML
        lines = [line[2:] for line in lines]
    if lines and re.fullmatch("sep=.", lines[0], re.IGNORECASE):  # Excel's own line
        del lines[0]
    if not lines:
        return []
    separator = next((mark for mark in ",;\t|" if mark in lines[0]), None)
    if separator is None:
        rows = csv.reader((" ".join(line.split()) for line in lines), delimiter=" ")
        return list(rows)
    ends = all(line.endswith(separator) for line in lines[:-1])
    found = []
    for row in csv.reader(lines, delimiter=separator, skipinitialspace=True):
        cells = [cell.strip() for cell in row]
        found.append(cells[:-1] if ends and cells and not cells[-1] else cells)
    if ends and len(found) > 1:  # lines that end in a comma are one list
        return [[cell for row in found for cell in row]]
    return found


def _column(rows: Sequence[Sequence[str]], place: int, path: Path) -> _Entries:
    short = next((i for i, row in enumerate(rows) if not -len(row) <= place < len(row)), None)
    if short is not None:
        raise ValueError(f"row {short + 1} of {path} has {len(rows[short])} entries, too few")
    return _values([row[place] for row in rows], path)


def _values(cells: Sequence[str], path: Path) -> _Entries:
    """Returns numbers or truth values where all cells are such, else the texts."""
    words = [_WORDS.get(cell.lower()) for cell in cells]
    truths = [word for word in words if word is not None]
    if len(truths) == len(cells):
        return truths
    if not all(map(_is_value, cells)):
        empty = next((i for i, cell in enumerate(cells) if not cell), None)
        if empty is not None:
            raise ValueError(f"entry {empty + 1} of {path} is empty")
        numbers = sum(map(_is_value, cells))
        if numbers > len(cells) / 2 and not all(map(RUN.fullmatch, cells)):
            wrong = next((i, cell) for i, cell in enumerate(cells) if not _is_value(cell))
            raise ValueError(f"entry {wrong[0] + 1} of {path} must be an integer, got {wrong[1]!r}")
        return list(cells)
    if truths:
        raise ValueError(f"{path} mixes numbers with true and false")
    whole = all(re.fullmatch(r"[+-]?\d+", cell) for cell in cells)
    return [int(cell) if whole else float(cell) for cell in cells]


def _is_value(cell: str) -> bool:
    return bool(_NUMBER.fullmatch(cell)) or cell.lower() in _TRUTH


def _is_entry(cell: str) -> bool:
    return _is_value(cell) or bool(RUN.fullmatch(cell))


def decode(path: Path) -> str:
    """Returns the text of a file, in UTF-8 or UTF-16; one that is packed is unpacked.

    Raises:
      ValueError: another encoding, a damaged package, or one that holds more than 64 MiB.
    """
    content = unpacked(path) if path.suffix.lower() in PACKED else path.read_bytes()
    utf16 = content.startswith((b"\xff\xfe", b"\xfe\xff"))
    try:
        return content.decode("utf-16" if utf16 else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not text in UTF-8 ({error}); save it as UTF-8") from error


def unpacked(path: Path) -> bytes:
    """Returns what a file packed by gzip, bzip2 or xz holds.

    Raises:
      ValueError: a damaged package, or one that holds more than 64 MiB.
    """
    try:
        with PACKED[path.suffix.lower()](path) as file:
            content = file.read(_MOST_BYTES + 1)
    except (OSError, EOFError, zlib.error, lzma.LZMAError) as error:
        raise ValueError(f"cannot unpack {path}: {error}") from error
    if len(content) > _MOST_BYTES:
        raise ValueError(f"{path} holds more than {_MOST_BYTES} bytes: no list of examples")
    return content
