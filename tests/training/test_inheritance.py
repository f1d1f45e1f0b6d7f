"""What a method takes over from the recipe of the network that is to forget."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import pytest
import softmax_regression as sr

from unlearnkit.base import Dataset
from unlearnkit.training import Recipe, inherited, train_like
from unlearnkit.training.step import init_train_state
from unlearnkit.unlearning import (
    FineTune,
    Influence,
    NtkScrub,
    RandomLabel,
    Retrain,
    Scrub,
    neg_grad_plus,
    scrub,
)

KEY = jax.random.key(0)
ORIGINAL = Recipe(
    epochs=100,
    batch_size=64,
    optimizer="adam",
    learning_rate=0.3,
    momentum=0.5,
    nesterov=True,
    weight_decay=0.1,
    decay_toward="start",
    schedule="step",
    warmup_epochs=5.0,
    milestones=(2, 60, 80),
    step_factor=0.5,
    gradient_noise=0.2,
    clip_norm=2.0,
    label_smoothing=0.1,
    augmentation="shift_flip",
    shift=2,
    frozen_state=True,
    compute_dtype="bfloat16",
)


def test_all_is_inherited_but_what_a_method_sets_itself():
    method = FineTune(epochs=10, batch_size=16, learning_rate=0.01, weight_decay=0.0)
    found = dataclasses.replace(method, train_like=ORIGINAL).recipe()
    assert found == dataclasses.replace(
        ORIGINAL,
        epochs=10,
        batch_size=16,
        learning_rate=0.01,
        momentum=0.9,
        weight_decay=0.0,
        optimizer="sgd",
        gradient_noise=0.0,
        decay_toward="zero",
        warmup_epochs=0.5,
        milestones=(1, 6, 8),
    )
    plain = Recipe(epochs=10, batch_size=16, learning_rate=0.01)
    assert method.recipe() == plain
    assert dataclasses.replace(method, train_like=Recipe()).recipe() == plain
    assert inherited(dataclasses.replace(ORIGINAL, epochs=0), epochs=3).milestones == (6, 180, 240)


def test_only_what_was_not_told_is_told():
    assert train_like(FineTune(), ORIGINAL) == FineTune(train_like=ORIGINAL)
    assert hash(FineTune(train_like=ORIGINAL)) == hash(train_like(FineTune(), ORIGINAL))
    told = FineTune(train_like=Recipe())
    assert train_like(told, ORIGINAL) is told
    assert train_like(Retrain(), ORIGINAL) == Retrain(ORIGINAL)
    assert train_like(Retrain(Recipe()), ORIGINAL) == Retrain(Recipe())
    for other in (Influence(), functools.partial(NtkScrub(), initial=None)):
        assert train_like(other, ORIGINAL) is other


def test_scrub_keeps_a_schedule_of_its_own():
    recipe = Scrub(train_like=ORIGINAL).recipe()
    assert (recipe.schedule, recipe.milestones, recipe.warmup_epochs) == ("step", (3, 5, 9), 0.0)
    assert recipe.augmentation == "shift_flip"


def test_both_passes_of_an_epoch_share_one_schedule():
    # The rate falls to almost nothing after the 2 + 4 steps of the first epoch, and not before.
    like = Recipe(epochs=2, schedule="step", milestones=(1,), step_factor=1e-6)
    method = RandomLabel(epochs=2, batch_size=6, forget_batch_size=5, train_like=like)
    start = sr.weights()
    both = method(KEY, sr.MODEL, start, sr.TASK)
    short = dataclasses.replace(method, epochs=1, train_like=None)
    first = short(KEY, sr.MODEL, start, sr.TASK)
    sr.assert_close(both.variables, sr.as_float64(first.variables), rtol=1e-3, atol=1e-5)


IMAGES = Dataset(jax.random.uniform(KEY, (6, 4, 1, 1)), jnp.array([0, 0, 0, 1, 0, 2]))
SHIFTED = Recipe(augmentation="shift", shift=1, label_smoothing=0.3)


def loss_of(objective, batch, context=None):
    state = init_train_state(SHIFTED, 1, sr.weights())
    return objective(state.variables.params, {}, batch, KEY, context)[0]


@pytest.mark.parametrize("change", [{"augmentation": "none"}, {"label_smoothing": 0.0}])
def test_objectives_of_two_sets_augment_and_smooth(change):
    other = dataclasses.replace(SHIFTED, **change)
    pair = [neg_grad_plus._Difference(sr.MODEL, recipe, 0.9, 0.1, 2) for recipe in (SHIFTED, other)]
    lessons = [scrub._Distillation(sr.MODEL, recipe, 1.0, 0.0, 2.0) for recipe in (SHIFTED, other)]
    rows = IMAGES._replace(y=jnp.arange(6))
    teaching = scrub._Teaching(IMAGES.y, jnp.zeros((6, 3)), None)
    for objectives, batch, context in ((pair, IMAGES, None), (lessons, rows, teaching)):
        one, two = (float(loss_of(objective, batch, context)) for objective in objectives)
        assert abs(one - two) > 1e-4


def test_the_teacher_sees_what_its_student_sees():
    start = sr.weights()
    obey = scrub._Distillation(sr.MODEL, SHIFTED, 0.0, 1.0, 2.0)
    rows = IMAGES._replace(y=jnp.arange(6))
    teaching = scrub._Teaching(IMAGES.y, jnp.ones((6, 3)) * jnp.arange(3.0), start)
    assert abs(float(loss_of(obey, rows, teaching))) < 1e-6
