from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from other_process import output, start

from unlearnkit.base import Dataset, Normalisation, Variables
from unlearnkit.models import from_functions
from unlearnkit.training import DivergedError, Recipe, epoch_batches, fit, fit_many, unit
from unlearnkit.training.fit import descend
from unlearnkit.training.step import CrossEntropy

KEY = jax.random.key(3)
RECIPE = Recipe(epochs=3, batch_size=16, learning_rate=0.1, momentum=0.9)


def init(key):
    first, second = jax.random.split(key)
    return {
        "hidden": {"kernel": 0.4 * jax.random.normal(first, (4, 8)), "bias": jnp.zeros(8)},
        "logits": {"kernel": 0.4 * jax.random.normal(second, (8, 3)), "bias": jnp.zeros(3)},
    }


def apply(params, x):
    hidden = jnp.tanh(x @ params["hidden"]["kernel"] + params["hidden"]["bias"])
    return hidden @ params["logits"]["kernel"] + params["logits"]["bias"]


@pytest.fixture
def model():
    return from_functions(init, apply, input_shape=(4,))


@pytest.fixture
def dataset():
    x = jax.random.normal(jax.random.key(0), (70, 4))
    return Dataset(x, jnp.argmax(x[:, :3], axis=1).astype(jnp.int32))


def tree_equal(one, other):
    jax.tree.map(np.testing.assert_array_equal, one, other)


def reference_loop(key, model, dataset, recipe, optimizer, variables=None):
    """Plain optax over the same batches, one step at a time, written apart from the library."""
    init_key, run_key = jax.random.split(key)
    order_key, _ = jax.random.split(run_key)
    params = model.init(init_key).params if variables is None else variables.params
    memory = optimizer.init(params)

    def loss(params, x, y):
        log_p = jax.nn.log_softmax(apply(params, x))
        return -jnp.mean(log_p[jnp.arange(len(y)), y])

    for epoch in range(recipe.epochs):
        for rows in epoch_batches(order_key, epoch, dataset.size, recipe.batch_size):
            gradient = jax.grad(loss)(params, dataset.x[rows], dataset.y[rows])
            updates, memory = optimizer.update(gradient, memory, params)
            params = optax.apply_updates(params, updates)
    return params


@pytest.mark.parametrize(
    ("recipe", "optimizer"),
    [
        (RECIPE, optax.sgd(0.1, 0.9)),
        (
            Recipe(epochs=2, batch_size=16, weight_decay=0.05, momentum=0.0),
            optax.chain(optax.add_decayed_weights(0.05), optax.sgd(0.1)),
        ),
        (Recipe(epochs=2, batch_size=10, optimizer="adam", learning_rate=0.01), optax.adam(0.01)),
        (
            Recipe(
                epochs=2, batch_size=10, optimizer="adamw", learning_rate=0.01, weight_decay=0.1
            ),
            optax.adamw(0.01, weight_decay=0.1),
        ),
        (
            Recipe(epochs=3, batch_size=16, schedule="cosine", momentum=0.0),
            optax.sgd(optax.cosine_decay_schedule(0.1, 12)),
        ),
        (
            Recipe(epochs=3, batch_size=16, schedule="step", milestones=(1,), momentum=0.0),
            optax.sgd(optax.piecewise_constant_schedule(0.1, {4: 0.1})),
        ),
        (
            Recipe(epochs=2, batch_size=16, clip_norm=0.05, momentum=0.0),
            optax.chain(optax.clip_by_global_norm(0.05), optax.sgd(0.1)),
        ),
        (
            Recipe(epochs=2, batch_size=10, optimizer="adam", learning_rate=0.01, weight_decay=0.1),
            optax.chain(optax.add_decayed_weights(0.1), optax.adam(0.01)),
        ),
        (
            Recipe(epochs=2, batch_size=16, nesterov=True),
            optax.sgd(0.1, 0.9, nesterov=True),
        ),
        (
            Recipe(epochs=3, batch_size=16, warmup_epochs=2.0, momentum=0.0),
            optax.sgd(lambda step: 0.1 * jnp.minimum(step / 8, 1)),
        ),
        (
            Recipe(
                epochs=3,
                batch_size=16,
                warmup_epochs=1.0,
                schedule="step",
                milestones=(2,),
                momentum=0.0,
            ),
            optax.sgd(lambda step: jnp.where(step < 4, step / 40, jnp.where(step < 8, 0.1, 0.01))),
        ),
    ],
)
def test_fit_is_plain_stochastic_gradient_descent(model, dataset, recipe, optimizer):
    trained = fit(KEY, model, dataset, recipe)
    expected = reference_loop(KEY, model, dataset, recipe, optimizer)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-6),
        trained.variables.params,
        expected,
    )


