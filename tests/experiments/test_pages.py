import dataclasses
import subprocess
from pathlib import Path

import numpy as np
import pytest

from experiments.claims import Claim, Runs
from experiments.frame import PaperCommand, save_result, with_seeds
from experiments.pages import (
    Section,
    draw,
    formatted_table,
    picture_path,
    plain_table,
    write_page,
)
from unlearnkit.base import Cost
from unlearnkit.reporting.charts import chart, panels
from unlearnkit.studies import Record

ROOT = Path(__file__).parents[2]


@dataclasses.dataclass(frozen=True)
class Paper(PaperCommand):
    paper = "tgda"


@chart
def line(values):
    figure, (axes,) = panels(2.0, 2.0)
    axes.plot(values)
    return figure


def record(method, seed, value, **more):
    return Record(method, seed, {"accuracy": value}, Cost(1.0, 1.0), **more)


def test_a_page_shows_tables_claims_notes_and_pictures_and_writes_them(tmp_path):
    command = Paper(scale="smoke", results=tmp_path)
    save_result(command.path("one"), command.describe({"n": 1}))
    draw(command.path("one"), "poisons", line([1, 2]))
    draw(command.path("one"), "sizes", line([1, 2]))  # by an earlier page
    section = Section(
        "A <title>",
        [plain_table(["a", "b"], [["1", "2"]])],
        [Claim("It is | so", "here", "1", "2", "holds")],
        ["a note"],
        {"budget": line([2, 1]), "poisons": None, "poisons-never": None, "sizes": ""},
    )
    page = write_page(command, {"one": section}, {"one": {}})
    text = page.read_text(encoding="utf-8")
    assert page == tmp_path / "tgda" / "smoke.html"
    assert text.count("data:image/svg") == 2
    assert "A &lt;title&gt;" in text
    assert "Total gradient descent ascent (Lu et al. 2022), scale smoke" in text
    assert "A drop is the accuracy" in text
    assert "<li>a note</li>" in text
    assert (tmp_path / "tgda" / "one-smoke.md").read_text(encoding="utf-8") == (
        "| a | b |\n| --- | --- |\n| 1 | 2 |\n\n"
        "| Claim | Where | Ours | Paper | Verdict |\n| --- | --- | --- | --- | --- |\n"
        "| It is \\| so | here | 1 | 2 | **holds** |\n\na note\n"
    )
    assert picture_path(command.path("one"), "budget").read_text().startswith("<svg")


def test_a_table_is_written_by_the_formats_of_its_columns():
    rows = [{"made_on": "one", "verified_on": "other", "median": 1 / 3, "largest": 2}, {}]
    assert formatted_table("forging_devices", rows).markdown == (
        "| log made on | verified on | median error | largest |\n| --- | --- | --- | --- |\n"
        "| one | other | 0.33 | 2 |\n|  |  |  |  |\n"
    )


def test_git_ignores_every_picture_and_holds_none():
    path = picture_path(ROOT / "results" / "tgda" / "mnist-lr-cpu.json", "poisons")
    asked = subprocess.run(["git", "check-ignore", "-q", path], cwd=ROOT, check=False)
    if asked.returncode == 128:
        pytest.skip("no checkout")
    assert asked.returncode == 0
    listed = ["git", "ls-files", "results/*.svg", "results/*.png"]
    assert subprocess.run(listed, cwd=ROOT, capture_output=True, check=True).stdout == b""


def test_without_results_there_is_no_page(tmp_path):
    with pytest.raises(FileNotFoundError, match="no result of scale cpu in .*tgda"):
        write_page(Paper(results=tmp_path), {}, {})


def test_seeds_are_paired_and_failures_are_left_out_with_their_pairs():
    runs = Runs(
        [record("a", seed, 0.5 + 0.1 * seed) for seed in range(3)]
        + [record("b", seed, 0.2) for seed in range(2)]
        + [record("b", 2, 9.0, diverged="nan"), record("c", 0, 9.0, failed="no")]
    )
    assert runs.methods() == ["a", "b"]
    np.testing.assert_allclose(runs.gaps("accuracy", "a", "b"), [0.3, 0.4])
    assert runs.gaps("accuracy", "a", "c") == []
    assert runs.by_seed("b", "accuracy") == {0: 0.2, 1: 0.2}
    assert runs.mean("a", "accuracy") == pytest.approx(0.6)


def test_seeds_of_settings_are_changed_only_where_asked():
    known = {"one": Paper(seed=3)}
    assert with_seeds(known, None) == known
    assert with_seeds(known, 5, "seed")["one"].seed == 5
    with pytest.raises(ValueError, match="seeds must be >= 1, got 0"):
        with_seeds(known, 0, "seed")
