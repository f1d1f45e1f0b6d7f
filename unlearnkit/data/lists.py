"""Lists of examples as files hold them: arrays, JSON, text, tables, masks, and ids."""

from __future__ import annotations

import contextlib
import csv
import gzip
import json
import re
import zipfile
import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np

_UNREADABLE = (OSError, EOFError, ValueError, RuntimeError, zipfile.BadZipFile, zlib.error)
_POSITIONS = ("index", "indices", "idx", "row", "rows", "position", "forget", "forget_index")
_IDS = ("id", "ids", "image_id", "example_id", "sample_id", "name", "file", "filename", "path")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
_MOST_BYTES = 1 << 26
_LONGEST = 1 << 26
_TRUTH = {"true": True, "false": False}
_Entries: TypeAlias = Sequence[int] | Sequence[float] | Sequence[bool] | Sequence[str]
_RUN = re.compile(r"(\d+)(?: ?(?:-|\u2013|\.\.) ?(\d+))?")
_COMMENT = re.compile(r"(^|\s)#.*")


def read_list(path: Path, column: str | None = None) -> np.ndarray:
    """Returns the entries of a list: [m] integers, booleans or, where it holds ids, texts.

    Endings count in upper case too. Numbers may be written as floats where they are whole; arrays
    may be [m, 1]. Text and JSON may be packed by
    gzip. Text is split at commas, semicolons, tabs or spaces; a byte order mark, blank
    lines and what follows a # are passed over. Its first line is a header where it names columns
    of numbers, or has one of the usual names of a column.

    Args:
      path: `.npy`, `.npz` (the array `forget`, or its only one), `.json` (a list, a list of
        objects, or an object that holds a list), `.jsonl`, or text: `.txt`, `.csv`, `.tsv`, `.lst`.
      column: the name of a column, array or field; or its position, from 0; or `all` for a table
        whose every number is an entry. None takes the only one, or the only one with a usual name.

    Raises:
      FileNotFoundError: no such file.
      ValueError: a damaged file or another format; several columns of which none is named; numbers
        that are not whole.
    """
    if not path.is_file():
        raise FileNotFoundError(f"there is no index file {path}")
    packed = path.suffix.lower() == ".gz"
    suffix = (path.with_suffix("") if packed else path).suffix.lower()
    if packed and suffix in (".npy", ".npz"):
        suffix = ".gz"
    if suffix in (".npy", ".npz"):
        return _whole(_flat(_read_arrays(path, suffix, column), path), path)
    if suffix in (".json", ".jsonl"):
        return _whole(_flat(_from_json(_read_json(path, suffix), path, column), path), path)
    if suffix in (".txt", ".csv", ".tsv", ".lst", ".list", ".dat", ""):
        return _whole(_flat(_read_text(path, column), path), path)
    raise ValueError(
        f"an index file must end in .npy, .npz, .json, .csv or .txt, got {path}"
        + _REMEDIES.get(suffix, "")
    )


def read_positions(path: Path, column: str | None = None) -> np.ndarray:
    """Returns the entries of a list of positions, which may be runs: 7-9 are 7, 8 and 9.

    Args:
      path: see `read_list`.
      column: see `read_list`.

    Raises:
      FileNotFoundError: no such file.
      ValueError: see `read_list`; a run that goes backwards, or that is too long for any data.
    """
    values = read_list(path, column)
    runs = [_RUN.fullmatch(entry) for entry in map(str, values)] if values.dtype.kind == "U" else []
    if not runs or not all(runs):
        return values
    ends = [(int(run[1]), int(run[2] or run[1])) for run in runs if run]
    for first, last in ends:
        if not first <= last < min(first + _LONGEST, 1 << 62):
            raise ValueError(f"{path} lists {first}-{last}, which is no run of positions")
    return np.concatenate([np.arange(first, last + 1) for first, last in ends])


_REMEDIES = {
    ".gz": "; unpack it",
    ".zip": "; unpack it",
    ".xlsx": "; save the sheet as CSV",
    ".xls": "; save the sheet as CSV",
    ".parquet": "; save it by pandas.read_parquet(FILE).to_csv('rows.csv')",
    ".pkl": "; no pickle is opened: save the indices with numpy.save",
    ".pt": "; save the indices with numpy.save('rows.npy', indices.numpy())",
    ".pth": "; save the indices with numpy.save('rows.npy', indices.numpy())",
    ".yaml": "; save the list as JSON",
    ".yml": "; save the list as JSON",
}


