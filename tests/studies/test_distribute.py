"""Studies handed to workers, in shards and within a time: records are those of a plain run.

The workers here are of this process; `test_workers.py` has real ones.
"""

import contextlib
import dataclasses
import time
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from types import SimpleNamespace

import jax
import pytest
import tiny_study
from tiny_study import KEY, Counted, Fails, Nothing, study, table

from unlearnkit.base import Cost, DefenceInfo, Defended
from unlearnkit.poisoning import Budget, LabelFlip
from unlearnkit.studies import (
    ORIGINAL,
    ExecutorError,
    Store,
    Unfinished,
    distribute,
    run,
    stage_cache,
    worker,
)
from unlearnkit.training import DivergedError
from unlearnkit.unlearning import FineTune


@dataclasses.dataclass(frozen=True)
class Keeps:
    """Drops the first rows."""

    def __call__(self, key, model, variables, dataset):
        keep = jax.numpy.arange(dataset.size) >= 10
        return Defended(keep, ~keep * 1.0, DefenceInfo(Cost(0.0, 0.0)))


@dataclasses.dataclass(frozen=True)
class Breaks:
    """An attack that cannot be made."""

    def __call__(self, key, model, variables, task):
        tiny_study.CALLS.append("attack")
        raise ZeroDivisionError("no attack")


FLIP = LabelFlip(budget=Budget(0.2), placement="perturb")
EVERYTHING = study(
    methods={
        "tuned": FineTune(epochs=1, batch_size=20, learning_rate=0.1),
        "fails": Fails(),
        "fixed": Nothing(),
    },
    budgets=(0.1, 0.6),
    attacks={"bad": Breaks(), "flip": FLIP},
    defences={"keeps": Keeps()},
)


@pytest.fixture(autouse=True)
def no_calls(short):
    tiny_study.CALLS.clear()


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    return list(run(EVERYTHING, KEY, store=tmp_path_factory.mktemp("plain")))


def places(records):
    return [(r.question, r.defence, r.method, r.budget, r.seed) for r in records]


class Here(Executor):
    """Computes what it is handed at once; some parts end their worker some times."""

    capacity = 2
    sends = False
    killed = ()
    lost = ()

    def __init__(self, deaths=()):
        self.deaths, self.handed, self.renewed, self.ahead = dict(deaths), [], 0, []

    def greet(self, folder):
        return [worker.say_hello(folder)]

    def submit(self, function, *arguments):
        future = Future()
        if function is not worker.compute:
            future.set_result(function(*arguments))
            return future
        cell = arguments[1][0]
        row = cell.row if cell.question is not None else "clean"
        self.handed.append(row)
        if self.deaths.get(row, 0) > 0:
            self.deaths[row] -= 1
            future.set_exception(BrokenProcessPool("a process ended abruptly"))
        else:
            future.set_result(function(*arguments))
        return future

    def renew(self):
        self.renewed += 1
        return True


@contextlib.contextmanager
def workers(pool):
    """Has studies run on a pool, whatever executor they name."""

    @contextlib.contextmanager
    def opened(executor, errand):
        worker.give(*errand)
        yield pool
        worker.take_back(errand[0])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(distribute, "opened", opened)
        yield pool


def test_any_executor_yields_the_records_of_a_plain_run(plain, tmp_path):
    told, poisoned = [], []
    with ThreadPoolExecutor(2) as executor:
        found = list(
            run(EVERYTHING, KEY, store=tmp_path, executor=executor,
                on_stage=lambda *said: told.append(said), on_poisoned=lambda *p: poisoned.append(p))
        )  # fmt: skip
    assert table(found) == table(plain)
    assert places(found) == places(plain)
    assert [made[:2] for made in poisoned] == [("flip", 0), ("flip", 1)]
    assert ("some, tuned, seed 1", 1, 1) in told
    assert not any("bad, tuned" in words for words, *_ in told)  # nothing to start from
    assert tiny_study.CALLS == ["attack"] * 2  # for all that would have started from it


def test_shards_on_one_store_have_every_record_once(plain, tmp_path):
    found = [r for i in (1, 2, 3) for r in run(EVERYTHING, KEY, store=tmp_path, shard=(i, 3))]
    assert table(found) == table(plain)
    assert places(found) == places(plain)


