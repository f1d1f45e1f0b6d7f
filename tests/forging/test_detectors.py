import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from unlearnkit.base import Dataset, Normalisation, SoftDataset
from unlearnkit.forging import detectors

NORMALISATION = Normalisation("test", (0.5,), (0.25,))


@pytest.fixture(scope="module")
def images():
    levels = jax.random.randint(jax.random.key(0), (6, 8, 8, 1), 0, 256)
    y = jnp.arange(6, dtype=jnp.int32) % 3
    return Dataset(NORMALISATION.apply(levels / 255), y, NORMALISATION)


def test_images_and_classes_are_within_the_domain(images):
    assert not detectors.domain_violations(images).flagged.any()
    soft = SoftDataset(images.x, jax.nn.one_hot(images.y, 3), NORMALISATION)
    assert not detectors.domain_violations(soft).flagged.any()


def test_each_violation_is_told(images):
    pixels = np.array(NORMALISATION.invert(images.x))
    pixels[0, 0, 0] = 1 + 2 / 255
    pixels[1, 2, 3] = 100.5 / 255
    labels = np.array(jax.nn.one_hot(images.y, 3))
    labels[2], labels[3] = [0.5, 0.5, 0], [1, 1, 0]
    batch = SoftDataset(NORMALISATION.apply(jnp.array(pixels)), jnp.array(labels), NORMALISATION)
    found = detectors.domain_violations(batch)
    assert found.out_of_range.tolist() == [1 / 64, 0, 0, 0, 0, 0]
    assert found.off_grid.tolist() == [0, 1 / 64, 0, 0, 0, 0]
    assert found.not_one_hot.tolist() == [False, False, True, True, False, False]
    assert found.flagged.tolist() == [True, True, True, True, False, False]


@given(st.floats(-50, 50).filter(lambda c: abs(c) > 1e-2))
def test_multiples_are_found_and_nothing_else(images, factor):
    batch = images._replace(x=images.x.at[2].multiply(factor))
    found = detectors.scalar_multiples(batch, images)
    assert np.array_equal(found, np.eye(6, dtype=bool))
    nearly = batch._replace(x=batch.x.at[2, 0, 0].add(0.3 * factor))
    assert not detectors.scalar_multiples(nearly, images)[2].any()


def test_nothing_hides_as_zero(images):
    batch = images._replace(x=images.x.at[1].set(0))
    assert detectors.scalar_multiples(batch, images)[1].all()


def test_near_duplicates_are_within_the_distance(images):
    noise = jax.random.normal(jax.random.key(1), images.x.shape)
    noise = noise / jnp.sqrt(jnp.mean(noise**2, axis=(1, 2, 3), keepdims=True))
    for size, near in ((0.019, True), (0.021, False)):
        batch = images._replace(x=images.x + size * noise * 0.25**-1)
        found = detectors.near_duplicates(batch, images)
        assert np.array_equal(found, near * np.eye(6, dtype=bool))


def test_superpositions_have_nothing_left(images):
    accused = images.take(jnp.arange(4))
    mixed = jnp.tensordot(jax.random.normal(jax.random.key(2), (3, 4)), accused.x, 1)
    left = detectors.superposition(Dataset(mixed, accused.y[:3], NORMALISATION), accused)
    assert left.max() < 1e-5
    others = detectors.superposition(images.take(jnp.array([4, 5])), accused)
    assert others.min() > 0.1
    orthogonal = np.linalg.svd(np.asarray(accused.x).reshape(4, -1))[2][-1]
    odd = Dataset(jnp.array(orthogonal).reshape(1, 8, 8, 1), accused.y[:1], NORMALISATION)
    np.testing.assert_allclose(detectors.superposition(odd, accused), 1, rtol=1e-5)
