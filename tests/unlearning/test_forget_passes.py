"""Passes over a forget set: every example in each, and batches that fit what there is."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import normed
import numpy as np
import pytest

from unlearnkit.base import Dataset, Variables
from unlearnkit.training import Recipe, init_train_state
from unlearnkit.unlearning import (
    UNLEARNERS,
    BoundaryExpand,
    CatastrophicLastLayers,
    FineTune,
    GradientAscent,
    RandomLabel,
    Retrain,
    Scrub,
    StackelbergUnlearn,
    create,
    scrub,
)
from unlearnkit.unlearning._passes import _ForgetPass, _WholeEpoch, whole_batches
from unlearnkit.unlearning.stackelberg.auditing_set import draw, make_pool

KEY = jax.random.key(0)


@pytest.mark.parametrize(("n", "batch"), [(1, 1), (5, 2), (5, 3), (5, 5), (100, 64), (64, 16)])
def test_a_pass_uses_every_example_and_fills_its_last_batch_from_the_next(n, batch):
    passes = [np.asarray(whole_batches(KEY, index, n, batch)) for index in range(3)]
    for rows, following in itertools.pairwise(passes):
        assert rows.shape == (-(-n // batch), batch)
        flat = rows.ravel()
        assert sorted(flat[:n].tolist()) == list(range(n))
        assert len(set(rows[-1].tolist())) == batch  # none twice in one batch
        own = set(flat[(len(rows) - 1) * batch : n].tolist())
        fill = [row for row in following.ravel()[:n].tolist() if row not in own]
        assert flat[n:].tolist() == fill[: len(flat) - n]
    if n > 5:
        assert not np.array_equal(passes[0], passes[1])


@dataclasses.dataclass(frozen=True)
class Recorder:
    """Descends nothing; notes in the network's state which examples it sees, by their pixels."""

    def __call__(self, params, state, batch, key, context=None):
        rows = batch.x[:, 0].astype(jnp.int32)
        start = (state["n"],)
        log = jax.lax.dynamic_update_slice(state["log"], rows, start)
        zero = 0.0 * params["w"].sum()
        return zero, ({"log": log, "n": start[0] + len(rows)}, {"loss": zero, "accuracy": zero})


def numbered(n, first=0):
    return Dataset(jnp.arange(first, first + n, dtype=jnp.float32)[:, None], jnp.zeros(n, int))


def seen_by(run, recipe, data, epochs):
    state = init_train_state(recipe, 1, Variables({"w": jnp.zeros(1)}, {}))
    orders = []
    for epoch in range(epochs):
        blank = {"log": -jnp.ones(64, jnp.int32), "n": jnp.int32(0)}
        state = state._replace(variables=state.variables._replace(state=blank))
        state, _ = run(state, data, KEY, jnp.int32(epoch))
        log = np.asarray(state.variables.state["log"])
        orders.append(log[log >= 0])
    return orders


def test_a_forget_pass_sees_everything_in_new_orders():
    recipe = Recipe(batch_size=4)
    run = _WholeEpoch(Recorder(), recipe)
    data = _ForgetPass(numbered(10), *jax.random.split(jax.random.key(3)))
    one, two = seen_by(run, recipe, data, 2)
    for rows in (one, two):
        assert len(rows) == 12
        assert set(rows) == set(range(10))
    assert not np.array_equal(one, two)


def test_both_passes_of_scrub_change_their_order_by_epoch():
    recipe = Recipe(batch_size=4)
    run = scrub._ScrubEpoch(Recorder(), Recorder(), recipe, forget_batch=3, max_epochs=2)
    sets = [
        scrub._DistillSet(part, scrub._DistillTargets(part.y, jnp.zeros((part.size, 2)), None))
        for part in (numbered(12, 20), numbered(7))
    ]
    one, two, three = seen_by(run, recipe, scrub._DistillSets(*sets), 3)
    for rows in (one, two):
        assert len(rows) == 9 + 12
        assert set(rows[:9]) == set(range(7))
        assert set(rows[9:]) == set(range(20, 32))
    assert not np.array_equal(one[:9], two[:9])
    assert not np.array_equal(one[9:], two[9:])
    assert set(three) == set(range(20, 32))


def few(n, retain=32):
    task = normed.TASK
    return task._replace(
        retain=task.retain.take(np.arange(retain)), forget=task.forget.take(np.arange(n))
    )


