import json

import jax
import numpy as np
import pytest
from spoilt_logs import edit, reseal

from unlearnkit import cli, data, models
from unlearnkit.training import Recipe, fit

STATE = "state-0000000010.safetensors"


@pytest.fixture
def log(tmp_path):
    """A log of ten steps on digits."""
    train = data.load("digits", split="train", normalisation="standard")
    model = models.create("logistic", input_shape=(8, 8, 1), n_classes=10)
    recipe = Recipe(epochs=1, batch_size=80, learning_rate=0.01)
    fit(jax.random.key(0), model, train, recipe, trajectory=tmp_path / "log", every=5)
    return tmp_path / "log"


def test_a_valid_log(log, tmp_path, capsys):
    output = [f"--{name}={tmp_path / name}" for name in ("json", "figure")]
    assert cli.run(["verify", str(log), "--data", "digits", *output]) == 0
    assert "VALID: 11 of 11 logged steps replayed in 3 segments" in capsys.readouterr().out
    assert json.loads((tmp_path / "json").read_text())["errors"] == [0, 0, 0]
    assert "<svg" in (tmp_path / "figure").read_text()


def test_an_invalid_log(log, capsys):
    edit(log, 10, "params/classifier/bias", lambda b: b + np.float32(0.01))
    reseal(log)
    arguments = ["verify", str(log), "--data", "digits", "--tolerance"]
    assert cli.run([*arguments, "1e-3"]) == 1
    assert "INVALID" in capsys.readouterr().out
    assert cli.run([*arguments, "1"]) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["verify", "{log}/nothing", "--data", "digits"], "the log lacks"),
        (["verify", "{log}", "--data", "digits", "--split", "test"], "about other data"),
        (["verify", "{log}", "--data", "nothing"], "dataset must be one of"),
        (["verify", "{log}", "--data", "digits", "--tolerance", "nan"], "tolerance must be >= 0"),
        (["verify", "{log}", "--data", "digits", "--head", "0" * 64], "was promised"),
        (["calibrate", "{log}", "--data", "digits", "--shuffles", "0"], "must be >= 1"),
    ],
)
def test_what_cannot_be_verified(log, capsys, arguments, message):
    filled = [argument.replace("{log}", str(log)) for argument in arguments]
    assert cli.run(filled) == 2
    assert message in capsys.readouterr().err


def test_a_corrupt_log(log, capsys):
    (log / STATE).write_bytes((log / STATE).read_bytes()[:-1])
    assert cli.run(["verify", str(log), "--data", "digits"]) == 2
    assert "corrupt or was exchanged" in capsys.readouterr().err


def test_a_calibration_is_verified_by(log, tmp_path, capsys):
    path, figure = tmp_path / "calibration.json", tmp_path / "errors.svg"
    written = ["calibrate", str(log), "--data=digits", "--shuffles=2", "--segments=1"]
    assert cli.run([*written, f"--json={path}"]) == 0
    proposed = json.loads(path.read_text())["tolerance"]
    arguments = ["verify", str(log), "--data=digits", f"--calibration={path}"]
    assert cli.run([*arguments, f"--figure={figure}"]) == 0
    assert f"tolerance {proposed:.3g}" in capsys.readouterr().out
    assert "honest replays" in figure.read_text()
    assert cli.run([*arguments, "--norm=linf"]) == 2
    assert "was measured in l2, not linf" in capsys.readouterr().err
    path.write_text("{}")
    assert cli.run(arguments) == 2
    assert "is not what calibrate --json writes" in capsys.readouterr().err


def test_calibration_proposes_what_verification_takes(log, capsys):
    assert cli.run(["calibrate", str(log), "--data=digits", "--shuffles=2", "--segments=1"]) == 0
    proposal = next(line for line in capsys.readouterr().out.splitlines() if "tolerance" in line)
    tolerance = proposal.split(": ")[1].split(",")[0]
    assert cli.run(["verify", str(log), "--data=digits", "--tolerance", tolerance]) == 0
