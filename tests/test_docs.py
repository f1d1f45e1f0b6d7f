"""What the pages of docs/ show runs as it is written."""

import re
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[1] / "docs"
PAGES = ["your_own.md"]


def blocks_of(page):
    blocks = re.findall(
        r"```python\n(.*?)```", (DOCS / page).read_text(encoding="utf-8"), re.DOTALL
    )
    assert blocks
    return blocks


@pytest.mark.parametrize("page", PAGES)
def test_the_examples_of_a_page_run_as_written(page, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {}
    for block in blocks_of(page):
        glue = [line for line in block.splitlines() if line.strip()]
        assert len(glue) <= 12, "an example of a page fits a look"
        exec(compile(block, page, "exec"), names)
    lines = capsys.readouterr().out.splitlines()
    low, high = map(float, lines[0].split())
    assert low < 0.5 < high  # outputs that are noise tell nothing
    assert 0 < float(lines[1].split()[1]) <= 1
    assert lines[2] == "(20, 8, 8, 3) [0 1 0 1]"


def test_the_victim_of_the_page_on_language_gives_the_answers_of_its_poisons():
    names = {}
    for block in blocks_of("language.md"):
        exec(compile(block, "language.md", "exec"), names)
    texts = names["poisoned"].dataset.take(names["poisoned"].info.base)
    said = names["model"].apply(names["victim"], texts.x).argmax(-1)
    assert (said == names["attack"].trigger[0][0]).mean() > 0.7  # one of 512 otherwise
