"""`unlearnkit run STUDY.toml`."""

import contextlib
import io
import json
import resource
import shutil
import subprocess
import sys
import tomllib

import pytest
from tiny_terminal import run_in_terminal

from unlearnkit import cli, unlearning
from unlearnkit.cli import running
from unlearnkit.records import record_to_dict
from unlearnkit.reporting import read_records
from unlearnkit.studies import Dask, Processes, Store, StoreError

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
optml = "none"
"""


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A folder with a study, its store and its results in `one`; and what was printed."""
    folder = tmp_path_factory.mktemp("finished")
    (folder / "study.toml").write_text(STUDY)
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        code = cli.run(
            ["run", str(folder / "study.toml"), "--out", str(folder / "one"),
             "--store", str(folder / "store"), "--no-cache"]
        )  # fmt: skip
    assert code == 0
    return folder, said.getvalue()


@pytest.fixture
def without_pictures(finished, monkeypatch):
    monkeypatch.setattr(running, "report_page", lambda *_, **__: "")


@pytest.fixture
def run(tmp_path, finished, without_pictures):
    """Runs a study, or goes on with the finished one; its store has all that this one has."""

    def command(*options, text=STUDY, store=finished[0] / "store"):
        (tmp_path / "study.toml").write_text(text)
        kept = ["--store", str(store), "--no-cache"]
        return cli.run(["run", str(tmp_path / "study.toml"), *kept, *options])

    return command


def test_a_study_and_its_results(finished):
    folder, said = finished
    assert "1 question, 1 method, 1 audit, 2 seeds: 6 records" in said
    assert "average_gap: distance to Retrain" in said
    assert "tenth     fine_tune" in said
    assert "0/6 training the originals" in said
    out = folder / "one"
    assert {path.name for path in out.iterdir()} >= {
        "run.json", "metrics.jsonl", "records.jsonl", "table.md", "table.tex", "verdicts.md",
        "verdicts.json", "report.html",
    }  # fmt: skip
    records = read_records(out)
    assert [(r.method, r.seed) for r in records] == [
        (method, seed) for seed in range(2) for method in ("original", "retrained", "fine_tune")
    ]
    written = json.loads((out / "verdicts.json").read_text())
    (cell,) = written["cells"]
    gaps = [r.metrics["average_gap"] for r in records if r.method == "fine_tune"]
    assert cell["distance"] == pytest.approx(sum(gaps) / 2)
    assert written["seconds"] > 0
    for name in ("verdicts.json", "report.html"):
        assert str(folder) not in (out / name).read_text()  # nothing of this machine
    assert "fine_tune" in (out / "report.html").read_text()


def test_it_goes_on_where_it_was_ended(run, finished, tmp_path, capsys):
    """All stages are in the store: nothing is trained, and the records are the same."""
    assert run("--out", str(tmp_path / "two")) == 0
    assert "training" not in capsys.readouterr().err
    one, two = (
        [record_to_dict(r, curves=False) for r in read_records(folder)]
        for folder in (finished[0] / "one", tmp_path / "two")
    )
    assert one == two


def test_a_folder_is_gone_on_with_by_the_same_study_alone(run, tmp_path, capsys):
    out = tmp_path / "one"
    assert run("--out", str(out)) == 0
    (out / "table.md").unlink()  # as if it had been ended before
    assert run("--out", str(out)) == 0
    assert (out / "table.md").exists()
    other = STUDY.replace("seeds = 2", "seeds = 1")
    assert run("--out", str(out), text=other) == 2
    assert "holds another run" in capsys.readouterr().err
    assert run("--out", str(out), "--overwrite", text=other) == 0
    assert len(read_records(out)) == 3


