"""`unlearnkit audit`: outputs from elsewhere, a verdict, an exit code."""

import json

import numpy as np
import pytest

from unlearnkit import cli


def write(path, *, gap, seed=0, retain=False, shift=0.0):
    """Writes outputs under which the right class of forget examples has `gap` more of a logit."""
    rng = np.random.default_rng(seed)
    arrays = {}
    sizes = {"forget": 120, "test": 200} | ({"retain": 300} if retain else {})
    for part, count in sizes.items():
        y = rng.integers(0, 4, count)
        z = rng.normal(size=(count, 4))
        z[np.arange(count), y] += 1 + (gap if part == "forget" else 0) + shift
        arrays |= {f"logits_{part}": z.astype(np.float32), f"labels_{part}": y}
    np.savez(path, **arrays)
    return str(path)


@pytest.mark.parametrize(
    ("gap", "code", "said"), [(0.0, 0, "is not told apart"), (2.0, 1, "is told apart")]
)
def test_the_exit_code_is_the_verdict(tmp_path, capsys, gap, code, said):
    path, out = write(tmp_path / "a.npz", gap=gap), tmp_path / "a.json"
    assert cli.run(["audit", "--logits", path, "--json", str(out)]) == code
    told = capsys.readouterr().out
    assert said in told
    assert "no certificate" in told.replace("\n", " ")
    assert max(map(len, told.splitlines())) <= 80
    found = json.loads(out.read_text())
    assert found["sizes"] == {"forget": 120, "test": 200}
    assert (found["mia_loss_logistic_auc_low"] > 0.5) == (gap > 0)


def test_a_reference_is_what_the_attack_is_compared_with(tmp_path, capsys):
    """What a retrained network shows too is no sign of the forgotten examples."""
    after = write(tmp_path / "after.npz", gap=2.0)
    alike = write(tmp_path / "alike.npz", gap=2.0, shift=0.3)
    never = write(tmp_path / "never.npz", gap=0.0)
    assert cli.run(["audit", "--logits", after, "--reference", alike]) == 0
    assert "of the reference" in capsys.readouterr().out
    assert cli.run(["audit", "--logits", after, "--reference", never, "--before", alike]) == 1
    told = capsys.readouterr().out
    assert "before" in told
    assert "loss, change" in told


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--logits", "none.npz"], "there is no file none.npz"),
        (["--logits", "a.npz", "--attacks", "losses"], "unknown attacks 'losses'; known: loss"),
        (["--logits", "a.npz", "--json", "nowhere/a.json"], "there is no folder nowhere"),
        (["--logits", "a.npz", "--probabilities"], "must be probabilities"),
    ],
)
def test_what_cannot_be_audited_is_2(tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "a.npz", gap=0.0)
    assert cli.run(["audit", *arguments]) == 2
    assert message in capsys.readouterr().err


def test_further_attacks_and_the_retain_set(tmp_path):
    path, out = write(tmp_path / "a.npz", gap=0.0, retain=True), tmp_path / "a.json"
    cli.run(["audit", "--logits", path, "--json", str(out), "--attacks", "margin", "logits"])
    found = json.loads(out.read_text())
    assert {"mia_margin_logistic_auc", "mia_logits_logistic_auc", "optml_ua"} <= found.keys()
