import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from unlearnkit.models import convolution
from unlearnkit.models.convolution import convolve

# (rows, columns, height, width, stride, padding): strides that leave pixels out, a padding larger
# than the kernel reaches, kernels that are not square.
WINDOWS = [(8, 7, 3, 3, 1, 1), (5, 9, 4, 2, 2, 1), (7, 8, 1, 1, 2, 0), (6, 6, 2, 3, 3, 3)]
close = functools.partial(np.testing.assert_allclose, rtol=1e-10, atol=1e-10)


@pytest.fixture(autouse=True)
def x64():
    with jax.enable_x64(True):
        yield


def energy(convolution, x, kernel):
    return jnp.sum(jnp.sin(convolution(x, kernel)))


def pair(stride, padding):
    def reference(x, kernel):
        return jax.lax.conv_general_dilated(
            x,
            kernel,
            (stride,) * 2,
            [(padding,) * 2] * 2,
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )

    return functools.partial(convolve, stride=stride, padding=padding), reference


def arrays(rows, columns, height, width, *batch):
    x = jax.random.normal(jax.random.key(0), (*batch, 5, rows, columns, 3))
    return x, jax.random.normal(jax.random.key(1), (*batch, height, width, 3, 4))


def derivatives(convolution, x, kernel):
    gradient = jax.grad(functools.partial(energy, convolution), (0, 1))
    tangents = jnp.cos(x), jnp.cos(kernel)
    return convolution(x, kernel), gradient(x, kernel), jax.jvp(gradient, (x, kernel), tangents)[1]


@pytest.mark.parametrize("few", [1, 2**17])
@pytest.mark.parametrize("window", WINDOWS, ids=str)
def test_values_and_derivatives_are_those_of_xla(window, few, monkeypatch):
    monkeypatch.setattr(convolution, "_CACHED_VALUES", few)
    *sides, stride, padding = window
    ours, reference = (
        jax.jit(functools.partial(derivatives, f))(*arrays(*sides)) for f in pair(stride, padding)
    )
    jax.tree.map(close, ours, reference)


def test_images_left_over_by_the_chunks_count(monkeypatch):
    # 5 images, two at a time: 10 rows x 8 columns x 3 shifts x 3 channels = 720 values each.
    monkeypatch.setattr(convolution, "_CACHED_VALUES", 2 * 720)
    x, kernel = arrays(8, 8, 3, 3)
    ours, reference = (jax.grad(functools.partial(energy, f), 1)(x, kernel) for f in pair(1, 1))
    close(ours, reference)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("axes", [(0, None), (None, 0), (0, 0)], ids=str)
def test_batches_of_either_argument_are_mapped(axes, stride):
    x, kernel = arrays(6, 5, 3, 3, 2)
    x, kernel = (a if axis == 0 else a[0] for a, axis in zip((x, kernel), axes, strict=True))
    ours, reference = (
        jax.jit(jax.vmap(functools.partial(derivatives, f), axes))(x, kernel)
        for f in pair(stride, 1)
    )
    jax.tree.map(close, ours, reference)


def test_a_hessian_is_forward_over_reverse_over_a_batch_of_directions():
    x, kernel = arrays(5, 5, 2, 2)
    ours, reference = (jax.hessian(functools.partial(energy, f), 1)(x, kernel) for f in pair(1, 0))
    close(ours, reference)


def test_the_derivative_by_the_kernel_holds_few_shifted_images():
    # All shifts of all images at once are three times the input; what is held is less than it.
    x, y = (jax.ShapeDtypeStruct((256, 16, 16, 16), jnp.float32) for _ in range(2))
    window = convolution._Window(1, 1, (3, 3), (16, 16))
    compiled = jax.jit(functools.partial(convolution._correlate, window=window)).lower(x, y)
    held = compiled.compile().memory_analysis().temp_size_in_bytes
    assert held < x.size * 4
