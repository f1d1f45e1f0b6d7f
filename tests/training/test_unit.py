"""The one program that trains, against programs that have every number as a constant."""

import dataclasses

import flax.linen as nn
import in_graph
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from unlearnkit import models
from unlearnkit.base import Dataset
from unlearnkit.host import host_key, several_epochs
from unlearnkit.models import from_linen
from unlearnkit.training import (
    CrossEntropy,
    Recipe,
    init_train_state,
    learning_rate_schedule,
    rate_table,
    take_steps,
    take_steps_together,
    train_step,
    unit,
)
from unlearnkit.training.recipe import split_recipe

KEY = jax.random.key(4)
N, BATCH = 35, 10
PER_EPOCH = N // BATCH
PLAIN = Recipe(epochs=3, batch_size=BATCH, learning_rate=0.05)


def change(**settings):
    return dataclasses.replace(PLAIN, **settings)


SCHEDULES = {
    "cosine": change(schedule="cosine"),
    "linear": change(schedule="linear"),
    "step": change(schedule="step", milestones=(1, 2)),
    "warm_up": change(warmup_epochs=1.5),
    "warm_up_cosine": change(warmup_epochs=1.0, schedule="cosine"),
    "warm_up_step": change(warmup_epochs=0.5, schedule="step", milestones=(2,), step_factor=0.3),
    "warm_up_linear": change(warmup_epochs=1.0, schedule="linear"),
}
TERMS = {
    "plain": PLAIN,
    "no_momentum": change(momentum=0.0),
    "nesterov": change(momentum=0.7, nesterov=True),
    "decay": change(weight_decay=5e-4),
    "decay_toward_start": change(weight_decay=0.1, decay_toward="start"),
    "clipped": change(clip_norm=0.3, weight_decay=1e-3),
    "noise": change(gradient_noise=0.01),
    "smoothing": change(label_smoothing=0.1),
    "augmented": change(augmentation="shift_flip", shift=1),
    "shifted": change(augmentation="shift", shift=2, gradient_noise=0.02),
    "bfloat16": change(compute_dtype="bfloat16"),
    "frozen": change(frozen_state=True, weight_decay=1e-3),
    "adam": change(optimizer="adam", learning_rate=1e-3, weight_decay=1e-3),
    "adam_from_start": change(
        optimizer="adam", learning_rate=1e-3, weight_decay=1e-2, decay_toward="start", nesterov=True
    ),
    "adamw": change(optimizer="adamw", learning_rate=1e-3, weight_decay=1e-2),
    "adamw_without_decay": change(optimizer="adamw", learning_rate=1e-3),
    "all_at_once": change(
        nesterov=True, momentum=0.8, weight_decay=5e-4, decay_toward="start", clip_norm=1.0,
        gradient_noise=0.01, label_smoothing=0.2, augmentation="shift_flip", shift=1,
        schedule="cosine", warmup_epochs=0.5,
    ),
}  # fmt: skip
MUON = {
    "muon": change(optimizer="muon", learning_rate=0.1, schedule="linear", weight_decay=1e-3),
    "muon_clipped": change(optimizer="muon", other_learning_rate=0.02, momentum=0.6, clip_norm=1.0),
}
ALL = TERMS | SCHEDULES
CASES = [
    *(("mlp", name) for name in ALL),
    *(("lenet", name) for name in ("plain", "all_at_once", "adamw", "muon")),
    *(
        ("normed", name)
        for name in ("plain", "decay_toward_start", "frozen", "adam", "all_at_once", *MUON)
    ),
]


class Normed(nn.Module):
    """A convolution, BatchNorm and dropout."""

    @nn.compact
    def __call__(self, x, train=False):
        x = nn.BatchNorm(use_running_average=not train)(nn.Conv(4, (3, 3))(x))
        x = nn.Dropout(0.3, deterministic=not train)(nn.relu(x))
        return nn.Dense(3)(x.reshape(len(x), -1))


MODELS = {
    "mlp": models.create("mlp", input_shape=(5, 4, 1), n_classes=3, hidden=(7, 6)),
    "lenet": models.create("lenet", input_shape=(28, 28, 1), n_classes=3),
    "normed": from_linen(Normed(), input_shape=(5, 4, 1)),
}