def test_a_shard_on_an_executor(tmp_path):
    asked = study(methods={"nothing": Nothing()})
    with workers(Here()):
        found = [
            r for i in (1, 2)
            for r in run(asked, KEY, store=tmp_path, shard=(i, 2), executor=Here())
        ]  # fmt: skip
    assert table(found) == table(run(asked, KEY, store=tmp_path))


def test_a_part_whose_worker_dies_is_computed_again_and_given_up_in_the_end(tmp_path):
    asked = study(methods={name: Counted(name) for name in "abc"}, seeds=1)
    expected = list(run(asked, KEY))
    with workers(Here({"a": 1, "b": 99})) as pool:
        found = list(run(asked, KEY, store=tmp_path, executor=pool))
        assert pool.renewed == 3  # the first time both were at work
        assert pool.handed.count("a") == 2
        assert pool.handed.count("b") == 3
        assert pool.handed[-1] == "b"  # the last time when nothing else is left
        with pytest.raises(ExecutorError, match="b, seed 0: its worker died 3 times"):
            list(run(asked, KEY, store=tmp_path, executor=Here({"b": 99}), strict=True))
    assert places(found) == places(expected)
    assert [r.method for r in found if r.failed] == ["b"]
    assert "its worker died 3 times, the last time with no other beside it" in found[3].failed
    assert table(r for r in found if r.method != "b") == table(
        r for r in expected if r.method != "b"
    )


def test_of_two_fatal_parts_each_has_its_last_try_alone(tmp_path):
    asked = study(methods={name: Nothing() for name in "abc"}, seeds=1)
    with workers(Here({"b": 99, "c": 99})) as pool:
        found = list(run(asked, KEY, store=tmp_path, executor=pool))
    assert [r.method for r in found if r.failed] == ["b", "c"]
    assert pool.renewed == 5  # b, b and c, c, b alone, c alone


def test_networks_whose_workers_die_are_one_record_of_their_question(tmp_path):
    with workers(Here({ORIGINAL: 3})) as pool:
        found = list(run(study(seeds=1), KEY, store=tmp_path, executor=pool))
    assert [(r.method, bool(r.failed)) for r in found] == [(ORIGINAL, True)]


def test_workers_that_cannot_be_replaced_are_lost(tmp_path):
    pool = Here({"fine_tune": 1})
    pool.renew = lambda: False
    with workers(pool), pytest.raises(ExecutorError, match="the workers are lost"):
        list(run(study(seeds=1), KEY, store=tmp_path, executor=pool))
    assert table(run(study(seeds=1), KEY, store=tmp_path)) == table(run(study(seeds=1), KEY))


def test_what_is_raised_in_a_worker_is_raised_here(tmp_path):
    for method, said in ((Fails(), "a mistake in the method"), (Odd(), "it went wrong")):
        asked = study(methods={"bad": method}, seeds=1)
        with workers(Here()), pytest.raises((RuntimeError, OddError), match=said):
            list(run(asked, KEY, store=tmp_path, executor=Here(), strict=True))


class OddError(Exception):
    """One that cannot be made again from its message."""

    def __init__(self, one, other):
        super().__init__(f"it {one} {other}")


@dataclasses.dataclass(frozen=True)
class Odd:
    def __call__(self, key, model, variables, task, *, on_epoch=None):
        raise OddError("went", "wrong")


def other(facts, **changes):
    return tuple(sorted((dict(facts) | changes).items()))


def test_workers_of_another_program_are_refused_and_both_are_named(tmp_path, monkeypatch):
    monkeypatch.setattr(worker, "compute", pytest.fail)
    pool = Here()
    pool.greet = lambda folder: [
        worker.say_hello(folder),
        worker.say_hello(folder)._replace(
            name="node7, process 9",
            facts=other(
                worker.say_hello(folder).facts, jax="0.9.1", unlearnkit="0.0.9", x64="True"
            ),
        ),
    ]
    here = jax.__version__
    with workers(pool), pytest.raises(ExecutorError) as refused:
        run(study(), KEY, store=tmp_path, executor=pool)
    for said in ("node7, process 9", f"jax is 0.9.1 there and {here} here",
                 "unlearnkit is 0.0.9 there and", "x64 is True there and False here"):  # fmt: skip
        assert said in str(refused.value)


