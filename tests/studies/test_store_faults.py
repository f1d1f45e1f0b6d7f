"""A store under full disks, killed processes and several writers at once."""

import itertools
import json
import os
import subprocess
import sys
import threading
import time
import warnings
from pathlib import Path
from threading import Thread

import pytest
import store_faults
from store_faults import KEY, STAGE, Fault, damage, full_disk, is_whole

from unlearnkit.studies.store import Stage, Store, StoreError, StoreWarning, claims, folder

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    ended = subprocess.run(
        [sys.executable, store_faults.__file__, str(tmp_path_factory.mktemp("store"))],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout)


def put_with_fault(store, k):
    """Returns whether the k-th call was met, and what `put` raised."""
    fault, raised = Fault(k, full_disk), None
    with pytest.MonkeyPatch.context() as patch:
        for module, name, function in list(fault.patches()):
            patch.setattr(module, name, function)
        try:
            store.put(KEY, STAGE)
        except StoreError as error:
            raised = error
    return fault.calls >= k, raised


@pytest.mark.parametrize("before", ["nothing", "damaged"])
def test_a_disk_that_is_full_at_any_call_leaves_no_stage_or_a_whole_one(tmp_path, before):
    calls, refused = 0, 0
    for k in itertools.count(1):
        store = Store(tmp_path / str(k))
        if before == "damaged":
            store.put(KEY, STAGE)
            damage(store.folder)
        met, raised = put_with_fault(store, k)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", StoreWarning)  # the damaged stage may be there still
            stage = store.get(KEY)
        assert is_whole(stage) if raised is None else stage is None
        assert raised is None or "No space left" in str(raised)
        if raised:
            assert not list((store.folder / "temporary").glob("*"))
        store.put(KEY, STAGE)
        assert is_whole(store.get(KEY))
        calls, refused = calls + met, refused + (raised is not None)
        if not met:
            break
    assert calls > 15
    assert refused > 10


def test_a_disk_that_takes_little_at_once_gets_all(tmp_path, monkeypatch):
    write = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, part: write(descriptor, part[:1000]))
    store = Store(tmp_path)
    store.put(KEY, STAGE)
    assert is_whole(store.get(KEY))


def test_all_is_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch):
    store, calls = Store(tmp_path), []
    for name in ("write", "fsync", "rename"):
        real = getattr(os, name)
        monkeypatch.setattr(
            os, name, lambda *given, n=name, f=real: (calls.append(n), f(*given))[1]
        )
    store.put(KEY, STAGE)
    assert calls == ["write", "fsync", "write", "fsync", "fsync", "rename", "fsync"]


def test_a_process_that_ends_at_any_call_leaves_no_stage_or_a_whole_one(found):
    codes, states, again = zip(*found["exits"].values(), strict=True)
    assert codes.count(9) > 30
    assert codes.count(0) == 2
    assert all(again)
    begun = dict(zip(found["exits"], states, strict=True))
    assert {state for name, state in begun.items() if "nothing" in name} == {"missing", "whole"}
    assert set(states) == {"missing", "whole", "damaged"}  # as it was before


def test_of_several_processes_one_computes(found):
    assert found["race"] == {"codes": [0] * 5, "computed": 1}


def test_a_claim_ends_with_its_process(found):
    claims = found["claims"]
    assert claims["while it lives"] is False
    assert claims["of what was not got"] is True
    assert claims["seconds to wait"] < 5
    assert claims["after it"] is True
    assert claims["left"] == 0


def test_a_study_that_is_killed_twenty_times_ends_with_the_same_table(found):
    kills = found["kills"]
    assert kills["codes"].count(-9) > 10
    assert len(set(kills["done"])) > 5
    assert kills["same"]
    assert kills["computed"] <= 25 + kills["codes"].count(-9)  # at most what each kill cut short


def test_the_study_goes_on_without_a_disk(tmp_path):
    store = Store(tmp_path)
    computed = []

    def compute():
        computed.append(1)
        return STAGE

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "mkdir", lambda *_: full_disk())
        with pytest.warns(StoreWarning) as said:
            stage = store.obtain(KEY, compute)
    assert is_whole(stage)
    messages = [str(one.message) for one in said]
    assert any("nothing is claimed" in message for message in messages)
    assert any("took no original: [Errno 28]" in message for message in messages)
    assert store.get(KEY) is None
    store.obtain(KEY, compute)
    store.obtain(KEY, compute)
    assert len(computed) == 2


