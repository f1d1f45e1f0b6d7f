import dataclasses
import importlib

import jax
import jax.numpy as jnp
import pytest
from counted_work import counting, work_of
from hypothesis import given
from hypothesis import strategies as st

from unlearnkit import models
from unlearnkit.base import Dataset, Task
from unlearnkit.studies import Price, has_epochs, price, with_epochs
from unlearnkit.studies.budget import CountsItself
from unlearnkit.training import Recipe
from unlearnkit.unlearning import (
    UNLEARNERS,
    FineTune,
    FisherForgetting,
    GradientAscent,
    NegGradPlus,
    RandomLabel,
    Retrain,
    Scrub,
    StackelbergUnlearn,
    create,
)

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


@dataclasses.dataclass(frozen=True)
class Secretive:
    """Does not say what it costs before it ran."""

    epochs: int = 3

    def __call__(self, *arguments, **options):
        return FineTune(batch_size=16, epochs=self.epochs)(*arguments, **options)


def test_a_method_that_does_not_count_itself_is_run(problem):
    assert not isinstance(Secretive(), CountsItself)
    assert price(KEY, *problem, Secretive()) == Price(48, 48)


def test_a_method_that_counts_itself_is_not_run(problem, monkeypatch):
    monkeypatch.setattr(FineTune, "__call__", None)
    assert price(KEY, *problem, FineTune(batch_size=16)) == Price(48, 48)


SHIFTED = Recipe(augmentation="shift", shift=1)
COUNTED = {
    **{name: create(name) for name in UNLEARNERS if has_epochs(create(name)) and name != "retrain"},
    "retrain": Retrain(Recipe(batch_size=20)),
    "rewinding": Scrub(batch_size=16, rewind=True, max_epochs=1),
    "augmented": Scrub(batch_size=16, forget_batch_size=4, train_like=SHIFTED),
    "uneven": RandomLabel(batch_size=20, forget_batch_size=4),
    "paired": NegGradPlus(batch_size=20, forget_batch_size=4),
    "in_chunks": StackelbergUnlearn(batch_size=20, chunk=7),
    "watched": StackelbergUnlearn(batch_size=20, alpha=0.0),
}


@pytest.fixture(scope="module")
def pictures():
    def draw(seed, n):
        x = jax.random.uniform(jax.random.key(seed), (n, 4, 4, 1))
        return Dataset(x, jnp.arange(n, dtype=jnp.int32) % 3)

    model = models.create("mlp", input_shape=(4, 4, 1), n_classes=3, hidden=(5, 5))
    return model, model.init(KEY), Task(draw(0, 47), draw(1, 9), draw(2, 10), draw(3, 10))


@pytest.mark.parametrize("name", COUNTED)
def test_what_a_method_says_it_costs_is_what_its_run_costs(name, pictures):
    method = COUNTED[name]
    assert isinstance(method, CountsItself)
    model, variables, task = pictures
    for epochs in (2,) if isinstance(method, StackelbergUnlearn) else (1, 2, 5):
        some = with_epochs(method, epochs)
        spent = some(KEY, model, variables, task).info.cost.example_gradients
        assert some.example_gradients(variables, task) == pytest.approx(spent, rel=1e-12)


def test_retraining_that_chose_its_batches_counts_them(pictures):
    model, variables, task = pictures
    spent = Retrain()(KEY, model, variables, task).info.cost.example_gradients
    assert Retrain().example_gradients(variables, task) == spent == 10 * 47


HEADS = {"boundary_expand": 2}
"""Its two heads share all layers below them, and each is counted as a network."""


# In chunks a forward pass is done twice to save memory, which is no part of the cost.
@pytest.mark.parametrize("name", [name for name in COUNTED if name != "in_chunks"])
def test_what_a_method_says_it_costs_is_what_it_makes_the_network_do(name, pictures, monkeypatch):
    # Otherwise rows of zeros would be added to small sets, and counted.
    monkeypatch.setattr(importlib.import_module("unlearnkit.host.reserve"), "room_for", lambda n: n)
    model, variables, task = pictures
    method = with_epochs(COUNTED[name], 4)
    done = work_of(lambda: method(KEY, counting(model), variables, task).variables)
    expected = done / HEADS.get(name, 1)
    assert method.example_gradients(variables, task) == pytest.approx(expected)
