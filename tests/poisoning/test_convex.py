"""The attacks on linear classifiers of two classes, against dense and retrained oracles."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import minimize

from unlearnkit.kernels import svm
from unlearnkit.poisoning import (
    Bounds,
    Budget,
    InfluenceAttack,
    KktAttack,
    LabelFlip,
    PoisonSvm,
    PoisonWarning,
)
from unlearnkit.poisoning._convex import held_out_loss, make_binary, signs, warn_unconverged
from unlearnkit.poisoning.kkt import Decoy, clean_gradient, solve
from unlearnkit.poisoning.min_max import make_feasible_set

KEY = jax.random.key(0)


def to_x64(problem):
    return jax.tree.map(
        lambda v: v.astype(jnp.float64) if v.dtype == jnp.float32 else v, problem.clean
    )


@pytest.fixture
def setting(problems, x64):
    clean = to_x64(problems["binary"])
    binary = make_binary(clean.take(np.arange(2, 40)), clean.take(np.arange(40, 60)))
    x, weight = clean.x[:2], jnp.array([3.0, 2.0])
    return x, signs(1 - clean.y[:2]), weight, binary


def test_the_influence_is_the_dense_formula(setting):
    x, labels, weight, binary = setting
    settings = {"C": 0.5, "loss": "logistic"}
    gradient, told = jax.grad(held_out_loss, has_aux=True)(x, labels, weight, binary, **settings)
    assert bool(told.converged)
    np.testing.assert_allclose(binary.share, 58 / 38)

    def objective(w, x):
        clean = binary.signs * (binary.features @ w[:-1] + w[-1])
        bad = labels * (x.reshape(2, -1) @ w[:-1] + w[-1])
        losses = binary.share * jax.nn.softplus(-clean).sum() + weight @ jax.nn.softplus(-bad)
        return jnp.sum(w[:-1] ** 2) / 2 + 0.5 * losses

    def outer(w):
        margins = binary.held_out_signs * (binary.held_out @ w[:-1] + w[-1])
        return jax.nn.softplus(-margins).mean()

    w = jnp.zeros(17)
    for _ in range(15):
        w = w - jnp.linalg.solve(jax.hessian(objective)(w, x), jax.grad(objective)(w, x))
    cross = jax.jacobian(jax.grad(objective), argnums=1)(w, x)
    response = jnp.linalg.solve(jax.hessian(objective)(w, x), jax.grad(outer)(w))
    np.testing.assert_allclose(gradient, -jnp.tensordot(response, cross, 1), rtol=1e-6, atol=1e-12)


def test_the_svm_gradient_is_that_of_retraining(setting):
    x, labels, weight, binary = setting
    settings = {"C": 0.5, "loss": "hinge"}

    def loss(x):
        return held_out_loss(x, labels, weight, binary, **settings)[0]

    gradient = jax.grad(loss)(x)
    assert jnp.linalg.norm(gradient) > 0
    for seed in range(2):
        way, h = jax.random.normal(jax.random.key(seed), x.shape), 1e-6
        slope = (loss(x + h * way) - loss(x - h * way)) / (2 * h)
        np.testing.assert_allclose(jnp.vdot(gradient, way), slope, rtol=1e-4)


@pytest.mark.parametrize(
    "attack",
    [
        InfluenceAttack(Budget(0.2), steps=15, step_size=0.2),
        PoisonSvm(Budget(0.1), steps=10, step_size=0.3),
    ],
    ids=["influence", "poison_svm"],
)
def test_poisons_raise_the_loss_of_the_classifier(problems, attack):
    losses = np.asarray(attack(KEY, *problems["binary"]).info.history["attacker_loss"])
    last_moves = losses.reshape(-1, attack.steps)
    assert np.all(last_moves[:, -1] > last_moves[:, 0])


def test_influence_copies_one_point_of_each_class(problems):
    problem = problems["binary"]
    poisoned = InfluenceAttack(Budget(count=7), steps=3)(KEY, *problem)
    x = np.asarray(poisoned.dataset.x[poisoned.is_poison])
    y = np.asarray(poisoned.dataset.y[poisoned.is_poison])
    assert sorted(np.bincount(y)) == [3, 4]
    for label in (0, 1):
        own = x[y == label]
        np.testing.assert_array_equal(own, own[:1].repeat(len(own), 0))
    np.testing.assert_array_equal(y, 1 - problem.clean.y[poisoned.info.base])


def test_training_sets_of_one_class_are_refused(problems):
    model, variables, task = problems["binary"]
    parts = [part._replace(y=jnp.zeros_like(part.y)) for part in task[:2]]
    for attack in (InfluenceAttack(), KktAttack()):
        with pytest.raises(ValueError, match="examples of both classes"):
            attack(KEY, model, variables, task._replace(retain=parts[0], forget=parts[1]))


def test_networks_are_refused(problems):
    from unlearnkit import models

    model = models.create("mlp", input_shape=(4, 4, 1), n_classes=2, hidden=(3,))
    variables = model.init(KEY)
    for attack in (InfluenceAttack(), KktAttack(), PoisonSvm()):
        with pytest.raises(ValueError, match="got 2 layers; for networks use total_gradient"):
            attack(KEY, model, variables, problems["binary"].task)


def test_trainings_that_do_not_converge_are_said():
    with pytest.warns(PoisonWarning, match="1 of 3 trainings of the defender"):
        warn_unconverged(np.array([True, False, True]))
    warn_unconverged(np.array([True, True]))


class TestKkt:
    def make(self, problems):
        clean = to_x64(problems["binary"])
        flipped = signs(clean.y).at[::3].multiply(-1)
        target = svm(clean.x.reshape(60, -1), flipped, C=0.5, loss="squared_hinge")
        return clean, Decoy(target.weights, target.bias)

    def test_the_points_are_those_of_a_general_solver(self, problems, x64):
        clean, decoy = self.make(problems)
        ball = make_feasible_set(clean, 2, Bounds(), 0.9).ball
        found = solve(clean, decoy, ball, jnp.array([4.0]), 10.0, C=0.5, steps=3000)
        pull, lean = (np.asarray(v) for v in clean_gradient(clean, decoy, 0.5))
        numbers = np.array([-6.0, 4.0])
        centre, radius = np.asarray(ball.centre).reshape(2, -1), np.asarray(ball.radius)
        w, b = np.asarray(decoy.weights), float(decoy.bias)

        def distance(v, i):
            return radius[i] ** 2 - np.sum((v.reshape(2, -1)[i] - centre[i]) ** 2)

        def residual(v):
            return pull - numbers @ v.reshape(2, -1)

        limits = [{"type": "ineq", "fun": lambda v, i=i: distance(v, i)} for i in (0, 1)] + [
            {"type": "ineq", "fun": lambda v, i=i, s=s: 1 - s * (w @ v.reshape(2, -1)[i] + b)}
            for i, s in ((0, -1), (1, 1))
        ]
        best = minimize(
            lambda v: np.sum(residual(v) ** 2),
            centre.ravel(),
            jac=lambda v: np.ravel(-2 * numbers[:, None] * residual(v)),
            bounds=[(0, 1)] * 32,
            constraints=limits,
            method="SLSQP",
            options={"ftol": 1e-12, "maxiter": 500},
        )
        want = np.sqrt(best.fun + (lean + 10 - 2 * 4) ** 2)
        np.testing.assert_allclose(found.residual[0], want, rtol=1e-3)
        assert bool(found.feasible[0])
        margins = np.array([-1, 1]) * (np.asarray(found.x[0]).reshape(2, -1) @ w + b)
        assert margins.max() <= 1 + 1e-6

    def test_the_residual_is_the_gradient_of_the_training_loss(self, problems, x64):
        clean, decoy = self.make(problems)
        ball = make_feasible_set(clean, 2, Bounds(), 0.9).ball
        found = solve(clean, decoy, ball, jnp.array([4.0]), 10.0, C=0.5, steps=20)
        x = jnp.concatenate([clean.x.reshape(60, -1), found.x[0].reshape(2, -1)])
        y, weight = jnp.append(signs(clean.y), jnp.array([-1.0, 1.0])), jnp.ones(62)
        weight = weight.at[60].set(6.0).at[61].set(4.0)

        def objective(w, b):
            return w @ w / 2 / 0.5 + weight @ jnp.maximum(0, 1 - y * (x @ w + b))

        slope = jax.grad(objective, argnums=(0, 1))(decoy.weights, decoy.bias)
        size = jnp.sqrt(jnp.sum(slope[0] ** 2) + slope[1] ** 2)
        np.testing.assert_allclose(found.residual[0], size, rtol=1e-6)

    def test_training_on_the_poisons_leads_toward_the_decoy(self, problems):
        problem = problems["binary"]
        attack = KktAttack(Budget(0.5), decoy=LabelFlip(Budget(0.4), "runner_up", "perturb"))
        poisoned = attack(KEY, *problem)
        decoy = poisoned.info.extras["decoy_weights"]

        def train(dataset):
            return svm(dataset.x.reshape(dataset.size, -1), signs(dataset.y), C=1.0).weights

        before = jnp.linalg.norm(train(problem.clean) - decoy)
        assert jnp.linalg.norm(train(poisoned.dataset) - decoy) < before

    def test_the_grid_takes_the_best(self, problems):
        problem = problems["binary"]
        poisoned = KktAttack(Budget(0.2), grid=5)(KEY, *problem)
        residual = np.asarray(poisoned.info.history["residual"])
        positive = int(poisoned.dataset.y[poisoned.is_poison].sum())
        assert positive == np.linspace(0, 12, 5)[residual.argmin()]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: InfluenceAttack(loss="hinge"), "loss must be one of logistic, squared_hinge"),
        (lambda: InfluenceAttack(C=0.0), "C must be > 0"),
        (lambda: PoisonSvm(steps=0), "steps must be >= 1"),
        (lambda: PoisonSvm(placement="swap"), "placement must be one of"),
        (lambda: KktAttack(bounds=Bounds(radius=0.1)), "bounds.radius must be None"),
        (lambda: KktAttack(bounds=Bounds(box=None), sphere=None), "cannot both be None"),
        (lambda: KktAttack(grid=1), "grid must be >= 2"),
    ],
)
def test_refuses_bad_hyperparameters(make, message, unchecked_types):
    with pytest.raises(ValueError, match=message):
        make()
