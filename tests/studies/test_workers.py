"""Real workers: processes and a cluster of dask, which are killed in the middle."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from fatal_study import dying, slow
from tiny_study import KEY, study, table

from unlearnkit.studies import ExecutorError, dask_pool, run

SUPPORT = Path(__file__).parents[1] / "support"


@pytest.fixture(autouse=True)
def importable(monkeypatch):
    """Workers find what the tests' studies are made of."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(SUPPORT.parents[1]), str(SUPPORT)]))


def test_a_process_that_dies_loses_nothing(tmp_path):
    asked = dying(tmp_path, seeds=1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Path, "exists", lambda _: True)
        expected = table(run(asked, KEY))
    assert not (tmp_path / "mark").exists()
    found = list(run(asked, KEY, store=tmp_path / "store", executor="processes:2"))
    assert (tmp_path / "mark").exists()
    assert table(found) == expected
    assert [r.method for r in found] == ["original", "retrained", "dies", "waits"]


@pytest.fixture
def cluster(tmp_path):
    """Starts a scheduler and two workers, and returns their processes."""

    def start(module, *options):
        command = [sys.executable, "-m", f"distributed.cli.{module}", *options]
        with (tmp_path / f"{module}.log").open("a") as log:
            return subprocess.Popen(command, stdout=log, stderr=log, cwd=tmp_path)

    place = tmp_path / "scheduler.json"
    said = ["--scheduler-file", str(place)]
    options = ["--no-dashboard", "--port", "0", "--host", "127.0.0.1"]
    scheduler = start("dask_scheduler", *said, *options)
    options = ["--no-dashboard", "--no-nanny", "--nthreads", "1"]
    workers = [start("dask_worker", *said, *options) for _ in range(2)]
    started = [scheduler, *workers]
    yield place, started
    for process in started:
        process.kill()
        process.wait()


def test_a_cluster_whose_worker_and_then_whose_scheduler_is_killed(tmp_path, cluster):
    import distributed

    place, (scheduler, first, second) = cluster
    called, store = tmp_path / "called", tmp_path / "store"
    called.mkdir()
    asked = slow(called, 10, 0.4)
    with distributed.Client(scheduler_file=str(place), set_as_default=False) as client:
        client.wait_for_workers(2, timeout=60)
        address = client.scheduler_info(n_workers=0)["address"].removeprefix("tcp://")
    done = []

    def kill(*_):
        done.append(1)
        if len(done) == 3:
            first.kill()
        if len(done) == 5:
            scheduler.kill()

    found = []
    records = run(asked, KEY, store=store, executor=f"dask://{address}", on_stage=kill)
    with pytest.raises(ExecutorError, match="the workers are lost.*the same call goes on"):
        found.extend(records)
    second.kill()
    assert len(found) < 12
    before = len(list(called.iterdir()))
    kept = set(store.glob("stages/unlearn/*/*"))
    assert 4 <= len(kept) < 10
    rest = list(run(asked, KEY, store=store))
    assert table(rest) == table(run(asked, KEY))
    assert kept <= set(store.glob("stages/unlearn/*/*"))
    assert table(found) == table(rest[: len(found)])
    # Nothing that was kept was computed again.
    assert len(list(called.iterdir())) - 10 - before == 10 - len(kept)


def test_a_scheduler_that_does_not_answer_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr(dask_pool, "_SECONDS_TO_CONNECT", 0.3)
    monkeypatch.setattr("unlearnkit.studies.lanes.fit_many", pytest.fail)
    with pytest.raises(ExecutorError, match="no scheduler of dask answers at tcp://127.0.0.1:9"):
        run(study(), KEY, store=tmp_path, executor="dask://127.0.0.1:9")
