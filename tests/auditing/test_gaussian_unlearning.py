"""GUS: its distribution where nothing is known, and what it says where something is."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from unlearnkit import models
from unlearnkit.auditing import (
    GaussianPoisons,
    GaussianUnlearningScore,
    audit_gradients,
    gaussian_poisons,
)
from unlearnkit.auditing.gaussian_unlearning import judge_statistic, noise_statistic
from unlearnkit.base import Dataset, Poisoned, Task, Variables
from unlearnkit.training import DivergedError, Recipe, fit

KEY = jax.random.key(0)


def draw(task, m, std=0.5, seed=0):
    x_key, noise_key = jax.random.split(jax.random.key(seed))
    rows = jax.random.randint(x_key, (m,), 0, task.train.size)
    part = task.train.take(rows)
    noise = std * jax.random.normal(noise_key, part.x.shape)
    return GaussianPoisons(part.x, part.y, noise, jnp.asarray(std))


def test_noise_that_the_network_never_saw_is_standard_normal(mlp, original, task):
    statistic = noise_statistic(mlp, original, draw(task, 10_000))
    assert stats.kstest(statistic, "norm").pvalue > 1e-3
    metrics = judge_statistic(statistic, 0.01).metrics
    assert abs(metrics["z"]) < 4
    for test in ("above", "below", "two_sided"):
        assert metrics[f"tpr_{test}_low"] < 0.012
        assert metrics[f"tpr_{test}_high"] > 0.008


def test_the_statistic_is_that_of_the_losss_gradient(mlp, original, task):
    """Algorithm 3 by plain autodiff in float64, one example after another."""
    poisons = draw(task, 12)
    got = noise_statistic(mlp, original, poisons)
    with jax.enable_x64(True):
        variables = jax.tree.map(lambda v: v.astype(jnp.float64), original)

        def loss(x, y):
            return -jax.nn.log_softmax(mlp.apply(variables, x[None]))[0, y]

        slope = jax.jit(jax.grad(loss))
        for i in range(12):
            g = np.asarray(slope(poisons.x[i].astype(jnp.float64), poisons.y[i]))
            want = g @ np.asarray(poisons.noise[i], np.float64) / (0.5 * np.linalg.norm(g))
            np.testing.assert_allclose(got[i], want, rtol=1e-3, atol=1e-4)


def test_it_is_there_where_the_loss_has_no_gradient_left(linear):
    """The probability of the label is 1 to the last bit."""
    variables = Variables({"w": jnp.zeros((5, 3)).at[0, 0].set(1.0).at[1, 1].set(1.0)})
    x = jnp.zeros((2, 5)).at[:, 0].set(200.0)
    noise = jnp.array([[1.0, 0, 0, 0, 7.0], [0, 2.0, 0, 0, 0]])
    poisons = GaussianPoisons(x, jnp.zeros(2, jnp.int32), noise, jnp.asarray(1.0))

    def loss(x):
        return -jax.nn.log_softmax(linear.apply(variables, x))[:, 0].sum()

    assert not np.any(jax.grad(loss)(x))
    np.testing.assert_allclose(
        noise_statistic(linear, variables, poisons), [-1 / np.sqrt(1.25), 1 / np.sqrt(1.25)], 1e-5
    )


def test_where_the_gradient_is_the_noise_the_mean_is_root_d():
    """And not √(d/2), as is printed."""
    d, generator = 400, np.random.default_rng(0)
    noise = generator.normal(size=(200, d)) * 0.3
    statistic = (noise * noise).sum(1) / (0.3 * np.linalg.norm(noise, axis=1))
    np.testing.assert_allclose(judge_statistic(statistic, 0.01).metrics["gus"], 20, rtol=0.01)


def test_a_planted_dependence_is_found():
    """More weights than poisons: a network that trained on them, and one that saw the images."""
    x_key, y_key, noise_key = jax.random.split(KEY, 3)
    x, noise = 0.1 * jax.random.normal(x_key, (60, 400)), jax.random.normal(noise_key, (60, 400))
    clean = Dataset(x, jax.random.randint(y_key, (60,), 0, 2).astype(jnp.int32))
    model = models.create("logistic", input_shape=(400,), n_classes=2)
    audit = GaussianUnlearningScore(GaussianPoisons(x, clean.y, noise, jnp.asarray(1.0)))
    recipe = Recipe(epochs=40, batch_size=30, learning_rate=0.05)
    scores = []
    for data in (clean._replace(x=x + noise), clean):
        variables = fit(KEY, model, data, recipe).variables
        scores.append(audit(KEY, model, variables, Task(data, data, data, data)).metrics)
    known, never = scores
    assert known["p_value"] < 1e-6
    assert never["p_value"] > 1e-3
    assert known["gus"] < -0.5  # the loss falls along the noise
    assert known["tpr_below"] > 0.1 > known["tpr_above"]


def test_metrics_against_hand_computed():
    statistic = np.array([3.0, -3.0, 0.0, 2.4])
    metrics = judge_statistic(statistic, 0.01).metrics
    assert metrics["gus"] == pytest.approx(0.6)
    assert metrics["z"] == pytest.approx(1.2)
    assert metrics["p_value"] == pytest.approx(2 * (1 - stats.norm.cdf(1.2)))
    assert metrics["gus_se"] == pytest.approx(statistic.std(ddof=1) / 2)
    assert metrics["tpr_above"] == 0.5  # above 2.33: 3 and 2.4
    assert metrics["tpr_below"] == 0.25
    assert metrics["tpr_two_sided"] == 0.5  # beyond 2.58: 3 and -3
    assert metrics["tpr_above_low"] == pytest.approx(stats.beta.ppf(0.025, 2, 3))


def test_the_trade_off_curve_is_that_of_a_shifted_normal():
    statistic = np.random.default_rng(0).normal(1.5, 1, 20_000)
    curves = judge_statistic(statistic, 0.01).curves
    np.testing.assert_allclose(curves["tpr_above"], curves["tpr_gaussian"], atol=0.02)
    mirrored = judge_statistic(-statistic, 0.01).curves
    np.testing.assert_array_equal(mirrored["tpr_below"], curves["tpr_above"])
    np.testing.assert_allclose(mirrored["tpr_gaussian"], curves["tpr_gaussian"])
    assert np.all(curves["tpr_gaussian"] > curves["fpr"])  # the printed form is below


def test_the_noise_comes_from_the_attack_that_kept_it(task):
    poisons = draw(task, 5)
    extras = {"noise": poisons.noise, "noise_std": poisons.noise_std, "base_x": poisons.x}
    dataset = task.train._replace(x=poisons.x + poisons.noise, y=poisons.y)
    kept = Poisoned(dataset, jnp.ones(5, bool), SimpleNamespace(extras=extras))
    for got, want in zip(gaussian_poisons(kept), poisons, strict=True):
        np.testing.assert_array_equal(got, want)
    other = Poisoned(dataset, jnp.ones(5, bool), SimpleNamespace(extras={"targets": poisons.y}))
    with pytest.raises(ValueError, match="has no noise, noise_std, base_x"):
        gaussian_poisons(other)


def test_refuses_what_cannot_be_measured(mlp, original, task):
    poisons = draw(task, 5)
    with pytest.raises(ValueError, match=r"fpr must be in \(0, 1\)"):
        GaussianUnlearningScore(poisons, fpr=0.0)
    with pytest.raises(ValueError, match="each image needs its noise"):
        GaussianUnlearningScore(poisons._replace(noise=poisons.noise[:, :3]))
    with pytest.raises(ValueError, match="at least 1 poison"):
        GaussianUnlearningScore(jax.tree.map(lambda v: v[:0] if v.ndim else v, poisons))
    with pytest.raises(ValueError, match="noise_std must be > 0"):
        GaussianUnlearningScore(poisons._replace(noise_std=jnp.asarray(0.0)))
    constant = jax.tree.map(jnp.zeros_like, original)
    with pytest.raises(DivergedError, match=r"no direction at poison 0 \(5 such\)"):
        GaussianUnlearningScore(poisons)(KEY, mlp, constant, task)


def test_gradients_from_elsewhere_give_the_same_audit(mlp, original, task):
    poisons = draw(task, 40)

    def loss(x, y):
        return -jax.nn.log_softmax(mlp.apply(original, x[None]))[0, y]

    gradients = np.asarray(jax.vmap(jax.grad(loss))(poisons.x, poisons.y))
    ours = audit_gradients(gradients, np.asarray(poisons.noise), noise_std=0.5)
    theirs = GaussianUnlearningScore(poisons)(KEY, mlp, original, task)
    assert ours.metrics.keys() == theirs.metrics.keys()
    for name, value in theirs.metrics.items():
        assert ours.metrics[name] == pytest.approx(value, rel=1e-3, abs=1e-4), name
    tiny = audit_gradients(
        gradients.astype(np.float64) * 1e-200, np.asarray(poisons.noise), noise_std=0.5
    )
    assert tiny.metrics["gus"] == pytest.approx(ours.metrics["gus"])


@pytest.mark.parametrize(
    ("gradients", "options", "error", "message"),
    [
        (np.ones((2, 3)), {}, ValueError, r"of one shape, m >= 1, got \[2, 3\] and \[2, 4\]"),
        (np.ones((2, 4)), {"noise_std": 0.0}, ValueError, "noise_std must be finite and > 0"),
        (np.ones((2, 4)), {"fpr": 1.0}, ValueError, r"fpr must be in \(0, 1\)"),
        (np.eye(2, 4) * [[0], [1]], {}, DivergedError, "gradient of image 0 is 0 or not finite"),
        (np.full((2, 4), np.nan), {}, DivergedError, r"not finite \(2 such\)"),
    ],
)
def test_gradients_that_tell_nothing_are_refused(gradients, options, error, message):
    with pytest.raises(error, match=message):
        audit_gradients(gradients, np.ones((2, 4)), **{"noise_std": 1.0, **options})
