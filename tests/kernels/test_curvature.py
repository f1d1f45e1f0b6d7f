import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from unlearnkit import kernels
from unlearnkit.base import Dataset


def assert_close(tree, array, **kwargs):
    np.testing.assert_allclose(ravel_pytree(tree)[0], array, rtol=1e-9, atol=1e-11, **kwargs)


def softmax_hessian(p):
    """[n, c, c] of the mean cross-entropy."""
    outer = jnp.einsum("ia,ib->iab", p, p)
    return (jnp.einsum("ia,ab->iab", p, jnp.eye(p.shape[1])) - outer) / len(p)


class TestHvp:
    def test_is_the_dense_hessian_times_the_vector(self, problem):
        v = problem.vector()
        want = problem.hessian @ ravel_pytree(v)[0]
        loss = problem.full_loss
        assert_close(jax.jit(lambda p, u: kernels.hvp(loss, p, u))(problem.params, v), want)
        operator = jax.jit(lambda p, u: kernels.hvp_operator(loss, p)(u))
        assert_close(operator(problem.params, v), want)

    def test_under_jit_and_vmap(self, mlp):
        hessian = mlp.hessian
        vectors = [mlp.vector(seed) for seed in range(3)]
        stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *vectors)
        products = jax.jit(lambda p, vs: jax.vmap(lambda v: kernels.hvp(mlp.full_loss, p, v))(vs))(
            mlp.params, stacked
        )
        for i, v in enumerate(vectors):
            row = jax.tree.map(lambda leaf, i=i: leaf[i], products)
            assert_close(row, hessian @ ravel_pytree(v)[0])

    def test_second_call_does_not_trace_again(self, mlp, compilations):
        loss = compilations(mlp.full_loss)
        product = jax.jit(lambda p, v: kernels.hvp(loss, p, v))
        product(mlp.params, mlp.vector(0))
        before = loss.count
        product(mlp.params, mlp.vector(1))
        assert loss.count == before

    def test_an_operator_passes_through_jit_as_an_argument(self, mlp):
        operator = kernels.hvp_operator(mlp.full_loss, mlp.params)
        v = mlp.vector()
        got = jax.jit(lambda f, u: f(u))(operator, v)
        assert_close(got, mlp.hessian @ ravel_pytree(v)[0])

    def test_refuses_what_is_not_like_the_parameters(self, mlp):
        with pytest.raises(ValueError, match="structure of params"):
            kernels.hvp(mlp.full_loss, mlp.params, {"other": jnp.ones(3)})
        wrong = jax.tree.map(lambda leaf: leaf[:1], mlp.params)
        with pytest.raises(ValueError, match="shapes of params"):
            kernels.hvp(mlp.full_loss, mlp.params, wrong)

    def test_refuses_a_vector_loss(self, mlp):
        with pytest.raises(ValueError, match="one scalar"):
            kernels.hvp(lambda p: jnp.ones(2), mlp.params, mlp.vector())
        with pytest.raises(ValueError, match="one scalar"):
            kernels.hvp_operator(lambda p: jnp.ones(2), mlp.params)


class TestJacobian:
    def test_products_are_those_of_the_dense_jacobian(self, problem):
        jacobian, v = problem.jacobian, problem.vector()
        x = problem.dataset.x
        got = jax.jit(lambda p: kernels.jacobian_vp(problem.apply, p, x, v))(problem.params)
        np.testing.assert_allclose(got, jacobian @ ravel_pytree(v)[0], rtol=1e-9, atol=1e-11)
        u = jax.random.normal(jax.random.key(5), jacobian.shape[:2])
        back = jax.jit(lambda p: kernels.jacobian_transpose_vp(problem.apply, p, x, u))(
            problem.params
        )
        assert_close(back, jnp.tensordot(u, jacobian, axes=2))

    def test_refuses_a_cotangent_of_the_wrong_shape(self, mlp):
        with pytest.raises(ValueError, match="the outputs"):
            kernels.jacobian_transpose_vp(mlp.apply, mlp.params, mlp.dataset.x, jnp.ones((7, 2)))


class TestGaussNewton:
    def test_is_jt_b_j(self, problem):
        jacobian, v = problem.jacobian, problem.vector()
        p = jax.nn.softmax(problem.apply(problem.params, problem.dataset.x))
        dense = jnp.einsum("iap,iab,ibq->pq", jacobian, softmax_hessian(p), jacobian)
        got = jax.jit(
            lambda params: kernels.ggn_vp(
                problem.apply, params, problem.dataset.x, kernels.cross_entropy_hessian, v
            )
        )(problem.params)
        assert_close(got, dense @ ravel_pytree(v)[0])

    def test_is_the_hessian_of_a_linear_model(self, mlp):
        weights = jax.random.normal(jax.random.key(0), (16, 3))

        def apply(params, x):
            return x.reshape(len(x), -1) @ params

        linear = dataclasses.replace(mlp, apply=apply, params=weights)
        v = linear.vector()
        got = kernels.ggn_vp(apply, weights, linear.dataset.x, kernels.cross_entropy_hessian, v)
        np.testing.assert_allclose(
            got, kernels.hvp(linear.full_loss, weights, v), rtol=1e-9, atol=1e-12
        )

    @pytest.mark.parametrize(
        ("loss", "closed_form"),
        [
            (
                lambda logits: -jax.nn.log_softmax(logits)[:, 0].mean(),
                kernels.cross_entropy_hessian,
            ),
            (
                lambda outputs: 0.5 * jnp.sum((outputs - 1) ** 2) / len(outputs),
                kernels.squared_error_hessian,
            ),
        ],
    )
    def test_closed_forms_are_the_automatic_ones(self, x64, loss, closed_form):
        outputs, u = jax.random.normal(jax.random.key(0), (2, 6, 4))
        np.testing.assert_allclose(
            closed_form(outputs, u), kernels.output_hessian(loss)(outputs, u), atol=1e-12
        )


