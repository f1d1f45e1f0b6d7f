"""Gradient matching: a step by hand, the choice among restarts, and what it achieves."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from unlearnkit.base import Dataset, Variables
from unlearnkit.poisoning import Bounds, Budget, GradientMatching, PoisonWarning, perturbation
from unlearnkit.poisoning._gradients import mean_gradient
from unlearnkit.poisoning._matching import Match, step_all
from unlearnkit.training import cross_entropy

KEY = jax.random.key(0)
ATTACK = GradientMatching(
    Budget(count=8), Bounds(radius=0.5), restarts=3, steps=40, shift=0, flip=False
)


def aim(problem, wanted=0):
    """The validation rows of the other classes; the class is that of enough examples."""
    y = np.asarray(problem.task.validation.y)
    return tuple(int(row) for row in np.flatnonzero(y != wanted)[:1]), wanted


@pytest.fixture(scope="module")
def attacked(problems):
    problem = problems["any"]
    targets, wanted = aim(problem)
    attack = dataclasses.replace(ATTACK, targets=targets, adversarial_class=wanted)
    return problem, attack, attack(KEY, *problem)


def cosine(problem, x, y, target, wanted):
    """Between the gradients on poisons and target, by plain autodiff over all parameters."""

    def gradient(x, y):
        def loss(w):
            return cross_entropy(problem.model.apply(Variables(w), x), y)

        return np.asarray(ravel_pytree(jax.grad(loss)(problem.variables.params))[0], np.float64)

    image = problem.task.validation.x[np.asarray(target)]
    one, other = gradient(x, y), gradient(image, jnp.full(len(target), wanted))
    return one @ other / np.linalg.norm(one) / np.linalg.norm(other)


def test_the_gradients_align(attacked):
    problem, attack, poisoned = attacked
    x, y = poisoned.dataset.x[poisoned.is_poison], poisoned.dataset.y[poisoned.is_poison]
    base = problem.clean.x[poisoned.info.base]
    before = cosine(problem, base, y, attack.targets, attack.adversarial_class)
    after = cosine(problem, x, y, attack.targets, attack.adversarial_class)
    assert after > 0.9
    assert after > before + 0.1
    losses = np.asarray(poisoned.info.extras["restart_loss"])
    np.testing.assert_allclose(losses.min(), 1 - after, atol=1e-4)
    assert len(set(losses.tolist())) == 3  # restarts begin apart


def test_poisons_are_clean_examples_of_the_class_within_the_ball(attacked):
    problem, attack, poisoned = attacked
    np.testing.assert_array_equal(problem.clean.y[poisoned.info.base], attack.adversarial_class)
    delta = np.abs(np.asarray(perturbation(poisoned, problem.clean)))
    assert 0.3 < delta.max() <= np.float32(0.5)


def test_training_on_them_moves_the_target(attacked):
    """One step on the poisons raises the target's adversarial probability more than on the base."""
    problem, attack, poisoned = attacked
    model, variables, task = problem
    image = task.validation.x[np.asarray(attack.targets)]

    def moved(x):
        slope = mean_gradient(
            model, variables, x, problem.clean.y[poisoned.info.base], chunk=attack.chunk
        )
        length = jnp.linalg.norm(ravel_pytree(slope)[0])
        w = jax.tree.map(lambda v, g: v - 0.05 * g / length, variables.params, slope)
        logits = model.apply(Variables(w), image)
        return jax.nn.log_softmax(logits)[0, attack.adversarial_class]

    x = poisoned.dataset.x[poisoned.is_poison]
    assert moved(x) > moved(problem.clean.x[poisoned.info.base])


def make_match(problem):
    region = Bounds(radius=0.02).region(problem.clean.x[:4], problem.clean.normalisation)
    model, variables, _ = problem
    target = mean_gradient(model, variables, problem.clean.x[4:6], jnp.zeros(2, jnp.int32), chunk=9)
    return Match(variables, target, region, problem.clean.y[:4], jnp.zeros(1))


def test_a_step_is_signed_adam_and_a_projection(problems):
    problem = problems["any"]
    match = make_match(problem)
    rules = dataclasses.replace(ATTACK, learning_rate=0.01, steps=8)._rules(problem.model)
    x = jnp.stack([match.region.base, match.region.base + 0.015])
    x = jax.vmap(match.region.project)(x)
    keys = jax.random.split(KEY, 2)
    judge = jax.jit(rules.loss_and_slope)
    memory, signs = rules.optimizer.init(x), []
    for _ in range(2):
        moved, memory, losses = step_all(x, memory, match, keys, rules=rules)
        told = [judge(one, match, KEY) for one in x]
        np.testing.assert_allclose(losses, [loss for loss, _ in told], rtol=1e-4, atol=1e-6)
        signs.append(jnp.stack([jnp.sign(slope) for _, slope in told]))
        # The squares of signs are 1, and so is what Adam divides by.
        mean = signs[0] if len(signs) == 1 else (0.9 * signs[0] + signs[1]) / 1.9
        step = jax.vmap(match.region.project)(x - 0.01 * mean)
        np.testing.assert_allclose(moved, step, atol=1e-5)
        x = moved


