"""Provers who claim a run that never was, and what the verifier says of their logs."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from in_graph import all_batches
from safetensors.numpy import load_file, save_file
from spoilt_logs import edit, name_start, reseal

from unlearnkit import models
from unlearnkit.forging import (
    Calibration,
    Tolerance,
    Verdict,
    calibrate,
    unlikely_initialisation,
    verify,
)
from unlearnkit.forging.calibration import Band
from unlearnkit.forging.findings import find_moves
from unlearnkit.forging.limits import Caps, Move, caps_of
from unlearnkit.training import Recipe, TrajectoryError, fit, logged_run, read_trajectory

KEY = jax.random.key(1)
PLAIN = Recipe(epochs=2, batch_size=8, learning_rate=0.1, momentum=0.9)
FIRST, LAST = "state-0000000000.safetensors", "state-0000000010.safetensors"


@pytest.fixture(scope="module")
def victim(mlp, points):
    """Weights that somebody trained on all the data, the forgotten examples among them."""
    return fit(jax.random.key(5), mlp, points, Recipe(epochs=20, batch_size=8)).variables


@pytest.fixture(scope="module")
def kept(points):
    return points.take(np.arange(32))


STANDING_STILL = {
    "no rate": Recipe(epochs=2, batch_size=8, learning_rate=1e-30),
    "a tiny clip": Recipe(epochs=2, batch_size=8, clip_norm=1e-20),
    "a milestone at once": Recipe(
        epochs=2, batch_size=8, momentum=0.0, schedule="step", milestones=(0,), step_factor=1e-30
    ),
}


@pytest.mark.parametrize("name", list(STANDING_STILL))
def test_stolen_weights_that_stand_still_are_no_training(tmp_path, mlp, victim, kept, name):
    recipe = STANDING_STILL[name]
    fit(KEY, mlp, kept, recipe, variables=victim, trajectory=tmp_path, every=2)
    report = verify(tmp_path, kept)
    assert report.errors.max() == 0
    assert report.verdict is Verdict.UNPROVEN
    text = report.summary()
    assert "started from weights that were given (SHA-256 " in text
    assert "most of the logged steps hardly train" in text
    assert "not distributed as an initialisation: params/" in text
    assert ("segments move the weights by less than rounding" in text) == (
        name != "a milestone at once"
    ) or len(report.moves.still) >= 3
    assert (len(report.moves.slow) >= 7) == (name == "a milestone at once")
    known = verify(tmp_path, kept, start=victim)
    assert known.verdict is Verdict.UNPROVEN
    assert known.gaps == ("most of the logged steps hardly train",)


def test_a_step_is_slow_beside_the_largest_rate_of_the_run(point_log):
    log = read_trajectory(point_log)
    recipe = dataclasses.replace(
        log.claim.recipe, schedule="step", milestones=(1,), step_factor=1e5
    )
    rising = dataclasses.replace(log, claim=log.claim._replace(recipe=recipe))
    parts = Tolerance(1.0, 1.0, 1.0)
    move = Move(1.0, parts, parts, 1.0)
    assert find_moves(rising, [move] * 3, 1.0).slow.tolist() == [0, 1, 2, 3, 4]
    assert find_moves(log, [move] * 3, 1.0).slow.size == 0


def test_stolen_weights_that_pose_as_a_fresh_start_are_found(tmp_path, mlp, victim, kept):
    fit(KEY, mlp, kept, PLAIN, variables=victim, trajectory=tmp_path, every=4)
    reseal(tmp_path, lambda manifest: manifest["start"].update(derived=True))
    for tolerance in (0, 1e9):
        report = verify(tmp_path, kept, tolerance=tolerance)
        assert report.verdict is Verdict.INVALID
        assert report.start.error > 1e5 * report.start.limit
        assert "the start differs by" in report.summary()


def test_a_fresh_start_holds_to_the_last_bit(copy, point_log, points):
    log = copy(point_log)
    edit(log, 0, "params/fc1/kernel", lambda w: np.nextafter(w, np.float32(9)))
    name_start(log)
    reseal(log)
    report = verify(log, points)
    assert not report.start.right
    assert report.verdict is Verdict.INVALID
    assert verify(log, points, tolerance=1e-3).start.right  # another device rounds so
    assert verify(point_log, points).start.error == 0


def test_a_first_checkpoint_is_the_start_that_is_named(copy, point_log, points):
    log = copy(point_log)
    edit(log, 0, "params/fc1/kernel", lambda w: w + np.float32(1))
    reseal(log)
    with pytest.raises(TrajectoryError, match="not the start that its manifest names"):
        verify(log, points)


def test_a_pretrained_start_is_valid_for_who_knows_it_alone(tmp_path, mlp, victim, kept):
    fit(KEY, mlp, kept, PLAIN, variables=victim, trajectory=tmp_path, every=4)
    report = verify(tmp_path, kept)
    assert report.verdict is Verdict.UNPROVEN
    (gap,) = report.gaps
    assert read_trajectory(tmp_path).claim.start.sha256 in gap
    assert verify(tmp_path, kept, start=victim).verdict is Verdict.VALID
    other = verify(tmp_path, kept, start=mlp.init(jax.random.key(8)), tolerance=1e9)
    assert other.verdict is Verdict.INVALID
    assert "was given as start" in other.summary()


def test_a_known_start_beside_a_fresh_one_is_refused(point_log, points, victim):
    with pytest.raises(ValueError, match="leave out start"):
        verify(point_log, points, start=victim)


def test_trained_weights_do_not_look_freshly_initialised(mlp, victim):
    assert unlikely_initialisation(mlp, mlp.init(jax.random.key(77))) == ()
    assert "params/fc1/bias" in unlikely_initialisation(mlp, victim)
    wide = models.create("mlp", input_shape=(4,), n_classes=3, hidden=(60,))
    fresh = wide.init(KEY)
    params = {layer: dict(arrays) for layer, arrays in fresh.params.items()}
    params["fc1"]["kernel"] = 10 * params["fc1"]["kernel"]
    scaled = fresh._replace(params=params)
    assert unlikely_initialisation(wide, fresh) == ()
    assert unlikely_initialisation(wide, scaled) == ("params/fc1/kernel",)


CHAOS = Recipe(epochs=68, batch_size=8, learning_rate=0.3, momentum=0.9)


@pytest.fixture(scope="module")
def chaotic_log(tmp_path_factory, mlp, points):
    folder = tmp_path_factory.mktemp("chaos")
    fit(KEY, mlp, points, CHAOS, trajectory=folder, every=170)
    return folder


def steal(log, step, variables):
    """Puts stolen weights into a checkpoint; memory and all else stay."""
    path = log / f"state-{step:010d}.safetensors"
    arrays = {name: array.copy() for name, array in load_file(path).items()}
    for layer, parts in variables.params.items():
        for part, array in parts.items():
            arrays[f"state/variables/params/{layer}/{part}"] = np.asarray(array)
    save_file(arrays, path)
    reseal(log)


def test_chaos_widens_no_tolerance(copy, chaotic_log, points, victim):
    with pytest.raises(TrajectoryError, match="differ in .*checkpoints more often than each 170"):
        calibrate(jax.random.key(6), chaotic_log, points, shuffles=10, changes=("batch order",))
    assert verify(chaotic_log, points).verdict is Verdict.VALID
    log = copy(chaotic_log)
    steal(log, 340, victim)
    report = verify(log, points, tolerance=116.0)
    assert report.verdict is Verdict.INVALID
    assert report.accepted.tolist() == [True, False]


@pytest.mark.parametrize("tolerance", [1e9, Tolerance(1e9, math.inf, math.inf)])
@pytest.mark.parametrize("norm", ["l2", "l2_squared", "linf", "cosine"])
def test_no_tolerance_is_as_wide_as_other_weights(copy, point_log, points, victim, norm, tolerance):
    log = copy(point_log)
    steal(log, 10, victim)
    report = verify(log, points, tolerance=tolerance, norm=norm)
    assert report.accepted.tolist() == [True, True, False]
    assert report.verdict is Verdict.INVALID
    power = 2 if norm in ("l2_squared", "cosine") else 1
    if norm in ("l2", "linf"):
        assert report.ratios.max() <= 1e-4 * (1 + 1e-9)
        assert report.limits[0, 0] ** (1 / power) < 1e-3


def test_less_precise_computations_say_how_much_they_allow(tmp_path, mlp, points):
    recipe = Recipe(epochs=1, batch_size=8, learning_rate=0.1, compute_dtype="bfloat16")
    fit(KEY, mlp, points, recipe, trajectory=tmp_path, every=2)
    report = verify(tmp_path, points, tolerance=1e-2)
    assert 1e-4 < report.ratios.max() <= 0.1 * (1 + 1e-9)
    assert "less precise computations allow so much" in report.summary()
    exact = verify(tmp_path, points)
    assert exact.verdict is Verdict.VALID
    assert exact.slack == 0
    assert "allow so much" not in exact.summary()


def test_limits_that_bend_the_way_to_anywhere_prove_nothing(point_log, points):
    report = verify(point_log, points)
    bent = report._replace(ratios=np.full(3, 2.0))
    assert report.slack == 0
    expected = 2 * report.distances.sum() / report.moves.covered
    assert bent.slack == pytest.approx(expected)
    assert bent.verdict is Verdict.UNPROVEN
    assert "bent to end anywhere" in bent.summary()


def test_memory_and_statistics_have_limits_of_their_own(copy, point_log, points):
    log = copy(point_log)
    edit(log, 10, "trace/fc1/kernel", lambda m: m + np.float32(2e-6))
    reseal(log)
    wide = Tolerance(1e-4, 1e-4, 0.0)
    report = verify(log, points, tolerance=wide)
    assert report.memory_errors[2] == pytest.approx(2e-6 * math.sqrt(20), rel=0.01)
    assert report.errors.max() == report.statistics_errors.max() == 0
    assert report.accepted.all()
    assert verify(log, points, tolerance=1e-4).accepted.all()
    for narrow in (Tolerance(1e-4, 1e-6, 0.0), 0):
        assert verify(log, points, tolerance=narrow).accepted.tolist() == [True, True, False]


def test_memory_is_limited_by_what_it_moves_at_the_largest_rate(point_log):
    claim = read_trajectory(point_log).claim
    assert caps_of(claim, "l2").memory == pytest.approx(0.1 / (1 - 0.9))
    hidden = dataclasses.replace(
        claim.recipe, learning_rate=1e-30, schedule="step", milestones=(1,), step_factor=1e29
    )
    assert caps_of(claim._replace(recipe=hidden), "l2").memory == pytest.approx(1, rel=1e-3)
    for options in ({"momentum": 0.0}, {"optimizer": "adam"}):
        recipe = dataclasses.replace(claim.recipe, **options)
        assert caps_of(claim._replace(recipe=recipe), "l2").memory == 0
    move = Move(10.0, Tolerance(10.0, 2.0, 0.5), Tolerance(3.0, 1.0, 7.0), 3.0)
    assert Caps("l2", 1e-4, 0.0).of(move, 4) == pytest.approx((1e-3, 2e-4, 7e-4))
    assert Caps("l2", 1e-4, 4.0).of(move, 4) == pytest.approx((1e-3, 2.5e-4, 7e-4))
    assert Caps("l2_squared", 1e-4, 0.0).of(move, 4).weights == pytest.approx(1e-7)
    still = Move(0.0, Tolerance(0.0, 0.0, 0.0), Tolerance(3.0, 1.0, 0.0), 3.0)
    assert Caps("l2", 1e-4, 0.0).of(still, 4) == pytest.approx((6 * 2**-23, 2 * 2**-23, 0.0))


def test_a_calibration_is_for_its_own_log(copy, point_log, points):
    found = calibrate(KEY, point_log, points, segments=2, shuffles=3, changes=("batch order",))
    assert found.head == read_trajectory(point_log).head
    assert found.ratio <= 1e-4
    report = verify(point_log, points, calibration=found)
    assert report.verdict is Verdict.VALID
    assert report.tolerance == found.limits.weights
    log = copy(point_log)
    reseal(log, lambda manifest: manifest["environment"].update(device="other"))
    with pytest.raises(TrajectoryError, match="calibrate this log"):
        verify(log, points, calibration=found)
    with pytest.raises(ValueError, match="measured in l2, not linf"):
        verify(point_log, points, calibration=found, norm="linf")


def test_a_made_up_calibration_widens_nothing(copy, point_log, points, victim):
    log = copy(point_log)
    steal(log, 10, victim)
    zeros = np.zeros(1)
    band = Band("batch order", zeros, zeros, zeros, True, 1e9, zeros, np.zeros((1, 3)))
    wide = Tolerance(1e9, 1e9, 1e9)
    lie = Calibration((band,), {}, "l2", 2.0, wide, 1e9, read_trajectory(log).head)
    assert verify(log, points, calibration=lie).verdict is Verdict.INVALID


def test_seven_of_thirty_four_thousand_steps_are_incomplete(tmp_path, mlp, points):
    class Stop(Exception):
        pass

    def stop(epoch, _):
        if epoch == 1:
            raise Stop

    recipe = Recipe(epochs=6800, batch_size=8, learning_rate=0.1)
    with pytest.raises(Stop):
        fit(KEY, mlp, points, recipe, trajectory=tmp_path, every=7, on_epoch=stop)
    report = verify(tmp_path, points)
    assert (report.logged_steps, report.claimed_steps) == (7, 34_000)
    assert report.verdict is Verdict.INCOMPLETE
    assert not report.valid
    assert report.as_json()["verdict"] == "INCOMPLETE"


def train_on(batches, monkeypatch, *arguments, **options):
    """Trains, honestly logged, on batches of the prover's choice."""
    monkeypatch.setattr(logged_run, "several_epochs", lambda *_: batches)
    fit(*arguments, **options)


