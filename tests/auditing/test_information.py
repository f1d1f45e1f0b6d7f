import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from unlearnkit.auditing import (
    GaussianWeights,
    gaussian_kl,
    information_bounds,
    information_tradeoff,
    mean_and_error,
    query_information,
    query_set_information,
    sample_leakage,
    white_box_information,
)
from unlearnkit.base import Dataset, Task, Variables
from unlearnkit.models import from_functions

KEY = jax.random.key(0)


def covariance(generator, k):
    root = generator.normal(size=(k, k + 2))
    return root @ root.T / k + 0.1 * np.eye(k)


def dense_kl(delta, one, other):
    """From the definition, by explicit inverse and determinants."""
    inverse = np.linalg.inv(other)
    product = one @ inverse
    return 0.5 * (
        delta @ inverse @ delta + np.trace(product) - np.log(np.linalg.det(product)) - len(delta)
    )


@settings(max_examples=30)
@given(seed=st.integers(0, 10_000), k=st.integers(1, 6))
def test_the_divergence_is_the_dense_one(seed, k):
    generator = np.random.default_rng(seed)
    delta, one, other = generator.normal(size=k), covariance(generator, k), covariance(generator, k)
    assert gaussian_kl(delta, one, other) == pytest.approx(dense_kl(delta, one, other), rel=1e-8)
    variances = generator.uniform(0.1, 3, (2, k))
    assert gaussian_kl(delta, *variances) == pytest.approx(
        dense_kl(delta, *map(np.diag, variances)), rel=1e-8, abs=1e-12
    )
    assert gaussian_kl(delta, one, other) >= 0
    assert gaussian_kl(0 * delta, one, one) == pytest.approx(0, abs=1e-10)


def test_the_divergence_is_the_mean_log_ratio_and_the_printed_form_is_not():
    generator = np.random.default_rng(1)
    delta, one, other = np.array([0.3, -0.2]), covariance(generator, 2), covariance(generator, 2)
    sample = generator.multivariate_normal(delta, one, 400_000)
    ratios = stats.multivariate_normal(delta, one).logpdf(sample) - stats.multivariate_normal(
        np.zeros(2), other
    ).logpdf(sample)
    error = ratios.std() / np.sqrt(len(ratios))
    assert gaussian_kl(delta, one, other) == pytest.approx(ratios.mean(), abs=4 * error)
    product = one @ np.linalg.inv(other)
    printed = delta @ np.linalg.solve(other, delta)
    printed += np.trace(product) + np.log(np.linalg.det(product)) - 2
    assert abs(printed - ratios.mean()) > 20 * error
    assert abs(printed / 2 - ratios.mean()) > 20 * error


@pytest.fixture(scope="module")
def curved():
    """A small network with a hidden layer and a state, 5·4 + 4·3 weights."""

    def init(key):
        one, two = jax.random.split(key)
        return {"a": jax.random.normal(one, (5, 4)), "b": jax.random.normal(two, (4, 3))}

    return from_functions(init, lambda p, x: jnp.tanh(x @ p["a"]) @ p["b"], input_shape=(5,))


def queries(n, seed=3, d=5):
    return jax.random.normal(jax.random.key(seed), (n, d))


def dense_jacobian(params, x):
    """J of the curved network in float64, by hand: rows (query, logit), weights a then b."""
    a, b = (np.asarray(params[name], np.float64) for name in "ab")
    rows = []
    for one in np.asarray(x, np.float64):
        hidden = np.tanh(one @ a)
        for c in range(3):
            by_a = np.outer(one, (1 - hidden**2) * b[:, c])
            by_b = np.zeros((4, 3))
            by_b[:, c] = hidden
            rows.append(np.concatenate([by_a.ravel(), by_b.ravel()]))
    return np.array(rows)


def logits(params, x):
    a, b = (np.asarray(params[name], np.float64) for name in "ab")
    return np.tanh(np.asarray(x, np.float64) @ a) @ b


