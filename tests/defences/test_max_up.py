"""MaxUp's gradient is that of the mean of each example's largest loss."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from unlearnkit import models
from unlearnkit.base import Dataset, Normalisation
from unlearnkit.defences import MaxUp
from unlearnkit.defences.max_up import WorstCopy
from unlearnkit.models import from_linen
from unlearnkit.training import CrossEntropy, Recipe, fit
from unlearnkit.validation import named_leaves

KEY = jax.random.key(3)
PIXELS = Normalisation("pixels", (0.5,), (0.25,))


class Dropping(nn.Module):
    @nn.compact
    def __call__(self, x, train=False):
        x = nn.Dense(16)(x.reshape(len(x), -1))
        return nn.Dense(3)(nn.Dropout(0.5, deterministic=not train)(x))


class Squaring(nn.Module):
    """An example with any noise is surer to be of class 0 than one of zeros."""

    @nn.compact
    def __call__(self, x, train=False):
        scale = self.param("scale", nn.initializers.ones, ())
        size = scale * (x.reshape(len(x), -1) ** 2).sum(1)
        return jnp.stack([size, jnp.zeros_like(size), jnp.zeros_like(size)], axis=1)


def draw(n=12, shape=(4, 4, 1)):
    x = jax.random.normal(jax.random.key(1), (n, *shape))
    return Dataset(x, jax.random.randint(jax.random.key(2), (n,), 0, 3, jnp.int32), PIXELS)


def plain_model():
    return models.create("mlp", input_shape=(4, 4, 1), n_classes=3, hidden=(8,))


@pytest.mark.parametrize(
    ("augmentation", "smoothing", "name", "options"),
    [
        ("noise", 0.0, "mlp", {}),
        ("shift", 0.2, "mlp", {}),
        ("shift_flip", 0.2, "dropout", {}),
        ("noise", 0.0, "mlp", {"keep_original": True, "clip": True}),
    ],
)
def test_the_gradient_is_that_of_the_largest_loss_of_each_example(
    augmentation, smoothing, name, options
):
    dropout = name == "dropout"
    model = from_linen(Dropping(), input_shape=(4, 4, 1)) if dropout else plain_model()
    variables, batch = model.init(jax.random.key(0)), draw()
    method = MaxUp(copies=3, augmentation=augmentation, noise_std=0.3, shift=1, **options)
    recipe = Recipe(label_smoothing=smoothing)
    objective = WorstCopy(CrossEntropy(model, recipe), method)
    (loss, _), gradient = jax.value_and_grad(objective, has_aux=True)(
        variables.params, variables.state, batch, KEY, None
    )
    copies_key, step_key = jax.random.split(KEY)
    dropout_key = jax.random.split(step_key)[1]
    copies = [method.augment(k, batch) for k in jax.random.split(copies_key, 3)]
    copies = [batch.x, *copies] if method.keep_original else copies

    q = (1 - smoothing) * jax.nn.one_hot(batch.y, 3) + smoothing / 3

    def losses(params):
        trained = variables._replace(params=params)
        outputs = [model.apply_train(trained, x, dropout_key)[0] for x in copies]
        return jnp.stack([-jnp.sum(q * jax.nn.log_softmax(z), axis=1) for z in outputs])

    # Examples of one batch take different copies: a maximum over the batch would differ.
    assert len(np.unique(np.argmax(losses(variables.params), axis=0))) > 1
    np.testing.assert_allclose(loss, losses(variables.params).max(axis=0).mean(), rtol=1e-5)
    wanted = named_leaves(jax.grad(lambda p: losses(p).max(axis=0).mean())(variables.params))
    for leaf, value in named_leaves(gradient).items():
        np.testing.assert_allclose(value, wanted[leaf], rtol=1e-4, atol=1e-6, err_msg=leaf)


def test_one_copy_without_noise_is_plain_training_on_the_same_batches():
    model, data = plain_model(), draw()
    recipe = Recipe(epochs=3, batch_size=4)
    one = MaxUp(copies=1, noise_std=0.0).fit(KEY, model, data, recipe)
    other = fit(KEY, model, data, recipe)
    for a, b in zip(jax.tree.leaves(one.variables), jax.tree.leaves(other.variables), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_training_descends_the_worst_copy():
    """The first step's loss, at the same initialisation, grows with the copies."""
    recipe = Recipe(epochs=1, batch_size=12)
    histories = [
        MaxUp(copies, noise_std=0.5).fit(KEY, plain_model(), draw(), recipe).info.history
        for copies in (1, 8)
    ]
    assert histories[1]["loss"][0] > 1.3 * histories[0]["loss"][0]


