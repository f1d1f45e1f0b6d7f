import dataclasses

import jax
import pytest
from hypothesis import given
from hypothesis import strategies as st

from unlearnkit import models
from unlearnkit.base import Dataset, Task
from unlearnkit.studies import Price, has_epochs, price, with_epochs
from unlearnkit.training import Recipe
from unlearnkit.unlearning import FineTune, FisherForgetting, GradientAscent, Retrain, Scrub

KEY = jax.random.key(0)
COSTS = st.floats(1e-2, 1e4)


@given(COSTS, COSTS, st.floats(0, 1e5))
def test_the_most_epochs_that_fit(first, further, gradients):
    epochs = Price(first, further).epochs_within(gradients)
    slack = 1e-6 * (gradients + first + further)
    assert epochs == 0 or first + (epochs - 1) * further <= gradients + slack
    assert first + epochs * further > gradients - slack or (epochs == 0 and first > gradients)


def test_what_is_exactly_the_budget_fits():
    assert Price(100.0, 100.0).epochs_within(0.06 * 5000) == 3
    assert Price(0.1, 0.1).epochs_within(0.3) == 3
    assert Price(100.0, 0.0).epochs_within(1e9) == 1


def test_epochs_are_a_methods_own_or_its_recipes():
    assert with_epochs(Scrub(alpha=0.5), 4) == Scrub(alpha=0.5, epochs=4)
    recipe = Recipe(epochs=50, learning_rate=0.3)
    assert with_epochs(Retrain(recipe), 4) == Retrain(dataclasses.replace(recipe, epochs=4))
    assert not has_epochs(FisherForgetting())
    with pytest.raises(ValueError, match="has no epochs"):
        with_epochs(FisherForgetting(), 4)


@pytest.fixture(scope="module")
def problem():
    def draw(seed, n):
        x_key, y_key = jax.random.split(jax.random.key(seed))
        return Dataset(jax.random.normal(x_key, (n, 4)), jax.random.randint(y_key, (n,), 0, 3))

    model = models.create("logistic", input_shape=(4,), n_classes=3)
    return model, model.init(KEY), Task(draw(0, 48), draw(1, 9), draw(2, 10), draw(3, 10))


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        (FineTune(batch_size=16), Price(48, 48)),
        (Retrain(Recipe(epochs=7, batch_size=20)), Price(40, 40)),
        (GradientAscent(batch_size=4), Price(12, 12)),  # 9 of them, and 3 twice
        # The teacher looks at all 57 once; each epoch descends on 48 and ascends on 9.
        (Scrub(batch_size=16, max_epochs=9), Price(57 / 3 + 57, 57)),
    ],
)
def test_prices_are_the_methods_own_counts(problem, method, expected):
    assert price(KEY, *problem, method) == pytest.approx(expected)
