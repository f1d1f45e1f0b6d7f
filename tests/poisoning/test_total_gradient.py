"""TGDA: the gradient against retraining, a round against its equations, and the variants."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import normed
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from unlearnkit import kernels, models
from unlearnkit.base import UNIT, Dataset, Task, Variables
from unlearnkit.costs import Stopwatch
from unlearnkit.poisoning import (
    Bounds,
    Budget,
    PoisonWarning,
    TotalGradientAttack,
    attack_in_lanes,
    perturbation,
)
from unlearnkit.poisoning.placing import place
from unlearnkit.poisoning.total_gradient.attack import _warn_unsolved
from unlearnkit.poisoning.total_gradient.game import Game, GameData, draw_indices, play_epoch
from unlearnkit.poisoning.total_gradient.generator import Box, make_generator
from unlearnkit.training import Recipe, keep_trainings

KEY = jax.random.key(0)
SHAPE = (2, 2, 1)
SHORT = Recipe(epochs=150, batch_size=60, optimizer="adam", learning_rate=3e-2)
UNTRAINED = Recipe(epochs=0)
ATTACK = TotalGradientAttack(
    Budget(0.3), epochs=1, batch_size=60, hidden=(8,), pretrain=UNTRAINED, defender_steps=3
)


def make_data(dtype=jnp.float64):
    """Noisy labels, so that the cross-entropy has its minimum at finite weights."""
    x = jax.random.uniform(jax.random.key(1), (46, *SHAPE), dtype)
    y = jax.random.randint(jax.random.key(2), (46,), 0, 3)
    clean, held_out, base = (slice(0, 24), slice(24, 40), slice(40, 46))
    region = Bounds().region(x[base], UNIT)
    box = Box(region.low, region.high)
    return GameData(
        Dataset(x[clean], y[clean]), Dataset(x[held_out], y[held_out]), region, y[base], box, {}, {}
    )


def make_game(**changes):
    generator = make_generator("mlp", SHAPE, 3, hidden=(4,), in_box=True)
    model = models.create("logistic", input_shape=SHAPE, n_classes=3)
    settings = {
        "clean_weight": 0.8,
        "poison_weight": 0.2,
        "zero_sum": False,
        "solver": "tgda",
        "leads": "attacker",
        "attacker_steps": 1,
        "defender_steps": 2,
        "attacker_rate": 0.05,
        "defender_rate": 0.1,
        "cold_start": False,
        "unroll_steps": 3,
        "damping": 0.0,
        "tol": 1e-12,
        "max_solve_steps": 200,
    }
    return Game(model, generator, **{**settings, **changes})


def start(game, seed=3):
    keys = jax.random.split(jax.random.key(seed))
    pair = (game.generator.network.init(keys[0]), game.model.init(keys[1]))
    return tuple(jax.tree.map(lambda v: v.astype(jnp.float64), one.params) for one in pair)


@partial(jax.jit, static_argnums=0)
def train_fully(game, theta, w, data):
    """Newton's method; the softmax's null direction drops out of the pseudo-inverse."""
    flat, unravel = ravel_pytree(w)

    def loss(u):
        return game.defender_loss(theta, unravel(u), data)

    def step(_, v):
        return v - jnp.linalg.pinv(jax.hessian(loss)(v), rtol=1e-10) @ jax.grad(loss)(v)

    return unravel(jax.lax.fori_loop(0, 12, step, flat))


@partial(jax.jit, static_argnums=0)
def play_round(game, theta, w, data):
    return game.play_round(theta, w, data)


@partial(jax.jit, static_argnums=0)
def lead(game, theta, w, data):
    """Returns the leader after one step, and how it went."""
    solver = game.step_of_leader()
    state, info = solver.step(solver.init(theta, w), data)
    return state.leader, info


@pytest.mark.parametrize("zero_sum", [False, True])
def test_the_gradient_is_that_of_retraining_on_the_poisons(x64, zero_sum):
    # Zero-sum, the slope to be solved for is rounding at the minimum: a few steps do.
    game = make_game(zero_sum=zero_sum, max_solve_steps=2 if zero_sum else 200)
    data = make_data()
    theta, w = start(game)
    w = train_fully(game, theta, w, data)
    slope = jax.grad(game.defender_loss, argnums=1)(theta, w, data)
    assert max(jnp.abs(leaf).max() for leaf in jax.tree.leaves(slope)) < 1e-12

    leader, info = lead(game, theta, w, data)
    assert zero_sum or info.solves[0].converged
    flat, unravel = ravel_pytree(theta)
    ours = (ravel_pytree(leader)[0] - flat) / game.attacker_rate

    @jax.jit
    def retrained(u, start):
        moved = unravel(u)
        return game.attacker_loss(moved, train_fully(game, moved, start, data), data)

    for seed in range(3):
        way, h = jax.random.normal(jax.random.key(seed), flat.shape), 1e-4
        ends = [retrained(flat + sign * h * way, w) for sign in (1, -1)]
        np.testing.assert_allclose(ours @ way, (ends[0] - ends[1]) / (2 * h), rtol=1e-5)


def test_a_round_is_one_of_algorithm_1(x64):
    game, data = make_game(attacker_steps=2, defender_steps=3, damping=0.1), make_data()
    theta, w = start(game)
    got_theta, got_w, read = play_round(game, theta, w, data)
    np.testing.assert_allclose(read["attacker_loss"], game.attacker_loss(theta, w, data))
    np.testing.assert_allclose(read["defender_loss"], game.defender_loss(theta, w, data))

    @jax.jit
    def step_of_attacker(theta, w):
        gradient, _ = kernels.total_gradient(
            lambda t, v: game.attacker_loss(t, v, data),
            lambda t, v: game.defender_loss(t, v, data),
            theta,
            w,
            damping=0.1,
            tol=1e-12,
            max_steps=200,
        )
        return jax.tree.map(lambda v, g: v + 0.05 * g, theta, gradient)

    @jax.jit
    def step_of_defender(theta, w):
        slope = jax.grad(lambda v: game.defender_loss(theta, v, data))(w)
        return jax.tree.map(lambda v, g: v - 0.1 * g, w, slope)

    for _ in range(2):
        theta = step_of_attacker(theta, w)
    for _ in range(3):
        w = step_of_defender(theta, w)
    for got, want in ((got_theta, theta), (got_w, w)):
        np.testing.assert_allclose(ravel_pytree(got)[0], ravel_pytree(want)[0], atol=1e-9)


def test_the_defender_trains_on_the_true_proportion(x64):
    """Batches of any sizes: with one poison for four clean examples it is weighted by 1/5."""
    game, data = make_game(), make_data()
    theta, w = start(game)
    logits = game.model.apply(type(game.model.init(KEY))(w), data.clean.x)
    losses = -jax.nn.log_softmax(logits)[jnp.arange(24), data.clean.y]
    poisons = game.generate(theta, data)
    bad = game.model.apply(type(game.model.init(KEY))(w), poisons)
    bad_losses = -jax.nn.log_softmax(bad)[jnp.arange(6), data.labels]
    want = 0.8 * losses.mean() + 0.2 * bad_losses.mean()
    np.testing.assert_allclose(game.defender_loss(theta, w, data), want)


@pytest.fixture(scope="module")
def plain(problems):
    """Three rounds: the third is the first in which a cold start tells."""
    return dataclasses.replace(ATTACK, epochs=3, damping=0.3)(KEY, *problems["binary"])


class TestVariants:
    @pytest.mark.parametrize(
        "changes",
        [
            {"solver": "fr"},
            {"solver": "gdn", "defender_steps": 0},
            {"solver": "ugda"},
            {"zero_sum": True},
            {"leads": "defender", "defender_steps": 1, "attacker_steps": 2},
            {"leads": "defender", "defender_steps": 1, "zero_sum": True},
            {"cold_start": True},
            {"inverse": "none"},
            {"inverse": "kfac"},
            {"inverse": "cgnr"},
            {"hessian_share": 0.3},
            {"unit_steps": True},
        ],
        ids=str,
    )
    def test_each_plays_a_game_of_its_own(self, problems, plain, changes):
        problem = problems["binary"]
        attack = dataclasses.replace(ATTACK, epochs=3, damping=0.3, **changes)
        poisoned = attack(KEY, *problem)
        assert not np.array_equal(poisoned.dataset.x, plain.dataset.x)
        assert {"attacker_loss", "defender_loss"} <= set(poisoned.info.history)
        assert poisoned.info.cost.example_gradients > 0

    def test_a_cold_start_forgets_the_last_round(self, x64):
        game, data = make_game(cold_start=True, defender_steps=1), make_data()
        theta, w = start(game)
        _, elsewhere = start(game, seed=9)
        new_theta, new_w, _ = play_round(game, theta, elsewhere, data._replace(start=w))
        slope = jax.grad(lambda v: game.defender_loss(new_theta, v, data))(w)
        want = jax.tree.map(lambda v, g: v - 0.1 * g, w, slope)
        np.testing.assert_allclose(ravel_pytree(new_w)[0], ravel_pytree(want)[0])

    def test_a_defender_who_leads_descends_by_its_total_gradient(self, x64):
        """Its step, and the attacker's answer to the defender's next one."""
        game = make_game(leads="defender", defender_steps=1, attacker_steps=1, damping=2.0)
        data = make_data()
        theta, w = start(game)
        got_theta, got_w, _ = play_round(game, theta, w, data)

        @jax.jit
        def step_of_defender(theta, w):
            gradient, _ = kernels.total_gradient(
                lambda v, t: -game.defender_loss(t, v, data),
                lambda v, t: -game.anticipated(t, v, data),
                w,
                theta,
                damping=2.0,
                tol=1e-12,
                max_steps=200,
            )
            return jax.tree.map(lambda v, g: v + 0.1 * g, w, gradient)

        moved = step_of_defender(theta, w)
        np.testing.assert_allclose(ravel_pytree(got_w)[0], ravel_pytree(moved)[0], atol=1e-9)

        @jax.jit
        @jax.grad
        def slope(theta):
            descent = jax.grad(game.defender_loss, 1)(theta, moved, data)
            answer = jax.tree.map(lambda v, g: v - 0.1 * g, moved, descent)
            return game.attacker_loss(theta, answer, data)

        want = jax.tree.map(lambda v, g: v + 0.05 * g, theta, slope(theta))
        np.testing.assert_allclose(ravel_pytree(got_theta)[0], ravel_pytree(want)[0], atol=1e-9)

    def test_the_unlearnable_form_replaces_every_example(self, problems):
        problem = problems["binary"]
        attack = dataclasses.replace(ATTACK, budget=Budget(1.0), placement="perturb", zero_sum=True)
        poisoned = attack(KEY, *problem)
        assert poisoned.dataset.size == problem.clean.size
        assert bool(poisoned.is_poison.all())
        np.testing.assert_array_equal(poisoned.dataset.y, problem.clean.y)

    def test_the_generator_s_pretraining_is_kept_as_any_training(self, problems, tmp_path):
        # Its network takes images with their labels, and not the examples of the data.
        attack = dataclasses.replace(ATTACK, pretrain=dataclasses.replace(SHORT, epochs=2))
        with keep_trainings(tmp_path):
            kept = attack(KEY, *problems["binary"])
        assert any(tmp_path.iterdir())
        free = attack(KEY, *problems["binary"])
        np.testing.assert_array_equal(kept.dataset.x, free.dataset.x)

    def test_epsilon_of_one_adds_as_many_poisons_as_there_are_examples(self, problems):
        problem = problems["binary"]
        poisoned = dataclasses.replace(ATTACK, budget=Budget(1.0))(KEY, *problem)
        assert poisoned.dataset.size == 2 * problem.clean.size
        np.testing.assert_array_equal(poisoned.info.base, np.arange(problem.clean.size))

    def test_bounds_reach_the_poisons(self, problems):
        problem = problems["binary"]
        for norm in ("linf", "l2"):
            bounds = Bounds(radius=0.05, norm=norm)
            poisoned = dataclasses.replace(ATTACK, bounds=bounds)(KEY, *problem)
            delta = np.asarray(perturbation(poisoned, problem.clean)).reshape(18, -1)
            size = np.linalg.norm(delta, np.inf if norm == "linf" else 2, axis=1)
            assert size.max() <= np.float32(0.05)
            assert size.max() > 0.04


class TestInverses:
    """What stands in the place of the inverse Hessian."""

    def gradient(self, game, data):
        theta, w = start(game)
        leader, info = lead(game, theta, w, data)
        flat = ravel_pytree(theta)[0]
        return (ravel_pytree(leader)[0] - flat) / game.attacker_rate, info, (theta, w)

    def dense(self, game, data, inverse):
        """∇_θ ℓ - ∇_θw f P ∇_w ℓ, written out."""
        theta, w = start(game)
        flat, unravel = ravel_pytree(theta)
        weights, unravel_w = ravel_pytree(w)

        def f(u, v):
            return game.defender_loss(unravel(u), unravel_w(v), data)

        cross = jax.jit(jax.jacrev(jax.grad(f), argnums=1))(flat, weights)
        slope = jax.grad(lambda v: game.attacker_loss(theta, unravel_w(v), data))(weights)
        return -cross @ (inverse @ slope)

    def test_none_is_the_way_of_one_step_of_the_defender(self, x64):
        game, data = make_game(inverse="none"), make_data()
        got, info, (_, w) = self.gradient(game, data)
        size = ravel_pytree(w)[0].size
        np.testing.assert_allclose(got, self.dense(game, data, jnp.eye(size)), atol=1e-10)
        assert info.solves == ()

    def test_kfac_takes_clean_examples_and_poisons_in_their_proportion(self, x64):
        """Of one layer its factors are the moments of inputs and of slopes over what f sees."""
        game, data = make_game(inverse="kfac", damping=0.3), make_data()
        theta, w = start(game)
        kept = jax.jit(game.invert)(theta, w, data)
        x = jnp.concatenate([data.clean.x, game.generate(theta, data)]).reshape(30, -1)
        shares = jnp.repeat(jnp.array([0.8 / 24, 0.2 / 6]), jnp.array([24, 6]))
        p = jax.nn.softmax(game.model.apply(Variables(w), x.reshape(30, *SHAPE)))
        a = jnp.concatenate([x, jnp.ones((30, 1))], axis=1)
        inputs = jnp.einsum("n,ni,nj->ij", shares, a, a)
        outputs = jnp.diag(shares @ p) - jnp.einsum("n,ni,nj->ij", shares, p, p)
        pi = jnp.sqrt((jnp.trace(inputs) / 5) / (jnp.trace(outputs) / 3))
        left = jnp.linalg.inv(inputs + pi * jnp.sqrt(0.3) * jnp.eye(5))
        right = jnp.linalg.inv(outputs + jnp.sqrt(0.3) / pi * jnp.eye(3))
        v = jnp.arange(15.0).reshape(5, 3)
        got = kept({"classifier": {"kernel": v[:4], "bias": v[4]}})["classifier"]
        want = left @ v @ right
        np.testing.assert_allclose(got["kernel"], want[:4], rtol=1e-6)
        np.testing.assert_allclose(got["bias"], want[4], rtol=1e-6)

        flat, unravel = ravel_pytree(w)
        matrix = jax.vmap(lambda e: ravel_pytree(kept(unravel(e)))[0])(jnp.eye(flat.size)).T
        moved, _, _ = self.gradient(game, data._replace(kept=kept))
        np.testing.assert_allclose(moved, self.dense(game, data, matrix), atol=1e-10)

    def test_a_share_of_the_examples_makes_the_hessian_alone(self, x64):
        game, data = make_game(hessian_share=0.5, damping=0.3), make_data()
        got, info, (theta, w) = self.gradient(game, data)
        assert info.solves[0].converged
        part = data._replace(
            clean=data.clean.take(np.arange(12)),
            region=data.region.take(np.arange(3)),
            labels=data.labels[:3],
        )
        flat, unravel = ravel_pytree(w)
        hessian = jax.hessian(lambda v: game.defender_loss(theta, unravel(v), part))(flat)
        inverse = jnp.linalg.inv(hessian + 0.3 * jnp.eye(flat.size))
        np.testing.assert_allclose(got, self.dense(game, data, inverse), atol=1e-9)

    def test_a_step_of_unit_length_is_as_long_as_its_rate(self, x64):
        game, data = make_game(inverse="none", unit_steps=True), make_data()
        got, _, _ = self.gradient(game, data)
        plain, _, _ = self.gradient(make_game(inverse="none"), data)
        np.testing.assert_allclose(got, plain / jnp.linalg.norm(plain), rtol=1e-8)

    def test_factors_are_kept_for_some_rounds(self, x64):
        game, data = make_game(inverse="kfac", damping=0.3, refresh=2), make_data()
        theta, w = start(game)
        keys, sizes = tuple(jax.random.split(KEY, 3)), (6, 4, 3)
        got, _, _ = play_epoch(theta, w, data, keys, jnp.int32(0), game=game, sizes=sizes)
        rows = draw_indices(keys, 0, data, sizes)
        assert rows.clean.shape[0] == 4
        for i in range(4):
            batch = data._replace(
                clean=data.clean.take(rows.clean[i]),
                held_out=data.held_out.take(rows.held_out[i]),
                region=data.region.take(rows.poison[i]),
                labels=data.labels[rows.poison[i]],
            )
            if i % 2 == 0:
                kept = jax.jit(game.invert)(theta, w, batch)
            theta, w, _ = play_round(game, theta, w, batch._replace(kept=kept))
        np.testing.assert_allclose(ravel_pytree(got)[0], ravel_pytree(theta)[0], rtol=1e-9)

    def test_kfac_reads_convolutions_unless_they_are_bound_to_another_form(self):
        x = jax.random.uniform(KEY, (20, 4, 4, 1))
        data = Dataset(x, jnp.arange(20, dtype=jnp.int32) % 2)
        attack = dataclasses.replace(ATTACK, batch_size=20, inverse="kfac")
        options = {"input_shape": (4, 4, 1), "n_classes": 2}
        model = models.create("cnn_mnist", **options)
        variables = jax.jit(model.init)(KEY)
        task = Task(data, data, data, data)
        begun = attack.begin(KEY, model, variables, task)
        shapes = jax.eval_shape(begun.game.invert, begun.theta, variables.params, begun.setup.data)
        assert len(shapes.layers) == 3
        bound = models.create("cnn_mnist", implementation="patches", **options)
        with pytest.raises(ValueError, match="K-FAC does not know what .* conv1/kernel"):
            attack.begin(KEY, bound, variables, task)


def test_pretraining_ends_where_it_reconstructs(problems):
    problem = problems["binary"]
    gated = dataclasses.replace(ATTACK, pretrain=SHORT, reconstruction=0.2)
    poisoned = gated(KEY, *problem)
    whole = dataclasses.replace(gated, reconstruction=None)(KEY, *problem)
    costs = [result.info.cost.example_gradients for result in (poisoned, whole)]
    assert costs[0] < 0.8 * costs[1]
    assert float(poisoned.info.extras["reconstruction_error"]) < 0.22
    assert float(whole.info.extras["reconstruction_error"]) < 0.17
    assert float(poisoned.info.extras["largest_change"]) > 0.15
    never = dataclasses.replace(gated, pretrain=dataclasses.replace(SHORT, epochs=2))
    with pytest.warns(PoisonWarning, match=r"after 2 epochs, 0.2 was wanted"):
        never(KEY, *problem)


@pytest.mark.parametrize(("placement", "epsilon"), [("add", 0.5), ("perturb", 0.25)])
def test_the_game_weighs_poisons_as_the_placed_dataset_does(placement, epsilon):
    """f is the mean loss of what the defender really trains on, whoever places the poisons."""
    n = 8
    x = jax.random.uniform(jax.random.key(1), (n, *SHAPE))
    clean = Dataset(x, jnp.arange(n, dtype=jnp.int32) % 3)
    attack = dataclasses.replace(ATTACK, budget=Budget(epsilon), placement=placement)
    model = models.create("logistic", input_shape=SHAPE, n_classes=3)
    game = attack._game(model, n)
    m = round(epsilon * n)
    base = jnp.arange(m)
    poisons = 1 - x[base]
    placed, is_poison = place(clean, poisons, clean.y[base], base, placement)
    w = model.init(KEY).params
    logits = model.apply(Variables(w), placed.x)
    losses = -jnp.take_along_axis(jax.nn.log_softmax(logits), placed.y[:, None], 1)[:, 0]
    parts = losses[~is_poison].mean(), losses[is_poison].mean()
    weighed = game.clean_weight * parts[0] + game.poison_weight * parts[1]
    np.testing.assert_allclose(weighed, losses.mean(), rtol=1e-6)


def test_the_players_never_share_an_example(problems):
    problem = problems["binary"]
    setup = ATTACK._set_up(KEY, problem.task, problem.model, problem.variables)
    sizes = (setup.data.clean.size, setup.data.held_out.size)
    assert sizes == (42, 18)
    rows = [
        {image.tobytes() for image in np.asarray(part.x)}
        for part in (setup.data.clean, setup.data.held_out)
    ]
    assert not rows[0] & rows[1]
    assert {image.tobytes() for image in np.asarray(setup.data.region.base)} <= rows[0]
    indices = draw_indices(tuple(jax.random.split(KEY, 3)), 0, setup.data, (10, 4, 5))
    assert indices.clean.shape == (4, 10)
    assert indices.held_out.shape == (4, 4)
    assert indices.poison.shape == (4, 5)
    assert len(set(np.ravel(indices.clean))) == 40


def test_pretraining_reconstructs(problems):
    problem = problems["binary"]
    errors = []
    for epochs in (0, 150):
        still = dataclasses.replace(
            ATTACK,
            pretrain=dataclasses.replace(SHORT, epochs=epochs),
            attacker_rate=1e-9,
        )
        delta = perturbation(still(KEY, *problem), problem.clean)
        errors.append(float(jnp.mean(delta**2)))
    assert errors[1] < 0.5 * errors[0]


def test_the_label_is_an_input_of_the_generator():
    generator = make_generator("mlp", SHAPE, 3, hidden=(4,), in_box=True)
    params = generator.network.init(KEY).params
    x, box = jnp.full((3, *SHAPE), 0.5), Box(jnp.zeros(1), jnp.ones(1))
    made = generator(params, x, jnp.arange(3), box)
    assert made.min() > 0
    assert made.max() < 1
    assert not np.allclose(made[0], made[1])
    assert not np.allclose(made[1], made[2])


def test_the_autoencoder_returns_images_in_shape():
    generator = make_generator("autoencoder", (8, 16, 3), 4, hidden=(), in_box=False)
    params = jax.jit(generator.network.init)(KEY).params
    generate = jax.jit(generator)
    x = jax.random.normal(KEY, (2, 8, 16, 3))
    box = Box(jnp.array(-jnp.inf), jnp.array(jnp.inf))
    made = generate(params, x, jnp.array([0, 3]), box)
    assert made.shape == x.shape
    changed = generate(params, x.at[0, 0, 0, 0].add(1.0), jnp.array([0, 3]), box)
    assert not np.allclose(made[0], changed[0])
    np.testing.assert_array_equal(made[1], changed[1])


def test_a_residual_generator_begins_at_its_images_and_keeps_to_the_box():
    generator = make_generator("residual", SHAPE, 3, hidden=(5,), in_box=True)
    params = jax.jit(generator.network.init)(KEY).params
    x = jax.random.uniform(KEY, (4, *SHAPE))
    y, box = jnp.array([0, 1, 2, 0]), Box(jnp.array(0.0), jnp.array(1.0))
    np.testing.assert_array_equal(generator(params, x, y, box), x)
    slope = jax.grad(lambda p: jnp.sum(generator(p, x, y, box) ** 2))(params)
    moved = jax.tree.map(lambda p, g: p + 3.0 * g, params, slope)
    made = generator(moved, x, y, box)
    assert float(jnp.abs(made - x).max()) > 0.1
    assert 0 <= float(made.min()) <= float(made.max()) <= 1


def test_a_residual_generator_is_not_pretrained(problems):
    problem = problems["binary"]
    attack = dataclasses.replace(ATTACK, architecture="residual", pretrain=SHORT)
    info = attack(KEY, *problem).info
    assert float(info.extras["reconstruction_error"]) == 0
    plain = dataclasses.replace(ATTACK, pretrain=UNTRAINED)(KEY, *problem).info
    assert info.cost.example_gradients == plain.cost.example_gradients


def test_a_transposed_convolution_is_the_transpose_of_a_convolution():
    """<conv(x), y> = <x, up(y)> with the kernel turned and its channels exchanged."""
    from unlearnkit.models import Conv, images
    from unlearnkit.models.layers import to_nhwc
    from unlearnkit.poisoning.total_gradient.generator import _spread

    x = jax.random.normal(jax.random.key(1), (2, 8, 8, 3))
    y = jax.random.normal(jax.random.key(2), (2, 4, 4, 5))
    down, up = (
        Conv(5, 4, stride=2, padding=1, use_bias=False),
        Conv(3, 4, padding=2, use_bias=False),
    )
    kernel = jax.jit(down.init)(KEY, images(x, None))
    turned = jax.tree.map(lambda k: k[::-1, ::-1].swapaxes(2, 3), kernel)
    left = jnp.vdot(to_nhwc(jax.jit(down.apply)(kernel, images(x, None))), y)
    right = jnp.vdot(x, to_nhwc(jax.jit(up.apply)(turned, _spread(images(y, None)))))
    np.testing.assert_allclose(left, right, rtol=1e-4)


def test_solves_that_lead_nowhere_are_said():
    with pytest.warns(PoisonWarning, match="relative residual of 0.95"):
        _warn_unsolved({"residual": [0.2, 0.95]})
    _warn_unsolved({"residual": [0.95, 0.2]})
    _warn_unsolved({})


def test_a_second_call_compiles_nothing(problems):
    problem = problems["binary"]
    ATTACK(KEY, *problem)
    before = play_epoch._cache_size()
    ATTACK(jax.random.key(6), *problem)
    assert play_epoch._cache_size() == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"solver": "cg"}, "solver must be one of tgda, fr, gdn, ugda"),
        ({"leads": "both"}, "leads must be one of"),
        ({"held_out": 1.0}, "held_out must be in"),
        ({"attacker_steps": 0}, "attacker_steps must be >= 1"),
        ({"defender_steps": 0, "leads": "defender"}, "defender_steps must be >= 1"),
        ({"attacker_rate": 0.0}, "attacker_rate must be > 0"),
        ({"damping": -1.0}, "damping must be >= 0"),
        ({"cold_start": True, "leads": "defender"}, "cold_start needs leads='attacker'"),
        ({"inverse": "exact"}, "inverse must be one of none, kfac, minres, cg, cgnr"),
        ({"inverse": "kfac", "solver": "fr"}, "inverse='kfac' needs solver='tgda'"),
        ({"inverse": "none", "leads": "defender"}, "inverse='none' needs .*leads='attacker'"),
        ({"inverse": "kfac", "damping": 0.0}, "inverse='kfac' needs damping > 0"),
        ({"hessian_share": 0.0}, r"hessian_share must be in \(0, 1\]"),
        ({"hessian_share": 0.5, "solver": "gdn"}, "hessian_share < 1 needs solver='tgda'"),
        ({"refresh": 0}, "refresh must be >= 1"),
        ({"precision": "double"}, "precision must be one of"),
        ({"reconstruction": 0.0}, "reconstruction must be > 0"),
    ],
)
def test_refuses_bad_hyperparameters(arguments, message, unchecked_types):
    with pytest.raises(ValueError, match=message):
        TotalGradientAttack(**arguments)


def test_refuses_what_the_data_cannot_give(problems):
    with pytest.raises(ValueError, match="batch_size=1000 is larger than the training set"):
        dataclasses.replace(ATTACK, batch_size=1000)(KEY, *problems["binary"])
    with pytest.raises(ValueError, match="sides divisible by 8"):
        dataclasses.replace(ATTACK, architecture="autoencoder")(KEY, *problems["binary"])


def test_each_lane_has_the_running_statistics_of_its_network():
    keys = jax.random.split(jax.random.key(8), 2)
    attack = dataclasses.replace(
        ATTACK, batch_size=16, damping=0.3, cold_start=True, attacker_rate=1.0
    )
    one = normed.LINEN.init(jax.random.key(7))
    two = one._replace(state=jax.tree.map(lambda leaf: leaf - 0.6, one.state))
    networks = jax.tree.map(lambda *leaves: jnp.stack(leaves), one, two)
    lanes = attack_in_lanes(attack, keys, normed.LINEN, networks, normed.TASK)
    for key, network, lane in zip(keys, (one, two), lanes, strict=True):
        alone = attack(key, normed.LINEN, network, normed.TASK)
        np.testing.assert_allclose(lane.dataset.x, alone.dataset.x, rtol=1e-3, atol=1e-4)
    swapped = attack(keys[1], normed.LINEN, one, normed.TASK)
    assert np.abs(lanes[1].dataset.x - swapped.dataset.x).max() > 0.01


def test_lanes_are_each_the_attack_alone(problems, monkeypatch):
    model, variables, task = problems["binary"]
    attack = dataclasses.replace(
        ATTACK, epochs=2, damping=0.3, pretrain=dataclasses.replace(SHORT, epochs=2)
    )
    keys = jax.random.split(jax.random.key(8), 2)
    other = jax.tree.map(lambda leaf: leaf + 0.1, variables)
    networks = jax.tree.map(lambda *leaves: jnp.stack(leaves), variables, other)
    lanes = attack_in_lanes(attack, keys, model, networks, task)
    for key, network, lane in zip(keys, (variables, other), lanes, strict=True):
        alone = attack(key, model, network, task)
        np.testing.assert_allclose(lane.dataset.x, alone.dataset.x, rtol=1e-3, atol=1e-4)
        np.testing.assert_array_equal(lane.dataset.y, alone.dataset.y)
        np.testing.assert_array_equal(lane.info.base, alone.info.base)
        np.testing.assert_allclose(
            lane.info.cost.example_gradients, alone.info.cost.example_gradients, rtol=0.05
        )
        for name, values in alone.info.history.items():
            assert lane.info.history[name].shape == values.shape
            if name != "solve_steps":
                np.testing.assert_allclose(lane.info.history[name], values, rtol=1e-2, atol=1e-3)
    assert not np.allclose(lanes[0].dataset.x, lanes[1].dataset.x)

    class Eight(Stopwatch):
        """A stopwatch that says 8 s, 6 s of them compiling, whatever passed."""

        def __exit__(self, *_):
            super().__exit__(*_)
            self.seconds, self.compile_seconds = 2.0, 6.0

    monkeypatch.setattr("unlearnkit.poisoning.total_gradient.lanes.Stopwatch", Eight)
    costs = [lane.info.cost for lane in attack_in_lanes(attack, keys, model, networks, task)]
    assert [(cost.seconds, cost.compile_seconds) for cost in costs] == [(1.0, 3.0)] * 2
    with pytest.raises(ValueError, match=r"as many lanes as keys \(3"):
        attack_in_lanes(attack, jax.random.split(KEY, 3), model, networks, task)
