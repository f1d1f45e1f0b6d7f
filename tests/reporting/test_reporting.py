import io
import json
import re
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser

import numpy as np
import pytest
from rich.console import Console

from unlearnkit.base import (
    Cost,
)
from unlearnkit.reporting import (
    COLUMNS,
    RunFolder,
    RunFolderError,
    html_table,
    present,
    read_records,
    read_run,
    report_page,
    rows,
    to_latex,
    to_markdown,
    to_rich,
    to_svg,
    verification_chart,
)
from unlearnkit.studies import Record

RUN = {"experiment": "test", "settings": {"seeds": 2}}


def make(method, seed, forget, *, diverged=None):
    if diverged:
        return Record(method, seed, {}, Cost(0.0, 0.0), diverged)
    generator = np.random.default_rng(seed)
    metrics = {
        "accuracy_retain": 1.0,
        "accuracy_forget": forget,
        "accuracy_test": 0.9,
        "mia_loss_logistic_accuracy": 0.55,
        "mia_loss_logistic_auc_max": 0.6,
        "ks_statistic": 0.125,
        "wasserstein": 0.25,
        "activation_distance_forget": 0.5,
        "average_gap": 0.01,
    }
    rates = np.array([0.0, 0.0, 0.5, 1.0])
    curves = {
        "loss_forget": generator.exponential(0.1, 30),
        "loss_test": generator.exponential(0.3, 40),
        "mia_loss_logistic_fpr": rates,
        "mia_loss_logistic_tpr": np.array([0.0, 0.2, 0.8, 1.0]),
    }
    return Record(method, seed, metrics, Cost(12345.0, 0.5, 2.0), curves=curves)


@pytest.fixture
def records():
    return [
        make("original", 0, 1.0),
        make("fine_tune", 0, 0.96),
        make("original", 1, 1.0),
        make("fine_tune", 1, 0.94),
    ]


def test_the_table_is_mean_and_sample_deviation(records):
    table = {
        name: dict(zip([c.title for c in present(records)], cells, strict=True))
        for name, *cells in rows(records)
    }
    assert list(table) == ["original", "fine_tune"]
    assert table["fine_tune"]["Forget"] == "95.0±1.4"  # 0.02 / √2 = 0.0141
    assert table["original"]["Forget"] == "100.0±0.0"
    assert table["fine_tune"]["Gradients"] == "12\N{THIN SPACE}345"
    assert table["fine_tune"]["Time"] == "0.50"
    assert "±" not in rows(records[:2])[0][1]


def test_columns_are_shown_where_some_record_can_fill_them(records):
    """Records that were made before a metric was measured keep the columns they have."""
    new = {
        "mia_loss_logistic_accuracy_low": 0.45,
        "mia_loss_logistic_accuracy_high": 0.65,
        "mia_loss_logistic_accuracy_split_std": 0.02,
        "optml_mia_efficacy": 0.25,
        "optml_gap": 0.0246,
    }
    old = [column.title for column in present(records)]
    assert not {"MIA ±", "MIA splits", "MIA-eff.", "Avg. gap"} & set(old)
    lost = make("ascent", 2, 0, diverged="loss nan")
    later = [r._replace(metrics=dict(r.metrics) | new) for r in records]
    head, *body = [row.split(" | ") for row in to_markdown([*later, lost]).splitlines()]
    found = dict(zip((cell.strip("| ") for cell in head), body[1], strict=True))
    assert found["MIA ±"] == "10.0"
    assert found["MIA splits"] == "2.0"
    assert found["MIA-eff."].startswith("25.0")
    assert found["Avg. gap"].startswith("2.46")
    mixed = [*later[:2], *records[2:]]
    for shown in (to_markdown(mixed), to_latex(mixed), report_page(mixed, RUN, title="t")):
        assert "Avg. gap" in shown
    column = [row.split(" | ") for row in to_markdown(mixed).splitlines()]
    place = [cell.strip("| ") for cell in column[0]].index("Avg. gap")
    assert column[2][place].startswith("2.46")
    assert column[3][place] == "2.46 (1 missing)"
    for shown in (to_markdown(records), to_latex(records), report_page(records, RUN, title="t")):
        assert "Avg. gap" not in shown


def test_divergence_is_shown_not_averaged(records):
    lost = make("fine_tune", 2, 0, diverged="loss nan")
    names = [row[0] for row in rows([*records, lost])]
    assert names == ["original", "fine_tune (1 of 3 diverged)"]
    only = rows([make("ascent", 0, 0, diverged="loss nan")])[0]
    assert only[:2] == ["ascent", "diverged"]
    assert len(only) == len(COLUMNS) + 1
    assert "loss nan" in report_page([*records, lost], RUN, title="t")


