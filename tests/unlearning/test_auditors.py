"""Auditors against closed forms and dense oracles."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import minimize

from unlearnkit.kernels import SvmStatus
from unlearnkit.unlearning import AUDITORS, LinearAuditor, MlpAuditor, QuantileAuditor

KEY = jax.random.key(0)
PENALTY = {
    "hinge": lambda m: np.maximum(1 - m, 0),
    "squared_hinge": lambda m: np.maximum(1 - m, 0) ** 2,
    "logistic": lambda m: np.logaddexp(0, -m),
}


@pytest.fixture(autouse=True)
def x64():
    with jax.enable_x64(True):
        yield


def evidence(n=40, d=2, seed=0):
    rng = np.random.default_rng(seed)
    labels = np.where(np.arange(n) % 2 == 0, 1.0, -1.0)
    features = rng.normal(size=(n, d)) + 0.6 * labels[:, None]
    weight = (np.arange(n) % 5 > 0).astype(float)
    return jnp.asarray(features), jnp.asarray(labels), jnp.asarray(weight)


@pytest.mark.parametrize("name", list(PENALTY))
def test_the_linear_auditor_is_the_minimiser_of_its_objective(name):
    features, labels, weight = evidence()
    auditor = LinearAuditor(name, C=0.3)
    (w, b), fit = auditor.fit(KEY, features, labels, weight)

    x, y = np.asarray(features), np.asarray(labels)

    def objective(z):
        margins = y * (x @ z[:2] + z[2])
        return 0.5 * np.sum(z[:2] ** 2) + 0.3 * np.sum(np.asarray(weight) * PENALTY[name](margins))

    found = objective(np.append(w, b))
    best = minimize(objective, np.append(w, b), method="Nelder-Mead", tol=1e-12).fun
    assert bool(fit.converged)
    assert found <= best * (1 + 1e-9)
    np.testing.assert_allclose(auditor.decision((w, b), features), features @ w + b)
    margins = jnp.linspace(-2, 2, 9)
    np.testing.assert_allclose(auditor.loss(margins), PENALTY[name](np.asarray(margins)))


def test_the_quantile_auditor_flags_its_share_of_the_non_members():
    rng = np.random.default_rng(1)
    labels = jnp.asarray(np.repeat([1.0, -1.0], 500))
    scores = jnp.asarray(rng.normal(size=(1000, 1)) + (labels > 0)[:, None])
    auditor = QuantileAuditor(false_positive_rate=0.2, temperature=1e-3)
    q, fit = auditor.fit(KEY, scores, labels, jnp.ones(1000))
    assert bool(fit.converged)
    np.testing.assert_allclose(q, np.quantile(scores[500:, 0], 0.8), atol=0.02)
    flagged = np.asarray(auditor.decision(q, scores)) > 0
    assert abs(flagged[500:].mean() - 0.2) < 0.01
    assert flagged[:500].mean() > 0.5


def test_the_quantile_is_the_minimiser_of_the_smoothed_pinball_loss():
    features, labels, weight = evidence(d=1)
    auditor = QuantileAuditor(false_positive_rate=0.3, temperature=0.5)
    q, _ = auditor.fit(KEY, features, labels, weight)
    others = np.asarray(features)[(np.asarray(labels) < 0) & (np.asarray(weight) > 0), 0]

    def pinball(at):
        u = others - at
        return np.sum(0.7 * u + 0.5 * np.logaddexp(0, -u / 0.5))

    best = minimize(pinball, [0.0], method="Nelder-Mead", tol=1e-12).x[0]
    np.testing.assert_allclose(q, best, atol=1e-5)


def test_the_mlp_auditor_takes_its_steps():
    features, labels, weight = evidence()
    start, _ = MlpAuditor(width=3, steps=1, learning_rate=1e-30).fit(KEY, features, labels, weight)
    net = {name: np.asarray(leaf) for name, leaf in start.items()}
    x, y, v = (np.asarray(a) for a in (features, labels, weight))
    for _ in range(4):
        hidden = np.tanh(x @ net["hidden"] + net["hidden_bias"])
        slope = v * -y / (1 + np.exp(y * (hidden @ net["out"] + net["out_bias"]))) / v.sum()
        back = np.outer(slope, net["out"]) * (1 - hidden**2)
        moves = {
            "hidden": x.T @ back,
            "hidden_bias": back.sum(0),
            "out": hidden.T @ slope,
            "out_bias": slope.sum(),
        }
        net = {name: net[name] - 0.5 * moves[name] for name in net}
    found, fit = MlpAuditor(width=3, steps=4, learning_rate=0.5).fit(KEY, features, labels, weight)
    assert int(fit.status) == SvmStatus.OPTIMAL
    for name, leaf in found.items():
        np.testing.assert_allclose(leaf, net[name], rtol=1e-9, atol=1e-12)


def test_the_mlp_auditor_finds_what_no_line_tells_apart():
    rng = np.random.default_rng(2)
    labels = jnp.asarray(np.repeat([1.0, -1.0], 100))
    spread = np.where(labels > 0, 0.2, 2.0)
    features = jnp.asarray(spread[:, None] * rng.choice([-1, 1], 200)[:, None])
    accuracy = {}
    for auditor in (MlpAuditor(steps=200), LinearAuditor("logistic")):
        fitted, _ = auditor.fit(KEY, features, labels, jnp.ones(200))
        accuracy[type(auditor)] = np.mean(labels * auditor.decision(fitted, features) > 0)
    assert accuracy[MlpAuditor] > 0.95
    assert accuracy[LinearAuditor] < 0.8


def test_steps_that_run_away_are_told():
    features, labels, weight = evidence()
    _, fit = MlpAuditor(learning_rate=1e4).fit(KEY, features, labels, weight)
    assert int(fit.status) == SvmStatus.NOT_CONVERGED
    assert not bool(fit.converged)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LinearAuditor("hinged"), "surrogate must be one of hinge, squared_hinge"),
        (lambda: LinearAuditor(C=0.0), "C must be finite and > 0, got 0.0"),
        (lambda: MlpAuditor(width=0), "width must be >= 1, got 0"),
        (lambda: MlpAuditor(steps=0), "steps must be >= 1, got 0"),
        (lambda: MlpAuditor(learning_rate=0.0), "learning_rate must be > 0, got 0.0"),
        (lambda: QuantileAuditor(false_positive_rate=1.0), "must be in \\(0, 1\\), got 1.0"),
        (lambda: QuantileAuditor(temperature=0.0), "temperature must be > 0, got 0.0"),
    ],
)
def test_bad_settings_are_refused(make, message, unchecked_types):
    with pytest.raises(ValueError, match=message):
        make()


def test_every_auditor_is_a_value():
    for auditor in AUDITORS.values():
        assert hash(auditor) == hash(type(auditor)(**vars(auditor)))
