"""Unlearning of token ids: the methods that can, and those that refuse."""

import jax
import numpy as np
import pytest
from tiny_reader import Reader
from token_task import RECIPE, make_model, make_task, same
from trial_settings import made

from unlearnkit.auditing import accuracy
from unlearnkit.base import Variables
from unlearnkit.training import fit
from unlearnkit.unlearning import UNLEARNERS, BoundaryShrink, Retrain

KEY = jax.random.key(5)
SMALL = {"epochs": 1, "batch_size": 8, "forget_batch_size": 8, "learning_rate": 0.005, "k": 1}
OTHERS = {"boundary_shrink", "boundary_expand"}
"""Which move inputs, or add a class."""
METHODS = {
    name: Retrain(RECIPE) if kind is Retrain else made(kind, SMALL, {})
    for name, kind in UNLEARNERS.items()
    if name not in OTHERS
}
DEAR = {"stackelberg", "influence", "newton_scrub", "fisher_forgetting", "ntk_scrub"}
"""Which compile for long, and are tried on one of the networks."""


@pytest.fixture(scope="module", params=["linen", "functions"])
def model(request):
    return make_model() if request.param == "linen" else Reader(hidden=8).model()


@pytest.fixture(scope="module")
def task():
    return make_task()


@pytest.fixture(scope="module")
def variables(model, task):
    return fit(KEY, model, task.train, RECIPE).variables


@pytest.mark.parametrize("name", METHODS)
def test_tokens_are_unlearned(name, model, task, variables):
    if name in DEAR and model.embed is None:
        return
    unlearned = METHODS[name](KEY, model, variables, task).variables
    assert not same(unlearned, variables)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(unlearned))
    assert accuracy(model, unlearned, task.test) > 0.6


def test_steps_in_the_inputs_are_refused(model, task):
    """Before the weights are looked at, which are of no network."""
    with pytest.raises(ValueError, match="BoundaryShrink needs inputs that are real .* token ids"):
        BoundaryShrink()(KEY, model, Variables({}), task)
