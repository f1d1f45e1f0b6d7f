"""Rows that the host selects, joins and replaces, against JAX's own."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from unlearnkit.host import concatenate_rows, on_host, put, replace_rows, take_rows

X = jnp.arange(24.0).reshape(6, 2, 2)


@given(st.lists(st.integers(-6, 5), min_size=0, max_size=9))
def test_rows_by_number(rows):
    rows = np.array(rows, np.int32)
    for given_rows in (rows, jnp.asarray(rows)):
        np.testing.assert_array_equal(take_rows(X, given_rows), X[rows])


@given(st.lists(st.booleans(), min_size=6, max_size=6))
def test_rows_by_mask(mask):
    mask = np.array(mask)
    for given_mask in (mask, jnp.asarray(mask)):
        found = take_rows(X, given_mask)
        assert isinstance(found, jax.Array)
        np.testing.assert_array_equal(found, np.asarray(X)[mask])


def test_rows_of_numpy_stay_of_numpy_and_traced_ones_traced():
    assert isinstance(take_rows(np.asarray(X), np.array([1])), np.ndarray)
    found = jax.jit(lambda rows: take_rows(X, rows))(jnp.array([4, 1]))
    np.testing.assert_array_equal(found, X[jnp.array([4, 1])])
    found = jax.jit(lambda x: take_rows(x, np.array([4, 1])))(X)
    np.testing.assert_array_equal(found, X[jnp.array([4, 1])])


def test_rows_joined():
    joined = concatenate_rows([X, X[:2]])
    assert isinstance(joined, jax.Array)
    assert joined.dtype == X.dtype
    np.testing.assert_array_equal(joined, jnp.concatenate([X, X[:2]]))
    np.testing.assert_array_equal(jax.jit(lambda x: concatenate_rows([x, X]))(X), [*X, *X])
    mixed = concatenate_rows([X, np.asarray(X)])
    np.testing.assert_array_equal(mixed, [*X, *X])


def test_rows_replaced_leave_the_original():
    rows, values = np.array([4, 0]), -jnp.ones((2, 2, 2))
    before = np.array(X)
    np.testing.assert_array_equal(replace_rows(X, rows, values), X.at[rows].set(values))
    np.testing.assert_array_equal(X, before)
    traced = jax.jit(lambda x: replace_rows(x, rows, values))(X)
    np.testing.assert_array_equal(traced, X.at[rows].set(values))


def test_what_is_committed_to_a_device_stays_so():
    device = jax.devices()[-1]
    x = jax.device_put(X, device)
    for found in (
        take_rows(x, np.array([1])),
        concatenate_rows([x, x]),
        replace_rows(x, np.array([1]), X[:1]),
    ):
        assert found.committed
        assert found.devices() == {device}
    assert not take_rows(X, np.array([1])).committed


@pytest.mark.parametrize("values", [1.5, [1, 2], np.arange(3), np.ones((2, 2)), True])
def test_numbers_are_put_in_jax_s_precision(values):
    found, expected = put(values), jnp.asarray(values)
    assert isinstance(found, jax.Array)
    assert found.dtype == expected.dtype
    np.testing.assert_array_equal(found, expected)


def test_the_host_sees_arrays_of_a_cpu_alone():
    assert isinstance(on_host(X), np.ndarray)
    assert on_host("text") == "text"
    seen = []
    jax.jit(lambda x: seen.append(on_host(x)) or x)(X)
    assert isinstance(seen[0], jax.core.Tracer)
