"""Several epochs in one compiled call, and that nothing leaves the device inside one."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from unlearnkit import models
from unlearnkit.base import Dataset
from unlearnkit.host import host_key, reserve, several_epochs
from unlearnkit.training import (
    CrossEntropy,
    DivergedError,
    Recipe,
    fit,
    fit_many,
    init_train_state,
    rate_table,
    take_steps,
    unit,
)
from unlearnkit.training.numbers import split_numbers
from unlearnkit.training.recipe import split_recipe

KEY = jax.random.key(3)
RECIPE = Recipe(epochs=5, batch_size=8, learning_rate=0.1, schedule="cosine", shift=1)
AUGMENTED = dataclasses.replace(RECIPE, augmentation="shift_flip", gradient_noise=0.01)


@pytest.fixture(scope="module")
def problem():
    x = jax.random.uniform(jax.random.key(0), (35, 4, 4, 1))
    y = jnp.argmax(x.reshape(35, -1)[:, :3], axis=1).astype(jnp.int32)
    return models.create("mlp", input_shape=(4, 4, 1), n_classes=3, hidden=(6,)), Dataset(x, y)


def assert_same_run(one, other):
    jax.tree.map(np.testing.assert_array_equal, one.variables, other.variables)
    jax.tree.map(np.testing.assert_array_equal, one.info.history, other.info.history)
    assert one.info.cost.example_gradients == other.info.cost.example_gradients


def test_several_epochs_a_call_are_the_same_run(problem):
    told = {calls: [] for calls in (1, 2, 9)}
    runs = {
        calls: fit(
            KEY, *problem, AUGMENTED, epochs_per_call=calls,
            on_epoch=lambda *arguments, calls=calls: told[calls].append(arguments),
        )
        for calls in told
    }  # fmt: skip
    for calls in (2, 9):
        assert_same_run(runs[calls], runs[1])
        assert told[calls] == told[1]
    assert [epoch for epoch, _ in told[1]] == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("batching", ["vmap", "map"])
def test_many_runs_take_several_epochs_a_call_too(problem, batching):
    keys = jax.random.split(KEY, 3)
    told = {calls: [] for calls in (1, 2)}
    runs = [
        fit_many(
            keys, *problem, RECIPE, batching=batching, epochs_per_call=calls,
            on_epoch=lambda epoch, metrics, calls=calls: told[calls].append(
                (epoch, metrics["loss"].tolist())
            ),
        )
        for calls in told
    ]  # fmt: skip
    assert runs[0].info.history["loss"].shape == (3, 5)
    assert_same_run(*runs)
    assert told[1] == told[2]
    assert told[1][0][1] == runs[0].info.history["loss"][:, 0].tolist()


def test_a_call_ends_at_each_checkpoint(problem, tmp_path):
    class Killed(Exception):
        """The process ends."""

    def kill(epoch, _):
        if epoch == 3:
            raise Killed

    options = {"checkpoint": tmp_path, "checkpoint_every": 2, "epochs_per_call": 4}
    with pytest.raises(Killed):
        fit(KEY, *problem, RECIPE, on_epoch=kill, **options)
    told = []
    resumed = fit(KEY, *problem, RECIPE, on_epoch=lambda n, _: told.append(n), **options)
    assert told == [5]  # what epochs 3 and 4 did was kept before they were told of
    jax.tree.map(
        np.testing.assert_array_equal, resumed.variables, fit(KEY, *problem, RECIPE).variables
    )


def test_the_epoch_that_diverges_is_named(problem):
    wild = dataclasses.replace(RECIPE, learning_rate=1e38, schedule="constant", momentum=0.0)
    messages = []
    for calls in (1, 5):
        with pytest.raises(DivergedError, match=r"diverged in epoch \d") as raised:
            fit(KEY, *problem, wild, epochs_per_call=calls)
        messages.append(str(raised.value))
    assert messages[0] == messages[1]


def test_bad_numbers_of_epochs_are_refused(problem, tmp_path):
    for train in (fit, lambda key, *rest, **options: fit_many(key[None], *rest, **options)):
        with pytest.raises(ValueError, match="epochs_per_call must be >= 1, got 0"):
            train(KEY, *problem, RECIPE, epochs_per_call=0)
    with pytest.raises(ValueError, match="one segment of its log"):
        fit(KEY, *problem, RECIPE, epochs_per_call=2, trajectory=tmp_path / "log")


@pytest.mark.parametrize("epochs", [1, 2, 20])
def test_nothing_passes_between_host_and_device_but_batches_and_metrics(problem, epochs):
    model, dataset = problem
    state = init_train_state(AUGMENTED, 1, model.init(KEY))
    order_key, step_key = host_key(KEY).split()
    rows = several_epochs(order_key, range(epochs), dataset.size, 8)
    rates, key = rate_table(AUGMENTED, 4, len(rows)), step_key.typed()
    settings = {"objective": CrossEntropy(model, AUGMENTED), "recipe": AUGMENTED}
    program = lowered(state, dataset, rows, rates, key, **settings)
    for word in ("callback", "infeed", "outfeed", "@SendToHost", "@RecvFromHost"):
        assert word not in program
    held = reserve(dataset)
    with jax.transfer_guard("disallow"):
        state, metrics = take_steps(state, held, rows, rates, key, **settings)
        state, metrics = take_steps(state, held, rows, rates, key, **settings)
    assert metrics["loss"].shape == (4 * epochs,)
    assert np.all(np.isfinite(metrics["loss"]))
    # The guard sees what it is for: a step that is given what the host has.
    with (
        pytest.raises(Exception, match="isallowed host-to-device transfer"),
        jax.transfer_guard("disallow"),
    ):
        take_steps(jax.device_get(state), held, rows, rates, key, **settings, keep=True)


def lowered(state, dataset, rows, rates, key, *, objective, recipe):
    """Returns the text of the program that takes these steps."""
    form, numbers = split_recipe(recipe)
    objective, objective_numbers = split_numbers(objective)
    arguments = rows, rates, np.int32(len(rows)), key, None, (numbers, objective_numbers)
    return unit._unit.lower(state, dataset, *arguments, objective=objective, recipe=form).as_text()


@pytest.mark.parametrize("keep", [False, True])
def test_the_state_is_donated_unless_it_is_to_be_kept(problem, keep):
    model, dataset = problem
    state = init_train_state(RECIPE, 4, model.init(KEY))
    leaf = jax.tree.leaves(state.variables.params)[0]
    rows = several_epochs(host_key(KEY), range(20), dataset.size, 8)
    rates, settings = rate_table(RECIPE, 4, len(rows)), {"objective": CrossEntropy(model, RECIPE)}
    take_steps(state, dataset, rows, rates, jax.random.key(4), recipe=RECIPE, keep=keep, **settings)
    assert leaf.is_deleted() != keep
