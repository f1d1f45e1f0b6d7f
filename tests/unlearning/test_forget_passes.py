"""Passes over a forget set: every example in each, and batches that fit what there is."""

import itertools

import jax
import jax.numpy as jnp
import normed
import numpy as np
import pytest
import softmax_regression as sr
from watched_passes import numbered, watch

from unlearnkit.host import host_key, whole_rows
from unlearnkit.training import Recipe
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
)
from unlearnkit.unlearning._passes import descend_on_forget
from unlearnkit.unlearning._sgd import Fitted
from unlearnkit.unlearning.stackelberg.auditing_set import draw, make_pool

KEY = jax.random.key(0)


@pytest.mark.parametrize(("n", "batch"), [(1, 1), (5, 2), (5, 3), (5, 5), (100, 64), (64, 16)])
def test_a_pass_uses_every_example_and_fills_its_last_batch_from_the_next(n, batch):
    passes = [whole_rows(host_key(KEY), index, n, batch) for index in range(3)]
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


def test_a_forget_pass_sees_everything_in_new_orders(monkeypatch):
    seen = watch(monkeypatch)
    fitted = Fitted(Recipe(epochs=2, batch_size=4, learning_rate=1e-3), {})
    descend_on_forget(KEY, sr.MODEL, sr.weights(), numbered(10), fitted)
    one, two = (part.pixels for part in seen)
    for rows in (one, two):
        assert rows.shape == (3, 4)
        assert set(rows.ravel()) == set(range(10))
    assert not np.array_equal(one, two)


def test_both_passes_of_scrub_change_their_order_by_epoch(monkeypatch):
    seen = watch(monkeypatch)
    task = sr.TASK._replace(retain=numbered(12, 20), forget=numbered(7))
    method = Scrub(epochs=3, batch_size=4, forget_batch_size=3, max_epochs=2, learning_rate=1e-6)
    method(KEY, sr.MODEL, sr.weights(), task)
    away, back = [[seen[i].pixels.ravel() for i in part] for part in ((0, 2), (1, 3, 4))]
    assert len(seen) == 5
    for rows in away:
        assert len(rows) == 9
        assert set(rows) == set(range(7))
    for rows in back:
        assert sorted(rows) == list(range(20, 32))
    assert not np.array_equal(*away)
    assert not np.array_equal(back[0], back[1])
    assert not np.array_equal(back[1], back[2])


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
    start = normed.trained()  # with biases that are not 0, and so can be scaled too
    start = start._replace(params=jax.tree.map(lambda w: w + 0.1, start.params))
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
