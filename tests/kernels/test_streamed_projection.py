import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unlearnkit import kernels
from unlearnkit.kernels import StreamedProjection


def streamed(rows, rank, sizes):
    found = StreamedProjection(jnp.zeros((rank, rows.shape[1])), jnp.zeros(()))
    for part in np.split(rows, np.cumsum(sizes)[:-1]):
        found = found.add(jnp.asarray(part))
    return found


def dense(rows, damping):
    """P from its definition."""
    inner = rows @ rows.T + damping * np.eye(len(rows))
    return np.eye(rows.shape[1]) - rows.T @ np.linalg.pinv(inner) @ rows


@pytest.mark.parametrize("damping", [0.0, 0.7])
@pytest.mark.parametrize("sizes", [(7,), (3, 4), (1, 2, 2, 2)])
def test_is_the_dense_projection_where_the_rank_suffices(x64, damping, sizes):
    rows = np.random.default_rng(0).normal(size=(7, 12))
    rows[6] = rows[0] - 2 * rows[1]
    found = streamed(rows, 8, sizes)
    vector = np.random.default_rng(1).normal(size=12)
    got = found.project(jnp.asarray(vector), damping=damping)
    np.testing.assert_allclose(got, dense(rows, damping) @ vector, atol=1e-10)
    assert float(found.lost) < 1e-12


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 1000))
def test_what_is_lost_is_bounded(seed):
    rows = np.random.default_rng(seed).normal(size=(12, 9)) * 0.7 ** np.arange(9)
    found = streamed(rows, 4, (4, 4, 4))
    b = np.asarray(found.rows, np.float64)
    error = np.linalg.eigvalsh(rows.T @ rows - b.T @ b)
    tiny = 1e-4 * np.sum(rows**2)
    assert error[0] > -tiny
    assert error[-1] <= float(found.lost) + tiny
    assert float(found.lost) <= np.sum(rows**2) / 5 + tiny
    off = b @ b.T - np.diag(np.sum(b**2, axis=1))
    assert np.abs(off).max() < tiny


def test_of_a_network_it_solves_the_ridge_in_one_pass(x64):
    rng = np.random.default_rng(2)
    x, r = jnp.asarray(rng.normal(size=(6, 3))), jnp.asarray(rng.normal(size=(6, 2)))
    params = {"a": jnp.asarray(rng.normal(size=(3, 4))), "b": jnp.asarray(rng.normal(size=(4, 2)))}

    def apply(p, x):
        return jnp.tanh(x @ p["a"]) @ p["b"]

    whole = kernels.stream_projection(apply, params, x, rank=12, chunk=4)
    half = kernels.stream_projection(apply, params, x[:3], rank=12, chunk=2)
    later = kernels.stream_projection(apply, params, x[3:], rank=12, start=half)
    flat, unravel = jax.flatten_util.ravel_pytree(params)
    j = np.asarray(jax.jacobian(lambda w: apply(unravel(w), x))(flat)).reshape(12, -1)
    wanted = j.T @ np.linalg.solve(j @ j.T + 0.3 * np.eye(12), np.asarray(r).ravel())
    gradient = jnp.asarray(j.T @ np.asarray(r).ravel())
    for found in (whole, later):
        np.testing.assert_allclose(found.project(gradient, damping=0.3) / 0.3, wanted, atol=1e-8)
    for options, match in (
        ({"rank": 0}, "rank and chunk must be >= 1, got 0 and 16"),
        ({"rank": 3, "start": half}, r"of rank 3 and 20 weights, got \(12, 20\)"),
    ):
        with pytest.raises(ValueError, match=match):
            kernels.stream_projection(apply, params, x, **options)
