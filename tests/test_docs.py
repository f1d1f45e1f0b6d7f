"""What the pages of docs/ show runs as it is written."""

import contextlib
import re
import sys
import types
from pathlib import Path

import jax
import pytest

DOCS = Path(__file__).parents[1] / "docs"
PAGES = ["your_own.md"]


def blocks_of(page, language="python"):
    text = (DOCS / page).read_text(encoding="utf-8")
    blocks = re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)
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
    told = stand_in_for_trackers(monkeypatch)
    names["key"] = jax.random.key(0)
    for block in blocks_of(page, "py"):
        exec(compile(block, page, "exec"), names)
    wandb = [metrics for metrics in told if isinstance(metrics, dict)]
    scalars = [told_ for told_ in told if isinstance(told_, tuple)]
    assert wandb[0] == {"seeds": 1}
    assert wandb[1:] == [record.metrics for record in names["told"]]
    methods = {tag.split("/")[1] for tag, _, _ in scalars}
    assert methods == {record.method for record in names["told"]} >= {"fine_tune"}
    assert all(isinstance(value, float) and seed == 0 for _, value, seed in scalars)


def stand_in_for_trackers(monkeypatch):
    """Returns what the trackers of the page are told, in the place of their packages."""
    told = []
    trackio = types.SimpleNamespace(
        init=lambda project, config: told.append(config), log=told.append, finish=lambda: None
    )

    class SummaryWriter(contextlib.nullcontext):
        def __enter__(self):
            return types.SimpleNamespace(add_scalar=lambda *scalar: told.append(scalar))

    tensorboard = types.SimpleNamespace(SummaryWriter=SummaryWriter)
    for name, module in {
        "trackio": trackio,
        "torch": types.ModuleType("torch"),
        "torch.utils": types.ModuleType("torch.utils"),
        "torch.utils.tensorboard": tensorboard,
    }.items():
        monkeypatch.setitem(sys.modules, name, module)
    return told


def test_the_victim_of_the_page_on_language_gives_the_answers_of_its_poisons():
    names = {}
    for block in blocks_of("language.md"):
        exec(compile(block, "language.md", "exec"), names)
    texts = names["poisoned"].dataset.take(names["poisoned"].info.base)
    said = names["model"].apply(names["victim"], texts.x).argmax(-1)
    assert (said == names["attack"].trigger[0][0]).mean() > 0.7  # one of 512 otherwise