def test_one_example_in_every_place_is_no_training_on_the_data(tmp_path, mlp, points, monkeypatch):
    batches = np.full((10, 8), 7, np.int32)
    train_on(batches, monkeypatch, KEY, mlp, points, PLAIN, trajectory=tmp_path, every=4)
    report = verify(tmp_path, points)
    assert report.accepted.all()
    assert report.verdict is Verdict.INVALID
    assert report.batches.redrawn.tolist() == list(range(10))
    assert report.batches.repeated == 2
    assert report.batches.never.tolist() == [row for row in range(40) if row != 7]
    classes = {0, 1, 2} - {int(points.y[7])}
    assert set(report.batches.missing_classes) == classes
    text = report.summary()
    assert "the batches of 10 of 10 steps are not those that the log's key draws" in text
    assert "39 examples of the data were never used" in text
    assert "classes of the data that no step used: " in text


def test_one_exchanged_example_is_seen(tmp_path, mlp, points, monkeypatch):
    order_key = jax.random.split(jax.random.split(KEY)[1])[0]
    batches = np.array(all_batches(order_key, epochs=2, n=40, batch_size=8))
    batches[6, 2], batches[7, 2] = batches[7, 2], batches[6, 2]
    train_on(batches, monkeypatch, KEY, mlp, points, PLAIN, trajectory=tmp_path, every=4)
    report = verify(tmp_path, points, steps="random:1", key=KEY)
    assert report.verdict is Verdict.INVALID
    assert report.batches.redrawn.tolist() == [6, 7]
    assert report.batches.repeated == 0


