"""Shared parts of the unlearners that take a single step."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping

import jax.numpy as jnp
from jaxtyping import Array

from unlearnkit.base import (
    Cost,
    Model,
    OnEpoch,
    Params,
    SolveInfo,
    State,
    Task,
    Unlearned,
    UnlearnInfo,
    Variables,
)
from unlearnkit.training import DivergedError, cross_entropy, predict
from unlearnkit.validation import all_finite


class SolveWarning(UserWarning):
    """A solve ended above its tolerance; the weights rest on what it had reached."""


def at_state(model: Model, state: State) -> Callable[[Params, Array], Array]:
    """Returns (params, x) -> logits [n, c] in evaluation mode, BatchNorm's statistics fixed."""
    return lambda params, x: model.apply(Variables(params, state), x)


def finish(
    model: Model,
    params: Params,
    state: State,
    task: Task,
    cost: Cost,
    *,
    solves: Mapping[str, SolveInfo] | None = None,
    history: Mapping[str, float] | None = None,
    on_epoch: OnEpoch | None = None,
) -> Unlearned:
    """Returns the outcome of a method that takes one step; warns of solves that fell short.

    Its history has one entry: loss and accuracy on the retain set afterwards, and what is given.
    Measuring it is not counted as unlearning.

    Raises:
      DivergedError: a weight is not finite.
    """
    found = dict(solves or {})
    for name, info in found.items():
        if not bool(info.converged):
            warnings.warn(
                f"the solve {name!r} did not converge: relative residual "
                f"{float(info.residual):.2g} after {int(info.steps)} steps, least curvature "
                f"{float(info.curvature):.2g}; allow more max_steps, or raise damping or tol",
                SolveWarning,
                stacklevel=3,
            )
    if not all_finite(params):
        raise DivergedError(
            "a weight is not finite after unlearning; raise the damping or lower the step or noise"
        )
    variables = Variables(params, state)
    logits = predict(model, variables, task.retain.x)
    measured = {
        "loss": float(cross_entropy(logits, task.retain.y)),
        "accuracy": float(jnp.mean(jnp.argmax(logits, -1) == task.retain.y)),
        **(history or {}),
    }
    if on_epoch is not None:
        on_epoch(1, measured)
    arrays = {name: jnp.asarray([value]) for name, value in measured.items()}
    return Unlearned(variables, UnlearnInfo(arrays, cost, found))
