import jax
import jax.numpy as jnp
import numpy as np
import pytest
from forging_oracles import ALLOWED, RATE, VARIABLES, error_of, step_of
from softmax_regression import MODEL, draw

from unlearnkit import models
from unlearnkit.base import Dataset, Normalisation
from unlearnkit.forging import GridLogisticForger, LogisticForger, SwapForger, honest_step
from unlearnkit.forging.logistic_grid import best_changes, make_problem, on_grid, residual
from unlearnkit.models import from_functions

KEY = jax.random.key(3)
WIDE = models.create("logistic", input_shape=(12,), n_classes=3)


def plain_init(key):
    return {"kernel": jax.random.normal(key, (4, 3))}


def plain_apply(params, x):
    return x @ params["kernel"]


def squared_apply(params, x):
    return plain_apply(params, x) ** 2


@pytest.mark.parametrize("toward", ["zero", "allowed"])
@pytest.mark.parametrize("b", [2, 3, 10, 40])
def test_a_forged_batch_takes_the_step_exactly(b, toward):
    """Proposition 2: any b >= rank G does, here 2."""
    step = step_of(30)._replace(batch_size=b)
    forged = LogisticForger(toward)(KEY, MODEL, step, ALLOWED)
    scale = RATE * float(np.abs(forged.batch.x).max() * np.abs(forged.batch.y).max())
    assert error_of(step, forged.batch.x, forged.batch.y) < 3e-7 * max(scale, RATE)
    assert float(forged.error) < 1e-6 * max(scale, RATE)
    np.testing.assert_allclose(np.asarray(forged.batch.y).sum(1), 1, atol=1e-5)
    assert forged.info.rank == 2


def test_it_needs_no_intercept():
    model = from_functions(plain_init, plain_apply, input_shape=(4,))
    variables = model.init(jax.random.key(0))
    step = honest_step(model, variables, draw(8, 20), RATE)
    forged = LogisticForger()(KEY, model, step, ALLOWED)
    assert float(forged.error) < 1e-7


def test_a_forged_example_is_a_multiple_of_the_true_one():
    """Proposition 1: with b = 1 there is no other."""
    model = from_functions(plain_init, plain_apply, input_shape=(4,))
    step = honest_step(model, model.init(jax.random.key(0)), draw(8, 1), RATE)
    forged = LogisticForger()(KEY, model, step, ALLOWED)
    ratios = np.asarray(forged.batch.x[0] / draw(8, 1).x[0])
    np.testing.assert_allclose(ratios, ratios[0], rtol=1e-4)
    assert abs(ratios[0] - 1) > 1e-2
    assert float(forged.error) < 1e-7


def test_every_row_of_a_gradient_sums_to_zero():
    """Lemma 1."""
    layer = step_of(30).gradient["classifier"]
    for rows in layer.values():
        np.testing.assert_allclose(rows.sum(-1), 0, atol=1e-6)
    assert max(float(np.abs(rows).max()) for rows in layer.values()) > 1e-2


def test_fewer_examples_than_the_rank_are_refused():
    step = step_of(30)._replace(batch_size=1)
    with pytest.raises(ValueError, match="must be >= the rank of the gradient, 2, got 1"):
        LogisticForger()(KEY, MODEL, step, ALLOWED)


def test_free_directions_keep_images_near():
    """What is added to the images lies in the span of C': nothing is added that G does not ask."""
    step = step_of(30)._replace(batch_size=10)
    near = LogisticForger("allowed")(KEY, MODEL, step, ALLOWED)
    images = np.asarray(ALLOWED.take(jax.random.permutation(KEY, 40)[:10]).x)
    added = np.asarray(near.batch.x) - images
    np.testing.assert_allclose(near.info.distance, np.linalg.norm(added), rtol=1e-4)
    assert np.linalg.matrix_rank(added, tol=1e-4) <= 2
    far = LogisticForger("zero")(KEY, MODEL, step, ALLOWED)
    assert np.linalg.norm(np.asarray(far.batch.x) - images) > 1.5 * near.info.distance
    assert np.linalg.matrix_rank(np.asarray(far.batch.x), tol=1e-4) <= 2


