"""Rows that somebody names: JAX would clamp, wrap or truncate them; they are refused instead."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from unlearnkit.base import Cost, Dataset, Poisoned
from unlearnkit.poisoning import Bounds
from unlearnkit.poisoning._targets import check_targets
from unlearnkit.poisoning.placing import PoisonInfo, perturbation, place

DATA = Dataset(jnp.arange(5.0)[:, None], jnp.arange(5, dtype=jnp.int32))
WRONG = {
    "beyond the end": ([0, 10**6], ValueError, "0 … 4, got 1000000 at position 1"),
    "just beyond the end": ([5], ValueError, "0 … 4, got 5"),
    "beyond 32 bits": ([2**32], ValueError, "got 4294967296"),
    "unsigned beyond the end": (np.array([9], np.uint8), ValueError, "got 9"),
    "negative": ([2, -1], ValueError, "got -1 at position 1"),
    "floats": ([0.0, 1.0], TypeError, r"got float64; .*astype"),
    "floats on the device": (jnp.array([0.5]), TypeError, "got float32"),
    "text": (["1"], TypeError, "must be integers or booleans"),
    "a short mask": (np.ones(4, bool), ValueError, "must be 5, one for each example"),
    "a long mask": ([True] * 6, ValueError, "must be 5, .*got 6"),
    "a table": ([[0, 1]], ValueError, r"one list \[m\], got the shape \[1, 2\]"),
    "one number": (3, ValueError, r"as \[i\]"),
    "a ragged list": ([[0], [1, 2]], ValueError, "lists of lists"),
}


@pytest.mark.usefixtures("unchecked_types")
@pytest.mark.parametrize("on_device", [False, True])
@pytest.mark.parametrize("case", WRONG)
def test_what_names_no_rows_is_refused(case, on_device):
    rows, error, message = WRONG[case]
    if on_device and not case.startswith(("beyond 32", "floats", "text", "a ragged")):
        rows = jnp.asarray(rows)
    with pytest.raises(error, match=message):
        DATA.take(rows)


@pytest.mark.parametrize("kind", [list, np.array, jnp.array])
def test_rows_and_masks_are_taken_in_order(kind):
    np.testing.assert_array_equal(DATA.take(kind([4, 0, 4])).y, [4, 0, 4])
    mask = kind([False, True, False, False, True])
    taken = DATA.take(mask)
    np.testing.assert_array_equal(taken.x[:, 0], [1, 4])
    np.testing.assert_array_equal(taken.y, [1, 4])


@pytest.mark.parametrize("none", [[], np.zeros(0, np.int64), np.zeros(5, bool)])
def test_nothing_may_be_taken(none):
    assert DATA.take(none).size == 0


def test_a_compiled_program_is_what_it_was_without_the_check():
    rows = jnp.array([3, 1])

    def direct(data, rows):
        return jax.tree.map(lambda array: array[rows], data)

    checked = jax.make_jaxpr(lambda data, rows: data.take(rows))(DATA, rows)
    assert str(checked) == str(jax.make_jaxpr(direct)(DATA, rows))
    np.testing.assert_array_equal(jax.jit(lambda r: DATA.take(r).y)(rows), [3, 1])


@pytest.mark.usefixtures("unchecked_types")
def test_rows_that_are_known_while_tracing_are_checked_and_types_always():
    with pytest.raises(ValueError, match="got 5"):
        jax.jit(lambda data: data.take(np.array([5])))(DATA)
    with pytest.raises(TypeError, match="got float32"):
        jax.jit(DATA.take)(jnp.array([0.5]))
    with pytest.raises(ValueError, match="must be 5"):
        jax.jit(DATA.take)(jnp.ones(4, bool))


class TestPoisons:
    def poisoned(self, base):
        info = PoisonInfo(jnp.array(base), Bounds(), {}, Cost(0.0, 0.0))
        return Poisoned(DATA, jnp.array([True, True, False, False, False]), info)

    @pytest.mark.parametrize("base", [[0, 5], [-1, 2]])
    def test_are_placed_on_rows_that_are_there(self, base):
        with pytest.raises(ValueError, match="ascending base rows must be rows of the clean data"):
            place(DATA, DATA.x[:2], DATA.y[:2], jnp.array(base), "perturb")

    def test_are_compared_with_the_data_that_they_were_made_of(self):
        with pytest.raises(ValueError, match="base rows must be rows of the clean data, 0 … 2"):
            perturbation(self.poisoned([1, 4]), DATA.take([0, 1, 2]))


@pytest.mark.usefixtures("unchecked_types")
@pytest.mark.parametrize("targets", [(1.7,), (True, False)])
def test_targets_are_not_rounded_and_a_mask_is_not_two_rows(targets):
    with pytest.raises((TypeError, ValueError), match="targets .*must be"):
        check_targets(targets, 3, DATA, 5)