def test_workers_may_have_another_device_than_we_but_the_same_as_one_another(tmp_path):
    def greet(*devices):
        return lambda folder: [
            hello._replace(facts=other(hello.facts, device=device))
            for device in devices
            for hello in [worker.say_hello(folder)]
        ]

    pool = Here()
    pool.greet = greet("H100", "H200")
    with workers(pool), pytest.raises(ExecutorError, match="device is H200 there and H100 here"):
        run(study(), KEY, store=tmp_path, executor=pool)
    # All say the same, but the part's own worker has another one.
    pool.greet = greet("H100", "H100")
    with workers(pool):
        records = run(study(), KEY, store=tmp_path, executor=pool)
        with pytest.raises(ExecutorError, match="device is cpu there and H100 here"):
            next(records)


def test_workers_that_do_not_see_the_store_are_refused(tmp_path):
    pool = Here()
    pool.greet = lambda folder: [worker.say_hello(f"{folder}-elsewhere")]
    with workers(pool), pytest.raises(ExecutorError, match="does not see the store"):
        run(study(), KEY, store=tmp_path, executor=pool)


def test_what_the_running_script_defines_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(Nothing, "__module__", "__main__")
    monkeypatch.setattr(__import__("__main__"), "Nothing", Nothing, raising=False)
    errand = worker.Errand(study(methods={"a": Nothing()}), KEY, "", None, False, print)
    with pytest.raises(TypeError, match="move it to a module"):
        worker.pack(errand)


def test_an_executor_that_computes_nothing_is_refused(tmp_path):
    executor = ThreadPoolExecutor(1)
    executor.shutdown()
    with pytest.raises(ExecutorError, match="no worker of the ThreadPoolExecutor answers"):
        run(study(), KEY, store=tmp_path, executor=executor)


# Time.


@pytest.fixture
def ticking(monkeypatch):
    """A clock that goes on by 30 seconds whenever a stage is about to begin."""
    now = [0.0]

    def tick():
        now[0] += 30
        return time.time() + now[0]

    monkeypatch.setattr(stage_cache, "time", SimpleNamespace(time=tick))
    return now


SHORT = study(methods={"a": Counted("a"), "b": Counted("b")}, seeds=1)


@pytest.fixture(scope="module")
def short():
    return list(run(SHORT, KEY))


@pytest.mark.parametrize("executor", [None, "here"])
def test_a_study_in_short_runs_is_that_of_a_long_one(tmp_path, ticking, executor, short):
    asked, expected = SHORT, short
    there = [-1]
    for _ in range(20):
        ticking[0] = 0.0
        found = []
        with workers(Here()) as pool, contextlib.suppress(Unfinished):
            options = {"executor": pool} if executor else {}
            for record in run(asked, KEY, store=tmp_path, minutes=1.5, **options):
                found.append(record)
            break
        assert there[-1] <= len(found) < len(expected)
        there.append(len(found))
    assert len(there) > 3
    assert table(found) == table(expected)
    assert places(found) == places(expected)
    assert sorted(tiny_study.CALLS) == ["a", "b"]  # nothing twice


def test_a_run_whose_time_is_over_says_how_much_there_is(tmp_path, ticking):
    with pytest.raises(Unfinished, match="0 records are there.*same call goes on") as over:
        list(run(study(), KEY, store=tmp_path, minutes=0.1))
    assert over.value.records == 0
    assert not list(tmp_path.glob("stages/*/*/*"))
    list(run(study(), KEY, store=tmp_path))
    assert table(run(study(), KEY, store=tmp_path, minutes=0.1)) == table(run(study(), KEY))


def test_waiting_for_another_process_ends_with_the_time(tmp_path):
    store = Store(tmp_path)
    asked = study(seeds=1, methods={})
    claim = Store.claim

    def busy(self, *keys, wait=True, until=None):
        with claim(store, *keys), claim(self, *keys, wait=wait, until=until) as mine:
            yield mine

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Store, "claim", contextlib.contextmanager(busy))
        with pytest.raises(Unfinished):
            list(run(asked, KEY, store=tmp_path, minutes=0.3 / 60))


def test_a_failure_of_the_networks_is_told_by_one_shard(tmp_path, monkeypatch):
    def diverges(*arguments, **options):
        raise DivergedError("loss nan")

    monkeypatch.setattr("unlearnkit.studies.lanes.fit_many", diverges)
    asked = study(seeds=1)
    found = [list(run(asked, KEY, store=tmp_path, shard=(i, 4))) for i in (1, 2, 3, 4)]
    assert [[(r.method, r.diverged) for r in records] for records in found] == [
        [(ORIGINAL, "loss nan")], [], [], []
    ]  # fmt: skip
