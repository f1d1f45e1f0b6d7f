"""Model-targeted poisons: the gap is what the losses say, and the victim nears the target."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from unlearnkit.base import Variables
from unlearnkit.poisoning import Budget, LabelFlip, ModelTargeted
from unlearnkit.poisoning.min_max import make_feasible_set
from unlearnkit.poisoning.model_targeted import Chase, play
from unlearnkit.training import Recipe

KEY = jax.random.key(0)


@pytest.fixture(scope="module")
def chased(problems):
    """The victim, the target, the feasible set and what was found, on the task of two classes."""
    model, variables, task = problems["binary"]
    clean = task.train
    feasible_set = make_feasible_set(clean, 2, ModelTargeted().bounds, 0.95)
    mirrored = jax.tree.map(lambda leaf: -0.1 * leaf, variables.params)  # unsure of itself
    target = Variables(mirrored, variables.state)
    chase = Chase(model, 0.1, clean.size, 10, 20)
    found = play(KEY, variables, target, clean, feasible_set, jnp.full(8, 10.0), chase=chase)
    return problems["binary"], target, feasible_set, chase, found


def losses(model, variables, x, y):
    """Dense cross-entropies in float64."""
    z = np.asarray(model.apply(variables, x), np.float64)
    return np.log(np.exp(z).sum(1)) - z[np.arange(len(z)), np.asarray(y)]


def test_a_gap_is_the_difference_of_the_losses_and_wider_than_at_any_clean_example(chased):
    (model, variables, task), target, feasible_set, _, (points, history) = chased
    x, y = points.x[:1], points.y[:1]
    gap = losses(model, variables, x, y) - losses(model, target, x, y)
    np.testing.assert_allclose(history["gap"][0], gap[0], rtol=1e-4)
    clean = task.train
    distance = np.linalg.norm(
        (clean.x - feasible_set.ball.centre[clean.y]).reshape(clean.size, -1), axis=1
    )
    within = clean.take(np.flatnonzero(distance <= feasible_set.ball.radius[clean.y]))
    others = losses(model, variables, *within[:2]) - losses(model, target, *within[:2])
    assert gap[0] > others.max()


def test_points_lie_in_box_and_sphere_of_their_class(chased):
    *_, feasible_set, _, (points, _) = chased
    ball = feasible_set.ball
    away = np.linalg.norm((points.x - ball.centre[points.y]).reshape(len(points.y), -1), axis=1)
    assert np.all(away <= ball.radius[points.y] * (1 + 1e-5))
    assert points.x.min() >= ball.low.min() - 1e-6
    assert points.x.max() <= ball.high.max() + 1e-6


def test_the_gap_closes_as_points_are_added(chased):
    *_, (_, history) = chased
    assert history["gap"][-1] < 0.5 * history["gap"][0]


def test_every_point_has_its_share_of_the_budget(problems):
    recipe = Recipe(epochs=1, batch_size=20)
    attack = ModelTargeted(
        Budget(count=7), rounds=3, ascent_steps=1, descent_steps=1, recipe=recipe,
        target=LabelFlip(Budget(0.3), "runner_up", "perturb"),
    )  # fmt: skip
    poisoned = attack(KEY, *problems["binary"])
    x = np.asarray(poisoned.dataset.x[poisoned.is_poison]).reshape(7, -1)
    counts = np.unique(x, axis=0, return_counts=True)[1]
    assert sorted(counts) == [2, 2, 3]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rounds": 0}, "rounds must be >= 1"),
        ({"learning_rate": 0.0}, "learning_rate must be > 0"),
    ],
)
def test_wrong_settings_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        ModelTargeted(**options)