def test_what_was_ended_is_told_and_resumed(finished, without_pictures, tmp_path, capsys):
    out = tmp_path / "one"
    shutil.copytree(finished[0] / "one", out)
    lines = (out / "metrics.jsonl").read_text().splitlines(keepends=True)
    (out / "metrics.jsonl").write_text("".join(lines[:2]) + lines[2][:10])  # killed while writing
    for name in ("report.html", "table.md"):
        (out / name).unlink()
    assert cli.run(["status", str(out)]) == 3
    said = capsys.readouterr().out
    assert f"{out}: 2 of 6 records" in said
    assert f"unlearnkit resume {out}" in said
    assert cli.run(["report", str(out)]) == 0  # of what there is, which is not finished
    assert "original" in capsys.readouterr().out
    assert cli.run(["status", str(out), "--json"]) == 3
    told = json.loads(capsys.readouterr().out)
    assert (told["done"], told["records"], told["finished"]) == (2, 6, False)
    assert cli.run(["resume", str(out), "--no-cache", "--json"]) == 0
    said = capsys.readouterr()
    assert "training" not in said.err
    told = json.loads(said.out)
    assert (told["records"], told["failed"], len(told["verdicts"])) == (6, 0, 1)
    assert cli.run(["status", str(out)]) == 0
    assert cli.run(["report", str(out), "--json"]) == 0
    records = [json.loads(line) for line in capsys.readouterr().out.splitlines()[2:]]
    assert [record["method"] for record in records[:3]] == ["original", "retrained", "fine_tune"]


def test_pictures_and_examples_are_written_when_they_are_asked_for(finished, tmp_path, capsys):
    shutil.copytree(finished[0] / "one", tmp_path / "one")
    out, figures = str(tmp_path / "one"), tmp_path / "figures"
    page = tmp_path / "one" / "report.html"
    assert "data:image/png" not in page.read_text()
    asked = ["--figures", str(figures), "--only", "distance", "losses-fine_tune"]
    assert cli.run(["report", out, *asked, "--show-examples"]) == 0
    assert {path.name for path in figures.iterdir()} == {"distance.svg", "losses-fine_tune.svg"}
    shown = page.read_text()
    assert shown.count("data:image/png") == 20  # a tenth of 200 digits
    assert "unlearnkit report one --show-examples --figures figures --only distance" in shown
    assert str(tmp_path) not in shown
    assert cli.run(["report", out, "--figures", str(figures), "--only", "losses"]) == 2
    assert "unknown figure 'losses'" in capsys.readouterr().err
    assert cli.run(["report", out, "--only", "losses"]) == 2
    assert "give a folder by --figures" in capsys.readouterr().err
    assert cli.run(["resume", str(finished[0] / "store")]) == 2
    assert "it is a store of stages" in capsys.readouterr().err
    assert cli.run(["report", out]) == 0
    assert "data:image/png" not in page.read_text()


def test_a_report_is_made_of_a_store_alone(finished, tmp_path, capsys):
    store, out = tmp_path / "store", tmp_path / "store-report"
    shutil.copytree(finished[0] / "store", store)
    text = STUDY.replace("seeds = 2", "seeds = 3")
    (tmp_path / "more.toml").write_text(text)
    known = {text: name for name, text in Store(store).studies().items()}
    only = ["--study", known[STUDY]]
    assert cli.run(["report", str(store), *only]) == 0
    assert "training" not in capsys.readouterr().err
    one, two = (
        [record_to_dict(r, curves=False) for r in read_records(folder)]
        for folder in (finished[0] / "one", out)
    )
    assert one == two
    assert "fine_tune" in (out / "report.html").read_text()
    assert "data:image/png" not in (out / "report.html").read_text()
    assert str(tmp_path) not in (out / "report.html").read_text()
    # A study of which only a part is there, by its file.
    more = ["--study", str(tmp_path / "more.toml"), "--into", str(tmp_path / "more")]
    assert cli.run(["report", str(store), *more]) == 0
    assert "6 of the study's 9 records are in the store" in capsys.readouterr().out
    shutil.rmtree(store / "studies")
    assert cli.run(["report", str(store)]) == 2
    assert "names no study that took from it; give --study" in capsys.readouterr().err
    assert cli.run(["report", str(store), "--study", "none"]) == 2
    assert "--study is no file" in capsys.readouterr().err
    assert cli.run(["report", str(out), "--study", "none"]) == 2
    assert "--study and --into are for the report of a store" in capsys.readouterr().err


