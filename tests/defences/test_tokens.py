"""Defences of networks that take token ids, and the one that refuses."""

import jax
import pytest
from token_task import RECIPE, draw, make_model

from unlearnkit.defences import MaxUp, create
from unlearnkit.training import fit

KEY = jax.random.key(5)


@pytest.mark.parametrize("name", ["deep_knn", "influence", "loss", "sever", "spectral_signature"])
def test_examples_of_tokens_are_filtered(name):
    model, train = make_model(), draw(1, 200)
    variables = fit(KEY, model, train, RECIPE).variables
    keep = create(name)(KEY, model, variables, train).keep
    assert 0 < keep.sum() < train.size


def test_noise_on_tokens_is_refused():
    """Before training, which has too few examples for a batch."""
    with pytest.raises(ValueError, match="MaxUp needs inputs that are real numbers"):
        MaxUp().fit(KEY, make_model(), draw(1, 8), RECIPE)
