"""Runs neural-tangents 0.6.5 on the jax of today beside our kernels; `.ci/peers` calls it.

Not a part of the suite, since the package has an environment of its own.
"""

import jax
import jax.numpy as jnp
import numpy as np

from unlearnkit import kernels

KEY = jax.random.key(0)


def main() -> None:
    x = jax.random.normal(KEY, (6, 5))
    other = jax.random.normal(jax.random.key(1), (4, 5))
    y = jax.nn.one_hot(jnp.arange(6) % 3, 3)
    with kernels.neural_tangents() as nt:
        layers = (nt.stax.Dense(32), nt.stax.Relu(), nt.stax.Dense(3))
        init, apply, infinite = nt.stax.serial(*layers)
        _, params = init(jax.random.PRNGKey(0), x.shape)
        empirical(nt, apply, params, x, other)
        expansions(nt, apply, params, x)
        wide(nt, x)
        predictions(nt, apply, params, (x, other, y))
        assert infinite(x, None, ("nngp", "ntk")).ntk.shape == (6, 6)
    print("neural-tangents and ours agree")


def close(one, other, tolerance=1e-5):
    np.testing.assert_allclose(one, other, rtol=tolerance, atol=tolerance * np.abs(other).max())


def empirical(nt, apply, params, x, other):
    for name in ("JACOBIAN_CONTRACTION", "NTK_VECTOR_PRODUCTS"):
        way = nt.NtkImplementation[name]
        theirs = nt.empirical_ntk_fn(apply, trace_axes=(), vmap_axes=0, implementation=way)
        found = kernels.kernel_fn(apply, params, trace_axes=())(x, other, "ntk")
        close(found, theirs(x, other, params))
    both = kernels.kernel_fn(apply, params)(x, other)
    close(both.ntk, nt.empirical_ntk_fn(apply)(x, other, params))
    close(both.nngp, nt.empirical_nngp_fn(apply)(x, other, params))


def expansions(nt, apply, params, x):
    moved = jax.tree.map(lambda leaf: 1.1 * leaf, params)
    close(kernels.linearize(apply, params)(moved, x), nt.linearize(apply, params)(moved, x))
    theirs = nt.taylor_expand(apply, params, 2)(moved, x)
    close(kernels.taylor_expand(apply, params, 2)(moved, x), theirs)


def wide(nt, x):
    """Our Monte Carlo mean is their kernel of infinite width, within its standard errors."""
    init, apply, infinite = nt.stax.serial(
        nt.stax.Dense(256), nt.stax.Relu(), nt.stax.Dense(16)
    )  # fmt: skip
    found = kernels.estimate(
        KEY,
        lambda key: init(key, x.shape)[1],
        lambda params: kernels.kernel_fn(apply, params)(x, None, "ntk"),
        samples=60,
        at_once=10,
    )
    want = infinite(x, None, "ntk")
    assert np.all(np.abs(found.mean - want) < 5 * found.standard_error + 0.02 * np.max(want))


def predictions(nt, apply, params, data):
    x, other, y = data
    ours = kernels.kernel_fn(apply, params)
    predict = nt.predict.gradient_descent_mse_ensemble(ours, x, y)
    mean = predict(t=2.0, x_test=other, get="ntk")
    flow = kernels.squared_error_flow(ours(x, None, "ntk"), y)
    zeros = jnp.zeros
    here = flow.at_inputs(2.0 / 3, zeros((6, 3)), zeros((4, 3)), ours(other, x, "ntk"))
    close(here, mean, 1e-4)
    theta, cross = ours(x, None, "ntk"), ours(other, x, "ntk")
    start, elsewhere = apply(params, x), apply(params, other)
    theirs = nt.predict.gradient_descent_mse(theta, y)(5.0, start, elsewhere, cross)
    close(flow.at_examples(5.0 / 3, start), theirs[0], 1e-4)
    close(flow.at_inputs(5.0 / 3, start, elsewhere, cross), theirs[1], 1e-4)

    def loss(f):
        return jnp.mean(jnp.sum(jnp.cosh(f - y), axis=1))

    f, g = kernels.gradient_flow(
        theta, loss, start, jnp.array([1.0]), elsewhere=elsewhere, cross=cross, tol=1e-6
    )
    general = nt.predict.gradient_descent(
        lambda f, y: jnp.mean(jnp.sum(jnp.cosh(f - y), axis=1)), theta, y
    )
    theirs = general(1.0, start, elsewhere, cross)
    close(f[0], theirs[0], 1e-3)
    close(g[0], theirs[1], 1e-3)


if __name__ == "__main__":
    main()
