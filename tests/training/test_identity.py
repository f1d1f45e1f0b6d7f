"""A checkpoint is gone on with by its own run only; each thing that makes a run is told apart."""

import dataclasses
import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from unlearnkit import models
from unlearnkit.base import Dataset, Model, Normalisation, Variables
from unlearnkit.models import freeze_state, from_functions
from unlearnkit.training import CheckpointError, CrossEntropy, Recipe, fit
from unlearnkit.training.fit import descend
from unlearnkit.training.identity import digest, identify

KEY = jax.random.key(1)
RECIPE = Recipe(epochs=2, batch_size=10, learning_rate=0.1)
X = jax.random.normal(jax.random.key(0), (30, 4))
DATA = Dataset(X, jnp.argmax(X[:, :3], axis=1).astype(jnp.int32))
ONES = (1.0, 1.0, 1.0)


def init(key):
    return {"w": 0.1 * jax.random.normal(key, (4, 3))}


def network(activation=jax.nn.relu, scale=ONES, as_array=jnp.array):
    held = as_array(scale)
    return from_functions(init, lambda p, x: activation(x @ p["w"]) * held, input_shape=(4,))


def with_rule(scale):
    """A network whose backward pass alone closes over an array."""
    held = jnp.array(scale)

    @jax.custom_vjp
    def straight(z):
        return z

    straight.defvjp(lambda z: (z, None), lambda _, g: (g * held,))
    return from_functions(init, lambda p, x: straight(x @ p["w"]), input_shape=(4,))


def created(**options):
    return models.create("mlp", input_shape=(4,), n_classes=3, **{"hidden": (5,), **options})


NETWORK = network()
START = Variables(init(jax.random.key(5)))


@dataclasses.dataclass(frozen=True)
class Weighted:
    """An objective of a user's own, with settings."""

    model: Model
    weight: float = 1.0
    norm: str = "l2"

    def __call__(self, params, state, batch, key, context=None):
        loss, aux = CrossEntropy(self.model, RECIPE)(params, state, batch, key)
        return self.weight * loss, aux


def weighted(weights):
    """An objective of a user's own that closes over an array."""
    held = jnp.array(weights)

    def objective(params, state, batch, key, context=None):
        logits = NETWORK.apply(Variables(params), batch.x)
        loss = -jnp.mean(jnp.sum(held * jax.nn.log_softmax(logits), axis=1))
        return loss, (state, {"loss": loss, "accuracy": jnp.float32(jnp.nan)})

    return objective


def run(folder, *, key=KEY, model=NETWORK, data=DATA, recipe=RECIPE, **options):
    return fit(key, model, data, recipe, checkpoint=folder, **{"variables": START, **options})


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    run(folder)
    return folder


NEARBY = jax.tree.map(lambda w: w.at[3, 2].set(jnp.nextafter(w[3, 2], 1.0)), START)
OTHERS = {
    "start by one bit": ({"variables": NEARBY}, "start"),
    "start by initialisation": ({"variables": None}, "start"),
    "sign": ({"objective": CrossEntropy(NETWORK, RECIPE, sign=-1.0)}, "objective.fields.sign"),
    "the objective's own recipe": (
        {"objective": CrossEntropy(NETWORK, dataclasses.replace(RECIPE, label_smoothing=0.1))},
        "objective.fields.recipe",
    ),
    "class of objective": ({"objective": Weighted(NETWORK)}, "objective"),
    "activation": ({"model": network(jnp.tanh)}, "network.computation"),
    "closed-over array": ({"model": network(scale=(1.0, 1.0, 1.5))}, "network.computation"),
    "closed-over array by one bit": (
        {"model": network(scale=(1.0, 1.0, np.nextafter(np.float32(1), np.float32(2))))},
        "network.computation",
    ),
    "closed-over numpy array": (
        {"model": network(scale=np.float32([1, 1, 2]), as_array=np.array)},
        "network.computation",
    ),
    "training mode": (
        {"model": NETWORK._replace(apply_train=lambda v, x, k: (2 * x, v.state))},
        "",
    ),
    "labels": ({"data": DATA._replace(y=DATA.y.at[29].set((DATA.y[29] + 1) % 3))}, "data"),
    "inputs": ({"data": DATA._replace(x=DATA.x.at[29, 3].add(1e-6))}, "data"),
    "normalisation": (
        {"data": DATA._replace(normalisation=Normalisation("other", (0.5,), (0.5,)))},
        "normalisation",
    ),
    "rate": ({"recipe": dataclasses.replace(RECIPE, learning_rate=0.11)}, "recipe.learning_rate"),
    "key": ({"key": jax.random.key(2)}, "key"),
    "generator of the key": ({"key": jax.random.key(1, impl="rbg")}, "key"),
}


