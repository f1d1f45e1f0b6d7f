import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from unlearnkit.base import Dataset, Normalisation, Task, concatenate

CIFAR_LIKE = Normalisation("cifar", (0.49, 0.48, 0.45), (0.25, 0.24, 0.26))


def make(n, start=0, normalisation=CIFAR_LIKE):
    x = jnp.arange(start, start + n, dtype=jnp.float32)[:, None]
    return Dataset(x, jnp.arange(start, start + n, dtype=jnp.int32) % 3, normalisation)


@given(st.floats(0, 1), st.floats(-2, 2), st.floats(0.1, 4))
def test_normalisation_is_reversible(pixel, mean, std):
    normalisation = Normalisation("any", (mean,), (std,))
    x = normalisation.apply(jnp.full((2, 1), pixel))
    np.testing.assert_allclose(normalisation.invert(x), pixel, atol=1e-5)


def test_normalisation_refuses_a_zero_std():
    with pytest.raises(ValueError, match="std must be > 0"):
        Normalisation("bad", (0.5,), (0.0,))
    with pytest.raises(ValueError, match="one value per channel"):
        Normalisation("bad", (0.5, 0.5), (1.0,))


def test_a_dataset_is_a_pytree_of_its_two_arrays():
    dataset = make(5)
    assert len(jax.tree.leaves(dataset)) == 2
    doubled = jax.jit(lambda d: jax.tree.map(lambda a: a * 2, d))(dataset)
    assert doubled.normalisation == CIFAR_LIKE
    np.testing.assert_array_equal(doubled.y, dataset.y * 2)
    np.testing.assert_array_equal(dataset.take(jnp.array([3, 1])).x[:, 0], [3, 1])


def test_train_is_retain_then_forget():
    task = Task(make(4), make(2, start=4), make(1), make(1))
    np.testing.assert_array_equal(task.train.x[:, 0], np.arange(6))
    assert task.train.size == 6


def test_differently_normalised_data_does_not_mix():
    with pytest.raises(ValueError, match=r"[Nn]ormalisation|mismatch"):
        concatenate(make(2), make(2, normalisation=Normalisation()))