def is_mask(values: np.ndarray, n: int) -> bool:
    """Returns whether integers are 0 or 1 for each of `n` examples, and so no list of positions.

    As a list they would name the same two examples again and again.

    Args:
      values: [m] integers.
      n: the size of the training set.
    """
    if not (np.issubdtype(values.dtype, np.integer) and len(values) == n > 2):
        return False
    return bool(np.isin(values, (0, 1)).all())


def match_ids(values: np.ndarray, ids: Sequence[object] | np.ndarray, *, name: str) -> np.ndarray:
    """Returns the position of each id among the ids of the training set.

    Files of images are found by their path, by their name, or by their name without its ending,
    whichever comes first that names all of them and no two alike.

    Args:
      values: [m] the ids that are looked for.
      ids: [n] the id of each training example, in their order.
      name: what messages call the list.

    Raises:
      ValueError: an id that no example has, or that several have.
    """
    wanted, there = _as_texts(values), _as_texts(np.asarray(ids))
    lost: list[str] = []
    for form in (str, _file_name, _stem):
        known = [form(text) for text in there]
        place, counts = {text: i for i, text in enumerate(known)}, Counter(known)
        missing = [text for text in wanted if form(text) not in place]
        if missing:
            lost = lost or missing
            continue
        shared = next((text for text in wanted if counts[form(text)] > 1), None)
        if shared is not None:
            raise ValueError(
                f"{name}: {counts[form(shared)]} training examples have the id {form(shared)!r}; "
                "name them by their positions, or by a column that tells them apart"
            )
        return np.asarray([place[form(text)] for text in wanted])
    raise ValueError(
        f"{name}: {len(lost)} of {len(wanted)} ids are not among the {len(there)} of the training "
        f"set, the first is {lost[0]!r}; those of the training set are as {there[0]!r}"
    )


def _as_texts(values: np.ndarray) -> list[str]:
    return [str(value) for value in values.tolist()]


def _file_name(text: str) -> str:
    return text.replace("\\", "/").rpartition("/")[2]


def _stem(text: str) -> str:
    name = _file_name(text)
    return name.rpartition(".")[0] or name


def _read_arrays(path: Path, suffix: str, column: str | None) -> np.ndarray:
    try:
        found = np.load(path, allow_pickle=False)
        if suffix == ".npy":
            return np.asarray(found)
        with found as file:
            chosen: np.ndarray = file[
                choose_column(list(file), column, where=str(path), what="array")
            ]
            return chosen
    except UnclearListError:
        raise
    except _UNREADABLE as error:
        raise ValueError(f"cannot read {path} ({error}); save the indices with numpy.save") from (
            error
        )


def _read_json(path: Path, suffix: str) -> object:
    text = _decode(path)
    try:
        if suffix == ".jsonl":
            return [json.loads(line) for line in text.splitlines() if line.strip()]
        return json.loads(text)
    except ValueError as error:
        raise ValueError(f"cannot read {path} as JSON: {error}") from error


def _from_json(found: object, path: Path, column: str | None) -> object:
    """Returns the list within what a JSON file holds."""
    if isinstance(found, Mapping):
        lists = [key for key, value in found.items() if isinstance(value, list)]
        within = [value for value in found.values() if isinstance(value, Mapping)]
        if not lists and len(within) == 1:
            return _from_json(within[0], path, column)
        if not lists:
            raise ValueError(f'{path} holds no list; save the list itself, or {{"forget": [...]}}')
        return found[choose_column(lists, column, where=str(path), what="list")]
    if isinstance(found, list) and found and all(isinstance(row, Mapping) for row in found):
        name = choose_column(list(found[0]), column, where=str(path), what="field")
        short = next((i for i, row in enumerate(found) if name not in row), None)
        if short is not None:
            raise ValueError(f"entry {short} of {path} has no field {name!r}")
        return [row[name] for row in found]
    return found


