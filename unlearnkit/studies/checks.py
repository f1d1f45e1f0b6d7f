"""What can be checked of a study before anything is trained."""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Key

from unlearnkit.base import (
    Dataset,
    Model,
    RobustTrainer,
    Task,
    Unlearned,
    Unlearner,
    Variables,
)
from unlearnkit.costs import available_bytes
from unlearnkit.host.random import host_key
from unlearnkit.models.fresh import can_start_afresh
from unlearnkit.poisoning import Budget
from unlearnkit.studies.budget import CountsItself
from unlearnkit.studies.poisoned import ask
from unlearnkit.studies.study import Pair, Study
from unlearnkit.training import train_like
from unlearnkit.validation import check_compatible

_FEW = (32, 8, 16, 16)
"""Examples of each part of the task, to try a method on that does not say what it returns."""
_COPIES = 4
"""Of the data (parts of the task, poisoned sets, batches), and of weights in an optimiser."""


def check(study: Study, key: Key[Array, ""]) -> None:
    """Checks everything that can be before any training: data, splits, batches, memory.

    A method of another package that does not say what it returns is tried on a few examples.

    Args:
      study: what meets what.
      key: the one of the run, which decides the splits.

    Raises:
      TypeError: a method that does not take `on_epoch`, or does not return `Unlearned`.
      ValueError: data that do not fit a network, a request that they cannot answer, a batch that
        does not fit, or more memory than there is.

    Example:
      studies.check(study, jax.random.key(0))  # then studies.run(study, jax.random.key(0))
    """
    for name, method in study.methods.items():
        _check_signature(name, method)
    for name, defence in study.defences.items():
        if study.start and isinstance(defence, RobustTrainer):
            _check_start(name, defence)
    for dataset, pair in study.named.data.items():
        at = f"[{dataset!r}]" if dataset else ""
        for model in study.named.networks.values():
            for part, examples in pair._asdict().items():
                if examples is not None:
                    check_compatible(examples, model, name=f"{part}{at}")
        if pair.validation is not None:
            _check_validation(pair.validation, pair.train, f"validation{at}")
    _check_memory(study)
    _check_identified(study)
    for pair in study.named.data.values():
        tasks = _tasks(study, key, pair)
        for recipe in study.named.recipes.values():
            for task in tasks if _trains(study) else ():
                recipe.steps_per_epoch(task.retain.size)
            if study.attacks:
                recipe.steps_per_epoch(pair.train.size)
        for model in study.named.networks.values():
            for recipe in study.named.recipes.values():
                for name, method in study.methods.items():
                    _check_method(name, train_like(method, recipe), model, tasks)


def _trains(study: Study) -> bool:
    """Whether a forget request of a study trains a network, or counts what that would cost."""
    named = study.named
    given = named.original.keys() >= named.networks.keys()
    return not given or study.reference != "none" or bool(study.budgets)


def _check_identified(study: Study) -> None:
    """Raises ValueError if a share of the poisons holds none."""
    least = min(study.identified)
    for name, attack in study.named.attacks.items():
        budget = getattr(attack, "budget", None)
        if not isinstance(budget, Budget):
            continue
        for pair in study.named.data.values():
            poisons = budget.of(pair.train.size)
            if round(least * poisons) < 1:
                raise ValueError(
                    f"identified={least:g} of the {poisons} poisons of {name or 'the attack'} is "
                    "none: there would be nothing to forget; choose a larger share"
                )


def _check_start(name: str, defence: RobustTrainer) -> None:
    if "variables" not in inspect.signature(defence.fit).parameters:
        raise ValueError(
            f"defences[{name!r}] cannot begin from the study's start: its fit takes no variables; "
            "leave out the defence or the start"
        )


def _check_validation(validation: Dataset, train: Dataset, name: str) -> None:
    if validation.normalisation != train.normalisation:
        raise ValueError(
            f"{name} must be normalised like the training set, "
            f"got {validation.normalisation} and {train.normalisation}"
        )


def _tasks(study: Study, key: Key[Array, ""], pair: Pair) -> list[Task]:
    """Returns the task of each forget request, as one seed has it."""
    split_key = host_key(key).fold_in(0).split(5)[0].typed()
    return [ask(split_key, pair, request)[1] for request in study.named.forget.values()]


def _check_signature(name: str, method: Unlearner) -> None:
    try:
        signature = inspect.signature(method)
    except (TypeError, ValueError):  # a callable of C, which says nothing of itself
        return
    try:
        signature.bind(None, None, None, None, on_epoch=None)
    except TypeError as error:
        raise TypeError(
            f"methods[{name!r}] must be callable as (key, model, variables, task, *, "
            f"on_epoch=None): {error}"
        ) from None
    said = signature.return_annotation
    if said is not signature.empty and "Unlearned" not in str(said) and said is not Any:
        raise TypeError(_returns(name, str(getattr(said, "__name__", said))))


def _returns(name: str, found: str) -> str:
    return f"methods[{name!r}] must return Unlearned(variables, info), got {found}"


def _check_method(name: str, method: Unlearner, model: Model, tasks: list[Task]) -> None:
    """Raises an error if a method says that it cannot do it, or does it wrong on few examples."""
    if tasks and isinstance(method, CountsItself):
        shapes = _shapes(model)
        for task in tasks:
            method.example_gradients(shapes, task)
    if tasks and not _says_what_it_returns(method):
        _try(name, method, model, tasks[0])


def _says_what_it_returns(method: Callable[..., Any]) -> bool:
    try:
        return inspect.signature(method).return_annotation is not inspect.Signature.empty
    except (TypeError, ValueError):
        return False


def _try(name: str, method: Unlearner, model: Model, task: Task) -> None:
    sizes = [min(n, part.size) for n, part in zip(_FEW, task, strict=True)]
    few = Task(*(part.take(np.arange(n)) for n, part in zip(sizes, task, strict=True)))
    if not can_start_afresh(model):
        return
    variables = jax.jit(model.init)(jax.random.key(0))
    try:
        found = method(jax.random.key(0), model, variables, few, on_epoch=None)
    except Exception:  # it may refuse so few examples, and says so of the real ones in time
        return
    if not isinstance(found, Unlearned):
        raise TypeError(_returns(name, type(found).__name__))


def _check_memory(study: Study) -> None:
    """Raises an error if a study would not fit into memory, before the system ends it."""
    there = available_bytes()
    if there is None:
        return
    data = max(
        sum(part.x.nbytes for part in pair if part is not None)
        for pair in study.named.data.values()
    )
    networks = {name: _weights(model) for name, model in study.named.networks.items()}
    largest = max(networks, key=lambda name: networks[name])
    counts = [int(getattr(audit, "count", 0)) for audit in study.audits.values()]
    many = 2 * study.seeds + max([0, *counts]) * 2 + _COPIES
    needed = _COPIES * data + many * networks[largest]
    if needed > there:
        raise ValueError(
            f"this study needs about {needed / 1e9:.1f} GB ({_COPIES} times the data and {many} "
            f"times the weights of {largest or 'the network'}), and {there / 1e9:.1f} GB are free; "
            "take fewer seeds, smaller ensembles or less data"
        )


@functools.lru_cache(maxsize=64)
def _shapes(model: Model) -> Variables:
    found: Variables = jax.eval_shape(model.init, jax.random.key(0))
    return found


def _weights(model: Model) -> int:
    shapes = _shapes(model)
    return sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(shapes))
