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

from unlearnkit.base import Dataset, Model, Task, Unlearned, Unlearner, Variables
from unlearnkit.costs import available_bytes
from unlearnkit.data import choose_split
from unlearnkit.host.random import host_key
from unlearnkit.studies.budget import CountsItself
from unlearnkit.studies.study import Study
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
    for dataset, (train, test) in study.named.data.items():
        at = f"[{dataset!r}]" if dataset else ""
        for model in study.named.networks.values():
            check_compatible(train, model, name=f"train{at}")
            check_compatible(test, model, name=f"test{at}")
    _check_memory(study)
    for train, test in study.named.data.values():
        tasks = _tasks(study, key, train, test)
        for recipe in study.named.recipes.values():
            for task in tasks:
                recipe.steps_per_epoch(task.retain.size)
            if study.attacks:
                recipe.steps_per_epoch(train.size)
        for model in study.named.networks.values():
            for recipe in study.named.recipes.values():
                for name, method in study.methods.items():
                    _check_method(name, train_like(method, recipe), model, tasks)


def _tasks(study: Study, key: Key[Array, ""], train: Dataset, test: Dataset) -> list[Task]:
    """Returns the task of each forget request, as one seed has it."""
    split_key = host_key(key).fold_in(0).split(5)[0].typed()
    return [
        choose_split(split_key, train, test, request).task(train, test)
        for request in study.named.forget.values()
    ]


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
    """Refuses what a method says that it cannot do, or does wrong on a few examples."""
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
    variables = jax.jit(model.init)(jax.random.key(0))
    try:
        found = method(jax.random.key(0), model, variables, few, on_epoch=None)
    except Exception:  # it may refuse so few examples, and says so of the real ones in time
        return
    if not isinstance(found, Unlearned):
        raise TypeError(_returns(name, type(found).__name__))


def _check_memory(study: Study) -> None:
    """Refuses a study that would not fit, before the system ends it."""
    there = available_bytes()
    if there is None:
        return
    data = max(train.x.nbytes + test.x.nbytes for train, test in study.named.data.values())
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
