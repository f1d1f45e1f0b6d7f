"""Every registered unlearner through the same cases; a new one joins by itself."""

import importlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from counted_work import counting, work_of
from trial_settings import made, trial_of

from unlearnkit import models, unlearning
from unlearnkit.auditing import accuracy
from unlearnkit.base import Dataset, Normalisation, Task, Unlearned, Unlearner, Variables
from unlearnkit.costs import FORWARD, HVP
from unlearnkit.studies.budget import CountsItself, with_epochs
from unlearnkit.studies.snapshots import is_prefix_stable, unlearn_for
from unlearnkit.training import Recipe, cross_entropy, fit
from unlearnkit.trials import UnlearnerTrial
from unlearnkit.validation import named_leaves

KEY = jax.random.key(2)
RECIPE = Recipe(epochs=5, batch_size=32, learning_rate=0.05)
SMALL = {"epochs": 2, "batch_size": 32, "forget_batch_size": 16, "k": 1, "recipe": RECIPE}
"""What a method is given of it by the names of its fields; see `unlearnkit.trials` for more."""

METHODS = {
    name: made(kind, SMALL, trial_of(kind, UnlearnerTrial()).small)
    for name, kind in unlearning.UNLEARNERS.items()
}
# Of 200 retained examples a pass of 32 at a time uses 192; of 40 to forget one of 16 uses all, and
# 8 of them twice.
COUNTED_BY_HAND = {
    "retrain": 5 * 192,
    "fine_tune": 2 * 192,
    "noisy_descent": 2 * 192,
    "gradient_ascent": 2 * 48,
    "neg_grad_plus": 2 * 6 * (32 + 16),
    "random_label": 2 * (192 + 48),
    "salun": 40 + 2 * (192 + 48),
    "l1_sparse": 2 * 192,
    "boundary_shrink": 40 * 4 / 3 + 2 * 48,
    "boundary_expand": 2 * 48,
    "scrub": (200 + 40) / 3 + 3 * 192 + 2 * 48 + 3 * (40 + 30) / 3,
    "exact_last_layers": 5 * 192,
    "catastrophic_last_layers": 2 * 192,
    "stackelberg": 2 * (192 + 2 * 30),
    # Gradients; a product of the Gauss-Newton matrix is 4/3, one per step and one more.
    "influence": lambda info: 240 + 240 * 4 / 3 * (info.solves["influence"].steps + 1),
    "newton_scrub": lambda info: 200 + 200 * 4 / 3 * (info.solves["newton"].steps + 1),
    # A forward pass, and a backward pass for each of the 3 classes.
    "fisher_forgetting": 200 * (1 / 3 + 3 * 2 / 3),
    # Outputs and three gradients; 5/3 per product; the Fisher.
    "ntk_scrub": lambda info: (
        240 * (1 / 3 + 3 + 5 / 3 * sum(int(s.steps) for s in info.solves.values()))
        + 200 * (1 / 3 + 3 * 2 / 3)
    ),
}
"""Once more, for methods of which somebody did; a new one needs no entry."""
SEEN_OTHERWISE = {"boundary_expand": 96, "ntk_scrub": -240}
"""What the logits see beside the cost: the two heads of Boundary Expand share all layers below, and
of the three gradients of each tangent the forward pass is shared, but counted with each.
"""
FIRST_LAYER = {"fc1/kernel", "fc1/bias"}
PIXELS = Normalisation("pixels", (0.5,), (0.15,))


def draw(seed, n):
    noise = jax.random.normal(jax.random.key(seed), (n, 6, 6, 1))
    x = PIXELS.apply(jnp.clip(PIXELS.invert(noise), 0, 1))
    y = jnp.argmax(x[:, :3, :3].reshape(n, 3, 3).mean(-1), axis=-1)
    return Dataset(x, y.astype(jnp.int32), PIXELS)


@pytest.fixture(scope="module")
def model():
    return models.create("mlp", input_shape=(6, 6, 1), n_classes=3, hidden=(16,))


@pytest.fixture(scope="module")
def task():
    return Task(draw(1, 200), draw(2, 40), draw(3, 30), draw(4, 60))