def problem(name):
    model = MODELS[name]
    x = jax.random.uniform(jax.random.key(1), (N, *model.input_shape))
    y = jax.random.randint(jax.random.key(2), (N,), 0, 3).astype(jnp.int32)
    return model, Dataset(x, y), jax.jit(model.init)(jax.random.key(3))


def begin(name, recipe):
    """Returns the objective, the data, the start, and the rows and rates of all epochs."""
    model, dataset, variables = problem(name)
    rows = several_epochs(host_key(KEY), range(recipe.epochs), N, BATCH)
    state = init_train_state(recipe, PER_EPOCH, variables)
    return (
        CrossEntropy(model, recipe),
        dataset,
        state,
        rows,
        rate_table(recipe, PER_EPOCH, len(rows)),
    )


def at_given_rates(state, dataset, rows, rates, *, objective, recipe):
    """Returns what the program of constants makes of the same rates, whatever its schedule."""
    plain = {"schedule": "constant", "warmup_epochs": 0.0, "milestones": (), "epochs": 1}
    recipe = dataclasses.replace(recipe, **plain)
    objective = dataclasses.replace(objective, recipe=recipe)
    return in_graph.train_segment(
        state, dataset, jnp.asarray(rows), KEY, None, jnp.asarray(rates),
        objective=objective, recipe=recipe, steps_per_epoch=PER_EPOCH,
    )  # fmt: skip


def assert_same(one, other):
    jax.tree.map(np.testing.assert_array_equal, one, other)


def assert_same_but_for_rounding(one, other):
    """Each leaf, to a few units in the last place of its largest number."""

    def check(a, b):
        size = np.abs(b).max(initial=0)
        np.testing.assert_allclose(a, b, rtol=0, atol=8 * np.finfo(np.float32).eps * size)

    jax.tree.map(check, one, other)


@pytest.mark.parametrize(("name", "term"), CASES)
def test_arguments_give_the_bits_of_constants(name, term, optimised):
    """To the bit, but where the norm of all gradients is summed: its order is the processor's."""
    recipe = (ALL | MUON)[term]
    objective, dataset, state, rows, rates = begin(name, recipe)
    expected = at_given_rates(state, dataset, rows, rates, objective=objective, recipe=recipe)
    found = take_steps(
        state, dataset, rows, rates, KEY, objective=objective, recipe=recipe, keep=True
    )
    same = assert_same if recipe.clip_norm is None else assert_same_but_for_rounding
    same(found[1], expected[1])
    same(found[0], expected[0])
    moved = [
        np.abs(one - other).max()
        for one, other in zip(
            jax.tree.leaves(found[0].variables.params),
            jax.tree.leaves(state.variables.params),
            strict=True,
        )
    ]
    assert min(moved) > 0


@pytest.mark.parametrize(("name", "term"), [("normed", "noise"), ("lenet", "bfloat16")])
def test_a_compiler_may_round_a_sum_elsewhere(name, term, optimised):
    """Where the two programs are fused otherwise, they differ by rounding alone."""
    recipe = TERMS[term]
    objective, dataset, state, rows, rates = begin(name, recipe)
    expected, _ = at_given_rates(state, dataset, rows, rates, objective=objective, recipe=recipe)
    found, _ = take_steps(
        state, dataset, rows, rates, KEY, objective=objective, recipe=recipe, keep=True
    )
    tolerance = 2e-3 if term == "bfloat16" else 1e-5
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance),
        found.variables,
        expected.variables,
    )


@pytest.mark.parametrize("name", SCHEDULES)
def test_rates_of_the_host_are_the_schedule_but_for_rounding(name):
    """A compiled schedule rounds other terms than one that is computed step by step.

    They differ in some steps, by a rounding of the peak, and by two where there is a cosine.
    """
    recipe = dataclasses.replace(SCHEDULES[name], epochs=40, learning_rate=0.1)
    steps = 40 * PER_EPOCH
    schedule, table = (
        learning_rate_schedule(recipe, PER_EPOCH),
        rate_table(recipe, PER_EPOCH, steps),
    )
    inside = np.asarray(jax.jit(lambda: jax.lax.map(schedule, jnp.arange(steps)))())
    assert table.shape == inside.shape
    assert table.dtype == inside.dtype
    of_peak = np.spacing(np.float32(recipe.learning_rate))
    roundings = {"step": 0, "linear": 1, "warm_up": 1, "warm_up_linear": 1, "warm_up_step": 1}
    assert np.max(np.abs(table - inside)) <= roundings.get(name, 2) * of_peak