@pytest.mark.parametrize("case", OTHERS)
def test_another_run_is_refused_by_the_name_of_what_differs(folder, case):
    options, name = OTHERS[case]
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(CheckpointError, match=rf"another run \(differs in .*{name}"):
        run(folder, **options)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_the_same_run_is_gone_on_with_however_it_was_written_down(folder):
    epochs = []
    again = run(
        folder,
        model=network(),  # built anew: other function objects, the same computation
        objective=CrossEntropy(network(), RECIPE),
        data=Dataset(np.asarray(DATA.x), np.asarray(DATA.y)),
        on_epoch=lambda epoch, _: epochs.append(epoch),
    )
    assert epochs == []
    np.testing.assert_array_equal(again.variables.params["w"], run(folder).variables.params["w"])


def described(objective, *, start=START, data=DATA, recipe=RECIPE, context=None):
    found = identify(KEY, objective, recipe, data, start, context)
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    return found


def test_created_networks_are_their_name_and_options():
    start = created().init(jax.random.key(0))

    def network_of(model):
        return described(CrossEntropy(model, RECIPE), start=start)["network"][0]

    assert (
        network_of(created())
        == network_of(created(hidden=[5]))
        == {
            "name": "mlp",
            "options": {"hidden": [5]},
            "shape": [[4], 3],
        }
    )
    assert network_of(created(activation="tanh")) != network_of(created(activation="relu"))
    foreign = network_of(freeze_state(created()))
    assert set(foreign) == {"shape", "variables", "computation", "jax"}
    assert foreign["jax"] == jax.__version__


def network_of_only(model):
    return identify(KEY, CrossEntropy(model, RECIPE), RECIPE, DATA, START, None)["network"][0]


def test_networks_that_differ_in_a_derivative_alone_are_told_apart():
    one, same, other = (network_of_only(with_rule(s)) for s in (ONES, ONES, (1.0, 1.0, 2.0)))
    assert one == same
    assert one != other


def test_a_nested_function_s_constants_count():
    def jitted(scale):
        held = jnp.array(scale)
        inner = jax.jit(lambda z: jax.lax.scan(lambda c, _: (c * held, None), z, None, length=2)[0])
        return from_functions(init, lambda p, x: inner(x @ p["w"]), input_shape=(4,))

    one, same, other = (network_of_only(jitted(s)) for s in (ONES, ONES, (1.0, 1.0, 2.0)))
    assert one == same
    assert one != other


@pytest.mark.parametrize("number", [2.0, np.nextafter(np.float32(3), np.float32(4)).item()])
def test_numbers_written_into_a_computation_count(number):
    def network_times(factor):
        return from_functions(init, lambda p, x: factor * (x @ p["w"]), input_shape=(4,))

    base = network_of_only(network_times(3.0))
    assert base == network_of_only(network_times(3.0))
    assert base != network_of_only(network_times(number))


def test_a_user_s_objective_of_plain_fields_is_what_it_computes():
    def edited(computes):
        @dataclasses.dataclass(frozen=True)
        class Own(Weighted):
            def __call__(self, params, state, batch, key, context=None):
                loss, aux = super().__call__(params, state, batch, key)
                return computes(loss), aux

        return Own(NETWORK)

    one, same, other = (
        described(edited(f))["objective"] for f in (jnp.sqrt, lambda x: jnp.sqrt(x), jnp.sin)
    )
    assert one == same
    assert one["is"] == other["is"]
    assert one != other


def test_all_fields_of_a_user_s_objective_count():
    base = described(Weighted(NETWORK))["objective"]
    assert base == described(Weighted(network()))["objective"]
    for other in (Weighted(NETWORK, 2.0), Weighted(NETWORK, norm="l1")):
        assert described(other)["objective"] != base
    assert (
        described(Weighted(network(jnp.tanh)))["network"] != described(Weighted(NETWORK))["network"]
    )


def test_what_a_user_s_objective_closes_over_counts():
    one, same, other = (described(weighted(w))["objective"] for w in (ONES, ONES, (1.0, 1.0, 0.5)))
    assert one == same
    assert one != other


def test_context_counts():
    base = described(CrossEntropy(NETWORK, RECIPE), context={"teacher": jnp.zeros(3)})["context"]
    for other in ({"teacher": jnp.full(3, 1e-30)}, {"pupil": jnp.zeros(3)}, None, jnp.zeros(3)):
        assert digest(other) != base
    assert digest({"teacher": np.zeros(3, np.float32)}) == base


