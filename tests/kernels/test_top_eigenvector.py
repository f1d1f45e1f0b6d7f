"""The top eigenvector of A Aᵀ against a singular value decomposition of A."""

import jax
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from unlearnkit.kernels import top_eigenvector

KEY = jax.random.key(4)


def search(rows, **options):
    settings = {"tol": 1e-9, "max_steps": 100} | options
    return top_eigenvector(KEY, lambda u: rows @ (u @ rows), len(rows), **settings)


@given(st.integers(0, 10_000), st.integers(2, 40), st.integers(1, 30))
@settings(max_examples=40)
def test_squared_projections_on_the_top_singular_vector(seed, n, p):
    rows = np.random.default_rng(seed).standard_normal((n, p)) * np.linspace(1, 0.1, p)
    found = search(rows)
    u, s, _ = np.linalg.svd(rows)
    np.testing.assert_allclose(
        found.value * found.vector**2, (s[0] * u[:, 0]) ** 2, rtol=1e-4, atol=1e-6 * s[0] ** 2
    )
    assert bool(found.info.converged)
    assert found.info.residual <= 1e-9


def test_rows_that_are_all_zero_have_no_spread():
    found = search(np.zeros((5, 3)))
    assert not found.vector.any()
    assert found.value == 0
    assert bool(found.info.converged)


def test_a_single_row():
    assert search(np.zeros((1, 3))).vector.shape == (1,)


def test_counts_its_products():
    calls = []
    rows = np.random.default_rng(0).standard_normal((30, 8))

    def product(u):
        calls.append(1)
        return rows @ (u @ rows)

    found = top_eigenvector(KEY, product, 30, tol=1e-6, max_steps=100)
    assert int(found.info.steps) == len(calls)


def test_says_where_it_did_not_converge():
    # Singular values so close that a few steps cannot tell them apart.
    spectrum = np.diag(np.linspace(1.0, 1.001, 400))
    found = search(spectrum, tol=1e-12, max_steps=3)
    assert not bool(found.info.converged)
    assert found.info.residual > 1e-12
    assert np.all(np.isfinite(found.vector))