def test_decay_toward_the_start_is_the_ridge_around_it(model, dataset):
    recipe = Recipe(epochs=2, batch_size=16, weight_decay=0.3, decay_toward="start", momentum=0.0)
    start = model.init(jax.random.key(9))
    pull = optax.stateless(
        lambda g, w: jax.tree.map(lambda g, w, w0: g + 0.3 * (w - w0), g, w, start.params)
    )
    optimizer = optax.chain(pull, optax.sgd(0.1))
    trained = fit(KEY, model, dataset, recipe, variables=start)
    expected = reference_loop(KEY, model, dataset, recipe, optimizer, start)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-6),
        trained.variables.params,
        expected,
    )


def test_an_epoch_visits_each_example_at_most_once():
    batches = np.asarray(epoch_batches(KEY, 0, 70, 16))
    assert batches.shape == (4, 16)
    assert len(np.unique(batches)) == 64
    assert not np.array_equal(batches, epoch_batches(KEY, 1, 70, 16))


def test_the_key_decides_everything(model, dataset):
    recipe = Recipe(epochs=2, batch_size=16, gradient_noise=0.01)
    one, same = (fit(KEY, model, dataset, recipe) for _ in range(2))
    tree_equal(one.variables, same.variables)
    other = fit(jax.random.key(4), model, dataset, recipe)
    assert not np.allclose(
        one.variables.params["logits"]["kernel"], other.variables.params["logits"]["kernel"]
    )


def test_the_start_is_left_untouched(model, dataset):
    start = model.init(jax.random.key(9))
    before = jax.tree.map(np.array, start)
    fit(KEY, model, dataset, RECIPE, variables=start)
    tree_equal(start, before)


def test_gradient_noise_has_its_standard_deviation(model, dataset):
    quiet = Recipe(epochs=1, batch_size=70, learning_rate=1.0, momentum=0.0)
    noisy = Recipe(epochs=1, batch_size=70, learning_rate=1.0, momentum=0.0, gradient_noise=0.5)
    differences = []
    for seed in range(40):
        key = jax.random.key(seed)
        start = model.init(key)
        runs = [fit(key, model, dataset, recipe, variables=start) for recipe in (quiet, noisy)]
        leaves = [
            jnp.concatenate([jnp.ravel(w) for w in jax.tree.leaves(r.variables)]) for r in runs
        ]
        differences.append(leaves[1] - leaves[0])
    np.testing.assert_allclose(np.std(differences), 0.5, rtol=0.05)


def test_cost_counts_example_gradients_and_history_is_per_epoch(model, dataset):
    info = fit(KEY, model, dataset, RECIPE).info
    assert info.cost.example_gradients == 3 * 64
    assert info.cost.seconds > 0
    assert info.history["loss"].shape == info.history["accuracy"].shape == (3,)
    assert info.history["loss"][-1] < info.history["loss"][0]


def test_second_run_compiles_nothing(model, dataset):
    fit(KEY, model, dataset, RECIPE)
    before = unit._unit._cache_size()
    fit(jax.random.key(8), from_functions(init, apply, input_shape=(4,)), dataset, RECIPE)
    assert unit._unit._cache_size() == before


def test_second_run_of_many_traces_nothing(dataset):
    traces = []

    def counted(key):
        traces.append(key)
        return init(key)

    model = from_functions(counted, apply, input_shape=(4,))
    keys = jax.random.split(KEY, 3)
    fit_many(keys, model, dataset, RECIPE)
    before = len(traces)
    fit_many(keys, model, dataset, RECIPE)
    assert len(traces) == before


