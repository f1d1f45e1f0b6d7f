"""The gradient through a whole training schedule, with few of its states kept.

Reverse mode needs the state before each step. What is kept are the states at which the turns of
nested loops begin; the others are computed anew on the way back. Two loops of √T turns each keep
2 √T states and take each step twice more (once to come back to it, once to differentiate it); more
loops keep fewer and take it more often, down to 2 log₂ T.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from unlearnkit.base import Params
from unlearnkit.kernels import _trees

Carry: TypeAlias = Params
"""A pytree of arrays: what a training run holds between two steps."""
Meta: TypeAlias = Params
"""A pytree of floating-point arrays that the training depends on."""
Inputs: TypeAlias = Params
"""A pytree of arrays [steps, ...], one row for each step."""
Step: TypeAlias = Callable[[Carry, Meta, Inputs], Carry]
Select: TypeAlias = Callable[[Meta, Inputs], Inputs]


class Metagradient(NamedTuple):
    """A training run, and how its outcome depends on what it was made from.

    Attributes:
      value: the outcome.
      gradient: its derivative, like `meta`.
      end: the state after the last step.
    """

    value: Float[Array, ""]
    gradient: Meta
    end: Carry


def metagradient(
    step: Step,
    outcome: Callable[[Carry, Meta], Array],
    start: Carry,
    meta: Meta,
    inputs: Inputs,
    *,
    select: Select | None = None,
    checkpoints: int | None = None,
) -> Metagradient:
    """Returns the outcome of a training run, and its gradient through every step of it.

    dL(s_T, z)/dz,   s_{t+1} = step(s_t, z, u_t),   u = select(z, inputs)

    exact but for rounding, for any z: rows of the data, their weights, a learning rate. With the
    default √T checkpoints it takes each step three times forward and once backward.

    Args:
      step: (state, z, a row of the inputs) -> the next state, of the same shapes.
      outcome: (last state, z) -> scalar L.
      start: s_0.
      meta: z.
      inputs: a pytree of arrays [T, ...], as the rows of each batch and its learning rate.
      select: (z, inputs [k, ...]) -> what k successive steps are given in their place. What picks
        entries of z for single steps belongs here and not into `step`: it is then differentiated
        once for all k, not once a step for all of z. None gives the inputs as they are.
      checkpoints: the most states that are kept at a time; None for about 2 √T. Fewer cost more
        passes over the steps.

    Raises:
      ValueError: no steps, inputs of different lengths, an outcome that is no scalar, or fewer
        checkpoints than any order of recomputation can do with.

    Example:
      def step(weights, rate, batch):
          slope = jax.grad(loss)(weights, *batch)
          return jax.tree.map(lambda w, g: w - rate * g, weights, slope)
      def outcome(weights, rate):
          return loss(weights, x, y)
      batches = (x.reshape(4, 6, 3), y.reshape(4, 6))
      run = kernels.metagradient(step, outcome, params, jnp.float32(0.1), batches)
      run.gradient  # of the loss after 4 steps, by the learning rate

    Source: Engstrom et al. 2025, §2 (REPLAY), who keep the states of a tree of recomputations;
    Griewank and Walther 2000 for how few will do.
    """
    steps = _count_steps(inputs)
    _trees.check_scalar("outcome", outcome, start, meta)
    turns = plan_checkpoints(steps, checkpoints)
    room = math.prod(turns)

    def run(meta: Meta) -> tuple[Array, Carry]:
        padded = jax.tree.map(lambda leaf: _with_room(leaf, room), inputs)
        taken = None if room == steps else jnp.arange(room) < steps
        end = _run(step, select or _as_they_are, turns, start, meta, (padded, taken))
        return outcome(end, meta), end

    (value, end), gradient = jax.value_and_grad(run, has_aux=True)(meta)
    return Metagradient(value, gradient, end)


def plan_checkpoints(steps: int, checkpoints: int | None = None) -> tuple[int, ...]:
    """Returns the turns of nested loops over `steps` steps, outermost first.

    Their product is at least `steps`, their sum is how many states are kept. Each loop but the
    innermost costs one more pass over the steps.

    Args:
      steps: T, at least 1.
      checkpoints: the most states; None for two loops.

    Raises:
      ValueError: no such loops keep so few states.

    Example:
      kernels.plan_checkpoints(100)      # (10, 10)
      kernels.plan_checkpoints(100, 15)  # (5, 5, 4)
    """
    _trees.check_positive(steps=steps)
    if checkpoints is None:
        return _shortest(steps, 2)
    plans = [_shortest(steps, loops) for loops in range(1, max(steps.bit_length(), 1) + 1)]
    fitting = [plan for plan in plans if sum(plan) <= checkpoints]
    if not fitting:
        least = min(sum(plan) for plan in plans)
        raise ValueError(
            f"checkpoints={checkpoints} are too few for a schedule of {steps} steps: recomputing "
            f"all that can be recomputed keeps {least}; give checkpoints >= {least}, or None for "
            f"{sum(_shortest(steps, 2))} and two passes more"
        )
    return fitting[0]


def _shortest(steps: int, loops: int) -> tuple[int, ...]:
    """Returns the turns of so many loops, as even as can be, whose product is at least `steps`."""
    turns: list[int] = []
    left = steps
    for remaining in range(loops, 0, -1):
        turn = next(n for n in range(1, left + 1) if n**remaining >= left)
        turns.append(turn)
        left = -(-left // turn)
    return tuple(turns)


def _run(
    step: Step,
    select: Select,
    turns: tuple[int, ...],
    state: Carry,
    meta: Meta,
    rows: tuple[Inputs, Array | None],
) -> Carry:
    """Returns the state after all rows; a loop keeps the states in which its turns begin."""
    here, *deeper = turns
    if deeper:
        parts = jax.tree.map(lambda leaf: leaf.reshape(here, -1, *leaf.shape[1:]), rows)
        inner = partial(_run, step, select, tuple(deeper))

        def turn(state: Carry, part: tuple[Inputs, Array | None]) -> tuple[Carry, None]:
            return inner(state, meta, part), None
    else:
        parts = (select(meta, rows[0]), rows[1])

        def turn(state: Carry, part: tuple[Inputs, Array | None]) -> tuple[Carry, None]:
            row, taken = part
            if taken is None:
                return step(state, meta, row), None
            return jax.lax.cond(taken, lambda s: step(s, meta, row), lambda s: s, state), None

    # A loop's body is no place for XLA to undo the recomputation, so that no barrier is needed.
    end: Carry = jax.lax.scan(jax.checkpoint(turn, prevent_cse=False), state, parts)[0]
    return end


def _as_they_are(meta: Meta, inputs: Inputs) -> Inputs:
    return inputs


def _with_room(leaf: Array, room: int) -> Array:
    """Pads with the last row, which any step can take."""
    missing = room - leaf.shape[0]
    if missing == 0:
        return leaf
    return jnp.concatenate([leaf, jnp.broadcast_to(leaf[-1:], (missing, *leaf.shape[1:]))])


def _count_steps(inputs: Inputs) -> int:
    lengths = {int(leaf.shape[0]) for leaf in jax.tree.leaves(inputs)}
    if len(lengths) != 1 or lengths == {0}:
        raise ValueError(
            "inputs must hold one row for each step, at least one and as many in every array; got "
            f"arrays of {sorted(lengths) or 'no'} rows"
        )
    (steps,) = lengths
    return steps
