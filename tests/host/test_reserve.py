"""Room of few sizes, in which nothing is computed otherwise."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from unlearnkit import models
from unlearnkit.base import Dataset, Normalisation
from unlearnkit.host import host_key, reserve, room_for, several_epochs
from unlearnkit.host.reserve import FINE, LARGEST_BYTES, LEAST
from unlearnkit.training import (
    CrossEntropy,
    Recipe,
    init_train_state,
    predict,
    rate_table,
    take_steps,
)

KEY = jax.random.key(2)


@given(st.integers(0, 10**7))
def test_there_is_room_and_not_much_more(n):
    room = room_for(n)
    assert room >= max(n, LEAST)
    assert room_for(room) == room
    assert room <= max(LEAST, 2 * n if n <= FINE else 1.125 * n + 1)


@given(st.integers(0, 10**6), st.integers(0, 10**6))
def test_more_examples_have_no_less_room(one, other):
    least, most = sorted((one, other))
    assert room_for(least) <= room_for(most)


def test_sizes_are_few():
    assert len({room_for(n) for n in range(FINE + 1)}) == 5
    assert len({room_for(n) for n in range(FINE, 2 * FINE)}) <= 9


@pytest.mark.parametrize("n", [1, 255, 256, 257, 700])
def test_what_is_held_stays_and_the_rest_is_zero(n):
    normalisation = Normalisation("n", (0.5,), (0.25,))
    dataset = Dataset(jnp.arange(1.0, n + 1)[:, None], jnp.ones(n, jnp.int32), normalisation)
    held = reserve(dataset)
    assert held.size == room_for(n)
    assert held.normalisation == normalisation
    for old, new in zip(dataset[:2], held[:2], strict=True):
        assert new.dtype == old.dtype
        np.testing.assert_array_equal(new[:n], old)
        assert not np.any(new[n:])
    assert reserve(held) is held


def test_large_data_stay_as_they_are():
    row = LARGEST_BYTES // LEAST // 4
    fits, exceeds = (np.zeros((3, row + more), np.float32) for more in (0, 1))
    assert reserve(fits).shape == (LEAST, row)
    assert reserve(exceeds) is exceeds


def test_traced_arrays_stay_as_they_are():
    assert jax.eval_shape(reserve, jnp.zeros((3, 2))).shape == (3, 2)


def test_data_stay_on_their_device():
    device = jax.devices()[-1]
    held = reserve(jax.device_put(jnp.ones((3, 2)), device))
    assert held.devices() == {device}
    assert held.committed
    assert not reserve(jnp.ones((3, 2))).committed


class Normed(nn.Module):
    @nn.compact
    def __call__(self, x, train=False):
        x = nn.BatchNorm(use_running_average=not train)(nn.Conv(3, (3, 3))(x))
        return nn.Dense(3)(nn.relu(x).reshape(len(x), -1))


NETWORKS = {
    "mlp": models.create("mlp", input_shape=(5, 5, 1), n_classes=3, hidden=(6,)),
    "normed": models.from_linen(Normed(), input_shape=(5, 5, 1)),
}


@pytest.mark.parametrize(("name", "n"), [("mlp", 300), ("normed", 11)])
def test_training_on_reserved_data_has_the_same_bits(name, n, monkeypatch, optimised):
    from unlearnkit.training import unit

    model = NETWORKS[name]
    x = jax.random.uniform(jax.random.key(0), (n, 5, 5, 1))
    dataset = Dataset(x, (jnp.arange(n) % 3).astype(jnp.int32))
    recipe = Recipe(epochs=2, batch_size=min(n, 90), augmentation="shift", shift=1)
    steps = recipe.steps_per_epoch(n)
    rows = several_epochs(host_key(KEY), range(2), n, recipe.batch_size)
    state = init_train_state(recipe, steps, model.init(KEY))
    settings = {"objective": CrossEntropy(model, recipe), "recipe": recipe, "keep": True}
    arguments = rows, rate_table(recipe, steps, len(rows)), KEY
    reserved = take_steps(state, dataset, *arguments, **settings)
    monkeypatch.setattr(unit, "reserve", lambda tree: tree)
    plain = take_steps(state, dataset, *arguments, **settings)
    jax.tree.map(np.testing.assert_array_equal, reserved, plain)


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("n", [1, 11, 300])
@pytest.mark.parametrize("chunk", [1000, 7])
def test_prediction_in_reserved_room_is_the_same(name, n, chunk):
    model = NETWORKS[name]
    variables = model.init(KEY)
    x = jax.random.uniform(jax.random.key(0), (n, 5, 5, 1))
    found = predict(model, variables, x, chunk=chunk)
    assert found.shape == (n, 3)
    np.testing.assert_allclose(found, model.apply(variables, x), rtol=1e-5, atol=1e-6)
