import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from unlearnkit.base import Variables
from unlearnkit.poisoning import BackGradient, Bounds, Budget, perturbation
from unlearnkit.poisoning.back_gradient import Setting, trained_loss

KEY = jax.random.key(0)
ATTACK = BackGradient(Budget(0.05), group=2, steps=4, unroll_steps=10)


def make_setting(problem, dtype=jnp.float64):
    clean = jax.tree.map(lambda v: v.astype(dtype) if v.dtype == jnp.float32 else v, problem.clean)
    region = Bounds().region(clean.x[:3], clean.normalisation)
    variables = jax.tree.map(lambda v: v.astype(dtype), problem.variables)
    y = (clean.y[:3] + 1) % problem.model.n_classes
    return Setting(
        clean.take(np.arange(3, 30)),
        clean.take(np.arange(30, 60)),
        region,
        y,
        variables,
        jnp.asarray(54.0, dtype),
    )


def test_the_gradient_goes_through_the_training(problems, x64):
    problem = problems["any"]
    setting = make_setting(problem)
    settings = {"model": problem.model, "unroll_steps": 6, "rate": 0.2}
    active = jnp.array([True, True, False])

    @jax.jit
    def loss(x):
        return trained_loss(x, active, setting, **settings)

    x = setting.region.base
    gradient = jax.grad(loss)(x)
    np.testing.assert_array_equal(gradient[2], 0)
    way, h = jax.random.normal(KEY, x.shape), 1e-5
    slope = (loss(x + h * way) - loss(x - h * way)) / (2 * h)
    np.testing.assert_allclose(jnp.vdot(gradient, way), slope, rtol=1e-6)


def test_the_defender_trains_on_what_is_active(problems, x64):
    problem = problems["any"]
    setting = make_setting(problem)
    active = jnp.array([True, False, True])
    twice = np.concatenate([np.arange(27), np.arange(27)])  # the 27 stand for 54
    x = jnp.concatenate([setting.clean.x[twice], setting.region.base[active]])
    y = jnp.concatenate([setting.clean.y[twice], setting.labels[active]])
    w = setting.variables.params

    def loss(w, x, y):
        logits = problem.model.apply(Variables(w), x)
        return -jax.nn.log_softmax(logits)[jnp.arange(len(y)), y].mean()

    for _ in range(5):
        w = jax.tree.map(lambda v, g: v - 0.2 * g, w, jax.grad(loss)(w, x, y))
    got = trained_loss(
        setting.region.base, active, setting, model=problem.model, unroll_steps=5, rate=0.2
    )
    np.testing.assert_allclose(got, loss(w, *setting.held_out[:2]))
    assert ravel_pytree(w)[0].dtype == jnp.float64


def test_each_move_hurts_more(problems):
    problem = problems["any"]
    losses = ATTACK(KEY, *problem).info.history["attacker_loss"]
    assert losses.shape == (8,)  # two groups of four moves
    assert losses[3] > losses[0]
    assert losses[7] > losses[4]


def test_moves_are_of_the_length_that_was_asked_for(problems):
    problem = problems["any"]
    attack = BackGradient(
        Budget(count=3), Bounds(box=None), group=3, steps=1, step_size=0.25, unroll_steps=3
    )
    delta = perturbation(attack(KEY, *problem), problem.clean)
    lengths = np.linalg.norm(np.asarray(delta).reshape(3, -1), axis=1)
    np.testing.assert_allclose(lengths, 0.25, rtol=1e-5)


def test_labels_are_flipped(problems):
    problem = problems["any"]
    poisoned = ATTACK(KEY, *problem)
    base = poisoned.info.base
    assert np.all(poisoned.dataset.y[poisoned.is_poison] != problem.clean.y[base])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"group": 0}, "group must be >= 1"),
        ({"step_size": 0.0}, "step_size must be > 0"),
        ({"held_out": 0.0}, "held_out must be in"),
        ({"placement": "swap"}, "placement must be one of"),
    ],
)
def test_refuses_bad_hyperparameters(arguments, message, unchecked_types):
    with pytest.raises(ValueError, match=message):
        BackGradient(**arguments)
