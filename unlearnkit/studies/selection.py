"""Choosing a method's hyperparameters without the test set."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import jax
from jaxtyping import Array, Key

from unlearnkit.auditing import MembershipInference, accuracy
from unlearnkit.auditing.evaluate import HEADLINE_ATTACK
from unlearnkit.base import Model, Task, Unlearner, Variables
from unlearnkit.training import DivergedError
from unlearnkit.validation import check_task, check_variables


class Trial(NamedTuple):
    """One setting of a method, and how it did on what is held out for choosing.

    Attributes:
      method: with its hyperparameters.
      accuracy: on the choosing half of the validation set; 0 where it diverged.
      mia_accuracy: of the attack that tells the forget set from that half; 1 where it diverged.
      diverged: why there is no result, or None.
    """

    method: Unlearner
    accuracy: float
    mia_accuracy: float
    diverged: str | None = None

    @property
    def score(self) -> float:
        """`accuracy` - `mia_accuracy`, the larger the better."""
        return self.accuracy - self.mia_accuracy


class Selection(NamedTuple):
    """The best of several settings, and all of them in the order given."""

    method: Unlearner
    trials: tuple[Trial, ...]


def grid(method: Unlearner, **choices: Iterable[Any]) -> list[Unlearner]:
    """Returns a method in every combination of some of its hyperparameters.

    As `grid(FineTune(batch_size=32), learning_rate=[0.01, 0.1], epochs=[1, 5])`.

    Args:
      method: gives the hyperparameters that do not vary.
      choices: the values of those that do.

    Raises:
      ValueError: a hyperparameter without values, or a value outside its range.
      TypeError: a hyperparameter that the method does not have.
    """
    values = {name: list(chosen) for name, chosen in choices.items()}
    empty = [name for name, chosen in values.items() if not chosen]
    if empty:
        raise ValueError(f"{empty[0]} needs at least one value, got none")
    combinations = itertools.product(*values.values())
    settings = (dict(zip(values, combination, strict=True)) for combination in combinations)
    return [dataclasses.replace(method, **setting) for setting in settings]  # type: ignore[type-var]


def choosing_task(key: Key[Array, ""], task: Task) -> Task:
    """Returns the task that settings are tried on: no example of `task.test` is in it.

    The validation set is cut into two halves. One is what the method may validate on; the other
    stands where the test set stood: the non-members of a new auditing set, and the examples of the
    validation accuracy. What is reported later, of `task.test`, decides nothing. The forget set is
    one and the same in both, as there is only one to forget.

    Args:
      key: cuts the validation set.
      task: the question; its test set is not read.

    Raises:
      ValueError: fewer than two validation examples.
    """
    n = task.validation.size
    if n < 2:
        raise ValueError(f"choosing needs at least 2 validation examples, got {n}")
    order = jax.random.permutation(key, n)
    own, new = (task.validation.take(rows) for rows in (order[: n // 2], order[n // 2 :]))
    return Task(task.retain, task.forget, own, new)


def sweep(
    key: Key[Array, ""],
    model: Model,
    variables: Variables,
    task: Task,
    methods: Sequence[Unlearner],
    *,
    attack: MembershipInference = HEADLINE_ATTACK,
) -> Selection:
    """Returns the setting with the largest validation accuracy less MIA accuracy.

    argmax over settings of Acc(validation) - MIA accuracy(forget, validation), on `choosing_task`.
    Every setting runs with the same key, so that the order does not matter; of equally good ones
    the first is taken. A setting that diverges is passed over.

    Args:
      key: decides everything; the chosen method is then to run with a key of its own.
      model: the network.
      variables: the trained weights.
      task: the question; its test set is not read.
      methods: settings, as `grid` makes them, of one method or of several.
      attack: the membership attack; explicit folds must not exceed the forget set or half of the
        validation set.

    Raises:
      ValueError: no settings, or a task or variables that do not fit.
      DivergedError: every setting diverged.

    Example:
      choices = studies.grid(unlearning.FineTune(), learning_rate=(0.1, 0.01), epochs=(2, 5))
      chosen = studies.sweep(key, model, variables, studies.choosing_task(key, task), choices)

    Source: Di et al. 2024, §6.1: "we create a new auditing set" and "select the hyper-parameters
    that maximize the difference between the validation accuracy and the MIA accuracy" on it.
    """
    if not methods:
        raise ValueError("methods must hold at least one setting, got none")
    question = choosing_task(jax.random.fold_in(key, 0), task)
    check_task(question, model)
    check_variables(variables, model)
    size = min(question.forget.size, question.test.size)
    if attack.folds is not None and size < attack.folds:
        raise ValueError(
            f"{attack.folds} folds need at least {attack.folds} forget examples and twice as many "
            f"validation examples, got {task.forget.size} and {task.validation.size}; "
            f"choose an attack with folds <= {size}"
        )
    trials = tuple(_try(key, model, variables, question, method, attack) for method in methods)
    finished = [trial for trial in trials if trial.diverged is None]
    if not finished:
        raise DivergedError(f"all {len(trials)} settings diverged; the first: {trials[0].diverged}")
    return Selection(max(finished, key=lambda trial: trial.score).method, trials)


def _try(
    key: Key[Array, ""],
    model: Model,
    variables: Variables,
    question: Task,
    method: Unlearner,
    attack: MembershipInference,
) -> Trial:
    try:
        unlearned = method(jax.random.fold_in(key, 1), model, variables, question).variables
    except DivergedError as error:
        return Trial(method, 0.0, 1.0, str(error))
    found = attack(jax.random.fold_in(key, 2), model, unlearned, question).metrics["accuracy"]
    return Trial(method, accuracy(model, unlearned, question.test), found)