@pytest.mark.parametrize("first", ["link", "file"])
def test_leftovers_are_removed_but_not_those_in_use(tmp_path, monkeypatch, first):
    """In whatever order a file system lists them: of a claim's link and file, one takes both."""
    glob, sign = Path.glob, 1 if first == "link" else -1

    def by_claim(path):
        return path.name.partition(".")[0], sign * len(path.name)

    monkeypatch.setattr(Path, "glob", lambda *given: sorted(glob(*given), key=by_claim))
    store = Store(tmp_path)
    monkeypatch.setattr(folder, "_SWEPT_AFTER_SECONDS", -1)
    abandoned = tmp_path / "temporary" / "abandoned"
    with store._temporary_folder() as used, store.claim(KEY):
        abandoned.mkdir()
        (abandoned / "stage.json").write_text("{")
        leave_claim(tmp_path / "claims" / "original-abandoned", claims._machine())
        leave_claim(tmp_path / "claims" / "original-elsewhere", "young")
        leave_claim(tmp_path / "claims" / "original-long-ago", "old", seconds_ago=100_000)
        Store(tmp_path)
        assert used.is_dir()
        assert not abandoned.exists()
        left = {path.name.rpartition(".")[0] for path in (tmp_path / "claims").iterdir()} - {""}
        assert left == {f"original-{KEY.name}", "original-elsewhere"}
    assert not used.exists()
    monkeypatch.undo()
    abandoned.mkdir()
    Store(tmp_path)
    assert abandoned.exists()  # its owner may be about to lock it


@pytest.mark.parametrize("backwards", [False, True])
def test_what_another_process_removes_meanwhile_stops_no_sweep(tmp_path, monkeypatch, backwards):
    """As of two that open a store at once: files go between being listed and being looked at."""
    Store(tmp_path)
    glob, claim = Path.glob, tmp_path / "claims" / "original-long-ago"
    begun = [tmp_path / "temporary/abandoned", tmp_path / "unfinished/original/ab/abandoned"]
    for path in begun:
        path.mkdir(parents=True)
        os.utime(path, (0, 0))
    claim.parent.mkdir(exist_ok=True)
    leave_claim(claim, "old", seconds_ago=100_000)

    def with_one_that_is_gone(place, pattern):
        listed = sorted(glob(place, pattern))
        gone = place.joinpath(*["gone"] * len(Path(pattern).parts))
        return [*listed, gone] if backwards else [gone, *listed]

    monkeypatch.setattr(Path, "glob", with_one_that_is_gone)
    Store(tmp_path)
    assert [path for path in (*begun, claim) if path.exists() or path.is_symlink()] == []


def leave_claim(path, machine, seconds_ago=0):
    """Makes what a process leaves that was killed within a claim."""
    own = path.with_name(f"{path.name}.{machine}")
    own.write_text("")
    path.symlink_to(own.name)
    then = time.time() - seconds_ago
    for name in (own, path):
        os.utime(name, (then, then), follow_symlinks=False)


def test_claims_exclude_threads_and_are_taken_again(tmp_path):
    store, other = Store(tmp_path), Store(tmp_path)
    with store.claim(KEY) as mine, other.claim(KEY, wait=False) as theirs:
        assert (mine, theirs) == (True, False)
        owner = json.loads((tmp_path / "claims" / f"original-{KEY.name}").read_text())
        assert owner["pid"] == os.getpid()
    with other.claim(KEY, KEY, wait=False) as theirs:
        assert theirs


def test_a_claim_whose_file_was_removed_is_none(tmp_path):
    """Who opened the file just before its owner removed it locks a file that nobody else sees."""
    path = tmp_path / "claim"
    opened, real = [], os.open

    def slow(name, *arguments, **options):
        descriptor = real(name, *arguments, **options)
        if not opened:
            opened.append(descriptor)
            Path(name).unlink()
        return descriptor

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "open", slow)
        with claims.locked([path], wait=False) as mine:
            assert not mine
    with claims.locked([path]) as mine:
        assert mine


def refuse(*_):
    raise OSError(95, "Operation not supported")