@pytest.mark.parametrize("kind", ["number", "variances", "matrix"])
def test_bounds_are_the_dense_ones(curved, kind):
    x = queries(4)
    generator = np.random.default_rng(5)
    pair, oracle = [], []
    for seed in (0, 1):
        variables = curved.init(jax.random.key(seed))
        flat = np.concatenate([np.asarray(variables.params[n], np.float64).ravel() for n in "ab"])
        if kind == "number":
            given_, sigma = 0.3 + seed, (0.3 + seed) * np.eye(32)
        elif kind == "variances":
            given_ = jax.tree.map(
                lambda w: jnp.asarray(generator.uniform(0.5, 2, w.shape), jnp.float32),
                variables.params,
            )
            sigma = np.diag(np.concatenate([np.asarray(given_[n]).ravel() for n in "ab"]))
        else:
            given_ = sigma = covariance(generator, 32)
        pair.append(GaussianWeights(variables, given_))
        jacobian = dense_jacobian(variables.params, x)
        oracle.append((flat, sigma, logits(variables.params, x), jacobian @ sigma @ jacobian.T))
    (w, s, f, sx), (w0, s0, f0, sx0) = oracle
    assert white_box_information(*pair) == pytest.approx(dense_kl(w - w0, s, s0), rel=1e-4)
    joint = dense_kl((f - f0).ravel(), sx, sx0)
    assert query_set_information(curved, *pair, x) == pytest.approx(joint, rel=1e-3)
    variances = dense_kl((f - f0).ravel(), np.diag(np.diag(sx)), np.diag(np.diag(sx0)))
    assert query_set_information(curved, *pair, x, correlations="diagonal") == pytest.approx(
        variances, rel=1e-3
    )
    each = [
        dense_kl(
            f[i] - f0[i],
            sx[3 * i : 3 * i + 3, 3 * i : 3 * i + 3],
            sx0[3 * i : 3 * i + 3, 3 * i : 3 * i + 3],
        )
        for i in range(4)
    ]
    np.testing.assert_allclose(query_information(curved, *pair, x), each, rtol=1e-3)
    seen = dense_kl(f[0] - f0[0], *(m[:3, :3] + 0.5 * np.eye(3) for m in (sx, sx0)))
    assert query_information(curved, *pair, x[:1], damping=0.5)[0] == pytest.approx(seen, rel=1e-3)


def test_bounds_are_means_over_seeds(curved):
    x = queries(3)
    seeds = [
        tuple(GaussianWeights(curved.init(jax.random.key(2 * s + i)), 0.5) for i in (0, 1))
        for s in range(3)
    ]
    metrics = information_bounds(curved, seeds, x).metrics
    white = [white_box_information(*pair) for pair in seeds]
    each = [query_information(curved, *pair, x).mean() for pair in seeds]
    together = [query_set_information(curved, *pair, x) for pair in seeds]
    values = {"white_box": white, "black_box": each, "black_box_set": together}
    for name, of_seeds in values.items():
        assert metrics[name] == pytest.approx(np.mean(of_seeds))
        assert metrics[f"{name}_se"] == pytest.approx(stats.sem(of_seeds))
    with pytest.raises(ValueError, match="at least 2 values, got 1"):
        information_bounds(curved, seeds[:1], x)


def test_chunks_do_not_change_the_bound(curved, monkeypatch):
    pair = [GaussianWeights(curved.init(jax.random.key(s)), 0.5) for s in (0, 1)]
    x = queries(7)
    whole = query_information(curved, *pair, x)
    joint = query_set_information(curved, *pair, x[:3])
    monkeypatch.setattr("unlearnkit.auditing.information._JACOBIAN_ENTRIES", 3 * 32 * 2)
    monkeypatch.setattr("unlearnkit.auditing.information._COLUMNS", 5)
    np.testing.assert_allclose(query_information(curved, *pair, x), whole, rtol=1e-5)
    assert query_set_information(curved, *pair, x[:3]) == pytest.approx(joint, rel=1e-5)


def test_queries_tell_no_more_than_the_weights_of_a_linear_network(linear):
    pair = [GaussianWeights(linear.init(jax.random.key(s)), 0.5 + s) for s in (0, 1)]
    x = queries(5)
    told = [query_set_information(linear, *pair, x[:n]) for n in (1, 3, 5)]
    assert told == sorted(told)
    # Five independent queries of a linear network of five inputs are as good as its weights.
    assert told[2] == pytest.approx(white_box_information(*pair), rel=1e-3)


def test_the_forget_set_tells_most(linear):
    """Weights that differ along the forget set's inputs alone: only they see it."""
    w = linear.init(KEY).params["w"]
    moved = w.at[0].add(1.0)
    pair = [GaussianWeights(Variables({"w": v}), 0.1) for v in (moved, w)]
    axis = lambda i: Dataset(jnp.tile(jnp.eye(5)[i], (6, 1)), jnp.zeros(6, jnp.int32))  # noqa: E731
    audited = sample_leakage(linear, *pair, Task(axis(1), axis(0), axis(2), axis(3)), limit=4)
    assert audited.curves["forget"].shape == (4,)
    # ‖Δf‖² / (2 σ² ‖x‖²) with Δf = (1, 1, 1).
    assert audited.metrics["information_forget"] == pytest.approx(3 / 0.2, rel=1e-4)
    assert audited.metrics["information_retain"] == pytest.approx(0, abs=1e-6)
    assert audited.metrics["information_test"] == pytest.approx(0, abs=1e-6)


