"""Unlearning of token ids: the methods that can, and those that refuse."""

import jax
import numpy as np
import pytest
from token_task import RECIPE, make_model, make_task, same

from unlearnkit.auditing import accuracy
from unlearnkit.base import Variables
from unlearnkit.training import fit
from unlearnkit.unlearning import (
    BoundaryShrink,
    FineTune,
    GradientAscent,
    NegGradPlus,
    Retrain,
    Scrub,
)

KEY = jax.random.key(5)
METHODS = {
    "retrain": Retrain(RECIPE),
    "fine_tune": FineTune(epochs=2, batch_size=16, learning_rate=0.1),
    "gradient_ascent": GradientAscent(epochs=1, batch_size=8, learning_rate=0.01),
    "scrub": Scrub(epochs=2, max_epochs=1, batch_size=16, forget_batch_size=8),
    "neg_grad_plus": NegGradPlus(epochs=2, batch_size=16, forget_batch_size=8, learning_rate=0.01),
}


@pytest.fixture(scope="module")
def model():
    return make_model()


@pytest.fixture(scope="module")
def task():
    return make_task()


@pytest.fixture(scope="module")
def variables(model, task):
    return fit(KEY, model, task.train, RECIPE).variables


@pytest.mark.parametrize("name", METHODS)
def test_tokens_are_unlearned(name, model, task, variables):
    unlearned = METHODS[name](KEY, model, variables, task).variables
    assert not same(unlearned, variables)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(unlearned))
    assert accuracy(model, unlearned, task.test) > 0.6


def test_steps_in_the_inputs_are_refused(model, task):
    """Before the weights are looked at, which are of no network."""
    with pytest.raises(ValueError, match="BoundaryShrink needs inputs that are real .* token ids"):
        BoundaryShrink()(KEY, model, Variables({}), task)