def test_a_rate_table_is_not_to_be_written_to():
    with pytest.raises(ValueError, match="read-only"):
        rate_table(PLAIN, 3, 9)[0] = 1.0


@pytest.mark.parametrize("parts", [(9,), (1, 8), (4, 4, 1), (1,) * 9])
def test_the_bits_do_not_depend_on_how_steps_are_parted_into_calls(parts):
    recipe = TERMS["all_at_once"]
    objective, dataset, state, rows, rates = begin("normed", recipe)
    settings = {"objective": objective, "recipe": recipe, "keep": True}
    whole, measured = take_steps(state, dataset, rows, rates, KEY, **settings)
    found, done = [], 0
    for count in parts:
        now = slice(done, done + count)
        state, metrics = take_steps(state, dataset, rows[now], rates[now], KEY, **settings)
        found.append(metrics["loss"])
        done += count
    assert_same(state, whole)
    np.testing.assert_array_equal(np.concatenate(found), measured["loss"])


def test_more_steps_than_a_call_takes_are_the_same_run(optimised):
    recipe = change(epochs=50, schedule="cosine", gradient_noise=0.01)
    objective, dataset, state, rows, rates = begin("mlp", recipe)
    assert len(rows) > 2 * unit.STEPS
    assert len(rows) % unit.STEPS
    found, metrics = take_steps(
        state, dataset, rows, rates, KEY, objective=objective, recipe=recipe, keep=True
    )
    expected, inside = at_given_rates(
        state, dataset, rows, rates, objective=objective, recipe=recipe
    )
    assert_same(found, expected)
    assert_same(metrics, inside)


def test_no_steps_leave_the_state_as_it_is():
    objective, dataset, state, rows, rates = begin("mlp", PLAIN)
    found, metrics = take_steps(
        state, dataset, rows[:0], rates[:0], KEY, objective=objective, recipe=PLAIN, keep=True
    )
    assert_same(found, state)
    assert metrics == {}


@pytest.mark.parametrize("term", ["all_at_once", "adamw", "bfloat16"])
def test_lanes_are_each_the_run_alone_up_to_rounding(term):
    recipe = (TERMS | MUON)[term]
    # Where BatchNorm follows a bias, Adam divides the rounding of its gradient by itself.
    network = "mlp" if recipe.optimizer == "adamw" else "normed"
    objective, dataset, state, rows, rates = begin(network, recipe)
    keys = jax.random.split(KEY, 3)
    lanes = np.stack([rows, rows[::-1], (rows + 1) % N])
    speeds = np.stack([rates, 0.5 * rates, rates[::-1]]).astype(rates.dtype)
    stacked = jax.tree.map(lambda leaf: jnp.stack([leaf] * 3), state)
    settings = {"objective": objective, "recipe": recipe}
    together, metrics = take_steps_together(stacked, dataset, lanes, speeds, keys, **settings)
    tolerance = 3e-2 if term == "bfloat16" else 2e-4
    assert metrics["loss"].shape == (3, len(rows))
    for i in range(3):
        alone, measured = take_steps(
            state, dataset, lanes[i], speeds[i], keys[i], keep=True, **settings
        )
        np.testing.assert_allclose(metrics["loss"][i], measured["loss"], rtol=tolerance)
        jax.tree.map(
            lambda a, b, i=i: np.testing.assert_allclose(a[i], b, rtol=tolerance, atol=tolerance),
            together.variables,
            alone.variables,
        )
        assert int(together.step[i]) == int(alone.step) == len(rows)


