"""Kernels of networks whose outputs and inputs have any shape, against dense Jacobians."""

import equinox
import haiku
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from unlearnkit import kernels, models
from unlearnkit.kernels import _outputs

CLOSE = {"rtol": 1e-9, "atol": 1e-11}
N, T, C = 5, 2, 3


def sequences(params, x):
    """Tokens and a mask -> [n, t, c], with a dense layer, a table and a scale."""
    h = params["table"][x["tokens"]] * x["mask"][..., None]
    h = jnp.tanh(h.reshape(len(h), -1) @ params["dense"]) * params["scale"]
    return (h @ params["out"]).reshape(len(h), T, C)


@pytest.fixture
def problem(x64):
    keys = iter(jax.random.split(jax.random.key(0), 9))
    shapes = {"table": (6, 2), "dense": (8, 4), "scale": (4,), "out": (4, T * C)}
    params = {name: jax.random.normal(next(keys), shape) for name, shape in shapes.items()}
    tokens = jax.random.randint(next(keys), (N, 4), 0, 6)
    mask = jax.random.uniform(next(keys), (N, 4))
    return params, {"tokens": tokens, "mask": mask}


@pytest.fixture
def dense(problem):
    """[n, t, c, p]."""
    params, x = problem
    leaves = jax.tree.leaves(jax.jacrev(sequences)(params, x))
    return jnp.concatenate([leaf.reshape(N, T, C, -1) for leaf in leaves], axis=-1)


class TestAnyShape:
    def test_outputs_of_two_axes_and_of_none(self, problem, dense):
        params, x = problem
        want = jnp.einsum("iabp,jcdp->iabjcd", dense, dense)
        for method in ("auto", "jacobian", "products", "structured"):
            got = kernels.empirical_ntk(sequences, params, x, method=method, chunk=3)
            np.testing.assert_allclose(got, want, **CLOSE)
        one = kernels.empirical_ntk(lambda p, x: sequences(p, x)[:, 1, 2], params, x)
        np.testing.assert_allclose(one, want[:, 1, 2, :, 1, 2], **CLOSE)

    @pytest.mark.parametrize(
        ("trace", "diagonal", "products"),
        [
            ((-1,), (), "iabp,jcbp->iajc"),
            ((1,), (2,), "iabp,jabp->ijb"),
            ((), (1,), "iabp,jacp->ibjca"),
            ((2, 1), (), "iabp,jabp->ij"),
            ((), (2, 1), "iabp,jabp->ijba"),
        ],
    )
    def test_traced_and_diagonal_axes(self, problem, dense, trace, diagonal, products):
        params, x = problem
        other = jax.tree.map(lambda leaf: leaf[:2], x)
        got = kernels.empirical_ntk(
            sequences, params, x, other, trace_axes=trace, diagonal_axes=diagonal, chunk=3
        )
        np.testing.assert_allclose(got, jnp.einsum(products, dense, dense[:2]), **CLOSE)

    def test_diagonal(self, problem, dense):
        got = kernels.ntk_diagonal(sequences, *problem, chunk=2)
        np.testing.assert_allclose(got, jnp.sum(dense**2, axis=-1), **CLOSE)

    def test_pseudo_ntk(self, problem, dense):
        rows = dense.sum((1, 2)) / np.sqrt(T * C)
        got = kernels.pseudo_ntk(sequences, *problem, chunk=3)
        np.testing.assert_allclose(got, rows @ rows.T, **CLOSE)

    @pytest.mark.parametrize("chunk", [None, 2])
    def test_operators(self, problem, dense, chunk):
        params, x = problem
        other = jax.tree.map(lambda leaf: leaf[:2], x)
        v = jax.random.normal(jax.random.key(3), (N, T, C))
        square = jnp.einsum("iabp,jcdp,jcd->iab", dense, dense, v)
        operator = kernels.ntk_operator(sequences, params, x, damping=0.3, chunk=chunk)
        np.testing.assert_allclose(operator(v), square + 0.3 * v, **CLOSE)
        cross = kernels.cross_ntk_operator(sequences, params, other, x, chunk=chunk)
        np.testing.assert_allclose(cross(v), square[:2], **CLOSE)

    def test_nngp(self, problem):
        params, x = problem
        f = sequences(params, x).reshape(N, -1)
        got = kernels.empirical_nngp(sequences, params, x)
        np.testing.assert_allclose(got, f @ f.T / (T * C), **CLOSE)

    def test_refuses_what_has_no_kernel(self, problem, monkeypatch):
        params, x = problem
        with pytest.raises(ValueError, match="one array of outputs, got a dict"):
            kernels.ntk_diagonal(lambda p, x: {"a": sequences(p, x)}, params, x)
        with pytest.raises(ValueError, match="outputs must be real floating point, got complex"):
            kernels.pseudo_ntk(lambda p, x: sequences(p, x) + 0j, params, x)
        for bad in (jnp.arange(3), jnp.ones(3, complex)):
            with pytest.raises(ValueError, match=r"params\['bad'\] is (int|complex)"):
                kernels.ntk_operator(sequences, {**params, "bad": bad}, x, damping=0.0)
        with pytest.raises(ValueError, match=r"\[n, 2, 3\] from 1 to 2, got \(0,\) and \(\)"):
            kernels.empirical_ntk(sequences, params, x, trace_axes=(0,))
        with pytest.raises(ValueError, match=r"got \(1,\) and \(-2,\)"):
            kernels.empirical_ntk(sequences, params, x, trace_axes=(1,), diagonal_axes=(-2,))
        with pytest.raises(ValueError, match="auto or structured with these axes, got 'jacobian'"):
            kernels.empirical_ntk(sequences, params, x, trace_axes=(1,), method="jacobian")
        monkeypatch.setattr(_outputs, "available_bytes", lambda: 2**10)
        message = r"the kernel \[5, 2, 3, 5, 2, 3\] takes 0.0 GiB, .*; ntk_operator and cross_ntk"
        with pytest.raises(ValueError, match=message):
            kernels.empirical_ntk(sequences, params, x)


