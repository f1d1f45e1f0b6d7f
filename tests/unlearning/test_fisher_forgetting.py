"""Fisher noise against a plain computation of its variance, and against its own statistics."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from unlearnkit.base import Variables
from unlearnkit.models import from_functions
from unlearnkit.unlearning import FisherForgetting
from unlearnkit.unlearning.fisher_forgetting import (
    fisher_noise_variance,
    forgotten_classes,
)

KEY = jax.random.key(3)


@pytest.mark.parametrize("chunk", [1, 4, 100])
def test_the_variance_is_the_published_one(make_model, make_task, chunk, x64):
    model, start = make_model("batch_norm", (2, 2, 2))
    x = make_task(6, 2, (2, 2, 2)).retain.x
    flat, unravel = ravel_pytree(start.params)

    def logs(w):
        return jax.nn.log_softmax(model.apply(start._replace(params=unravel(w)), x))

    rows, p = jax.jacobian(logs)(flat), jnp.exp(logs(flat))
    fisher = unravel(jnp.einsum("ic,icp->p", p, rows**2) / len(x))
    got = fisher_noise_variance(model, start, x, alpha=1e-3, chunk=chunk)

    def check(layer, name, cap, factor, axis=None):
        wanted = np.minimum(1 / (np.asarray(fisher[layer][name]) + 1e-8), cap)
        if axis is not None:
            wanted = wanted.mean(axis=axis, keepdims=True) + np.zeros(wanted.shape)
        np.testing.assert_allclose(got[layer][name], 1e-3 * factor * wanted, rtol=1e-6)

    # A kernel of ours is [..., in, out]: the average runs over what goes in.
    check("conv", "kernel", 1e3, 1, axis=2)
    check("conv", "bias", 1e3, 10)
    check("norm", "scale", 1e3, 10)
    check("classifier", "kernel", 1e2, 10, axis=0)
    check("classifier", "bias", 1e2, 10)


def test_the_noise_has_that_variance_and_no_mean(make_model, make_task):
    model, start = make_model("mlp", hidden=(40,))
    task = make_task(20, 5)
    variance = ravel_pytree(fisher_noise_variance(model, start, task.retain.x, alpha=1e-4))[0]
    before = ravel_pytree(start.params)[0]
    draws = []
    for seed in range(10):
        noisy = FisherForgetting(1e-4)(jax.random.key(seed), model, start, task).variables
        draws.append((ravel_pytree(noisy.params)[0] - before) / jnp.sqrt(variance))
    draws = np.stack(draws)
    assert abs(draws.mean()) < 4 / np.sqrt(draws.size)
    assert abs(draws.std() - 1) < 4 / np.sqrt(2 * draws.size)
    correlations = np.corrcoef(draws)[np.triu_indices(10, 1)]
    assert np.abs(correlations).max() < 5 / np.sqrt(len(before))


def test_the_forget_set_is_not_read(make_model, make_task):
    model, start = make_model("mlp", hidden=(4,))
    task = make_task()
    other = task._replace(forget=task.forget._replace(x=task.forget.x + 1))
    one, two = (FisherForgetting()(KEY, model, start, t).variables for t in (task, other))
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(two), strict=True):
        assert np.array_equal(a, b)


def test_no_scale_no_noise(make_model, make_task):
    model, start = make_model()
    unlearned = FisherForgetting(alpha=0.0)(KEY, model, start, make_task()).variables
    assert jax.tree.all(jax.tree.map(np.array_equal, unlearned.params, start.params))


@pytest.mark.parametrize("network", ["mlp", "batch_norm"])
def test_a_class_that_is_forgotten_as_a_whole_is_drawn_anew(make_model, make_task, network):
    """Its weights in the last layer have mean 0 and variance 1e-3, whatever they were and α is."""
    shape = (2, 2, 2) if network == "batch_norm" else (2, 2, 1)
    model, start = make_model(network, shape, **({"hidden": (40,)} if network == "mlp" else {}))
    start = start._replace(params=jax.tree.map(lambda w: w + 5, start.params))
    task = make_task(20, 5, shape)
    kept = np.flatnonzero(np.asarray(task.retain.y) != 1)
    task = task._replace(
        retain=task.retain.take(kept), forget=task.forget._replace(y=jnp.ones(5, jnp.int32))
    )
    draws = []
    for seed in range(30):
        unlearned = FisherForgetting(1e-9)(jax.random.key(seed), model, start, task)
        draws.append(unlearned.variables.params["classifier"])
    assert float(unlearned.info.history["forgotten_classes"][0]) == 1
    for name in ("kernel", "bias"):
        values = np.stack([np.asarray(draw[name]) for draw in draws])
        anew, others = values[..., 1], np.delete(values, 1, axis=-1)
        assert abs(anew.mean()) < 4 * np.sqrt(1e-3 / anew.size)
        assert np.std(anew) == pytest.approx(np.sqrt(1e-3), rel=4 / np.sqrt(2 * anew.size))
        left = np.delete(np.asarray(start.params["classifier"][name]), 1, axis=-1)
        np.testing.assert_allclose(others, np.broadcast_to(left, others.shape), atol=0.02)
    alike = FisherForgetting(1e-9, class_branch=False)(KEY, model, start, task)
    assert float(alike.info.history["forgotten_classes"][0]) == 0
    for a, b in zip(
        jax.tree.leaves(alike.variables.params), jax.tree.leaves(start.params), strict=True
    ):
        np.testing.assert_allclose(a, b, atol=0.02)


def test_a_class_of_which_examples_stay_is_no_forgotten_class(make_task):
    task = make_task(20, 5)
    assert forgotten_classes(task) == ()
    two = task._replace(retain=task.retain.take(np.flatnonzero(np.asarray(task.retain.y) == 0)))
    forget = task.forget._replace(y=jnp.array([0, 1, 1, 2, 0]))
    assert forgotten_classes(two._replace(forget=forget)) == (1, 2)


def test_weights_in_a_list_have_a_last_layer_too():
    """A pytree without names is one layer, and so the last."""
    init = lambda key: [jnp.ones((4, 3)), jnp.zeros(3)]  # noqa: E731
    model = from_functions(init, lambda p, x: x @ p[0] + p[1], input_shape=(4,))
    variance = fisher_noise_variance(model, Variables(init(None)), jnp.zeros((5, 4)), alpha=1.0)
    np.testing.assert_allclose(variance[0], 1e3)


@pytest.mark.parametrize("alpha", [-1e-9, float("nan")])
def test_negative_noise_is_refused(alpha):
    with pytest.raises(ValueError, match="alpha must be >= 0, the scale of a variance"):
        FisherForgetting(alpha=alpha)
    with pytest.raises(ValueError, match="chunk must be >= 1"):
        FisherForgetting(chunk=0)
