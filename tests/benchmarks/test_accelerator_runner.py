"""The runner of the accelerator's jobs, on jobs that fail in every way they can."""

import importlib
import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks.accelerator import cli, images, worker
from benchmarks.accelerator.context import Context
from benchmarks.accelerator.job import Job, Outcome, Unavailable
from benchmarks.accelerator.jobs import JOBS
from benchmarks.accelerator.runner import RESERVE, Runner, child_environment
from benchmarks.accelerator.store import Store, read_group

SUPPORT = str(Path(__file__).parents[1] / "support")


def job(name, seconds=20.0, group="one", flags=(), run=None):
    return Job(
        name, group, "", f"fake_jobs:{run or name}", seconds, rehearsal=seconds, data=(),
        flags=flags,
    )  # fmt: skip


@pytest.fixture
def run(tmp_path):
    def run(*jobs, seconds=120.0, done=None, out="out", told=None):
        store = Store(tmp_path / out, jobs, done, rehearse=True)
        environment = {"PYTHONPATH": SUPPORT, "JAX_PLATFORMS": "cpu"}
        said = [] if told is None else told
        with Runner(
            store, tmp_path, seconds=seconds, rehearse=True, tell=said.append,
            environment=environment,
        ) as runner:  # fmt: skip
            return {outcome.job: outcome for outcome in runner.run(jobs)}

    return run


def test_jobs_that_fail_are_rows_and_the_next_ones_run(run, tmp_path):
    names = (
        "two_rows",
        "fails_after_a_row",
        "needs_what_is_not_here",
        "prints",
        "tells_its_process",
    )
    told = []
    found = run(
        job("before", run="tells_its_process"),
        *(job(name) for name in names),
        job("dies"),
        job("out_of_memory"),
        job("after", run="tells_its_process"),
        told=told,
    )
    states = {name: outcome.state for name, outcome in found.items()}
    ends = dict.fromkeys(("fails_after_a_row", "dies", "out_of_memory"), "failed")
    ends["needs_what_is_not_here"] = "unavailable"
    assert states == {name: ends.get(name, "done") for name in states}
    assert [row["kernel"] for row in found["two_rows"].rows] == ["first", "second"]
    assert found["two_rows"].rows[1]["size"] == "small"  # rehearsing
    assert found["two_rows"].rows[1]["value"] is None  # NaN is no JSON
    assert found["two_rows"].provenance["device"].startswith("cpu")
    assert [row["kernel"] for row in found["fails_after_a_row"].rows] == ["kept"]
    assert found["fails_after_a_row"].note == "ValueError: no such thing"
    assert found["needs_what_is_not_here"].note == "no such data were given"
    assert "SIGABRT" in found["dies"].note
    assert "too little memory on the card" in found["out_of_memory"].note
    # One process while it can serve, another after it died.
    before, same, after = (
        found[name].rows[0]["size"] for name in ("before", "tells_its_process", "after")
    )
    assert before == same != after
    assert any("at work" in line for line in told)
    # All of it is in the file.
    kept = read_group(tmp_path / "out" / "one.json")
    assert [outcome.job for outcome in kept] == list(found)
    assert kept == list(found.values())


def test_the_watchdog_ends_a_job_and_keeps_its_rows_and_the_budget(run, monkeypatch):
    monkeypatch.setattr("benchmarks.accelerator.runner.START", 8.0)
    found = run(
        job("hangs_after_a_row", seconds=1.0),
        job("two_rows", seconds=20.0),
        job("long", seconds=1000.0, run="two_rows"),
        seconds=80.0,
    )
    cut = found["hangs_after_a_row"]
    assert (cut.state, [row["kernel"] for row in cut.rows]) == ("cut off", ["kept"])
    assert cut.note.startswith("over its")
    assert cut.seconds < 20
    assert found["two_rows"].state == "done"
    assert found["long"].state == "not started"
    assert found["long"].note.startswith("needs 1000 s")


@pytest.mark.parametrize(
    ("held", "rehearse", "refused"),
    [(16.0, False, True), (40.0, False, False), (16.0, True, False), (0.0, False, False)],
)
def test_a_card_with_too_little_memory_is_told_before_the_job_begins(
    held, rehearse, refused, tmp_path, monkeypatch
):
    monkeypatch.setattr(worker, "describe_device", lambda: {"gigabytes": held})
    context = Context(tmp_path, rehearse=rehearse, ends=0.0, gigabytes=30.0, say=lambda what: None)
    if refused:
        with pytest.raises(Unavailable, match="lends 16 GB, and the job needs 30 GB"):
            context.check_memory()
    else:
        context.check_memory()  # a device that does not say what it has is tried


