import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from unlearnkit.base import Variables
from unlearnkit.poisoning import Bounds, Budget, MetaPoison
from unlearnkit.poisoning._unrolled import AttackData, craft, make_surrogates

KEY = jax.random.key(0)
ATTACK = MetaPoison(
    Budget(0.2),
    Bounds(radius=0.2),
    networks=3,
    steps=6,
    batch_size=20,
    advance_steps=2,
    horizon=30,
    network_rate=0.3,
)


def make_data(problem, wanted=-1, dtype=jnp.float32):
    clean = jax.tree.map(lambda v: v.astype(dtype) if v.dtype == jnp.float32 else v, problem.clean)
    region = ATTACK.bounds.region(clean.x[:6], clean.normalisation)
    ours, theirs = clean.take(np.arange(6, 36)), clean.take(np.arange(36, 60))
    return AttackData(ours, theirs, jnp.int32(wanted), region, clean.y[:6], jnp.ones(1, dtype))


def make_rules(problem, **changes):
    rules = ATTACK._rules(problem.model, 60, 6, 30)
    return dataclasses.replace(rules, **changes)


@pytest.mark.parametrize("wanted", [-1, 2])
def test_the_gradient_goes_through_both_steps(problems, x64, wanted):
    problem = problems["any"]
    data, rules = make_data(problem, wanted, jnp.float64), make_rules(problem)
    variables = jax.tree.map(lambda v: v.astype(jnp.float64), problem.variables)
    if wanted >= 0:  # a network that has not yet learned, so that the gap is above 0
        variables = jax.tree.map(lambda v: 0.1 * v, variables)

    @jax.jit
    def loss(x):
        return rules.anticipated(x, variables, data, KEY)

    x = data.region.base + 0.01
    gradient = jax.grad(loss)(x)
    assert jnp.linalg.norm(gradient) > 0
    way, h = jax.random.normal(KEY, x.shape), 1e-5
    slope = (loss(x + h * way) - loss(x - h * way)) / (2 * h)
    np.testing.assert_allclose(jnp.vdot(gradient, way), slope, rtol=1e-6)


def test_the_attackers_loss_against_hand_computed(problems):
    problem = problems["any"]
    rules = make_rules(problem)
    logits = problem.model.apply(problem.variables, make_data(problem).judged.x)
    y = make_data(problem).judged.y
    want = jax.nn.log_softmax(logits)[jnp.arange(len(y)), y].mean()
    got = rules.attacker_loss(problem.variables, make_data(problem))
    np.testing.assert_allclose(got, want, rtol=1e-5)
    z = np.asarray(logits)
    gap = np.maximum(np.maximum(z[:, 0], z[:, 2]) - z[:, 1], 0).mean()
    got = rules.attacker_loss(problem.variables, make_data(problem, wanted=1))
    np.testing.assert_allclose(got, gap, rtol=1e-5)


def test_a_step_trains_in_the_true_proportion(problems):
    problem = problems["any"]
    data, rules = make_data(problem), make_rules(problem)
    x = data.region.base * 0.5
    new = rules.train(problem.variables, x, data, KEY)
    row_key, _ = jax.random.split(KEY)
    rows = jax.random.randint(row_key, (20,), 0, 30)

    def loss(w):
        def mean(x, y):
            logits = problem.model.apply(Variables(w), x)
            return -jax.nn.log_softmax(logits)[jnp.arange(len(y)), y].mean()

        batch = data.clean.take(rows)
        return 60 / 66 * mean(batch.x, batch.y) + 6 / 66 * mean(x, data.labels)

    slope = jax.grad(loss)(problem.variables.params)
    for got, old, g in zip(
        *map(jax.tree.leaves, (new.params, problem.variables.params, slope)), strict=True
    ):
        np.testing.assert_allclose(got, old - 0.3 * g, rtol=1e-4, atol=1e-6)