def test_a_class_that_no_step_used_is_named(tmp_path, mlp, points):
    recipe = Recipe(epochs=1, batch_size=39, learning_rate=0.1)
    order_key = jax.random.split(jax.random.split(KEY)[1])[0]
    used = np.asarray(all_batches(order_key, epochs=1, n=40, batch_size=39))
    (left,) = np.setdiff1d(np.arange(40), used)
    dataset = points._replace(y=jnp.where(jnp.arange(40) == left, 2, points.y % 2))
    fit(KEY, mlp, dataset, recipe, trajectory=tmp_path)
    report = verify(tmp_path, dataset)
    assert report.verdict is Verdict.UNPROVEN
    assert report.gaps == ("classes of the data that no step used: 2",)
    assert report.batches.never.tolist() == [left]


def test_the_furthest_segments_alone_prove_nothing(point_log, points):
    def run(steps):
        return verify(point_log, points, steps=steps, key=KEY)

    top = run("top:1")
    assert len(top.steps) == 2
    assert top.verdict is Verdict.UNPROVEN
    assert "a forger knows them" in top.summary()
    assert top.passing_probability(1) == 1
    assert run("top:1+random:1").verdict is Verdict.VALID
    assert run("top:9").verdict is Verdict.VALID


def test_the_cosine_alone_proves_nothing(copy, point_log, points):
    assert verify(point_log, points, norm="cosine").verdict is Verdict.UNPROVEN
    assert "take norm l2" in verify(point_log, points, norm="cosine").summary()