@pytest.fixture
def fast_beats(monkeypatch):
    monkeypatch.setattr(claims, "_BEAT_SECONDS", 0.02)
    monkeypatch.setattr(claims, "_ABANDONED_SECONDS", 0.3)
    monkeypatch.setattr(claims, "_LONGEST_PAUSE", 0.02)


def test_another_machine_sees_a_claim_without_its_lock(tmp_path, monkeypatch, fast_beats):
    """Each machine locks a file of its own, as on a network file system with local locks."""
    path, names = tmp_path / "claim", {}
    monkeypatch.setattr(claims, "_machine", lambda: names.get(threading.get_ident(), "here"))
    order = []

    def elsewhere():
        names[threading.get_ident()] = "there"
        with claims.locked([path], wait=False) as mine:
            order.append(mine)
        with claims.locked([path], until=time.time() + 0.8) as mine:  # while its owner beats
            order.append(mine)
        held.set()
        with claims.locked([path]) as mine:
            order.append(mine)

    held = threading.Event()
    with claims.locked([path]):
        thread = Thread(target=elsewhere)
        thread.start()
        held.wait()
        order.append("freed")
    thread.join()
    assert order == [False, False, "freed", True]
    assert not list(tmp_path.iterdir())


def test_the_claim_of_a_machine_that_is_no_more_is_taken_over(tmp_path, fast_beats):
    path = tmp_path / "claim"
    leave_claim(path, "there")
    with claims.locked([path], wait=False) as mine:
        assert not mine  # nobody watched it yet
    started = time.monotonic()
    with claims.locked([path]):
        assert time.monotonic() - started >= 0.3
        assert os.readlink(path) == f"claim.{claims._machine()}"
        with claims.locked([path], wait=False) as mine:
            assert not mine


@pytest.mark.parametrize("missing", ["locks", "links"])
def test_locks_or_links_are_enough(tmp_path, monkeypatch, missing):
    where = (claims.fcntl, "flock") if missing == "locks" else (os, "symlink")
    monkeypatch.setattr(*where, refuse)
    store, other = Store(tmp_path), Store(tmp_path)
    with store.claim(KEY) as mine, other.claim(KEY, wait=False) as theirs:
        assert (mine, theirs) == (True, False)
    with other.claim(KEY, wait=False) as theirs:
        assert theirs
    assert not list((tmp_path / "claims").iterdir())


def test_a_file_system_without_locks_and_links_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr(claims.fcntl, "flock", refuse)
    monkeypatch.setattr(os, "symlink", refuse)
    store = Store(tmp_path)
    with (
        pytest.warns(StoreWarning, match="nothing is claimed.*computed twice"),
        store.claim(KEY) as mine,
    ):
        assert mine
    store.put(KEY, STAGE)
    assert is_whole(store.get(KEY))


def test_errors_within_a_claim_pass(tmp_path):
    store = Store(tmp_path)
    with pytest.raises(OSError, match="mine"), store.claim(KEY):
        raise OSError("mine")
    with store.claim(KEY, wait=False) as mine:
        assert mine


def test_who_is_slower_keeps_what_is_there(tmp_path, monkeypatch):
    """Two processes that could not claim write one stage; the second finds the first one's."""
    store = Store(tmp_path)
    real = folder.write_stage

    def beaten(*arguments):
        monkeypatch.setattr(folder, "write_stage", real)
        Store(tmp_path).put(KEY, STAGE)
        return real(*arguments)

    monkeypatch.setattr(folder, "write_stage", beaten)
    store.put(KEY, Stage({}, None, {"loss": 7.0}))
    assert is_whole(store.get(KEY))
    monkeypatch.setattr(os.path, "lexists", lambda _: False)  # as it was a moment before
    store.put(KEY, Stage({}, None, {"loss": 7.0}))
    monkeypatch.undo()
    assert is_whole(store.get(KEY))


def test_a_folder_that_cannot_be_used_is_refused(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StoreError, match="cannot use .*file"):
        Store(tmp_path / "file")


def test_waiting_ends_when_the_claim_does(tmp_path):
    store, order = Store(tmp_path), []

    def second():
        with Store(tmp_path).claim(KEY):
            order.append("second")

    with store.claim(KEY):
        thread = Thread(target=second)
        thread.start()
        time.sleep(0.1)
        order.append("first")
    thread.join()
    assert order == ["first", "second"]
