"""The engine: what records depend on, what a store saves, and what becomes of failures."""

import dataclasses
import importlib
import threading
from typing import NamedTuple

import jax
import numpy as np
import pytest
import tiny_study
from tiny_study import KEY, METHODS, RECIPE, Counted, Fails, draw, network, study, table, whole

from unlearnkit.auditing import Klom, ThresholdAttack
from unlearnkit.base import Audited, Cost, DefenceInfo, Defended, Poisoned, Unlearned
from unlearnkit.data import PredicateForget, RandomForget
from unlearnkit.defences import MaxUp
from unlearnkit.poisoning import Budget, GaussianPoison, LabelFlip
from unlearnkit.studies import ORIGINAL, RETRAIN, Environment, Pair, Store, StoreWarning, run
from unlearnkit.studies.stage_cache import StageCache
from unlearnkit.training import DivergedError, Recipe, fit
from unlearnkit.unlearning import FineTune

FLIP = LabelFlip(budget=Budget(0.2), placement="perturb")


@pytest.fixture(autouse=True)
def no_calls():
    tiny_study.CALLS.clear()


@pytest.fixture(scope="module")
def plain():
    return list(run(study(), KEY))


def by_cell(records):
    return {(r.dataset, r.network, r.recipe, r.question, r.defence, r.method, r.budget, r.seed): r
            for r in records}  # fmt: skip


def assert_same(some, others):
    """All of `some` are among the others, with the same bits."""
    others = by_cell(others)
    for where, record in by_cell(some).items():
        assert dict(record.metrics) == dict(others[where].metrics), where
        assert record.cost.example_gradients == others[where].cost.example_gradients


def test_a_row_for_the_untouched_the_retrained_and_each_method(plain):
    expected = [(name, seed) for seed in range(2) for name in (ORIGINAL, RETRAIN, *METHODS)]
    assert [(r.method, r.seed) for r in plain] == expected
    assert all(r.finished and r.question == "some" and r.budget is None for r in plain)