RUNNING = {"statistics": "running"}
ADAPTED = [
    (GradientAscent(epochs=1), 1, {"batch_size": 1, **RUNNING}),
    (GradientAscent(epochs=1), 5, {"batch_size": 5, **RUNNING}),
    (GradientAscent(epochs=1), 8, {"batch_size": 8}),
    (GradientAscent(epochs=1, batch_size=7), 8, RUNNING),
    (GradientAscent(epochs=1, batch_size=8), 8, {}),
    (BoundaryExpand(epochs=1), 1, {"batch_size": 1, **RUNNING}),
    (FineTune(epochs=1), 1, {"batch_size": 32}),
    (FineTune(epochs=1, batch_size=4), 1, RUNNING),
    (
        RandomLabel(epochs=1, batch_size=16),
        5,
        {"forget_batch_size": 5, "forget_statistics": "running"},
    ),
    (
        Scrub(epochs=1),
        8,
        {"batch_size": 32, "forget_batch_size": 8},
    ),
    (Retrain(), 1, {"batch_size": 32}),
    (CatastrophicLastLayers(epochs=1, batch_size=16), 1, {"k": 2}),
    (StackelbergUnlearn(epochs=1, batch_size=16), 2, {"folds": 2}),
    (StackelbergUnlearn(epochs=1, batch_size=16), 5, {}),
]


@pytest.mark.parametrize(("method", "n", "adapted"), ADAPTED)
def test_defaults_fit_and_say_how(method, n, adapted):
    result = method(KEY, normed.LINEN, normed.trained(), few(n))
    assert dict(result.info.adapted) == adapted
    kept = jax.tree.map(np.array_equal, result.variables.state, normed.trained().state)
    if "statistics" in adapted:
        assert all(jax.tree.leaves(kept))
    elif not isinstance(method, CatastrophicLastLayers):
        assert not any(jax.tree.leaves(kept))


def test_each_pass_has_the_statistics_that_its_own_batches_allow():
    task = normed.TASK._replace(forget=normed.TASK.retain)
    retain, forget, adapted = Scrub(batch_size=4, forget_batch_size=8).fitted_pair(
        normed.trained(), task
    )
    assert (retain.frozen_state, forget.frozen_state) == (True, False)
    assert adapted == {"statistics": "running"}


@pytest.mark.parametrize("name", list(UNLEARNERS))
def test_every_method_forgets_five_records_at_its_defaults(name):
    start = normed.trained()
    moved = create(name)(KEY, normed.LINEN, start, few(5)).variables
    change = jax.tree.map(lambda a, b: jnp.abs(a - b).max(), moved.params, start.params)
    assert max(float(leaf) for leaf in jax.tree.leaves(change)) > 1e-6


def test_a_batch_of_one_moves_a_normalised_network():
    start = normed.LINEN.init(jax.random.key(7))
    moved = GradientAscent(weight_decay=0.0)(KEY, normed.LINEN, start, few(1)).variables
    # Normalised by itself, one example tells the layers below the norm nothing.
    change = moved.params["first"]["kernel"] - start.params["first"]["kernel"]
    assert float(jnp.abs(change).max()) > 1e-4


@pytest.mark.parametrize(
    "method",
    [
        GradientAscent(batch_size=6),
        BoundaryExpand(batch_size=128),
        Scrub(batch_size=8, forget_batch_size=6),
        FineTune(batch_size=33),
        Retrain(Recipe()),
    ],
)
def test_what_is_asked_for_and_does_not_fit_is_refused(method):
    with pytest.raises(ValueError, match="larger than the data"):
        method(KEY, normed.LINEN, normed.trained(), few(5))


@pytest.mark.parametrize(("members", "folds"), [(1, 1), (2, 2), (3, 3), (12, 3)])
def test_auditing_sets_of_few_members_weigh_both_sides_alike(members, folds):
    pool, size, found = make_pool(few(members), folds=None, same_classes=False, per_class=False)
    rows, fold = (np.asarray(a) for a in draw(KEY, pool, size, found))
    groups = np.asarray(pool.groups)[rows]
    weight = np.asarray(pool.weights)[groups]
    assert found == folds
    assert (groups == 0).sum() == members
    assert weight[groups == 0].sum() == pytest.approx(weight[groups == 1].sum())
    assert (groups == 1).sum() == (12 if members < 3 else members)
    assert len(np.unique(fold[groups == 0])) == folds
