"""Gradient matching: a step by hand, the choice among restarts, and what it achieves."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from unlearnkit.base import Dataset, Variables
from unlearnkit.poisoning import (
    Bounds,
    Budget,
    GradientMatching,
    PoisonWarning,
    gradient_matching,
    perturbation,
)
from unlearnkit.poisoning._gradients import mean_gradient
from unlearnkit.poisoning._matching import Match, judge_all, step_all
from unlearnkit.poisoning._surrogates import Surrogates
from unlearnkit.training import Recipe, cross_entropy

KEY = jax.random.key(0)
ATTACK = GradientMatching(
    Budget(count=8), Bounds(radius=0.5), restarts=3, steps=40, shift=0, flip=False
)


def aim(problem, wanted=0):
    """A validation row of another class, which the network gets right."""
    y = np.asarray(problem.task.validation.y)
    right = predicted(problem) == y
    return tuple(int(row) for row in np.flatnonzero(right & (y != wanted))[:1]), wanted


def predicted(problem):
    logits = problem.model.apply(problem.variables, problem.task.validation.x)
    return np.asarray(logits).argmax(-1)


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
        moved, memory, losses = step_all(x, memory, [match], keys, rules=rules)
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
    _, variables, task = problem
    about = problem.model, variables, task.validation
    found = [attack._aim(jax.random.key(k), *about) for k in range(12)]
    assert len({wanted for _, wanted in found}) == 3
    for targets, wanted in found:
        assert int(task.validation.y[targets[0]]) != wanted
        assert int(task.validation.y[targets[0]]) == predicted(problem)[targets[0]]
    targets, wanted = aim(problem)
    for k in range(6):
        given = dataclasses.replace(attack, targets=targets)
        _, drawn = given._aim(jax.random.key(k), *about)
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
        ({"ensemble": 0}, "ensemble must be >= 1"),
        ({"ensemble": 3}, "ensemble=3 needs recipe, by which the attack trains 2"),
        ({"retrain_every": 5}, "retrain_every=5 needs ensemble >= 2"),
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


def test_targets_that_need_no_poison_are_refused(problems):
    """Also where they are drawn: a network that is always wrong leaves none."""
    problem = problems["any"]
    y = np.asarray(problem.task.validation.y)
    wrong = problem.task._replace(validation=problem.task.validation._replace(y=(y + 1) % 3))
    row = int(np.flatnonzero((predicted(problem) != (y + 1) % 3) & ((y + 1) % 3 != 0))[0])
    given = dataclasses.replace(ATTACK, targets=(row,), adversarial_class=0)
    with pytest.raises(ValueError, match=rf"takes row {row} of class . for class . \(1 such\)"):
        given(KEY, problem.model, problem.variables, wrong)
    never = wrong._replace(validation=wrong.validation._replace(y=(predicted(problem) + 1) % 3))
    with pytest.raises(ValueError, match="no target is left; train it better"):
        dataclasses.replace(ATTACK, adversarial_class=0)(
            KEY, problem.model, problem.variables, never
        )


RECIPE = Recipe(epochs=6, batch_size=20, learning_rate=0.3)


class TestEnsemble:
    def test_a_step_descends_the_mean_over_the_surrogates(self, problems):
        problem = problems["any"]
        first = make_match(problem)
        other = jax.tree.map(lambda leaf: 0.5 * leaf[::-1], problem.variables)
        matches = [first, first._replace(variables=other)]
        rules = dataclasses.replace(ATTACK, learning_rate=0.01, steps=8)._rules(problem.model)
        x, keys = first.region.base[None], jax.random.split(KEY, 1)
        moved, _, losses = step_all(x, rules.optimizer.init(x), matches, keys, rules=rules)
        told = [jax.jit(rules.loss_and_slope)(x[0], match, KEY) for match in matches]
        mean = (told[0][1] + told[1][1]) / 2
        np.testing.assert_allclose(losses[0], (told[0][0] + told[1][0]) / 2, rtol=1e-4)
        step = first.region.project(x[0] - 0.01 * jnp.sign(mean))
        np.testing.assert_allclose(moved[0], step, atol=1e-5)
        each = [judge_all(x, [match], rules=rules) for match in matches]
        np.testing.assert_allclose(judge_all(x, matches, rules=rules), sum(each) / 2, rtol=1e-5)

    def test_ages_are_staggered_and_the_old_begin_anew(self, problems):
        problem = problems["any"]
        them = Surrogates(KEY, problem.model, RECIPE, 3, problem.clean)
        assert [member.age for member in them._members] == [2, 4]
        young = jax.tree.map(np.array, them.variables[0])
        for _ in range(3):
            them.go_on(problem.clean)
        assert [(m.age, m.generation) for m in them._members] == [(5, 0), (1, 1)]
        moved = jax.tree.leaves(jax.tree.map(lambda a, b: np.abs(a - b).max(), young,
                                             them.variables[0]))  # fmt: skip
        assert max(moved) > 0
        assert them.example_gradients == (2 + 4 + 6) * problem.clean.size

    def test_surrogates_learn(self, problems):
        problem = problems["any"]
        recipe = dataclasses.replace(RECIPE, epochs=30, schedule="linear")
        (network,) = Surrogates(KEY, problem.model, recipe, 2, problem.clean).variables
        fresh = problem.model.init(jax.random.key(1))
        losses = [
            cross_entropy(problem.model.apply(v, problem.clean.x), problem.clean.y)
            for v in (network, fresh)
        ]
        assert losses[0] < 0.5 * losses[1]

    def test_poisons_align_on_every_surrogate(self, problems):
        problem = problems["any"]
        targets, wanted = aim(problem)
        attack = dataclasses.replace(
            ATTACK, targets=targets, adversarial_class=wanted, ensemble=3, recipe=RECIPE,
            retrain_every=15, restarts=1,
        )  # fmt: skip
        poisoned, again = (attack(KEY, *problem) for _ in range(2))
        np.testing.assert_array_equal(poisoned.dataset.x, again.dataset.x)
        loss = np.asarray(poisoned.info.history["loss"])
        assert loss[14] < 0.8 * loss[0]
        assert loss[15] > loss[14]  # the networks are others now
        assert poisoned.info.cost.example_gradients == (
            3 * (1 + 8 * (3 * 40 + 1)) + (2 + 4 + 2 * 2) * 60
        )

    def test_more_than_fit_in_memory_are_refused(self, problems, monkeypatch):
        from unlearnkit.poisoning import _surrogates

        monkeypatch.setattr(_surrogates, "available_bytes", lambda: 10_000)
        monkeypatch.setattr(gradient_matching, "Surrogates", pytest.fail)
        attack = dataclasses.replace(ATTACK, ensemble=400, recipe=RECIPE)
        with pytest.raises(ValueError, match="ensemble=400 needs about .* GB are free; take fewer"):
            attack(KEY, *problems["any"])


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
