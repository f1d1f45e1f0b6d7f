"""The compiled training loop: a number of SGD steps, compiled once.

The inputs of a run are split in two. The *form* of a recipe and of an objective (which terms exist,
the network, shapes) is what a program is compiled for. Their *numbers* (learning rates, momentum,
weight decay, temperatures, ...), the rows of each batch and how many steps are taken are arguments.
Changing the learning rate, number of epochs, seed or compute budget compiles nothing, nor does, in
most cases, the size of the data.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Array, Float, Int, Key

from unlearnkit.base import Dataset
from unlearnkit.host.reserve import reserve
from unlearnkit.training.numbers import join_numbers, split_numbers
from unlearnkit.training.recipe import Recipe, RecipeNumbers, optimizer_of_form, split_recipe
from unlearnkit.training.step import Metrics, Objective, TrainState, take_step

STEPS = 64
"""The most steps per call; longer runs take several calls."""

Measured = Mapping[str, np.ndarray]
"""The metrics of each step, on the host."""


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
    mesh: Mesh | None = None,
) -> tuple[TrainState, Measured]:
    """Returns the state after a step on each batch in turn, and the metrics of each step.

    One compiled program takes any number of steps at any rates; see the module. Both training and
    the replay of a log call it, so the same program computes both.

    Args:
      state: before the first step; donated (its buffers are gone after the call), unless `keep`.
      dataset: what `batches` indexes; `reserve` it before many calls.
      batches: the rows of each step's examples.
      rates: the learning rate of each step.
      key: of all steps; each step's own is `fold_in(key, state.step)`.
      context: passed on to the objective.
      objective: what each step minimises.
      recipe: hyperparameters; its rates, batch size and number of epochs are not used.
      keep: leaves `state` as it is.
      mesh: of one axis, whose devices take an equal share of every batch each; None for one device.

    Returns:
      The state, and metrics of shape [steps, ...].
    """
    run = _kept_unit if keep else _unit
    return _call(
        partial(run, mesh=mesh), state, dataset, batches, rates, key, context, objective, recipe
    )


def take_steps_together(
    states: TrainState,
    dataset: Dataset,
    batches: Int[np.ndarray, "lanes steps batch"],
    rates: Float[np.ndarray, "lanes steps"],
    keys: Key[Array, " lanes"],
    context: Any = None,
    *,
    objective: Objective,
    recipe: Recipe,
) -> tuple[TrainState, Measured]:
    """Returns what `take_steps` returns of several runs at once, up to rounding, by one program.

    Args:
      states: with a leading axis of runs; left as they are.
      dataset: what all of `batches` index.
      batches: the rows of each run's steps.
      rates: the learning rate of each run's steps.
      keys: of each run's steps.
      context: passed on to the objective, the same for all.
      objective: see `take_steps`.
      recipe: see `take_steps`.

    Returns:
      The states, and metrics of shape [lanes, steps, ...].
    """
    return _call(
        _unit_in_lanes, states, dataset, batches, rates, keys, context, objective, recipe, axis=1
    )


def _call(
    run: Callable[..., tuple[TrainState, Metrics]],
    state: TrainState,
    dataset: Dataset,
    batches: np.ndarray,
    rates: np.ndarray,
    key: Key[Array, ...],
    context: Any,
    objective: Objective,
    recipe: Recipe,
    *,
    axis: int = 0,
) -> tuple[TrainState, Measured]:
    """Runs a unit as often as the steps need, on successive parts of them along `axis`."""
    form, numbers = split_recipe(recipe)
    objective_form, objective_numbers = split_numbers(objective)
    held, given = reserve(dataset), jax.device_put((numbers, objective_numbers))
    parts: list[tuple[Metrics, int]] = []
    for rows, now, count in _calls(batches, rates, axis):
        arrays = jax.device_put((rows, now, np.int32(count)))
        state, metrics = run(
            state, held, *arrays, key, context, given, objective=objective_form, recipe=form
        )
        parts.append((metrics, count))
    if not parts:
        return state, {}
    cut = (slice(None),) * axis
    measured = [(jax.device_get(metrics), count) for metrics, count in parts]
    return state, {
        name: np.concatenate([part[name][(*cut, slice(count))] for part, count in measured], axis)
        for name in parts[0][0]
    }


def _calls(batches: np.ndarray, rates: np.ndarray, axis: int) -> Any:
    """Yields the rows and the rates of each call, in full room, and how many of them hold."""
    total = batches.shape[axis]
    for start in range(0, total, STEPS):
        count = min(STEPS, total - start)
        part = (*(slice(None),) * axis, slice(start, start + count))
        yield _with_room(batches[part], np.int32, axis), _with_room(rates[part], None, axis), count


def _with_room(array: np.ndarray, dtype: Any, axis: int) -> np.ndarray:
    """Pads an array with zeros to `STEPS` along an axis."""
    before, (held, *after) = array.shape[:axis], array.shape[axis:]
    roomy = np.zeros((*before, STEPS, *after), dtype or array.dtype)
    roomy[(*(slice(None),) * axis, slice(held))] = array
    return roomy


def _take_steps(
    *arguments: Any, objective: Objective, recipe: Recipe, mesh: Mesh | None = None
) -> tuple[TrainState, Metrics]:
    """Returns what `_loop` returns; each device of a mesh takes an equal share of every batch."""
    if mesh is None:
        return _loop(*arguments, objective=objective, recipe=recipe)
    (shares,) = mesh.axis_names
    whole, share = PartitionSpec(), PartitionSpec(None, shares)
    run = jax.shard_map(
        partial(_loop, objective=objective, recipe=recipe, shares=shares),
        mesh=mesh,
        in_specs=(whole, whole, share, *(whole,) * 5),
        out_specs=whole,
        check_vma=False,
    )
    return run(*arguments)


def _loop(
    state: TrainState,
    dataset: Dataset,
    batches: Int[Array, "room batch"],
    rates: Float[Array, " room"],
    count: Int[Array, ""],
    key: Key[Array, ""],
    context: Any,
    numbers: tuple[RecipeNumbers, Sequence[Any]],
    *,
    objective: Objective,
    recipe: Recipe,
    shares: str | None = None,
) -> tuple[TrainState, Metrics]:
    """Returns the state after the first `count` batches, and metrics of which as many hold."""
    recipe_numbers, objective_numbers = numbers
    descended = join_numbers(objective, objective_numbers)

    def step(state: TrainState, rows: Array, rate: Array) -> tuple[TrainState, Metrics]:
        optimizer = optimizer_of_form(recipe, recipe_numbers, lambda _: rate)
        noise, batch = recipe_numbers.gradient_noise, dataset.take(rows)
        return take_step(descended, optimizer, noise, state, batch, key, context, shares=shares)

    abstract = jax.eval_shape(step, state, batches[0], rates[0])[1]
    room = batches.shape[0]
    blank = jax.tree.map(lambda metric: jnp.zeros((room, *metric.shape), metric.dtype), abstract)

    def body(index: Array, reached: tuple[TrainState, Metrics]) -> tuple[TrainState, Metrics]:
        state, measured = reached
        state, metrics = step(state, batches[index], rates[index])
        kept = jax.tree.map(lambda all_, now: all_.at[index].set(now), measured, metrics)
        return state, kept

    # A scan over all of the room that skips what is behind `count` takes 6 to 40 % longer where
    # steps are short.
    found: tuple[TrainState, Metrics] = jax.lax.fori_loop(0, count, body, (state, blank))
    return found


@partial(jax.jit, static_argnames=("objective", "recipe"))
def _unit_in_lanes(
    states: TrainState,
    dataset: Dataset,
    batches: Int[Array, "lanes room batch"],
    rates: Float[Array, "lanes room"],
    count: Int[Array, ""],
    keys: Key[Array, " lanes"],
    context: Any,
    numbers: tuple[RecipeNumbers, Sequence[Any]],
    *,
    objective: Objective,
    recipe: Recipe,
) -> tuple[TrainState, Metrics]:
    in_lanes = jax.vmap(
        partial(_loop, objective=objective, recipe=recipe),
        in_axes=(0, None, 0, 0, None, 0, None, None),
    )
    return in_lanes(states, dataset, batches, rates, count, keys, context, numbers)


_STATIC = ("objective", "recipe", "mesh")
_unit = partial(jax.jit, static_argnames=_STATIC, donate_argnums=0)(_take_steps)
_kept_unit = partial(jax.jit, static_argnames=_STATIC)(_take_steps)
