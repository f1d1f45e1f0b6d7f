"""Labels as files hold them: columns, one-hot rows, whole floats, texts."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

from unlearnkit.validation import check_labels

_SIGNS = ("-1", "1")


def as_labels(y: np.ndarray, *, name: str) -> np.ndarray:
    """Returns [n] labels of [n], [n, 1] or one-hot [n, c] ones; texts stay texts.

    Args:
      y: as a file holds them.
      name: what messages call them.

    Raises:
      ValueError: another shape, rows that are not one-hot, numbers that are not whole.
    """
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    if y.ndim == 2:
        hot = (y == 1).sum(axis=1)
        wrong = np.flatnonzero((hot != 1) | ((y != 0).sum(axis=1) != 1))
        if wrong.size:
            raise ValueError(
                f"labels of {name} are {list(y.shape)} but not one-hot: row {wrong[0]} has "
                f"{hot[wrong[0]]} ones; give one class per example, [n] or [n, 1]"
            )
        found: np.ndarray = y.argmax(axis=1)
        return found
    if y.ndim != 1:
        raise ValueError(
            f"labels of {name} must be [n], [n, 1] or one-hot [n, c], got the shape {list(y.shape)}"
        )
    if y.dtype == np.bool_:
        return y.astype(np.int64)
    if np.issubdtype(y.dtype, np.floating):
        broken = np.flatnonzero(~np.isfinite(y) | (y != np.round(y)))
        if broken.size:
            raise ValueError(
                f"labels of {name} must be classes, got {y[broken[0]]} at index {broken[0]}; a "
                "number that is to be predicted is no class"
            )
        return y.astype(np.int64)
    return y.astype(str) if y.dtype.kind in "SU" else y


def name_classes(y: np.ndarray, *, name: str) -> tuple[str, ...]:
    """Returns the names of the classes of training labels, in the order of the classes.

    Numbers are classes as they are, and the names those from 0 to the largest; -1 and 1 alone are
    the classes 0 and 1, as support vector machines have them. Texts that are all
    whole numbers are in the order of these, other texts in that of the alphabet.

    Args:
      y: [n] integers or texts, see `as_labels`.
      name: what messages call them.

    Raises:
      TypeError: labels of another type.
      ValueError: labels below 0.
    """
    if y.dtype.kind == "U":
        return tuple(in_order(np.unique(y).tolist()))
    if y.dtype.kind == "i" and np.unique(y).tolist() == [-1, 1]:
        return _SIGNS
    check_labels(y, name=name)
    return tuple(str(label) for label in range(int(y.max()) + 1))


def to_classes(y: np.ndarray, classes: Sequence[str], *, name: str) -> np.ndarray:
    """Returns [n] classes, int32, of labels.

    Args:
      y: [n] integers or texts.
      classes: their names, of the training set.
      name: what messages call the labels.

    Raises:
      TypeError: labels of another type.
      ValueError: a label that is no class of the training set.
    """
    if y.dtype.kind == "i" and tuple(classes) == _SIGNS:
        y = y.astype(str)
    if y.dtype.kind != "U":
        check_labels(y, name=name, n_classes=len(classes))
        return y.astype(np.int32)
    place = {text: label for label, text in enumerate(classes)}
    unknown = sorted(set(y.tolist()) - set(place))
    if unknown:
        raise ValueError(
            f"labels of {name} must be classes of the training set, got {', '.join(unknown[:5])}; "
            f"its classes are {', '.join(classes[:10])}"
        )
    return np.asarray([place[text] for text in y.tolist()], np.int32)


def in_order(names: Sequence[str]) -> list[str]:
    """Returns names in numeric order where all are whole numbers, else in alphabetic order."""
    if all(name.lstrip("-").isdigit() for name in names):
        return sorted(names, key=int)
    return sorted(names)


def hold_out(y: np.ndarray, fraction: float) -> dict[str, np.ndarray]:
    """Returns which examples are of `train` and of `test`, [n] booleans each.

    Every class gives the same share. Its examples are ordered by the SHA-256 of their position, a
    permutation that no version of any random generator changes, and the first are held out.

    Args:
      y: [n] labels.
      fraction: the share that is held out, in (0, 1).
    """
    order = sorted(range(len(y)), key=lambda i: hashlib.sha256(str(i).encode()).digest())
    by_hash = np.asarray(order)
    test = np.zeros(len(y), bool)
    for label in np.unique(y):
        members = by_hash[y[by_hash] == label]
        test[members[: round(fraction * len(members))]] = True
    return {"train": ~test, "test": test}
