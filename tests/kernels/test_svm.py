import importlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from sklearn.svm import SVC, LinearSVC

from unlearnkit.kernels import logistic_regression, one_vs_rest, svm

svm_module = importlib.import_module("unlearnkit.kernels.svm")
LOSSES = ["hinge", "squared_hinge", "logistic"]
TOLERANCE = {"float32": 1e-6, "float64": 1e-10}


def problem(n, d, *, seed=0, shift=0.4, dtype=np.float64):
    rng = np.random.default_rng(seed)
    y = np.where(np.arange(n) % 2 == 0, 1, -1)
    x = rng.normal(size=(n, d)) + shift * y[:, None] * rng.random(d) + rng.normal(size=d)
    return x.astype(dtype), y


def solve(x, y, **options):
    return svm(jnp.asarray(x), jnp.asarray(y), **{"C": 1.0, **options})


def kkt_in_float64(x, y, c, solution, loss):
    """The residual of the docstring of `svm`, written anew, in float64 from what it returned."""
    x, y, c = (np.asarray(v, np.float64) for v in (x, y, c))
    w, b, alpha = (
        np.asarray(v, np.float64)
        for v in (solution.weights, solution.bias, solution.info.multipliers)
    )
    margin = y * (x @ w + b)
    size = 1 + abs(b) + np.abs(x) @ np.abs(w)
    weights = np.abs(w - (alpha * y) @ x) / (np.abs(w) + alpha.sum() * np.abs(x).max(0))
    balance = abs(alpha @ y) / alpha.sum()
    if loss == "hinge":
        u, cap = alpha / alpha.max(), c / alpha.max()
        rest = np.abs(u - np.clip(u - (margin - 1) / size, 0, cap))
    elif loss == "squared_hinge":
        rest = np.abs(alpha - 2 * c * np.maximum(1 - margin, 0)) / (2 * c * size)
    else:
        rest = np.abs(alpha - c / (1 + np.exp(margin))) / (c / 4 * size)
    return max(weights.max(), balance, rest.max())


@pytest.mark.parametrize(
    ("n", "d", "C"), [(24, 3, 0.01), (24, 3, 1.0), (24, 3, 50.0), (20, 30, 1.0)]
)
def test_hinge_is_the_svc_of_scikit_learn(n, d, C):
    x, y = problem(n, d)
    with jax.enable_x64(True):
        ours = solve(x, y, C=C)
        assert ours.info.converged
        peer = SVC(kernel="linear", C=C, tol=1e-10).fit(x, y)
        # LIBSVM stops at four to seven digits: ours must be the lower of two near optima.
        np.testing.assert_allclose(ours.weights, peer.coef_[0], atol=2e-4)
        np.testing.assert_allclose(ours.bias, peer.intercept_[0], atol=2e-4)
        best, other = (
            w @ w / 2 + C * np.maximum(1 - y * (x @ w + b), 0).sum()
            for w, b in ((ours.weights, ours.bias), (peer.coef_[0], peer.intercept_[0]))
        )
        assert best <= other * (1 + 1e-12)
        assert int(ours.info.n_support) == peer.n_support_.sum()


@pytest.mark.parametrize("C", [0.05, 2.0])
def test_squared_hinge_is_linear_svc_with_the_bias_hardly_regularised(C):
    x, y = problem(24, 3)
    peer = LinearSVC(C=C, dual=False, intercept_scaling=1e4, tol=1e-12, max_iter=10**5).fit(x, y)
    with jax.enable_x64(True):
        ours = solve(x, y, C=C, loss="squared_hinge")
    np.testing.assert_allclose(ours.weights, peer.coef_[0], rtol=1e-5)
    np.testing.assert_allclose(ours.bias, peer.intercept_[0], rtol=1e-5)


@pytest.mark.parametrize("C", [0.05, 2.0])
def test_logistic_is_the_logistic_regression_of_scikit_learn(C):
    x, y = problem(24, 3)
    weight = np.linspace(0.5, 2, 24)
    peer = LogisticRegression(C=C, tol=1e-10, max_iter=1000).fit(x, y, sample_weight=weight)
    with jax.enable_x64(True):
        ours = logistic_regression(
            jnp.asarray(x), jnp.asarray(y), C=C, sample_weight=jnp.asarray(weight)
        )
    np.testing.assert_allclose(ours.weights, peer.coef_[0], atol=1e-6)
    np.testing.assert_allclose(ours.bias, peer.intercept_[0], atol=1e-6)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize(("n", "d", "dtype"), [(10_000, 10, "float64"), (10_000, 10, "float32")])
