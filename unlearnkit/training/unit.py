"""The one program that trains: some steps of stochastic gradient descent, compiled once.

What a run is made of is kept apart by when it is known. The *form* of a recipe and of an objective
(which terms exist, the network, shapes) is what a program is compiled for. Their *numbers* (learning
rates, momentum, weight decay, temperatures, ...), the rows of each batch and how many steps are
taken are arguments. So another learning rate, number of epochs, seed or compute budget, and mostly
another size of the data, compile nothing.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from unlearnkit.base import Dataset
from unlearnkit.training.numbers import join_numbers, split_numbers
from unlearnkit.training.recipe import Recipe, RecipeNumbers, optimizer_of_form, split_recipe
from unlearnkit.training.reserve import reserve
from unlearnkit.training.step import Metrics, Objective, TrainState, take_step

STEPS = 64
"""Steps of a call at most; a run is as many calls as it needs, the last one for what is left."""


def take_steps(
    state: TrainState,
    dataset: Dataset,
    batches: Int[np.ndarray, "steps batch"],
    rates: Float[np.ndarray, " steps"],
    key: Key[Array, ""],
    context: Any = None,
    *,
    objective: Objective,
    recipe: Recipe,
    keep: bool = False,
) -> tuple[TrainState, Mapping[str, Float[np.ndarray, "steps ..."]]]:
    """Returns the state after a step on each batch in turn, and the metrics of each step.

    One compiled program takes any number of steps at any rates; see the module.

    Args:
      state: where the run stands; donated, unless `keep`.
      dataset: what `batches` indexes; where it is to be used again, `reserve` it first.
      batches: the rows of each step's examples.
      rates: the learning rate of each step.
      key: of all steps; each step's own is `fold_in(key, state.step)`.
      context: passed on to the objective.
      objective: what each step descends.
      recipe: of which the rates and the number of epochs are not read.
      keep: leaves `state` as it is.
    """
    run = _kept_unit if keep else _unit
    form, numbers = split_recipe(recipe)
    objective_form, objective_numbers = split_numbers(objective)
    held = reserve(dataset)
    parts: list[Metrics] = []
    for start in range(0, len(batches), STEPS):
        rows, now = batches[start : start + STEPS], rates[start : start + STEPS]
        state, metrics = run(
            state,
            held,
            *jax.device_put((_filled(rows, np.int32), _filled(now, np.float32))),
            np.int32(len(rows)),
            key,
            context,
            (numbers, objective_numbers),
            objective=objective_form,
            recipe=form,
        )
        parts.append(metrics)
    sizes = [min(STEPS, len(batches) - start) for start in range(0, len(batches), STEPS)]
    measured = [
        {name: np.asarray(values)[:size] for name, values in part.items()}
        for part, size in zip(parts, sizes, strict=True)
    ]
    names = measured[0] if measured else ()
    return state, {name: np.concatenate([part[name] for part in measured]) for name in names}


def _take_steps(
    state: TrainState,
    dataset: Dataset,
    batches: Int[Array, "most batch"],
    rates: Float[Array, " most"],
    count: Int[Array, ""],
    key: Key[Array, ""],
    context: Any,
    numbers: tuple[RecipeNumbers, Sequence[float]],
    *,
    objective: Objective,
    recipe: Recipe,
) -> tuple[TrainState, Metrics]:
    """Returns the state after the first `count` of the batches, and metrics of which as many hold."""
    recipe_numbers, objective_numbers = numbers
    objective = join_numbers(objective, objective_numbers)

    def step(state: TrainState, rows: Array, rate: Array) -> tuple[TrainState, Metrics]:
        optimizer = optimizer_of_form(recipe, recipe_numbers, lambda _: rate)
        noise = recipe_numbers.gradient_noise
        return take_step(objective, optimizer, noise, state, dataset.take(rows), key, context)

    shapes = jax.eval_shape(step, state, batches[0], rates[0])[1]
    room = jax.tree.map(lambda m: jnp.zeros((batches.shape[0], *m.shape), m.dtype), shapes)

    def body(i: Array, carry: tuple[TrainState, Metrics]) -> tuple[TrainState, Metrics]:
        state, metrics = step(carry[0], batches[i], rates[i])
        return state, jax.tree.map(lambda held, m: held.at[i].set(m), carry[1], metrics)

    return jax.lax.fori_loop(0, count, body, (state, room))


_unit = partial(jax.jit, static_argnames=("objective", "recipe"), donate_argnames=("state",))(
    _take_steps
)
_kept_unit = partial(jax.jit, static_argnames=("objective", "recipe"))(_take_steps)


def _filled(values: np.ndarray, dtype: Any) -> np.ndarray:
    room = np.zeros((STEPS, *values.shape[1:]), dtype)
    room[: len(values)] = values
    return room
