"""Poisons on real images have their effect on networks that continue the clean one; noise has not.

Of digits: a network is trained on clean ones, and its victims continue it. Retrain continues it
without the poisons, and the control with random ones of the same norms. Gradients are canceled for
a linear network, where what is stationary is the minimum that training finds: there the patterns
do harm by their direction and not by their size, and turned round they do none.
"""

import jax
import numpy as np
import pytest

from unlearnkit import models
from unlearnkit.data import keep_classes, load
from unlearnkit.poisoning import (
    Bounds,
    Budget,
    GradientCanceling,
    GradientMatching,
    GradPC,
)
from unlearnkit.studies import CONTROL, ORIGINAL, RETRAIN, poison_and_unlearn
from unlearnkit.training import Recipe, fit

KEY = jax.random.key(0)
RECIPE = Recipe(epochs=15, batch_size=20, learning_rate=0.1)


def problem(network, **options):
    train, test = (
        keep_classes(load("digits", split=split, normalisation="standard"), (1, 3, 8))
        for split in ("train", "test")
    )
    train = train.take(range(150))
    model = models.create(network, input_shape=(8, 8, 1), n_classes=3, **options)
    return model, train, test, fit(KEY, model, train, RECIPE).variables


def ask(problem, attack, seeds):
    """Returns a metric's values by the question and the row."""
    model, train, test, start = problem
    found = poison_and_unlearn(
        KEY, model, train, test, attacks={"poisons": attack}, recipe=RECIPE, methods={},
        start=start, paired=True, controls=True, seeds=seeds,
    )  # fmt: skip
    values = {}
    for record in found:
        for name, value in record.metrics.items():
            values.setdefault((record.question, record.method, name), []).append(value)
    return values


def test_targets_are_taken_for_the_class_of_their_poisons():
    attack = GradientMatching(
        Budget(0.2), Bounds(box=None, radius=0.5), restarts=3, steps=150, shift=0, flip=False
    )
    found = ask(problem("mlp", hidden=(16,)), attack, seeds=5)
    success = {
        row: np.mean(found[question, row, "targets_targeted_success"])
        for question, row in (("poisons", ORIGINAL), ("poisons", RETRAIN))
    }
    assert success[ORIGINAL] >= 0.8
    assert success[RETRAIN] <= 0.2
    assert np.mean(found[f"poisons{CONTROL}", ORIGINAL, "targets_targeted_success"]) <= 0.2


@pytest.mark.filterwarnings("ignore::unlearnkit.validation.InputWarning")
def test_cancelled_gradients_lower_the_accuracy_and_noise_of_their_norm_does_not():
    attack = GradientCanceling(
        Budget(0.5), Bounds(box=None), corruption=GradPC(radius=2.0, step_size=0.4),
        optimizer="adam", steps=300, learning_rate=0.1,
    )  # fmt: skip
    found = ask(problem("logistic"), attack, seeds=4)
    harmed, control, clean = (
        np.array(found[question, row, "accuracy_test"])
        for question, row in (
            ("poisons", ORIGINAL), (f"poisons{CONTROL}", ORIGINAL), ("poisons", RETRAIN)
        )
    )  # fmt: skip
    assert np.mean(control - harmed) > 0.08
    assert np.all(control > harmed)
    assert np.mean(clean - control) < 0.1
