"""Networks of flax whose convolutions are computed by patches: same numbers, said once."""

import warnings

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.flatten_util import ravel_pytree

from unlearnkit import kernels, models
from unlearnkit.models import swapping
from unlearnkit.models.layers import convolved_as

SHAPE = (9, 8, 2)
KEY = jax.random.key(0)


class Linen(nn.Module):
    """Every way to pad, to step and to call, and what stays XLA's."""

    @nn.compact
    def __call__(self, x):
        x = nn.tanh(nn.Conv(3, (3, 2), strides=(2, 1))(x))
        x = nn.tanh(nn.Conv(18, (2, 2), padding="CIRCULAR", use_bias=False)(x))
        x = nn.tanh(nn.Conv(4, (3, 3), padding=[(1, 0), (2, 1)])(x))
        x = nn.tanh(nn.Conv(4, (3, 3), kernel_dilation=2, feature_group_count=2)(x))
        x = nn.avg_pool(nn.Conv(2, (2, 2), strides=2, padding="VALID")(x), (2, 2))
        return nn.Dense(3)(x.reshape(len(x), -1))


class Nnx(nnx.Module):
    def __init__(self, rngs):
        self.first = nnx.Conv(2, 5, (3, 3), strides=2, rngs=rngs)
        self.groups = nnx.Conv(5, 5, (3, 3), feature_group_count=5, rngs=rngs)
        self.last = nnx.Linear(5, 3, rngs=rngs)

    def __call__(self, x):
        return self.last(jnp.tanh(self.groups(jnp.tanh(self.first(x)))).mean((1, 2)))


MAKE = {
    "linen": lambda how: models.from_linen(Linen(), input_shape=SHAPE, convolution=how),
    "nnx": lambda how: models.from_nnx(Nnx, input_shape=SHAPE, convolution=how),
}


@pytest.mark.parametrize("how", ["patches", "bilinear"])
@pytest.mark.parametrize("library", MAKE)
def test_same_weights_and_numbers(library, how):
    plain, swapped = MAKE[library]("xla"), MAKE[library](how)
    assert plain.layers == swapped.layers
    variables = plain.init(KEY)
    again = swapped.init(KEY)
    for one, other in zip(jax.tree.leaves(variables), jax.tree.leaves(again), strict=True):
        np.testing.assert_array_equal(one, other)
    x = jax.random.normal(jax.random.key(1), (3, *SHAPE))

    def both(model):
        def loss(params, x):
            held = variables._replace(params=params)
            trained, _ = model.apply_train(held, x, KEY)
            return jnp.mean((trained + model.apply(held, x)) ** 2)

        @jax.jit
        def numbers(params, x):
            logits = model.apply(variables._replace(params=params), x)
            return ravel_pytree((logits, jax.grad(loss)(params, x)))[0]

        return numbers(variables.params, x)

    want, got = both(plain), both(swapped)
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5 * float(jnp.abs(want).max()))


@pytest.mark.parametrize("library", MAKE)
def test_takes_the_place_of_what_it_can(library):
    """Layers with groups or dilation alone are left to XLA."""
    x = jnp.ones((2, *SHAPE))

    def convolutions(how):
        model = MAKE[library](how)
        variables = jax.eval_shape(model.init, KEY)
        program = jax.make_jaxpr(model.apply)(variables, x)
        return str(program).count("conv_general_dilated[")

    assert convolutions("xla") == {"linen": 5, "nnx": 2}[library]
    assert convolutions("patches") == 1


def test_k_fac_reads_the_layers_of_a_swapped_network():
    class Net(nn.Module):
        @nn.compact
        def __call__(self, x):
            return nn.Conv(3, (3, 3), padding="VALID", strides=9)(x).reshape(len(x), 3)

    made = [models.from_linen(Net(), input_shape=SHAPE, convolution=h) for h in ("xla", "patches")]
    variables = made[0].init(KEY)
    x = jax.random.normal(KEY, (4, *SHAPE))
    found = []
    for model in made:
        with convolved_as("xla"):
            apply = lambda p, x, m=model: m.apply(variables._replace(params=p), x)  # noqa: E731
            found.append(kernels.kfac_factors(apply, variables.params, x))
    for one, other in zip(jax.tree.leaves(found[0]), jax.tree.leaves(found[1]), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6)


@pytest.mark.parametrize("library", MAKE)
def test_says_so_once_on_a_cpu(library):
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("default")
        swapping._tell_of_patches.cache_clear()
        MAKE[library](None)
        MAKE[library](None)
        MAKE[library]("xla")
        MAKE[library]("patches")
        models.from_linen(nn.Dense(3), input_shape=(4,))
        models.create("lenet", input_shape=(28, 28, 1), n_classes=3)
    assert [str(w.message)[:37] for w in told] == ["this network convolves by XLA, whose "]
    assert "convolution='patches'" in str(told[0].message)


def test_adopted_networks():
    module = Linen()
    weights = module.init(KEY, jnp.ones((1, *SHAPE)))
    model, variables = models.adopt(module, weights, input_shape=SHAPE, convolution="patches")
    x = jax.random.normal(KEY, (2, *SHAPE))
    want = module.apply(weights, x)
    np.testing.assert_allclose(model.apply(variables, x), want, rtol=1e-5, atol=1e-5)
    module = Nnx(nnx.Rngs(0))
    model, variables = models.adopt(module, input_shape=SHAPE, convolution="patches")
    np.testing.assert_allclose(model.apply(variables, x), module(x), rtol=1e-5, atol=1e-5)
    assert module.first.conv_general_dilated is jax.lax.conv_general_dilated
    with pytest.raises(ValueError, match="convolution is for modules of flax, got a function"):
        models.adopt(lambda p, x: x, {}, input_shape=SHAPE, convolution="patches")


def test_refuses_an_unknown_convolution():
    with pytest.raises(ValueError, match="convolution must be one of xla, .*, got 'fft'"):
        models.from_linen(Linen(), input_shape=SHAPE, convolution="fft")
