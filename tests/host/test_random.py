"""Random numbers of the host against those of `jax.random`, bit by bit."""

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from unlearnkit.host import HostKey, host_key
from unlearnkit.host.random import DeviceKey

KEYS = st.integers(0, 2**32 - 1).map(jax.random.key)
# From 1626 on, permutations take another round of sorting.
SIZES = st.sampled_from([1, 2, 7, 100, 1624, 1625, 1626, 1627, 5000])


def data(key):
    return np.asarray(jax.random.key_data(key))


@given(KEYS, st.integers(0, 2**32 - 1))
def test_folding_in(key, number):
    found = host_key(key).fold_in(number)
    assert isinstance(found, HostKey)
    np.testing.assert_array_equal(found.bits, data(jax.random.fold_in(key, number)))


@given(KEYS, st.integers(1, 9))
def test_splitting(key, count):
    found = [part.bits for part in host_key(key).split(count)]
    np.testing.assert_array_equal(found, data(jax.random.split(key, count)))


@given(KEYS, SIZES)
def test_permutations(key, n):
    found = host_key(key).permutation(n)
    assert found.dtype == np.int32
    np.testing.assert_array_equal(found, jax.random.permutation(key, n))


@given(KEYS, SIZES, st.integers(1, 2**31 - 1))
def test_integers(key, n, high):
    found = host_key(key).randint(n, high)
    assert found.dtype == np.int32
    np.testing.assert_array_equal(found, jax.random.randint(key, (n,), 0, high))


@given(KEYS)
def test_a_key_goes_to_the_host_and_back(key):
    back = host_key(key).typed()
    assert jax.random.key_impl(back) == jax.random.key_impl(key)
    np.testing.assert_array_equal(data(back), data(key))


def test_seeds_of_64_bits():
    with jax.enable_x64(True):
        key = jax.random.key(2**40 + 7)
        np.testing.assert_array_equal(host_key(key).bits, data(key))
        np.testing.assert_array_equal(
            host_key(key).permutation(70), jax.random.permutation(key, 70)
        )


def ask_everything(key):
    """Returns what a key draws, and what `jax.random` draws from the same key."""
    found = host_key(key)
    asked = (
        found.permutation(40),
        found.randint(40, 7),
        data(found.fold_in(5).typed()),
        [data(part.typed()) for part in found.split(3)],
        data(found.typed()),
    )
    expected = (
        jax.random.permutation(key, 40),
        jax.random.randint(key, (40,), 0, 7),
        data(jax.random.fold_in(key, 5)),
        list(data(jax.random.split(key, 3))),
        data(key),
    )
    return found, asked, expected


@pytest.mark.parametrize("generator", ["rbg", "unsafe_rbg"])
def test_keys_of_other_generators_ask_jax(generator):
    found, asked, expected = ask_everything(jax.random.key(3, impl=generator))
    assert isinstance(found, DeviceKey)
    jax.tree.map(np.testing.assert_array_equal, asked, expected)


def test_another_use_of_the_bits_asks_jax():
    partitionable = jax.config.jax_threefry_partitionable
    usual = jax.random.permutation(jax.random.key(3), 40)
    jax.config.update("jax_threefry_partitionable", False)
    try:
        found, asked, expected = ask_everything(jax.random.key(3))
        assert isinstance(found, DeviceKey)
        jax.tree.map(np.testing.assert_array_equal, asked, expected)
        assert not np.array_equal(asked[0], usual)
    finally:
        jax.config.update("jax_threefry_partitionable", partitionable)


def test_nothing_is_compiled_for_another_number_of_examples():
    compiled = []

    def listen(event, *_, **__):
        if event == "/jax/core/compile/backend_compile_duration":
            compiled.append(event)

    key = jax.random.key(11)
    host_key(key).split()[0].typed()
    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        for n in range(50, 60):
            first, second = host_key(key).fold_in(n).split()
            first.permutation(n)
            second.randint(n, n).sum()
            second.typed()
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)
    assert not compiled


def test_more_numbers_than_a_counter_has_are_refused():
    with pytest.raises(ValueError, match="at most 4294967295 numbers can be drawn at once"):
        host_key(jax.random.key(0)).randint(2**32, 3)
