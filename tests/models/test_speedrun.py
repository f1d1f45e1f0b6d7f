import jax
import numpy as np
import pytest

from unlearnkit.models import create
from unlearnkit.models.speedrun import Speedrun, whitening_filters


def markov_images(n, colours):
    """Draws 4x4 patches of the separable Markov model that the filters whiten."""
    places = np.arange(4)
    correlation = 0.95 ** np.abs(places[:, None] - places)
    root = np.linalg.cholesky(correlation)
    noise = np.random.default_rng(0).standard_normal((n, 4, 4, len(colours)))
    return np.einsum("ik,jl,nklm->nijm", root, root, noise * np.sqrt(colours))


def test_filters_whiten_the_model_of_images():
    axes = np.array([[1, 1, 1], [1, 0, -1], [1, -2, 1]]) / np.sqrt([[3], [2], [6]])
    patches = markov_images(20_000, [2.8, 0.17, 0.03]) @ axes
    filters = whitening_filters(3, 48)
    out = np.einsum("nijc,ijcf->nf", patches, filters)
    np.testing.assert_array_equal(filters[..., :24], -filters[..., 24:])
    covariance = np.cov(out[:, :24].T)
    # A pattern of variance v comes out with v / (v + .01): from .99 down to the noise's.
    scale = np.diag(covariance)
    assert scale[0] == pytest.approx(1, abs=0.05)
    assert np.all(scale < 1.05)
    correlation = covariance / np.sqrt(np.outer(scale, scale))
    assert np.abs(correlation - np.eye(24)).max() < 0.2  # cosines are not quite its eigenvectors


def test_filters_know_no_data_and_no_key():
    one, two = (
        create("speedrun", input_shape=(32, 32, 3), n_classes=10, implementation=how)
        for how in ("xla", "bilinear")
    )
    assert not any(
        leaf.shape[:2] == (4, 4)
        for leaf in jax.tree.leaves(jax.eval_shape(one.init, jax.random.key(0)))
    )
    x = jax.random.normal(jax.random.key(1), (2, 32, 32, 3))
    variables = one.init(jax.random.key(0))
    np.testing.assert_allclose(one.apply(variables, x), two.apply(variables, x), atol=1e-4)


def test_any_number_of_channels_has_its_filters():
    assert whitening_filters(1, 48).shape == (4, 4, 1, 32)
    assert np.isfinite(whitening_filters(5, 48)).all()
    assert whitening_filters(3, 48).dtype == np.float32


@pytest.mark.parametrize("widths", [(), (0,), (64, -1)])
def test_widths_are_checked(widths):
    with pytest.raises(ValueError, match="widths must be >= 1 each, and one at least"):
        create("speedrun", input_shape=(32, 32, 3), n_classes=10, widths=widths)


def test_logits_are_the_head_over_nine():
    network = Speedrun(3, (4,), None)
    x = jax.random.normal(jax.random.key(1), (2, 16, 16, 1))
    logits, told = network.apply(
        network.init(jax.random.key(0), x), x, capture_intermediates=True, mutable=["intermediates"]
    )
    (head,) = told["intermediates"]["classifier"]["__call__"]
    assert head.shape == (2, 3)
    np.testing.assert_allclose(9 * logits, head, rtol=1e-5)