class TestExpansions:
    def test_is_the_polynomial_of_a_polynomial(self, x64):
        def apply(p, x):
            return x * p["a"] ** 2 * p["b"]

        params, step = {"a": 2.0, "b": -1.0}, {"a": 0.3, "b": 0.7}
        params, step = (jax.tree.map(jnp.asarray, tree) for tree in (params, step))
        moved = jax.tree.map(jnp.add, params, step)
        x = jnp.array([1.0, -2.0])
        a, b, da, db = 2.0, -1.0, 0.3, 0.7
        terms = [a**2 * b, 2 * a * b * da + a**2 * db, b * da**2 + 2 * a * da * db, da**2 * db]
        for degree in range(5):
            got = kernels.taylor_expand(apply, params, degree)(moved, x)
            np.testing.assert_allclose(got, x * sum(terms[: degree + 1]), **CLOSE)
        np.testing.assert_allclose(
            kernels.linearize(apply, params)(moved, x), x * sum(terms[:2]), **CLOSE
        )

    def test_refuses(self, x64):
        with pytest.raises(ValueError, match="degree must be >= 0, got -1"):
            kernels.taylor_expand(lambda p, x: p, {}, -1)
        linear = kernels.linearize(lambda p, x: x * p, jnp.ones(()))
        with pytest.raises(ValueError, match="the weights must have the shapes of params"):
            linear(jnp.ones(2), jnp.ones(3))


class Net(nnx.Module):
    def __init__(self, rngs):
        self.a, self.b = nnx.Linear(4, 6, rngs=rngs), nnx.Linear(6, 3, rngs=rngs)

    def __call__(self, x):
        return self.b(jnp.tanh(self.a(x)))


