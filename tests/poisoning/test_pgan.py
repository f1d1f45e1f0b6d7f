"""pGAN: both losses by hand, what alpha trades, what stays of the bounds and the labels."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from unlearnkit import models
from unlearnkit.base import Dataset, Task, Variables
from unlearnkit.poisoning import Bounds, Budget, PoisoningGan, perturbation
from unlearnkit.poisoning.pgan import Discriminator, discriminator_loss, generator_loss
from unlearnkit.training import DivergedError, Recipe

KEY = jax.random.key(3)
GAME = PoisoningGan(
    Budget(0.2), hidden=(24,), learning_rate=1e-2,
    recipe=Recipe(epochs=25, batch_size=20, learning_rate=0.1),
)  # fmt: skip


def two_blobs(n=200, d=6, seed=0):
    """Two classes in the unit box, apart by .3 in every entry, each with little spread."""
    draw = np.random.default_rng(seed)
    y = np.arange(n) % 2
    x = np.clip(0.35 + 0.3 * y[:, None] + 0.05 * draw.normal(size=(n, d)), 0, 1)
    return Dataset(jnp.asarray(x, jnp.float32), jnp.asarray(y, jnp.int32))


@pytest.fixture(scope="module")
def blobs():
    data = two_blobs()
    model = models.create("logistic", input_shape=(6,), n_classes=2)
    task = Task(data.take(np.arange(180)), data.take(np.arange(180, 200)), data, data)
    return model, model.init(jax.random.key(0)), task


@pytest.fixture(scope="module")
def linear_discriminator():
    network = models.create("logistic", input_shape=(4,), n_classes=1)
    params = network.init(jax.random.key(0)).params
    w = jnp.array([[0.5], [-1.0], [0.25], [2.0]])
    params = jax.tree.map(lambda leaf: w if leaf.ndim == 2 else jnp.array([0.1]), params)
    return Discriminator(network, 2), params


def odds_by_hand(x, y):
    return x @ np.array([0.5, -1.0]) + np.array([0.25, 2.0])[y] + 0.1


REAL = Dataset(jnp.array([[1.0, 2.0], [0.5, -1.0]]), jnp.array([0, 1]))
MADE = Dataset(jnp.array([[0.0, 3.0], [2.0, 2.0]]), jnp.array([1, 0]))


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


def test_the_discriminator_s_loss_is_the_value_of_the_game(linear_discriminator):
    discriminator, params = linear_discriminator
    at_real, at_made = (
        odds_by_hand(np.asarray(part.x, float), np.asarray(part.y)) for part in (REAL, MADE)
    )
    wanted = -np.mean(np.log(sigmoid(at_real))) - np.mean(np.log(1 - sigmoid(at_made)))
    found = discriminator_loss(params, REAL, MADE, discriminator)
    np.testing.assert_allclose(found, wanted, rtol=1e-6)


@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
def test_the_generator_s_loss_trades_realism_for_the_classifier_s_errors(
    linear_discriminator, alpha
):
    discriminator, params = linear_discriminator
    model = models.create("logistic", input_shape=(2,), n_classes=2)
    classifier = model.init(jax.random.key(4))
    odds = odds_by_hand(np.asarray(MADE.x, float), np.asarray(MADE.y))
    logits = np.asarray(model.apply(classifier, MADE.x), float)
    log_p = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    errors = -np.mean(log_p[np.arange(2), np.asarray(MADE.y)])
    wanted = alpha * -np.mean(np.log(sigmoid(odds))) - (1 - alpha) * errors
    found, told = generator_loss(MADE, params, classifier, discriminator, model, alpha)
    np.testing.assert_allclose(found, wanted, rtol=1e-5)
    np.testing.assert_allclose(told["classifier_loss"], errors, rtol=1e-5)
    assert told["realism"] == np.mean(odds > 0)


def distance_to_class(poisoned, labels):
    """Mean distance of the poisons to the mean of the examples of their label."""
    x = np.asarray(poisoned.dataset.x[poisoned.is_poison])
    return np.mean(np.linalg.norm(x - (0.35 + 0.3 * labels[:, None]), axis=1))


def test_alpha_is_what_keeps_poisons_near_their_class(blobs):
    """By the discriminator alone they are like it; by the classifier alone like the other one."""
    found = {}
    for alpha in (0.0, 1.0):
        poisoned = dataclasses.replace(GAME, alpha=alpha)(KEY, *blobs)
        labels = np.asarray(poisoned.dataset.y[poisoned.is_poison])
        found[alpha] = distance_to_class(poisoned, labels)
        errors = np.asarray(poisoned.info.history["classifier_loss"])
        assert (errors[-1] > 1.0) == (alpha == 0.0), alpha
    apart = 0.3 * np.sqrt(6)  # of the classes
    assert found[1.0] < 0.5 * apart
    assert found[0.0] > apart


def test_the_classifier_learns_from_what_is_clean(blobs):
    """Were its batches poisons alone, it would learn them; and err on what is real."""
    model, variables, task = blobs
    few = dataclasses.replace(GAME, alpha=0.0, budget=Budget(0.05))(KEY, model, variables, task)
    all_of = dataclasses.replace(few_game(), budget=Budget(1.0), placement="perturb")
    every = all_of(KEY, model, variables, task)
    # Twenty times as many poisons are learnt, however the generator moves them.
    assert few.info.history["classifier_loss"][-1] > 2 * every.info.history["classifier_loss"][-1]


def few_game():
    return dataclasses.replace(GAME, alpha=0.0)


@pytest.mark.parametrize("placement", ["add", "perturb"])
def test_poisons_keep_their_labels_and_stay_in_the_bounds(blobs, placement):
    bounds = Bounds(box=(0.2, 0.8), radius=0.1)
    shrunk = jax.tree.map(
        lambda leaf: jnp.clip(leaf, 0.2, 0.8) if leaf.dtype == jnp.float32 else leaf, blobs[2]
    )
    attack = dataclasses.replace(few_game(), bounds=bounds, placement=placement)
    poisoned = attack(KEY, blobs[0], blobs[1], shrunk)
    clean, base = shrunk.train, poisoned.info.base
    np.testing.assert_array_equal(poisoned.dataset.y[poisoned.is_poison], clean.y[base])
    x = poisoned.dataset.x[poisoned.is_poison]
    assert bool(bounds.region(clean.x[base], clean.normalisation).contains(x).all())
    moved = np.abs(np.asarray(perturbation(poisoned, clean))).max(1)
    assert moved.max() <= 0.1
    assert np.median(moved) > 0.05  # the ball is where it would leave


def test_poisons_may_have_one_label_alone(blobs):
    model, variables, task = blobs
    attack = dataclasses.replace(few_game(), labels=(1,), budget=Budget(0.1))
    poisoned = attack(KEY, model, variables, task)
    assert set(np.asarray(poisoned.dataset.y[poisoned.is_poison]).tolist()) == {1}
    assert int(poisoned.is_poison.sum()) == 20
    # They look like the other class.
    x = poisoned.dataset.x[poisoned.is_poison]
    assert float(x.mean()) < 0.5


def test_poisons_differ_among_themselves_and_by_the_key(blobs):
    attack = dataclasses.replace(GAME, alpha=0.5)
    one, again, other = (attack(jax.random.key(seed), *blobs) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one.dataset.x, again.dataset.x)
    assert not np.array_equal(one.dataset.x, other.dataset.x)
    x = np.asarray(one.dataset.x[one.is_poison])
    assert len(np.unique(x.round(5), axis=0)) == len(x)


def test_the_trained_weights_are_not_what_it_plays_against(blobs):
    model, variables, task = blobs
    moved = Variables(jax.tree.map(lambda leaf: leaf + 5.0, variables.params))
    one, other = (GAME(KEY, model, weights, task) for weights in (variables, moved))
    np.testing.assert_array_equal(one.dataset.x, other.dataset.x)


def test_without_a_box_poisons_go_where_they_like(blobs):
    poisoned = dataclasses.replace(few_game(), bounds=Bounds(box=None))(KEY, *blobs)
    x = poisoned.dataset.x[poisoned.is_poison]
    assert float(jnp.abs(x).max()) > 1.0


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"alpha": 1.5}, "alpha must be in"),
        ({"alpha": -0.1}, "alpha must be in"),
        ({"hidden": ()}, "hidden must be widths"),
        ({"hidden": (4, 0)}, "hidden must be widths"),
        ({"learning_rate": 0.0}, "learning_rate must be > 0"),
        ({"labels": (-1,)}, "labels must be >= 0"),
    ],
)
def test_nonsense_is_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        PoisoningGan(**wrong)


def test_labels_that_are_not_there_or_too_few_are_told(blobs):
    with pytest.raises(ValueError, match=r"no training example has \[7\]"):
        dataclasses.replace(GAME, labels=(1, 7))(KEY, *blobs)
    with pytest.raises(ValueError, match="120 poisons, but 100 examples have the labels"):
        dataclasses.replace(GAME, labels=(0,), budget=Budget(0.6))(KEY, *blobs)


def test_a_game_that_diverges_is_told(blobs):
    with pytest.raises(DivergedError, match="the game diverged in epoch 1"):
        dataclasses.replace(GAME, learning_rate=1e38)(KEY, *blobs)
