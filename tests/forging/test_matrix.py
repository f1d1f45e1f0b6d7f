"""Every registered forger through the same cases, on logistic regression."""

import jax
import numpy as np
import pytest
from forging_oracles import ALLOWED, RATE, VARIABLES, error_of
from softmax_regression import MODEL, draw
from trial_settings import made, trial_of

from unlearnkit.base import Forged, Forger, SoftDataset, Variables
from unlearnkit.forging import FORGERS, honest_step
from unlearnkit.trials import Trial

KEY = jax.random.key(4)
SMALL = {"points": 40, "candidates": 40, "iterations": 150, "rounds": 20}
"""What a forger is given of it by the names of its fields."""
FORGE = {name: made(kind, SMALL, trial_of(kind, Trial()).small) for name, kind in FORGERS.items()}
B = 8
BATCH = draw(8, B)
STEP = honest_step(MODEL, VARIABLES, BATCH, RATE, forget=np.array([2]))


@pytest.fixture(params=list(FORGE))
def name(request):
    return request.param


@pytest.fixture(scope="module")
def results():
    """Each forger runs once for the tests that only look."""
    return {}


@pytest.fixture
def forged(name, results):
    if name not in results:
        results[name] = FORGE[name](KEY, MODEL, STEP, ALLOWED)
    return results[name]


def labels_of(batch):
    return batch.y if isinstance(batch, SoftDataset) else np.eye(3)[np.asarray(batch.y)]


def test_makes_a_batch_and_says_how_far_its_step_is(name, forged):
    assert type(FORGE[name]) is FORGERS[name]
    assert isinstance(FORGE[name], Forger)
    assert hash(FORGE[name]) == hash(
        made(FORGERS[name], SMALL, trial_of(FORGERS[name], Trial()).small)
    )
    assert isinstance(forged, Forged)
    assert forged.batch.x.shape == BATCH.x.shape
    expected = error_of(STEP, forged.batch.x, labels_of(forged.batch))
    assert float(forged.error) == pytest.approx(expected, rel=1e-3, abs=1e-7)
    assert forged.info.cost.example_gradients > 0


def test_comes_nearer_than_the_median_of_other_batches(forged):
    rng = np.random.default_rng(0)
    drawn = [ALLOWED.take(rng.permutation(ALLOWED.size)[:B]) for _ in range(40)]
    others = [error_of(STEP, one.x, labels_of(one)) for one in drawn]
    assert float(forged.error) < np.median(others)


def test_the_key_decides_everything_and_is_used_once(name, forged):
    before = jax.tree.map(np.array, (VARIABLES, ALLOWED.x))
    with jax.debug_key_reuse(True):
        again = FORGE[name](jax.random.key(4), MODEL, STEP, ALLOWED)
    for one, other in zip(jax.tree.leaves(forged.batch), jax.tree.leaves(again.batch), strict=True):
        np.testing.assert_array_equal(one, other)
    for one, other in zip(
        jax.tree.leaves(before), jax.tree.leaves((VARIABLES, ALLOWED.x)), strict=True
    ):
        np.testing.assert_array_equal(one, other)


def test_networks_with_state_and_too_few_examples_are_refused(name):
    stateful = STEP._replace(variables=Variables(VARIABLES.params, {"mean": np.zeros(3)}))
    with pytest.raises(ValueError, match="forging needs a network without BatchNorm"):
        FORGE[name](KEY, MODEL, stateful, ALLOWED)
    with pytest.raises(ValueError, match=f"allowed holds 7 examples, but the batch needs {B}"):
        FORGE[name](KEY, MODEL, STEP, ALLOWED.take(np.arange(7)))
