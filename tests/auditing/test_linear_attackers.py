"""The attackers of membership audits, against scikit-learn's classifiers, fold by fold."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC

from unlearnkit.auditing import _linear_attackers
from unlearnkit.auditing._linear_attackers import decide


def problem(n, d, shift, C, *, scale=1.0, constant=False):
    return {"n": n, "d": d, "shift": shift, "C": C, "scale": scale, "constant": constant}


PROBLEMS = {
    "few": problem(20, 1, 0.3, 1.0),
    "told apart": problem(40, 1, 30.0, 1.0),
    "far apart, free": problem(30, 2, 5.0, 1e6),
    "nothing to tell": problem(300, 3, 0.0, 1e-3),
    "a constant feature": problem(50, 3, 0.2, 1.0, constant=True),
    "large numbers": problem(60, 2, 0.5, 1.0, scale=1e8),
    "small numbers": problem(60, 2, 0.5, 1.0, scale=1e-8),
    "many features": problem(200, 10, 0.3, 10.0),
}


def rows(n, d, shift, C, scale, constant):
    x = 5 + np.random.default_rng(n).normal(size=(2 * n, d))
    x[:n] += shift
    if constant:
        x[:, 1] = 0.1
    y = np.repeat([1, 0], n)
    weights = (np.random.default_rng(1).random((4, 2 * n)) < 0.9).astype(float)
    weights[3] *= np.random.default_rng(2).integers(1, 4, 2 * n)
    return scale * x, y, weights, C


def peer(attacker, C, x, y):
    model = (
        LogisticRegression(C=C, solver="newton-cholesky", tol=1e-13, max_iter=1000)
        if attacker == "logistic"
        else LinearSVC(C=C, dual=False, tol=1e-12, max_iter=100_000)
    )
    return make_pipeline(StandardScaler(), model).fit(x, y)


@pytest.mark.parametrize("name", PROBLEMS)
@pytest.mark.parametrize("attacker", ["logistic", "svm"])
def test_decides_as_scikit_learn_does(name, attacker, monkeypatch):
    x, y, weights, C = rows(**PROBLEMS[name])
    found = decide(x, y == 1, weights, attacker=attacker, C=C)
    for decisions, weight in zip(found, weights, strict=True):
        seen = np.repeat(np.arange(len(y)), weight.astype(int))
        expected = peer(attacker, C, x[seen], y[seen]).decision_function(x)
        np.testing.assert_allclose(decisions, expected, rtol=0, atol=2e-6 * abs(expected).max())
    monkeypatch.setattr(_linear_attackers, "MOST_NUMBERS", 1)  # one after another
    again = decide(x, np.tile(y == 1, (4, 1)), weights, attacker=attacker, C=C)
    np.testing.assert_allclose(again, found, rtol=1e-9, atol=1e-9 * abs(found).max())


@pytest.mark.parametrize("seed", [23, 275])
def test_shortens_steps_that_overshoot(seed):
    generator = np.random.default_rng(seed)
    n, d = generator.integers(3, 60), generator.integers(1, 5)
    x = generator.standard_cauchy(size=(2 * n, d)) ** generator.choice([1, 3, 5])
    x[:n] += generator.choice([0, 1, 10, 1e3])
    C = 10.0 ** generator.integers(-2, 9)
    weights = generator.choice([1, 100], size=2 * n)
    y = np.repeat([1, 0], n)
    found = decide(x, y == 1, 1.0 * weights[None], attacker="logistic", C=C)[0]
    seen = np.repeat(np.arange(2 * n), weights)
    expected = peer("logistic", C, x[seen], y[seen]).decision_function(x)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * abs(expected).max())
