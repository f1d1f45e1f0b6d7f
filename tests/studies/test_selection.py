import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from unlearnkit import data, models
from unlearnkit.auditing import MembershipInference, accuracy
from unlearnkit.base import Cost, Unlearned, Unlearner, UnlearnInfo
from unlearnkit.studies import choosing_task, grid, sweep
from unlearnkit.training import DivergedError, Recipe, fit
from unlearnkit.unlearning import FineTune, GradientAscent, Retrain

KEY = jax.random.key(0)
RECIPE = Recipe(epochs=10, batch_size=32, learning_rate=0.02)


@dataclasses.dataclass(frozen=True)
class Shrinks:
    """Multiplies the weights; at 0 it knows nothing, and diverges below."""

    factor: float = 1.0

    def __call__(self, key, model, variables, task, *, on_epoch=None) -> Unlearned:
        if self.factor < 0:
            raise DivergedError(f"diverged at {self.factor}")
        assert task.test.size == 45
        assert task.validation.size == 45
        smaller = jax.tree.map(lambda w: self.factor * w, variables)
        return Unlearned(smaller, UnlearnInfo({}, Cost(0.0, 0.0)))


@pytest.fixture(scope="module")
def model():
    return models.create("mlp", input_shape=(8, 8, 1), n_classes=10, hidden=(32,))


@pytest.fixture(scope="module")
def task():
    train, test = (data.load("digits", split=split) for split in ("train", "test"))
    test = test.take(np.arange(180))
    return data.make_task(KEY, train, test, data.RandomForget(fraction=0.2))


@pytest.fixture(scope="module")
def variables(model, task):
    return fit(jax.random.key(1), model, task.train, RECIPE).variables


METHODS = grid(GradientAscent(epochs=1, batch_size=32), learning_rate=(1e-4, 0.01, 0.3))


def test_the_test_set_is_never_touched(model, variables, task):
    poisoned = task._replace(test=task.test._replace(x=jnp.full_like(task.test.x, jnp.nan)))
    swapped = task._replace(test=task.retain)
    found = [sweep(KEY, model, variables, t, METHODS) for t in (task, poisoned, swapped)]
    assert found[0] == found[1] == found[2]


def test_the_choice_depends_on_validation_alone(model, variables, task):
    """Wrong labels of the validation set turn the choice around."""
    shrinks = [Shrinks(1.0), Shrinks(0.0)]
    assert sweep(KEY, model, variables, task, shrinks).method == Shrinks(1.0)
    validation = task.validation._replace(y=(task.validation.y + 1) % 10)
    wrong = task._replace(validation=validation)
    assert sweep(KEY, model, variables, wrong, shrinks).method == Shrinks(0.0)


def test_the_score_is_accuracy_less_mia_accuracy(model, variables, task):
    selection = sweep(KEY, model, variables, task, [Shrinks(1.0)])
    question = choosing_task(jax.random.fold_in(KEY, 0), task)
    expected = accuracy(model, variables, question.test)
    attack = MembershipInference("loss", "logistic")
    found = attack(jax.random.fold_in(KEY, 2), model, variables, question).metrics["accuracy"]
    assert selection.trials[0].accuracy == expected
    assert selection.trials[0].mia_accuracy == found
    assert selection.trials[0].score == expected - found


def test_both_halves_are_the_validation_set(task):
    question = choosing_task(KEY, task)
    rows = lambda *parts: sorted(  # noqa: E731
        tuple(np.asarray(x).ravel()) for part in parts for x in part.x
    )
    assert rows(question.validation, question.test) == rows(task.validation)
    np.testing.assert_array_equal(question.forget.x, task.forget.x)
    np.testing.assert_array_equal(question.retain.x, task.retain.x)


def test_the_order_does_not_matter_and_the_first_of_equals_wins(model, variables, task):
    forth, back = (sweep(KEY, model, variables, task, m) for m in (METHODS, METHODS[::-1]))
    assert forth.method == back.method
    assert forth.trials == back.trials[::-1]
    twins = [FineTune(epochs=0, batch_size=32), FineTune(epochs=0, batch_size=64)]
    assert sweep(KEY, model, variables, task, twins).method == twins[0]


def test_a_setting_that_diverges_is_passed_over(model, variables, task):
    selection = sweep(KEY, model, variables, task, [Shrinks(-1.0), Shrinks(0.0)])
    assert selection.method == Shrinks(0.0)
    assert selection.trials[0].diverged == "diverged at -1.0"
    with pytest.raises(DivergedError, match="all 2 settings diverged; the first: diverged at -2"):
        sweep(KEY, model, variables, task, [Shrinks(-2.0), Shrinks(-1.0)])


def test_no_key_is_used_twice(model, variables, task):
    with jax.debug_key_reuse(True):
        sweep(jax.random.key(7), model, variables, task, METHODS)


def test_a_grid_is_every_combination():
    base = FineTune(batch_size=32, momentum=0.5)
    methods = grid(base, learning_rate=[0.1, 0.2], epochs=(1, 2, 3))
    assert len(set(methods)) == 6
    assert methods[1] == dataclasses.replace(base, learning_rate=0.1, epochs=2)
    assert all(isinstance(method, Unlearner) for method in methods)
    assert grid(base) == [base]


def test_nonsense_is_refused(model, variables, task):
    with pytest.raises(ValueError, match="at least one setting"):
        sweep(KEY, model, variables, task, [])
    with pytest.raises(ValueError, match="learning_rate needs at least one value"):
        grid(FineTune(), learning_rate=[])
    with pytest.raises(ValueError, match="learning_rate must be > 0"):
        grid(FineTune(), learning_rate=[-1.0])
    with pytest.raises(TypeError, match="temperature"):
        grid(FineTune(), temperature=[1.0])
    few = task._replace(validation=task.validation.take(np.arange(15)))
    attack = MembershipInference(folds=10)
    with pytest.raises(ValueError, match="choose an attack with folds <= 8"):
        sweep(KEY, model, variables, few, [Retrain(RECIPE)], attack=attack)
    one = task._replace(validation=task.validation.take(np.arange(1)))
    with pytest.raises(ValueError, match="at least 2 validation examples, got 1"):
        sweep(KEY, model, variables, one, [Retrain(RECIPE)])
