"""Poisons that outnumber one region of the data, and what other attacks make of them."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from unlearnkit import models
from unlearnkit.base import Dataset, Task, Variables
from unlearnkit.poisoning import (
    Bounds,
    Budget,
    LabelFlip,
    MetagradientAttack,
    MinMax,
    Subpopulation,
    TotalGradientAttack,
)
from unlearnkit.studies import parse_study
from unlearnkit.training import Recipe, fit, predict

KEY = jax.random.key(0)
NEAR, FAR, OTHER = (0.45, 0.1), (0.1, 0.7), (0.9, 0.1)
"""Two regions of class 0, of which the first lies near class 1."""


@pytest.fixture(scope="module")
def plane():
    """Images of two pixels in three heaps, and a network whose logits are -4 |x - centre|²."""
    rng = np.random.default_rng(0)
    sizes = {NEAR: 24, FAR: 36, OTHER: 60}
    heaps = [np.add(c, rng.uniform(-0.05, 0.05, (n, 2))) for c, n in sizes.items()]
    x = jnp.asarray(np.concatenate(heaps), jnp.float32).reshape(-1, 1, 1, 2)
    data = Dataset(x, jnp.asarray(np.repeat([0, 1], 60), jnp.int32))
    model = models.create("logistic", input_shape=(1, 1, 2), n_classes=2)
    shaped = model.init(KEY)
    weights = jnp.array([[-4.0, 4.0], [4.0, -4.0]])
    params = jax.tree.map(lambda leaf: weights if leaf.ndim == 2 else leaf * 0, shaped.params)
    last, few = data.take(np.array([119])), data.take(np.arange(4))
    return model, Variables(params, shaped.state), Task(data.take(np.arange(119)), last, few, few)


def rows_of(poisoned):
    base, shown = np.asarray(poisoned.info.base), np.asarray(poisoned.info.extras["shown"])
    return base, shown


@pytest.mark.parametrize("placement", ["add", "perturb"])
def test_the_region_nearest_to_another_class_is_shown_under_its_label(plane, placement):
    poisoned = Subpopulation(Budget(30 / 120), ratio=1.25, placement=placement)(KEY, *plane)
    clean, (base, shown) = plane[2].train, rows_of(poisoned)
    assert set(shown) == set(range(24))
    _, times = np.unique(shown, return_counts=True)
    assert sorted(times) == [1] * 18 + [2] * 6
    assert np.all(clean.y[base] == 1)
    assert len(np.unique(base)) == 30
    found = poisoned.dataset
    np.testing.assert_array_equal(found.x[poisoned.is_poison], clean.x[shown])
    np.testing.assert_array_equal(found.y[poisoned.is_poison], np.ones(30))
    assert found.size == (150 if placement == "add" else 120)


def test_a_small_budget_takes_what_lies_around_the_centre_and_a_large_one_the_next_region(plane):
    few = Subpopulation(Budget(8 / 120), ratio=2.0)(KEY, *plane)
    shown = np.unique(rows_of(few)[1])
    assert len(shown) <= 4
    assert shown.max() < 24
    points = np.asarray(plane[2].train.x).reshape(-1, 2)
    many = Subpopulation(Budget(54 / 120), ratio=1.5)(KEY, *plane)
    base, shown = rows_of(many)
    assert len(np.unique(base)) == 54
    assert set(shown) >= set(range(24))
    assert np.sum(shown < 24) == 36
    further = np.unique(shown[(shown >= 24) & (shown < 60)])
    away = np.linalg.norm(points[24:60] - points[24:60].mean(0), axis=1)
    np.testing.assert_array_equal(further, np.sort(24 + np.argsort(away)[:12]))


def test_a_label_gives_as_many_poisons_as_it_has_examples(plane):
    base, shown = rows_of(Subpopulation(Budget(0.9))(KEY, *plane))
    labels = np.asarray(plane[2].train.y)
    assert len(np.unique(base)) == 108
    assert np.all(labels[base] != labels[shown])


def test_networks_err_in_the_region_and_not_elsewhere(plane):
    poisoned = Subpopulation(Budget(0.25))(KEY, *plane)
    recipe = Recipe(epochs=60, batch_size=30, learning_rate=0.5)
    model = models.create("mlp", input_shape=(1, 1, 2), n_classes=2, hidden=(16,))
    victim = fit(KEY, model, poisoned.dataset, recipe).variables
    said = np.asarray(predict(model, victim, plane[2].train.x)).argmax(1)
    assert np.all(said[:24] == 1)
    assert np.all(said[24:60] == 0)
    assert np.all(said[60:] == 1)


def test_more_poisons_than_regions_and_labels_can_take_are_refused(plane):
    """Of the fewer class a single label takes all; the other's images then find no label."""
    model, variables, task = plane
    data = task.train.take(np.arange(40, 100))  # 20 of class 0, 40 of class 1
    few = data.take(np.arange(4))
    with pytest.raises(ValueError, match=r"\d+ of 64 poisons find no region.*lower the budget"):
        Subpopulation(Budget(1.0))(KEY, model, variables, Task(data, few, few, few))