@pytest.mark.parametrize("job", [job for job in JOBS if job.gigabytes > 8], ids=lambda j: j.name)
def test_every_job_that_needs_much_memory_asks_for_it_first(job, tmp_path, monkeypatch):
    monkeypatch.setattr(worker, "describe_device", lambda: {"gigabytes": 1.0})
    module, _, function = job.run.partition(":")
    context = Context(
        tmp_path, rehearse=False, ends=0.0, gigabytes=job.gigabytes, say=lambda what: None
    )
    with pytest.raises(Unavailable, match=f"lends 1 GB, and the job needs {job.gigabytes:.0f} GB"):
        next(getattr(importlib.import_module(module), function)(context))


def test_no_job_runs_past_the_budget(run):
    found = run(job("hangs_after_a_row", seconds=4.0), seconds=5.0 + RESERVE)
    assert found["hangs_after_a_row"].state == "cut off"
    assert found["hangs_after_a_row"].seconds < 5.5


def test_flags_are_of_a_process_of_their_own(run):
    plain = job("plain", run="tells_its_process")
    flags = ("--xla_cpu_enable_fast_math=false",)
    found = run(plain, job("flagged", run="tells_its_process", flags=flags))
    assert found["flagged"].rows[0]["size"] != found["plain"].rows[0]["size"]
    assert flags[0] in found["flagged"].rows[0]["note"].split()
    assert flags[0] not in found["plain"].rows[0]["note"]


def test_the_environment_of_a_process(tmp_path, monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "--a --b")
    monkeypatch.setenv("JAX_PLATFORMS", "cuda")
    monkeypatch.setenv("XLA_PYTHON_CLIENT_MEM_FRACTION", "0.5")
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
    made = child_environment(tmp_path, ("--b", "--c"))
    assert made["XLA_FLAGS"] == "--a --b --c"
    assert made["JAX_PLATFORMS"] == "cuda,cpu"  # the CPU is what the card is compared with
    assert made["XLA_PYTHON_CLIENT_MEM_FRACTION"] == "0.5"
    assert made["JAX_COMPILATION_CACHE_DIR"] == str(tmp_path / "compiled")


def test_what_is_done_is_carried_over_and_not_run_again(run, tmp_path):
    jobs = job("two_rows"), job("prints"), job("fails_after_a_row"), job("other", group="two")
    earlier = Store(tmp_path / "earlier", jobs, None, rehearse=True)
    earlier.put(Outcome("two_rows", "done", [{"kernel": "old"}], seconds=7.0, rehearsal=True))
    earlier.put(Outcome("prints", "done", rehearsal=False))  # of a whole run: it does not count
    earlier.put(Outcome("fails_after_a_row", "failed", rehearsal=True))
    told = []
    found = run(*jobs[:3], done=tmp_path / "earlier", told=told)
    assert list(found) == ["prints", "fails_after_a_row"]
    assert any("two_rows: done before" in line for line in told)
    kept = {outcome.job: outcome for outcome in read_group(tmp_path / "out" / "one.json")}
    assert kept["two_rows"].rows == [{"kernel": "old"}]
    assert kept["prints"].rehearsal


def test_results_files_are_few_and_written_whole(tmp_path, monkeypatch):
    jobs = [job(f"job{i}", group=f"group{i}") for i in range(9)]
    with pytest.raises(ValueError, match="at most 8 results files"):
        Store(tmp_path / "out", jobs, None, rehearse=True)
    store = Store(tmp_path / "out", jobs[:8], None, rehearse=True)
    path = store.put(Outcome("job0", "done"))
    before = path.read_text()

    def interrupted(*arguments, **options):
        raise OSError("no space left")

    monkeypatch.setattr("os.fsync", interrupted)
    with pytest.raises(OSError, match="no space left"):
        store.put(Outcome("job0", "failed"))
    assert path.read_text() == before
    assert [entry.name for entry in (tmp_path / "out").iterdir()] == ["group0.json"]


