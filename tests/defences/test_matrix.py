"""Every registered defence through the same cases; a new one joins by itself."""

import dataclasses
import importlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from counted_work import counting, work_of
from trial_settings import made, trial_of

from unlearnkit import defences, models
from unlearnkit.base import (
    Cost,
    Dataset,
    Defence,
    DefenceInfo,
    Defended,
    RobustTrainer,
    Variables,
)
from unlearnkit.defences import defend_and_retrain
from unlearnkit.training import Recipe, cross_entropy, fit, fit_many
from unlearnkit.training.features import PROBES
from unlearnkit.trials import DefenceTrial

KEY = jax.random.key(2)
RECIPE = Recipe(epochs=5, batch_size=32, learning_rate=0.05)
N, POISONS = 300, 15

SMALL = {"fraction": POISONS / N, "recipe": RECIPE}
"""What a defence is given of it by the names of its fields; see `unlearnkit.trials` for more."""

TRIALS = {name: trial_of(kind, DefenceTrial()) for name, kind in defences.DEFENCES.items()}
METHODS = {name: made(kind, SMALL, TRIALS[name].small) for name, kind in defences.DEFENCES.items()}
EFFECTIVE = {
    name: made(kind, SMALL, {**TRIALS[name].small, **TRIALS[name].effective})
    for name, kind in defences.DEFENCES.items()
}
FILTERS = [name for name, method in METHODS.items() if isinstance(method, Defence)]
COUNTED_BY_HAND = {
    "loss": N / 3,
    "influence": N * (30 * 4 / 3 + 1),
    "spectral_signature": N / 3,
    "activation_clustering": N / 3,
    "deep_knn": N / 3,
}
"""Of Sever, see test_gradient_filters; a new one needs no entry."""


def draw(seed, n, poisons=0):
    """Three patterns under noise; the first examples show pattern 0 and are labelled 1."""
    noise = 0.35 * jax.random.normal(jax.random.key(seed), (n, 6, 6, 1))
    shown = jnp.arange(n) % 3
    x = noise.at[jnp.arange(n), 2 * shown].add(1.0)
    mine = np.flatnonzero(np.arange(n) % 3 == 0)[:poisons]
    is_poison = np.zeros(n, bool)
    is_poison[mine] = True
    return Dataset(x, jnp.where(is_poison, 1, shown).astype(jnp.int32)), is_poison


@pytest.fixture(scope="module")
def model():
    return models.create("mlp", input_shape=(6, 6, 1), n_classes=3, hidden=(16,))


@pytest.fixture(scope="module")
def poisoned():
    return draw(1, N, POISONS)


@pytest.fixture(scope="module")
def variables(model, poisoned):
    return fit(jax.random.key(0), model, poisoned[0], RECIPE).variables


@pytest.fixture(params=list(defences.DEFENCES))
def name(request):
    return request.param


@pytest.fixture(params=FILTERS)
def filter_name(request):
    return request.param


def leaves_equal(one, other):
    pairs = zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
    return all(np.array_equal(a, b) for a, b in pairs)


def run(key, name, model, variables, data):
    """Returns the arrays that a defence ends with."""
    method = METHODS[name]
    if isinstance(method, RobustTrainer):
        return method.fit(key, model, data, RECIPE).variables
    return method(key, model, variables, data)[:2]


@pytest.fixture(scope="module")
def results():
    """Each filter runs once for the tests that only look."""
    return {}


@pytest.fixture
def defended(filter_name, model, variables, poisoned, results):
    if filter_name not in results:
        results[filter_name] = METHODS[filter_name](KEY, model, variables, poisoned[0])
    return results[filter_name]


def test_is_what_the_registry_promises(name):
    method = METHODS[name]
    assert type(method) is defences.DEFENCES[name]
    assert isinstance(method, Defence) != isinstance(method, RobustTrainer)
    assert type(TRIALS[name]) is DefenceTrial


