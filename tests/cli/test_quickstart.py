"""`unlearnkit quickstart`."""

import json
import tomllib

import numpy as np
import pytest

from unlearnkit import cli, unlearning
from unlearnkit.cli import running
from unlearnkit.cli.quickstart import Quickstart, choose_preset
from unlearnkit.data import Reading, parse_forget
from unlearnkit.records import record_from_dict
from unlearnkit.reporting import read_records
from unlearnkit.training import Recipe


@pytest.fixture
def quickstart(tmp_path, monkeypatch):
    monkeypatch.setattr(running, "report_page", lambda *_, **__: "")
    monkeypatch.setenv("COLUMNS", "80")
    kept = ["--store", str(tmp_path / "store"), "--out", str(tmp_path / "run"), "--no-cache"]

    def command(*options):
        return cli.run(["quickstart", *kept, "--scale", "smoke", *options])

    return command


def test_the_main_job_runs_from_data_to_page(quickstart, tmp_path, capsys):
    options = ["--methods", "fine_tune", "--model", "logistic"]
    assert quickstart(*options, "--results", str(tmp_path / "results")) == 0
    said, run = capsys.readouterr(), tmp_path / "run"
    assert "after 1 of 2 seeds" in said.err  # the first table, before the second seed is answered
    assert "training the originals" in said.err
    assert "unlearnkit quickstart: digits, forget class:3" in said.out
    assert "average_gap: distance to Retrain" in said.out
    assert max(map(len, said.out.splitlines())) <= max(80, len(str(run)) + 30)
    files = {path.name for path in run.iterdir()}
    assert files >= {"metrics.jsonl", "table.md", "table.tex", "report.html", "verdicts.json"}
    written = json.loads((tmp_path / "results" / "quickstart" / "digits-smoke.json").read_text())
    assert written["settings"] == {
        "dataset": "digits", "model": "logistic", "forget": "class:3", "scale": "smoke",
        "seeds": 2, "seed": 1,
    }  # fmt: skip
    assert {"commit", "device", "versions", "date"} <= set(written["provenance"])
    assert [record_from_dict(r).metrics for r in written["records"]] == [
        r.metrics for r in read_records(run)
    ]
    # All is in the store: another folder is filled without any training.
    assert cli.run(["resume", str(run), "--no-cache", "--json"]) == 0
    again = capsys.readouterr()
    assert json.loads(again.out)["records"] == 6
    assert "training" not in again.err


def test_a_user_s_own_arrays_are_welcome(quickstart, tmp_path):
    generator = np.random.default_rng(0)
    y = generator.integers(0, 10, 400)
    x = generator.integers(0, 40, (400, 8, 8, 1)) + 20 * y[:, None, None, None]
    arrays = {"x_train": x[:300], "y_train": y[:300], "x_test": x[300:], "y_test": y[300:]}
    path = tmp_path / "mine.npz"
    np.savez(path, **{n: a.astype(np.uint8 if n[0] == "x" else int) for n, a in arrays.items()})
    options = ["--model", "logistic", "--forget", "random:120", "--methods", "fine_tune"]
    assert quickstart("--dataset", str(path), *options, "--seeds", "1") == 0
    assert {record.dataset for record in read_records(tmp_path / "run")} == {"mine.npz"}


@pytest.mark.parametrize("dataset", ["breast_cancer", "some/wine.CSV", "wine.parquet"])
def test_a_table_gets_a_network_that_takes_it(dataset):
    """And what is said of the file reaches the study."""
    config = Quickstart(dataset=dataset, reading=Reading(test_fraction=0.5, drop=("id",)))
    said = tomllib.loads(config.declare())
    assert list(said["networks"]) == ["mlp"]
    assert said["data"][config.name] == {"name": dataset, "test_fraction": 0.5, "drop": ["id"]}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--dataset", "mnis"], "did you mean mnist?"),
        (["--model", "lenett"], "unknown network 'lenett'; known: logistic"),
        (["--forget", "everything"], "forget must be of a form"),
        (["--forget", "random:1.0"], "1.0"),
        (["--forget", "class:11"], "11"),
        (["--seeds", "0"], "seeds must be >= 1"),
        (["--methods", "scrubb"], "unknown method 'scrubb'; known: retrain"),
        (["--dataset", "mnist", "--data-dir", "nowhere"], "nowhere"),
    ],
)
def test_mistakes_are_told_clearly(quickstart, tmp_path, capsys, options, message):
    assert quickstart(*options) == 2
    said = capsys.readouterr()
    assert said.err.startswith("error: ")
    assert message in said.err
    assert not (tmp_path / "run").exists()


def test_another_run_is_kept(quickstart, tmp_path, capsys):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.json").write_text("{}")
    assert quickstart("--model", "logistic") == 2
    assert "--overwrite" in capsys.readouterr().err


@pytest.mark.parametrize("scale", ["smoke", "cpu", "paper"])
@pytest.mark.parametrize("dataset", ["digits", "mnist", "cifar10", "svhn_cropped"])
def test_what_a_preset_says_can_be_made(dataset, scale):
    preset = choose_preset(Quickstart(dataset=dataset, scale=scale))
    Recipe(**preset.recipe)
    parse_forget(preset.forget)
    assert list(preset.methods)[:2] == ["retrain", "fine_tune"]
    for name, settings in {**preset.others, **preset.methods}.items():
        plain = {n: None if value == "none" else value for n, value in settings.items()}
        unlearning.create(name, **plain)


def test_all_methods_run_where_they_are_asked_for():
    said = tomllib.loads(Quickstart(methods=("all",)).declare())
    assert list(said["methods"]) == list(unlearning.UNLEARNERS)
    assert said["methods"]["random_label"]["epochs"] == 4
    assert list(tomllib.loads(Quickstart().declare())["methods"]) == [
        "retrain", "fine_tune", "gradient_ascent", "random_label",
    ]  # fmt: skip
