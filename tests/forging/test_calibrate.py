import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from spoilt_logs import edit, reseal

from unlearnkit import models
from unlearnkit.base import Dataset
from unlearnkit.forging import Band, Calibration, Tolerance, calibrate, verify
from unlearnkit.forging.calibrate import Reordered
from unlearnkit.training import CrossEntropy, Recipe, fit

KEY = jax.random.key(6)


def bands(calibration):
    return {band.name: band for band in calibration.bands}


def test_the_bands_are_ordered_as_their_precisions(point_log, points):
    calibration = calibrate(KEY, point_log, points, segments=2, shuffles=6)
    found = bands(calibration)
    assert found["the same again"].largest == (0, 0, 0)
    order = found["batch order"]
    assert order.errors.shape == (6,)
    assert 0 < order.largest.weights < 1e-5
    assert 0 <= found["matmul precision highest"].largest.weights < 1e-5
    reduced = found["activations in bfloat16"]
    assert reduced.largest.weights > 30 * order.largest.weights
    assert not reduced.benign
    benign = [band.largest for band in calibration.bands if band.benign]
    assert calibration.limits == tuple(2 * max(part) for part in zip(*benign, strict=True))
    assert calibration.tolerance == calibration.limits.weights < reduced.largest.weights
    assert calibration.limits.memory != calibration.limits.weights
    assert calibration.limits.statistics == 0
    assert calibration.left_out.keys() == {"convolution", "device"}
    assert f"{calibration.tolerance:.3g}" in calibration.summary()


def test_replays_that_jump_are_told_of():
    errors = np.array([1e-6, 2e-6, 1e-6, 3e-3])
    band = make_band(errors)
    assert band.jumped.tolist() == [False, False, False, True]
    assert band.largest == pytest.approx((2e-6, 2e-5, 6e-6))
    assert band.largest_ratio == pytest.approx(2e-7)
    assert band.largest_share == pytest.approx((2e-3, 2e-3, 2e-3))
    assert "1 of 4 replays jumped to over 100 times the median" in band.summary()
    assert np.isnan(make_band(np.array([1e-6, np.nan])).largest.weights)
    assert "jumped" not in make_band(errors[:3]).summary()


def make_band(errors):
    shares = np.stack([1e3 * errors] * 3, axis=1)
    rest = (True, 1e-4, errors / 10, shares)
    return Band("batch order", errors, 10 * errors, 3 * errors, *rest)


def test_a_calibration_is_read_as_it_was_written():
    band = make_band(np.array([1e-6, 2e-6, 1e-6, 3e-3]))
    limits = Tolerance(6e-2, 1e-3, 0.0)
    calibration = Calibration((band,), {"device": "none"}, "l2", 2.0, limits, 1e-5, "ab")
    assert calibration.band == (1e-6, 2e-6)
    written = json.loads(json.dumps(calibration.as_json()))
    assert written["tolerance"] == 6e-2
    read = Calibration.from_json(written)
    assert (read.limits, read.head, read.band) == (limits, "ab", (1e-6, 2e-6))
    assert read.as_json() == calibration.as_json()
    for spoilt in ({}, [], {**written, "limits": {}}, {**written, "norm": "l3"}):
        with pytest.raises(ValueError, match="no calibration"):
            Calibration.from_json(spoilt)


def test_another_convolution_rounds_otherwise(tmp_path):
    x = jax.random.uniform(jax.random.key(0), (8, 6, 6, 1))
    dataset = Dataset(x, jnp.arange(8, dtype=jnp.int32) % 3)
    model = models.create("cnn_mnist", input_shape=(6, 6, 1), n_classes=3)
    recipe = Recipe(epochs=1, batch_size=8, learning_rate=0.1)
    fit(jax.random.key(1), model, dataset, recipe, trajectory=tmp_path)
    found = bands(calibrate(KEY, tmp_path, dataset, changes=("convolution",)))
    assert found["convolution patches"].largest.weights == 0
    assert 0 < found["convolution xla"].largest.weights < 1e-5


def test_a_forged_checkpoint_does_not_widen_its_tolerance(copy, point_log, points):
    changes = ("batch order",)
    honest = calibrate(KEY, point_log, points, shuffles=3, changes=changes)
    log = copy(point_log)
    edit(log, 10, "params/fc1/bias", lambda b: b + np.float32(1))
    reseal(log)
    forged = calibrate(KEY, log, points, shuffles=3, changes=changes)
    assert forged.limits == honest.limits
    assert not verify(log, points, tolerance=forged.tolerance).valid


def test_reordering_changes_the_order_of_sums_alone(normed, pictures, full_recipe):
    variables = normed.init(jax.random.key(0))
    arguments = (variables.params, variables.state, pictures, jax.random.key(1))
    loss, (state, metrics) = CrossEntropy(normed, full_recipe)(*arguments)
    other, (other_state, other_metrics) = Reordered(normed, full_recipe)(
        *arguments, jax.random.key(2)
    )
    np.testing.assert_allclose(other, loss, rtol=1e-6)
    assert other_metrics["accuracy"] == metrics["accuracy"]
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7), other_state, state
    )


def test_dropout_leaves_the_batch_order_out(picture_log, dropping, pictures):
    changes = ("batch order",)
    calibration = calibrate(KEY, picture_log, pictures, model=dropping, changes=changes)
    assert "dropout" in calibration.left_out["batch order"]
    assert "batch order" not in bands(calibration)


def test_a_log_at_highest_precision_does_not_excuse_less(tmp_path, mlp, points):
    with jax.default_matmul_precision("highest"):
        fit(KEY, mlp, points, Recipe(batch_size=8, epochs=1), trajectory=tmp_path)
    found = bands(calibrate(KEY, tmp_path, points, changes=("matmul precision",)))
    counted = {name.split()[-1] for name, band in found.items() if "matmul" in name and band.benign}
    assert counted == {"highest"}


def test_bad_arguments_are_refused(unchecked_types, point_log, points):
    for options, message in (
        ({"segments": 0}, "segments and shuffles must be >= 1"),
        ({"shuffles": 0}, "segments and shuffles must be >= 1"),
        ({"margin": 0.5}, "margin must be >= 1"),
        ({"changes": ("colour",)}, "changes must be of .*got colour"),
    ):
        with pytest.raises(ValueError, match=message):
            calibrate(KEY, point_log, points, **options)
