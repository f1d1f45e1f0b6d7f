"""Any attack and any registered unlearner go through the four steps."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from unlearnkit import models, poisoning, unlearning
from unlearnkit.base import Dataset
from unlearnkit.poisoning import Budget, LabelFlip
from unlearnkit.studies import has_epochs, poison_and_unlearn
from unlearnkit.training import Recipe
from unlearnkit.unlearning import FineTune

KEY = jax.random.key(0)
SHAPE = (4, 4, 1)
SHORT = Recipe(epochs=2, batch_size=20, learning_rate=0.1)
SMALL = {
    "batch_size": 16, "burn_in": 2, "chunk": 20, "damping": 0.1, "defender_steps": 2, "grid": 3,
    "epochs": 2, "group": 5, "hidden": (8,), "horizon": 4, "k": 1, "networks": 2,
    "pretrain": SHORT, "recipe": SHORT,
    "restarts": 2, "shift": 1, "steps": 4, "stop_error": 1.0, "tau": 2.0, "unroll_steps": 3,
    "weight_decay": 0.01, "budget": Budget(0.1), "advance_steps": 1,
}  # fmt: skip
"""Whatever of it a method has makes it quick."""


def small(kind):
    names = {field.name for field in dataclasses.fields(kind)}
    return kind(**{name: value for name, value in SMALL.items() if name in names})


def draw(seed, n):
    """Images in [0, 1] of two classes: the brighter of their first two rows."""
    x = jax.random.uniform(jax.random.key(seed), (n, *SHAPE))
    return Dataset(x, jnp.argmax(x[:, :2].mean((2, 3)), axis=-1).astype(jnp.int32))


def run(attack, method, epochs):
    """The network is linear and binary: there is no attack that does not take it."""
    recipe = dataclasses.replace(SHORT, epochs=epochs)
    model = models.create("logistic", input_shape=SHAPE, n_classes=2)
    return list(
        poison_and_unlearn(
            KEY,
            model,
            draw(0, 100),
            draw(1, 60),
            attacks={"attack": attack},
            recipe=recipe,
            methods={"method": method},
            budgets=(1.0,),
        )
    )


@pytest.mark.parametrize("name", list(unlearning.UNLEARNERS))
def test_every_unlearner_fits_into_a_budget(name):
    flip = LabelFlip(budget=Budget(0.2), placement="perturb")
    method = small(unlearning.UNLEARNERS[name])
    record = run(flip, method, epochs=2 if has_epochs(method) else 80)[-1]
    assert record.method == "method"
    assert record.diverged is None
    assert 0 < record.metrics["compute"] <= 1 + 1e-9
    assert record.metrics["shift_l2"] > 0
    assert all(np.isfinite(value) for value in record.metrics.values())


@pytest.mark.filterwarnings("ignore::unlearnkit.poisoning.PoisonWarning")
# A trigger in texts goes through them in tests/experiments/test_poison_unlearning.py.
@pytest.mark.parametrize("name", [n for n in poisoning.ATTACKS if n != "text_trigger"])
def test_every_attack_goes_through_the_four_steps(name):
    records = run(small(poisoning.ATTACKS[name]), FineTune(batch_size=16), epochs=2)
    assert [record.method for record in records] == ["original", "retrained", "method"]
    for record in records:
        assert record.diverged is None
        metrics = record.metrics
        assert metrics["accuracy_drop"] == pytest.approx(
            metrics["accuracy_clean"] - metrics["accuracy_test"]
        )
        assert ("gaussian_gus" in metrics) == (name == "gaussian")
        assert ("targets_targeted_success" in metrics) == (name == "gradient_matching")