def test_kkt_residual(n, d, dtype, loss):
    with jax.enable_x64(dtype == "float64"):
        x, y = problem(n, d, dtype=dtype)
        solution = solve(x, y, loss=loss)
        assert solution.weights.dtype == dtype
        assert solution.info.converged
        residual = kkt_in_float64(x, y, np.ones(n), solution, loss)
        assert residual <= TOLERANCE[dtype]
        # What info says is this residual up to the rounding of its own sums.
        assert residual <= solution.info.kkt_residual + 0.5 * TOLERANCE[dtype]


@pytest.mark.parametrize("loss", LOSSES)
def test_kkt_residual_in_float32_of_many_features(loss):
    x, y = problem(300, 100, dtype="float32")
    solution = solve(x, y, loss=loss)
    assert kkt_in_float64(x, y, np.ones(300), solution, loss) <= 1e-6


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("C", [1e-4, 1e-2, 1e2, 1e6])
def test_kkt_residual_in_float32_over_seeds_and_units(C, loss):
    units = np.array([1.0, 1e-2, 30.0, 1.0], np.float32)
    for seed in range(4):
        x, y = problem(300, 4, seed=seed, dtype="float32")
        x = x * units + 10 * units
        # Constant features have no weight, and give this test the shape of the one above.
        solution = solve(np.pad(x, ((0, 0), (0, 96))), y, C=C, loss=loss)
        np.testing.assert_array_equal(solution.weights[4:], 0)
        alone = solution._replace(weights=solution.weights[:4])
        assert kkt_in_float64(x, y, np.full(300, C), alone, loss) <= 1e-6


def test_duality_gap_is_primal_less_dual():
    with jax.enable_x64(True):
        x, y = problem(24, 3)
        solution = solve(x, y)
        alpha = np.asarray(solution.info.multipliers)
        w = alpha * y @ x
        margin = y * (x @ w + float(solution.bias))
        primal = w @ w / 2 + np.maximum(1 - margin, 0).sum()
        np.testing.assert_allclose(primal, alpha.sum() - w @ w / 2, rtol=1e-10)
        assert 0 <= solution.info.duality_gap <= 1e-10


seeds = st.integers(0, 10**6)


@pytest.mark.parametrize("loss", LOSSES)
@settings(max_examples=15, deadline=None)
@given(seed=seeds, scale=st.floats(1e-3, 1e3))
def test_symmetries(loss, seed, scale):
    with jax.enable_x64(True):
        x, y = problem(24, 3, seed=seed)
        base = solve(x, y, loss=loss)
        same = {"atol": 1e-8, "rtol": 1e-8}

        order = np.random.default_rng(seed).permutation(24)
        permuted = solve(x[order], y[order], loss=loss)
        np.testing.assert_allclose(permuted.weights, base.weights, **same)
        np.testing.assert_allclose(permuted.bias, base.bias, **same)
        np.testing.assert_allclose(
            permuted.info.multipliers, base.info.multipliers[order], atol=1e-6
        )

        flipped = solve(x, -y, loss=loss)
        np.testing.assert_allclose(flipped.weights, -base.weights, **same)
        np.testing.assert_allclose(flipped.bias, -base.bias, **same)

        moved = solve(x + 5, y, loss=loss)
        np.testing.assert_allclose(moved.weights, base.weights, **same)
        np.testing.assert_allclose(moved.bias, base.bias - 5 * base.weights.sum(), **same)

        scaled = solve(x * scale, y, C=1 / scale**2, loss=loss)
        np.testing.assert_allclose(scaled.weights * scale, base.weights, **same)
        np.testing.assert_allclose(scaled.bias, base.bias, **same)


@pytest.mark.parametrize("loss", LOSSES)
@settings(max_examples=15, deadline=None)
@given(seed=seeds, copied=st.integers(0, 22))
def test_a_copy_of_an_example_is_twice_its_weight(loss, seed, copied):
    with jax.enable_x64(True):
        x, y = problem(24, 3, seed=seed)
        # The last example makes room for the copy.
        weighted = solve(
            x, y, loss=loss, sample_weight=jnp.ones(24).at[copied].set(2).at[23].set(0)
        )
        x[23], y[23] = x[copied], y[copied]
        twice = solve(x, y, loss=loss)
        assert twice.info.converged
        np.testing.assert_allclose(twice.weights, weighted.weights, atol=1e-8)
        np.testing.assert_allclose(twice.bias, weighted.bias, atol=1e-8)


def test_interpreted_is_compiled():
    x, y = problem(2, 1, dtype="float32")
    with jax.disable_jit():
        interpreted = solve(x, y, loss="logistic")
    compiled = solve(x, y, loss="logistic")
    np.testing.assert_allclose(interpreted.weights, compiled.weights, rtol=2e-6)
    np.testing.assert_allclose(interpreted.bias, compiled.bias, rtol=2e-6, atol=1e-6)