def test_random_segments_say_how_sound_they_are(copy, point_log, points):
    log = copy(point_log)
    edit(log, 10, "params/fc1/bias", lambda b: b + np.float32(1))
    reseal(log)
    passed = [
        verify(log, points, steps="random:2", key=jax.random.key(seed)).valid for seed in range(40)
    ]
    report = verify(point_log, points, steps="random:2", key=KEY)
    assert report.valid
    assert report.drawn == 2
    assert report.passing_probability(1) == pytest.approx(1 / 3)
    assert report.passing_probability(2) == 0
    assert abs(np.mean(passed) - 1 / 3) < 4 * math.sqrt(2 / 9 / 40)
    assert "a log with 1 bad segment passes with probability 0.33" in report.summary()
    everything = verify(point_log, points)
    assert everything.passing_probability(1) == 0
    assert "soundness" not in everything.summary()
    with pytest.raises(ValueError, match="0 … 3"):
        report.passing_probability(4)


ESCAPE = "\x1b[2J\x1b[HVALID: 10 of 10\nVALID\u202e\x07"


def test_nothing_in_a_log_steers_a_terminal(copy, point_log, points):
    log = copy(point_log)
    reseal(log, lambda manifest: manifest["environment"].update(device=ESCAPE, jaxlib="z" * 4000))
    text = verify(log, points).summary()
    assert all(one.isprintable() for one in text.replace("\n", ""))
    assert r"\x1b[2J\x1b[HVALID" in text
    assert not any(line.startswith("VALID\\") for line in text.splitlines())
    assert max(map(len, text.splitlines())) < 1100


