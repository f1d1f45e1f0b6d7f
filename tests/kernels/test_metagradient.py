"""The metagradient: against dense reverse mode, finite differences, and its own memory."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from unlearnkit import kernels
from unlearnkit.costs import program_bytes
from unlearnkit.kernels import plan_checkpoints

STEPS = 7


def step(state, meta, row):
    """Momentum on a weighted squared error: inputs, weights and two hyperparameters enter."""
    w, velocity = state
    x, share, rate = meta["x"][row["i"]], meta["share"][row["i"]], row["rate"] * meta["rate"]
    slope = jax.grad(lambda v: jnp.mean(share * (jnp.tanh(x @ v) - 0.3) ** 2))(w)
    velocity = meta["momentum"] * velocity + slope
    return w - rate * velocity, velocity


def outcome(state, meta):
    return jnp.sum(jnp.sin(state[0])) + 0.1 * meta["rate"] ** 2


def problem(dtype=jnp.float64):
    keys = jax.random.split(jax.random.key(0), 3)
    meta = {
        "x": jax.random.normal(keys[0], (10, 3), dtype),
        "share": jnp.ones(10, dtype),
        "rate": jnp.asarray(0.5, dtype),
        "momentum": jnp.asarray(0.8, dtype),
    }
    start = jax.random.normal(keys[1], (3,), dtype), jnp.zeros(3, dtype)
    rows = {
        "i": jax.random.randint(keys[2], (STEPS, 4), 0, 10),
        "rate": jnp.linspace(1.0, 0.2, STEPS, dtype=dtype),
    }
    return start, meta, rows


def dense(start, meta, rows):
    state = start
    for t in range(STEPS):
        state = step(state, meta, jax.tree.map(lambda leaf, t=t: leaf[t], rows))
    return outcome(state, meta), state


@pytest.mark.parametrize("checkpoints", [None, 6, 7])
def test_is_dense_reverse_mode(x64, checkpoints):
    """With nested loops of several depths, all but one of which leave turns empty."""
    arguments = problem()
    run = jax.jit(
        lambda *given: kernels.metagradient(step, outcome, *given, checkpoints=checkpoints)
    )(*arguments)
    (value, end), want = jax.value_and_grad(dense, argnums=1, has_aux=True)(*arguments)
    np.testing.assert_allclose(run.value, value, rtol=1e-14)
    for got, wanted in ((run.end, end), (run.gradient, want)):
        np.testing.assert_allclose(ravel_pytree(got)[0], ravel_pytree(wanted)[0], rtol=1e-12)


def test_is_the_finite_difference_of_the_outcome(x64):
    start, meta, rows = problem()
    run = kernels.metagradient(step, outcome, start, meta, rows)
    flat, unravel = ravel_pytree(meta)
    value = jax.jit(lambda z: dense(start, unravel(z), rows)[0])
    for seed in range(3):
        way = jax.random.normal(jax.random.key(seed), flat.shape)
        ends = [value(flat + sign * 1e-5 * way) for sign in (1, -1)]
        along = ravel_pytree(run.gradient)[0] @ way
        np.testing.assert_allclose(along, (ends[0] - ends[1]) / 2e-5, rtol=1e-7)


def test_what_is_selected_for_many_steps_is_what_each_step_picks(x64):
    start, meta, rows = problem()

    def select(meta, rows):
        return rows | {"x": meta["x"][rows["i"]], "share": meta["share"][rows["i"]]}

    def selected(state, meta, row):
        every = jnp.arange(row["i"].size)
        return step(state, meta | {"x": row["x"], "share": row["share"]}, row | {"i": every})

    want = kernels.metagradient(step, outcome, start, meta, rows)
    got = kernels.metagradient(selected, outcome, start, meta, rows, select=select)
    for one, other in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-12)


@pytest.mark.parametrize("steps", [1, 2, 5, 64, 1000])
def test_plans_hold_the_steps_and_keep_to_the_budget(steps):
    assert math.prod(plan_checkpoints(steps)) >= steps
    assert sum(plan_checkpoints(steps)) <= 2 * math.sqrt(steps) + 1
    plans = [plan_checkpoints(steps, budget) for budget in (steps, 2 * steps.bit_length() + 2)]
    for plan, budget in zip(plans, (steps, 2 * steps.bit_length() + 2), strict=True):
        assert math.prod(plan) >= steps
        assert sum(plan) <= budget
    for one, more in itertools.pairwise(range(2 * steps.bit_length() + 2, steps + 1)):
        assert len(plan_checkpoints(steps, more)) <= len(plan_checkpoints(steps, one))


def memory(steps, width, checkpoints=None):
    """The bytes of the compiled program of a run that holds `width` numbers."""
    size = jax.ShapeDtypeStruct((width,), jnp.float32)

    def descend(state, meta, row):
        return state - row * meta * jnp.sin(state)

    @jax.jit
    def run(start, meta, inputs):
        return kernels.metagradient(
            descend, lambda s, z: jnp.sum(s), start, meta, inputs, checkpoints=checkpoints
        ).gradient

    scalar = jax.ShapeDtypeStruct((), jnp.float32)
    return program_bytes(run, size, scalar, jax.ShapeDtypeStruct((steps,), jnp.float32))


def test_memory_grows_with_the_root_of_the_steps():
    width = 10_000
    states = {steps: memory(steps, width) / (4 * width) for steps in (64, 1024)}
    assert states[64] < 2 * 8 + 8
    assert states[1024] < 2 * 32 + 8
    assert memory(1024, width, 24) / (4 * width) < 24 + 8
    assert memory(1024, width, 1024) / (4 * width) > 1024


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"checkpoints": 5}, r"checkpoints=5 are too few for a schedule of 7.*checkpoints >= 6"),
        ({"inputs": {"i": jnp.zeros((0, 4), int)}}, "one row for each step"),
        ({"inputs": {"a": jnp.zeros(3), "b": jnp.zeros(4)}}, r"arrays of \[3, 4\] rows"),
        ({"outcome": lambda state, meta: state[0]}, "outcome must return one scalar"),
    ],
)
def test_refuses_what_cannot_be_run(change, message):
    start, meta, rows = problem(jnp.float32)
    given = {"outcome": outcome, "inputs": rows} | change
    with pytest.raises(ValueError, match=message):
        kernels.metagradient(step, given.pop("outcome"), start, meta, given.pop("inputs"), **given)