def test_every_form_of_the_table_holds_every_row(records):
    markdown, latex = to_markdown(records), to_latex(records)
    assert len({line.count("|") for line in markdown.splitlines()}) == 1
    assert "| fine_tune |" in markdown
    assert r"fine\_tune & 100.0$\pm$0.0" in latex
    assert latex.count(r"\\") == 3
    console = Console(file=io.StringIO(), width=132)
    console.print(to_rich(records, title="title"))
    text = console.file.getvalue()
    assert "fine_tune" in text
    assert "…" not in text


def test_a_narrow_terminal_shows_fewer_columns_and_no_cut_number(records):
    shown = {}
    for width in (132, 80, 50):
        console = Console(file=io.StringIO(), width=width)
        console.print(to_rich(records, title="title", width=width))
        text = console.file.getvalue()
        assert "…" not in text
        shown[width] = text.splitlines()[2].split()
    assert {"Method", "Forget", "Test"} <= set(shown[50])
    assert set(shown[50]) < set(shown[80]) < set(shown[132])


def test_the_page_is_whole_and_needs_no_network(records):
    page = report_page(records, {**RUN, "note": "<script>"}, title="A & B")
    HTMLParser().feed(page)
    assert "A &amp; B" in page
    assert "<script>" not in page.split("<body>")[1]
    fetched = re.findall(r'(?:src|href)="(?!#)([^"]*)"|url\((?!#)([^)]*)\)', page)
    assert [link for link in fetched if any(part.startswith("http") for part in link)] == []


def test_a_run_comes_back_as_it_was_written(tmp_path, records):
    folder = RunFolder(tmp_path / "run", RUN)
    for record in records:
        folder.add(record)
    folder.add(make("ascent", 0, 0, diverged="loss nan"))
    folder.write("table.md", to_markdown(records))
    back = read_records(folder.path)
    assert read_run(folder.path) == RUN
    assert [r._replace(curves={}) for r in back[:4]] == [r._replace(curves={}) for r in records]
    assert back[4].diverged == "loss nan"
    np.testing.assert_array_equal(back[0].curves["loss_test"], records[0].curves["loss_test"])
    assert folder.problem is None


def test_a_line_cut_short_by_a_crash_is_left_out(tmp_path, records):
    folder = RunFolder(tmp_path, RUN)
    folder.add(records[0])
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"method": "fine_tune"})[:-4])
    assert [record.method for record in read_records(tmp_path)] == ["original"]


def test_another_run_is_never_overwritten_unasked(tmp_path, records):
    first = RunFolder(tmp_path, RUN)
    first.add(records[0])
    with pytest.raises(RunFolderError, match="holds another run.*--overwrite"):
        RunFolder(tmp_path, RUN)
    assert len(read_records(tmp_path)) == 1
    RunFolder(tmp_path, RUN, overwrite=True)
    assert not (tmp_path / "metrics.jsonl").exists()


def test_foreign_files_are_never_removed(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(RunFolderError, match="files that are no run's"):
        RunFolder(tmp_path, RUN, overwrite=True)
    assert (tmp_path / "thesis.tex").exists()
    with pytest.raises(RunFolderError, match="is a file"):
        RunFolder(tmp_path / "thesis.tex", RUN)


def test_a_full_disk_is_reported_and_what_is_there_stays(tmp_path, records, monkeypatch):
    folder = RunFolder(tmp_path, RUN)
    folder.add(records[0])

    def full(*_args, **_kwargs):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("pathlib.Path.open", full)
        folder.add(records[1])
    with monkeypatch.context() as patch:
        patch.setattr("unlearnkit.reporting.run_folder.write_text", full)
        folder.write("table.md", "")
    assert "No space left" in str(folder.problem)
    assert [record.method for record in read_records(tmp_path)] == ["original"]


def test_an_unwritable_place_is_refused_before_the_run(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunFolderError, match="cannot write"):
        RunFolder(tmp_path / "file" / "below", RUN)


@pytest.mark.parametrize("errors", [[0.0, 0.0], [1e-8, np.nan], [np.inf, 3.0], [np.nan, np.nan]])
def test_the_errors_of_a_verified_log_are_drawn_whatever_they_are(errors):
    steps, found, carried = np.array([100, 200]), np.array(errors), np.zeros(2)
    drawn = to_svg(verification_chart(steps, found, carried, 0.0, "l2"))
    ElementTree.fromstring(drawn)
    assert "error (l2)" in drawn
    assert "tolerance" in drawn
    assert "honest replays" not in drawn
    banded = to_svg(verification_chart(steps, found, carried, 1e-6, "l2", (1e-9, 1e-7)))
    ElementTree.fromstring(banded)
    assert "honest replays" in banded


def test_a_table_of_sentences_is_wrapped_and_every_cell_is_text():
    table = html_table(["a"], [["<b>"]], prose=True)
    assert '<table class="prose">' in table
    assert ">&lt;b&gt;</th>" in table
    assert "<table><thead>" in html_table(["a"], [["b"]])