def test_networks_are_of_all_ages_and_begin_anew(problems):
    problem = problems["any"]
    data, rules = make_data(problem), make_rules(problem, horizon=6, advance_steps=2)
    x = data.region.base
    surrogates = make_surrogates(x, data, jax.random.split(KEY, 3), rules=rules)
    np.testing.assert_array_equal(surrogates.age, [0, 2, 4])
    memory = rules.optimizer.init(x)
    moved, _, older, _ = craft(x, memory, surrogates, data, KEY, rules=rules)
    np.testing.assert_array_equal(older.age, [2, 4, 0])
    assert bool(data.region.contains(moved).all())

    def loss(i, networks):
        one = jax.tree.map(lambda leaf: leaf[i], networks.variables)
        return float(-rules.attacker_loss(one, data))

    assert loss(0, older) < loss(0, surrogates)
    assert loss(2, older) > loss(2, surrogates)


def test_the_poisons_lower_the_loss_that_they_descend(problems):
    problem = problems["any"]
    poisoned = ATTACK(KEY, *problem)
    m = len(poisoned.info.base)
    clean = problem.clean
    region = ATTACK.bounds.region(clean.x[poisoned.info.base], clean.normalisation)
    labels = clean.y[poisoned.info.base]
    data = make_data(problem)._replace(region=region, labels=labels)
    rules = ATTACK._rules(problem.model, 60, m, 30)
    keys = jax.random.split(jax.random.key(7), 8)
    networks = make_surrogates(region.base, data, keys, rules=rules)

    def mean_loss(x):
        one = jax.vmap(lambda v: rules.anticipated(x, v, data, KEY))
        return float(one(networks.variables).mean())

    assert mean_loss(poisoned.dataset.x[poisoned.is_poison]) < mean_loss(region.base)


class TestTargets:
    def attack(self, problem, **changes):
        y = np.asarray(problem.task.validation.y)
        rows = tuple(int(row) for row in np.flatnonzero(y != 1)[:2])
        fields = {"targets": rows, "adversarial_class": 1, "budget": Budget(0.1), **changes}
        return dataclasses.replace(ATTACK, **fields)

    def test_poisons_are_of_the_adversarial_class(self, problems):
        problem = problems["any"]
        attack = self.attack(problem)
        poisoned = attack(KEY, *problem)
        assert np.all(poisoned.dataset.y[poisoned.is_poison] == 1)
        assert np.all(problem.clean.y[poisoned.info.base] == 1)
        np.testing.assert_array_equal(poisoned.info.extras["targets"], attack.targets)

    def test_targets_of_the_adversarial_class_are_refused(self, problems):
        problem = problems["any"]
        row = int(np.flatnonzero(np.asarray(problem.task.validation.y) == 1)[0])
        with pytest.raises(ValueError, match=f"adversarial class 1 already, row {row} is"):
            self.attack(problem, targets=(row,))(KEY, *problem)

    def test_targets_that_are_not_there_are_refused(self, problems):
        problem = problems["any"]
        with pytest.raises(ValueError, match="targets must be rows of task.validation"):
            self.attack(problem, targets=(99,))(KEY, *problem)
        with pytest.raises(ValueError, match="adversarial_class must be in 0 … 2"):
            self.attack(problem, adversarial_class=3)(KEY, *problem)

    def test_targets_that_the_clean_network_gets_wrong_are_refused(self, problems):
        problem = problems["any"]
        wrong = jax.tree.map(lambda v: -v, problem.variables)
        with pytest.raises(ValueError, match="targets must be what the clean network gets right"):
            self.attack(problem)(KEY, problem.model, wrong, problem.task)

    def test_more_poisons_than_the_class_has_are_refused(self, problems):
        problem = problems["any"]
        with pytest.raises(ValueError, match="fewer than the 54 poisons"):
            self.attack(problem, budget=Budget(0.9))(KEY, *problem)


def test_a_second_call_compiles_nothing(problems):
    problem = problems["any"]
    ATTACK(KEY, *problem)
    before = craft._cache_size()
    dataclasses.replace(ATTACK)(jax.random.key(6), *problem)
    assert craft._cache_size() == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"targets": (1,)}, "targets and adversarial_class come together"),
        ({"adversarial_class": 1}, "targets and adversarial_class come together"),
        ({"networks": 0}, "networks must be >= 1"),
        ({"learning_rate": 0.0}, "learning_rate must be > 0"),
    ],
)
def test_refuses_bad_hyperparameters(arguments, message):
    with pytest.raises(ValueError, match=message):
        MetaPoison(**arguments)