@pytest.mark.parametrize(
    "changes",
    [
        {"seeds": 3},
        {"methods": {**METHODS, "more": FineTune(epochs=1, batch_size=20)}},
        {"forget": {"some": RandomForget(count=20), "more": RandomForget(count=10)}},
        {"attacks": {"flip": FLIP}},
        {"recipes": {"": RECIPE, "longer": dataclasses.replace(RECIPE, epochs=6)}},
        {"data": {"": Pair(draw(0, 120), draw(1, 80)), "other": Pair(draw(5, 100), draw(6, 60))}},
        {"networks": {"": network(), "again": network()}},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_what_is_appended_leaves_the_rest_as_it_was(plain, changes):
    more = list(run(study(**changes), KEY))
    assert len(more) > len(plain)
    assert_same(plain, more)


def test_appended_places_have_keys_of_their_own():
    """The same dataset, network and request again is another repetition, not the same one."""
    twice = study(
        networks={"a": network(), "b": network(), "c": network()},
        forget={"a": RandomForget(count=20), "b": RandomForget(count=20)},
        seeds=1,
    )
    records = [r for r in run(twice, KEY) if r.method == ORIGINAL]
    values = {tuple(r.metrics.items()) for r in records}
    assert len(records) == len(values) == 6


def test_budgets_of_a_forget_request():
    records = list(
        run(study(methods={"fine_tune": METHODS["fine_tune"]}, budgets=(0.1, 0.3, 0.6)), KEY)
    )
    found = {(r.budget, r.seed): r for r in records if r.method == "fine_tune"}
    assert "one epoch costs 25 % of Retrain" in found[0.1, 0].over_budget
    assert found[0.3, 1].cost.example_gradients == 100
    assert found[0.6, 1].cost.example_gradients == 200


# Failures.


def test_a_method_that_fails_is_a_row_and_the_study_goes_on(plain):
    records = list(run(study(methods={"bad": Fails(), **METHODS}), KEY))
    bad = [r for r in records if r.method == "bad"]
    assert [r.failed for r in bad] == ["RuntimeError: a mistake in the method"] * 2
    assert not any(r.metrics or r.finished for r in bad)
    assert len(records) == len(plain) + 2
    with pytest.raises(RuntimeError, match="a mistake in the method"):
        list(run(study(methods={"bad": Fails()}), KEY, strict=True))


def test_an_audit_or_an_attack_that_fails_is_a_row_too():
    @dataclasses.dataclass(frozen=True)
    class Breaks:
        def __call__(self, key, model, variables, task):
            raise ZeroDivisionError("a mistake")

    records = list(run(study(audits={"": Breaks()}), KEY))
    assert {r.failed for r in records} == {"ZeroDivisionError: a mistake"}
    assert [r.cost.example_gradients > 0 for r in records if r.method == "ascent"] == [True] * 2
    records = list(run(study(forget={}, attacks={"bad": Breaks(), "flip": FLIP}), KEY))
    assert [(r.question, r.method, r.failed) for r in records[:2]] == [
        ("bad", ORIGINAL, "ZeroDivisionError: a mistake"),
        ("flip", ORIGINAL, None),
    ]


def test_an_audit_that_returns_something_else_says_so():
    records = list(run(study(audits={"": lambda *_: {"accuracy": 1.0}}, seeds=1), KEY))
    assert "must return Audited(metrics, curves), got dict" in records[0].failed


def test_one_seed_that_diverges_is_found_out(monkeypatch):
    """Trainings of all seeds go together; the other seeds are trained all the same."""
    lanes = importlib.import_module("unlearnkit.studies.lanes")
    fit_many = lanes.fit_many

    bad = jax.random.split(jax.random.fold_in(KEY, 1), 5)[1]

    def diverges(keys, *arguments, **options):
        if any(np.array_equal(jax.random.key_data(key), jax.random.key_data(bad)) for key in keys):
            raise DivergedError("loss nan")
        return fit_many(keys, *arguments, **options)

    monkeypatch.setattr(lanes, "fit_many", diverges)
    for options in ({}, {"batching": "vmap"}):
        records = list(run(study(seeds=3), KEY, **options))
        assert [(r.seed, r.diverged) for r in records if r.method == ORIGINAL] == [
            (0, None), (1, "loss nan"), (2, None)
        ]  # fmt: skip
        with pytest.raises(DivergedError, match="loss nan"):
            list(run(study(seeds=3), KEY, strict=True, **options))


def test_an_audit_without_an_object_is_left_out_with_the_reason():
    records = list(
        run(
            study(
                attacks={"gaussian": GaussianPoison(budget=Budget(0.1)), "flip": FLIP},
                audits={"": ThresholdAttack(), "gus": tiny_gus()},
                seeds=1,
            ),
            KEY,
        )
    )
    for record in records:
        assert ("gus_gus" in record.metrics) == (record.question == "gaussian")
        assert ("gus" in record.left_out) == (record.question != "gaussian")
    assert "GaussianPoison" in records[0].left_out["gus"]


def tiny_gus():
    from unlearnkit.auditing import GaussianUnlearningScore

    return GaussianUnlearningScore()


# Defences.


@dataclasses.dataclass(frozen=True)
class Keeps:
    """Keeps the clean examples and a share of the poisons, which are the first of `draw`'s rows."""

    share: float

    def __call__(self, key, model, variables, dataset):
        wrong = np.asarray(dataset.y) != np.asarray(draw(0, 120).y)
        rows = np.flatnonzero(wrong)
        keep = np.ones(dataset.size, bool)
        keep[rows[int(self.share * len(rows)) :]] = False
        return Defended(jax.numpy.asarray(keep), jax.numpy.asarray(~keep, float),
                        DefenceInfo(Cost(0.0, 0.0)))  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Sizes:
    """Says how many examples the method was given, by its cost."""

    def __call__(self, key, model, variables, task, *, on_epoch=None) -> Unlearned:
        found = FineTune(epochs=1, batch_size=20)(key, model, variables, task)
        cost = Cost(1000.0 * task.retain.size + task.forget.size, 0.0)
        return found._replace(info=found.info._replace(cost=cost))


@pytest.fixture(scope="module")
def defended():
    asked = study(
        forget={},
        attacks={"flip": FLIP},
        defences={"half": Keeps(0.5), "all": Keeps(0.0), "max_up": MaxUp(copies=2)},
        methods={"sizes": Sizes()},
        audits={},
        seeds=1,
    )
    return list(run(asked, KEY))


def test_every_method_behind_every_defence(defended):
    assert [(r.defence, r.method) for r in defended] == [
        ("none", ORIGINAL), ("none", RETRAIN), ("none", "sizes"),
        ("half", ORIGINAL), ("half", "sizes"),
        ("all", ORIGINAL), ("all", "sizes"),
        ("max_up", ORIGINAL), ("max_up", "sizes"),
    ]  # fmt: skip


def test_methods_forget_what_a_defence_left_of_the_poisons(defended):
    cost = {r.defence: r.cost.example_gradients for r in defended if r.method == "sizes"}
    assert cost["none"] == cost["max_up"] == 96_024
    assert cost["half"] == 96_012
    (nothing,) = [r for r in defended if (r.defence, r.method) == ("all", "sizes")]
    assert "left no poison" in nothing.failed


def test_a_defended_network_is_trained_anew_and_judged_on_all_poisons(defended):
    said = {r.defence: r.metrics for r in defended if r.method == ORIGINAL}
    assert len({metrics["accuracy_test"] for metrics in said.values()}) >= 3
    # The network behind the perfect defence does not say the wrong labels, the undefended does.
    assert said["all"]["accuracy_forget"] < said["none"]["accuracy_forget"] - 0.1


# The store.


def test_a_second_run_computes_nothing_and_says_the_same(tmp_path, monkeypatch):
    first = table(run(whole(seeds=1), KEY, store=tmp_path))
    for name in ("engine", "lanes", "cells"):
        module = importlib.import_module(f"unlearnkit.studies.{name}")
        for function in ("fit", "fit_many", "judge", "price"):
            monkeypatch.setattr(module, function, pytest.fail, raising=False)

    def unlearn(self, key, model, variables, task, *, on_epoch=None) -> Unlearned:
        raise AssertionError

    monkeypatch.setattr(FineTune, "__call__", unlearn)
    monkeypatch.setattr(LabelFlip, "__call__", unlearn)
    assert table(run(whole(seeds=1), KEY, store=str(tmp_path))) == first


def test_the_store_changes_no_bit(tmp_path, plain):
    assert table(run(study(), KEY, store=Store(tmp_path))) == table(plain)
    whole_plain = table(run(whole(seeds=1), KEY))
    assert table(run(whole(seeds=1), KEY, store=tmp_path)) == whole_plain


def test_what_changed_is_computed_and_nothing_else(tmp_path):
    def calls(**changes):
        tiny_study.CALLS.clear()
        methods = {"a": Counted("a"), "b": Counted("b"), **changes.pop("methods", {})}
        list(run(study(methods=methods, **changes), changes.pop("key", KEY), store=tmp_path))
        return sorted(tiny_study.CALLS)

    assert calls() == ["a", "a", "b", "b"]
    assert calls() == []
    assert calls(methods={"b": Counted("b", epochs=2)}) == ["b", "b"]
    assert calls(methods={"c": Counted("c")}) == ["c", "c"]
    assert calls(seeds=3) == ["a", "b"]
    assert calls(recipes=dataclasses.replace(RECIPE, learning_rate=0.2)) == ["a", "a", "b", "b"]
    assert calls(forget={"some": RandomForget(count=21)}) == ["a", "a", "b", "b"]
    assert calls(data=Pair(draw(9, 120), draw(1, 80))) == ["a", "a", "b", "b"]
    assert calls() == []


def test_another_key_is_another_study(tmp_path, plain):
    list(run(study(), KEY, store=tmp_path))
    other = list(run(study(), jax.random.key(1), store=tmp_path))
    assert table(other) == table(run(study(), jax.random.key(1))) != table(plain)


def test_stages_of_another_version_are_taken_by_option_alone_and_the_record_says_so(
    tmp_path, monkeypatch
):
    asked = study(methods={"a": Counted("a")}, seeds=1)
    first = list(run(asked, KEY, store=tmp_path))
    assert {r.reused for r in first} == {()}
    now = Environment.current()
    newer = Environment.of({**dict(now.facts), "source": "another program"})
    monkeypatch.setattr(Environment, "current", lambda **_: newer)
    taken = list(run(asked, KEY, store=Store(tmp_path, reuse="any-version")))
    assert tiny_study.CALLS == ["a"]
    assert {r.reused for r in taken} == {(now.digest[:12],)}
    assert [r.metrics for r in taken] == [r.metrics for r in first]
    anew = list(run(asked, KEY, store=tmp_path))
    assert tiny_study.CALLS == ["a", "a"]
    assert {r.reused for r in anew} == {()}


def test_divergence_is_kept_and_mistakes_are_not(tmp_path):
    @dataclasses.dataclass
    class Once:
        error: type
        calls: int = 0

        def __call__(self):
            self.calls += 1
            raise self.error("nan")

    cache = StageCache(Store(tmp_path))
    for error, calls in ((DivergedError, 1), (ValueError, 2)):
        compute = Once(error)
        for _ in range(2):
            with pytest.raises(error, match="nan"):
                cache.obtain("stage", str(error), {}, compute, say="a stage")
        assert compute.calls == calls


def test_a_study_that_no_store_can_describe_is_refused_before_anything(tmp_path, monkeypatch):
    def own(key, model, variables, task, *, on_epoch=None) -> Unlearned:
        raise AssertionError

    lanes = importlib.import_module("unlearnkit.studies.lanes")
    monkeypatch.setattr(lanes, "fit_many", pytest.fail)
    with pytest.raises(TypeError, match="define it at the top of a module"):
        run(study(methods={"own": own}), KEY, store=tmp_path)


class OwnInfo(NamedTuple):
    """Of an attack that this library does not know."""

    cost: Cost


@dataclasses.dataclass(frozen=True)
class OwnAttack:
    def __call__(self, key, model, variables, task) -> Poisoned:
        tiny_study.CALLS.append("attack")
        return FLIP(key, model, variables, task)._replace(info=OwnInfo(Cost(1.0, 0.0)))


def test_what_a_store_cannot_keep_is_said_and_computed_again(tmp_path):
    own = study(forget={}, attacks={"own": OwnAttack()}, audits={}, seeds=1)
    for calls in (1, 2):
        with pytest.warns(StoreWarning, match="cannot be kept, and will be computed again"):
            records = list(run(own, KEY, store=tmp_path))
        assert len(tiny_study.CALLS) == calls
        assert all(r.finished for r in records)


def test_two_at_once_share_the_work(tmp_path):
    """Each stage is computed by one of them, and both have all records."""
    asked = study(methods={name: Counted(name) for name in "abcdef"})
    found = {}

    def work(name):
        found[name] = table(run(asked, KEY, store=tmp_path))

    threads = [threading.Thread(target=work, args=(name,)) for name in ("one", "two")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found["one"] == found["two"] == table(run(asked, KEY))
    calls = tiny_study.CALLS[: -2 * 6]
    assert sorted(calls) == sorted(2 * "abcdef")


def test_busy_stages_are_left_for_the_end(tmp_path):
    """While another has the claim of one method, the study does all others first."""
    asked = study(methods={"a": Counted("a"), "b": Counted("b")}, seeds=1)
    busy = importlib.import_module("unlearnkit.studies.stage_cache").Busy
    with pytest.MonkeyPatch.context() as patch:
        obtain = StageCache.obtain

        def once(self, kind, settings, *arguments, **options):
            if kind == "unlearn" and settings.name == "a" and not self.patient:
                raise busy("a")
            return obtain(self, kind, settings, *arguments, **options)

        patch.setattr(StageCache, "obtain", once)
        records = list(run(asked, KEY, store=tmp_path))
    assert [r.method for r in records] == [ORIGINAL, RETRAIN, "b", "a"]
    assert tiny_study.CALLS == ["b", "a"]


# Trainings of several seeds.


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
