import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import log_softmax, softmax

from unlearnkit.kernels import (
    FEATURES,
    MEMBER_SIGNS,
    cross_entropy_losses,
    margins,
    membership_features,
)

SCALARS = [name for name in FEATURES if name in MEMBER_SIGNS]


def oracle(name, z, y):
    """Float64, an example at a time, from the definitions."""
    p, log_p = softmax(z), log_softmax(z)
    others = [c for c in range(len(z)) if c != y]
    return {
        "loss": -log_p[y],
        "confidence": p[y],
        "entropy": -np.sum(p * log_p),
        "modified_entropy": -(1 - p[y]) * log_p[y] - sum(p[c] * np.log1p(-p[c]) for c in others),
        "margin": z[y] - np.log(np.sum(np.exp(z[others]))),
    }[name]


@pytest.mark.parametrize("name", SCALARS)
@settings(max_examples=25)
@given(seed=st.integers(0, 10_000), scale=st.floats(0.1, 4))
def test_features_are_their_definitions(name, seed, scale):
    generator = np.random.default_rng(seed)
    z = scale * generator.normal(size=(7, 4))
    y = generator.integers(0, 4, 7)
    found = membership_features(name, jnp.asarray(z, jnp.float32), jnp.asarray(y, jnp.int32))
    expected = [oracle(name, row, label) for row, label in zip(z, y, strict=True)]
    assert found.shape == (7, 1)
    np.testing.assert_allclose(found[:, 0], expected, rtol=1e-3, atol=2e-5)


def test_probabilities_are_the_softmax():
    z = np.random.default_rng(0).normal(size=(5, 4))
    y = jnp.zeros(5, jnp.int32)
    found = membership_features("probabilities", jnp.asarray(z, jnp.float32), y)
    np.testing.assert_allclose(found, softmax(z, axis=1), rtol=1e-5)


def test_logits_and_loss_stand_side_by_side():
    z = jax.random.normal(jax.random.key(0), (5, 4))
    y = jnp.arange(5) % 4
    found = membership_features("logits_loss", z, y)
    np.testing.assert_array_equal(found[:, :4], z)
    np.testing.assert_array_equal(found[:, 4], cross_entropy_losses(z, y))


@pytest.mark.parametrize("name", list(FEATURES))
def test_features_and_their_slopes_are_finite_where_the_network_is_certain(name):
    z = jnp.array([[200.0, 0.0, -200.0], [-200.0, 200.0, 0.0]])
    y = jnp.array([0, 0], dtype=jnp.int32)
    features, pull = jax.vjp(lambda z: membership_features(name, z, y), z)
    (slopes,) = pull(jnp.ones_like(features))
    assert bool(jnp.all(jnp.isfinite(features)))
    assert bool(jnp.all(jnp.isfinite(slopes)))


def test_losses_below_float32_rounding_are_told_apart():
    z = jnp.array([[20.0, 0.0, 0.0], [30.0, 0.0, 0.0]])
    y = jnp.array([0, 0], dtype=jnp.int32)
    np.testing.assert_allclose(
        cross_entropy_losses(z, y), np.log1p(2 * np.exp([-20.0, -30.0])), rtol=1e-5
    )


def test_margin_is_the_logit_of_the_confidence():
    z = jax.random.normal(jax.random.key(0), (50, 6))
    y = jax.random.randint(jax.random.key(1), (50,), 0, 6)
    p = jnp.exp(-cross_entropy_losses(z, y))
    np.testing.assert_allclose(margins(z, y), jnp.log(p / (1 - p)), rtol=1e-3, atol=1e-4)


def test_unknown_features_are_refused(unchecked_types):
    with pytest.raises(ValueError, match="unknown feature 'los'; known: loss, confidence"):
        membership_features("los", jnp.zeros((1, 2)), jnp.zeros(1, jnp.int32))