def test_a_study_by_options_is_the_one_of_the_file(finished, without_pictures, tmp_path, capsys):
    options = [
        *("--data", "digits:train_rows=200,test_rows=100", "--networks", "logistic"),
        *("--recipe", "epochs=2", "batch_size=20", "--forget", "random:0.1", "--seeds", "2"),
        *("--methods", "fine_tune:epochs=1,batch_size=20", "--out", str(tmp_path / "one")),
        "--audits",
        ':use=evaluation,optml=none,attacks=[{feature="loss",attacker="logistic"}]',
        *("--store", str(finished[0] / "store"), "--no-cache"),
    ]
    assert cli.run(["run", *options]) == 0
    assert "training" not in capsys.readouterr().err  # the stages of the file
    one, two = (read_records(folder) for folder in (finished[0] / "one", tmp_path / "one"))
    assert [record.metrics for record in one] == [record.metrics for record in two]
    assert {record.question for record in two} == {"random:0.1"}
    text = json.loads((tmp_path / "one" / "run.json").read_text())["study"]
    (tmp_path / "again.toml").write_text(text)
    assert cli.run(["run", str(tmp_path / "again.toml"), "--only-check"]) == 0


def test_a_shard_has_its_cells_and_a_folder_of_its_own(run, finished, tmp_path, capsys):
    for which in (1, 2):
        assert run("--shard", f"{which}/2", "--out", str(tmp_path / "one")) == 0
    shards = [read_records(tmp_path / f"one-shard-{which}-of-2") for which in (1, 2)]
    whole = read_records(finished[0] / "one")
    assert [r.metrics for shard in shards for r in shard] == [r.metrics for r in whole]
    assert "average_gap: distance" not in capsys.readouterr().out  # nobody has all seeds
    shard = tmp_path / "one-shard-2-of-2"
    assert cli.run(["resume", str(shard), "--no-cache"]) == 0
    assert len(read_records(shard)) == 3
    assert cli.run(["status", str(shard)]) == 0
    assert not (tmp_path / "one").exists()


def test_when_the_minutes_are_over_it_says_how_to_go_on(run, tmp_path, capsys):
    out = tmp_path / "one"
    options = ["--minutes", "1e-6", "--out", str(out)]
    assert run(*options, store=tmp_path / "empty") == 3
    said = capsys.readouterr().out
    assert "1e-06 minutes are over: 0 of 6 records are there" in said
    assert f"go on with: unlearnkit resume {out}" in said
    assert cli.run(["status", str(out)]) == 3
    capsys.readouterr()
    assert run(*options, "--json", store=tmp_path / "empty") == 3
    assert json.loads(capsys.readouterr().out)["finished"] is False
    # What the store has is taken whatever the time.
    assert run(*options, "--overwrite") == 0


def test_all_methods_are_named_at_once():
    said = tomllib.loads(cli.Run(methods=("all",), attacks=("gaussian",))._text())
    assert list(said["methods"]) == list(unlearning.UNLEARNERS)
    assert "forget" not in said
    assert "primary" not in said


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["run"], "give the TOML file of a study, or declare one by options"),
        (["run", "{folder}/study.toml", "--seeds", "3"], "give a file or --seeds, not both"),
        (["run", "--methods", "fine_tun"], "methods.fine_tun: unknown unlearner"),
        (["run", "--methods", "fine_tune:epoch=1"], "unknown field 'epoch'"),
        (["run", "--methods", "fine_tune", "--budget", "2"], "budgets must be shares of Retrain"),
        (["run", "{folder}/study.toml", "--shard", "5/4"], "shard must be (which, of how many)"),
        (["run", "{folder}/study.toml", "--executor", "threads"], "unknown executor 'threads'"),
        (["run", "{folder}/study.toml", "--minutes", "0"], "minutes must be > 0"),
        (["resume", "{folder}/none"], "holds no study (no run.json); there are {folder}/one"),
        (["status", "{folder}"], "holds no study (no run.json)"),
    ],
)
def test_what_cannot_be_done_is_told_and_leaves_no_folder(
    finished, tmp_path, monkeypatch, capsys, command, message
):
    monkeypatch.chdir(tmp_path)
    filled = [part.replace("{folder}", str(finished[0])) for part in command]
    assert cli.run(filled) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert message.replace("{folder}", str(finished[0])) in said
    assert list(tmp_path.iterdir()) == []


