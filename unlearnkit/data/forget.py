"""Which training examples are to be forgotten: one frozen dataclass per kind of request.

A request is called with a key and the training set and returns indices or a mask of the forget set.
Any function of the same signature is one too: `choose_split` checks what it returns, so that no
forget set is empty, everything, or beyond the training set.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Array, Key

from unlearnkit.base import Dataset
from unlearnkit.data.indices import as_indices
from unlearnkit.data.lists import is_mask, match_ids, read_list, read_positions
from unlearnkit.data.loading import training_ids
from unlearnkit.host.random import host_key


@runtime_checkable
class ForgetRequest(Protocol):
    """Chooses the forget set of a training set."""

    def __call__(self, key: Key[Array, ""], train: Dataset) -> np.ndarray: ...


@dataclasses.dataclass(frozen=True)
class RandomForget:
    """Chooses examples uniformly, without replacement.

    Attributes:
      fraction: of the training set, in (0, 1), rounded to whole examples.
      count: of examples; give one of the two.
    """

    fraction: float | None = None
    count: int | None = None

    def __post_init__(self) -> None:
        _check_amount(self.fraction, self.count, whole=False)

    def __call__(self, key: Key[Array, ""], train: Dataset) -> np.ndarray:
        """Returns the indices of the forget set, [m]."""
        pool = np.arange(train.size)
        return _draw(key, pool, self.fraction, self.count, "the training set")


@dataclasses.dataclass(frozen=True)
class WithinClassForget:
    """Chooses examples of one class uniformly, without replacement.

    Attributes:
      label: the class.
      fraction: of the class, in (0, 1], rounded to whole examples.
      count: of examples; give one of the two.
    """

    label: int
    fraction: float | None = None
    count: int | None = None

    def __post_init__(self) -> None:
        _check_label(self.label)
        _check_amount(self.fraction, self.count, whole=True)

    def __call__(self, key: Key[Array, ""], train: Dataset) -> np.ndarray:
        """Returns the indices of the forget set, [m]."""
        members = _members(train, self.label)
        return _draw(key, members, self.fraction, self.count, f"class {self.label}")


@dataclasses.dataclass(frozen=True)
class ClassForget:
    """Chooses a whole class.

    Attributes:
      label: the class.
      in_test: whether the held-out data keeps the class. Audits that compare the forget set with
        unseen examples of the same distribution need it; accuracy on what the network still has to
        know does not.
    """

    label: int
    in_test: bool = True

    def __post_init__(self) -> None:
        _check_label(self.label)

    def __call__(self, key: Key[Array, ""], train: Dataset) -> np.ndarray:
        """Returns the indices of the forget set, [m]."""
        return _members(train, self.label)


@dataclasses.dataclass(frozen=True)
class IndexForget:
    """Chooses the examples at given indices.

    Attributes:
      indices: [m] distinct integers from 0, or [n] booleans, true where an example is forgotten.
    """

    indices: Sequence[object] | np.ndarray | Array

    def __post_init__(self) -> None:
        # A tuple of Python numbers compares, hashes and travels into a manifest as it is.
        object.__setattr__(self, "indices", tuple(as_indices(self.indices).tolist()))

    def __call__(self, key: Key[Array, ""], train: Dataset) -> np.ndarray:
        """Returns the indices of the forget set, [m]."""
        return np.asarray(self.indices)


@dataclasses.dataclass(frozen=True)
class FileForget:
    """Chooses the examples that a file lists: positions, runs of them (7-9), ids, or a mask.

    As many zeros and ones as there are training examples are a mask.

    Attributes:
      path: an array, JSON, text or table, see `data.lists.read_list`.
      column: of a table, or the name of an array or a field; None takes the only one, or the only
        one with a usual name.
      ids: what the list names the examples by in the place of positions: the id of each training
        example, in their order; or a file or folder that has them, maybe as `PATH#COLUMN`, see
        `data.training_ids`.
    """

    path: str | Path
    column: str | None = None
    ids: str | Path | Sequence[object] | np.ndarray | None = None

    def __post_init__(self) -> None:
        if self.ids is not None and not isinstance(self.ids, str | Path):
            object.__setattr__(self, "ids", tuple(self.ids))

    def __call__(self, key: Key[Array, ""], train: Dataset) -> np.ndarray:
        """Returns the indices of the forget set, [m]."""
        path, name = Path(self.path).expanduser(), str(self.path)
        if self.ids is not None:
            return match_ids(read_list(path, self.column), self._ids(train.size), name=name)
        values = read_positions(path, self.column)
        if values.dtype.kind == "U":
            raise ValueError(
                f"{name} names examples by ids, the first is {str(values[0])!r}, and not by "
                "positions; say where the ids of the training set are, as "
                "file:LIST@TRAIN.csv#COLUMN (ids= in Python)"
            )
        values = as_indices(values, name=name)
        if is_mask(values, train.size):
            return values.astype(bool)
        within = (values >= 0) & (values < train.size) | (values.dtype == np.bool_)
        if not within.all():
            raise ValueError(
                f"{name}: indices must lie in 0, ..., {train.size - 1} (the training set has "
                f"{train.size} examples), got {values[~within][0]}: they are positions counted "
                "from 0; or ids: say where those of the training set are, as "
                "file:LIST@TRAIN.csv#COLUMN (ids= in Python)"
            )
        return values

    def _ids(self, n: int) -> Sequence[object]:
        """Returns the ids of the training set."""
        if isinstance(self.ids, str | Path):
            path, _, column = str(self.ids).partition("#")
            ids = training_ids(path, column or None)
        else:
            assert self.ids is not None
            ids = list(self.ids)
        if len(ids) != n:
            raise ValueError(
                f"there must be an id for each of the {n} training examples, got {len(ids)}: they "
                "are of other data, or of all of it (a table that test_fraction divides: divide it "
                "into train.csv and test.csv, or give ids=data.training_ids(…, reading=…))"
            )
        return ids


@dataclasses.dataclass(frozen=True)
class PredicateForget:
    """Chooses the examples for which a function of index, example and label holds.

    Attributes:
      predicate: (index [n], x [n, ...], y [n]), numpy arrays, x normalised -> [n] booleans.
    """

    predicate: Callable[[np.ndarray, np.ndarray, np.ndarray], Any]

    def __call__(self, key: Key[Array, ""], train: Dataset) -> np.ndarray:
        """Returns the indices of the forget set, [m]."""
        x, y = np.asarray(train.x), np.asarray(train.y)
        mask = np.asarray(self.predicate(np.arange(train.size), x, y))
        if mask.dtype != np.bool_ or mask.shape != (train.size,):
            raise ValueError(
                f"the predicate must return {train.size} booleans, one per example, "
                f"got {mask.dtype} of shape {list(mask.shape)}"
            )
        return mask


FORMS = (
    "random:0.1, random:500, within:3:0.5, within:3:50, class:3, class:3:not-in-test, file:PATH, "
    "file:PATH#COLUMN, file:PATH#COLUMN@TRAIN.csv#COLUMN"
)


def parse_forget(text: str) -> ForgetRequest:
    """Returns the request that a short text stands for; with a decimal point means a fraction.

    Args:
      text: `random:AMOUNT`, `within:LABEL:AMOUNT`, `class:LABEL`, `class:LABEL:not-in-test` (the
        held-out data loses the class too) or `file:PATH`; `file:PATH#COLUMN` says which column of a
        table lists the examples, and what follows an `@` where the ids are that they are listed
        by, see `FileForget`.

    Raises:
      ValueError: another text.
    """
    kind, _, rest = text.partition(":")
    match [kind, *rest.split(":")]:
        case ["file", *_] if rest:
            return _parse_file(rest)
        case ["random", amount]:
            return RandomForget(**_parse_amount(amount, text))
        case ["within", label, amount]:
            return WithinClassForget(_parse_int(label, text), **_parse_amount(amount, text))
        case ["class", label]:
            return ClassForget(_parse_int(label, text))
        case ["class", label, "not-in-test"]:
            return ClassForget(_parse_int(label, text), in_test=False)
    raise _unknown_form(text)


def _parse_file(rest: str) -> FileForget:
    """Returns the request of `PATH`, `PATH#COLUMN`, either maybe with `@IDS`."""
    if Path(rest).expanduser().exists():  # whatever marks are in its name
        return FileForget(rest)
    path, at, ids = rest.partition("@")
    path, _, column = path.partition("#")
    return FileForget(path, column or None, ids if at else None)


def _unknown_form(text: str) -> ValueError:
    return ValueError(f"forget must be of a form as {FORMS}, got {text!r}")


def _parse_int(number: str, text: str) -> int:
    try:
        return int(number)
    except ValueError:
        raise _unknown_form(text) from None


def _parse_amount(number: str, text: str) -> dict[str, Any]:
    if number.strip().lstrip("+-").isdigit():
        return {"count": int(number)}
    try:
        return {"fraction": float(number)}
    except ValueError:
        raise _unknown_form(text) from None


def _check_amount(fraction: float | None, count: int | None, *, whole: bool) -> None:
    if (fraction is None) == (count is None):
        raise ValueError(f"give a fraction or a count, got fraction={fraction} and count={count}")
    if count is not None and count < 1:
        raise ValueError(f"count must be >= 1 (the forget set must not be empty), got {count}")
    if fraction is not None and not (0 < fraction < 1 or (whole and fraction == 1)):
        raise ValueError(f"fraction must lie in (0, 1{']' if whole else ')'}, got {fraction}")


def _check_label(label: int) -> None:
    if label < 0:
        raise ValueError(f"label must be >= 0, got {label}")


def _members(train: Dataset, label: int) -> np.ndarray:
    y = np.asarray(train.y)
    members = np.flatnonzero(y == label)
    if not members.size:
        raise ValueError(
            f"label must be a class of the training set, got {label}; "
            f"its classes are {', '.join(map(str, np.unique(y)))}"
        )
    return members


def _draw(
    key: Array, pool: np.ndarray, fraction: float | None, count: int | None, what: str
) -> np.ndarray:
    if count is None:
        assert fraction is not None
        count = round(fraction * len(pool))
        if count == 0:
            raise ValueError(
                f"the forget set must not be empty, but the fraction {fraction} of {what} "
                f"({len(pool)} examples) rounds to none; give a larger fraction or a count"
            )
    if count > len(pool):
        raise ValueError(f"count must be at most {len(pool)}, the size of {what}, got {count}")
    found: np.ndarray = pool[host_key(key).permutation(len(pool))[:count]]
    return found
