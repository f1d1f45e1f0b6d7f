"""The engine and its store: what is kept, what is computed again, who else is at work."""

import dataclasses
import importlib
import threading
from typing import NamedTuple

import jax
import pytest
import tiny_study
from tiny_study import FLIP, KEY, RECIPE, Counted, draw, study, table, whole

from unlearnkit.base import Cost, Poisoned, Unlearned
from unlearnkit.data import RandomForget
from unlearnkit.poisoning import LabelFlip
from unlearnkit.studies import ORIGINAL, RETRAIN, Environment, Pair, Store, StoreWarning, run
from unlearnkit.studies.stage_cache import StageCache
from unlearnkit.training import DivergedError
from unlearnkit.unlearning import FineTune


@pytest.fixture(autouse=True)
def no_calls():
    tiny_study.CALLS.clear()


@pytest.fixture(scope="module")
def plain():
    return list(run(study(), KEY))


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