def test_finds_the_planted_poisons(filter_name, model, variables, poisoned):
    data, is_poison = poisoned
    before = jax.tree.map(np.array, (variables, data))
    defended = METHODS[filter_name](KEY, model, variables, data)
    assert isinstance(defended, Defended)
    metrics = defences.score_defence(defended, is_poison)
    assert metrics["recall"] >= 0.8
    assert metrics["precision"] >= TRIALS[filter_name].precision
    assert defended.keep.shape == defended.scores.shape == (N,)
    assert leaves_equal((variables, data), before)


SEEDS = 10


def losses(model, many, data):
    """Returns [seeds] mean losses of networks with a leading axis of seeds."""
    networks = [jax.tree.map(lambda leaf, i=i: leaf[i], many) for i in range(SEEDS)]
    return np.array([float(cross_entropy(model.apply(v, data.x), data.y)) for v in networks])


def helps(method, model, variables, data):
    """Returns whether networks trained after the defence do better on new, clean data.

    A robust trainer is judged where it trains: on inputs with noise of the kind that it knows.
    """
    keys = jax.random.split(jax.random.key(30), SEEDS)
    test = draw(6, 150)[0]
    plain = fit_many(keys, model, data, RECIPE).variables
    if isinstance(method, RobustTrainer):
        trained = [method.fit(key, model, data, RECIPE).variables for key in keys]
        ours = jax.tree.map(lambda *leaves: jnp.stack(leaves), *trained)
        noise = method.noise_std * jax.random.normal(jax.random.key(31), test.x.shape)
        test = test._replace(x=test.x + noise)
    else:
        keep = np.flatnonzero(method(KEY, model, variables, data).keep)
        ours = fit_many(keys, model, data.take(keep), RECIPE).variables
    gains = losses(model, plain, test) - losses(model, ours, test)
    return gains.mean() > 2 * gains.std(ddof=1) / np.sqrt(SEEDS)


def test_networks_trained_after_it_do_better(name, model, variables, poisoned):
    assert helps(EFFECTIVE[name], model, variables, poisoned[0])


@dataclasses.dataclass(frozen=True)
class Keeps:
    """Keeps all, or drops a tenth that is not looked at."""

    all: bool

    def __call__(self, key, model, variables, dataset):
        scores = jax.random.uniform(key, (dataset.size,))
        keep = (scores < 2) if self.all else (scores < 0.9)
        return Defended(keep, scores, DefenceInfo(Cost(0.0, 0.0)))


@pytest.mark.parametrize("all_kept", [True, False])
def test_a_defence_that_does_not_look_is_none(model, variables, poisoned, all_kept):
    data, is_poison = poisoned
    defended = Keeps(all_kept)(KEY, model, variables, data)
    assert defences.score_defence(defended, is_poison)["recall"] < 0.8
    assert not helps(Keeps(all_kept), model, variables, data)


def test_one_call_retrains_after_it(name, model, variables, poisoned):
    data, is_poison = poisoned
    found = defend_and_retrain(
        KEY, METHODS[name], model, variables, data, RECIPE, test=draw(5, 90)[0], is_poison=is_poison
    )
    assert found.metrics["accuracy_test"] > 0.9
    assert ("recall" in found.metrics) == (name in FILTERS)


def test_what_is_dropped_scores_at_least_as_high_in_its_class(filter_name, defended, poisoned):
    if not TRIALS[filter_name].ranks_each_class:
        return
    data, _ = poisoned
    scores, labels = np.asarray(defended.scores), np.asarray(data.y)
    keep = np.asarray(defended.keep)
    for label in range(3):
        own = labels == label
        if (own & ~keep).any():
            assert scores[own & ~keep].min() >= scores[own & keep].max()


def test_the_key_decides_everything(name, model, variables, poisoned):
    one = run(KEY, name, model, variables, poisoned[0])
    same = run(KEY, name, model, variables, poisoned[0])
    other = run(jax.random.key(9), name, model, variables, poisoned[0])
    assert leaves_equal(one, same)
    if TRIALS[name].deterministic:
        assert leaves_equal(one, other)