def test_lanes_of_more_steps_than_a_call_takes():
    recipe = change(epochs=30)
    objective, dataset, state, rows, rates = begin("mlp", recipe)
    settings = {"objective": objective, "recipe": recipe}
    stacked = jax.tree.map(lambda leaf: jnp.stack([leaf] * 2), state)
    keys = jax.random.split(KEY, 2)
    lanes, speeds = np.stack([rows, rows]), np.stack([rates, rates])
    together, metrics = take_steps_together(stacked, dataset, lanes, speeds, keys, **settings)
    alone, measured = take_steps(state, dataset, rows, rates, keys[1], keep=True, **settings)
    assert metrics["loss"].shape == (2, 90)
    np.testing.assert_allclose(metrics["loss"][1], measured["loss"], rtol=1e-4)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a[1], b, rtol=1e-4, atol=1e-5),
        together.variables,
        alone.variables,
    )


def test_single_steps_are_the_unit_s():
    """`train_step`, for those who write a loop of their own, by the recipe's own schedule."""
    recipe = change(weight_decay=1e-3, gradient_noise=0.01, schedule="step", milestones=(1,))
    objective, dataset, state, rows, rates = begin("normed", recipe)
    found, _ = take_steps(
        state, dataset, rows, rates, KEY, objective=objective, recipe=recipe, keep=True
    )
    for batch in rows:
        state, _ = train_step(objective, recipe, PER_EPOCH, state, dataset.take(batch), KEY)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), state, found)


RATES_ONLY = {
    "learning_rate": 0.3, "epochs": 7, "batch_size": 3, "schedule": "cosine", "warmup_epochs": 1.0,
    "other_learning_rate": 0.7,
}  # fmt: skip
STRENGTHS = {"momentum": 0.6, "weight_decay": 0.3, "gradient_noise": 0.2}
FORMS = {
    "optimizer": "adam", "nesterov": True, "decay_toward": "start", "clip_norm": 2.0,
    "label_smoothing": 0.1, "augmentation": "shift", "shift": 1, "frozen_state": True,
    "compute_dtype": "bfloat16", "momentum": 0.0, "weight_decay": 0.0, "gradient_noise": 0.0,
}  # fmt: skip
STRONG = change(momentum=0.9, weight_decay=0.1, gradient_noise=0.1)


@pytest.mark.parametrize("name", [*RATES_ONLY, *STRENGTHS])
def test_recipes_that_differ_in_a_number_have_one_form(name):
    other = dataclasses.replace(STRONG, **{name: (RATES_ONLY | STRENGTHS)[name]})
    assert split_recipe(other)[0] == split_recipe(STRONG)[0]
    assert (split_recipe(other)[1] == split_recipe(STRONG)[1]) == (name in RATES_ONLY)


@pytest.mark.parametrize("name", FORMS)
def test_recipes_that_differ_in_a_term_have_two_forms(name):
    other = dataclasses.replace(STRONG, **{name: FORMS[name]})
    assert split_recipe(other)[0] != split_recipe(STRONG)[0]


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "muon"])
def test_momentum_is_of_the_form_where_it_is_folded_and_nowhere_where_it_is_not_used(optimizer):
    one, other = (
        split_recipe(change(optimizer=optimizer, momentum=momentum)) for momentum in (0.6, 0.9)
    )
    assert (one[0] != other[0]) == (optimizer == "muon")
    assert one[1] == other[1]


def test_every_setting_of_a_recipe_is_known_to_be_of_the_form_or_not():
    known = {*RATES_ONLY, *STRENGTHS, *FORMS, "milestones", "step_factor"}
    assert known == {field.name for field in dataclasses.fields(Recipe)}


def test_numbers_reach_the_steps_and_compile_nothing(optimised):
    """The same program serves all, and no two of them give the same weights."""
    recipes = [dataclasses.replace(STRONG, **{name: value}) for name, value in STRENGTHS.items()]
    recipes += [STRONG, dataclasses.replace(STRONG, learning_rate=0.3)]
    ends = []
    for recipe in recipes:
        objective, dataset, state, rows, rates = begin("mlp", recipe)
        settings = {"objective": objective, "recipe": recipe, "keep": True}
        found, _ = take_steps(state, dataset, rows, rates, KEY, **settings)
        ends.append(np.asarray(jax.tree.leaves(found.variables.params)[0]).tobytes())
        if len(ends) == 1:
            before = unit._kept_unit._cache_size()
    assert unit._kept_unit._cache_size() == before
    assert len(set(ends)) == len(recipes)
