import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from unlearnkit import cli

FILE = Path(__file__).parents[1] / "weights" / "from_torch" / "resnet18_cifar.safetensors"


def call(capsys, *arguments):
    code = cli.run(["inspect", *map(str, arguments)])
    return code, capsys.readouterr()


def test_a_file_that_fits(capsys):
    code, said = call(capsys, FILE, "--model", "resnet18:width=4", "--all")
    assert code == 0
    lines = said.out.splitlines()
    assert lines[0] == f"{FILE}: safetensors, 122 arrays"
    assert "  params/stem/conv/kernel <- conv1.weight  (OI… to …IO)" in lines
    assert "  not used: 20 arrays num_batches_tracked" in lines
    assert lines[-1] == "102 of the 102 arrays of resnet18:width=4 fit"


def test_a_file_that_does_not_fit(capsys, tmp_path):
    arrays = load_file(FILE)
    arrays["fc.weight"] = np.zeros((5, 7), np.float32)
    del arrays["bn1.bias"]
    save_file(arrays, tmp_path / "w")
    arguments = (tmp_path / "w", "--model", "resnet18:width=4")
    code, said = call(capsys, *arguments, "--json")
    assert code == 1
    found = json.loads(said.out)
    assert not found["fits"]
    assert {m["kind"]: m["name"] for m in found["misfits"]} == {
        "shape": "fc.weight",
        "missing": "params/stem/norm/bias",
    }
    assert len(found["entries"]) == 100
    code, said = call(capsys, *arguments)
    assert code == 1
    assert "missing  params/stem/norm/bias: the network has [4]" in said.out
    assert said.out.splitlines()[-1] == "100 of the 102 arrays of resnet18:width=4 fit"


def test_without_a_network_it_lists_the_arrays(capsys):
    code, said = call(capsys, FILE)
    assert code == 0
    assert "  conv1.weight  float32 [4, 3, 3, 3]" in said.out.splitlines()
    code, said = call(capsys, FILE, "--json")
    assert json.loads(said.out)["arrays"]["fc.bias"] == {"shape": [5], "dtype": "float32"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["gone.pt"], "no file of weights at gone.pt"),
        ([FILE, "--model", "resnet81"], "did you mean resnet18"),
        ([FILE, "--model", "resnet18:width"], "a setting must read name=value"),
        ([FILE, "--model", "resnet18", "--names", "a"], "--names takes OLD=NEW"),
        ([FILE, "--model", "resnet18", "--part", "ema"], "no array of the file is called ema"),
    ],
)
def test_bad_input_is_told_in_one_line(arguments, message, capsys):
    code, said = call(capsys, *arguments)
    assert code == 2
    assert message in said.err
    assert len(said.err.splitlines()) == 1


def test_the_number_of_classes_is_asked_for_where_names_do_not_tell(capsys, tmp_path):
    save_file({"0.weight": np.ones((3, 4)), "0.bias": np.ones(3)}, tmp_path / "w")
    code, said = call(capsys, tmp_path / "w", "--model", "logistic", "--input-shape", 4)
    assert (code, "give --n-classes" in said.err) == (2, True)
    code, _ = call(capsys, tmp_path / "w", "--model", "logistic", "--input-shape", 4,
                   "--n-classes", 3, "--by-order")  # fmt: skip
    assert code == 0  # float64 is told
