"""Precision and recall by hand, and one call from a defence to a retrained network."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from unlearnkit import models
from unlearnkit.base import Cost, Dataset, DefenceInfo, Defended
from unlearnkit.defences import LossFilter, MaxUp, defend_and_retrain, score_defence
from unlearnkit.training import Recipe, fit

KEY = jax.random.key(3)
RECIPE = Recipe(epochs=3, batch_size=8)
MODEL = models.create("logistic", input_shape=(4,), n_classes=3)


def decided(keep, scores=None):
    keep = np.asarray(keep, bool)
    scores = np.zeros(len(keep)) if scores is None else np.asarray(scores)
    return Defended(
        jnp.asarray(keep), jnp.asarray(scores, jnp.float32), DefenceInfo(Cost(0.0, 0.0))
    )


def draw(seed, n):
    x = jax.random.normal(jax.random.key(seed), (n, 4))
    return Dataset(x, jnp.argmax(x[:, :3], axis=1).astype(jnp.int32))


def test_precision_and_recall_by_hand():
    defended = decided([0, 0, 1, 1, 0, 1], [5, 4, 3, 2, 6, 1])
    metrics = score_defence(defended, np.array([1, 0, 1, 0, 1, 0], bool))
    assert metrics["precision"] == pytest.approx(2 / 3)
    assert metrics["recall"] == pytest.approx(2 / 3)
    assert metrics["dropped"] == 3
    assert metrics["auc"] == pytest.approx(8 / 9)


@given(st.lists(st.tuples(st.booleans(), st.booleans(), st.integers(0, 3)), min_size=1))
def test_scores_count_pairs(rows):
    keep, poison, scores = (np.array(column) for column in zip(*rows, strict=True))
    if not poison.any():
        return
    metrics = score_defence(decided(keep, scores), poison)
    assert metrics["recall"] * poison.sum() == pytest.approx(np.sum(~keep & poison))
    if keep.all():
        assert np.isnan(metrics["precision"])
    else:
        assert metrics["precision"] * np.sum(~keep) == pytest.approx(np.sum(~keep & poison))
    if poison.all():
        assert np.isnan(metrics["auc"])
    else:
        pairs = np.subtract.outer(scores[poison], scores[~poison])
        assert metrics["auc"] == pytest.approx(np.mean((pairs > 0) + 0.5 * (pairs == 0)))


def test_retrains_on_what_is_kept():
    data, test = draw(1, 60), draw(2, 30)
    variables = fit(jax.random.key(0), MODEL, data, RECIPE).variables
    is_poison = np.arange(60) < 5
    method = LossFilter(fraction=0.1)
    found = defend_and_retrain(
        KEY, method, MODEL, variables, data, RECIPE, test=test, is_poison=is_poison
    )
    defence_key, train_key = jax.random.split(KEY)
    keep = method(defence_key, MODEL, variables, data).keep
    wanted = fit(train_key, MODEL, data.take(np.flatnonzero(keep)), RECIPE).variables
    for a, b in zip(jax.tree.leaves(found.variables), jax.tree.leaves(wanted), strict=True):
        assert np.array_equal(a, b)
    for name, weights in (("", wanted), ("_undefended", variables)):
        right = jnp.mean(jnp.argmax(MODEL.apply(weights, test.x), 1) == test.y)
        assert found.metrics[f"accuracy_test{name}"] == pytest.approx(float(right))
    assert found.metrics["kept"] == 54
    assert found.metrics["dropped"] == 6
    assert found.metrics["recall"] == score_defence(found.defended, is_poison)["recall"]


def test_a_trainer_keeps_all_and_finds_nothing():
    data, test = draw(1, 60), draw(2, 30)
    variables = fit(jax.random.key(0), MODEL, data, RECIPE).variables
    found = defend_and_retrain(KEY, MaxUp(), MODEL, variables, data, RECIPE, test=test)
    wanted = MaxUp().fit(jax.random.split(KEY)[1], MODEL, data, RECIPE).variables
    for a, b in zip(jax.tree.leaves(found.variables), jax.tree.leaves(wanted), strict=True):
        assert np.array_equal(a, b)
    assert found.defended is None
    assert set(found.metrics) == {"accuracy_test", "accuracy_test_undefended"}


@pytest.mark.parametrize(
    ("is_poison", "message"),
    [
        (np.zeros(60, bool), "marks no example"),
        (np.ones(59, bool), "one boolean for each of the 60 examples, got bool"),
        (np.ones(60, np.int32), "got int32"),
    ],
)
def test_bad_poison_masks_are_refused(is_poison, message, unchecked_types):
    data = draw(1, 60)
    variables = MODEL.init(jax.random.key(0))
    with pytest.raises(ValueError, match=message):
        defend_and_retrain(
            KEY, LossFilter(), MODEL, variables, data, RECIPE, test=data, is_poison=is_poison
        )


def test_a_test_set_that_does_not_fit_is_refused():
    data = draw(1, 60)
    with pytest.raises(ValueError, match="labels of test must be < 3"):
        defend_and_retrain(
            KEY,
            LossFilter(),
            MODEL,
            MODEL.init(jax.random.key(0)),
            data,
            RECIPE,
            test=data._replace(y=data.y + 1),
        )
