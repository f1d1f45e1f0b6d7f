"""The mode of BatchNorm in each first-order method, and what becomes of its statistics."""

import jax
import jax.numpy as jnp
import normed
import numpy as np
import pytest

from unlearnkit.training import cross_entropy
from unlearnkit.unlearning import (
    BoundaryExpand,
    BoundaryShrink,
    CatastrophicLastLayers,
    ExactLastLayers,
    L1Sparse,
    NegGradPlus,
    RandomLabel,
    SalUn,
    Scrub,
)
from unlearnkit.unlearning.boundary_shrink import nearest_wrong_classes
from unlearnkit.unlearning.salun import saliency_mask
from unlearnkit.validation import named_leaves

KEY = jax.random.key(0)
TRAINING_MODE = [
    RandomLabel(epochs=1, batch_size=8),
    SalUn(epochs=1, batch_size=8),
    L1Sparse(epochs=1, batch_size=8),
    BoundaryShrink(epochs=1, batch_size=8),
    BoundaryExpand(epochs=1, batch_size=8),
    Scrub(epochs=1, batch_size=8),
]
LAST = [
    CatastrophicLastLayers(epochs=1, batch_size=32, learning_rate=0.1, weight_decay=0.0, k=2),
    ExactLastLayers(epochs=1, batch_size=32, learning_rate=0.1, weight_decay=0.0, k=2),
]


def moved(one, other):
    """The names of the leaves that differ."""
    other = named_leaves(other)
    return {k for k, leaf in named_leaves(one).items() if not np.array_equal(leaf, other[k])}


@pytest.mark.parametrize("method", TRAINING_MODE, ids=lambda m: type(m).__name__)
def test_training_mode_moves_all_statistics(method):
    start = normed.trained()
    unlearned = method(KEY, normed.LINEN, start, normed.TASK)
    assert moved(unlearned.variables.state, start.state) == set(named_leaves(start.state))


def test_neg_grad_plus_normalises_by_the_running_statistics_and_keeps_them():
    start = normed.trained()
    method = NegGradPlus(
        epochs=1, batch_size=32, beta=0.7, learning_rate=0.1, momentum=0.0, weight_decay=0.0
    )
    unlearned = method(KEY, normed.LINEN, start, normed.TASK)
    assert moved(unlearned.variables.state, start.state) == set()

    def loss(params):
        variables = start._replace(params=params)
        retain, forget = (
            cross_entropy(normed.LINEN.apply(variables, part.x), part.y)
            for part in (normed.TASK.retain, normed.TASK.forget)
        )
        return 0.7 * retain - 0.3 * forget

    expected = jax.tree.map(lambda w, g: w - 0.1 * g, start.params, jax.grad(loss)(start.params))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6),
        unlearned.variables.params,
        expected,
    )


@pytest.mark.parametrize("method", LAST, ids=lambda m: type(m).__name__)
def test_last_layers_normalise_by_the_batch_and_only_their_own_statistics_move(method):
    start = normed.trained()
    reset = start
    if isinstance(method, ExactLastLayers):
        reset = ExactLastLayers(epochs=0, batch_size=32, k=2)(
            KEY, normed.LINEN, start, normed.TASK
        ).variables
    unlearned = method(KEY, normed.LINEN, start, normed.TASK).variables
    retain = normed.TASK.retain

    def loss(params):
        logits, state = normed.LINEN.apply_train(reset._replace(params=params), retain.x, KEY)
        return cross_entropy(logits, retain.y), state

    gradient, state = jax.grad(loss, has_aux=True)(reset.params)
    statistics = unlearned.state["batch_stats"]
    for layer in ("second", "second_norm", "classifier"):
        for name, w in reset.params[layer].items():
            expected = w - 0.1 * gradient[layer][name]
            actual = unlearned.params[layer][name]
            np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-6)
    for name in ("mean", "var"):
        np.testing.assert_allclose(
            statistics["second_norm"][name],
            state["batch_stats"]["second_norm"][name],
            rtol=1e-5,
            atol=1e-6,
        )
        np.testing.assert_array_equal(
            statistics["first_norm"][name], start.state["batch_stats"]["first_norm"][name]
        )
    assert not moved(
        {name: unlearned.params[name] for name in ("first", "first_norm")},
        {name: start.params[name] for name in ("first", "first_norm")},
    )


def test_evaluation_mode_chooses_the_mask_and_the_nearest_classes():
    # In training mode, a batch of one would be normalised to nothing; chunks of one would then
    # give other results than one chunk of all.
    start, forget = normed.trained(), normed.TASK.forget
    masks = [
        saliency_mask(normed.LINEN, start, forget, fraction=0.5, chunk=chunk) for chunk in (1, 12)
    ]
    assert moved(*masks) == set()
    labels = [
        nearest_wrong_classes(normed.LINEN, start, forget, step=0.1, box=(0.0, 1.0), chunk=chunk)
        for chunk in (1, 5, 12)
    ]
    assert jnp.all(labels[0] == labels[1])
    assert jnp.all(labels[0] == labels[2])
