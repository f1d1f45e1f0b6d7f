"""Lists of examples as files hold them: arrays, JSON, text, tables, masks, and ids."""

from __future__ import annotations

import io
import json
import zipfile
import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from unlearnkit.data.columns import UnclearListError, choose_column
from unlearnkit.data.frames import read_table
from unlearnkit.data.list_texts import PACKED, RUN, decode, read_text, unpacked

_UNREADABLE = (OSError, EOFError, ValueError, RuntimeError, zipfile.BadZipFile, zlib.error)
_LONGEST = 1 << 26
_TEXTS = (".txt", ".csv", ".tsv", ".lst", ".list", ".dat", ".yaml", ".yml", "")


def read_list(path: Path, column: str | None = None) -> np.ndarray:
    """Returns the entries of a list: [m] integers, booleans or, where it holds ids, texts.

    Endings count in upper case too. Numbers may be written as floats where they are whole; arrays
    may be [m, 1]. All but parquet may be packed by gzip, bzip2 or xz. Text is split at commas,
    semicolons, tabs, bars or spaces, or is a list as Python prints it; a byte order mark, blank
    lines and what follows a # are passed over. Its first line is a header where it names columns
    of numbers, or has one of the usual names of a column.

    Args:
      path: `.npy`, `.npz` (the array `forget`, or its only one), `.json` (a list, a list of
        objects, or an object that holds a list), `.jsonl`, `.parquet`, or text: `.txt`, `.csv`,
        `.tsv`, `.lst`.
      column: the name of a column, array or field; or its position, from 0; or `all` for a table
        whose every number is an entry. None takes the only one, or the only one with a usual name.

    Raises:
      FileNotFoundError: no such file.
      ValueError: a damaged file or another format; several columns of which none is named; numbers
        that are not whole.
    """
    if not path.is_file():
        raise FileNotFoundError(f"there is no index file {path}")
    packed = path.suffix.lower() in PACKED
    suffix = (path.with_suffix("") if packed else path).suffix.lower()
    if suffix in (".npy", ".npz"):
        return _whole(_read_arrays(path, suffix, packed, column), path)
    if suffix in (".json", ".jsonl", ".ndjson"):
        found = _from_json(_read_json(path, suffix), path, column)
        return _whole(_flat(found, path, column), path)
    if suffix in _TEXTS:
        return _whole(_flat(read_text(path, column), path), path)
    if suffix == ".parquet" and not packed:
        frame = read_table(path)
        names = list(map(str, frame.columns))
        chosen = names.index(choose_column(names, column, where=str(path), what="column"))
        return _whole(_flat(frame.iloc[:, chosen].tolist(), path), path)
    raise ValueError(
        f"an index file must end in .npy, .npz, .json, .csv, .parquet or .txt, got {path}"
        + _REMEDIES.get(path.suffix.lower(), "")
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
    runs = [RUN.fullmatch(entry) for entry in map(str, values)] if values.dtype.kind == "U" else []
    if not runs or not all(runs):
        return values
    ends = [(int(run[1]), int(run[2] or run[1])) for run in runs if run]
    for first, last in ends:
        if not first <= last < min(first + _LONGEST, 1 << 62):
            raise ValueError(f"{path} lists {first}-{last}, which is no run of positions")
    return np.concatenate([np.arange(first, last + 1) for first, last in ends])


_REMEDIES = {
    **dict.fromkeys((".gz", ".zip", ".7z", ".tar", ".tgz"), "; unpack it"),
    **dict.fromkeys((".xlsx", ".xls", ".ods"), "; save the sheet as CSV"),
    **dict.fromkeys((".h5", ".hdf5", ".mat"), "; save the indices with numpy.save"),
    ".pkl": "; no pickle is opened: save the indices with numpy.save",
    ".pt": "; save the indices with numpy.save('rows.npy', indices.numpy())",
    ".pth": "; save the indices with numpy.save('rows.npy', indices.numpy())",
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


def _read_arrays(path: Path, suffix: str, packed: bool, column: str | None) -> np.ndarray:
    file = io.BytesIO(unpacked(path)) if packed else path
    try:
        found = np.load(file, allow_pickle=False)
        if suffix == ".npy":
            return _flat(np.atleast_1d(found), path, column)
        with found as arrays:
            name = choose_column(list(arrays), column, where=str(path), what="array")
            return _flat(arrays[name], path)
    except (UnclearListError, _ShapeError):
        raise
    except _UNREADABLE as error:
        raise ValueError(f"cannot read {path} ({error}); save the indices with numpy.save") from (
            error
        )


def _read_json(path: Path, suffix: str) -> object:
    text = decode(path)
    try:
        if suffix != ".json":
            return [json.loads(line) for line in text.splitlines() if line.strip()]
        return json.loads(text)
    except ValueError as error:
        raise ValueError(f"cannot read {path} as JSON: {error}") from error


def _from_json(found: object, path: Path, column: str | None) -> object:
    """Returns the list within what a JSON file holds."""
    if isinstance(found, Mapping):
        lists = [key for key, value in found.items() if isinstance(value, list)]
        if lists:
            return found[choose_column(lists, column, where=str(path), what="list")]
        if found and all(map(_is_column, found.values())):
            name = choose_column(list(found), column, where=str(path), what="column")
            return list(found[name].values())
        within = [value for value in found.values() if _holds_list(value)]
        if len(within) == 1:
            return _from_json(within[0], path, column)
        raise ValueError(
            f"{path} holds {'several objects with lists' if within else 'no list'}; save the list "
            'itself, or {"forget": [...]}'
        )
    if isinstance(found, list) and found and all(isinstance(row, Mapping) for row in found):
        name = choose_column(list(found[0]), column, where=str(path), what="field")
        short = next((i for i, row in enumerate(found) if name not in row), None)
        if short is not None:
            raise ValueError(f"entry {short} of {path} has no field {name!r}")
        return [row[name] for row in found]
    return found


def _is_column(value: object) -> bool:
    """Returns whether a value is a column as pandas writes it, entries by 0, 1, …."""
    return (
        isinstance(value, Mapping) and bool(value) and list(value) == [*map(str, range(len(value)))]
    )


def _holds_list(value: object) -> bool:
    return isinstance(value, list) or (
        isinstance(value, Mapping) and any(map(_holds_list, value.values()))
    )


class _ShapeError(ValueError):
    """No list, whatever is said."""


def _flat(values: object, path: Path, column: str | None = None) -> np.ndarray:
    """Returns [m] of [m], [m, 1] or [1, m], or a column of [m, c]."""
    try:
        array = np.asarray(values)
    except ValueError:
        array = np.asarray(values, dtype=object)
    if array.dtype.kind == "O":
        raise ValueError(f"{path} must hold one list of numbers or of ids, all of one kind")
    if array.ndim == 2 and 1 in array.shape:
        return array.reshape(-1)
    if array.ndim == 2 and column is not None:
        names = [str(i) for i in range(array.shape[1])]
        return array[:, int(choose_column(names, column, where=str(path), what="column"))]
    if array.ndim != 1:
        raise _ShapeError(
            f"{path} must hold one list, got the shape {list(array.shape)}"
            + (
                f"; say which column lists the examples, as file:{path}#0 (column= in Python)"
                if array.ndim == 2
                else ""
            )
        )
    return array


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