def adopted(library):
    """One network by four libraries, with the same weights."""
    net = Net(nnx.Rngs(0))
    kernel = [(layer.kernel[...], layer.bias[...]) for layer in (net.a, net.b)]
    if library == "nnx":
        return models.adopt(net, input_shape=(4,))
    if library == "haiku":
        made = haiku.without_apply_rng(haiku.transform(lambda x: haiku.nets.MLP(
            [6, 3], activation=jnp.tanh)(x)))  # fmt: skip
        weights = {f"mlp/~/linear_{i}": {"w": w, "b": b} for i, (w, b) in enumerate(kernel)}
        return models.adopt(made, weights, input_shape=(4,))
    if library == "equinox":
        mlp = equinox.nn.MLP(4, 3, 6, 1, jnp.tanh, key=jax.random.key(0))
        found = equinox.tree_at(
            lambda m: [p for layer in m.layers for p in (layer.weight, layer.bias)],
            mlp,
            [p for w, b in kernel for p in (w.T, b)],
        )
        return models.adopt(found, input_shape=(4,))
    apply = lambda p, x: jnp.tanh(x @ p[0][0] + p[0][1]) @ p[1][0] + p[1][1]  # noqa: E731
    return models.adopt(apply, kernel, input_shape=(4,))


def test_one_kernel_of_a_network_by_any_library():
    x = jax.random.normal(jax.random.key(1), (3, 4))
    found = {}
    for library in ("function", "nnx", "haiku", "equinox"):
        model, variables = adopted(library)
        apply = lambda p, x, m=model, v=variables: m.apply(v._replace(params=p), x)  # noqa: E731
        found[library] = kernels.empirical_ntk(apply, variables.params, x, method="structured")
    for theta in found.values():
        np.testing.assert_allclose(theta, found["function"], rtol=1e-5, atol=1e-5)


def test_the_mean_kernel_of_wide_networks_is_that_of_infinite_width():
    """One hidden layer of ReLU: E K(x, x') is the arc-cosine kernel of degree 1, over 2."""
    x = jnp.array([[1.0, 0.0], [0.6, 0.8]])
    width = 64

    def init(key):
        one, two = jax.random.split(key)
        return jax.random.normal(one, (2, width)), jax.random.normal(two, (width, 20)) / width**0.5

    def apply(params, x):
        return jax.nn.relu(x @ params[0]) @ params[1]

    draw = lambda params: kernels.empirical_nngp(apply, params, x)  # noqa: E731
    found = kernels.estimate(jax.random.key(0), init, draw, samples=200, at_once=20)
    angle = np.arccos(0.6)
    off = (np.sin(angle) + (np.pi - angle) * np.cos(angle)) / (2 * np.pi)
    want = np.array([[0.5, off], [off, 0.5]])
    assert np.all(np.abs(found.mean - want) < 4 * found.standard_error)
    assert np.all(found.standard_error < 0.02)


def test_kernel_function_in_pairs(problem, dense):
    params, x = problem
    other = jax.tree.map(lambda leaf: leaf[:2], x)
    whole = kernels.kernel_fn(sequences, params, trace_axes=())(x, other, "ntk")
    np.testing.assert_allclose(whole, jnp.einsum("iabp,jcdp->ijacbd", dense, dense[:2]), **CLOSE)
    both = kernels.kernel_fn(sequences, params)(x)
    np.testing.assert_allclose(both.ntk, jnp.einsum("iabp,jcbp->ijac", dense, dense) / C, **CLOSE)
    f = sequences(params, x)
    np.testing.assert_allclose(both.nngp, jnp.einsum("iab,jcb->ijac", f, f) / C, **CLOSE)
    one = kernels.kernel_fn(sequences, params, trace_axes=(1, 2))(x, None, ("nngp",))
    assert one.ntk is None
    np.testing.assert_allclose(one.nngp, kernels.empirical_nngp(sequences, params, x), **CLOSE)
    with pytest.raises(ValueError, match=r"get must be of \('nngp', 'ntk'\), got \['cov'\]"):
        kernels.kernel_fn(sequences, params)(x, None, "cov")
