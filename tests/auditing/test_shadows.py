import dataclasses

import jax
import numpy as np
import pytest

from unlearnkit.auditing import Lira, margins, train_shadows
from unlearnkit.base import concatenate
from unlearnkit.training import Recipe, fit, predict
from unlearnkit.unlearning import FineTune, Retrain

KEY = jax.random.key(11)


@pytest.fixture(scope="module")
def attacked(task):
    """A task without room between forget and test: both are candidates."""
    return task._replace(test=task.test.take(np.arange(40)))


@pytest.fixture(scope="module")
def shadows(mlp, attacked, recipe):
    return train_shadows(
        KEY,
        mlp,
        attacked._replace(forget=attacked.forget.take(np.arange(0))),
        attacked.forget,
        recipe,
        count=4,
    )


def test_each_candidate_is_in_half_of_the_shadows(shadows):
    np.testing.assert_array_equal(shadows.is_in.sum(0), 2)
    np.testing.assert_array_equal(shadows.is_in.sum(1), 20)
    np.testing.assert_array_equal(shadows.is_in[0], ~shadows.is_in[1])
    assert not np.array_equal(shadows.is_in[0], shadows.is_in[2])
    assert shadows.cost.example_gradients == 4 * 20 * (180 // 32) * 32


def test_shadows_know_what_they_were_trained_on(shadows):
    inside = shadows.margins[shadows.is_in].mean()
    outside = shadows.margins[~shadows.is_in].mean()
    assert inside > outside + 0.2


def test_a_shadow_is_a_network_trained_on_its_half(mlp, attacked, recipe, shadows):
    half_key, train_key, _ = jax.random.split(KEY, 3)
    key = jax.random.split(train_key, 4)[2]
    first = jax.random.permutation(jax.random.split(half_key, 2)[1], 40)[:20]
    alone = fit(key, mlp, concatenate(attacked.retain, attacked.forget.take(first)), recipe)
    logits = predict(mlp, alone.variables, attacked.forget.x)
    np.testing.assert_allclose(
        shadows.margins[2], margins(logits, attacked.forget.y), rtol=1e-2, atol=1e-2
    )


def test_shadows_unlearn_by_the_method_under_test(mlp, attacked, recipe):
    """Shadows retrained without their half know nothing of it; LiRA's own shadows do."""
    gap = {}
    for name, unlearner in (("none", None), ("retrain", Retrain(recipe))):
        attack = Lira(recipe, unlearner, count=4)
        _, _, shadows = attack.train(KEY, mlp, attacked)
        gap[name] = shadows.margins[shadows.is_in].mean() - shadows.margins[~shadows.is_in].mean()
        gradients = 20 * ((200 // 32) * 32 + (160 // 32 * 32 if unlearner else 0))
        assert shadows.cost.example_gradients == 4 * gradients
    assert gap["none"] > 0.5
    assert abs(gap["retrain"]) < 0.25


def test_a_forget_set_larger_than_the_test_set_stays_whole(mlp, task, recipe):
    """10 test examples: 10 forget examples are candidates, the other 30 are in every shadow."""
    seen = []

    @dataclasses.dataclass(frozen=True)
    class Spy:
        train_like: Recipe | None = None

        def __call__(self, key, model, variables, task, *, on_epoch=None):
            seen.append(task)
            assert self.train_like == short
            return FineTune(epochs=1, batch_size=32)(key, model, variables, task)

    small = task._replace(test=task.test.take(np.arange(10)))
    short = dataclasses.replace(recipe, epochs=1)
    candidates, _, shadows = Lira(short, Spy(), count=4).train(KEY, mlp, small)
    assert candidates.size == 20
    assert shadows.is_in.shape == (4, 20)
    for asked in seen:
        assert asked.forget.size == 40
        assert asked.retain.size == 160
        np.testing.assert_array_equal(asked.test.x, task.validation.x)
    rows = {tuple(row) for row in np.asarray(seen[0].forget.x).round(4).tolist()}
    members = {tuple(row) for row in np.asarray(task.forget.x).round(4).tolist()}
    assert len(rows & members) >= 30
