import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from unlearnkit import kernels
from unlearnkit.base import Dataset


def operator(problem, chunk=3):
    return kernels.GradientOperator(problem.loss, problem.params, problem.dataset, chunk)


class TestGradientBank:
    def test_rows_are_the_gradients_of_single_examples(self, problem):
        bank = kernels.gradient_bank(problem.loss, problem.params, problem.dataset)
        np.testing.assert_allclose(bank, problem.gradients, rtol=1e-9, atol=1e-12)
        mean = ravel_pytree(jax.jit(jax.grad(problem.full_loss))(problem.params))[0]
        np.testing.assert_allclose(bank.mean(axis=0), mean, rtol=1e-9, atol=1e-12)

    @pytest.mark.parametrize("chunk", [1, 3, 6, 7, 1000])
    def test_does_not_depend_on_the_chunk(self, mlp, chunk):
        bank = kernels.gradient_bank(mlp.loss, mlp.params, mlp.dataset, chunk=chunk)
        np.testing.assert_allclose(bank, mlp.gradients, rtol=1e-9, atol=1e-12)

    @pytest.mark.parametrize("chunk", [2, 7])
    def test_under_jit_and_vmap_over_parameters(self, mlp, chunk):
        stacked = jax.tree.map(lambda leaf: jnp.stack([leaf, 2 * leaf]), mlp.params)

        @jax.jit
        def banks(params, x, y):
            def bank(p):
                return kernels.gradient_bank(mlp.loss, p, Dataset(x, y), chunk=chunk)

            return jax.vmap(bank)(params)

        got = banks(stacked, *mlp.dataset[:2])
        np.testing.assert_allclose(got[0], mlp.gradients, rtol=1e-9, atol=1e-12)
        twice = jax.tree.map(lambda leaf: 2 * leaf, mlp.params)
        want = kernels.gradient_bank(mlp.loss, twice, mlp.dataset)
        np.testing.assert_allclose(got[1], want, rtol=1e-9, atol=1e-12)

    def test_compiles_a_chunk_once(self, mlp, compilations):
        counted = compilations(mlp.loss)
        kernels.gradient_bank(counted, mlp.params, mlp.dataset, chunk=1)
        first = counted.count
        kernels.gradient_bank(counted, mlp.params, mlp.dataset, chunk=1)
        # One trace for the check of the scalar and one for the chunks, of which there are fourteen.
        assert first == counted.count == 4  # two of the rows, two of the probe for mixed examples

    def test_in_float32_under_x64(self, x64):
        def loss(w, x, y):
            return jnp.mean((x @ w - y) ** 2)

        dataset = Dataset(jnp.ones((3, 2), jnp.float32), jnp.arange(3))
        bank = kernels.gradient_bank(loss, jnp.zeros(2, jnp.float32), dataset)
        assert bank.dtype == jnp.float32
        np.testing.assert_allclose(bank, [[0, 0], [-2, -2], [-4, -4]])

    def test_refuses_bad_input(self, mlp):
        with pytest.raises(ValueError, match="chunk must be >= 1, got 0"):
            kernels.gradient_bank(mlp.loss, mlp.params, mlp.dataset, chunk=0)
        with pytest.raises(ValueError, match="loss must return one scalar"):
            kernels.gradient_bank(lambda p, x, y: jnp.ones(1), mlp.params, mlp.dataset)
        short = mlp.dataset._replace(y=mlp.dataset.y[:-1])
        with pytest.raises(ValueError, match="the same examples, got 7 and 6"):
            kernels.gradient_bank(mlp.loss, mlp.params, short)


class TestGradientOperator:
    @pytest.mark.parametrize("chunk", [1, 3, 100])
    def test_is_the_bank(self, mlp, chunk):
        lazy, bank = operator(mlp, chunk), mlp.gradients
        assert lazy.shape == bank.shape
        close = {"rtol": 1e-9, "atol": 1e-12}
        np.testing.assert_allclose(lazy.rows(2, 5), bank[2:5], **close)
        v, u = jnp.linspace(-1, 1, bank.shape[1]), jnp.linspace(-2, 1, bank.shape[0])
        np.testing.assert_allclose(jax.jit(lambda g, v: g.matvec(v))(lazy, v), bank @ v, **close)
        np.testing.assert_allclose(jax.jit(lambda g, u: g.rmatvec(u))(lazy, u), u @ bank, **close)


