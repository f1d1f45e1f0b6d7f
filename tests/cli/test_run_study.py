"""`unlearnkit run STUDY.toml`."""

import json

import pytest

from unlearnkit import cli
from unlearnkit.records import record_to_dict
from unlearnkit.reporting import read_records

STUDY = """
seeds = 2
primary = "average_gap"
[data.digits]
train_rows = 200
test_rows = 100
[networks.logistic]
[recipes.short]
epochs = 2
batch_size = 20
[forget]
tenth = "random:0.1"
[methods.fine_tune]
epochs = 1
batch_size = 20
[audits.""]
use = "evaluation"
attacks = [{feature = "loss", attacker = "logistic"}]
"""


@pytest.fixture
def run(tmp_path):
    def command(*options, text=STUDY):
        (tmp_path / "study.toml").write_text(text)
        store = ["--store", str(tmp_path / "store"), "--no-cache"]
        return cli.run(["run", str(tmp_path / "study.toml"), *store, *options])

    return command


def test_a_study_and_its_results(run, tmp_path, capsys):
    assert run("--out", str(tmp_path / "one")) == 0
    said = capsys.readouterr().out
    assert "1 questions, 1 methods, 1 audits, 2 seeds" in said
    assert "average_gap: distance to Retrain" in said
    assert "tenth     fine_tune" in said
    out = tmp_path / "one"
    assert {path.name for path in out.iterdir()} >= {
        "run.json", "metrics.jsonl", "records.jsonl", "table.md", "verdicts.md", "verdicts.json",
        "report.html",
    }  # fmt: skip
    records = read_records(out)
    assert [(r.method, r.seed) for r in records] == [
        (method, seed) for seed in range(2) for method in ("original", "retrained", "fine_tune")
    ]
    (cell,) = json.loads((out / "verdicts.json").read_text())["cells"]
    gaps = [r.metrics["average_gap"] for r in records if r.method == "fine_tune"]
    assert cell["distance"] == pytest.approx(sum(gaps) / 2)
    assert "fine_tune" in (out / "report.html").read_text()


def test_it_goes_on_where_it_was_ended(run, tmp_path, capsys):
    """All stages are in the store: nothing is trained, and the records are the same."""
    assert run("--out", str(tmp_path / "one")) == 0
    assert "training the originals" in capsys.readouterr().err
    assert run("--out", str(tmp_path / "two")) == 0
    assert "training" not in capsys.readouterr().err
    one, two = (
        [record_to_dict(r, curves=False) for r in read_records(tmp_path / name)]
        for name in ("one", "two")
    )
    assert one == two


def test_a_folder_is_gone_on_with_by_the_same_study_alone(run, tmp_path, capsys):
    out = tmp_path / "one"
    assert run("--out", str(out)) == 0
    (out / "table.md").unlink()  # as if it had been ended before
    assert run("--out", str(out)) == 0
    assert (out / "table.md").exists()
    other = STUDY.replace("epochs = 2", "epochs = 1")
    assert run("--out", str(out), text=other) == 2
    assert "holds another run" in capsys.readouterr().err
    assert run("--out", str(out), "--overwrite", text=other) == 0


def test_checking_alone_trains_nothing(run, tmp_path, capsys):
    assert run("--only-check") == 0
    assert "2 seeds" in capsys.readouterr().out
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("epochs = 2", "epoch = 2", "recipes.short has the unknown field 'epoch'"),
        ("random:0.1", "random:300", "error: count must be at most 200"),
        ("fine_tune]", "fine_tun]", "did you mean fine_tune"),
        ("[data.digits]", "[data.nowhere]", "data.nowhere: dataset must be one of digits"),
    ],
)
def test_mistakes_exit_with_2(run, tmp_path, capsys, old, new, message):
    assert run(text=STUDY.replace(old, new)) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "store").exists()


def test_a_missing_file_and_a_folder_of_others(run, tmp_path, capsys):
    assert cli.run(["run", str(tmp_path / "none.toml"), "--no-cache"]) == 2
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.txt").write_text("mine")
    assert run("--out", str(tmp_path / "other")) == 2
    assert "holds files that are no run's" in capsys.readouterr().err
    assert (tmp_path / "other" / "thesis.txt").read_text() == "mine"


def test_a_metric_that_nothing_measured_is_told_and_the_records_are_kept(run, tmp_path, capsys):
    text = STUDY.replace('"average_gap"', '"averge_gap"')
    assert run("--out", str(tmp_path / "one"), text=text) == 1
    said = capsys.readouterr().out
    assert "no verdicts: no record has the metric 'averge_gap'; there are" in said
    assert len(read_records(tmp_path / "one")) == 6
    assert (tmp_path / "one" / "table.md").exists()


def test_a_cell_that_fails_is_told_and_exits_with_1(run, tmp_path, capsys):
    """Boundary shrinking refuses pixels outside of its box; the study goes on without it."""
    text = f"{STUDY}\n[methods.boundary_shrink]\nepochs = 1\nbox = [0.2, 0.3]\n"
    assert run("--out", str(tmp_path / "one"), text=text) == 1
    said = capsys.readouterr()
    told = "tenth: boundary_shrink: ValueError: pixels of forget must be in (0.2, 0.3)"
    assert told in said.err
    assert f"8 records in {tmp_path / 'one'}, 2 failed" in said.out
    assert "failed" in (tmp_path / "one" / "table.md").read_text()