def test_noise_is_in_pixel_units():
    batch = draw(2000)
    moved = MaxUp(noise_std=0.05).augment(KEY, batch)
    assert float(jnp.std(PIXELS.invert(moved) - PIXELS.invert(batch.x))) == pytest.approx(
        0.05, rel=0.02
    )


def test_copies_are_clipped_where_they_are_asked_to_be():
    batch = draw(50)._replace(x=PIXELS.apply(jax.random.uniform(KEY, (50, 4, 4, 1))))
    free, clipped = (
        PIXELS.invert(MaxUp(noise_std=0.5, clip=clip).augment(KEY, batch)) for clip in (False, True)
    )
    assert free.min() < -0.1
    np.testing.assert_allclose(clipped, np.clip(free, 0, 1), atol=1e-6)


@pytest.mark.parametrize("keep_original", [False, True])
def test_the_example_itself_is_chosen_where_every_copy_is_easier(keep_original):
    method = MaxUp(copies=3, noise_std=0.5, keep_original=keep_original)
    batch = draw(6)._replace(x=jnp.zeros((6, 4, 4, 1)), y=jnp.zeros(6, jnp.int32))
    model = from_linen(Squaring(), input_shape=(4, 4, 1))
    start = model.init(jax.random.key(0))
    objective = WorstCopy(CrossEntropy(model, Recipe()), method)
    loss, _ = objective(start.params, start.state, batch, KEY)
    assert (float(loss) == pytest.approx(np.log(3))) == keep_original


def test_shifts_move_in_black():
    white = Dataset(PIXELS.apply(jnp.ones((50, 4, 4, 1))), jnp.zeros(50, jnp.int32), PIXELS)
    moved = PIXELS.invert(MaxUp(augmentation="shift", shift=1).augment(KEY, white))
    np.testing.assert_allclose(np.unique(np.round(moved, 5)), [0.0, 1.0], atol=1e-5)


@pytest.mark.parametrize("keep_original", [False, True])
def test_counts_the_passes_that_choose(keep_original):
    recipe = Recipe(epochs=3, batch_size=4)
    method = MaxUp(copies=6, keep_original=keep_original)
    info = method.fit(KEY, plain_model(), draw(), recipe).info
    passes = 7 if keep_original else 6
    assert info.cost.example_gradients == pytest.approx(3 * 12 * (1 + passes / 3))


def test_a_second_augmentation_is_refused():
    with pytest.raises(ValueError, match="set augmentation='none' in the recipe, got 'shift'"):
        MaxUp().fit(KEY, plain_model(), draw(), Recipe(batch_size=4, augmentation="shift"))


def test_shifts_of_vectors_are_refused():
    model = models.create("mlp", input_shape=(4,), n_classes=3, hidden=(8,))
    with pytest.raises(ValueError, match="augmentation='shift' needs images"):
        MaxUp(augmentation="shift").fit(KEY, model, draw(shape=(4,)), Recipe(batch_size=4))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"copies": 0}, "copies must be >= 1, got 0"),
        ({"augmentation": "mix"}, "unknown augmentation 'mix'; known: noise, shift, shift_flip"),
        ({"noise_std": -0.1}, "noise_std must be >= 0"),
        ({"shift": -1}, "shift must be >= 0"),
    ],
)
def test_bad_settings_are_refused(options, message, unchecked_types):
    with pytest.raises(ValueError, match=message):
        MaxUp(**options)