class TestGram:
    @pytest.mark.parametrize("chunk", [1, 3, 7, 100, None])
    def test_is_g_gt_by_bank_and_by_operator(self, mlp, chunk):
        want = mlp.gradients @ mlp.gradients.T
        for gradients in (mlp.gradients, operator(mlp)):
            got = kernels.gram(gradients, chunk=chunk)
            np.testing.assert_allclose(got, want, rtol=1e-9, atol=1e-12)
            np.testing.assert_array_equal(got, got.T)

    @pytest.mark.parametrize("chunk", [3, None])
    def test_rows_less_a_centre(self, problem, chunk):
        centre = problem.gradients[:4].mean(0)
        rows = problem.gradients - centre
        for gradients in (problem.gradients, operator(problem)):
            got = kernels.gram(gradients, centre=centre, chunk=chunk)
            np.testing.assert_allclose(got, rows @ rows.T, rtol=1e-9, atol=1e-12)
            np.testing.assert_array_equal(got, got.T)

    def test_an_operator_s_gram_is_the_bank_s_on_every_network(self, problem):
        want = problem.gradients @ problem.gradients.T
        got = kernels.gram(operator(problem))
        np.testing.assert_allclose(got, want, rtol=1e-9, atol=1e-12)

    def test_products_with_directions_and_norms_are_the_bank_s_on_every_network(self, problem):
        rows = problem.gradients[1:5]
        directions = jax.random.normal(jax.random.key(5), (rows.shape[1], 3), rows.dtype)
        found = operator(problem).matmat(1, 5, directions)
        products, norms = found.products * found.size, found.squares * found.size**2
        np.testing.assert_allclose(products, rows @ directions, rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(norms, (rows**2).sum(1), rtol=1e-9)

    def test_products_of_tiny_gradients_do_not_vanish(self, mlp):
        """Their squares are far below the least number."""
        whole = operator(mlp)
        tiny = dataclasses.replace(whole, loss=lambda *batch: 1e-200 * mlp.loss(*batch))
        directions = jax.random.normal(jax.random.key(5), (whole.shape[1], 2))
        one, other = (found.matmat(0, 4, directions) for found in (whole, tiny))
        assert float(jnp.abs(one.products).max()) > 0.01
        np.testing.assert_allclose(other.products, one.products, rtol=1e-9)
        np.testing.assert_allclose(other.squares, one.squares, rtol=1e-9)
        np.testing.assert_allclose(other.size, 1e-200 * one.size, rtol=1e-9)

    def test_forms_no_row_of_a_dense_kernel(self, mlp):
        pieces = operator(mlp).factors(0, 5)
        kernel_shapes = [leaf.shape for leaf in jax.tree.leaves(mlp.params) if leaf.ndim == 2]
        assert kernel_shapes
        assert [h.shape for h in pieces.inputs] == [(5, shape[0]) for shape in kernel_shapes]
        assert [g.shape for g in pieces.slopes] == [(5, 1, shape[1]) for shape in kernel_shapes]

    def test_holds_two_blocks_of_the_pieces_at_a_time(self, mlp, monkeypatch):
        lazy, sizes = operator(mlp), []
        factors = kernels.GradientOperator.factors
        monkeypatch.setattr(
            kernels.GradientOperator,
            "factors",
            lambda self, start, stop, **options: (
                sizes.append(stop - start) or factors(self, start, stop, **options)
            ),
        )
        kernels.gram(lazy, chunk=2)
        assert max(sizes) == 2
        assert len(sizes) == 4 + 3 + 2 + 1

    def test_refuses_a_chunk_of_nothing(self, mlp):
        with pytest.raises(ValueError, match="chunk must be >= 1, got 0"):
            kernels.gram(mlp.gradients, chunk=0)
