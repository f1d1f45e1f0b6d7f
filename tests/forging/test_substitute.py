"""Substitution of the forgotten examples of a batch, against all sets of the candidates."""

import itertools

import jax
import numpy as np
import pytest
from forging_oracles import ALLOWED, RATE, VARIABLES, error_of
from softmax_regression import MODEL, draw

from unlearnkit.forging import SubstitutionForger, honest_step

KEY = jax.random.key(3)
BATCH = draw(8, 6)
FEW = ALLOWED.take(np.arange(12))
forge = SubstitutionForger(12)


def step_without(places, batch=BATCH):
    return honest_step(MODEL, VARIABLES, batch, RATE, forget=np.array(places))


def one_hot(y):
    return np.eye(3)[np.asarray(y)]


def all_errors(step, places):
    """The error of every way to fill the places with different examples of FEW."""
    errors = {}
    for chosen in itertools.combinations(range(FEW.size), len(places)):
        x, y = np.array(BATCH.x), np.array(BATCH.y)
        x[places], y[places] = FEW.x[np.array(chosen)], FEW.y[np.array(chosen)]
        errors[chosen] = error_of(step, x, one_hot(y))
    return errors


@pytest.mark.parametrize("places", [[4], [0, 3], [1, 2, 5]])
def test_the_best_substitutes_of_all_are_found_and_the_others_stay(places):
    step = step_without(places)
    batch, error, info = forge(KEY, MODEL, step, FEW)
    others = np.setdiff1d(np.arange(6), places)
    np.testing.assert_array_equal(batch.x[others], BATCH.x[others])
    np.testing.assert_array_equal(batch.y[others], BATCH.y[others])
    np.testing.assert_array_equal(batch.x[info.places], FEW.x[info.indices])
    np.testing.assert_array_equal(batch.y[info.places], FEW.y[info.indices])
    assert info.places.tolist() == places
    assert len(set(info.indices.tolist())) == len(places)
    expected = all_errors(step, places)
    best = min(expected, key=expected.get)
    assert tuple(sorted(info.indices.tolist())) == best
    assert float(error) == pytest.approx(expected[best], rel=1e-4)
    assert info.start >= expected[best] * (1 - 1e-3)
    assert (info.swaps == 0) == (info.start == pytest.approx(expected[best], rel=1e-3))
    assert error == pytest.approx(error_of(step, batch.x, one_hot(batch.y)), rel=1e-4)


def test_candidates_are_drawn_by_the_key_and_never_stand_in_the_batch_already():
    batch = FEW.take(np.arange(6))
    step = step_without([1], batch)
    seen = set()
    for seed in range(8):
        info = SubstitutionForger(1)(jax.random.key(seed), MODEL, step, FEW).info
        seen |= set(info.indices.tolist())
    assert seen <= {1, *range(6, 12)}
    assert len(seen) > 2
    # The forgotten example's double is no longer in the batch, and errs by nothing.
    found = forge(KEY, MODEL, step, FEW)
    assert found.info.indices.tolist() == [1]
    assert float(found.error) == 0


def test_without_the_batch_it_refuses_by_name():
    step = honest_step(MODEL, VARIABLES, BATCH, RATE)
    with pytest.raises(ValueError, match="SubstitutionForger needs the logged batch"):
        forge(KEY, MODEL, step, FEW)


def test_what_cannot_be_substituted_is_refused():
    for forget, message in (
        ([6], "rows of the batch, 0 … 5, got 6"),
        ([], "places 0 … 5 of the batch, got none"),
    ):
        with pytest.raises(ValueError, match=message):
            honest_step(MODEL, VARIABLES, BATCH, RATE, forget=np.array(forget, int))
    with pytest.raises(ValueError, match=r"holds 3 forgotten examples, but there are 2 candidates"):
        SubstitutionForger(2)(KEY, MODEL, step_without([0, 1, 2]), FEW)
    with pytest.raises(ValueError, match="candidates must be >= 1"):
        SubstitutionForger(0)
