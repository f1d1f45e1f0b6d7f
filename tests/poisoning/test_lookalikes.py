import jax
import jax.numpy as jnp
import numpy as np
import pytest

from unlearnkit import models
from unlearnkit.base import Dataset, Task, Variables
from unlearnkit.poisoning import Bounds, Budget, Lookalikes

KEY = jax.random.key(0)
LABELS = np.repeat(np.arange(3), 20)


@pytest.fixture(scope="module")
def line():
    """Images of one bright pixel, and a network whose logit of class j is j times the pixel."""
    model = models.create("logistic", input_shape=(1, 1, 1), n_classes=3)
    shaped = model.init(KEY)
    params = jax.tree.map(
        lambda leaf: jnp.arange(3.0).reshape(leaf.shape) if leaf.size == leaf.shape[-1] else leaf,
        shaped.params,
    )
    params = jax.tree.map(lambda leaf: leaf * 0 if leaf.ndim == 1 else leaf, params)
    x = jax.random.uniform(jax.random.key(1), (60, 1, 1, 1))
    data = Dataset(x, jnp.asarray(LABELS, jnp.int32))
    last, few = data.take(np.array([59])), data.take(np.arange(3))
    task = Task(data.take(np.arange(59)), last, few, few)
    return model, Variables(params, shaped.state), task


def test_poisons_show_the_images_of_the_asked_ranks(line):
    task = line[2]
    poisoned = Lookalikes(Budget(0.2), skip=1.0)(KEY, *line)
    pixels, info = np.asarray(task.train.x).ravel(), poisoned.info
    base, shown = np.asarray(info.base), np.asarray(info.extras["shown"])
    found = np.asarray(poisoned.dataset.x[poisoned.is_poison]).ravel()
    np.testing.assert_array_equal(found, pixels[shown])
    np.testing.assert_array_equal(poisoned.dataset.y[poisoned.is_poison], LABELS[base])
    assert np.all(LABELS[shown] != LABELS[base])
    # The probability of class 2 grows with the pixel, that of class 0 falls.
    for label, way in ((0, 1), (2, -1)):
        mine = np.flatnonzero(LABELS[base] == label)
        others = np.flatnonzero(label != LABELS)
        ranked = others[np.argsort(way * pixels[others])]
        np.testing.assert_array_equal(shown[mine], ranked[len(mine) : 2 * len(mine)])


def test_the_deepest_images_are_taken_where_too_few_are_left(line):
    pixels = np.asarray(line[2].train.x).ravel()
    poisoned = Lookalikes(Budget(0.5), skip=100.0)(KEY, *line)
    base, shown = (np.asarray(a) for a in (poisoned.info.base, poisoned.info.extras["shown"]))
    mine = LABELS[base] == 2
    others = np.flatnonzero(LABELS != 2)
    deepest = others[np.argsort(pixels[others])][: mine.sum()]
    assert set(shown[mine]) == set(deepest)


def test_bounds_hold(line):
    poisoned = Lookalikes(Budget(0.2), Bounds(radius=0.1))(KEY, *line)
    moved = poisoned.dataset.x[poisoned.is_poison] - line[2].train.x[poisoned.info.base]
    assert 0.05 < float(jnp.abs(moved).max()) <= 0.1 + 1e-6


def test_more_poisons_of_a_label_than_others_are_refused(line):
    model, variables, task = line
    many = task.train._replace(y=jnp.asarray(LABELS == 2, jnp.int32))
    last, few = many.take(np.array([59])), many.take(np.arange(3))
    task = Task(many.take(np.arange(59)), last, few, few)
    model, variables, task = line
    many = task.train._replace(y=jnp.asarray(LABELS == 2, jnp.int32))
    last, few = many.take(np.array([59])), many.take(np.arange(3))
    task = Task(many.take(np.arange(59)), last, few, few)
    with pytest.raises(ValueError, match=r"label 0 has 40 poisons, but 20 examples are of other"):
        Lookalikes(Budget(1.0))(KEY, model, variables, task)


def test_a_negative_depth_is_refused():
    with pytest.raises(ValueError, match="skip must be >= 0, got -1"):
        Lookalikes(skip=-1)
