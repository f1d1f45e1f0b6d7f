"""Splits a training and a test set into a `Task`: retain, forget, validation and test sets."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Key

from unlearnkit.base import Dataset, Task
from unlearnkit.data.forget import ClassForget, ForgetRequest
from unlearnkit.data.indices import as_indices, check_forget
from unlearnkit.host.random import host_key
from unlearnkit.validation import check_dataset, check_held_out

VALIDATION_SOURCES = ("test", "train")


class Split(NamedTuple):
    """A task as indices, ascending, on the host; it can be kept beside results.

    Attributes:
      retain: [.] of the training set.
      forget: [.] of the training set.
      validation: [.] of the set that `validation_from` names.
      test: [.] of the test set.
      validation_from: `test` or `train`.
    """

    retain: np.ndarray
    forget: np.ndarray
    validation: np.ndarray
    test: np.ndarray
    validation_from: str

    def task(self, train: Dataset, test: Dataset) -> Task:
        """Returns the task of the two sets that the split was made for.

        Args:
          train: the training set.
          test: the test set.

        Raises:
          ValueError: parts that share an example, or indices beyond the sets.
        """
        from_train, from_test = [self.retain, self.forget], [self.test]
        (from_train if self.validation_from == "train" else from_test).append(self.validation)
        _check_disjoint(from_train, train.size, "training")
        _check_disjoint(from_test, test.size, "test")
        return Task(
            train.take(self.retain),
            train.take(self.forget),
            (train if self.validation_from == "train" else test).take(self.validation),
            test.take(self.test),
        )


def choose_classes(dataset: Dataset, classes: Sequence[int]) -> Dataset:
    """Returns the examples of some classes, which are numbered anew in the order given.

    Raises:
      ValueError: fewer than two classes, a class twice, or one without examples.
    """
    y = np.asarray(dataset.y)
    missing = [label for label in classes if not np.any(y == label)]
    if len(classes) < 2 or len(set(classes)) < len(classes) or missing:
        raise ValueError(
            f"classes must be two or more different ones of the dataset, got {tuple(classes)}; it "
            f"has {np.unique(y).tolist()}"
        )
    rows = np.flatnonzero(np.isin(y, classes))
    numbers = np.argmax(y[rows, None] == np.asarray(classes), axis=1)
    return dataset.take(rows)._replace(y=jnp.asarray(numbers, jnp.int32))


def choose_split(
    key: Key[Array, ""],
    train: Dataset,
    test: Dataset,
    forget: ForgetRequest,
    *,
    validation: float = 0.5,
    validation_from: str = "test",
) -> Split:
    """Returns the indices of a task; the same key gives the same split.

    Args:
      key: a typed key.
      train: the training set.
      test: the test set.
      forget: chooses the forget set from all of `train`.
      validation: fraction of the held-out test set, or of what is retained, in (0, 1).
      validation_from: `test` leaves the training set whole and splits the test set into two
        disjoint parts, as auditors that train on unseen examples need; `train` takes validation
        from what is retained and leaves the test set whole.

    Raises:
      TypeError: a key that is not typed; data or indices of the wrong type.
      ValueError: sets of different shape or normalisation; a part without examples; whatever the
        request refuses.

    Warns:
      InputWarning: test examples that are training examples; pixels outside of [0, 1].
    """
    if not isinstance(key, jax.Array) or not jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
        raise TypeError(f"key must be a typed key as jax.random.key(0), got {key!r}")
    if not 0 < validation < 1:
        raise ValueError(f"validation must be a fraction in (0, 1), got {validation}")
    if validation_from not in VALIDATION_SOURCES:
        raise ValueError(
            f"validation_from must be one of {', '.join(VALIDATION_SOURCES)}, "
            f"got {validation_from!r}"
        )
    _check_pair(train, test)
    forget_key, validation_key = (half.typed() for half in host_key(key).split())
    chosen = check_forget(as_indices(forget(forget_key, train), name="forget indices"), train.size)
    retain = np.setdiff1d(np.arange(train.size), chosen)
    held_out = np.arange(test.size)
    if isinstance(forget, ClassForget) and not forget.in_test:
        held_out = held_out[np.asarray(test.y) != forget.label]
    if validation_from == "train":
        unseen, retain = _divide(validation_key, retain, validation, "the retained examples")
    else:
        unseen, held_out = _divide(validation_key, held_out, validation, "the test set")
    if not held_out.size:
        raise ValueError(f"the test set must hold examples of other classes than {forget}")
    return Split(retain, chosen, unseen, held_out, validation_from)


def make_task(
    key: Key[Array, ""],
    train: Dataset,
    test: Dataset,
    forget: ForgetRequest,
    *,
    validation: float = 0.5,
    validation_from: str = "test",
) -> Task:
    """Returns the task of forgetting part of `train`; see `choose_split` for its arguments.

    Args:
      key: a typed key; the same key gives the same task.
      train: the training set.
      test: the test set.
      forget: chooses the forget set.
      validation: fraction in (0, 1).
      validation_from: `test` or `train`.

    Raises:
      TypeError: see `choose_split`.
      ValueError: see `choose_split`.

    Example:
      task = data.make_task(key, train, test, data.RandomForget(fraction=0.1))
      print(task.retain.size, task.forget.size)
    """
    split = choose_split(
        key, train, test, forget, validation=validation, validation_from=validation_from
    )
    return split.task(train, test)


def _check_pair(train: Dataset, test: Dataset) -> None:
    check_dataset(train, name="train")
    check_dataset(test, name="test")
    if train.x.shape[1:] != test.x.shape[1:]:
        raise ValueError(
            f"train and test must have examples of one shape, "
            f"got {train.x.shape[1:]} and {test.x.shape[1:]}"
        )
    if train.normalisation != test.normalisation:
        raise ValueError(
            f"train and test must be normalised alike, "
            f"got {train.normalisation} and {test.normalisation}"
        )
    check_held_out((train,), test)


def _divide(
    key: Array, pool: np.ndarray, fraction: float, what: str
) -> tuple[np.ndarray, np.ndarray]:
    """Returns a random `fraction` of `pool` and the rest, neither of them empty."""
    count = round(fraction * len(pool))
    if not 0 < count < len(pool):
        raise ValueError(
            f"validation and what it is taken from must both hold examples, but {fraction} of "
            f"{what} ({len(pool)} examples) is {count}; choose another fraction"
        )
    order = host_key(key).permutation(len(pool))
    return np.sort(pool[order[:count]]), np.sort(pool[order[count:]])


def _check_disjoint(parts: list[np.ndarray], n: int, name: str) -> None:
    indices = np.concatenate(parts)
    if indices.size and (indices.min() < 0 or indices.max() >= n):
        raise ValueError(
            f"indices of the {name} set must lie in 0, ..., {n - 1}, "
            f"got {indices.min()} to {indices.max()}; the split was made for another set"
        )
    unique, counts = np.unique(indices, return_counts=True)
    if (counts > 1).any():
        raise ValueError(
            f"parts of the {name} set must be disjoint, but they share {(counts > 1).sum()} "
            f"examples, the first is {unique[counts > 1][0]}"
        )