@pytest.mark.parametrize(
    ("content", "message"), [("[]", "no results file"), ("{", "no results file")]
)
def test_done_files_of_another_kind_are_refused(tmp_path, content, message):
    (tmp_path / "one.json").write_text(content)
    with pytest.raises(ValueError, match=message):
        Store(tmp_path / "out", [job("two_rows")], tmp_path, rehearse=True)


def test_mistakes_are_told_before_anything_runs(tmp_path, capsys):
    out = ["--out", str(tmp_path / "out")]
    jobs = [job("two_rows", seconds=20.0), Job("images", "one", "", "fake_jobs:prints", 30.0)]
    file = tmp_path / "file"
    file.write_text("no folder")
    missing = str(tmp_path / "cifar10.npz")

    def told(*arguments):
        assert cli.main([*out, *arguments], jobs) == 2
        return capsys.readouterr().out

    assert "too short for any job; the shortest takes 20 s, choose at least 0.4" in told(
        "--minutes", "0.3"
    )
    assert "too short" in told("--minutes", "nan")
    assert "--data is needed" in told()
    assert "--data is needed" in told("--jobs", "images")
    assert f"no file {missing}" in told("--data", missing)
    assert "is neither a packed .npz.xz nor" in told("--data", str(file))
    assert "--done must name a folder" in told("--done", str(file))
    out = ["--out", str(file / "below")]
    assert "cannot be written" in told("--rehearse")


def test_without_an_accelerator_the_rehearsal_is_offered(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    assert cli.main(["--out", str(tmp_path / "out")], [job("two_rows")]) == 2
    said = capsys.readouterr().out
    assert "no accelerator here" in said
    assert "--rehearse" in said


def test_the_command_prints_its_table_last(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", SUPPORT)
    jobs = [job("two_rows"), job("fails_after_a_row"), job("other", run="prints")]
    arguments = ["--out", str(tmp_path), "--rehearse", "--jobs", "two_rows", "fails_after_a_row"]
    assert cli.main(arguments, jobs) == 1
    said = capsys.readouterr().out
    table = said[said.index("| job | state |") :]
    assert "| two_rows | done |" in table
    assert "ValueError: no such thing" in table
    assert "other" not in table
    assert "| first | small |" in table
    assert json.loads((tmp_path / "one.json").read_text())["jobs"][0]["rehearsal"]


def test_packed_images_are_unpacked(tmp_path):
    from io import BytesIO
    from lzma import compress

    from PIL import Image

    rng = np.random.default_rng(0)
    arrays = {}
    for split, n in (("train", 5), ("test", 3)):
        # Of one colour each, so that JPEG keeps them to a level or two.
        colours = rng.integers(0, 256, (n, 1, 1, 3), np.uint8)
        arrays[f"x_{split}"] = np.broadcast_to(colours, (n, 32, 32, 3))
        arrays[f"y_{split}"] = np.arange(n)
    packed = {}
    for split in images.SPLITS:
        blobs = []
        for image in arrays[f"x_{split}"]:
            Image.fromarray(np.array(image)).save(stream := BytesIO(), "jpeg", quality=100)
            blobs.append(stream.getvalue())
        packed[f"{split}_jpeg"] = np.frombuffer(b"".join(blobs), np.uint8)
        packed[f"{split}_offsets"] = np.cumsum([0, *map(len, blobs)])
        packed[f"{split}_y"] = arrays[f"y_{split}"]
    np.savez(stream := BytesIO(), **packed)
    file = tmp_path / "packed.npz.xz"
    file.write_bytes(compress(stream.getvalue()))
    assert images.prepare([file], tmp_path) == ["cifar10"]
    images.shorten(tmp_path, ["cifar10"], train=4, test=2)
    with np.load(tmp_path / "cifar10.npz") as found:
        for split, n in (("train", 4), ("test", 2)):
            assert found[f"x_{split}"].dtype == np.uint8
            wanted = arrays[f"x_{split}"][:n].astype(int)
            assert np.abs(found[f"x_{split}"].astype(int) - wanted).max() <= 3
            np.testing.assert_array_equal(found[f"y_{split}"], np.arange(n))


def test_images_of_an_unknown_shape_are_refused(tmp_path):
    file = tmp_path / "large.npz"
    x, y = np.zeros((2, 64, 64, 3), np.uint8), np.zeros(2, int)
    np.savez(file, x_train=x, y_train=y, x_test=x, y_test=y)
    with pytest.raises(ValueError, match=r"shape \[64, 64, 3\], which no job knows"):
        images.prepare([file], tmp_path)
