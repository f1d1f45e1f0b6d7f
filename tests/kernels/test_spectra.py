"""Spectra, block solves, EK-FAC, composed operators and gradient flow, by dense float64 oracles."""

import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.flatten_util import ravel_pytree

from unlearnkit import kernels

CLOSE = {"rtol": 1e-8, "atol": 1e-10}
KEY = jax.random.key(0)


def matrix_of(values, seed=0):
    """A symmetric matrix with these eigenvalues, and its eigenvectors."""
    q = np.linalg.qr(np.random.default_rng(seed).normal(size=(len(values), len(values))))[0]
    return jnp.asarray(q @ np.diag(values) @ q.T), q


@pytest.fixture
def ggn(mlp):
    """The dense Gauss-Newton matrix of the cross-entropy, as an operator and as a matrix."""
    x = mlp.dataset.x
    product = kernels.ggn_operator(mlp.apply, mlp.params, x, kernels.cross_entropy_hessian)
    p = jax.nn.softmax(mlp.apply(mlp.params, x))
    b = jax.vmap(lambda p: jnp.diag(p) - jnp.outer(p, p))(p) / len(x)
    dense = jnp.einsum("iap,iab,ibq->pq", mlp.jacobian, b, mlp.jacobian)
    return kernels.SymmetricOperator(product, mlp.params), dense


class TestLanczos:
    @pytest.mark.parametrize("which", ["largest", "smallest", "magnitude"])
    def test_pairs_of_a_known_spectrum(self, x64, which):
        values = np.array([-9.0, -1.0, 0.0, 0.5, 1.0, 2.0, 3.0, 8.0])
        matrix, q = matrix_of(values)
        like = {"a": jnp.zeros((2, 3)), "b": jnp.zeros(2)}
        operator = kernels.from_matfree(lambda v: matrix @ v, like)
        found = kernels.lanczos_eigenpairs(KEY, operator, like, k=3, steps=8, which=which)
        order = {"largest": [7, 6, 5], "smallest": [0, 1, 2], "magnitude": [0, 7, 6]}[which]
        np.testing.assert_allclose(found.values, values[order], **CLOSE)
        for i, column in enumerate(order):
            vector = ravel_pytree(jax.tree.map(lambda leaf: leaf[i], found.vectors))[0]  # noqa: B023
            np.testing.assert_allclose(abs(vector @ q[:, column]), 1, **CLOSE)
        assert np.all(found.converged)

    def test_says_how_far_it_is(self, x64):
        matrix, _ = matrix_of(np.linspace(1, 2, 40))
        found = kernels.lanczos_eigenpairs(
            KEY, lambda v: matrix @ v, jnp.zeros(40), k=2, steps=8, tol=1e-9
        )
        true = jnp.linalg.norm(matrix @ found.vectors.T - found.vectors.T * found.values, axis=0)
        np.testing.assert_allclose(found.residuals, true, rtol=1e-6)
        assert not np.any(found.converged)

    def test_ends_with_the_krylov_space(self, x64):
        """Of two different eigenvalues only two pairs are there, whatever the steps."""
        matrix, _ = matrix_of(np.array([2.0, 2, 2, 5, 5, 5]))
        found = kernels.lanczos_eigenpairs(
            KEY, lambda v: matrix @ v, jnp.zeros(6), k=3, steps=5, which="smallest"
        )
        np.testing.assert_allclose(found.values[:2], [2, 5], **CLOSE)
        assert [bool(c) for c in found.converged] == [True, True, False]
        space = kernels.lanczos(lambda v: matrix @ v, jnp.ones(6), steps=5)
        assert space.length == 2

    def test_pairs_of_hessian_and_ntk(self, mlp, ggn):
        product = kernels.hvp_operator(mlp.full_loss, mlp.params)
        found = jax.jit(
            lambda key: kernels.lanczos_eigenpairs(key, product, mlp.params, k=2, steps=30)
        )(KEY)
        want = jnp.linalg.eigvalsh(mlp.hessian)[::-1][:2]
        np.testing.assert_allclose(found.values, want, rtol=1e-6)
        theta = kernels.ntk_operator(mlp.apply, mlp.params, mlp.dataset.x, damping=0.0)
        found = kernels.lanczos_eigenpairs(KEY, theta, jnp.zeros((7, 3)), k=2, steps=21)
        flat = mlp.jacobian.reshape(21, -1)
        np.testing.assert_allclose(found.values, jnp.linalg.eigvalsh(flat @ flat.T)[::-1][:2])

    def test_refuses(self, x64):
        with pytest.raises(ValueError, match="steps must be from 1 to the number of unknowns 4"):
            kernels.lanczos(lambda v: v, jnp.ones(4), steps=5)
        with pytest.raises(ValueError, match="k must be from 1 to steps 2, got 3"):
            kernels.lanczos_eigenpairs(KEY, lambda v: v, jnp.ones(4), k=3, steps=2)
        with pytest.raises(ValueError, match="which must be"):
            kernels.lanczos_eigenpairs(KEY, lambda v: v, jnp.ones(4), k=1, steps=2, which="middle")
        with pytest.raises(ValueError, match="start must be real floating point, got int"):
            kernels.lanczos(lambda v: v, jnp.arange(4), steps=2)


