"""The rows that `python -m benchmarks ntk` measures, small, and with ourselves for a peer."""

import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from benchmarks import ntk, problems


@pytest.fixture
def problem(monkeypatch):
    monkeypatch.setattr(ntk, "REPEATS", 1)
    monkeypatch.setattr(ntk, "SECONDS", 0.0)
    return problems.init_lenet(jax.random.key(0)), problems.mnist(4)[0]


def test_a_row_without_the_peer_says_so(problem, monkeypatch, tmp_path):
    monkeypatch.setenv("NEURAL_TANGENTS_PYTHON", str(tmp_path / "none"))
    row = ntk._row("lenet", "LeNet, n 4", *problem, goal=3)
    assert row.ours.seconds > 0
    assert row.ours.repeats == 2  # both turns
    assert (row.ratio, row.goal) == (None, None)
    assert "not installed" in row.note


def test_a_row_has_the_fastest_peer_and_the_largest_difference(problem, monkeypatch, tmp_path):
    """The peer is our own kernel, one entry of which is changed; one of its three forms fails."""
    peer = tmp_path / "python"
    peer.write_text(
        f"#!{sys.executable}\n"
        "import sys\n"
        "import numpy as np\n"
        "from benchmarks import ntk\n"
        "_, _, name, problem, result = sys.argv\n"
        "if name.startswith('JACOBIAN'):\n"
        "    raise ValueError('of this form')\n"
        "ntk.measure_ours(problem, result)\n"
        "found = dict(np.load(result))\n"
        "found['seconds'] = np.array([2.0 if name.startswith('STRUCTURED') else 3.0])\n"
        "found['kernel'][0, 0, 0, 0] += 0.25 * np.abs(found['kernel']).max()\n"
        "np.savez(result, **found)\n"
    )
    peer.chmod(0o755)
    monkeypatch.setenv("NEURAL_TANGENTS_PYTHON", str(peer))
    monkeypatch.setenv("PYTHONPATH", str(Path(ntk.__file__).parents[1]))
    row = ntk._row("lenet", "LeNet, n 4", *problem, goal=3)
    assert row.peer_name == "neural-tangents, structured_derivatives"
    assert row.ratio == pytest.approx(2.0 / row.ours.seconds)
    assert "jacobian_contraction fails (ValueError: of this form)" in row.note
    assert "ntk_vector_products 3 s" in row.note
    told = float(row.accuracy.split("by ")[1].split(" of")[0])
    assert 0.19 < told < 0.26  # the entry may be the largest itself, or of the other sign
    assert set(row.metrics) == {"ours_bytes", "peer_bytes"}


def test_turns_are_pooled():
    turns = [
        ntk._Measured(np.zeros(1), ntk.Timing(seconds, seconds / 2, 3, compilation), 0.0)
        for seconds, compilation in ((1.0, 5.0), (3.0, 4.0))
    ]
    assert ntk._pooled(turns) == ntk.Timing(2.0, 0.5, 6, 5.0)