def test_more_noise_tells_less_and_errs_more(linear):
    x = queries(300)
    w = linear.init(KEY).params["w"]
    y = jnp.argmax(x @ w, -1).astype(jnp.int32)
    data = Dataset(x, y)
    task = Task(
        *(data.take(np.arange(a, b)) for a, b in ((0, 50), (50, 90), (90, 100), (100, 300)))
    )
    reference = Variables({"w": w + 0.3})
    pair = [GaussianWeights(Variables({"w": w}), 0.01), GaussianWeights(reference, 0.01)]
    levels = [1.0, 10.0, 1000.0]
    curves = information_tradeoff(KEY, linear, *pair, task, levels=levels, queries=10).curves
    # Equal noise on both: the divergence is the shift alone, and falls as 1 / level.
    np.testing.assert_allclose(curves["white_box"], 15 * 0.09 / 0.02 / np.array(levels), rtol=1e-4)
    assert np.all(curves["black_box"] < curves["white_box"])
    np.testing.assert_allclose(curves["black_box"] * levels, curves["black_box"][0], rtol=1e-4)
    assert curves["test_error"][0] < curves["test_error"][1] < curves["test_error"][2]
    assert curves["test_error"][2] == pytest.approx(2 / 3, abs=0.2)
    matrix = [g._replace(covariance=0.01 * np.eye(15)) for g in pair]
    same = information_tradeoff(KEY, linear, *matrix, task, levels=levels, queries=10).curves
    for name in curves:
        np.testing.assert_allclose(same[name], curves[name], rtol=1e-3, atol=1e-3)
    turned = task._replace(forget=task.test, test=task.forget)
    options = {"levels": levels, "queries": 10}
    one = information_tradeoff(KEY, linear, *pair, turned, **options, asked="test").curves
    np.testing.assert_allclose(one["black_box"], curves["black_box"], rtol=1e-6)


def test_no_key_is_used_twice(linear):
    pair = [GaussianWeights(linear.init(jax.random.key(s)), 0.5) for s in (0, 1)]
    data = Dataset(queries(8), jnp.zeros(8, jnp.int32))
    with jax.debug_key_reuse(True):
        information_tradeoff(jax.random.key(4), linear, *pair, Task(*[data] * 4), levels=[1.0])


def test_mean_and_error_over_seeds():
    assert mean_and_error([1.0, 3.0]) == (2.0, 1.0)
    with pytest.raises(ValueError, match="at least 2 values, got 1"):
        mean_and_error([1.0])


def test_infinite_information_is_refused(linear, curved):
    pair = [GaussianWeights(linear.init(jax.random.key(s)), 0.5) for s in (0, 1)]
    silent = pair[1]._replace(covariance=0.0)
    with pytest.raises(ValueError, match="must be positive definite, got a variance of 0"):
        white_box_information(pair[0], silent)
    with pytest.raises(ValueError, match="ask fewer queries, or pass damping > 0"):
        query_set_information(linear, *pair, queries(6))  # 18 logits of 15 weights
    assert np.isfinite(query_set_information(linear, *pair, queries(6), damping=0.01))
    with pytest.raises(ValueError, match="pass damping"):
        query_information(linear, *pair, jnp.zeros((1, 5)))
    other = GaussianWeights(curved.init(KEY), 1.0)
    with pytest.raises(ValueError, match="of one network, got 15 and 32 weights"):
        white_box_information(pair[0], other)
    with pytest.raises(ValueError, match="variables do not fit the model"):
        query_information(linear, pair[0], other, queries(1))


def test_nonsense_is_refused(linear, unchecked_types):
    pair = [GaussianWeights(linear.init(jax.random.key(s)), 0.5) for s in (0, 1)]
    data = Dataset(queries(8), jnp.zeros(8, jnp.int32))
    with pytest.raises(ValueError, match="correlations must be full or diagonal"):
        query_information(linear, *pair, queries(1), correlations="none")
    with pytest.raises(ValueError, match="damping must be >= 0"):
        query_information(linear, *pair, queries(1), damping=-1.0)
    with pytest.raises(ValueError, match="at least one query"):
        query_information(linear, *pair, queries(0))
    with pytest.raises(ValueError, match="must be finite"):
        query_information(linear, *pair, queries(1).at[0, 0].set(jnp.nan))
    with pytest.raises(ValueError, match="both \\[k\\] or both"):
        gaussian_kl(np.ones(2), np.ones(2), np.eye(2))
    with pytest.raises(ValueError, match="covariance of 15 weights must be"):
        white_box_information(pair[0], pair[1]._replace(covariance=np.ones(4)))
    with pytest.raises(ValueError, match="covariance must be finite"):
        white_box_information(pair[0], pair[1]._replace(covariance=np.full(15, np.inf)))
    task = Task(*[data] * 4)
    with pytest.raises(ValueError, match="levels must be numbers > 0"):
        information_tradeoff(KEY, linear, *pair, task, levels=[0.0])
    with pytest.raises(ValueError, match="unknown asked 'all'; known: forget, retain, test"):
        information_tradeoff(KEY, linear, *pair, task, levels=[1.0], asked="all")
    with pytest.raises(ValueError, match="draws and queries must be >= 2"):
        information_tradeoff(KEY, linear, *pair, task, levels=[1.0], draws=1)
