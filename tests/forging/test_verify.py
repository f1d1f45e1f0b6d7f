import json
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from other_process import output, start
from spoilt_logs import edit, reseal

from unlearnkit.base import Normalisation
from unlearnkit.forging import Tolerance, match_rows, verify
from unlearnkit.training import Recipe, TrajectoryError, fit, read_trajectory


def assert_exact(report, steps):
    np.testing.assert_array_equal(report.steps, steps)
    np.testing.assert_array_equal(report.errors, np.zeros(len(steps)))
    np.testing.assert_array_equal(report.carried_errors, np.zeros(len(steps)))
    assert report.valid
    assert report.complete


def test_every_step_replays_to_the_last_bit(tmp_path, dropping, pictures, full_recipe):
    fit(jax.random.key(4), dropping, pictures, full_recipe, trajectory=tmp_path, every=1)
    report = verify(tmp_path, pictures, tolerance=0, model=dropping)
    assert_exact(report, np.arange(1, 16))
    assert report.differences == ()
    assert report.replayed_steps == report.logged_steps == 15
    assert np.all(report.distances > 0)


@pytest.mark.parametrize(
    "recipe",
    [
        Recipe(epochs=2, batch_size=8, optimizer="adam", learning_rate=0.01, weight_decay=0.1),
        Recipe(epochs=2, batch_size=8, decay_toward="start", weight_decay=0.1, clip_norm=0.1),
        Recipe(epochs=2, batch_size=8, compute_dtype="bfloat16", warmup_epochs=1, momentum=0.0),
        Recipe(epochs=2, batch_size=8, schedule="step", milestones=(1,), label_smoothing=0.1),
    ],
)
def test_every_kind_of_recipe_replays_to_the_last_bit(tmp_path, mlp, points, recipe):
    fit(jax.random.key(4), mlp, points, recipe, trajectory=tmp_path, every=5)
    assert_exact(verify(tmp_path, points, tolerance=0), [5, 10])


def test_side_by_side_replays_to_the_same_bits(picture_log, dropping, pictures):
    report = verify(picture_log, pictures, tolerance=0, model=dropping, parallel=3)
    assert_exact(report, [4, 8, 12, 15])


def test_segments_in_one_call_differ_by_rounding_alone(picture_log, dropping, pictures):
    report = verify(picture_log, pictures, tolerance=1e-4, model=dropping, at_once=2)
    np.testing.assert_array_equal(report.steps, [4, 8, 12, 15])
    assert report.valid
    assert np.max(report.errors) < 1e-2 * np.min(report.distances)


def test_the_matmul_precision_of_the_training_is_replayed(tmp_path, mlp, points, monkeypatch):
    with jax.default_matmul_precision("highest"):
        fit(jax.random.key(1), mlp, points, Recipe(batch_size=8, epochs=1), trajectory=tmp_path)
    seen = []
    from unlearnkit.forging import replay

    program = replay.take_steps

    def spy(*arguments, **options):
        seen.append(jax.config.jax_default_matmul_precision)
        return program(*arguments, **options)

    monkeypatch.setattr(replay, "take_steps", spy)
    assert verify(tmp_path, points, tolerance=0).valid
    assert seen == ["highest"]


def test_a_changed_weight_is_an_error_of_its_size(copy, point_log, points):
    log = copy(point_log)
    edit(log, 10, "params/fc1/bias", lambda b: b + np.float32(0.25) * (np.arange(5) == 2))
    reseal(log)
    report = verify(log, points, tolerance=0.2)
    np.testing.assert_allclose(report.errors, [0, 0, 0.25], rtol=1e-6)
    assert report.accepted.tolist() == [True, True, False]
    assert report.verdict == "INVALID"
    assert "1 segments rejected, the first ends at step 10" in report.summary()


@pytest.mark.parametrize(
    ("ending", "function"),
    [
        ("trace/fc1/kernel", lambda m: m * np.float32(1 + 1e-6)),
        ("params/fc1/kernel", lambda w: np.nextafter(w, np.float32(9))),
    ],
)
def test_what_the_next_segment_starts_from_counts(copy, point_log, points, ending, function):
    log = copy(point_log)
    edit(log, 4, ending, function)
    reseal(log)
    report = verify(log, points, tolerance=0)
    assert not report.accepted[0]
    assert not report.valid


