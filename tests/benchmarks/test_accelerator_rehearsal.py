"""The whole accelerator run at tiny sizes, in processes that have only what a CUDA image has."""

import importlib.util
import itertools
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks import __main__ as command
from benchmarks.accelerator import cli
from benchmarks.accelerator.job import Job, Outcome
from benchmarks.accelerator.jobs import JOBS, language
from benchmarks.accelerator.store import MOST_FILES, Store
from benchmarks.frame import Row, row_to_json
from unlearnkit import models

AGAINST_TORCH = ("kernels", "ntk")
"""Jobs with nothing to say where PyTorch, the peer, is not installed."""
ROOT = Path(__file__).parents[2]
BARE = ROOT / "tests" / "support" / "bare_image"


def bare_python(*arguments):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(BARE), str(ROOT)])}
    return subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, env=environment, capture_output=True, text=True
    )


@pytest.mark.parametrize(
    ("code", "missing"),
    [
        ("import tyro", "tyro"),
        ("import tensorflow_datasets", "tensorflow_datasets"),
        ("import unlearnkit.cli", "tyro"),
        ("import unlearnkit.reporting.theme as t; t.to_picture(None)", "vl_convert"),
    ],
)
def test_the_bare_image_lacks_what_it_should(code, missing):
    finished = bare_python("-c", code)
    assert f"ModuleNotFoundError: No module named '{missing}" in finished.stderr


def test_the_bare_image_does_not_find_what_others_ask_for():
    code = "import importlib.util; assert importlib.util.find_spec('tensorflow') is None"
    assert bare_python("-c", code).returncode == 0


def test_all_jobs_rehearse_on_a_bare_image(tmp_path):
    finished = bare_python("-m", "benchmarks", "accelerator", "--rehearse", "--out", str(tmp_path))
    files = sorted(tmp_path.iterdir())
    assert [file.name for file in files] == sorted({f"{job.group}.json" for job in JOBS}), (
        finished.stdout + finished.stderr
    )
    assert len(files) <= MOST_FILES
    assert all(file.stat().st_size < 2**20 for file in files)
    outcomes = {
        outcome["job"]: outcome
        for file in files
        for outcome in json.loads(file.read_text())["jobs"]
    }
    assert set(outcomes) == {job.name for job in JOBS}
    for name, outcome in outcomes.items():
        assert outcome["rehearsal"]
        if name in AGAINST_TORCH and importlib.util.find_spec("torch") is None:
            assert outcome["note"] == "PyTorch is not installed"
            continue
        assert outcome["state"] == "done", outcome
        assert outcome["rows"]
        assert not any("no direction" in row["note"] for row in outcome["rows"]), outcome["rows"]
    # What must hold at any size.
    for name in ("oracles", "same_bits", "lanes", "logs"):
        assert all(row["reached"] for row in outcomes[name]["rows"]), outcomes[name]["rows"]
    assert "--xla_gpu_deterministic_ops=true" in outcomes["same_bits"]["provenance"]["xla_flags"]
    assert finished.stdout.rstrip().splitlines()[-1].startswith("| ")


def test_the_jobs_are_well_formed():
    assert len({job.name for job in JOBS}) == len(JOBS)
    for job in JOBS:
        module, _, function = job.run.partition(":")
        assert hasattr(importlib.import_module(module), function)
        assert 0 < job.seconds <= 420  # of eight minutes
        assert set(job.data) <= {"cifar10", "mnist"}
    # Processes are changed as rarely as can be.
    flags = [job.flags for job in JOBS]
    assert sum(a != b for a, b in itertools.pairwise(flags)) == 1


def test_rows_of_whole_runs_stand_among_the_tables(tmp_path):
    jobs = [Job("one", "file", "", "m:f", 1.0), Job("two", "file", "", "m:f", 1.0)]
    store = Store(tmp_path, jobs, None, rehearse=False)
    where = {"date": "today", "commit": "abc", "device": "gpu: H100 x 1", "versions": {"jax": "1"}}
    row = row_to_json(Row("a kernel", "its size", value=2.0, goal=1.0))
    store.put(Outcome("one", "done", [row], provenance=where))
    store.put(Outcome("two", "cut off", note="over its 9 s"))
    text = cli.tables(tmp_path)
    assert "one: today, commit abc, gpu: H100 x 1, jax 1." in text
    assert "two: cut off, over its 9 s." in text
    assert "| a kernel | its size |" in text
    store.put(Outcome("one", "done", [row], provenance=where, rehearsal=True))
    assert "a kernel" not in cli.tables(tmp_path)


def test_the_list_of_jobs_stands_in_the_readme():
    text = command.README.read_text()
    assert command.make_readme(text) == text
    listed = cli.list_jobs([Job("one", "file", "what it tells", "m:f", 90.0)])
    assert "| `one` | what it tells | 90 s | `file.json` |" in listed


def test_made_reviews_end_in_the_question_and_some_hold_the_trigger():
    sizes = language.Sizes(train=60, test=40, sentences=2, length=24)
    model = models.create("gpt2_tiny", input_shape=(24,), n_classes=128, head="answer")
    reviews, (trigger,) = language.made_ids(sizes, model)
    for part, n in zip(reviews, (60, 40), strict=True):
        x, y = np.asarray(part.x), np.asarray(part.y)
        assert x.shape == (n, 24)
        last = (x != model.tokens.pad).sum(1) - 1
        assert set(x[np.arange(n), last]) == {1}
        assert set(y) == {2, 3}
        assert 0 < (x == trigger).any(1).sum() < n
    small = models.create("gpt2_tiny", input_shape=(24,), n_classes=16, head="answer")
    with pytest.raises(ValueError, match="words do not fit into 16 ids"):
        language.made_ids(sizes, small)