class TestStochastic:
    @given(st.integers(2, 9), st.integers(0, 2**30))
    @settings(max_examples=10, deadline=None)
    def test_quadrature_is_exact_for_polynomials(self, n, seed):
        """Of degree 2 steps - 1."""
        with jax.enable_x64(True):
            rng = np.random.default_rng(seed)
            matrix, v = matrix_of(rng.normal(size=n), seed)[0], jnp.asarray(rng.normal(size=n))
            steps = max(1, n // 2)
            degree = 2 * steps - 1
            integrand = kernels.lanczos_quadrature(lambda u: matrix @ u, lambda t: t**degree,
                                                   steps=steps)  # fmt: skip
            want = v @ jnp.linalg.matrix_power(matrix, degree) @ v
            np.testing.assert_allclose(integrand(v), want, rtol=1e-7, atol=1e-7)

    def test_trace_diagonal_and_log_determinant(self, ggn):
        operator, dense = ggn
        trace = kernels.trace(KEY, operator, operator.like, samples=200, at_once=20)
        assert abs(trace.mean - jnp.trace(dense)) < 3 * trace.standard_error
        assert trace.standard_error < 0.1 * jnp.trace(dense)
        found = kernels.log_determinant(
            KEY, operator, operator.like, damping=0.1, steps=15, samples=100, at_once=20
        )
        want = jnp.linalg.slogdet(dense + 0.1 * jnp.eye(len(dense)))[1]
        assert abs(found.mean - want) < 3 * found.standard_error
        assert found.standard_error < 0.02 * abs(want)
        diagonal = kernels.estimate(
            KEY,
            kernels.rademacher(operator.like),
            kernels.diagonal_form(operator),
            samples=200,
            at_once=20,
        )
        gap = ravel_pytree(diagonal.mean)[0] - jnp.diag(dense)
        assert jnp.mean(jnp.abs(gap) < 3 * ravel_pytree(diagonal.standard_error)[0]) > 0.95

    @pytest.mark.parametrize("at_once", [1, 4])
    def test_standard_error_is_that_of_the_sample(self, x64, at_once):
        draws = []
        found = kernels.estimate(
            KEY, kernels.gaussian(jnp.zeros(2)), lambda v: v * 3 + 1, samples=8, at_once=at_once
        )
        for key in jax.random.split(KEY, 8):
            draws.append(3 * kernels.gaussian(jnp.zeros(2))(key) + 1)
        np.testing.assert_allclose(found.mean, np.mean(draws, axis=0), **CLOSE)
        want = np.std(draws, axis=0, ddof=1) / np.sqrt(8)
        np.testing.assert_allclose(found.standard_error, want, **CLOSE)
        one = kernels.estimate(KEY, kernels.gaussian(jnp.zeros(2)), lambda v: v, samples=1)
        assert np.all(np.isnan(one.standard_error))

    def test_refuses(self, x64):
        with pytest.raises(ValueError, match="samples must be a multiple of at_once 3, got 8"):
            kernels.trace(KEY, lambda v: v, jnp.ones(3), samples=8, at_once=3)


class TestBlockCg:
    def test_solves_each_in_fewer_steps_than_alone(self, ggn):
        operator, dense = ggn
        rng = np.random.default_rng(0)
        flat = jnp.asarray(rng.normal(size=(4, len(dense))))
        flat = flat.at[3].set(flat[0] * 1e-20)  # a multiple of another, and tiny
        b = jax.vmap(ravel_pytree(operator.like)[1])(flat)
        options = {"damping": 0.01, "tol": 1e-9, "max_steps": 100}
        found, info = jax.jit(lambda b: kernels.block_cg(operator, b, **options))(b)
        want = jnp.linalg.solve(dense + 0.01 * jnp.eye(len(dense)), flat.T).T
        got = jax.vmap(lambda v: ravel_pytree(v)[0])(found)
        for one, other in zip(got, want, strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-6, atol=1e-7 * jnp.abs(other).max())
        assert info.converged.shape == (4,)
        assert np.all(info.converged)
        alone = kernels.cg(operator, jax.tree.map(lambda leaf: leaf[0], b), **options)[1]
        assert info.steps < 0.8 * alone.steps

    def test_a_preconditioner_saves_steps(self, x64):
        matrix, _ = matrix_of(np.logspace(0, -4, 60))
        flat = jnp.asarray(np.random.default_rng(1).normal(size=(3, 60)))
        flat = flat.at[2].set(2 * flat[0])  # of rank 2
        root = jnp.linalg.cholesky(matrix + 2e-3 * jnp.eye(60))
        options = {"damping": 1e-3, "tol": 1e-9, "max_steps": 100}
        plain = kernels.block_cg(lambda v: matrix @ v, flat, **options)[1]
        want = jnp.linalg.solve(matrix + 1e-3 * jnp.eye(60), flat.T).T
        steps = set()
        for scale in (1e-6, 1e3):  # on which nothing depends
            found, info = kernels.block_cg(
                lambda v: matrix @ v,
                flat,
                preconditioner=lambda v, s=scale: s * jax.scipy.linalg.cho_solve((root, True), v),
                **options,
            )
            np.testing.assert_allclose(found, want, rtol=1e-6, atol=1e-7 * jnp.abs(want).max())
            assert np.all(info.converged)
            steps.add(int(info.steps))
        assert len(steps) == 1
        assert max(steps) < 0.5 * plain.steps

    def test_does_not_claim_what_it_has_not(self, x64):
        matrix, _ = matrix_of(np.array([-1.0, 1, 2, 3, 4]))
        b = jnp.eye(5)[:2]
        options = {"damping": 0.0, "tol": 1e-8}
        _, info = kernels.block_cg(lambda v: matrix @ v, b, max_steps=1, **options)
        assert not np.any(info.converged)
        _, info = kernels.block_cg(lambda v: matrix @ v, jnp.eye(5), max_steps=9, **options)
        assert info.curvature < 0
        zero, info = kernels.block_cg(lambda v: v, 0 * b, max_steps=3, **options)
        assert np.all(info.converged)
        assert not np.any(zero)
        with pytest.raises(ValueError, match="6 right-hand sides for 5 unknowns"):
            kernels.block_cg(lambda v: v, jnp.ones((6, 5)), max_steps=3, **options)


HESSIANS = {
    "cross": kernels.cross_entropy_hessian,
    "square": kernels.squared_error_hessian,
}


class TestEkfac:
    @pytest.mark.parametrize("hessian", HESSIANS)
    def test_is_the_diagonal_in_the_eigenvectors_of_kfac(self, lenet, hessian):
        apply, params, x = lenet.apply, lenet.params, lenet.dataset.x[:4]
        product = kernels.ggn_operator(apply, params, x, HESSIANS[hessian])
        dense = kernels.SymmetricOperator(product, params).dense()
        diagonal = kernels.ggn_diagonal(apply, params, x, HESSIANS[hessian], chunk=3)
        np.testing.assert_allclose(ravel_pytree(diagonal)[0], jnp.diag(dense), **CLOSE)
        factors = kernels.ekfac_factors(apply, params, x, HESSIANS[hessian], chunk=3)
        operator = kernels.SymmetricOperator(kernels.ekfac_operator(factors), params)
        approximate = operator.dense()
        inverse = kernels.SymmetricOperator(kernels.ekfac_inverse(factors, 0.3), params).dense()
        np.testing.assert_allclose(
            inverse @ (approximate + 0.3 * jnp.eye(len(dense))), jnp.eye(len(dense)), atol=1e-8
        )
        _, vectors = jnp.linalg.eigh(approximate)
        along = lambda m: jnp.einsum("pi,pq,qi->i", vectors, m, vectors)  # noqa: E731
        np.testing.assert_allclose(along(approximate), along(dense), rtol=1e-6, atol=1e-9)
        kfac = kernels.SymmetricOperator(
            kernels.kfac_operator(kernels.kfac_factors(apply, params, x, HESSIANS[hessian])), params
        )
        gaps = [float(jnp.linalg.norm(m - dense)) for m in (approximate, kfac.dense())]
        assert gaps[0] < gaps[1]

    @pytest.mark.parametrize("chunk", [2, 5])
    def test_values_are_mean_squares_of_gradients_in_the_eigenvectors(self, x64, chunk):
        """Of many places and few features, of few places and many features, and of one place."""

        def apply(p, x):
            axes = ("NHWC", "HWIO", "NHWC")
            for name, stride in (("many", 1), ("few", 2)):
                steps = (stride, stride)
                h = jax.lax.conv_general_dilated(x, p[name], steps, "VALID", dimension_numbers=axes)
                x = jnp.tanh(h)
            return x.reshape(len(x), -1) @ p["one"] + p["shift"]

        shapes = {"many": (2, 2, 1, 2), "few": (4, 4, 2, 8), "one": (32, 3), "shift": (3,)}
        params = {
            name: jax.random.normal(jax.random.fold_in(KEY, i), shape) / 2
            for i, (name, shape) in enumerate(shapes.items())
        }
        x = jax.random.normal(KEY, (5, 8, 8, 1))
        weights = jnp.asarray([0.1, 0.3, 0.2, 0.25, 0.15])
        factors = jax.jit(
            lambda params, x: kernels.ekfac_factors(apply, params, x, weights=weights, chunk=chunk)
        )(params, x)
        jacobian = jax.jacrev(apply)(params, x)  # [n, c, ...]
        p = jax.nn.softmax(apply(params, x))
        root = jax.vmap(lambda p: jnp.diag(jnp.sqrt(p)) - jnp.outer(p, jnp.sqrt(p)))(p)
        slopes = jax.tree.map(lambda leaf: jnp.einsum("nc...,nck->nk...", leaf, root), jacobian)
        sizes = {name: shape[-1] for name, shape in shapes.items()}
        kernel = {name: g.reshape(5, 3, -1, sizes[name]) for name, g in slopes.items()}
        kernel["one"] = jnp.concatenate([kernel["one"], slopes["shift"][:, :, None]], axis=2)
        found = zip(factors.inputs, factors.outputs, factors.values, strict=True)
        for (left, right, values), name in zip(found, ("few", "many", "one"), strict=True):
            want = jnp.einsum("n,nkio->io", weights, (left.T @ kernel[name] @ right) ** 2)
            np.testing.assert_allclose(values, want, rtol=1e-9, atol=1e-14)

    def test_preconditions_better_than_nothing(self, x64):
        """A linear classifier of features of very different sizes."""
        x = jax.random.normal(KEY, (60, 12)) * jnp.logspace(-1.5, 1, 12)
        apply = lambda p, x: x @ p["kernel"] + p["bias"]  # noqa: E731
        b = {"kernel": jax.random.normal(KEY, (12, 3)), "bias": jnp.ones(3)}
        params = jax.tree.map(lambda leaf: leaf / 5, b)
        operator = kernels.ggn_operator(apply, params, x, kernels.cross_entropy_hessian)
        factors = kernels.ekfac_factors(apply, params, x)
        inverse = kernels.ekfac_inverse(factors, 1e-3)
        options = {"damping": 1e-3, "tol": 1e-6, "max_steps": 200}
        plain = kernels.cg(operator, b, **options)[1]
        found = kernels.cg(operator, b, preconditioner=inverse, **options)[1]
        assert found.converged
        assert found.steps < 0.7 * plain.steps
        with pytest.raises(ValueError, match="damping must be > 0, got 0"):
            kernels.ekfac_inverse(factors, 0.0)


class TestOperators:
    def test_compose(self, mlp, ggn):
        gauss_newton, dense = ggn
        hessian = kernels.SymmetricOperator(
            kernels.hvp_operator(mlp.full_loss, mlp.params), mlp.params
        )
        made = (0.5 * hessian - gauss_newton * 2.0).damped(0.1) + -hessian
        want = -0.5 * mlp.hessian - 2 * dense + 0.1 * jnp.eye(len(dense))
        np.testing.assert_allclose(made.dense(at_once=7), want, **CLOSE)
        assert made.size == len(dense)

    def test_of_one_layer(self, mlp, ggn):
        operator, dense = ggn
        select = lambda name: name.startswith("Dense_1/")  # noqa: E731
        part = operator.restricted_to(select)
        marks = jax.tree_util.tree_map_with_path(
            lambda path, leaf: jnp.full(leaf.shape, select(
                jax.tree_util.keystr(path, simple=True, separator="/"))),
            mlp.params,
        )  # fmt: skip
        chosen = np.flatnonzero(ravel_pytree(marks)[0])
        np.testing.assert_allclose(part.dense(), dense[np.ix_(chosen, chosen)], **CLOSE)
        assert set(part.like) == {"Dense_1/kernel", "Dense_1/bias"}
        v = kernels.part_of(mlp.params, select)
        assert set(part(v)) == set(v)
        with pytest.raises(ValueError, match="no leaf is selected; there are Dense_0/bias"):
            operator.restricted_to(lambda name: False)

    def test_to_and_from_others(self, ggn):
        operator, dense = ggn
        theirs = operator.to_scipy()
        values = scipy.sparse.linalg.eigsh(theirs, k=2, return_eigenvectors=False)
        np.testing.assert_allclose(np.sort(values), jnp.linalg.eigvalsh(dense)[-2:], rtol=1e-8)
        sparse = kernels.from_scipy(scipy.sparse.csr_array(np.asarray(dense)), operator.like)
        flat = kernels.from_matfree(operator.to_flat(), operator.like)
        v = jax.tree.map(jnp.cos, operator.like)
        want = ravel_pytree(operator(v))[0]
        for other in (sparse, flat, kernels.from_lineax(operator.to_lineax())):
            np.testing.assert_allclose(ravel_pytree(jax.jit(other)(v))[0], want, **CLOSE)

    def test_refuse_what_is_of_another_size(self, ggn, monkeypatch, unchecked_types):
        operator, _ = ggn
        small = kernels.SymmetricOperator(lambda v: v, jnp.ones(3))
        with pytest.raises(ValueError, match="added operator's vectors must have the structure"):
            operator + small
        with pytest.raises(ValueError, match="vector must have the shapes of the operator's"):
            small(jnp.ones(4))
        with pytest.raises(ValueError, match=r"is of shape \(4, 4\), and `like` holds 3 numbers"):
            kernels.from_scipy(scipy.sparse.eye_array(4), jnp.ones(3))
        with pytest.raises(ValueError, match="does not take vectors of 3 numbers"):
            kernels.from_matfree(lambda v: jnp.eye(4) @ v, jnp.ones(3))
        with pytest.raises(TypeError, match="symmetric only where they commute"):
            operator * operator
        big = kernels.SymmetricOperator(lambda v: v, jax.ShapeDtypeStruct((10**7,), jnp.float32))
        with pytest.raises(ValueError, match=r"the dense operator \[10000000, 10000000\] takes 37"):
            big.dense()
        monkeypatch.setitem(sys.modules, "lineax", None)
        with pytest.raises(ImportError, match="pip install lineax"):
            small.to_lineax()


class TestGradientFlow:
    @pytest.fixture
    def linear(self, x64):
        """A network that is linear in its weights, whose descent with small steps is the oracle."""
        rng = np.random.default_rng(0)
        features = jnp.asarray(rng.normal(size=(8, 2, 12)))
        weights, y = jnp.asarray(rng.normal(size=12)), jnp.asarray(rng.normal(size=(5, 2)))
        theta = jnp.einsum("iap,jbp->iajb", features, features)

        def descend(loss, time, damping=0.0, steps=20_000):
            rate = time / steps

            def step(_, w):
                gradient = jax.grad(lambda w: loss(features[:5] @ w))(w)
                return w - rate * (gradient + damping / 5 * (w - weights))

            return features @ jax.lax.fori_loop(0, steps, step, weights)

        return features @ weights, y, theta, descend

    @pytest.mark.parametrize("damping", [0.0, 0.5])
    def test_squared_error(self, linear, damping):
        start, y, theta, descend = linear
        flow = kernels.squared_error_flow(theta[:5, :, :5], y, damping=damping)
        want = descend(lambda f: jnp.sum((f - y) ** 2) / 10, 2.0, damping)
        np.testing.assert_allclose(flow.at_examples(2.0, start[:5]), want[:5], rtol=1e-3, atol=1e-3)
        cross = theta[5:, :, :5]
        for kernel in (cross, lambda v: jnp.tensordot(cross, v, 2)):
            found = flow.at_inputs(2.0, start[:5], start[5:], kernel)
            np.testing.assert_allclose(found, want[5:], rtol=1e-3, atol=1e-3)
        np.testing.assert_allclose(flow.at_examples(0.0, start[:5]), start[:5], **CLOSE)
        if damping == 0:
            np.testing.assert_allclose(flow.at_examples(jnp.inf, start[:5]), y, **CLOSE)

    def test_a_kernel_alike_for_every_output(self, linear):
        start, y, theta, _ = linear
        one = theta[:5, 0, :5, 0]
        whole = jnp.einsum("ij,ab->iajb", one, jnp.eye(2))
        got = kernels.squared_error_flow(one, y).at_examples(3.0, start[:5])
        want = kernels.squared_error_flow(whole, y).at_examples(3.0, start[:5])
        np.testing.assert_allclose(got, want, **CLOSE)

    def test_any_loss(self, linear):
        start, y, theta, descend = linear
        loss = lambda f: jnp.mean(jnp.sum(jnp.log1p(jnp.exp(f - y)) - f * y, axis=1))  # noqa: E731
        times = jnp.array([0.0, 0.5, 2.0])
        own = lambda v: jnp.tensordot(theta[:5, :, :5], v, 2)  # noqa: E731
        found, elsewhere = kernels.gradient_flow(
            own, loss, start[:5], times, elsewhere=start[5:], cross=theta[5:, :, :5], tol=1e-7
        )
        for i, time in enumerate(times):
            want = descend(loss, float(time))
            np.testing.assert_allclose(found[i], want[:5], rtol=1e-3, atol=1e-3)
            np.testing.assert_allclose(elsewhere[i], want[5:], rtol=1e-3, atol=1e-3)

    def test_the_weights_of_any_loss(self, x64):
        """Beside descent with small steps; a network's own curvature is left out."""
        rng = np.random.default_rng(1)
        x, y = jnp.asarray(rng.normal(size=(5, 3))), jnp.asarray(rng.normal(size=(5, 2)))
        params = {"a": jnp.asarray(rng.normal(size=(3, 4))), "b": jnp.asarray(rng.normal(size=8))}

        def apply(p, x):
            return jnp.tanh(x @ p["a"]) @ p["b"].reshape(4, 2)

        loss = lambda f: jnp.mean(jnp.sum(jnp.cosh(f - y), axis=1)) / 4  # noqa: E731
        linear = lambda p: jax.jvp(  # noqa: E731
            lambda p: apply(p, x), (params,), (jax.tree.map(jnp.subtract, p, params),)
        )
        rate, decay = 1e-4, 0.3

        def step(_, p):
            gradient = jax.grad(lambda p: loss(sum(linear(p))))(p)
            move = lambda w, g, w0: w - rate * (g + decay * (w - w0))  # noqa: E731
            return jax.tree.map(move, p, gradient, params)

        wanted = jax.jit(lambda: jax.lax.fori_loop(0, 20_000, step, params))()
        times = jnp.array([0.0, 2.0])
        for chunk in (None, 2):
            weights, outputs = kernels.weight_flow(
                apply, params, x, loss, times, weight_decay=decay, tol=1e-7, chunk=chunk
            )
            for name, want in wanted.items():
                np.testing.assert_allclose(weights[name][0], params[name], **CLOSE)
                np.testing.assert_allclose(weights[name][1], want, rtol=1e-3, atol=1e-3)
            np.testing.assert_allclose(outputs[1], sum(linear(wanted)), rtol=1e-3, atol=1e-3)

    def test_refuses(self, linear, unchecked_types):
        start, y, theta, _ = linear
        with pytest.raises(ValueError, match="weight_decay must be >= 0, got -1"):
            kernels.gradient_flow(theta, jnp.sum, start, jnp.ones(1), weight_decay=-1.0)
        with pytest.raises(ValueError, match=r"\[n, n\] for targets \(5, 2\), got \(8, 2, 8, 2\)"):
            kernels.squared_error_flow(theta, y)
        with pytest.raises(ValueError, match="damping must be >= 0, got -1"):
            kernels.squared_error_flow(theta[:5, :, :5], y, damping=-1.0)
        with pytest.raises(ValueError, match="elsewhere and cross belong together"):
            kernels.gradient_flow(theta, jnp.sum, start, jnp.ones(1), elsewhere=start)