def test_changed_statistics_count(copy, picture_log, dropping, pictures):
    log = copy(picture_log)
    edit(log, 15, "batch_stats/norm/mean", lambda m: m + np.float32(0.01))
    reseal(log)
    report = verify(log, pictures, tolerance=1e-3, model=dropping)
    assert report.errors.tolist() == [0, 0, 0, 0]
    assert report.accepted.tolist() == [True, True, True, False]


def test_an_exchanged_batch_is_an_error(copy, point_log, points):
    log = copy(point_log)
    batches = np.load(log / "batches.npy")
    batches[5, 3] = (batches[5, 3] + 1) % 40
    np.save(log / "batches.npy", batches)
    reseal(log)
    report = verify(log, points, tolerance=1e-6)
    assert report.accepted.tolist() == [True, False, True]


def test_a_replay_that_is_not_finite_is_never_valid(copy, point_log, points):
    log = copy(point_log)
    edit(log, 8, "params/fc1/kernel", lambda w: np.full_like(w, 3e38))
    reseal(log)
    report = verify(log, points, tolerance=1e30)
    assert not report.valid
    assert json.dumps(report.as_json(), allow_nan=False)


def test_a_cut_log_is_verified_as_far_as_it_goes(copy, point_log, points):
    log = copy(point_log)
    reseal(log, lambda manifest: manifest["checkpoints"].pop())
    report = verify(log, points, tolerance=0)
    assert report.accepted.all()
    assert report.verdict == "INCOMPLETE"
    assert not report.valid
    assert (report.logged_steps, report.claimed_steps) == (8, 10)
    assert report.summary().startswith("INCOMPLETE: 8 of 8 logged steps replayed")
    assert "the log ends at step 8 of the 10 that its run takes" in report.summary()
    reseal(log, lambda manifest: manifest["checkpoints"].__delitem__(slice(1, None)))
    with pytest.raises(TrajectoryError, match="holds no whole segment"):
        verify(log, points, tolerance=0)


def test_chosen_segments(picture_log, dropping, pictures):
    def run(steps, seed=0):
        return verify(
            *(picture_log, pictures),
            tolerance=0,
            model=dropping,
            steps=steps,
            key=jax.random.key(seed),
        )

    assert len(run("random:2").steps) == 2
    assert len({tuple(run("random:2", seed).steps.tolist()) for seed in range(6)}) > 1
    assert len(run("random:99").steps) == 4
    top = run("top:1")
    assert top.accepted.all()
    ends, epochs = np.array([4, 8, 12, 15]), np.array([0, 1, 2, 2])
    expected = [
        max(ends[epochs == e], key=lambda end: top.distances[list(ends).index(end)])
        for e in range(3)
    ]
    np.testing.assert_array_equal(top.steps, expected)
    both = run("top:1+random:1", seed=2)
    assert set(both.steps) == set(top.steps) | set(run("random:1", seed=2).steps)


def test_distances_are_how_far_the_weights_moved(point_log, mlp, points):
    report = verify(point_log, points, tolerance=0)
    log = read_trajectory(point_log)
    states = [jax.tree.leaves(log.read(i, mlp).state.variables.params) for i in (0, 1)]
    moved = np.concatenate([(b - a).ravel() for a, b in zip(*states, strict=True)])
    np.testing.assert_allclose(report.distances[0], np.linalg.norm(moved), rtol=1e-6)
    assert report.n_parameters == moved.size == 43


def test_another_environment_is_named(copy, point_log, points):
    log = copy(point_log)
    reseal(log, lambda manifest: manifest["environment"].update(device="TPU v9", jaxlib="9.9"))
    report = verify(log, points, tolerance=0)
    assert report.valid
    assert [row[:2] for row in report.differences] == [("device", "TPU v9"), ("jaxlib", "9.9")]
    assert "device differs: log 'TPU v9'" in report.summary()