@pytest.fixture(scope="module")
def variables(model, task):
    return fit(jax.random.key(0), model, task.train, RECIPE).variables


@pytest.fixture(params=list(unlearning.UNLEARNERS))
def name(request):
    return request.param


@pytest.fixture
def trial(name):
    return trial_of(unlearning.UNLEARNERS[name], UnlearnerTrial())


@pytest.fixture(scope="module")
def results():
    """Each method runs once for the tests that only look."""
    return {}


@pytest.fixture
def unlearned(name, model, variables, task, results):
    if name not in results:
        results[name] = METHODS[name](KEY, model, variables, task)
    return results[name]


def leaves_equal(one, other):
    pairs = zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
    return all(np.array_equal(a, b) for a, b in pairs)


def test_is_what_the_registry_promises(name, trial):
    assert type(METHODS[name]) is unlearning.UNLEARNERS[name]
    assert isinstance(METHODS[name], Unlearner)
    assert type(trial) is UnlearnerTrial


def test_moves_the_model_and_leaves_the_original_untouched(name, trial, model, variables, task):
    before = jax.tree.map(np.array, variables)
    unlearned = METHODS[name](KEY, model, variables, task)
    assert isinstance(unlearned, Unlearned)
    assert leaves_equal(variables, before)
    assert jax.tree.structure(unlearned.variables) == jax.tree.structure(variables)
    old_leaves = named_leaves(variables.params)
    for leaf, new in named_leaves(unlearned.variables.params).items():
        old = old_leaves[leaf]
        assert new.shape == old.shape
        assert new.dtype == old.dtype
        stays = trial.keeps_first_layers and leaf in FIRST_LAYER
        assert np.array_equal(new, old) == stays, leaf
        assert np.all(np.isfinite(new))


def test_keeps_what_stays_useful(unlearned, model, task):
    assert accuracy(model, unlearned.variables, task.retain) > 0.6


def test_a_shorter_run_is_the_beginning_of_a_longer_one_where_it_says_so(
    name, model, variables, task, unlearned
):
    method = METHODS[name]
    if not is_prefix_stable(method):
        return
    longest = len(unlearned.info.history["loss"])
    found = dict(unlearn_for(KEY, model, variables, task, method, [longest - 1, longest]))
    alone = with_epochs(method, longest - 1)(KEY, model, variables, task)
    for snapshot, own in ((found[longest - 1], alone), (found[longest], unlearned)):
        assert leaves_equal(snapshot.variables, own.variables)
        assert snapshot.info.cost.example_gradients == own.info.cost.example_gradients
        assert snapshot.info.adapted == own.info.adapted
        assert snapshot.info.history.keys() == own.info.history.keys()
        assert leaves_equal(snapshot.info.history, own.info.history)


def test_the_key_decides_everything(name, trial, model, variables, task, unlearned):
    one = unlearned.variables
    same = METHODS[name](KEY, model, variables, task).variables
    other = METHODS[name](jax.random.key(9), model, variables, task).variables
    assert leaves_equal(one, same)
    assert leaves_equal(one, other) == trial.deterministic


def test_no_key_is_used_twice(name, model, variables, task):
    with jax.debug_key_reuse(True):
        METHODS[name](jax.random.key(5), model, variables, task)


def test_keeps_its_history(unlearned):
    info = unlearned.info
    assert info.cost.seconds > 0
    assert info.cost.compile_seconds >= 0
    assert {"loss", "accuracy"} <= set(info.history)
    for values in info.history.values():
        assert np.all(np.isfinite(values))


@pytest.mark.parametrize("name", list(COUNTED_BY_HAND))
def test_counts_its_cost_as_a_hand_does(unlearned, name):
    expected = COUNTED_BY_HAND[name]
    cost = expected(unlearned.info) if callable(expected) else expected
    assert unlearned.info.cost.example_gradients == pytest.approx(cost)


