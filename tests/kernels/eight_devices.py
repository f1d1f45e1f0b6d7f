"""Compares kernels on eight simulated devices with those on one: python eight_devices.py."""

import jax

jax.config.update("jax_num_cpu_devices", 8)

import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402
import pytest  # noqa: E402
from compilation_cache import keep_programs  # noqa: E402
from jax.flatten_util import ravel_pytree  # noqa: E402
from jax.sharding import Mesh, NamedSharding, PartitionSpec  # noqa: E402

from unlearnkit import kernels  # noqa: E402
from unlearnkit.base import Dataset  # noqa: E402
from unlearnkit.training import cross_entropy  # noqa: E402

N, CLASSES, SHAPE = 24, 3, (6, 6, 1)


def apply(params, x):
    """A convolution and a dense layer, whose kernels' gradients are made in different ways."""
    convolved = jax.lax.conv_general_dilated(
        x, params["filters"], (2, 2), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    return jnp.tanh(convolved).reshape(len(x), -1) @ params["kernel"] + params["bias"]


def loss(params, x, y):
    return cross_entropy(apply(params, x), y)


def main() -> None:
    keep_programs()
    assert jax.device_count() == 8
    mesh = Mesh(np.array(jax.devices()), ("rows",))
    x_key, *keys = jax.random.split(jax.random.key(0), 4)
    shapes = {"filters": (3, 3, 1, 2), "kernel": (8, CLASSES), "bias": (CLASSES,)}
    pairs = zip(shapes.items(), keys, strict=True)
    params = {name: jax.random.normal(key, shape) for (name, shape), key in pairs}
    x = jax.random.normal(x_key, (N, *SHAPE))
    dataset = Dataset(x, jnp.arange(N, dtype=jnp.int32) % CLASSES)
    per_example(params, dataset, mesh)
    tangent_kernel(params, x, mesh)
    curvature(params, dataset, mesh)
    refusals(params, dataset, mesh)
    print("same on eight devices")


def check_shared(array: jax.Array) -> None:
    """Every device holds its rows, and no others."""
    assert len(array.sharding.device_set) == 8, array.sharding
    assert {shard.data.shape[0] for shard in array.addressable_shards} == {len(array) // 8}


def close(shared: jax.Array, alone: jax.Array) -> None:
    check_shared(shared)
    np.testing.assert_allclose(shared, alone, rtol=0, atol=2e-6 * float(jnp.abs(alone).max()))


def per_example(params, dataset, mesh) -> None:
    bank = kernels.gradient_bank(loss, params, dataset)
    for chunk in (None, 2):
        shared = kernels.gradient_bank(loss, params, dataset, chunk=chunk, mesh=mesh)
        close(shared, bank)
    centre = ravel_pytree(jax.grad(loss)(params, dataset.x[:5], dataset.y[:5]))[0]
    operator = kernels.GradientOperator(loss, params, dataset)
    for about in (None, centre):
        alone = kernels.gram(bank, centre=about)
        for gradients in (bank, shared, operator):
            found = kernels.gram(gradients, centre=about, mesh=mesh)
            close(found, alone)
            np.testing.assert_array_equal(found, found.T)


def tangent_kernel(params, x, mesh) -> None:
    vector = jax.random.normal(jax.random.key(2), (N, CLASSES))
    alone = kernels.ntk_operator(apply, params, x, damping=0.3)(vector)
    for chunk in (None, 2):
        settings = {"damping": 0.3, "chunk": chunk, "mesh": mesh}
        close(kernels.ntk_operator(apply, params, x, **settings)(vector), alone)

        @jax.jit
        def solve(params, x, vector, settings=settings):
            product = kernels.ntk_operator(apply, params, x, **settings)
            return product(vector), kernels.cg(product, vector, damping=0.7, tol=1e-5, max_steps=99)

        product, (found, info) = solve(params, x, vector)
        close(product, alone)
        assert bool(info.converged)
        again = kernels.ntk_operator(apply, params, x, damping=1.0)(found)
        np.testing.assert_allclose(again, vector, atol=1e-3)


def curvature(params, dataset, mesh) -> None:
    """Cross kernels, Gauss-Newton and Hessian products, and what is made of them."""
    x, y = dataset.x, dataset.y
    v = jax.random.normal(jax.random.key(3), (N, CLASSES))
    alone = kernels.cross_ntk_operator(apply, params, x[:8], x)(v)
    for chunk in (None, 2):
        shared = kernels.cross_ntk_operator(apply, params, x[:8], x, chunk=chunk, mesh=mesh)
        close(shared(v), alone)
    rows = NamedSharding(mesh, PartitionSpec("rows"))
    shared_x, shared_y = jax.device_put((x, y), rows)

    def made(params, x, y, on):
        hessian = kernels.hvp_operator(lambda p: loss(p, x, y), params)
        squares = kernels.cross_entropy_hessian
        gauss_newton = kernels.ggn_operator(apply, params, x, squares, mesh=mesh if on else None)
        b = jax.tree.map(lambda leaf: jnp.stack([leaf, jnp.cos(leaf)]), params)
        settings = {"damping": 0.1, "tol": 1e-5, "max_steps": 30}
        return (
            hessian(params),
            gauss_newton(params),
            kernels.block_cg(gauss_newton, b, **settings)[0],
            kernels.lanczos_eigenpairs(
                jax.random.key(4), gauss_newton, params, k=2, steps=12
            ).values,
        )

    made = jax.jit(made, static_argnums=3)
    one, eight = made(params, x, y, False), made(params, shared_x, shared_y, True)
    for alone, shared in zip(jax.tree.leaves(one), jax.tree.leaves(eight), strict=True):
        np.testing.assert_allclose(shared, alone, rtol=1e-4, atol=1e-5)


def refusals(params, dataset, mesh) -> None:
    message = "23 rows cannot be shared out evenly over 8 devices; take 16 rows"
    odd = dataset.take(np.arange(23))
    with pytest.raises(ValueError, match=message):
        kernels.gradient_bank(loss, params, odd, mesh=mesh)
    with pytest.raises(ValueError, match=message):
        kernels.gram(kernels.GradientOperator(loss, params, odd), mesh=mesh)
    with pytest.raises(ValueError, match=message):
        kernels.ntk_operator(apply, params, odd.x, damping=0.1, mesh=mesh)
    with pytest.raises(ValueError, match=message):
        kernels.ggn_operator(apply, params, odd.x, kernels.cross_entropy_hessian, mesh=mesh)
    with pytest.raises(ValueError, match=message):
        kernels.cross_ntk_operator(apply, params, odd.x[:8], odd.x, mesh=mesh)
    two_axes = Mesh(np.array(jax.devices()).reshape(4, 2), ("rows", "columns"))
    with pytest.raises(ValueError, match="mesh must have one axis"):
        kernels.gradient_bank(loss, params, dataset, mesh=two_axes)


if __name__ == "__main__":
    main()
