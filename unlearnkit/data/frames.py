"""Files that are tables, as data frames of pandas."""

from __future__ import annotations

import gzip
import importlib
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, TypeAlias

from unlearnkit.reading import is_packed
from unlearnkit.validation import InputWarning

Frame: TypeAlias = Any
"""A data frame of pandas, or a column of one; pandas is an extra."""
_HEAD = 1 << 16
_DECIMAL_COMMA = re.compile(r"(^|;)[+-]?\d+,\d+(;|\s|$)", re.MULTILINE)


def read_table(path: Path) -> Frame:
    """Returns the pandas data frame of a table; columns without a header are called 0, 1, ….

    Text is in UTF-8 or UTF-16, maybe packed by gzip, and divided by commas, semicolons, tabs, bars
    or spaces. A first line with a number is no header, unless the numbers in it count columns.

    Raises:
      ImportError: pandas, or for parquet pyarrow, is not installed.
      ValueError: the file is damaged, or of another format.
    """
    pandas = pandas_for(str(path))
    try:
        if (read := _OTHERS.get(path.suffix.lower())) is not None:
            return read(path, pandas)
        with gzip.open(path) if is_packed(path) else path.open("rb") as file:
            head = file.read(_HEAD)
        encoding = "utf-16" if head.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8-sig"
        head_text = head.decode(encoding, errors="ignore").lstrip()
        first = head_text.splitlines()[0] if head_text else ""
        mark = max(",;\t|", key=first.count)
        mark = mark if mark in first else " "
        frame = pandas.read_csv(
            path,
            sep=r"\s+" if mark == " " else mark,
            header="infer" if _is_header(first.split(mark)) else None,
            encoding=encoding,
            compression="gzip" if is_packed(path) else None,
            decimal="," if mark == ";" and _DECIMAL_COMMA.search(head_text) else ".",
            skipinitialspace=True,
            na_values=["?"],
        )
        return _without_row_numbers(frame, path)
    except ImportError as error:
        raise ImportError(
            f"{path} needs pyarrow ({error}); pip install 'unlearnkit[tables]'"
        ) from (error)
    except (OSError, EOFError, ValueError, NotImplementedError) as error:
        raise ValueError(
            f"cannot read {path} as a table ({error}); save it as CSV in UTF-8"
        ) from error


def _read_arrow(path: Path, pandas: ModuleType) -> Frame:
    """Returns a table of Arrow, as a file or as the stream that `save_to_disk` writes."""
    ipc = importlib.import_module("pyarrow.ipc")
    with path.open("rb") as file:
        whole = file.read(6) == b"ARROW1"
    with path.open("rb") as file:
        return (ipc.open_file if whole else ipc.open_stream)(file).read_all().to_pandas()


def _read_libsvm(path: Path, pandas: ModuleType) -> Frame:
    from sklearn.datasets import load_svmlight_file

    x, y = load_svmlight_file(str(path))
    return pandas.DataFrame(x.toarray()).assign(label=y)


def _read_arff(path: Path, pandas: ModuleType) -> Frame:
    from scipy.io.arff import loadarff

    frame = pandas.DataFrame(loadarff(path)[0])
    texts = [name for name in frame.columns if frame[name].dtype.kind == "O"]
    return frame.assign(**{name: frame[name].str.decode("utf-8") for name in texts})


_OTHERS: Mapping[str, Callable[[Path, ModuleType], Frame]] = {
    ".parquet": lambda path, pandas: pandas.read_parquet(path),
    ".arrow": _read_arrow,
    ".feather": _read_arrow,
    ".libsvm": _read_libsvm,
    ".svm": _read_libsvm,
    ".arff": _read_arff,
}


def _is_header(cells: Sequence[str]) -> bool:
    """Returns whether a first line names columns."""
    cells = [cell.strip("\"' ") for cell in cells if cell.strip()]
    numbers = [cell for cell in cells if _is_number(cell)]
    counts = any(numbers == [*map(str, range(start, start + len(numbers)))] for start in (0, 1))
    return not numbers or (counts and len(numbers) > 2)


def _without_row_numbers(frame: Frame, path: Path) -> Frame:
    """Returns a table without the column that pandas wrote as the numbers of its rows."""
    first = frame.columns[0]
    if first != "Unnamed: 0" or frame[first].dtype.kind != "i" or not frame[first].is_unique:
        return frame
    warnings.warn(
        f"the first column of {path} has no name and numbers its rows: it is passed over",
        InputWarning,
        stacklevel=2,
    )
    return frame.drop(columns=[first])


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def pandas_for(what: str) -> ModuleType:
    """Returns pandas.

    Args:
      what: needs it.

    Raises:
      ImportError: it is not installed.
    """
    try:
        return importlib.import_module("pandas")
    except ImportError as error:
        raise ImportError(
            f"{what} is read by pandas ({error}); pip install 'unlearnkit[tables]'"
        ) from error