@pytest.mark.parametrize("batching", ["vmap", "map"])
def test_many_runs_are_each_the_single_run(model, dataset, batching):
    keys = jax.random.split(KEY, 3)
    subsets = np.stack([np.random.default_rng(i).permutation(70)[:40] for i in range(3)])
    many = fit_many(keys, model, dataset, RECIPE, subsets=subsets, batching=batching)
    assert many.info.history["loss"].shape == (3, 3)
    for i in range(3):
        one = fit(keys[i], model, dataset.take(subsets[i]), RECIPE)
        jax.tree.map(
            lambda a, b, i=i: np.testing.assert_allclose(a[i], b, rtol=1e-4, atol=1e-5),
            many.variables,
            one.variables,
        )


@pytest.mark.parametrize("batching", [None, "map"])
def test_many_runs_in_turn_are_the_single_runs_bit_by_bit(model, dataset, batching):
    keys = jax.random.split(KEY, 3)
    subsets = np.stack([np.random.default_rng(i).permutation(70)[:40] for i in range(3)])
    recipe = Recipe(epochs=3, batch_size=11, schedule="cosine", gradient_noise=0.01)
    many = fit_many(keys, model, dataset, recipe, subsets=subsets, batching=batching)
    for i in range(3):
        one = fit(keys[i], model, dataset.take(subsets[i]), recipe)
        tree_equal(jax.tree.map(lambda leaf, i=i: leaf[i], many.variables), one.variables)
        for name, values in one.info.history.items():
            np.testing.assert_array_equal(many.info.history[name][i], values)


def test_bf16_computes_near_float32_and_keeps_float32_weights(model, dataset):
    full = fit(KEY, model, dataset, RECIPE)
    half = fit(KEY, model, dataset, Recipe(**{**RECIPE.__dict__, "compute_dtype": "bfloat16"}))
    leaves = jax.tree.leaves(half.variables)
    assert all(leaf.dtype == jnp.float32 for leaf in leaves)
    np.testing.assert_allclose(half.info.history["loss"], full.info.history["loss"], rtol=0.05)
    assert not np.array_equal(half.info.history["loss"], full.info.history["loss"])


def test_label_smoothing_is_cross_entropy_with_the_smoothed_label(model, dataset):
    objective = CrossEntropy(model, Recipe(label_smoothing=0.3))
    variables = model.init(KEY)
    loss, _ = objective(variables.params, {}, dataset, KEY, None)
    target = 0.7 * jax.nn.one_hot(dataset.y, 3) + 0.1
    expected = -jnp.mean(
        jnp.sum(target * jax.nn.log_softmax(apply(variables.params, dataset.x)), -1)
    )
    np.testing.assert_allclose(loss, expected, rtol=1e-6)


def test_ascent_raises_the_loss(model, dataset):
    recipe = Recipe(epochs=3, batch_size=16, learning_rate=0.01)
    history = descend(
        KEY, CrossEntropy(model, recipe, -1.0), recipe, dataset, model.init(KEY)
    ).info.history
    assert history["loss"][-1] > history["loss"][0]


def test_divergence_is_an_error_not_a_result(model, dataset):
    wild = Recipe(epochs=2, batch_size=16, learning_rate=1e30, weight_decay=1.0)
    with pytest.raises(DivergedError, match="learning_rate=1e\\+30"):
        fit(KEY, model, dataset, wild)
    last_step = Recipe(epochs=1, batch_size=70, learning_rate=3e38, momentum=0.0, weight_decay=9.0)
    with pytest.raises(DivergedError, match="weight is not finite"):
        fit(KEY, model, dataset, last_step)


