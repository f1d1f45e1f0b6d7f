"""Choosing a method's hyperparameters without the test set."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Key

from unlearnkit.auditing import MembershipInference, accuracy, loss_divergence
from unlearnkit.auditing.evaluate import HEADLINE_ATTACK
from unlearnkit.base import Model, Task, Unlearned, Unlearner, Variables
from unlearnkit.kernels import cross_entropy_losses
from unlearnkit.studies.budget import with_epochs
from unlearnkit.studies.rules import LOST, Measured, Rule, RuleName, choose, rule_of
from unlearnkit.studies.snapshots import is_prefix_stable, unlearn_for
from unlearnkit.training import DivergedError, predict
from unlearnkit.validation import check_task, check_variables


class Trial(NamedTuple):
    """One setting of a method, and how it did on what is held out for choosing.

    Attributes:
      method: with its hyperparameters.
      accuracy: on the choosing half of the validation set; 0 where it diverged.
      mia_accuracy: of the attack that tells the forget set from that half; 1 where it diverged.
      diverged: why there is no result, or None.
      accuracy_retain: on the retain set; 0 where it diverged.
      ks_statistic: between the losses of the forget set and of that half; 1 where it diverged.
    """

    method: Unlearner
    accuracy: float
    mia_accuracy: float
    diverged: str | None = None
    accuracy_retain: float = math.nan
    ks_statistic: float = math.nan

    @property
    def score(self) -> float:
        """`accuracy` - `mia_accuracy`, the larger the better: the rule of Di et al. 2024."""
        return self.accuracy - self.mia_accuracy

    @property
    def measured(self) -> Measured:
        """What a rule looks at."""
        return Measured(self.accuracy, self.mia_accuracy, self.accuracy_retain, self.ks_statistic)


class Selection(NamedTuple):
    """The best of several settings, and all of them in the order given.

    Attributes:
      method: the best by the rule.
      trials: all of them: the front of what accuracy and forgetting can be had together.
      original: the network that was not changed, on the same examples.
      reference: one that was retrained for choosing, if it was given.
    """

    method: Unlearner
    trials: tuple[Trial, ...]
    original: Measured
    reference: Measured | None = None


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
    rule: RuleName | Rule = "accuracy_less_mia",
    reference: Variables | None = None,
) -> Selection:
    """Returns the best setting by a rule: by default the paper's, accuracy less MIA accuracy.

    argmax over settings of Acc(validation) - MIA accuracy(forget, validation), on `choosing_task`;
    `rule="retrain_like"` asks that the accuracies stay first, see `RetrainLike`. Every setting runs
    with the same key, so that the order does not matter; of equally good ones the first is taken. A
    setting that diverges is passed over. Settings that differ in their epochs alone are one run,
    where a shorter run is the beginning of a longer one, with the same results.

    Args:
      key: decides everything; the chosen method is then to run with a key of its own.
      model: the network.
      variables: the trained weights.
      task: the question; its test set is not read.
      methods: settings, as `grid` makes them, of one method or of several.
      attack: the membership attack; explicit folds must not exceed the forget set or half of the
        validation set.
      rule: a name in `RULES`, or a rule with settings of its own.
      reference: weights that were retrained without the forget set for choosing; what is reported
        later must not be of them. None where there are none.

    Raises:
      ValueError: no settings, an unknown rule, or a task or variables that do not fit.
      ToleranceError: no setting keeps what the rule asks for.
      DivergedError: every setting diverged.

    Example:
      choices = studies.grid(unlearning.FineTune(), learning_rate=(0.1, 0.01), epochs=(2, 5))
      chosen = studies.sweep(key, model, variables, studies.choosing_task(key, task), choices)

    Source: Di et al. 2024, §6.1: "we create a new auditing set" and "select the hyper-parameters
    that maximize the difference between the validation accuracy and the MIA accuracy" on it; epochs
    among {5, 10, ..., 30} in its public code.
    """
    if not methods:
        raise ValueError("methods must hold at least one setting, got none")
    rule_of(rule)
    question = choosing_task(jax.random.fold_in(key, 0), task)
    check_task(question, model)
    for weights in (variables, reference):
        if weights is not None:
            check_variables(weights, model)
    size = min(question.forget.size, question.test.size)
    if attack.folds is not None and size < attack.folds:
        raise ValueError(
            f"{attack.folds} folds need at least {attack.folds} forget examples and twice as many "
            f"validation examples, got {task.forget.size} and {task.validation.size}; "
            f"choose an attack with folds <= {size}"
        )
    unlearned = _unlearn(jax.random.fold_in(key, 1), model, variables, question, methods)
    judge_key = jax.random.fold_in(key, 2)

    def judge(weights: Variables) -> Measured:
        return _measure(jax.random.clone(judge_key), model, weights, question, attack)

    found = {
        place: Trial(methods[place], *LOST[:2], str(one), *LOST[2:])
        if isinstance(one, DivergedError)
        else _trial(methods[place], judge(one.variables))
        for place, one in unlearned
    }
    trials = tuple(found[place] for place in range(len(methods)))
    finished = [trial for trial in trials if trial.diverged is None]
    if not finished:
        raise DivergedError(f"all {len(trials)} settings diverged; the first: {trials[0].diverged}")
    original = judge(variables)
    retrained = None if reference is None else judge(reference)
    measured = [trial.measured for trial in finished]
    best = choose(rule, measured, original=original, reference=retrained)
    return Selection(finished[best].method, trials, original, retrained)


def _unlearn(
    key: Key[Array, ""],
    model: Model,
    variables: Variables,
    question: Task,
    methods: Sequence[Unlearner],
) -> Iterator[tuple[int, Unlearned | DivergedError]]:
    """Yields what each method made of the question, with its place; one run for all its epochs."""
    alike: list[tuple[Unlearner, list[int]]] = []
    for place, method in enumerate(methods):
        shortened = with_epochs(method, 1) if is_prefix_stable(method) else method
        group = next((places for first, places in alike if first == shortened), None)
        if group is None:
            alike.append((shortened, [place]))
        else:
            group.append(place)
    for _, places in alike:
        method, own = methods[places[0]], jax.random.clone(key)
        epochs = [getattr(methods[place], "epochs", 0) for place in places]
        if len(places) > 1 and min(epochs) > 0 and is_prefix_stable(method):
            runs = dict(unlearn_for(own, model, variables, question, method, epochs))
            yield from ((place, runs[n]) for place, n in zip(places, epochs, strict=True))
            continue
        for place in places:
            try:
                yield place, methods[place](jax.random.clone(key), model, variables, question)
            except DivergedError as error:
                yield place, error


def _trial(method: Unlearner, measured: Measured) -> Trial:
    accuracy, mia, retain, ks = measured
    return Trial(method, accuracy, mia, None, retain, ks)


def _measure(
    key: Key[Array, ""],
    model: Model,
    variables: Variables,
    question: Task,
    attack: MembershipInference,
) -> Measured:
    losses = [
        np.asarray(cross_entropy_losses(predict(model, variables, part.x), part.y))
        for part in (question.forget, question.test)
    ]
    return Measured(
        accuracy(model, variables, question.test),
        attack(key, model, variables, question).metrics["accuracy"],
        accuracy(model, variables, question.retain),
        loss_divergence(*losses)["ks_statistic"],
    )