def test_compiled_around_constants():
    """Values that are known while a caller is compiled are checked as values."""
    x, y = (jnp.asarray(v) for v in problem(24, 3, dtype="float32"))
    weight, C, classes = jnp.ones(24), jnp.float32(0.5), jnp.arange(24) % 3

    @jax.jit
    def fit(shift):
        moved = svm_module.svm(x + shift, y, C=C, loss="logistic", sample_weight=weight)
        still = svm_module.svm(x, y, C=C, loss="logistic", sample_weight=weight)
        several = one_vs_rest(x, classes, n_classes=3, C=C, loss="logistic")
        return moved.weights, still.weights, several.weights[0]

    moved, still, first = fit(0.0)
    np.testing.assert_allclose(moved, still, rtol=1e-5)
    alone = solve(x, np.where(classes == 0, 1, -1), C=0.5, loss="logistic")
    np.testing.assert_allclose(first, alone.weights, atol=1e-5)


def test_second_call_compiles_nothing():
    with jax.enable_x64(True):
        x, y = problem(24, 3)
        solve(x, y, C=1.0, loss="hinge")
        size = svm_module._fit._cache_size()
        solve(x + 1, -y, C=2.0, loss="hinge", sample_weight=jnp.full(24, 0.5))
        assert svm_module._fit._cache_size() == size


def test_integer_features_and_labels_of_any_type():
    x, y = problem(24, 3, dtype="float32")
    rounded = np.round(3 * x)
    expected = solve(rounded, y, loss="logistic").weights
    for features, labels in ((rounded.astype(np.int32), y), (rounded, y.astype(np.float32))):
        same = solve(features, labels, loss="logistic").weights
        np.testing.assert_array_equal(same, expected)


def test_one_vs_rest_is_one_svm_a_class():
    x, _ = problem(24, 3, dtype="float32")
    labels = np.arange(24) % 3
    together = one_vs_rest(jnp.asarray(x), jnp.asarray(labels), n_classes=3, C=0.5, loss="logistic")
    decision = together.decision(jnp.asarray(x))
    assert decision.shape == (24, 3)
    for k in range(3):
        alone = solve(x, np.where(labels == k, 1, -1), C=0.5, loss="logistic")
        np.testing.assert_allclose(together.weights[k], alone.weights, atol=1e-5)
        np.testing.assert_allclose(together.bias[k], alone.bias, atol=1e-5)
        np.testing.assert_allclose(decision[:, k], alone.decision(jnp.asarray(x)), atol=1e-4)


BAD = {
    "no such loss": ({"loss": "hingy"}, "one of hinge"),
    "C": ({"C": 0.0}, "> 0, got 0.0"),
    "C infinite": ({"C": float("inf")}, "hard margin"),
    "C of an example": ({"C": jnp.ones(3)}, "sample_weight"),
    "labels 0 and 1": ({"labels": jnp.asarray([0, 1, 1])}, "got 0; map"),
    "labels of another size": ({"labels": jnp.asarray([1, 1])}, "one per row"),
    "features of one axis": ({"features": jnp.ones(3)}, "n, d"),
    "no features": ({"features": jnp.ones((3, 0))}, "n, d >= 1"),
    "features not finite": ({"features": jnp.full((3, 1), jnp.nan)}, "drop"),
    "weights of another size": ({"sample_weight": jnp.ones(2)}, "one per example"),
    "weights negative": ({"sample_weight": jnp.asarray([1.0, 1, -1])}, ">= 0, got -1"),
    "weights not finite": ({"sample_weight": jnp.asarray([1.0, 1, jnp.inf])}, "must be finite"),
}


@pytest.mark.parametrize("case", list(BAD))
def test_bad_input_is_refused(case):
    change, message = BAD[case]
    good = {
        "features": jnp.arange(3.0)[:, None],
        "labels": jnp.asarray([1, -1, 1]),
        "C": 1.0,
        "loss": "hinge",
        "sample_weight": None,
    }
    svm_module._check(*good.values())
    with pytest.raises(ValueError, match=message):
        svm_module._check(*{**good, **change}.values())


def test_bad_classes_are_refused():
    x = jnp.ones((3, 1))
    with pytest.raises(ValueError, match="0 to 1, got 0 to 2"):
        one_vs_rest(x, jnp.arange(3), n_classes=2, C=1.0)
    with pytest.raises(ValueError, match="n_classes must be >= 2"):
        one_vs_rest(x, jnp.zeros(3, int), n_classes=1, C=1.0)