def test_other_networks_are_refused():
    mlp = models.create("mlp", input_shape=(4,), n_classes=3, hidden=(5,))
    variables = mlp.init(jax.random.key(0))
    step = honest_step(mlp, variables, ALLOWED, RATE)
    for forger in (LogisticForger(), GridLogisticForger()):
        with pytest.raises(ValueError, match="needs logits = W"):
            forger(KEY, mlp, step, ALLOWED)
    squared = from_functions(plain_init, squared_apply, input_shape=(4,))
    step = honest_step(squared, squared.init(KEY), ALLOWED, RATE)
    with pytest.raises(ValueError, match="needs logits = W"):
        LogisticForger()(KEY, squared, step, ALLOWED)


NORMALISATION = Normalisation("test", (0.5,), (0.25,))


def pictures(seed, n):
    levels = jax.random.randint(jax.random.key(seed), (n, 12), 0, 256)
    y = jax.random.randint(jax.random.key(seed + 1), (n,), 0, 3, jnp.int32)
    return Dataset(NORMALISATION.apply(levels / 255), y, NORMALISATION)


@pytest.fixture(scope="module")
def problem():
    layer = {
        "kernel": 0.1 * jax.random.normal(jax.random.key(1), (12, 3)),
        "bias": jnp.array([0.1, 0.0, -0.1]),
    }
    variables = VARIABLES._replace(params={"classifier": layer})
    return honest_step(WIDE, variables, pictures(20, 16), RATE), pictures(40, 60)


def test_each_change_is_the_best_for_its_pixel(problem):
    step, allowed = problem
    start = allowed.take(jnp.arange(5))
    posed, levels = make_problem(WIDE, step, start), on_grid(start)

    def score(changed):
        return float(jnp.sum(residual(posed, jnp.asarray(changed, jnp.float32))[0] ** 2))

    before = score(levels)
    examples, changes, gains = best_changes(posed, levels)
    for pixel in range(12):
        found = []
        for example in range(5):
            for change in range(-255, 256, 5):
                value = float(levels[example, pixel]) + change
                if 0 <= value <= 255:
                    tried = np.array(levels)
                    tried[example, pixel] = value
                    found.append(score(tried) - before)
        made = np.array(levels)
        made[int(examples[pixel]), pixel] += float(changes[pixel])
        assert 0 <= made.min() <= made.max() <= 255
        # The prediction is first order in the logits; it must come near the best that there is.
        assert score(made) - before < 0.8 * min(found)
        assert abs(float(gains[pixel]) - (score(made) - before)) < 0.35 * abs(float(gains[pixel]))


def test_a_batch_of_pictures_and_classes_comes_near_the_step(problem):
    step, allowed = problem
    forger = GridLogisticForger(SwapForger(60, 100, restarts=1), iterations=100, rounds=100)
    forged = forger(KEY, WIDE, step, allowed)
    batch = forged.batch
    levels = np.asarray(NORMALISATION.invert(batch.x), np.float64) * 255
    np.testing.assert_allclose(levels, np.round(levels), atol=1e-3)
    assert levels.min() > -1e-3
    assert levels.max() < 255 + 1e-3
    assert batch.y.dtype == jnp.int32
    expected = error_of(step, batch.x, np.eye(3)[np.asarray(batch.y)])
    np.testing.assert_allclose(forged.error, expected, rtol=1e-2, atol=1e-8)
    errors = np.asarray(forged.info.errors)
    assert np.all(np.diff(errors) <= 0)
    np.testing.assert_allclose(forged.error, errors[-1], rtol=0.1, atol=1e-7)
    assert float(forged.error) < errors[0] / 1.5
    assert float(forged.info.descended) < float(forged.info.started) / 5
    assert 0 < float(forged.info.changed) <= 1


def test_bad_arguments_are_refused(unchecked_types):
    with pytest.raises(ValueError, match="toward must be one of zero, allowed, got 'far'"):
        LogisticForger("far")
    with pytest.raises(ValueError, match="rounds must be >= 1, got 0"):
        GridLogisticForger(rounds=0)
