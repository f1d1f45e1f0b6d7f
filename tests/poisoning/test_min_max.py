"""Min-max: the furthest point against a general solver, and the rounds by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from unlearnkit.base import Dataset, Variables
from unlearnkit.poisoning import Bounds, Budget, ImprovedMinMax, LabelFlip, MinMax, PoisonWarning
from unlearnkit.poisoning._feasible import Ball, HalfSpace, furthest, furthest_within
from unlearnkit.poisoning._saddle import Saddle, hinge
from unlearnkit.poisoning.min_max import make_feasible_set
from unlearnkit.training import Recipe, fit

KEY = jax.random.key(0)
D = 4


def maximise(g, low, high, centre, radius, half_space=None):
    """argmax g·x by a general solver."""
    limits = [{"type": "ineq", "fun": lambda x: radius**2 - np.sum((x - centre) ** 2)}]
    if half_space is not None:
        limits.append({"type": "ineq", "fun": lambda x: half_space[1] - half_space[0] @ x})
    best = None
    for start in (centre, np.clip(centre - 0.01 * g, low, high)):
        found = minimize(
            lambda x: -g @ x,
            start,
            jac=lambda x: -g,
            bounds=list(zip(low, high, strict=True)),
            constraints=limits,
            method="SLSQP",
            options={"ftol": 1e-13, "maxiter": 300},
        )
        # It calls a maximum at the rounding of its line search a failure: ask whether it may be.
        allowed = min(limit["fun"](found.x) for limit in limits) > -1e-8
        if allowed and (best is None or -found.fun > best):
            best = -found.fun
    return best


def random_ball(seed, radius):
    generator = np.random.default_rng(seed)
    low, high = np.zeros(D), np.ones(D)
    return generator.normal(size=D), low, high, generator.uniform(0.1, 0.9, D), radius


@settings(max_examples=20)
@given(st.integers(0, 500), st.sampled_from([0.05, 0.4, 0.9, 1.2, 5.0]))
def test_the_furthest_point_is_that_of_a_general_solver(seed, radius):
    with jax.enable_x64(True):
        g, low, high, centre, radius = random_ball(seed, radius)
        ball = Ball(*map(jnp.asarray, (low, high, centre, radius)))
        x = np.asarray(jax.jit(furthest)(jnp.asarray(g), ball))
    assert np.all((x >= low) & (x <= high))
    assert np.linalg.norm(x - centre) <= radius * (1 + 1e-12)  # summed in another order
    np.testing.assert_allclose(g @ x, maximise(g, low, high, centre, radius), atol=1e-6)


@settings(max_examples=20)
@given(st.integers(0, 500), st.sampled_from([0.3, 0.8, 5.0]), st.floats(-0.3, 0.3))
def test_the_furthest_point_within_a_half_space_too(seed, radius, room):
    with jax.enable_x64(True):
        g, low, high, centre, radius = random_ball(seed, radius)
        a = np.random.default_rng(seed + 1).normal(size=D)
        ball = Ball(*map(jnp.asarray, (low, high, centre, radius)))
        least = a @ np.asarray(furthest(-jnp.asarray(a), ball))
        offset = max(a @ centre + room, least + 1e-3)
        half_space = HalfSpace(jnp.asarray(a), jnp.asarray(offset))
        x, feasible = jax.jit(furthest_within)(jnp.asarray(g), ball, half_space)
        x = np.asarray(x)
    assert bool(feasible)
    assert np.all((x >= low - 1e-12) & (x <= high + 1e-12))
    assert np.linalg.norm(x - centre) <= radius + 1e-9
    assert a @ x <= offset + 1e-9
    want = maximise(g, low, high, centre, radius, (a, offset))
    np.testing.assert_allclose(g @ x, want, atol=1e-5)


def test_without_a_sphere_it_is_a_corner_and_without_a_box_a_pole():
    g = jnp.array([1.0, -2.0, 0.0, 3.0])
    corner = furthest(g, Ball(jnp.zeros(D), jnp.ones(D), jnp.full(D, 0.3), jnp.asarray(jnp.inf)))
    np.testing.assert_allclose(corner, [1.0, 0.0, 0.3, 1.0])
    free = jnp.full(D, jnp.inf)
    pole = furthest(g, Ball(-free, free, jnp.full(D, 0.3), jnp.asarray(2.0)))
    np.testing.assert_allclose(pole, 0.3 + 2 * g / jnp.linalg.norm(g), rtol=1e-5)


def test_where_the_sets_do_not_meet_it_says_so():
    ball = Ball(jnp.zeros(D), jnp.ones(D), jnp.full(D, 0.5), jnp.asarray(0.1))
    x, feasible = furthest_within(jnp.ones(D), ball, HalfSpace(jnp.ones(D), jnp.asarray(-1.0)))
    assert not bool(feasible)
    np.testing.assert_allclose(x, 0.45, rtol=1e-5)  # the nearest to the half-space


def test_a_direction_of_zero_stays_at_the_centre():
    ball = Ball(jnp.zeros(D), jnp.ones(D), jnp.full(D, 0.3), jnp.asarray(0.1))
    np.testing.assert_array_equal(furthest(jnp.zeros(D), ball), ball.centre)


def test_the_hinge_against_hand_computed():
    logits = jnp.array([[2.0, 0.5, -1.0], [0.0, 0.3, 0.2]])
    np.testing.assert_allclose(hinge(logits, jnp.array([0, 2])), [0.0, 1.1], rtol=1e-6)


def make_saddle(model, **changes):
    settings = {
        "poison_weight": 0.1,
        "learning_rate": 0.1,
        "weight_decay": 0.01,
        "batch_size": 60,
        "ascent_steps": 1,
        "tau": 0.0,
    }
    return Saddle(model, **{**settings, **changes})


@pytest.mark.parametrize("name", ["binary", "linear"])
def test_the_worst_point_is_the_worst_of_box_and_sphere(problems, linear, name):
    problem = {**problems, "linear": linear}[name]
    feasible_set = make_feasible_set(problem.clean, problem.model.n_classes, Bounds(), 0.9)
    point = jax.jit(make_saddle(problem.model).worst_point)(problem.variables, feasible_set)
    weights = np.asarray(problem.variables.params["classifier"]["kernel"], np.float64).T
    bias = np.asarray(problem.variables.params["classifier"]["bias"], np.float64)
    best = max(
        1
        + bias[j]
        - bias[y]
        + maximise(
            weights[j] - weights[y],
            np.zeros(16),
            np.ones(16),
            np.asarray(feasible_set.ball.centre[y], np.float64).ravel(),
            float(feasible_set.ball.radius[y]),
        )
        for y in range(len(bias))
        for j in range(len(bias))
        if j != y
    )
    np.testing.assert_allclose(point.loss, best, rtol=1e-4)
    assert float(point.x.min()) >= 0
    assert float(point.x.max()) <= 1
    distance = jnp.linalg.norm(point.x - feasible_set.ball.centre[point.y])
    assert distance <= feasible_set.ball.radius[point.y] * (1 + 1e-6)


def test_more_steps_climb_higher_where_the_network_is_curved(problems):
    problem = problems["any"]
    feasible_set = make_feasible_set(problem.clean, 3, Bounds(), 0.9)
    losses = [
        float(
            make_saddle(problem.model, ascent_steps=k)
            .worst_point(problem.variables, feasible_set)
            .loss
        )
        for k in (1, 30)
    ]
    assert losses[1] >= losses[0]


def test_the_rounds_are_those_of_the_algorithm(problems):
    problem = problems["binary"]
    n = problem.clean.size
    attack = MinMax(Budget(count=2), burn_in=1, learning_rate=0.1, weight_decay=0.01, batch_size=n)
    poisoned = attack(KEY, *problem)
    feasible_set = make_feasible_set(problem.clean, 2, Bounds(), 0.95)
    saddle = make_saddle(problem.model, poison_weight=2 / n)
    optimizer = optax.adagrad(0.1)
    params, memory = problem.variables.params, optimizer.init(problem.variables.params)
    found = []
    for step in range(3):
        point = saddle.worst_point(Variables(params), feasible_set)
        found.append(point)
        rows = jax.random.randint(jax.random.fold_in(KEY, step), (n,), 0, n)
        batch = problem.clean.take(rows)

        def loss(w, batch=batch, point=point):
            good = hinge(problem.model.apply(Variables(w), batch.x), batch.y).mean()
            bad = hinge(problem.model.apply(Variables(w), point.x[None]), point.y[None])[0]
            square = sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(w))
            return good + 2 / n * bad + 0.01 / 2 * square

        updates, memory = optimizer.update(jax.grad(loss)(params), memory)
        params = optax.apply_updates(params, updates)
    poisons = poisoned.dataset.x[poisoned.is_poison]
    np.testing.assert_allclose(poisons, jnp.stack([p.x for p in found[1:]]), atol=2e-3)
    np.testing.assert_array_equal(
        poisoned.dataset.y[poisoned.is_poison], jnp.stack([p.y for p in found[1:]])
    )
    np.testing.assert_allclose(
        poisoned.info.history["poison_loss"], [p.loss for p in found], rtol=1e-3
    )


IMPROVED = ImprovedMinMax(
    Budget(0.1),
    burn_in=3,
    batch_size=60,
    recipe=Recipe(epochs=30, batch_size=20, learning_rate=0.3, momentum=0.0),
)


def test_poisons_are_easy_for_the_decoy(problems):
    problem = problems["binary"]
    tight = IMPROVED(KEY, *problem).info.history
    assert tight["decoy_loss"].max() <= 0.5 * (1 + 1e-3)
    assert tight["decoy_loss"].max() > 0.4  # the constraint decides
    assert tight["poison_loss"].min() > 0.5


def test_a_tau_that_nothing_meets_is_said(problems):
    """Two tight clusters that a decoy of flipped labels has the wrong way round."""
    model, _, task = problems["binary"]

    def gather(part):
        noise = 0.02 * (part.x - 0.5)
        return part._replace(x=0.2 + 0.6 * part.y[:, None, None, None] + noise)

    clusters = jax.tree.map(gather, task, is_leaf=lambda part: isinstance(part, Dataset))
    recipe = Recipe(epochs=30, batch_size=20, learning_rate=0.3)
    learned = fit(KEY, model, clusters.train, recipe).variables
    impossible = ImprovedMinMax(
        Budget(0.1),
        burn_in=0,
        batch_size=60,
        sphere=0.01,
        tau=0.0,
        decoy=LabelFlip(Budget(1.0), "runner_up", "perturb"),
        recipe=IMPROVED.recipe,
    )
    with pytest.warns(PoisonWarning, match="above tau=0 under the decoy"):
        impossible(KEY, model, learned, clusters)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: MinMax(bounds=Bounds(radius=0.1)), "bounds.radius must be None"),
        (lambda: MinMax(bounds=Bounds(box=None), sphere=None), "cannot both be None"),
        (lambda: MinMax(sphere=1.5), r"sphere must be a quantile in \(0, 1\]"),
        (lambda: MinMax(ascent_steps=0), "ascent_steps must be >= 1"),
        (lambda: MinMax(weight_decay=-1.0), "weight_decay must be >= 0"),
        (lambda: ImprovedMinMax(tau=-0.1), "tau must be >= 0"),
    ],
)
def test_refuses_bad_hyperparameters(make, message):
    with pytest.raises(ValueError, match=message):
        make()
