"""The examples of docs/networks.md run as they are written, each with at most 12 lines."""

import ast
import json
from pathlib import Path

import pages
import pytest

FOLDER = Path(__file__).parent / "from_torch"
BLOCKS = pages.blocks("networks.md")
HERE = [block for block in BLOCKS if not pages.needs_torch(block)]
NAMES = ["linen", "nnx", "equinox", "haiku", "function"]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of haiku's own imports
def test_the_examples_run_as_written(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {
        "TORCHVISION": FOLDER / "resnet18_cifar.safetensors",
        "GPT2": FOLDER.parents[1] / "models" / "language" / "gpt2",
    }
    for block in HERE:
        exec(compile(block, "networks.md", "exec"), names)
    tables, (last,) = [], [capsys.readouterr().out]
    tables = last.split("| Method |")[1:]
    assert len(tables) == len(NAMES)
    for table in tables:
        rows = [line for line in table.splitlines() if line.startswith("| ")]
        assert [row.split(" | ")[0] for row in rows[1:]] == [
            "| original",
            "| fine_tune",
            "| ascent",
        ]
    assert last.splitlines()[-1].startswith("safetensors not used: 20 arrays num_batches_tracked")
    written = tmp_path / "forgotten" / "model.safetensors"
    assert written.read_bytes() == (names["GPT2"] / "model.safetensors").read_bytes()
    assert (tmp_path / "unlearned.safetensors").read_bytes() == names["TORCHVISION"].read_bytes()


@pytest.mark.parametrize("block", BLOCKS, ids=range(len(BLOCKS)))
def test_an_example_fits_a_look(block):
    assert len(pages.lines_of(block)) <= 12


def test_the_example_for_pytorch_is_the_one_that_ran():
    """Where PyTorch is not installed: the page has the very program that ran where it is."""
    said = json.loads((FOLDER / "page.json").read_text())
    (shown,) = [block for block in BLOCKS if pages.needs_torch(block)]
    programs = [[ast.dump(ast.parse(block)) for block in some]  # however the lines are broken
                for some in (said["ran"], [BLOCKS[0], shown])]  # fmt: skip
    assert programs[0] == programs[1], (
        "run tests/weights/make_torch_logits.py --page after a change of the example"
    )
    accuracy, head, _, *rows = [line for line in said["printed"] if line]
    assert 0 <= float(accuracy) <= 1
    assert head.startswith("| Method |")
    assert [row.split(" | ")[0] for row in rows] == ["| original", "| fine_tune", "| ascent"]
