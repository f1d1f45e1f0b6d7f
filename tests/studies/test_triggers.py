"""A backdoor on digits: it works before unlearning, and is gone from a retrained network."""

import jax
import numpy as np
import pytest

from unlearnkit import data, models
from unlearnkit.poisoning import BadNets, Budget
from unlearnkit.studies import ORIGINAL, RETRAIN, Pair, Study, run
from unlearnkit.training import Recipe
from unlearnkit.unlearning import Retrain

RECIPE = Recipe(epochs=30, batch_size=32, learning_rate=0.1)


@pytest.fixture(scope="module")
def records():
    train, test = (data.load("digits", split=split) for split in ("train", "test"))
    study = Study(
        data=Pair(train.take(np.arange(800)), test),
        networks=models.create("mlp", input_shape=(8, 8, 1), n_classes=10, hidden=(64,)),
        recipes=RECIPE,
        attacks={"backdoor": BadNets(Budget(0.05), target_class=7, size=2, corner=(-2, -2))},
        methods={"again": Retrain(RECIPE)},
    )
    return {record.method: record.metrics for record in run(study, jax.random.key(0))}


def test_the_trigger_works_before_unlearning_and_costs_no_accuracy(records):
    metrics = records[ORIGINAL]
    assert metrics["trigger_success"] > 0.8
    assert metrics["trigger_success_low"] > 0.8
    assert metrics["trigger_success_without_trigger"] < 0.05
    assert metrics["accuracy_drop"] < 0.05


def test_a_network_that_forgot_it_is_like_the_reference(records):
    reference, again = records[RETRAIN], records["again"]
    assert reference["trigger_success"] < 0.2
    assert abs(again["trigger_success"] - reference["trigger_success"]) < 0.1
    assert again["trigger_success_high"] < records[ORIGINAL]["trigger_success_low"]
