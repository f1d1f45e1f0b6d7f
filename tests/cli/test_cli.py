import json
from pathlib import Path

import jax
import numpy as np
import pytest
from spoilt_logs import edit, reseal

from unlearnkit import cli, data, forging, models
from unlearnkit.models import from_functions
from unlearnkit.training import Recipe, fit, save_variables

STATE = "state-0000000010.safetensors"


def own_network(input_shape, n_classes):
    """A network that no name makes."""

    def init(key):
        return {"w": 0.1 * jax.random.normal(key, (64, n_classes))}

    def apply(params, x):
        return x.reshape(len(x), -1) @ params["w"]

    return from_functions(init, apply, input_shape=input_shape)


def own_number():
    return 3


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
        (["verify", "{log}", "--data", "digits", "--seed", str(2**40)], "seed must be in 0 … 429"),
        (["calibrate", "{log}", "--data", "digits", "--seed", "-1"], "seed must be in 0"),
        (["verify", "{log}", "--data", "digits", "--model", "test_cli"], "package.module:factory"),
        (["verify", "{log}", "--data", "digits", "--model", "test_cli:none"], "has no function"),
        (["verify", "{log}", "--data", "digits", "--model", "test_cli:own_number"], "got int"),
        (["verify", "{log}", "--data", "digits", "--model", "nowhere:x"], "No module named"),
        (["verify", "{log}", "--data", "digits", "--rows", "{log}/none.npy"], "no index file"),
        (["verify", "{log}", "--data", "digits", "--start", "{log}/none"], "no checkpoint"),
    ],
)
def test_what_cannot_be_verified(log, monkeypatch, capsys, arguments, message):
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
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


def test_the_verdicts_have_exit_codes_of_their_own(log, tmp_path, capsys):
    assert sorted(cli.EXIT_CODES.values()) == [0, 1, 2, 3, 4]
    arguments = ["verify", str(log), "--data=digits"]
    assert cli.run([*arguments, "--steps=top:1"]) == 4
    assert capsys.readouterr().out.splitlines()[1].startswith("UNPROVEN: ")
    assert cli.run([*arguments, "--norm=cosine"]) == 4
    capsys.readouterr()
    assert cli.run([*arguments, "--steps=random:2", "--seed=3"]) == 0
    assert "a log with 1 bad segment passes with probability 0.33" in capsys.readouterr().out
    reseal(log, lambda manifest: manifest["checkpoints"].pop())
    assert cli.run(arguments) == 3
    assert "INCOMPLETE: 10 of 10 logged steps" in capsys.readouterr().out
    reseal(log, lambda manifest: manifest.update(version=1))
    assert cli.run(arguments) == 2
    assert "version 1 does not: train again" in capsys.readouterr().err


@pytest.mark.parametrize("error", [ZeroDivisionError, MemoryError, RecursionError, KeyError])
def test_no_failure_of_the_program_says_invalid(log, monkeypatch, capsys, error):
    def fail(*_, **__):
        raise error("\x1b[2JVALID\n")

    monkeypatch.setattr(forging, "verify", fail)
    assert cli.run(["verify", str(log), "--data=digits"]) == 2
    text = capsys.readouterr().err
    assert text.startswith(f"cannot be verified: {error.__name__}: ")
    assert text.rstrip("\n").isprintable()


@pytest.mark.parametrize("command", ["verify", "calibrate"])
def test_outputs_are_checked_before_anything_is_replayed(
    log, tmp_path, monkeypatch, capsys, command
):
    def replayed(*_, **__):
        raise AssertionError("replayed")

    monkeypatch.setattr(forging, command, replayed)
    for output, message in ((tmp_path / "none" / "a.json", "no folder"), (log, "be written")):
        assert cli.run([command, str(log), "--data=digits", f"--json={output}"]) == 2
        assert message in capsys.readouterr().err
    figure = f"--figure={tmp_path / 'none' / 'a.svg'}"
    assert cli.run(["verify", str(log), "--data=digits", figure]) == 2
    assert "no folder" in capsys.readouterr().err


def test_a_network_and_rows_of_one_s_own(tmp_path, monkeypatch, capsys):
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    train = data.load("digits", split="train", normalisation="standard")
    rows = np.arange(700, 100, -2)
    recipe = Recipe(epochs=1, batch_size=100, learning_rate=0.01)
    model = own_network((8, 8, 1), 10)
    fit(jax.random.key(0), model, train.take(rows), recipe, trajectory=tmp_path / "log")
    arguments = ["verify", str(tmp_path / "log"), "--data=digits"]
    assert cli.run(arguments) == 2
    assert "give it as model=" in capsys.readouterr().err
    arguments.append("--model=test_cli:own_network")
    assert cli.run(arguments) == 0
    told = f"data: 300 of the {train.size} rows of digits train, in another order"
    assert told in capsys.readouterr().out
    for kept, code in ((rows, 0), (rows[::-1], 2), (rows + 10**6, 2)):
        np.save(tmp_path / "rows.npy", kept)
        assert cli.run([*arguments, f"--rows={tmp_path / 'rows.npy'}"]) == code
    assert "rows must be integers in 0 …" in capsys.readouterr().err
    np.save(tmp_path / "rows.npy", np.append(rows, train.size))  # one past the end
    assert cli.run([*arguments, f"--rows={tmp_path / 'rows.npy'}"]) == 2
    assert f"rows must be integers in 0 … {train.size - 1}" in capsys.readouterr().err


def test_pretrained_weights_are_given_as_a_file(log, tmp_path, capsys):
    train = data.load("digits", split="train", normalisation="standard")
    model = models.create("logistic", input_shape=(8, 8, 1), n_classes=10)
    start = model.init(jax.random.key(4))
    save_variables(tmp_path / "start.safetensors", start)
    recipe = Recipe(epochs=1, batch_size=80, learning_rate=0.01)
    folder = tmp_path / "pretrained"
    fit(jax.random.key(0), model, train, recipe, variables=start, trajectory=folder, every=5)
    arguments = ["verify", str(folder), "--data=digits"]
    assert cli.run(arguments) == 4
    assert "the run started from weights that were given" in capsys.readouterr().out
    assert cli.run([*arguments, f"--start={tmp_path / 'start.safetensors'}"]) == 0


@pytest.mark.parametrize("command", [(), *((name,) for name in cli.COMMANDS)])
def test_help_fits_eighty_columns(monkeypatch, capsys, command):
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit) as ended:
        cli.run([*command, "--help"])
    assert ended.value.code == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(" ".join(["usage: unlearnkit", *command]))
    assert [line for line in lines if len(line) > 80] == []


def test_what_is_no_help_is_not_folded(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit):
        cli.run(["--tyro-print-completion", "bash"])
    assert max(map(len, capsys.readouterr().out.splitlines())) > 80
