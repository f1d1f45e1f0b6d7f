"""Chunked gradients and curvature against dense matrices."""

import jax
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from unlearnkit import kernels


@pytest.mark.parametrize("chunk", [1, 3, 7, 100])
def test_equals_the_dense_matrices_for_every_chunk(problem, chunk):
    vector = problem.vector()
    flat = ravel_pytree(vector)[0]
    n = len(problem.jacobian)
    p = jax.nn.softmax(problem.apply(problem.params, problem.dataset.x))
    blocks = jax.vmap(lambda q: jax.numpy.diag(q) - jax.numpy.outer(q, q))(p)
    ggn = np.einsum("iap,iab,ibq->pq", problem.jacobian, blocks, problem.jacobian) / n

    @jax.jit
    def run(params, dataset, v):
        return (
            kernels.risk_gradient(problem.loss, params, dataset, chunk=chunk),
            kernels.risk_hessian_operator(problem.loss, params, dataset, chunk=chunk)(v),
            kernels.risk_ggn_operator(
                problem.apply, params, dataset.x, kernels.cross_entropy_hessian, chunk=chunk
            )(v),
        )

    got = run(problem.params, problem.dataset, vector)
    for tree, want in zip(
        got, (problem.gradients.mean(0), problem.hessian @ flat, ggn @ flat), strict=True
    ):
        np.testing.assert_allclose(ravel_pytree(tree)[0], want, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("chunk", [1, 3, 7, 100])
def test_jacobian_products_do_not_depend_on_the_chunk(mlp, chunk):
    vector, cotangent = mlp.vector(), jax.random.normal(jax.random.key(5), (7, 3))
    rows = mlp.jacobian.reshape(21, -1)
    pushed = kernels.jacobian_vp(mlp.apply, mlp.params, mlp.dataset.x, vector, chunk=chunk)
    pulled = kernels.jacobian_transpose_vp(
        mlp.apply, mlp.params, mlp.dataset.x, cotangent, chunk=chunk
    )
    np.testing.assert_allclose(pushed.reshape(-1), rows @ ravel_pytree(vector)[0], rtol=1e-9)
    np.testing.assert_allclose(
        ravel_pytree(pulled)[0], rows.T @ cotangent.reshape(-1), rtol=1e-9, atol=1e-12
    )


def test_memory_grows_by_no_more_than_a_copy_of_the_data(mlp):
    def growth(chunk):
        def temporary(n):
            x = jax.ShapeDtypeStruct((n, 4, 4, 1), "float64")

            def product(params, v, inputs):
                operator = kernels.risk_ggn_operator(
                    mlp.apply, params, inputs, kernels.cross_entropy_hessian, chunk=chunk
                )
                return operator(v)

            compiled = jax.jit(product).lower(mlp.params, mlp.vector(), x).compile()
            return compiled.memory_analysis().temp_size_in_bytes

        return (temporary(400) - temporary(40)) / 360 / 8

    assert growth(10) <= 16
    assert growth(1000) > 20


def test_bad_chunks_are_refused(mlp):
    with pytest.raises(ValueError, match="chunk must be >= 1, got 0"):
        kernels.risk_gradient(mlp.loss, mlp.params, mlp.dataset, chunk=0)