class TestFisher:
    def test_is_the_diagonal_of_the_gauss_newton_matrix(self, problem):
        jacobian = problem.jacobian
        p = jax.nn.softmax(problem.apply(problem.params, problem.dataset.x))
        dense = jnp.einsum("iap,iab,ibp->p", jacobian, softmax_hessian(p), jacobian)
        got = jax.jit(lambda p: kernels.fisher_diagonal(problem.apply, p, problem.dataset.x))(
            problem.params
        )
        assert_close(got, dense)

    def test_empirical_is_the_mean_square_of_the_gradients(self, problem):
        rows = problem.gradients
        got = jax.jit(
            lambda p: kernels.empirical_fisher_diagonal(problem.loss, p, problem.dataset)
        )(problem.params)
        assert_close(got, jnp.mean(rows**2, axis=0))

    @pytest.mark.parametrize("chunk", [1, 3, 50])
    def test_does_not_depend_on_the_chunk(self, mlp, chunk):
        whole = kernels.fisher_diagonal(mlp.apply, mlp.params, mlp.dataset.x)
        parts = jax.jit(
            lambda p: kernels.fisher_diagonal(mlp.apply, p, mlp.dataset.x, chunk=chunk)
        )(mlp.params)
        assert_close(parts, ravel_pytree(whole)[0])

    def test_the_most_probable_label_alone(self, mlp):
        logits = mlp.apply(mlp.params, mlp.dataset.x)
        labels = jnp.argmax(logits, axis=1)
        hard = mlp.dataset._replace(y=labels)
        p = jnp.max(jax.nn.softmax(logits), axis=1)
        hard = dataclasses.replace(mlp, dataset=mlp.dataset._replace(y=labels))
        got = kernels.fisher_diagonal(mlp.apply, mlp.params, mlp.dataset.x, classes=1)
        assert_close(got, jnp.mean(p[:, None] * hard.gradients**2, axis=0))

    def test_refuses_bad_counts(self, mlp):
        with pytest.raises(ValueError, match="chunk must be >= 1, got 0"):
            kernels.fisher_diagonal(mlp.apply, mlp.params, mlp.dataset.x, chunk=0)
        with pytest.raises(ValueError, match="classes must be"):
            kernels.fisher_diagonal(mlp.apply, mlp.params, mlp.dataset.x, classes=4)


def test_curvature_asks_for_the_highest_precision():
    """A matmul in TF32 would be written in the program as precision DEFAULT."""

    def loss(w):
        return jnp.sum(jnp.tanh(jnp.ones((4, 3)) @ w) ** 2)

    w = jnp.ones((3, 2))
    program = str(jax.make_jaxpr(lambda v: kernels.hvp(loss, w, v))(w))
    assert program.count("dot_general") == program.count("precision=(Precision.HIGHEST") > 0
    operator = str(jax.make_jaxpr(kernels.hvp_operator(loss, w))(w))
    assert operator.count("dot_general") == operator.count("precision=(Precision.HIGHEST") > 0