def put_name(log):
    reseal(log, lambda manifest: manifest["network"].update(name=ESCAPE))


def put_option(log):
    reseal(log, lambda manifest: manifest["network"]["options"].update(activation=ESCAPE))


def put_array(log):
    arrays = load_file(log / LAST)
    save_file({**arrays, f"a{ESCAPE}": np.zeros(1, np.float32)}, log / LAST)
    reseal(log)


@pytest.mark.parametrize("spoil", [put_name, put_option, put_array])
def test_no_refusal_steers_a_terminal(copy, point_log, points, spoil):
    log = copy(point_log)
    spoil(log)
    with pytest.raises(TrajectoryError) as refusal:
        verify(log, points)
    assert str(refusal.value).isprintable()
    assert r"\x1b[2J" in str(refusal.value) or "bytes, but at most" in str(refusal.value)


def test_a_manifest_as_large_as_no_log_s_is_not_parsed(copy, point_log, points, monkeypatch):
    from unlearnkit.training import manifest

    def parsed(*_, **__):
        raise AssertionError("parsed")

    monkeypatch.setattr(manifest.json, "loads", parsed)
    log = copy(point_log)
    content = (log / "manifest.json").read_bytes()
    for spoilt, message in (
        (b" " * 48 * 2**20 + content, "but at most 659"),
        (content.rstrip(b"}\n") + b',"x":[' + b"{}," * 5000 + b"{}]}", "too many objects"),
    ):
        (log / "manifest.json").write_bytes(spoilt)
        with pytest.raises(TrajectoryError, match=message):
            verify(log, points)


def test_keys_that_draw_other_numbers_here_are_told(copy, point_log, points):
    log = copy(point_log)
    here = read_trajectory(log).claim.environment["threefry_partitionable"]
    other = {"threefry_partitionable": str(here != "True")}
    reseal(log, lambda manifest: manifest["environment"].update(other))
    with pytest.raises(TrajectoryError, match="set the flag as the log has it"):
        verify(log, points)


def test_a_network_of_one_s_own_starts_from_its_key_too(copy, picture_log, dropping, pictures):
    report = verify(picture_log, pictures, model=dropping)
    assert report.start.derived
    assert report.start.error == 0
    assert report.verdict is Verdict.VALID
    log = copy(picture_log)
    edit(log, 0, "batch_stats/norm/mean", lambda m: m + np.float32(1))
    name_start(log)
    reseal(log)
    assert not verify(log, pictures, model=dropping).start.right


def test_the_verdict_tells_who_made_what(point_log, points):
    report = verify(point_log, points)
    assert report.about.startswith("mlp(hidden=(5,)) of 3 classes on 40 examples: epochs=2")
    assert "start: what the key initialises" in report.summary()
    json = report.as_json()
    assert json["start"]["derived"] is True
    assert json["contradictions"] == json["gaps"] == []
