"""BadNets with clean labels: the patch alone, on examples of the target class."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from unlearnkit import models
from unlearnkit.base import Dataset, Task
from unlearnkit.poisoning import BadNets, Budget

KEY = jax.random.key(0)
X = jax.random.uniform(KEY, (40, 4, 4, 1), maxval=0.5)
DATA = Dataset(X, (jnp.arange(40) % 4).astype(jnp.int32))
TASK = Task(DATA.take(np.arange(39)), DATA.take(np.array([39])), DATA, DATA)
MODEL = models.create("logistic", input_shape=(4, 4, 1), n_classes=4)


def poison(**options):
    attack = BadNets(target_class=2, size=2, corner=(-2, -2), **options)
    return attack(KEY, MODEL, MODEL.init(KEY), TASK)


@pytest.mark.parametrize("placement", ["perturb", "add"])
def test_clean_labels_change_no_label_and_stamp_the_target_class_alone(placement):
    poisoned = poison(budget=Budget(count=6), clean_label=True, placement=placement)
    clean, rows = TASK.train, np.flatnonzero(poisoned.is_poison)
    base = np.asarray(poisoned.info.base)
    assert len(rows) == 6
    assert poisoned.dataset.size == (40 if placement == "perturb" else 46)
    assert set(np.asarray(poisoned.dataset.y)[rows]) == set(np.asarray(clean.y)[base]) == {2}
    np.testing.assert_array_equal(poisoned.dataset.y[:40], clean.y)  # every label stays right
    x, before = np.asarray(poisoned.dataset.x)[rows], np.asarray(clean.x)[base]
    np.testing.assert_array_equal(x[:, 2:, 2:], 1)
    np.testing.assert_array_equal(x[:, :2], before[:, :2])
    np.testing.assert_array_equal(x[:, :, :2], before[:, :, :2])


def test_without_them_the_other_classes_are_stamped_and_called_the_target():
    poisoned = poison(budget=Budget(count=6))
    classes = np.asarray(TASK.train.y)[np.asarray(poisoned.info.base)]
    assert 2 not in classes
    assert set(np.asarray(poisoned.dataset.y)[np.asarray(poisoned.is_poison)]) == {2}


def test_a_budget_beyond_the_target_class_is_refused():
    with pytest.raises(ValueError, match="10 examples of class 2, fewer than the 11 poisons"):
        poison(budget=Budget(count=11), clean_label=True)