def test_context_is_part_of_a_run(tmp_path):
    arguments = (KEY, CrossEntropy(NETWORK, RECIPE), RECIPE, DATA, START)
    descend(*arguments, context=jnp.zeros(2), checkpoint=tmp_path)
    with pytest.raises(CheckpointError, match="differs in context"):
        descend(*arguments, context=jnp.ones(2), checkpoint=tmp_path)


def test_keys_of_the_same_words_and_another_generator_are_told_apart():
    words = jax.random.key_data(jax.random.key(1, impl="rbg"))
    keys = [jax.random.wrap_key_data(words, impl=impl) for impl in ("rbg", "unsafe_rbg")]
    objective = CrossEntropy(NETWORK, RECIPE)
    one, other = (identify(key, objective, RECIPE, DATA, START, None)["key"] for key in keys)
    assert one != other
    assert digest(keys[0]) != digest(keys[1])  # as what an objective is given may hold them


def test_the_precision_of_products_counts():
    base = described(CrossEntropy(NETWORK, RECIPE))
    with jax.default_matmul_precision("highest"):
        assert described(CrossEntropy(NETWORK, RECIPE)) != base


GROWING = {
    "constant": {},
    "constant with warm-up": {"warmup_epochs": 1.5},
    "step": {"schedule": "step", "milestones": (1, 3), "step_factor": 0.5},
}


@pytest.mark.parametrize("case", GROWING)
def test_more_epochs_of_the_same_run_may_be_asked_for(tmp_path, case):
    recipe = dataclasses.replace(RECIPE, **GROWING[case])
    longer = dataclasses.replace(recipe, epochs=4)
    run(tmp_path, recipe=recipe)
    epochs = []
    grown = run(
        tmp_path,
        recipe=longer,
        objective=CrossEntropy(NETWORK, recipe),  # whose own recipe has the earlier epochs
        on_epoch=lambda epoch, _: epochs.append(epoch),
    )
    assert epochs == [3, 4]
    whole = fit(KEY, NETWORK, DATA, longer, variables=START)
    np.testing.assert_array_equal(grown.variables.params["w"], whole.variables.params["w"])
    np.testing.assert_array_equal(grown.info.history["loss"], whole.info.history["loss"])
    with pytest.raises(CheckpointError, match="holds 4 epochs of this run, more than the 2"):
        run(tmp_path, recipe=recipe)


@pytest.mark.parametrize(
    "changes", [{"schedule": "cosine"}, {"warmup_epochs": 3.0}, {"warmup_epochs": 2.5}]
)
def test_more_epochs_are_refused_where_the_rates_depend_on_their_number(tmp_path, changes):
    recipe = dataclasses.replace(RECIPE, **changes)
    run(tmp_path, recipe=recipe)
    with pytest.raises(CheckpointError, match=r"2 of 2 epochs.* 4 would have had other learning"):
        run(tmp_path, recipe=dataclasses.replace(recipe, epochs=4))
    run(tmp_path, recipe=recipe)


def test_a_run_that_was_cut_short_goes_on_to_what_it_was_planned_for(tmp_path):
    recipe = dataclasses.replace(RECIPE, epochs=4, schedule="cosine")

    def stop(epoch, _):
        if epoch == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, recipe=recipe, on_epoch=stop)
    for epochs in (2, 5):
        with pytest.raises(CheckpointError, match="2 of 4 epochs"):
            run(tmp_path, recipe=dataclasses.replace(recipe, epochs=epochs))
    resumed = run(tmp_path, recipe=recipe)
    whole = fit(KEY, NETWORK, DATA, recipe, variables=START)
    np.testing.assert_array_equal(resumed.variables.params["w"], whole.variables.params["w"])


def test_a_metric_that_is_not_a_number_does_not_stop_the_run(tmp_path):
    options = {"model": NETWORK, "objective": weighted(ONES)}
    first = run(tmp_path, **options)
    assert np.isnan(first.info.history["accuracy"]).all()
    again = run(tmp_path, **options)
    np.testing.assert_array_equal(again.info.history["accuracy"], [np.nan, np.nan])
    json.loads((tmp_path / "checkpoint.json").read_text(), parse_constant=pytest.fail)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"run": None}, "does not say which run"),
        ({"run": {"recipe": 3}}, "does not say which run"),
        ({"epoch": "two"}, "malformed"),
        ({"history": []}, "malformed"),
        ({"planned": None}, "malformed"),
        ({"version": 1}, "format version 1; this release reads 2"),
    ],
)
def test_a_sidecar_that_says_too_little_is_refused(folder, tmp_path, changes, message):
    copy = shutil.copytree(folder, tmp_path / "copy")
    sidecar = copy / "checkpoint.json"
    sidecar.write_text(json.dumps({**json.loads(sidecar.read_text()), **changes}))
    with pytest.raises(CheckpointError, match=message):
        run(copy)
