"""The gradient through a run of `fit`: the run is fit's own, and the gradient is its derivative."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import normed
import numpy as np
import pytest

from unlearnkit import models
from unlearnkit.base import Dataset, Tokens
from unlearnkit.models import from_functions, from_linen
from unlearnkit.training import Recipe, cross_entropy, differentiate_fit, fit
from unlearnkit.training.smoothness import check_smooth

KEY = jax.random.key(3)
SHAPE = (4, 4, 1)
X = jax.random.uniform(jax.random.key(0), (21, *SHAPE))
DATA = Dataset(X, jnp.argmax(X[:, :3].mean((2, 3)), axis=1).astype(jnp.int32))
HELD = Dataset(1 - X[:7], DATA.y[:7])
NETWORK = models.create("mlp", input_shape=SHAPE, n_classes=3, hidden=(5,), activation="gelu")
CNN = models.create("cnn_mnist", input_shape=SHAPE, n_classes=3, pool="average", activation="gelu")
RECIPE = Recipe(
    epochs=3, batch_size=6, learning_rate=0.4, momentum=0.8, weight_decay=0.02, schedule="cosine"
)


def held_out_loss(variables, held):
    return cross_entropy(NETWORK.apply(variables, held.x), held.y)


def total(variables, context):
    return sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(variables.params))


def outcome_of(dataset, recipe):
    return float(held_out_loss(fit(KEY, NETWORK, dataset, recipe).variables, HELD))


@pytest.fixture(scope="module")
def run():
    names = ("weight_decay", "learning_rate", "momentum")
    return differentiate_fit(
        KEY, NETWORK, DATA, RECIPE, held_out_loss, HELD, rows=[4, 0, 11], hyperparameters=names
    )


CHANGES = {
    "momentum, decay and cosine": (NETWORK, {}),
    "shifts, noise and clipping": (
        NETWORK,
        {"augmentation": "shift", "shift": 1, "gradient_noise": 0.1, "clip_norm": 0.5},
    ),
    "decay to the start, smoothing": (
        NETWORK,
        {"decay_toward": "start", "label_smoothing": 0.1, "nesterov": True},
    ),
    "convolutions": (CNN, {"epochs": 1}),
    "muon": (CNN, {"epochs": 1, "optimizer": "muon", "weight_decay": 0.0}),
}


def assert_is_fit(model, recipe, data=DATA):
    got = differentiate_fit(KEY, model, data, recipe, total, rows=[1])
    want = fit(KEY, model, data, recipe)
    jax.tree.map(np.testing.assert_array_equal, got.variables, want.variables)


@pytest.mark.parametrize("case", CHANGES)
def test_the_run_is_that_of_fit_bit_for_bit(case):
    model, changes = CHANGES[case]
    assert_is_fit(model, dataclasses.replace(RECIPE, **changes))


def test_so_it_is_with_the_compiler_s_optimisations(optimised):
    assert_is_fit(NETWORK, RECIPE)


def test_so_it_is_with_running_statistics():
    assert_is_fit(normed.LINEN, dataclasses.replace(RECIPE, epochs=1), normed.TASK.retain)


def test_it_begins_where_it_is_told_to():
    start = NETWORK.init(jax.random.key(9))
    got = differentiate_fit(KEY, NETWORK, DATA, RECIPE, total, rows=[1], variables=start)
    want = fit(KEY, NETWORK, DATA, RECIPE, variables=start).variables
    jax.tree.map(np.testing.assert_array_equal, got.variables, want)


def test_inputs_have_the_derivative_of_fit_on_moved_inputs(run):
    way, h = jax.random.normal(jax.random.key(5), (3, *SHAPE)), 0.02
    rows = jnp.array([4, 0, 11])
    moved = [DATA._replace(x=DATA.x.at[rows].add(sign * h * way)) for sign in (1, -1)]
    ends = [outcome_of(data, RECIPE) for data in moved]
    np.testing.assert_allclose(jnp.vdot(run.inputs, way), (ends[0] - ends[1]) / (2 * h), rtol=1e-2)
    assert run.weights.shape == (0,)


@pytest.mark.parametrize("name", ["learning_rate", "weight_decay", "momentum"])
def test_hyperparameters_have_the_derivative_of_fit(run, name):
    at, h = getattr(RECIPE, name), 0.02 * (1 if name == "weight_decay" else getattr(RECIPE, name))
    h = min(h, 0.5 * at)
    ends = [
        outcome_of(DATA, dataclasses.replace(RECIPE, **{name: at + sign * h})) for sign in (1, -1)
    ]
    got = run.hyperparameters[name]
    np.testing.assert_allclose(got, (ends[0] - ends[1]) / (2 * h), rtol=2e-2)


def test_weights_have_the_derivative_of_one_step():
    """w' = w - η/n Σ_i v_i ∇ℓ_i, so that dL/dv_i = -η/n ∇ℓ_i · ∇L(w')."""
    n = DATA.size
    recipe = Recipe(epochs=1, batch_size=n, learning_rate=0.4, momentum=0.0)
    run = differentiate_fit(KEY, NETWORK, DATA, recipe, held_out_loss, HELD, weights=True)
    start = NETWORK.init(jax.random.split(KEY)[0])

    def loss(params, x, y):
        return cross_entropy(NETWORK.apply(start._replace(params=params), x[None]), y[None])

    slopes = jax.vmap(jax.grad(loss), (None, 0, 0))(start.params, DATA.x, DATA.y)
    to_end = jax.grad(lambda p: held_out_loss(start._replace(params=p), HELD))(run.variables.params)
    along = [
        jnp.tensordot(a.reshape(n, -1), b.reshape(-1), 1)
        for a, b in zip(jax.tree.leaves(slopes), jax.tree.leaves(to_end), strict=True)
    ]
    np.testing.assert_allclose(run.weights, -0.4 / n * sum(along), rtol=1e-3, atol=1e-6)


def test_fewer_checkpoints_change_nothing_but_the_cost(run):
    few = differentiate_fit(
        KEY, NETWORK, DATA, RECIPE, held_out_loss, HELD, rows=[4, 0, 11], checkpoints=6
    )
    np.testing.assert_allclose(few.inputs, run.inputs, rtol=1e-4, atol=1e-6)


def test_a_hyperparameter_that_is_0_has_a_derivative_too():
    recipe = dataclasses.replace(RECIPE, momentum=0.0, weight_decay=0.0)
    run = differentiate_fit(
        KEY, NETWORK, DATA, recipe, held_out_loss, HELD, hyperparameters=("weight_decay",)
    )
    ends = [outcome_of(DATA, dataclasses.replace(recipe, weight_decay=h)) for h in (0.01, 0.0)]
    got = run.hyperparameters["weight_decay"]
    np.testing.assert_allclose(got, (ends[0] - ends[1]) / 0.01, rtol=5e-2)


class Dropping(nn.Module):
    @nn.compact
    def __call__(self, x, train=False):
        x = nn.Dropout(0.5, deterministic=not train)(x.reshape(len(x), -1))
        return nn.Dense(3)(x)


def attend(params, x):
    x = x.reshape(len(x), -1)
    return jax.nn.softmax(x @ params["w"]) @ params["v"]


def max_out(params, x):
    x = x.reshape(len(x), -1)
    return jnp.maximum(x @ params["w"], -x @ params["w"]) @ params["v"]


def draw(key):
    return {"w": jax.random.normal(key, (16, 4)), "v": jnp.eye(4)[:, :3]}


def test_networks_that_cannot_be_replayed_smoothly_are_refused_by_name():
    pooled = models.create("lenet", input_shape=(12, 12, 1), n_classes=3)
    dropping = from_linen(Dropping(), input_shape=SHAPE)
    flax_pool = from_linen(
        nn.Sequential([lambda x: nn.max_pool(x, (2, 2)).reshape(len(x), -1), nn.Dense(3)]),
        input_shape=SHAPE,
    )
    for network in (pooled, flax_pool, from_functions(draw, max_out, input_shape=SHAPE)):
        with pytest.raises(ValueError, match="has max-pool in training.*pool='average'"):
            check_smooth(network, RECIPE)
    with pytest.raises(ValueError, match="has dropout in training"):
        check_smooth(dropping, RECIPE)
    for network, recipe in (
        (dropping, dataclasses.replace(RECIPE, frozen_state=True)),
        (from_functions(draw, attend, input_shape=SHAPE), RECIPE),
        (models.create("allcnn", input_shape=(8, 8, 1), n_classes=3), RECIPE),
        (models.create("resnet18", input_shape=(8, 8, 1), n_classes=3, width=2), RECIPE),
    ):
        check_smooth(network, recipe)


@pytest.mark.parametrize(
    ("changes", "settings", "message"),
    [
        ({"optimizer": "adam"}, {}, "optimizer='adam' cannot be differentiated through"),
        ({"epochs": 0}, {}, "a run of 0 epochs"),
        ({"batch_size": 22}, {}, "batch_size=22 is larger than the data"),
        ({}, {"checkpoints": 3}, r"checkpoints=3 are too few for a schedule of 9 steps"),
        ({}, {"rows": [1, 1]}, "rows must name at least one example, each once"),
        ({}, {"rows": [30]}, "must be rows of the data"),
        ({}, {"rows": None}, "what to differentiate by"),
        ({}, {"hyperparameters": ("epochs",)}, "hyperparameters must be one of"),
        (
            {"optimizer": "muon"},
            {"hyperparameters": ("momentum",)},
            "momentum is an argument of optimizer='sgd'",
        ),
    ],
)
def test_refuses_what_cannot_be_differentiated(changes, settings, message, unchecked_types):
    recipe = dataclasses.replace(RECIPE, **changes)
    with pytest.raises(ValueError, match=message):
        differentiate_fit(KEY, NETWORK, DATA, recipe, total, **{"rows": [1]} | settings)


def test_token_ids_cannot_be_moved_but_weighed():
    tokens = Dataset(jax.random.randint(KEY, (9, 5), 0, 4), jnp.arange(9) % 3, Tokens(4))
    model = from_functions(
        draw, lambda p, x: 2 * p["v"][x].mean(1), input_shape=(5,), input_dtype="int32"
    )
    with pytest.raises(ValueError, match="differentiate_fit by inputs needs inputs that are real"):
        differentiate_fit(KEY, model, tokens, RECIPE, total, rows=[1])
    run = differentiate_fit(KEY, model, tokens, RECIPE, total, weights=True)
    assert run.weights.shape == (9,)
    assert float(jnp.abs(run.weights).max()) > 0
