"""A log of a run that never was, under the verifier."""

import jax
import numpy as np
import pytest
from forging_oracles import ALLOWED, RATE, VARIABLES
from softmax_regression import MODEL

from unlearnkit.forging import NoiseForger, OptimiseForger, verify, write_spoofed

KEY = jax.random.key(6)
END = VARIABLES._replace(params=jax.tree.map(lambda w: w + 0.3, VARIABLES.params))


def spoof(folder, forger):
    options = {"steps": 3, "batch_size": 5, "learning_rate": RATE, "folder": folder}
    return write_spoofed(KEY, MODEL, VARIABLES, END, ALLOWED, forger=forger, **options)


def test_the_verifier_measures_each_step_s_error_and_sees_the_order(tmp_path):
    made = spoof(tmp_path / "log", NoiseForger(20))
    report = verify(made.folder, made.dataset, tolerance=10.0, start=VARIABLES)
    np.testing.assert_allclose(report.errors, made.errors, rtol=1e-3)
    assert not report.accepted.any()
    assert report.complete
    assert report.start.right
    assert report.batches.redrawn.tolist() == [0, 1, 2]
    assert report.verdict == "INVALID"
    assert report.moves.covered == pytest.approx(0.3 * np.sqrt(15), rel=1e-4)


def test_what_no_log_can_hold_is_refused(tmp_path):
    with pytest.raises(ValueError, match="OptimiseForger makes soft labels"):
        spoof(tmp_path / "log", OptimiseForger(2))
    assert not (tmp_path / "log").exists()
    with pytest.raises(ValueError, match="is there already"):
        spoof(tmp_path, NoiseForger(1))
