"""Gradient canceling and the weights it leads to."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from unlearnkit.base import Variables
from unlearnkit.poisoning import Bounds, Budget, GradientCanceling, GradPC, PoisonWarning
from unlearnkit.poisoning._canceling import Balance, Canceling, choose, step, threshold
from unlearnkit.poisoning._gradients import mean_gradient
from unlearnkit.training import cross_entropy

KEY = jax.random.key(0)
ATTACK = GradientCanceling(Budget(0.3), corruption=GradPC(radius=0.3), steps=600)


def flat(tree):
    return np.asarray(ravel_pytree(tree)[0], np.float64)


def total_gradient(problem, params, dataset):
    def loss(w):
        return cross_entropy(problem.model.apply(Variables(w), dataset.x), dataset.y)

    return jax.jit(jax.grad(loss))(params)


class TestCorruption:
    @pytest.mark.parametrize("norm", ["l2", "linf"])
    def test_is_in_the_ball_and_raises_the_loss(self, problems, norm):
        problem = problems["any"]
        low = GradPC(radius=0.3, norm=norm)(problem.model, problem.variables, problem.clean)
        moved = flat(low.params) - flat(problem.variables.params)
        size = np.abs(moved).max() if norm == "linf" else np.linalg.norm(moved)
        np.testing.assert_allclose(size, 0.3, rtol=1e-5)
        losses = [
            cross_entropy(problem.model.apply(v, problem.clean.x), problem.clean.y)
            for v in (problem.variables, low)
        ]
        assert losses[1] > losses[0]

    def test_the_first_steps_against_hand_computed(self, problems):
        problem = problems["any"]
        gradient = flat(total_gradient(problem, problem.variables.params, problem.clean))
        for norm, want in (
            ("l2", 0.1 * gradient / np.linalg.norm(gradient)),
            ("linf", 0.1 * np.sign(gradient)),
        ):
            attack = GradPC(norm=norm, steps=1)
            low = attack(problem.model, problem.variables, problem.clean)
            moved = flat(low.params) - flat(problem.variables.params)
            np.testing.assert_allclose(moved, want, atol=1e-5)

    def test_only_the_steepest_entries_move(self, problems):
        problem = problems["any"]
        gradient = flat(total_gradient(problem, problem.variables.params, problem.clean))
        low = GradPC(top=5, steps=3)(problem.model, problem.variables, problem.clean)
        moved = np.flatnonzero(flat(low.params) != flat(problem.variables.params))
        assert set(moved) == set(np.argsort(-np.abs(gradient))[:5])

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"radius": 0.0}, "radius must be finite and > 0"),
            ({"norm": "l1"}, "norm must be one of"),
            ({"top": 0}, "top must be >= 1"),
            ({"steps": 0}, "steps must be >= 1"),
        ],
    )
    def test_refuses_bad_hyperparameters(self, arguments, message, unchecked_types):
        with pytest.raises(ValueError, match=message):
            GradPC(**arguments)

    def test_refuses_more_entries_than_there_are(self, problems):
        problem = problems["any"]
        with pytest.raises(ValueError, match="top must be <="):
            GradPC(top=10**6)(problem.model, problem.variables, problem.clean)


@pytest.fixture(scope="module")
def attacked(linear):
    return linear, ATTACK(KEY, *linear)


def target_of(poisoned):
    """The bad weights, by name."""
    extras = poisoned.info.extras
    return {k.removeprefix("target/"): v for k, v in extras.items() if k.startswith("target/")}


def test_the_poisoned_set_has_almost_no_gradient_at_the_bad_weights(attacked):
    problem, poisoned = attacked
    named = target_of(poisoned)
    params = {"classifier": {k.split("/")[1]: v for k, v in named.items()}}
    clean, base, final = np.asarray(poisoned.info.extras["gradient_norm"])
    measured = [
        np.linalg.norm(flat(total_gradient(problem, params, data)))
        for data in (problem.clean, poisoned.dataset)
    ]
    np.testing.assert_allclose(measured[0], clean, rtol=1e-4)
    # The mean over the whole set has 1 / (1 + r) of it.
    np.testing.assert_allclose(measured[1], final / 1.3, rtol=1e-3, atol=1e-6)
    assert final < 0.1 * clean
    assert final < 0.1 * base


def test_training_on_the_poisons_leads_toward_the_bad_weights(attacked):
    """Gradient descent arrives there, before it drifts along what the poisons leave flat."""
    problem, poisoned = attacked
    start, unravel = ravel_pytree(problem.variables.params)
    goal = flat({"classifier": {k.split("/")[1]: v for k, v in target_of(poisoned).items()}})

    @jax.jit
    def loss(u, data):
        return cross_entropy(problem.model.apply(Variables(unravel(u)), data.x), data.y)

    slope, trained = jax.jit(jax.grad(loss)), start
    for _ in range(200):
        trained -= 0.05 * slope(trained, poisoned.dataset)
    distances = [np.linalg.norm(np.asarray(u) - goal) for u in (start, trained)]
    assert distances[1] < 0.2 * distances[0]
    before, after, bad = (float(loss(u, problem.clean)) for u in (start, trained, goal))
    assert after - before > 0.8 * (bad - before) > 0


@pytest.mark.parametrize("parameters", [(), ("fc1",), ("classifier/kernel",)])
def test_the_derivative_is_that_of_central_differences(problems, x64, parameters):
    problem = problems["any"]
    to_double = lambda v: v.astype(jnp.float64) if v.dtype == jnp.float32 else v  # noqa: E731
    model, variables, task = (problem.model, *jax.tree.map(to_double, tuple(problem)[1:]))
    clean = task.train
    gradient = mean_gradient(model, variables, clean.x, clean.y, chunk=60)
    region = Bounds(box=None).region(clean.x[:6], clean.normalisation)
    balance = Balance(variables, gradient, jnp.asarray(0.1), region, (clean.y[:6] + 1) % 3)
    rules = Canceling(model, "sgd", 1.0, 10, parameters, 60)

    @jax.jit
    def dense(x):
        def loss(w):
            poisons = cross_entropy(model.apply(Variables(w), x), balance.labels)
            return cross_entropy(model.apply(Variables(w), clean.x), clean.y) + 0.1 * poisons

        total = jax.grad(loss)(variables.params)
        parts = {
            (): total,
            ("fc1",): total["fc1"],
            ("classifier/kernel",): total["classifier"]["kernel"],
        }[parameters]
        return sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(parts)) / 2

    x = region.base
    loss, slope = jax.jit(rules.loss_and_slope)(x, balance)
    np.testing.assert_allclose(loss, dense(x), rtol=1e-10)
    way, h = jax.random.normal(KEY, x.shape, jnp.float64), 1e-5
    ends = dense(x + h * way), dense(x - h * way)
    np.testing.assert_allclose(
        jnp.vdot(slope, way), (ends[0] - ends[1]) / (2 * h), rtol=1e-6, atol=1e-12
    )
    moved, _, _ = step(x, rules.direction.init(x), balance, jnp.int32(5), rules=rules)
    np.testing.assert_allclose(moved, x - 0.5 * 6 * slope, atol=1e-12)  # half-way: half the rate
    adam = dataclasses.replace(rules, optimizer="adam")
    moved, _, _ = step(x, adam.direction.init(x), balance, jnp.int32(5), rules=adam)
    size = jnp.abs(6 * slope)
    np.testing.assert_allclose(moved, x - 0.5 * jnp.sign(slope) * size / (size + 1e-8), atol=1e-9)


def test_names_choose_leaves_and_what_is_under_them():
    one = jnp.ones(1)
    params = {"fc1": {"bias": one, "kernel": one}, "fc10": {"kernel": one}}
    assert set(choose(params, ("fc1",))) == {"fc1/bias", "fc1/kernel"}
    assert set(choose(params, ("fc10/kernel", "fc1/bias"))) == {"fc10/kernel", "fc1/bias"}
    assert len(choose(params, ())) == 3


def test_in_place_the_others_are_what_is_cancelled(linear):
    attack = dataclasses.replace(ATTACK, placement="perturb", steps=50, budget=Budget(0.1))
    poisoned = dataclasses.replace(attack, corruption=GradPC(radius=1e-3))(KEY, *linear)
    rest = linear.clean.take(np.flatnonzero(~np.asarray(poisoned.is_poison)))
    low = GradPC(radius=1e-3)(linear.model, linear.variables, linear.clean)
    want = np.linalg.norm(flat(total_gradient(linear, low.params, rest)))
    np.testing.assert_allclose(poisoned.info.extras["gradient_norm"][0], want, rtol=1e-3)


QUIET = pytest.mark.filterwarnings("ignore::unlearnkit.poisoning.PoisonWarning")


@QUIET
def test_adam_cancels_where_plain_descent_is_slow(linear):
    """By steps in the units of the inputs, whatever the size of the slopes."""
    norms = {}
    for name, rate in (("adam", 0.1), ("sgd", 0.1)):
        attack = dataclasses.replace(ATTACK, steps=60, optimizer=name, learning_rate=rate)
        norms[name] = np.asarray(attack(KEY, *linear).info.extras["gradient_norm"])
    assert norms["adam"][2] < 0.5 * norms["sgd"][2]


@QUIET
def test_the_public_step_is_in_units_of_summed_gradients(linear):
    """10 on the square of n g_c + m g_p moves as 20 n / r on half that of g_c + r g_p."""
    attack = dataclasses.replace(ATTACK, steps=1, budget=Budget(0.5), learning_rate=None)
    said = dataclasses.replace(attack, learning_rate=20 * 60 / 0.5)
    one, other = (a(KEY, *linear).dataset.x for a in (attack, said))
    np.testing.assert_array_equal(one, other)


class TestReach:
    def test_the_threshold_is_what_the_best_poison_can_do(self, linear):
        """<w, ∇_w CE> of any example is no less than -w((c - 1) / e), which one logit attains."""
        low = GradPC(radius=0.5)(linear.model, linear.variables, linear.clean)
        gradient = mean_gradient(linear.model, low, linear.clean.x, linear.clean.y, chunk=60)
        t = np.linspace(0, 6, 100_001)
        least = np.max(t * 2 / (np.exp(t) + 2))  # of three classes: logits (t, 0, 0)
        inner = flat(low.params) @ flat(gradient)
        np.testing.assert_allclose(
            threshold(linear.model, low, gradient), max(0, inner / least), rtol=1e-5
        )

    @QUIET
    def test_fewer_poisons_leave_what_it_says_and_more_cancel_it(self, attacked):
        """Whatever r poisons do, <W, g_c + r g_p> >= (τ - r) w((c - 1) / e)."""
        problem, poisoned = attacked
        assert poisoned.info.extras["threshold"] <= 0.3
        far = GradPC(radius=3.0, step_size=0.5)
        one = dataclasses.replace(ATTACK, budget=Budget(count=1), corruption=far, steps=100)
        extras = one(KEY, *problem).info.extras
        missing = float(extras["threshold"]) - 1 / 60
        assert missing > 0
        size = np.sqrt(sum(float(jnp.sum(extras[f"target/classifier/{n}"] ** 2))
                           for n in ("kernel", "bias")))  # fmt: skip
        least = 0.4630  # w(2 / e)
        assert extras["gradient_norm"][2] >= 0.999 * missing * least / size

    def test_the_furthest_weights_that_are_reached_are_taken(self, linear):
        attack = dataclasses.replace(ATTACK, radii=(0.05, 0.3, 0.6, 3.0), steps=2)
        about = linear.model, linear.variables, linear.clean
        low = {radius: GradPC(radius=radius)(*about) for radius in attack.radii}
        extras = attack(KEY, *linear).info.extras
        reached = np.asarray(extras["radii_threshold"]) <= 0.3
        assert 0 < reached.sum() < 4
        best = max(r for r, ok in zip(attack.radii, reached, strict=True) if ok)
        named = {k.removeprefix("target/"): v for k, v in extras.items() if "target/" in k}
        np.testing.assert_array_equal(
            named["classifier/kernel"], low[best].params["classifier"]["kernel"]
        )
        accuracy = np.asarray(extras["radii_accuracy"])
        assert accuracy[0] > accuracy[-1]  # further weights are worse
        assert extras["target_accuracy"] == accuracy[list(attack.radii).index(best)]

    @QUIET
    def test_where_none_is_reached_it_is_said(self, linear):
        attack = dataclasses.replace(
            ATTACK, radii=(3.0, 5.0), budget=Budget(count=1), steps=1,
            corruption=GradPC(step_size=0.5),
        )  # fmt: skip
        with pytest.warns(PoisonWarning, match=r"no radius of \(3.0, 5.0\) is reached"):
            attack(KEY, *linear)


def test_bounds_hold(linear):
    attack = dataclasses.replace(ATTACK, bounds=Bounds(radius=0.1), steps=20)
    poisoned = attack(KEY, *linear)
    base = linear.clean.x[poisoned.info.base]
    delta = np.abs(np.asarray(poisoned.dataset.x[poisoned.is_poison] - base))
    assert 0.09 < delta.max() <= np.float32(0.1)


def test_weights_out_of_reach_are_said(linear):
    attack = dataclasses.replace(
        ATTACK, budget=Budget(count=1), corruption=GradPC(radius=5.0), steps=2
    )
    with pytest.warns(PoisonWarning, match="the bad weights are not reached"):
        attack(KEY, *linear)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": 0}, "steps must be >= 1"),
        ({"learning_rate": 0.0}, "learning_rate must be > 0"),
        ({"optimizer": "adam", "learning_rate": None}, "learning_rate must be given for adam"),
        ({"radii": (0.1, 0.0)}, "radius must be finite and > 0"),
    ],
)
def test_refuses_bad_hyperparameters(changes, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(ATTACK, **changes)


def test_refuses_what_cannot_be_cancelled(linear):
    with pytest.raises(ValueError, match="'fc9', which the network has not; it has classifier"):
        dataclasses.replace(ATTACK, parameters=("fc9",))(KEY, *linear)
    with pytest.raises(ValueError, match="cannot be perturbed in place"):
        dataclasses.replace(ATTACK, budget=Budget(1.0), placement="perturb")(KEY, *linear)
