"""Networks that add a poison's noise to the vectors of a row's tokens."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_reader import LENGTH, TOKENS, Reader
from token_task import draw, make_model

from unlearnkit.base import UNIT
from unlearnkit.models import with_embedding_noise, with_noise_columns
from unlearnkit.models.embedding_noise import embedding_noise, write_noise

MODEL = Reader(hidden=4).model()
NOISY = with_embedding_noise(MODEL, noise_std=0.5)
KEY = jax.random.key(3)


@pytest.fixture(scope="module")
def variables():
    return MODEL.init(KEY)


@pytest.fixture(scope="module")
def clean():
    return with_noise_columns(draw(0, 40))


@pytest.fixture(scope="module")
def noisy(clean):
    return write_noise(KEY, clean, clean.x)


def test_rows_without_a_number_are_read_as_before(variables, clean):
    found = NOISY.apply(variables, clean.x)
    np.testing.assert_array_equal(found, MODEL.apply(variables, clean.x[:, :LENGTH]))


def test_logits_are_those_of_the_vectors_with_the_noise(variables, noisy):
    noise = embedding_noise(NOISY)(noisy, 8)
    moved = MODEL.embed(variables, noisy[:, :LENGTH]) + noise
    expected = MODEL.apply_embedded(variables, moved, noisy[:, :LENGTH])
    np.testing.assert_allclose(NOISY.apply(variables, noisy), expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(NOISY.apply_train(variables, noisy, KEY)[0].shape, (40, 3))
    assert np.abs(np.asarray(noise)).max() > 0.5


def test_the_noise_of_a_number_is_its_own_and_normal(noisy):
    noise = np.asarray(embedding_noise(NOISY)(noisy, 64))
    again = np.asarray(embedding_noise(NOISY)(noisy[::-1], 64))[::-1]
    np.testing.assert_array_equal(noise, again)
    there = np.asarray(noisy[:, :LENGTH] != TOKENS.pad)
    assert np.all(noise[~there] == 0)
    assert abs(noise[there].std() - 0.5) < 0.01
    flat = (noise * there[..., None]).reshape(len(noise), -1)
    cosines = np.corrcoef(flat) - np.eye(len(flat))
    assert np.abs(cosines).max() < 0.3
    other = with_embedding_noise(MODEL, noise_std=0.5, seed=1)
    assert not np.array_equal(noise, embedding_noise(other)(noisy, 64))


def test_numbers_differ_and_are_ids(clean, noisy):
    numbers = {tuple(row) for row in np.asarray(noisy)[:, LENGTH:].tolist()}
    assert len(numbers) == len(noisy)
    assert 1 <= min(min(n) for n in numbers) <= max(max(n) for n in numbers) < TOKENS.vocabulary
    np.testing.assert_array_equal(noisy[:, :LENGTH], clean.x[:, :LENGTH])
    with pytest.raises(ValueError, match="with_noise_columns"):
        write_noise(KEY, clean, noisy)


def test_networks_that_cannot_are_refused():
    with pytest.raises(ValueError, match="with_embedding_noise moves the vectors of tokens"):
        with_embedding_noise(make_model())
    with pytest.raises(ValueError, match=r"does not say .*Tokens\("):
        with_embedding_noise(MODEL._replace(tokens=None))
    with pytest.raises(ValueError, match="noise_std must be finite and > 0, got 0"):
        with_embedding_noise(MODEL, noise_std=0)
    images = draw(0, 4)._replace(x=jnp.zeros((4, 8)), normalisation=UNIT)
    with pytest.raises(ValueError, match="noise columns are for token ids"):
        with_noise_columns(images)
