"""The networks of a study: several seeds at once, in lanes, and in ensembles."""

import dataclasses
import importlib

import jax
import numpy as np
import pytest
from tiny_study import KEY, RECIPE, assert_same, draw, study

from unlearnkit.auditing import Klom, ThresholdAttack
from unlearnkit.base import Audited
from unlearnkit.data import PredicateForget
from unlearnkit.studies import RETRAIN, Pair, run
from unlearnkit.training import Recipe, fit


def test_seeds_whose_forget_sets_differ_in_size():
    """A request may choose another number for each key."""

    @dataclasses.dataclass(frozen=True)
    class Some:
        def __call__(self, key, train):
            return np.arange(10 + int(jax.random.randint(key, (), 0, 40)))

    records = list(run(study(forget=Some(), methods={}, seeds=4), KEY))
    assert [r.seed for r in records] == [0, 0, 1, 1, 2, 2, 3, 3]
    assert all(r.finished for r in records)
    assert len({r.cost.example_gradients for r in records if r.method == RETRAIN}) > 1


def test_originals_are_what_fit_makes_of_their_keys(monkeypatch):
    """In turn, each is `fit` of its own key and rows, bit by bit."""
    seen = []

    @dataclasses.dataclass(frozen=True)
    class Looks:
        def judge(self, key, case, subject):
            seen.append((case, subject))
            return Audited({"seen": 1.0})

    list(run(study(methods={}, audits={"": Looks()}), KEY))
    for seed, (case, _) in enumerate(seen[::2]):
        keys = jax.random.split(jax.random.fold_in(KEY, seed), 5)
        original = fit(keys[1], case.model, case.task.train, RECIPE).variables
        reference = fit(keys[2], case.model, case.task.retain, RECIPE).variables
        for one, other in ((original, case.original), (reference, case.reference.variables)):
            for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
                np.testing.assert_array_equal(a, b)


def test_each_seed_is_kept_as_it_comes(tmp_path, monkeypatch):
    """What is killed in the training of the third seed has the first two."""
    lanes = importlib.import_module("unlearnkit.studies.lanes")
    fit_many, trained = lanes.fit_many, []

    def killed(keys, *arguments, **options):
        trained.append(len(keys))
        if len(trained) == 3:
            raise KeyboardInterrupt
        return fit_many(keys, *arguments, **options)

    monkeypatch.setattr(lanes, "fit_many", killed)
    with pytest.raises(KeyboardInterrupt):
        list(run(study(seeds=3), KEY, store=tmp_path))
    list(run(study(seeds=3), KEY, store=tmp_path))
    assert trained == [1] * (3 + 1 + 3)


def test_lanes_have_the_same_bits_however_many_are_used(tmp_path):
    options = {"batching": "vmap", "lanes": 4}
    two = list(run(study(), KEY, **options))
    three = list(run(study(seeds=3), KEY, **options))
    assert_same(two, three)
    list(run(study(), KEY, store=tmp_path, **options))
    assert_same(three, list(run(study(seeds=3), KEY, store=tmp_path, **options)))


def test_lanes_are_filled_from_the_declared_seeds_and_with_the_first(monkeypatch):
    lanes = importlib.import_module("unlearnkit.studies.lanes")
    fit_many, widths = lanes.fit_many, []

    def spy(keys, *arguments, **options):
        widths.append([jax.random.key_data(key).tobytes() for key in keys])
        return fit_many(keys, *arguments, **options)

    monkeypatch.setattr(lanes, "fit_many", spy)
    list(run(study(methods={}, seeds=3), KEY, batching="vmap", lanes=2))
    assert [len(width) for width in widths] == [2, 2, 2, 2]
    first, second = widths[:2]
    assert first[0] != first[1]
    assert second[0] == second[1]


def test_lanes_follow_the_declared_seeds_and_not_what_is_missing(tmp_path, monkeypatch):
    """With a seed in the store, the others still train in the lanes that they were declared for."""
    lanes = importlib.import_module("unlearnkit.studies.lanes")
    fit_many, groups = lanes.fit_many, []

    def spy(keys, *arguments, **options):
        groups.append([jax.random.key_data(key).tobytes() for key in keys])
        return fit_many(keys, *arguments, **options)

    monkeypatch.setattr(lanes, "fit_many", spy)
    options = {"batching": "vmap", "lanes": 3, "store": tmp_path}
    list(run(study(methods={}, seeds=1), KEY, **options))
    first = groups[0]
    groups.clear()
    list(run(study(methods={}, seeds=3), KEY, **options))
    assert [len(set(group)) for group in groups] == [3, 3]
    assert groups[0][0] == first[0]


# Ensembles.


def test_ensembles_are_trained_once_for_all_methods_and_audits(monkeypatch):
    audits, ensembles = (
        importlib.import_module(f"unlearnkit.auditing.{name}")
        for name in ("ensemble_audits", "ensembles")
    )
    fit_many, trained = audits.fit_many, []

    def spy(keys, *arguments, **options):
        trained.append(len(keys))
        return fit_many(keys, *arguments, **options)

    for module in (audits, ensembles):
        monkeypatch.setattr(module, "fit_many", spy)
    asked = study(audits={"": ThresholdAttack(), "klom": Klom(count=3)}, seeds=1)
    records = list(run(asked, KEY))
    assert trained == [3, 3, 3]  # retrained, originals, and again retrained for the floor
    assert all(np.isfinite(r.metrics["klom_klom_mean"]) for r in records)


def test_the_network_that_was_not_unlearned_is_farther_than_a_retrained_one():
    recipe = Recipe(epochs=60, batch_size=20, learning_rate=0.5)
    asked = study(
        recipes=recipe, forget=PredicateForget(first_twenty), methods={},
        audits={"": ThresholdAttack(), "klom": Klom(count=12)}, seeds=1,
        data=Pair(wrong(draw(0, 120)), draw(1, 80)),
    )  # fmt: skip
    original, retrained = run(asked, KEY)
    assert original.metrics["klom_klom_mean"] > 1.5 * retrained.metrics["klom_klom_mean"]


def first_twenty(index, x, y):
    return index < 20


def wrong(dataset):
    y = np.asarray(dataset.y).copy()
    y[:20] = (y[:20] + 1) % 3
    return dataset._replace(y=jax.numpy.asarray(y))
