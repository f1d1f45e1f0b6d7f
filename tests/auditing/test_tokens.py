"""Audits of networks that take token ids, and those that refuse."""

import jax
import pytest
from token_task import RECIPE, make_model, make_task

from unlearnkit.auditing import GaussianUnlearningScore, QuantileAttack, ThresholdAttack
from unlearnkit.base import Variables
from unlearnkit.training import fit

KEY = jax.random.key(5)


def test_membership_of_tokens_is_measured():
    model, task = make_model(), make_task()
    variables = fit(KEY, model, task.train, RECIPE).variables
    metrics = ThresholdAttack()(KEY, model, variables, task).metrics
    assert 0 < metrics["auc"] < 1


@pytest.mark.parametrize(
    ("audit", "message"),
    [
        (GaussianUnlearningScore(), "GaussianUnlearningScore moves the vectors of tokens"),
        (QuantileAttack(), "QuantileAttack needs inputs that are real"),
    ],
)
def test_audits_that_compute_with_inputs_refuse_tokens(audit, message):
    """Before the weights are looked at, which are of no network."""
    with pytest.raises(ValueError, match=message):
        audit(KEY, make_model(), Variables({}), make_task())