def test_costs_what_it_makes_the_network_do(name, model, variables, task, monkeypatch):
    """But for one look at the retain set at the end, which is no unlearning."""
    # Otherwise rows of zeros would be added to small sets, and counted.
    monkeypatch.setattr(importlib.import_module("unlearnkit.host.reserve"), "room_for", lambda n: n)
    found = []

    def run():
        found.append(METHODS[name](KEY, counting(model), variables, task))
        return found[0].variables

    beside = work_of(run) - found[0].info.cost.example_gradients
    if isinstance(METHODS[name], CountsItself):
        said = METHODS[name].example_gradients(variables, task)
        assert said == pytest.approx(found[0].info.cost.example_gradients)
    looks = [SEEN_OTHERWISE.get(name, 0) + look for look in (0, task.retain.size * FORWARD)]
    assert any(beside == pytest.approx(look, abs=1e-3) for look in looks)


def test_reports_each_epoch(name, model, variables, task):
    epochs = []
    METHODS[name](KEY, model, variables, task, on_epoch=lambda epoch, _: epochs.append(epoch))
    assert epochs == list(range(1, len(epochs) + 1))
    assert epochs


def test_second_call_compiles_nothing(name, model, variables, task):
    METHODS[name](KEY, model, variables, task)
    compiled = []

    def listen(event, duration, **_):
        if event == "/jax/core/compile/backend_compile_duration":
            compiled.append(event)

    jax.monitoring.register_event_duration_secs_listener(listen)
    METHODS[name](jax.random.key(6), model, variables, task)
    jax.monitoring.unregister_event_duration_listener(listen)
    assert not compiled


def test_is_a_value_that_prints_and_hashes(name):
    method = METHODS[name]
    assert type(method).__name__ in repr(method)
    assert hash(method) == hash(METHODS[name])
    assert unlearning.create(name) == type(method)()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda t: t._replace(forget=t.forget.take(np.arange(0))), "forget"),
        (lambda t: t._replace(retain=t.retain.take(np.arange(0))), "retain"),
        (
            lambda t: t._replace(forget=t.forget._replace(x=t.forget.x.at[1, 2, 3].set(np.nan))),
            "finite",
        ),
        (
            lambda t: t._replace(forget=t.forget._replace(y=t.forget.y.at[3].set(3))),
            "labels of forget must be < 3",
        ),
        (lambda t: t._replace(retain=t.retain._replace(x=t.retain.x[:, :5])), "has shape"),
    ],
)
def test_bad_tasks_are_refused(name, model, variables, task, damage, message, unchecked_types):
    with pytest.raises(ValueError, match=message):
        METHODS[name](KEY, model, variables, damage(task))


def test_explicit_batches_larger_than_the_data_are_refused(name, trial, model, variables, task):
    if trial.whole_sets:
        return
    few = task._replace(
        retain=task.retain.take(np.arange(9)), forget=task.forget.take(np.arange(2))
    )
    with pytest.raises(ValueError, match="larger than the data"):
        METHODS[name](KEY, model, variables, few)


def test_weights_of_another_network_are_refused(name, trial, model, task):
    if trial.from_scratch:
        return
    with pytest.raises(ValueError, match="variables do not fit the model"):
        METHODS[name](KEY, model, Variables({"other": jnp.zeros(3)}), task)


def test_unknown_names_are_refused():
    with pytest.raises(ValueError, match="unknown unlearner 'scrubb'; known: retrain, fine_tune"):
        unlearning.create("scrubb")


def test_work_is_seen_in_loops_under_vmap_and_under_derivatives(model, variables, task):
    counted, x, y = counting(model), task.forget.x, task.forget.y

    def loss(params, x, y):
        return cross_entropy(counted.apply(Variables(params), x), y)

    def of_one(x, y):
        return jax.grad(loss)(variables.params, x[None], y[None])

    gradients = jax.jit(lambda: jax.vmap(of_one)(x, y))
    assert work_of(gradients) == pytest.approx(40)
    assert work_of(lambda: jax.lax.map(lambda one: of_one(*one), (x, y))) == pytest.approx(40)

    def product(params):
        return jax.jvp(jax.grad(lambda p: loss(p, x, y)), (params,), (params,))[1]

    assert work_of(lambda: product(variables.params)) == pytest.approx(40 * HVP)
