"""Gauss-Newton steps in a trust region, against dense least squares."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from forging_oracles import ALLOWED, error_of, step_of
from softmax_regression import MODEL

from unlearnkit.forging import LevenbergMarquardtForger, levenberg_marquardt
from unlearnkit.forging.levenberg_marquardt import _steihaug

KEY = jax.random.key(2)


def test_a_step_of_logistic_regression_is_met_to_rounding():
    """42 numbers for 15 equations."""
    step = step_of(6)
    batch, error, info = LevenbergMarquardtForger(20, 30, restarts=2)(KEY, MODEL, step, ALLOWED)
    errors = np.asarray(info.errors)
    assert float(error) < 1e-6 < 1e-3 < errors[:, 0].min()
    assert np.all(np.diff(errors) <= 1e-9)  # a step that does not lower the error is not taken
    assert error_of(step, batch.x, batch.y) < 2e-6
    assert np.all(info.accepted > 0)
    first = ALLOWED.take(jax.random.permutation(KEY, ALLOWED.size)[:6])
    begun = error_of(step, first.x, np.eye(3)[np.asarray(first.y)])
    assert errors[0, 0] == pytest.approx(begun, rel=1e-4)
    assert errors[0, 0] != errors[1, 0]


def test_the_best_restart_is_returned():
    step = step_of(6)
    one = LevenbergMarquardtForger(1, 3, restarts=1)
    key = jax.random.key(4)
    keys = [key, *(jax.random.fold_in(key, restart) for restart in (1, 2, 3))]
    alone = [float(one(key, MODEL, step, ALLOWED).error) for key in keys]
    assert min(alone) < alone[0]
    found = LevenbergMarquardtForger(1, 3, restarts=4)(key, MODEL, step, ALLOWED)
    assert float(found.error) == min(alone)


@pytest.fixture(scope="module")
def least_squares():
    rng = np.random.default_rng(1)
    matrix, residual = rng.normal(size=(5, 8)), rng.normal(size=5)
    a = jnp.asarray(matrix, jnp.float32)
    push, pull = (lambda v: a @ v), (lambda u: a.T @ u)

    def solve(radius, products=40):
        r = jnp.asarray(residual, jnp.float32)
        return _steihaug(push, pull, r, jnp.float32(radius), products)

    return matrix, residual, solve


def test_conjugate_gradients_end_at_the_shortest_solution(least_squares):
    matrix, residual, solve = least_squares
    found, moved, products = solve(1e6)
    expected = np.linalg.lstsq(matrix, -residual, rcond=None)[0]
    np.testing.assert_allclose(found, expected, atol=2e-3)
    np.testing.assert_allclose(moved, matrix @ found, atol=1e-4)
    assert products <= 2 * 8 + 1
    assert int(solve(1e6, products=2)[2]) == 5


def test_they_end_at_the_edge_of_the_region(least_squares):
    matrix, residual, solve = least_squares
    radius = 0.3 * np.linalg.norm(solve(1e6)[0])
    found, moved, _ = solve(radius)
    assert float(jnp.linalg.norm(found)) == pytest.approx(radius, rel=1e-4)
    np.testing.assert_allclose(moved, matrix @ found, atol=1e-5)
    assert np.linalg.norm(residual + moved) < np.linalg.norm(residual)
    steepest = -matrix.T @ residual
    along = radius * steepest / np.linalg.norm(steepest)
    assert np.linalg.norm(residual + moved) <= np.linalg.norm(residual + matrix @ along) + 1e-5


def test_a_region_that_never_accepts_is_reported_and_not_looped(monkeypatch):
    for name in ("_ACCEPT", "_POOR"):  # of the predicted fall, which no step can reach
        monkeypatch.setattr(levenberg_marquardt, name, np.inf)
    step = step_of(5)  # of a shape that no other test has compiled
    found = LevenbergMarquardtForger(40, 5, restarts=1)(KEY, MODEL, step, ALLOWED)
    info = found.info
    assert info.accepted.tolist() == [0]
    assert info.stalled.tolist() == [True]
    assert np.all(np.asarray(info.errors) == info.errors[0, 0])
    assert float(found.error) == pytest.approx(float(info.errors[0, 0]), rel=1e-4)
    np.testing.assert_array_equal(
        found.batch.x, ALLOWED.take(jax.random.permutation(KEY, ALLOWED.size)[:5]).x
    )
    assert int(info.products[0]) < 40 * 11


@pytest.mark.parametrize("options", [{"iterations": 0}, {"restarts": 0}, {"radius": 0.0}])
def test_bad_arguments_are_refused(options):
    with pytest.raises(ValueError, match=f"{next(iter(options))} must be >"):
        LevenbergMarquardtForger(**options)
