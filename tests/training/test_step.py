"""What a step sees, and that no two steps see the same draws."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from unlearnkit.base import Dataset, Normalisation, Variables
from unlearnkit.models import from_functions
from unlearnkit.training import (
    CrossEntropy,
    Recipe,
    descend,
    fit,
    fit_many,
    init_train_state,
    train_step,
)
from unlearnkit.training.step import augment

KEY = jax.random.key(5)
SHAPE = (6, 5, 3)
COLOUR = Normalisation("colour", (0.4, 0.5, 0.6), (0.2, 0.3, 0.25))
SHIFTED = Recipe(augmentation="shift", shift=2, batch_size=8)
MIRRORED = Recipe(augmentation="shift_flip", shift=0, batch_size=8)


class Spied:
    """A linear network that remembers what its training calls saw, where they are not compiled."""

    def __init__(self):
        self.inputs, self.keys = [], []
        n = int(np.prod(SHAPE))

        def apply_train(variables, x, key):
            if not isinstance(x, jax.core.Tracer):
                self.inputs.append(np.asarray(x))
                self.keys.append(key)
            return x.reshape(len(x), -1) @ variables.params["w"], {}

        self.model = from_functions(
            lambda key: {"w": jnp.zeros((n, 3))},
            lambda params, x: x.reshape(len(x), -1) @ params["w"],
            input_shape=SHAPE,
        )._replace(apply_train=apply_train)

    def take_steps(self, recipe, dataset, count):
        """Takes steps on one batch, not compiled, so that the network sees values."""
        state = init_train_state(recipe, 10, self.model.init(KEY))
        objective = CrossEntropy(self.model, recipe)
        for _ in range(count):
            state, _ = train_step(objective, recipe, 10, state, dataset, KEY)
        return state


@pytest.fixture
def spied():
    return Spied()


@pytest.fixture(scope="module")
def dataset():
    pixels = jax.random.uniform(jax.random.key(0), (8, *SHAPE))
    return Dataset(COLOUR.apply(pixels), jnp.arange(8, dtype=jnp.int32) % 3, COLOUR)


def shifts(image, canvas, by):
    """Returns the offsets at which `image` is the window of the padded `canvas`."""
    h, w, _ = image.shape
    return [
        (r, c)
        for r in range(2 * by + 1)
        for c in range(2 * by + 1)
        if np.allclose(canvas[r : r + h, c : c + w], image, atol=1e-6)
    ]


def test_a_network_trains_on_shifted_images_with_black_edges(spied, dataset):
    spied.take_steps(SHIFTED, dataset, 2)
    black = COLOUR.apply(jnp.zeros(3))
    canvas = np.broadcast_to(black, (8, 10, 9, 3)).copy()
    canvas[:, 2:8, 2:7] = dataset.x
    first, second = (
        [shifts(image, padded, 2) for image, padded in zip(seen, canvas, strict=True)]
        for seen in spied.inputs
    )
    assert all(len(found) == 1 for found in first + second)
    assert len({found[0] for found in first}) > 1  # every example by its own
    assert first != second  # and anew in every step


@pytest.mark.parametrize("name", ["shift", "shift_flip"])
def test_black_stays_black_under_any_normalisation(spied, name):
    for normalisation in (COLOUR, Normalisation("grey", (0.3,), (0.5,)), Normalisation()):
        black = Dataset(
            normalisation.apply(jnp.zeros((8, *SHAPE))), jnp.zeros(8, jnp.int32), normalisation
        )
        spied.take_steps(Recipe(augmentation=name, shift=2, batch_size=8), black, 1)
        np.testing.assert_allclose(normalisation.invert(spied.inputs[-1]), 0, atol=1e-6)


def test_a_network_trains_on_mirrored_images(spied, dataset):
    spied.take_steps(MIRRORED, dataset, 1)
    mirrored = [
        np.array_equal(seen, image[:, ::-1])
        for seen, image in zip(spied.inputs[0], np.asarray(dataset.x), strict=True)
    ]
    kept = [
        np.array_equal(seen, image)
        for seen, image in zip(spied.inputs[0], np.asarray(dataset.x), strict=True)
    ]
    assert all(a != b for a, b in zip(mirrored, kept, strict=True))
    assert any(mirrored)
    assert any(kept)


def test_a_network_trains_on_the_images_themselves_without_augmentation(spied, dataset):
    spied.take_steps(Recipe(batch_size=8), dataset, 1)
    np.testing.assert_array_equal(spied.inputs[0], dataset.x)


def test_augmentation_reaches_a_compiled_run(spied, dataset):
    """Four steps on all eight images, single or many at once, end elsewhere than without."""
    plain = Recipe(epochs=4, batch_size=8)
    shifted = Recipe(epochs=4, batch_size=8, augmentation="shift", shift=2)
    one, other = (fit(KEY, spied.model, dataset, r).variables.params["w"] for r in (plain, shifted))
    assert np.max(np.abs(one - other)) > 1e-3
    many = fit_many(KEY[None], spied.model, dataset, shifted).variables.params["w"]
    np.testing.assert_allclose(many[0], other, rtol=1e-4, atol=1e-6)


def test_the_network_s_key_is_new_in_every_step_and_not_the_augmentation_s(spied, dataset):
    spied.take_steps(SHIFTED, dataset, 3)
    assert len({jax.random.key_data(key).tobytes() for key in spied.keys}) == 3
    for key, seen in zip(spied.keys, spied.inputs, strict=True):
        assert not np.array_equal(augment(key, dataset, SHIFTED), seen)


class Masked:
    """Σ m w with m ~ Bernoulli(1/2) drawn anew from each step's key, as dropout draws its masks."""

    def __call__(self, params, state, batch, key, context=None):
        loss = jnp.sum(jax.random.bernoulli(key, shape=params["w"].shape) * params["w"])
        return loss, (state, {"loss": loss, "accuracy": jnp.float32(0)})


def test_the_draws_of_all_steps_of_a_run_are_independent(dataset):
    """Of four steps in two epochs, a weight moves in a number that is Binomial(4, 1/2)."""
    recipe = Recipe(epochs=2, batch_size=4, learning_rate=1.0, momentum=0.0)
    start = Variables({"w": jnp.zeros(4000)})
    ended = descend(KEY, Masked(), recipe, dataset, start).variables.params["w"]
    found = np.bincount(np.round(-ended).astype(int), minlength=5)
    assert stats.chisquare(found, 4000 * stats.binom.pmf(range(5), 4, 0.5)).pvalue > 1e-4


class Flat:
    """A loss without slope."""

    def __call__(self, params, state, batch, key, context=None):
        loss = 0.0 * jnp.sum(params["w"]) + 0.0 * jnp.sum(params["v"])
        return loss, (state, {"loss": loss, "accuracy": jnp.float32(0)})


def test_the_gradient_noise_of_all_steps_and_weights_is_independent(dataset):
    """Four steps of noise 0.5 spread as one of 1: σ √steps, and no two tensors move alike."""
    recipe = Recipe(epochs=2, batch_size=4, learning_rate=1.0, momentum=0.0, gradient_noise=0.5)
    start = Variables({"w": jnp.zeros(4000), "v": jnp.zeros(4000)})
    ended = descend(KEY, Flat(), recipe, dataset, start).variables.params
    for leaf in ended.values():
        np.testing.assert_allclose(np.std(leaf), 1.0, atol=4 / np.sqrt(2 * 4000))
    assert abs(np.corrcoef(ended["w"], ended["v"])[0, 1]) < 4 / np.sqrt(4000)
