"""The relative result of a solve does not depend on the scale of b, of A or of M."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from unlearnkit.kernels import (
    cg,
    cgnr,
    jacobi,
    lissa,
    minres,
    neumann,
    nystrom,
    rayleigh_quotient,
    svm,
    tree_norm,
)

N, TOL = 6, 1e-5
EIGENVALUES = np.array([0.5, 0.8, 1.0, 1.3, 1.7, 2.0])
SETTINGS = settings(max_examples=40, deadline=None, derandomize=True)


def _matrix():
    q, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(N, N)))
    return jnp.float32((q * EIGENVALUES) @ q.T)


UNIT_A = _matrix()
UNIT_B = jnp.float32(np.random.default_rng(1).normal(size=N))
WANTED = np.linalg.solve(np.asarray(UNIT_A, np.float64), np.asarray(UNIT_B, np.float64))


def _lissa(matvec, b, *, damping, tol, max_steps, step_size):
    return lissa(
        jax.random.key(0),
        lambda key, v: matvec(v),
        matvec,
        b,
        damping=damping,
        tol=tol,
        step_size=step_size,
        depth=60,
    )


def _preconditioned(make):
    """CG with the preconditioner that `make` builds for A."""

    def solver(matvec, b, *, step_size, **options):
        del step_size
        return cg(matvec, b, preconditioner=make(matvec, b), **options)

    return solver


def _plain(solver):
    return lambda *args, step_size, **options: solver(*args, **options)


def _jacobi(matvec, b):
    return jacobi(jnp.diag(jax.vmap(matvec)(jnp.eye(N))), damping=0.0)


def _nystrom(matvec, b):
    size = jnp.max(jnp.abs(matvec(jnp.ones(N))))
    return nystrom(jax.random.key(1), matvec, b, rank=3, shift=size)


SOLVERS = {
    "cg": _plain(cg),
    "minres": _plain(minres),
    "cgnr": _plain(cgnr),
    "neumann": neumann,
    "lissa": _lissa,
    "cg with jacobi": _preconditioned(_jacobi),
    "cg with nystrom": _preconditioned(_nystrom),
    "cg with a large M": _preconditioned(lambda matvec, b: lambda r: 1e25 * r),
    "cg with a small M": _preconditioned(lambda matvec, b: lambda r: 1e-25 * r),
}


@partial(jax.jit, static_argnames="name")
def solve(name, size_a, size_b):
    """Solves size_a A x = size_b b in float32."""
    return SOLVERS[name](
        lambda v: size_a * (UNIT_A @ v),
        size_b * UNIT_B,
        damping=0.0,
        tol=TOL,
        max_steps=100,
        step_size=0.6 / size_a,
    )


@pytest.mark.parametrize("name", SOLVERS)
class TestEveryScale:
    @SETTINGS
    @example(0.0, -30.0)
    @example(0.0, 30.0)
    @example(15.0, -18.0)
    @example(-15.0, 18.0)
    @example(-25.0, -25.0)
    @example(25.0, 25.0)
    @given(st.floats(-15, 15), st.floats(-30, 30))
    def test_x_is_right_and_the_residual_is_that_of_x(self, name, log_a, log_b):
        if abs(log_b - log_a) > 34:  # x itself is then near the end of float32
            return
        size_a, size_b = jnp.float32(10**log_a), jnp.float32(10**log_b)
        x, info = solve(name, size_a, size_b)
        scaled = np.asarray(x, np.float64) * float(size_a) / float(size_b)
        np.testing.assert_allclose(scaled, WANTED, rtol=20 * TOL, atol=20 * TOL)
        assert info.converged
        a, b = np.asarray(UNIT_A, np.float64), np.asarray(UNIT_B, np.float64)
        residual = np.linalg.norm(b - a @ scaled) / np.linalg.norm(b)
        np.testing.assert_allclose(info.residual, residual, atol=5e-7)
        if "neumann" not in name and "lissa" not in name:
            assert info.steps <= 20
        least = float(info.curvature) / float(size_a)
        assert EIGENVALUES[0] * (1 - 1e-4) <= least <= EIGENVALUES[-1] * (1 + 1e-4)

    @pytest.mark.parametrize("power", [-90, -60, 60, 90])
    def test_powers_of_two_change_no_bit(self, name, power):
        x, info = solve(name, jnp.float32(1), jnp.float32(1))
        scaled, same = solve(name, jnp.float32(1), jnp.float32(2.0**power))
        np.testing.assert_array_equal(np.asarray(scaled, np.float64) / 2.0**power, x)
        for one, other in zip(info, same, strict=True):
            np.testing.assert_array_equal(one, other)

    @pytest.mark.parametrize(("size_a", "size_b"), [(1e-15, 1e30), (1e15, 1e-30)])
    def test_a_solution_beyond_float32_never_counts_as_converged(self, name, size_a, size_b):
        _, info = solve(name, jnp.float32(size_a), jnp.float32(size_b))
        assert not info.converged
        assert info.residual == jnp.inf

    def test_subnormal_numbers_are_not_taken_for_a_solved_zero(self, name):
        b = jnp.asarray(np.full(N, 1e-40, np.float32))
        x, info = _solve_given(name, b)
        np.testing.assert_array_equal(x, 0)
        assert not info.converged
        assert info.residual == 1


@partial(jax.jit, static_argnames="name")
def _solve_given(name, b):
    options = {"damping": 0.0, "tol": TOL, "max_steps": 100, "step_size": 0.6}
    return SOLVERS[name](lambda v: UNIT_A @ v, b, **options)


def test_the_scale_is_taken_over_all_leaves():
    """One leaf is far below the other; both get their digits."""
    b = {"small": jnp.full(2, 1e-24), "large": jnp.full(3, 1e-21)}
    x, info = cg(
        lambda v: jax.tree.map(lambda leaf: 2 * leaf, v), b, damping=0.0, tol=1e-5, max_steps=9
    )
    np.testing.assert_allclose(x["small"], 5e-25, rtol=1e-5)
    np.testing.assert_allclose(x["large"], 5e-22, rtol=1e-5)
    assert info.converged


@pytest.mark.parametrize("order", [1, -1])
def test_the_largest_leaf_sets_the_scale_wherever_it_stands(order):
    b = [jnp.full(2, 1e-30), jnp.full(3, 1e-8)][::order]
    x, info = cg(lambda v: [2 * leaf for leaf in v], b, damping=0.0, tol=1e-5, max_steps=9)
    for found, leaf in zip(x, b, strict=True):
        np.testing.assert_allclose(found, leaf / 2, rtol=1e-5)
    assert info.converged
    np.testing.assert_allclose(tree_norm(b), np.sqrt(3) * 1e-8, rtol=1e-6)


@pytest.mark.parametrize("size", [1e-35, 1e-20, 1.0, 1e20, 1e35])
def test_norms_and_quotients_of_tiny_and_huge_vectors(size):
    tree = {"u": jnp.float32(size) * jnp.array([3.0, 0.0]), "v": jnp.float32(size) * 4}
    np.testing.assert_allclose(tree_norm(tree) / size, 5, rtol=1e-6)
    image = jax.tree.map(lambda leaf: -2 * leaf, tree)
    np.testing.assert_allclose(rayleigh_quotient(tree, image), -2, rtol=1e-6)


def test_norms_of_nothing_and_of_what_is_not_finite():
    assert tree_norm(jnp.zeros(3)) == 0
    assert np.isnan(rayleigh_quotient(jnp.zeros(3), jnp.zeros(3)))
    assert tree_norm(jnp.array([1.0, jnp.inf])) == jnp.inf
    assert np.isnan(tree_norm(jnp.array([1.0, jnp.nan])))


@pytest.mark.parametrize("loss", ["hinge", "logistic"])
@pytest.mark.parametrize("log_size", [-15, -8, 8, 15])
def test_an_auditor_of_tiny_or_huge_features_is_the_same(loss, log_size):
    rng = np.random.default_rng(2)
    x = jnp.asarray(rng.normal(size=(12, 2)), jnp.float32)
    y = jnp.where(x[:, 0] + jnp.asarray(rng.normal(size=12)) > 0, 1, -1)
    size = 2.0 ** (3 * log_size)
    here = svm(x, y, C=1.0, loss=loss)
    there = svm(jnp.float32(size) * x, y, C=jnp.float32(size**-2), loss=loss)
    np.testing.assert_allclose(there.weights * size, here.weights, rtol=1e-5)
    assert there.info.converged


def test_an_auditor_beyond_float32_does_not_claim_to_be_right():
    x = jnp.array([[1e-25], [2e-25], [-1e-25], [1.5e-25]])
    solution = svm(x, jnp.array([1, 1, -1, -1]), C=1.0)
    assert not solution.info.converged
