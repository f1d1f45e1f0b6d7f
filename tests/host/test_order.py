"""Batch orders of the host against the same orders drawn inside a program."""

import in_graph
import jax
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from unlearnkit.host import cycled_rows, epoch_rows, host_key, several_epochs, whole_rows
from unlearnkit.training import epoch_batches

KEYS = st.integers(0, 2**32 - 1).map(jax.random.key)
EPOCHS = st.integers(0, 40)


@st.composite
def sets(draw):
    """Draws a number of examples and a batch size that it has room for."""
    n = draw(st.sampled_from([1, 2, 5, 12, 30]))
    return n, draw(st.integers(1, n))


@given(KEYS, EPOCHS, sets())
def test_the_batches_of_an_epoch(key, epoch, size):
    found = epoch_rows(host_key(key), epoch, *size)
    assert found.dtype == np.int32
    np.testing.assert_array_equal(found, epoch_batches(key, epoch, *size))


@given(KEYS, EPOCHS, st.integers(0, 5), sets())
def test_the_batches_of_several_epochs(key, first, count, size):
    found = several_epochs(host_key(key), range(first, first + count), *size)
    assert found.dtype == np.int32
    assert found.shape == (count * (size[0] // size[1]), size[1])
    expected = [epoch_batches(key, epoch, *size) for epoch in range(first, first + count)]
    if count:
        np.testing.assert_array_equal(found, np.concatenate(expected))


@given(KEYS, EPOCHS, sets())
def test_the_batches_of_a_whole_pass(key, index, size):
    found = whole_rows(host_key(key), index, *size)
    assert found.dtype == np.int32
    np.testing.assert_array_equal(found, in_graph.whole_batches(key, index, *size))


@given(KEYS, EPOCHS, st.integers(1, 20), sets())
def test_the_batches_of_a_cycle(key, first, steps, size):
    found = cycled_rows(host_key(key), first, *size, steps)
    assert found.dtype == np.int32
    np.testing.assert_array_equal(found, in_graph.cycled_batches(key, first, *size, steps))