def test_the_rate_falls_at_eighths(problems):
    problem = problems["any"]
    optimizer = dataclasses.replace(ATTACK, learning_rate=1.0, steps=8)._rules(problem.model)
    memory = optimizer.optimizer.init(jnp.zeros(()))
    sizes = []
    for _ in range(8):
        update, memory = optimizer.optimizer.update(jnp.ones(()), memory)
        sizes.append(-float(update))
    np.testing.assert_allclose(sizes, [1, 1, 1, 0.1, 0.1, 0.01, 0.01, 0.001], rtol=1e-4)


def test_the_derivative_goes_through_the_augmentation(problems, x64):
    problem = problems["any"]
    match = jax.tree.map(
        lambda v: v.astype(jnp.float64) if v.dtype == jnp.float32 else v, make_match(problem)
    )
    rules = dataclasses.replace(ATTACK, shift=1, flip=True)._rules(problem.model)
    x = match.region.base
    seen = jax.jit(rules.augment)(KEY, x, match.black)
    assert not np.array_equal(seen, x)

    @jax.jit
    def both(x):
        return rules.loss_and_slope(x, match, KEY)

    way, h = jax.random.normal(KEY, x.shape, jnp.float64), 1e-5
    ends = [both(x + sign * h * way)[0] for sign in (1, -1)]
    slope = both(x)[1]
    np.testing.assert_allclose(
        jnp.vdot(slope, way), (ends[0] - ends[1]) / (2 * h), rtol=1e-5, atol=1e-10
    )
    np.testing.assert_allclose(jax.jit(rules.loss)(seen, match), both(x)[0], rtol=1e-10)


def test_targets_and_class_are_drawn_where_not_given(problems):
    problem = problems["any"]
    attack = dataclasses.replace(ATTACK, steps=1, restarts=1)
    found = [attack._aim(jax.random.key(k), problem.task.validation, 3) for k in range(12)]
    assert len({wanted for _, wanted in found}) == 3
    for targets, wanted in found:
        assert int(problem.task.validation.y[targets[0]]) != wanted
    targets, wanted = aim(problem)
    for k in range(6):
        given = dataclasses.replace(attack, targets=targets)
        _, drawn = given._aim(jax.random.key(k), problem.task.validation, 3)
        assert drawn != int(problem.task.validation.y[targets[0]])


def test_a_gradient_that_points_away_is_said():
    with pytest.warns(PoisonWarning, match="cosine of -0.20"):
        ATTACK._judge(np.array([1.3, 1.2]))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"bounds": Bounds()}, "bounds need a radius"),
        ({"restarts": 0}, "restarts must be >= 1"),
        ({"learning_rate": 0.0}, "learning_rate must be > 0"),
        ({"shift": -1}, "shift must be >= 0"),
    ],
)
def test_refuses_bad_hyperparameters(changes, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(ATTACK, **changes)


def test_refuses_targets_that_cannot_be(problems):
    problem = problems["any"]
    (target,), wanted = aim(problem)
    own = int(problem.task.validation.y[target])
    for changes, message in (
        ({"targets": (99,)}, "targets must be rows of task.validation"),
        ({"targets": (target,), "adversarial_class": own}, "adversarial class . already"),
        ({"targets": (target,), "adversarial_class": 7}, r"adversarial_class must be in 0 … 2"),
        (
            {"adversarial_class": wanted, "budget": Budget(1.0)},
            "fewer than the 60 poisons of the budget",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            dataclasses.replace(ATTACK, **changes)(KEY, *problem)


def test_refuses_to_shift_what_is_no_image(problems):
    problem = problems["any"]
    flat = problem.model._replace(input_shape=(16,))
    task = jax.tree.map(
        lambda part: part._replace(x=part.x.reshape(-1, 16)),
        problem.task,
        is_leaf=lambda part: isinstance(part, Dataset),
    )
    with pytest.raises(ValueError, match="need images"):
        dataclasses.replace(ATTACK, shift=1)(KEY, flat, problem.variables, task)