def _products(precision):
    """Every kernel with an argument of precision, as a function of a vector."""
    x, params = jnp.ones((4, 3), jnp.float32), {"kernel": jnp.ones((3, 2), jnp.float32)}
    options = {} if precision is None else {"precision": precision}

    def apply(p, x):
        return jnp.tanh(x @ p["kernel"])

    def loss(p):
        return jnp.mean(apply(p, x) ** 2)

    def batch_loss(p, x, y):
        return jnp.mean(apply(p, x) ** 2)

    def inner(leader, follower):
        return loss(follower) + jnp.vdot(leader["kernel"], follower["kernel"] ** 2)

    fit = {"damping": 1.0, "tol": 1e-3, "max_steps": 2}
    hessian = kernels.squared_error_hessian
    labels = jnp.zeros(4, jnp.int32)
    examples = Dataset(x, labels)
    gradients = kernels.GradientOperator(batch_loss, params, examples)
    plain = {"damping": 1.0, "tol": 1e-3, "max_steps": 2, **options}
    key = jax.random.key(0)

    def product(v):
        return {"kernel": x.T @ (x @ v["kernel"])}

    def features(v):
        return x[:, :2] + v["kernel"][:1]

    signed = jnp.array([1.0, -1.0, 1.0, -1.0])

    def bias(v, **said):
        return kernels.svm(features(v), signed, C=1.0, **said, **options).bias

    operators = {
        "cg": lambda v: kernels.cg(product, v, **plain),
        "minres": lambda v: kernels.minres(product, v, **plain),
        "cgnr": lambda v: kernels.cgnr(product, v, **plain),
        "block_cg": lambda v: kernels.block_cg(
            product, jax.tree.map(lambda a: a[None], v), **plain
        ),
        "neumann": lambda v: kernels.neumann(product, v, step_size=0.1, **plain),
        "lissa": lambda v: kernels.lissa(
            key,
            lambda _, u: product(u),
            product,
            v,
            damping=1.0,
            tol=1e-3,
            step_size=0.1,
            depth=2,
            **options,
        ),
        "nystrom": lambda v: kernels.nystrom(key, product, v, rank=2, shift=1.0, **options),
        "sketched_ntk": lambda v: kernels.sketched_ntk(
            key, apply, v, x, damping=1.0, rank=2, **options
        ),
        "gradient_bank": lambda v: kernels.gradient_bank(batch_loss, v, examples, **options),
        "gram": lambda v: kernels.gram(
            kernels.GradientOperator(batch_loss, v, examples), **options
        ),
        "gram of a bank": lambda v: kernels.gram(v["kernel"], **options),
        "gradients times": lambda v: gradients.matvec(v["kernel"].reshape(-1), **options),
        "times gradients": lambda v: gradients.rmatvec(v["kernel"][0, 0] * jnp.ones(4), **options),
        "risk_gradient": lambda v: kernels.risk_gradient(
            batch_loss, v, examples, chunk=2, **options
        ),
        "hvp": lambda v: kernels.hvp(loss, params, v, **options),
        "hvp_operator": lambda v: kernels.hvp_operator(loss, params, **options)(v),
        "jacobian_vp": lambda v: kernels.jacobian_vp(apply, params, x, v, **options),
        "jacobian_transpose_vp": lambda v: kernels.jacobian_transpose_vp(
            apply, params, x, apply(v, x), **options
        ),
        "ggn_vp": lambda v: kernels.ggn_vp(apply, params, x, hessian, v, **options),
        "ggn_operator": lambda v: kernels.ggn_operator(apply, params, x, hessian, **options)(v),
        "fisher_diagonal": lambda v: kernels.fisher_diagonal(apply, v, x, **options),
        "empirical_fisher_diagonal": lambda v: kernels.empirical_fisher_diagonal(
            batch_loss, v, Dataset(x, labels), **options
        ),
        "empirical_ntk": lambda v: kernels.empirical_ntk(apply, v, x, method="jacobian", **options),
        "ntk_operator": lambda v: kernels.ntk_operator(apply, params, x, damping=1.0, **options)(
            v["kernel"][:1] * jnp.ones((4, 2))
        ),
        "ntk_operator, chunked": lambda v: kernels.ntk_operator(
            apply, params, x, damping=1.0, chunk=2, **options
        )(v["kernel"][:1] * jnp.ones((4, 2))),
        "svm": bias,
        "svm, derivative": jax.grad(bias),
        "svm, squared hinge": lambda v: bias(v, loss="squared_hinge"),
        "svm, squared hinge, derivative": jax.grad(lambda v: bias(v, loss="squared_hinge")),
        "logistic_regression": lambda v: kernels.logistic_regression(
            features(v), signed, C=1.0, **options
        ),
        "one_vs_rest": lambda v: kernels.one_vs_rest(
            features(v), labels.at[0].set(1), n_classes=2, C=1.0, **options
        ),
        "total_gradient": lambda v: kernels.total_gradient(
            lambda _, follower: loss(follower), inner, v, params, **fit, **options
        ),
    }
    return operators, params


KERNELS = list(_products(None)[0])
SOLVERS = {"total_gradient", "cg", "minres", "cgnr", "neumann", "lissa", "nystrom", "sketched_ntk"}
"""Whose inner products of vectors stay as they are."""


@pytest.mark.parametrize("name", KERNELS)
def test_precision_is_of_every_product_with_the_network_and_highest_where_unsaid(name):
    def precisions(precision):
        operators, vector = _products(precision)
        with jax.enable_x64(False):
            jaxpr = jax.make_jaxpr(operators[name])(vector)
        return {
            match
            for match in re.findall(r"precision=\(?([^\s,)\]]+)", str(jaxpr))
            if match != "None"
        }

    at_highest = precisions(None)
    assert at_highest
    assert all("HIGHEST" in found for found in at_highest)
    lowered = precisions("bfloat16")
    assert any("HIGHEST" not in found for found in lowered)
    if name not in SOLVERS:
        assert not lowered & at_highest
    assert precisions("highest") == at_highest


def test_an_unknown_precision_is_refused():
    operators, vector = _products("exact")
    with pytest.raises(ValueError, match="precision must be one of highest"):
        operators["hvp"](vector)
