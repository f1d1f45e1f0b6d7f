"""Problems without the ordinary solution: each is named in `info.status`, and nothing is NaN."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from unlearnkit.kernels import SvmStatus, svm

LOSSES = ["hinge", "squared_hinge", "logistic"]


@partial(jax.jit, static_argnames="loss")
def solve_and_pull_back(x, y, C, weight, loss):
    def outputs(x, C, weight):
        solution = svm(x, y, C=C, loss=loss, sample_weight=weight)
        return (solution.weights, solution.bias, solution.info.multipliers), solution

    out, pullback, solution = jax.vjp(outputs, x, C, weight, has_aux=True)
    return solution, pullback(jax.tree.map(jnp.ones_like, out))


def padded(values, fill):
    """20 examples, so that one compilation a loss serves all tests; the new ones have weight 0."""
    values = np.asarray(values, np.float32)
    return np.concatenate([values, np.full((20 - len(values), *values.shape[1:]), fill)], 0)


def solve(x, y, *, C=1.0, loss="hinge", weight=None):
    """Solves, and checks that solution, info and every derivative are finite."""
    weight = np.ones(len(y)) if weight is None else weight
    x, y, weight = (
        padded(v, fill).astype(np.float32) for v, fill in ((x, 9.0), (y, 1), (weight, 0))
    )
    solution, derivatives = solve_and_pull_back(x, y, np.float32(C), weight, loss)
    info = solution.info._replace(bias_interval=0.0)
    for leaf in jax.tree.leaves((solution._replace(info=info), derivatives)):
        assert np.all(np.isfinite(leaf))
    np.testing.assert_array_equal(derivatives[0][weight == 0], 0)
    return solution


def test_two_examples_far_apart():
    solution = solve([[0.0, 0.0], [3.0, 4.0]], [-1, 1])
    assert solution.info.status == SvmStatus.SEPARABLE
    assert solution.info.n_margin == 2
    # The widest margin is the segment itself: w = 2 delta / |delta|^2.
    np.testing.assert_allclose(solution.weights, [6 / 25, 8 / 25], rtol=1e-6)
    np.testing.assert_allclose(solution.bias, -1, rtol=1e-6)


def test_two_examples_close_together():
    solution = solve([[0.0, 0.0], [0.5, 0.0]], [-1, 1])
    assert solution.info.status == SvmStatus.BIAS_NOT_UNIQUE
    np.testing.assert_allclose(solution.weights, [0.5, 0], rtol=1e-6)
    # Both stay inside the margin while -b <= 1 and 0.25 + b <= 1.
    np.testing.assert_allclose(solution.info.bias_interval, [-1, 0.75], rtol=1e-6)
    np.testing.assert_allclose(solution.bias, -0.125, rtol=1e-6)


@pytest.mark.parametrize("loss", LOSSES)
def test_two_equal_examples_of_both_labels(loss):
    solution = solve([[2.0, 1.0], [2.0, 1.0]], [-1, 1], loss=loss)
    assert solution.info.status == SvmStatus.CONSTANT_FEATURES
    np.testing.assert_array_equal(solution.weights, 0)
    np.testing.assert_allclose(solution.bias, 0, atol=1e-6)


def test_separable_does_not_depend_on_c():
    rng = np.random.default_rng(0)
    y = np.where(np.arange(20) % 2, 1, -1)
    x = rng.normal(size=(20, 2)) + 4 * y[:, None]
    hard = solve(x, y, C=1e2)
    assert hard.info.status == SvmStatus.SEPARABLE
    for C in (1e4, 1e8):
        harder = solve(x, y, C=C)
        assert harder.info.status == SvmStatus.SEPARABLE
        assert harder.info.converged
        np.testing.assert_allclose(harder.weights, hard.weights, rtol=1e-5)
        np.testing.assert_allclose(harder.bias, hard.bias, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("loss", ["squared_hinge", "logistic"])
def test_separable_with_a_great_c_converges(loss):
    x = np.r_[np.linspace(-3, -1, 10), np.linspace(1, 3, 10)][:, None] * [1, 0.5]
    solution = solve(x, np.r_[-np.ones(10), np.ones(10)], C=1e6, loss=loss)
    assert solution.info.status == SvmStatus.OPTIMAL
    assert solution.info.converged


def test_no_margin_vectors():
    rng = np.random.default_rng(1)
    x = rng.normal(size=(20, 2))
    y = np.where(np.arange(20) % 2, 1, -1)
    solution = solve(x, y, C=1e-4)
    assert solution.info.status == SvmStatus.BIAS_NOT_UNIQUE
    assert solution.info.n_margin == 0
    assert solution.info.n_support == 20
    # With every multiplier at its bound the weights are known in closed form.
    np.testing.assert_allclose(solution.weights, 1e-4 * y @ x, rtol=1e-4)
    low, high = solution.info.bias_interval
    np.testing.assert_allclose(solution.bias, (low + high) / 2, atol=1e-6)
    w = np.asarray(solution.weights)
    loss_at = [np.maximum(0, 1 - y * (x @ w + b)).sum() for b in (low, (low + high) / 2, high)]
    np.testing.assert_allclose(loss_at, loss_at[0], rtol=1e-6)
    assert np.maximum(0, 1 - y * (x @ w + high + 1e-2)).sum() > loss_at[0] + 5e-3


def test_duplicated_points_on_the_margin():
    x = np.repeat([[-1.0, 0.0], [1.0, 0.5], [1.2, -0.5], [-1.3, 1.0]], 5, axis=0)
    y = np.repeat([-1, 1, 1, -1], 5)
    solution = solve(x, y)
    assert solution.info.status == SvmStatus.DEGENERATE_MARGIN
    assert solution.info.converged
    once = solve(x[::5], y[::5], C=5.0)
    np.testing.assert_allclose(solution.weights, once.weights, rtol=1e-5)
    np.testing.assert_allclose(solution.bias, once.bias, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("label", [-1, 1])
def test_one_class(label, loss):
    solution = solve(np.random.default_rng(0).normal(size=(20, 2)), np.full(20, label), loss=loss)
    assert solution.info.status == SvmStatus.ONE_CLASS
    assert solution.info.converged
    np.testing.assert_array_equal(solution.weights, 0)
    if loss == "logistic":
        np.testing.assert_allclose(
            solution.bias, -label * np.log(np.finfo("float32").eps), rtol=1e-6
        )
        return
    assert solution.bias == label
    interval = [1, np.inf] if label == 1 else [-np.inf, -1]
    np.testing.assert_array_equal(solution.info.bias_interval, interval)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("constant", [0.1, -1e4])
def test_constant_feature_has_no_weight(constant, loss):
    rng = np.random.default_rng(0)
    y = np.where(np.arange(20) % 2, 1, -1)
    x = np.c_[rng.normal(size=20) + 0.5 * y, np.full(20, constant)]
    solution = solve(x, y, loss=loss)
    assert solution.info.converged
    assert solution.info.n_constant_features == 1
    assert solution.weights[1] == 0
    zero = solve(x * [1, 0], y, loss=loss)
    np.testing.assert_allclose(solution.weights[0], zero.weights[0], rtol=1e-5)


@pytest.mark.parametrize("loss", LOSSES)
def test_a_feature_that_no_support_vector_has(loss):
    # As the pixels at an image's edge: its weight is rounding, which is no sign of a bad solve.
    rng = np.random.default_rng(1)
    y = np.where(np.arange(20) % 2, 1, -1)
    far = np.arange(20) < 6
    x = np.c_[
        np.where(far, 9 * y, rng.normal(size=20)), np.where(far, rng.random(20), 0), rng.random(20)
    ]
    solution = solve(x, y, loss=loss, C=10.0)
    alpha = solution.info.multipliers
    assert np.all(alpha[:6] < 1e-3 * alpha.max())
    assert solution.info.converged
    assert np.all(np.abs(solution.weights[1]) < 1e-3 * np.abs(solution.weights).max())


@pytest.mark.parametrize("loss", LOSSES)
def test_all_features_constant(loss):
    solution = solve(np.full((20, 2), 0.3), [1] * 12 + [-1] * 8, loss=loss)
    assert solution.info.status == SvmStatus.CONSTANT_FEATURES
    np.testing.assert_array_equal(solution.weights, 0)
    expected = {"hinge": 1.0, "squared_hinge": 0.2, "logistic": np.log(1.5)}[loss]
    np.testing.assert_allclose(solution.bias, expected, rtol=1e-5)


@pytest.mark.parametrize("loss", LOSSES)
def test_one_example(loss):
    solution = solve([[1.0, 2.0]], [1], loss=loss)
    assert solution.info.status == SvmStatus.ONE_CLASS


@pytest.mark.parametrize("loss", LOSSES)
def test_no_examples(loss):
    solution = solve([[1.0, 0.0], [2.0, 1.0]], [1, -1], weight=[0.0, 0.0], loss=loss)
    assert solution.info.status == SvmStatus.NO_EXAMPLES
    np.testing.assert_array_equal(solution.weights, 0)
    assert solution.bias == 0


@pytest.mark.parametrize("loss", LOSSES)
def test_what_has_no_weight_does_not_matter(loss):
    x = np.random.default_rng(0).normal(size=(20, 2))
    y = [1, -1] * 10
    mask = np.arange(20) < 15
    clean = solve(x, y, loss=loss, weight=mask * 1.0)
    x[15:] = [np.nan, np.inf]
    poisoned = solve(x, y, loss=loss, weight=mask * 1.0)
    np.testing.assert_array_equal(poisoned.weights, clean.weights)
    gradient = solve_and_pull_back(
        x.astype(np.float32),
        np.asarray(y, np.float32),
        np.float32(1),
        mask.astype(np.float32),
        loss,
    )[1][0]
    assert np.any(gradient[:15] != 0)
    np.testing.assert_array_equal(gradient[15:], 0)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("bad", ["features", "labels", "C", "weight"])
def test_what_cannot_be_refused_under_jit_is_named(bad, loss):
    x = np.random.default_rng(0).normal(size=(20, 2)).astype(np.float32)
    y, weight, C = np.resize(np.float32([1, -1]), 20), np.ones(20, np.float32), np.float32(1)
    if bad == "features":
        x[3, 1] = np.nan
    elif bad == "labels":
        y[2] = 0
    elif bad == "C":
        C = np.float32(np.nan)
    else:
        weight[0] = -1
    solution, _ = solve_and_pull_back(x, y, C, weight, loss)
    assert solution.info.status == SvmStatus.INVALID_INPUT
    assert not solution.info.converged
    assert np.all(np.isnan(solution.weights))