def test_bad_input_is_refused_before_any_compute(model, dataset):
    with pytest.raises(ValueError, match=r"batch_size=128 is larger than the data .70 examples"):
        fit(KEY, model, dataset, Recipe())
    with pytest.raises(ValueError, match="finite"):
        fit(KEY, model, dataset._replace(x=dataset.x.at[3, 1].set(jnp.nan)), RECIPE)
    with pytest.raises(ValueError, match="subsets must be in 0 … 69"):
        fit_many(KEY[None], model, dataset, RECIPE, subsets=np.full((1, 20), 70))
    with pytest.raises(ValueError, match="augmentation='shift' needs images"):
        fit(KEY, model, dataset, Recipe(batch_size=16, augmentation="shift"))
    with pytest.raises(ValueError, match="at least one key"):
        fit_many(KEY[None][:0], model, dataset, RECIPE)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"epochs": -1}, "epochs must be >= 0"),
        ({"batch_size": 0}, "batch_size must be >= 1"),
        ({"optimizer": "sgdd"}, "unknown optimizer 'sgdd'; known: sgd, adam, adamw"),
        ({"learning_rate": 0.0}, "learning_rate must be > 0"),
        ({"learning_rate": float("nan")}, "learning_rate must be > 0"),
        ({"momentum": 1.0}, "momentum must be in"),
        ({"weight_decay": -1.0}, "weight_decay must be >= 0"),
        ({"milestones": (3,)}, "milestones need schedule='step'"),
        ({"milestones": (5, 3), "schedule": "step"}, "milestones must increase"),
        ({"label_smoothing": 1.0}, "label_smoothing must be in"),
        ({"optimizer": "adamw", "decay_toward": "start"}, "needs optimizer sgd or adam"),
        ({"clip_norm": 0.0}, "clip_norm must be > 0"),
        ({"gradient_noise": -1.0}, "gradient_noise must be >= 0"),
        ({"compute_dtype": "float16"}, "unknown compute_dtype"),
    ],
)
def test_a_recipe_refuses_nonsense(wrong, message, unchecked_types):
    with pytest.raises(ValueError, match=message):
        Recipe(**wrong)


def test_augmented_training_sees_shifted_and_mirrored_images():
    from unlearnkit.training.augmentation import flip_images, shift_images

    x = jax.random.uniform(KEY, (50, 6, 5, 2))
    black = Normalisation("n", (0.5, 0.25), (0.5, 0.5)).apply(jnp.zeros(1))
    moved = np.asarray(shift_images(KEY, x, by=2, fill=black))
    padded = np.broadcast_to(np.asarray(black), (50, 10, 9, 2)).copy()
    padded[:, 2:8, 2:7] = x
    offsets = set()
    for image, canvas in zip(moved, padded, strict=True):
        found = [
            (r, c)
            for r in range(5)
            for c in range(5)
            if np.array_equal(canvas[r : r + 6, c : c + 5], image)
        ]
        assert len(found) == 1
        offsets.add(found[0])
    assert len(offsets) > 12
    flipped = np.asarray(flip_images(KEY, x))
    mirrored = [np.array_equal(f, o[:, ::-1]) for f, o in zip(flipped, np.asarray(x), strict=True)]
    kept = [np.array_equal(f, o) for f, o in zip(flipped, np.asarray(x), strict=True)]
    assert all(m != k for m, k in zip(mirrored, kept, strict=True))
    assert 10 < sum(mirrored) < 40


def test_variables_of_another_network_are_no_start(model, dataset):
    with pytest.raises(ValueError, match="params/hidden/bias is missing"):
        fit(KEY, model, dataset, RECIPE, variables=Variables({"hidden": {}}))


def test_devices_that_cannot_share_a_batch_are_refused(model, dataset, tmp_path):
    device = jax.devices()[0]
    with pytest.raises(ValueError, match="devices must divide batch_size=16 evenly, got 0"):
        fit(KEY, model, dataset, RECIPE, devices=[])
    with pytest.raises(ValueError, match="devices must divide batch_size=16 evenly, got 3"):
        fit(KEY, model, dataset, RECIPE, devices=[device] * 3)
    with pytest.raises(ValueError, match="a trajectory is replayed on one device"):
        fit(KEY, model, dataset, RECIPE, devices=[device], trajectory=tmp_path)
    one = fit(KEY, model, dataset, RECIPE, devices=[device])
    tree_equal(one.variables, fit(KEY, model, dataset, RECIPE).variables)


def test_runs_are_shared_out_over_several_devices():
    script = Path(__file__).with_name("several_devices.py")
    assert "same on two devices" in output(start(script))