def _flat(values: object, path: Path) -> np.ndarray:
    """Returns [m] of [m], [m, 1] or [1, m]."""
    try:
        array = np.asarray(values)
    except ValueError:
        array = np.asarray(values, dtype=object)
    if array.dtype.kind == "O":
        raise ValueError(f"{path} must hold one list of numbers or of ids, all of one kind")
    if array.ndim == 2 and 1 in array.shape:
        array = array.reshape(-1)
    if array.ndim != 1:
        raise ValueError(
            f"{path} must hold one list, got the shape {list(array.shape)}; save the column of the "
            "positions alone"
        )
    return array


def _read_text(path: Path, column: str | None) -> object:
    text = _decode(path).strip()
    if text.startswith("[") and text.endswith("]"):  # a list as Python prints it
        with contextlib.suppress(ValueError):
            return json.loads(text)
    rows = _cells(path)
    if not rows:
        return []
    width = max(map(len, rows))
    first = rows[0]
    named = [cell.lower() for cell in first]
    header = (
        (len(rows) > 1 and not any(map(_is_entry, first)) and any(map(_is_entry, rows[1])))
        or any(name in (*_POSITIONS, *_IDS) for name in named)
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
    lines = [_COMMENT.sub("", line).strip() for line in _decode(path).splitlines()]
    lines = [line for line in lines if line]
    if not lines:
        return []
    separator = next((mark for mark in ",;\t" if mark in lines[0]), None)
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
    if not all(map(_is_value, cells)):
        empty = next((i for i, cell in enumerate(cells) if not cell), None)
        if empty is not None:
            raise ValueError(f"entry {empty + 1} of {path} is empty")
        numbers = sum(map(_is_value, cells))
        if numbers > len(cells) / 2 and not all(map(_RUN.fullmatch, cells)):
            wrong = next((i, cell) for i, cell in enumerate(cells) if not _is_value(cell))
            raise ValueError(f"entry {wrong[0] + 1} of {path} must be an integer, got {wrong[1]!r}")
        return list(cells)
    truths = [cell.lower() in _TRUTH for cell in cells]
    if all(truths):
        return [_TRUTH[cell.lower()] for cell in cells]
    if any(truths):
        raise ValueError(f"{path} mixes numbers with true and false")
    whole = all(re.fullmatch(r"[+-]?\d+", cell) for cell in cells)
    return [int(cell) if whole else float(cell) for cell in cells]


def _is_value(cell: str) -> bool:
    return bool(_NUMBER.fullmatch(cell)) or cell.lower() in _TRUTH


def _is_entry(cell: str) -> bool:
    return _is_value(cell) or bool(_RUN.fullmatch(cell))


def _whole(values: np.ndarray, path: Path) -> np.ndarray:
    """Returns integers in the place of floats, which must be whole."""
    if not np.issubdtype(values.dtype, np.floating):
        return values
    broken = np.flatnonzero(~np.isfinite(values) | (values != np.round(values)))
    if broken.size:
        raise ValueError(
            f"{path} must hold positions, which are whole numbers, got {values[broken[0]]} as "
            f"entry {broken[0] + 1}"
        )
    return values.astype(np.int64)


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
    for usual in (_POSITIONS, _IDS):
        there = [name for name in names if name.lower() in usual]
        if len(there) == 1:
            return there[0]
    raise UnclearListError(
        f"{where} has the {what}s {', '.join(names) or 'of no list'}; say which one lists the "
        f"examples, as file:{where}#{names[0] if names else 'NAME'} (column= in Python)"
    )


def _decode(path: Path) -> str:
    content = _unpacked(path) if path.suffix.lower() == ".gz" else path.read_bytes()
    utf16 = content.startswith((b"\xff\xfe", b"\xfe\xff"))
    try:
        return content.decode("utf-16" if utf16 else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not text in UTF-8 ({error}); save it as UTF-8") from error


def _unpacked(path: Path) -> bytes:
    try:
        with gzip.open(path) as file:
            content = file.read(_MOST_BYTES + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"cannot unpack {path}: {error}") from error
    if len(content) > _MOST_BYTES:
        raise ValueError(f"{path} holds more than {_MOST_BYTES} bytes: no list of examples")
    return content
