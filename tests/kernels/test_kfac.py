"""K-FAC: exact where it must be, its factors by their definition, layers of any library."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.flatten_util import ravel_pytree

from unlearnkit import kernels, models
from unlearnkit.base import Variables
from unlearnkit.models import from_functions, from_linen, from_nnx

SHAPE = (5, 6, 2)
KEY = jax.random.key(0)


class Nnx(nnx.Module):
    def __init__(self, rngs):
        self.first = nnx.Linear(60, 4, rngs=rngs)
        self.second = nnx.Linear(4, 3, use_bias=False, rngs=rngs)

    def __call__(self, x):
        return self.second(jnp.tanh(self.first(x.reshape(len(x), -1))))


class Flax(nn.Module):
    """A convolution without a bias, a normalised dense layer, and one on rows of a matrix."""

    @nn.compact
    def __call__(self, x):
        x = nn.tanh(nn.Conv(3, (2, 3), strides=(2, 1), use_bias=False)(x))
        x = nn.tanh(nn.Dense(4)(x.reshape(len(x), -1, 3)))
        x = nn.LayerNorm()(x.reshape(len(x), -1))
        return nn.Dense(3)(x)


def ours(implementation):
    return models.create(
        "cnn_mnist", input_shape=SHAPE, n_classes=3, implementation=implementation, pool="average"
    )


OURS = {name: ours(name) for name in ("xla", "bilinear", "patches")}
LOGISTIC = models.create("logistic", input_shape=SHAPE, n_classes=3)


def factors_of(apply, params, x, *loss_hessian, **settings):
    """By one compiled program."""

    @jax.jit
    def compute(params, x):
        return kernels.kfac_factors(apply, params, x, *loss_hessian, **settings)

    return compute(params, x)


def in_float64(model, seed=1):
    """Returns (params, x) -> logits, the weights away from zero, and inputs."""
    with jax.enable_x64(False):
        fresh = model.init(jax.random.key(seed))
    keys = iter(jax.random.split(jax.random.key(seed + 1), 99))
    params = jax.tree.map(
        lambda w: w.astype(jnp.float64) + 0.1 * jax.random.normal(next(keys), w.shape), fresh.params
    )
    x = jax.random.normal(jax.random.key(7), (4, *SHAPE), jnp.float64)
    return lambda p, x: model.apply(Variables(p, fresh.state), x), params, x


def dense_ggn(apply, params, x, loss_hessian=kernels.cross_entropy_hessian):
    flat, unravel = ravel_pytree(params)
    product = kernels.ggn_operator(apply, params, x, loss_hessian)
    return jax.jit(jax.vmap(lambda v: ravel_pytree(product(unravel(v)))[0]))(jnp.eye(flat.size))


def assert_inverts(apply, params, x, blocks, loss_hessian=kernels.cross_entropy_hessian):
    """That the exactly damped inverse is that of these blocks of the dense matrix."""
    factors = factors_of(apply, params, x, loss_hessian)
    inverse = jax.jit(lambda f, v: kernels.kfac_inverse(f, 0.3, exact=True)(v))
    flat, unravel = ravel_pytree(params)
    v = jax.random.normal(jax.random.key(11), flat.shape)
    mask = blocks(flat.size)
    matrix = jnp.where(mask, dense_ggn(apply, params, x, loss_hessian), 0)
    want = jnp.linalg.solve(matrix + 0.3 * jnp.eye(flat.size), v)
    np.testing.assert_allclose(
        ravel_pytree(inverse(factors, unravel(v)))[0], want, rtol=1e-9, atol=1e-12
    )


def whole(size):
    return jnp.ones((size, size), bool)


def test_is_the_gauss_newton_matrix_of_one_layer_and_one_example(x64):
    apply, params, x = in_float64(LOGISTIC)
    assert_inverts(apply, params, x[:1], whole)
    assert_inverts(apply, params, x[:1], whole, kernels.squared_error_hessian)
    cubed = kernels.output_hessian(lambda out: jnp.mean(jnp.sum(out**4, 1)))
    assert_inverts(apply, params, x[:1], whole, cubed)


def test_is_it_where_inputs_and_slopes_are_independent(x64):
    """Under the squared error the slopes of a linear network are the same for all examples."""
    apply, params, x = in_float64(LOGISTIC)
    assert_inverts(apply, params, x, whole, kernels.squared_error_hessian)


def test_is_it_layer_by_layer_of_a_deep_network_and_one_example(x64):
    apply, params, x = in_float64(from_nnx(lambda rngs: Nnx(rngs), input_shape=SHAPE))
    layer = jnp.repeat(jnp.arange(2), jnp.array([60 * 4 + 4, 4 * 3]), total_repeat_length=256)
    assert_inverts(apply, params, x[:1], lambda size: layer[:, None] == layer[None])


def test_factors_of_flax_layers_are_those_of_their_definition(x64):
    """A convolution by its patches, a dense layer on rows, and a norm by its own block."""
    apply, params, x = in_float64(from_linen(Flax(), input_shape=SHAPE))
    weights = jnp.array([0.1, 0.2, 0.3, 0.4])
    factors = factors_of(apply, params, x, weights=weights, chunk=3)
    names = ["Conv_0", "Dense_0", "Dense_1"]
    assert [bool(pair[1] is not None) for pair in factors.layout.layers] == [False, True, True]
    assert len(factors.layout.others) == 2

    def run(params, x, additions):
        """The network written out, with its patches and its layers' outputs in sight."""
        patches = jax.lax.conv_general_dilated_patches(
            x, (2, 3), (2, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        patches = patches.reshape(len(x), -1, 2, 2, 3).transpose(0, 1, 3, 4, 2)
        patches = patches.reshape(len(x), -1, 12)
        y = patches @ params["Conv_0"]["kernel"].reshape(12, 3) + additions[0]
        rows = jnp.tanh(y)
        z = rows @ params["Dense_0"]["kernel"] + params["Dense_0"]["bias"] + additions[1]
        h = jnp.tanh(z).reshape(len(x), -1)
        norm = params["LayerNorm_0"]
        h = (h - h.mean(1, keepdims=True)) / jnp.sqrt(h.var(1, keepdims=True) + 1e-6)
        h = h * norm["scale"] + norm["bias"]
        last = params["Dense_1"]
        return h @ last["kernel"] + last["bias"] + additions[2], (patches, rows, h[:, None])

    zeros = [jnp.zeros((4, 18, 3)), jnp.zeros((4, 18, 4)), jnp.zeros((4, 3))]
    logits, seen = run(params, x, zeros)
    np.testing.assert_allclose(logits, apply(params, x), rtol=1e-6)
    slopes = jax.jacrev(lambda additions: jnp.sum(run(params, x, additions)[0], 0))(zeros)
    p = jax.nn.softmax(logits)
    hessian = jax.vmap(lambda q: jnp.diag(q) - jnp.outer(q, q))(p)
    for i, name in enumerate(names):
        a = (
            seen[i]
            if name == "Conv_0"
            else jnp.pad(seen[i], ((0, 0),) * 2 + ((0, 1),), constant_values=1)
        )
        g = slopes[i].reshape(3, 4, -1, slopes[i].shape[-1])
        want_a = jnp.einsum("n,nti,ntj->ij", weights, a, a)
        want_g = jnp.einsum("n,knto,nkl,lntp->op", weights, g, hessian, g) / g.shape[2]
        np.testing.assert_allclose(factors.inputs[i], want_a, rtol=1e-6)
        np.testing.assert_allclose(factors.outputs[i], want_g, rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("implementation", ["xla", "bilinear"])
def test_our_convolutions_have_the_factors_of_flax_s(x64, implementation):
    """Two implementations, and a network of flax's own layers with the same weights."""

    class Same(nn.Module):
        @nn.compact
        def __call__(self, x):
            for name, features in (("conv1", 16), ("conv2", 32)):
                x = nn.Conv(features, (5, 5), padding=2, name=name)(x)
                rows, columns = x.shape[1] // 2, x.shape[2] // 2
                x = x[:, : 2 * rows, : 2 * columns]
                x = nn.relu(x.reshape(len(x), rows, 2, columns, 2, features).mean((2, 4)))
            return nn.Dense(3, name="classifier")(x.reshape(len(x), -1))

    apply, params, x = in_float64(OURS[implementation])
    other = from_linen(Same(), input_shape=SHAPE)
    got = factors_of(apply, params, x)
    want = factors_of(lambda p, x: other.apply(Variables(p), x), params, x)
    assert got.layout == want.layout
    for one, two in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-6, atol=1e-10)


def test_shares_the_damping_out_by_pi(x64):
    apply, params, x = in_float64(LOGISTIC)
    factors = factors_of(apply, params, x)
    (a,), (g,) = factors.inputs, factors.outputs
    pi = jnp.sqrt((jnp.trace(a) / 61) / (jnp.trace(g) / 3))
    left = jnp.linalg.inv(a + pi * jnp.sqrt(0.2) * jnp.eye(61))
    right = jnp.linalg.inv(g + jnp.sqrt(0.2) / pi * jnp.eye(3))
    v = jax.tree.map(lambda w: jnp.cos(w) + jnp.arange(w.size).reshape(w.shape), params)
    got = kernels.kfac_inverse(factors, 0.2)(v)["classifier"]
    joint = jnp.concatenate([v["classifier"]["kernel"], v["classifier"]["bias"][None]])
    want = left @ joint @ right
    np.testing.assert_allclose(got["kernel"], want[:-1], rtol=1e-9)
    np.testing.assert_allclose(got["bias"], want[-1], rtol=1e-9)


def test_a_dead_layer_is_damped_alone(x64):
    apply, params, x = in_float64(LOGISTIC)
    factors = factors_of(lambda p, x: 0 * apply(p, x) + jnp.array([900.0, 0, 0]), params, x)
    v = jax.tree.map(jnp.ones_like, params)
    got = kernels.kfac_inverse(factors, 0.25)(v)
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(got))


def shared(params, x):
    x = x.reshape(len(x), -1)[:, :3]
    return jnp.tanh(x @ params["once"] @ params["twice"]) @ params["twice"]


def tensor(params, x):
    return jnp.einsum("nhwc,hwck->nk", x, params["cube"])


def test_layers_that_it_does_not_know_are_refused_by_name():
    def draw(*names, shape=(3, 3)):
        return lambda key: {name: jax.random.normal(key, shape) for name in names}

    cases = {
        "twice": from_functions(draw("once", "twice"), shared, input_shape=SHAPE),
        "cube": from_functions(draw("cube", shape=(*SHAPE, 3)), tensor, input_shape=SHAPE),
        "conv1/kernel, conv2/kernel": OURS["patches"],
        "layers_0": from_linen(
            nn.Sequential(
                [nn.Conv(2, (2, 2), feature_group_count=2), lambda x: x.mean((1, 2)), nn.Dense(3)]
            ),
            input_shape=SHAPE,
        ),
    }
    for name, model in cases.items():
        variables, x = model.init(KEY), jnp.ones((2, *SHAPE))

        def apply(params, x, model=model):
            return model.apply(Variables(params), x)

        with pytest.raises(ValueError, match="does not know what the network does with") as caught:
            kernels.kfac_factors(
                lambda p, x, m=model: m.apply(Variables(p), x), variables.params, x
            )
        assert name.split("/")[0] in str(caught.value)
        assert "once" not in str(caught.value).partition(":")[0]


def test_refuses_bad_arguments():
    model = models.create("logistic", input_shape=(3,), n_classes=2)
    variables, x = model.init(KEY), jnp.ones((4, 3))

    def apply(params, x):
        return model.apply(Variables(params), x)

    factors = kernels.kfac_factors(apply, variables.params, x)
    with pytest.raises(ValueError, match="damping must be > 0, got 0"):
        kernels.kfac_inverse(factors, 0.0)
    with pytest.raises(ValueError, match=r"weights must be \[n\], one for each of 4"):
        kernels.kfac_factors(apply, variables.params, x, weights=jnp.ones(3))