def test_a_ratio_of_nothing_is_refused():
    with pytest.raises(ValueError, match="ratio must be > 0, got 0"):
        Subpopulation(ratio=0.0)


# Attacks that begin with the poisons of another.

START = Subpopulation(Budget(0.25))
MOVED = MetagradientAttack(
    Budget(0.25), recipe=Recipe(epochs=1, batch_size=20), steps=1, step_size=0.01, start=START
)
GAME = TotalGradientAttack(
    Budget(0.25),
    epochs=1,
    batch_size=60,
    attacker_rate=1e-6,
    hidden=(16,),
    start=START,
    pretrain=Recipe(epochs=300, batch_size=40, optimizer="adam", learning_rate=1e-2),
)


def test_metagradients_move_the_poisons_of_their_start(plane):
    poisoned = MOVED(KEY, *plane)
    clean, base = plane[2].train, np.asarray(poisoned.info.base)
    assert np.all(clean.y[base] == 1)
    points = np.asarray(clean.x[:24]).reshape(-1, 2)
    ours = np.asarray(poisoned.dataset.x[poisoned.is_poison]).reshape(-1, 2)
    away = np.abs(ours[:, None] - points[None]).max(-1).min(1)
    assert 0 < away.max() <= 0.01 + 1e-6


def test_the_generator_of_the_game_makes_the_poisons_of_its_start(plane):
    poisoned = GAME(KEY, *plane)
    assert np.all(plane[2].train.y[poisoned.info.base] == 1)
    ours = np.asarray(poisoned.dataset.x[poisoned.is_poison]).reshape(-1, 2)
    assert np.abs(ours - np.asarray(NEAR)).max() < 0.2
    assert float(poisoned.info.extras["reconstruction_error"]) < 0.1


@pytest.mark.parametrize(
    ("start", "told"),
    [
        (Subpopulation(Budget(0.1)), r"start=Subpopulation makes 12 poisons, and budget is of 30"),
        (MinMax(Budget(0.25), burn_in=2, batch_size=20), "poisons of no example"),
        (LabelFlip(Budget(0.25)), r"start=LabelFlip changes the labels of 30 of 30 poisons"),
    ],
)
@pytest.mark.parametrize("attack", [MOVED, GAME], ids=["metagradient", "game"])
def test_a_start_that_does_not_fit_is_refused(plane, attack, start, told):
    with pytest.raises(ValueError, match=told):
        dataclasses.replace(attack, start=start)(KEY, *plane)


def test_settings_that_a_start_excludes_are_refused():
    with pytest.raises(ValueError, match="start needs labels='clean' and form='pixels'"):
        dataclasses.replace(MOVED, labels="free")
    with pytest.raises(ValueError, match="start needs labels='clean' and form='pixels'"):
        dataclasses.replace(MOVED, form="generator")
    with pytest.raises(ValueError, match=r"bounds without a radius.*got radius=0.1"):
        dataclasses.replace(GAME, bounds=Bounds(radius=0.1))


@pytest.mark.usefixtures("unchecked_types")
def test_a_start_that_is_no_attack_is_refused():
    for attack in (MOVED, GAME):
        with pytest.raises(TypeError, match=r"start must be an attack, .* got 3"):
            dataclasses.replace(attack, start=3)


def test_a_study_names_the_start_of_an_attack():
    text = """
    [data.digits]
    [networks.logistic]
    [recipes.plain]
    [attacks.metagradient]
    start = {use = "subpopulation", ratio = 2.0}
    [attacks.total_gradient]
    start = "subpopulation"
    [attacks.plain]
    use = "metagradient"
    start = "none"
    """
    attacks = parse_study(text).study.attacks
    assert attacks["metagradient"].start == Subpopulation(ratio=2.0)
    assert attacks["total_gradient"].start == Subpopulation()
    assert attacks["plain"].start is None