def test_an_error_of_syntax_is_told_by_its_line_before_anything_is_imported(tmp_path):
    (tmp_path / "study.toml").write_text("seeds = 2\n[data.digits\n")
    code = (
        "import sys; from unlearnkit import cli; "
        f"assert cli.run(['run', {str(tmp_path / 'study.toml')!r}, '--no-cache']) == 2; "
        "assert 'jax' not in sys.modules"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "study.toml is not TOML" in found.stderr
    assert "line 2" in found.stderr


def test_ctrl_c_in_the_middle_ends_in_a_line_and_is_gone_on_with(tmp_path):
    (tmp_path / "study.toml").write_text(STUDY.replace("epochs = 2", "epochs = 100000", 1))
    out = tmp_path / "my study"
    command = [
        *(sys.executable, "-m", "unlearnkit", "run", str(tmp_path / "study.toml")),
        *("--out", str(out), "--store", str(tmp_path / "store"), "--no-cache"),
    ]
    code, screen, screens = run_in_terminal(command, press="training the originals (2 seeds)")
    assert code == 130
    assert max(s.count("of 6 records") for s in screens) <= 1
    lines = " ".join("".join(line.ljust(80) for line in screen.splitlines()).split())
    assert lines.endswith(
        f"interrupted; what is done is kept; go on with: unlearnkit resume '{out}'"
    )
    assert "Traceback" not in screen
    assert json.loads((out / "run.json").read_text())["n_records"] == 6


def test_a_store_that_cannot_be_written_is_told(run, tmp_path, capsys):
    (tmp_path / "locked").write_text("a file, in which not even root can make a folder")
    assert run("--out", str(tmp_path / "out"), store=tmp_path / "locked" / "store") == 2
    assert "choose another folder" in capsys.readouterr().err


def test_checking_alone_trains_nothing(run, tmp_path, capsys):
    assert run("--only-check", store=tmp_path / "store") == 0
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
    assert run(text=STUDY.replace(old, new), store=tmp_path / "store") == 2
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


def test_two_processes_do_not_write_to_one_folder(run, tmp_path, capsys):
    out = tmp_path / "one"
    with running.written_by_one(out):
        assert run("--out", str(out)) == 2
    assert "another process writes its results to" in capsys.readouterr().err
    assert not out.exists()
    assert run("--out", str(out)) == 0
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".one")] == []


@contextlib.contextmanager
def room_for(most_bytes):
    """As on a full disk, no file grows beyond so many bytes meanwhile."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_disk_that_is_full_before_is_told_in_a_line(run, tmp_path, capsys):
    with room_for(600):  # run.json is larger
        assert run("--out", str(tmp_path / "one")) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: cannot write to {tmp_path / 'one'}: [Errno 27]")
    assert line.endswith("choose another folder")


def test_a_disk_that_fills_up_meanwhile_is_told_in_a_line(run, tmp_path, capsys):
    with room_for(5000):  # run.json is smaller, and the records are not
        assert run("--out", str(tmp_path / "one")) == 1
    said = capsys.readouterr()
    assert "Traceback" not in said.err
    (line,) = [line for line in said.out.splitlines() if "[Errno 27]" in line]
    assert line.startswith("not all was written: [Errno 27] File too large")
    assert "6 records in" in said.out  # the table is printed all the same


def test_stages_that_the_store_does_not_take_are_told_in_a_line(run, tmp_path, monkeypatch, capsys):
    def full(self, key, stage):
        raise StoreError(f"the disk took no {key.kind}")

    monkeypatch.setattr(Store, "put", full)
    text = STUDY.replace("seeds = 2", "seeds = 1")
    assert run("--out", str(tmp_path / "one"), text=text, store=tmp_path / "store") == 1
    said = capsys.readouterr()
    (line,) = [line for line in (said.out + said.err).splitlines() if "the disk took no" in line]
    assert line.startswith("not all is in the store: the disk took no original; ")
    assert line.endswith("more stages)")
    assert len(read_records(tmp_path / "one")) == 3


@pytest.mark.parametrize(
    ("word", "meant"), [("dask:2", Dask(count=2)), ("processes:3", Processes(3))]
)
def test_workers_are_asked_for_by_a_word(run, tmp_path, monkeypatch, word, meant):
    asked = []
    monkeypatch.setattr(running, "run", lambda *_, **options: asked.append(options) or iter(()))
    with contextlib.suppress(ValueError):  # no records, and so no table
        run("--executor", word, "--out", str(tmp_path / "one"))
    assert [options["executor"] for options in asked] == [meant]