def test_the_promised_head_is_asked_for(copy, point_log, points):
    head = read_trajectory(point_log).head
    assert verify(point_log, points, tolerance=0, head=head).head == head
    log = copy(point_log)
    reseal(log, lambda manifest: manifest["environment"].update(device="other"))
    with pytest.raises(TrajectoryError, match="was promised"):
        verify(log, points, tolerance=0, head=head)


def other_data(points):
    x, y = points.x, points.y
    yield "examples, x_sha256, y_sha256", points._replace(x=x[:-1], y=y[:-1])
    yield "x_sha256", points._replace(x=x.at[3, 1].multiply(1 + 2e-7))
    yield "y_sha256", points._replace(y=y.at[7].set((y[7] + 1) % 3))
    yield "x_sha256, y_sha256", points._replace(x=x[::-1], y=y[::-1])
    yield "normalisation", points._replace(normalisation=Normalisation("other"))


def test_other_data_are_refused(point_log, points):
    for differs, dataset in other_data(points):
        with pytest.raises(TrajectoryError, match=re.escape(f"differs in {differs})")):
            verify(point_log, dataset, tolerance=1)


def test_a_log_of_no_name_needs_its_network(picture_log, pictures, mlp):
    with pytest.raises(TrajectoryError, match="give it as model="):
        verify(picture_log, pictures, tolerance=0)
    with pytest.raises(TrajectoryError, match="to 3 classes, the one given"):
        verify(picture_log, pictures, tolerance=0, model=mlp)


def test_a_second_verification_compiles_nothing(point_log, points):
    verify(point_log, points, tolerance=0)
    assert verify(point_log, points, tolerance=0).cost.compile_seconds == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tolerance": float("nan")}, "tolerance must be >= 0 and finite, got nan"),
        ({"tolerance": -1.0}, "tolerance must be >= 0"),
        ({"norm": "l3"}, "norm must be one of l2"),
        ({"steps": "first:3"}, "steps must be 'all', .*, got 'first:3'"),
        ({"steps": "random:0"}, "steps must be"),
        ({"steps": "top:1+top:2"}, "steps must be"),
        ({"tolerance": Tolerance(1.0, -1.0, 0.0)}, "tolerance must be >= 0"),
        ({"steps": "random:3"}, "needs a key"),
        ({"at_once": 0}, "at_once and parallel must be >= 1"),
    ],
)
def test_bad_arguments_are_refused(unchecked_types, point_log, points, options, message):
    with pytest.raises(ValueError, match=message):
        verify(point_log, points, **{"tolerance": 0.0, **options})


def test_several_devices_share_the_segments(tmp_path):
    script = Path(__file__).with_name("several_devices.py")
    printed = output(start(script, tmp_path, JAX_NUM_CPU_DEVICES="3"))
    assert "exact on three devices" in printed


def test_rows_are_found_whatever_their_order(tmp_path, mlp, points):
    rows = np.array([5, 3, 30, 7, 21, 22, 1, 0, 39, 12])
    fit(
        jax.random.key(1),
        mlp,
        points.take(rows),
        Recipe(batch_size=5, epochs=1),
        trajectory=tmp_path,
    )
    log = read_trajectory(tmp_path)
    np.testing.assert_array_equal(match_rows(log, points), rows)
    twice = points._replace(x=jnp.tile(points.x, (2, 1)), y=jnp.tile(points.y, 2))
    np.testing.assert_array_equal(match_rows(log, twice), rows)
    assert verify(tmp_path, points.take(match_rows(log, points)), tolerance=0).valid
    other = points._replace(y=points.y.at[30].set((points.y[30] + 1) % 3))
    with pytest.raises(TrajectoryError, match="1 of its 10 examples are none of the 40 given"):
        match_rows(log, other)


def test_equal_examples_are_matched_one_by_one(tmp_path, mlp, points):
    copies = points.take(np.array([4, 4, 4, 8]))
    fit(jax.random.key(1), mlp, copies, Recipe(batch_size=4, epochs=1), trajectory=tmp_path)
    log = read_trajectory(tmp_path)
    source = points.take(np.array([8, 4, 0, 4]))
    np.testing.assert_array_equal(match_rows(log, source), [1, 3, 1, 0])