def test_no_key_is_used_twice(name, model, variables, poisoned):
    with jax.debug_key_reuse(True):
        run(jax.random.key(5), name, model, variables, poisoned[0])


def test_tells_its_times(defended):
    assert defended.info.cost.seconds > 0
    assert defended.info.cost.compile_seconds >= 0


@pytest.mark.parametrize("filter_name", list(COUNTED_BY_HAND))
def test_counts_its_cost_as_a_hand_does(defended, filter_name):
    cost = defended.info.cost.example_gradients
    assert cost == pytest.approx(COUNTED_BY_HAND[filter_name])


def test_costs_what_it_makes_the_network_do(filter_name, model, variables, poisoned, monkeypatch):
    # Otherwise rows of zeros would be added to small sets, and counted.
    monkeypatch.setattr(importlib.import_module("unlearnkit.host.reserve"), "room_for", lambda n: n)
    found = []

    def run():
        watched = counting(model, at_inputs=True)
        found.append(METHODS[filter_name](KEY, watched, variables, poisoned[0]))
        return found[0].scores

    beside = work_of(run) - found[0].info.cost.example_gradients
    assert -1e-3 < beside < 2 * PROBES  # by which the last layer may be recognised


def test_second_call_compiles_nothing(name, model, variables, poisoned):
    run(KEY, name, model, variables, poisoned[0])
    compiled = []

    def listen(event, duration, **_):
        if event == "/jax/core/compile/backend_compile_duration":
            compiled.append(event)

    jax.monitoring.register_event_duration_secs_listener(listen)
    run(KEY, name, model, variables, poisoned[0])
    jax.monitoring.unregister_event_duration_listener(listen)
    assert not compiled


def test_is_a_value_that_prints_and_hashes(name):
    method = METHODS[name]
    assert type(method).__name__ in repr(method)
    assert hash(method) == hash(METHODS[name])
    assert defences.create(name) == type(method)()


def test_no_class_is_ever_lost(filter_name, model, variables, poisoned):
    """Class 2 is left with two examples, and these show pattern 0."""
    data, _ = poisoned
    labels = np.asarray(data.y)
    rows = np.concatenate([np.flatnonzero(labels < 2), np.flatnonzero(labels == 2)[:2]])
    few = data.take(rows)
    few = few._replace(x=few.x.at[-2:].set(few.x[3 * POISONS : 3 * POISONS + 2]))
    if TRIALS[filter_name].across_classes:
        with pytest.raises(ValueError, match="would drop all 2 examples of class 2"):
            METHODS[filter_name](KEY, model, variables, few)
    else:
        keep = np.asarray(METHODS[filter_name](KEY, model, variables, few).keep)
        assert set(np.asarray(few.y)[keep].tolist()) == {0, 1, 2}


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda d: d.take(np.arange(0)), "at least one example"),
        (lambda d: d._replace(x=d.x.at[1, 2, 3].set(np.nan)), "finite"),
        (lambda d: d._replace(y=d.y.at[3].set(3)), "labels of dataset must be < 3"),
        (lambda d: d._replace(x=d.x[:, :5]), "has shape"),
    ],
)
def test_bad_data_is_refused(name, model, variables, poisoned, damage, message, unchecked_types):
    with pytest.raises(ValueError, match=message):
        run(KEY, name, model, variables, damage(poisoned[0]))


def test_weights_of_another_network_are_refused(filter_name, model, poisoned):
    with pytest.raises(ValueError, match="variables do not fit the model"):
        run(KEY, filter_name, model, Variables({"other": jnp.zeros(3)}), poisoned[0])


def test_unknown_names_are_refused():
    with pytest.raises(ValueError, match="unknown defence 'severe'; known: loss, influence"):
        defences.create("severe")
