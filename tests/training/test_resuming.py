"""Runs that were interrupted go on from their checkpoints, one or many at once."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from unlearnkit import models
from unlearnkit.base import Dataset
from unlearnkit.training import CheckpointError, Recipe, fit, fit_many, keep_trainings, resuming
from unlearnkit.training.checkpoint import same_bits
from unlearnkit.training.resuming import pack_history, unpack_history

KEYS = jax.random.split(jax.random.key(0), 3)
RECIPE = Recipe(epochs=4, batch_size=10, learning_rate=0.1, gradient_noise=0.01)
ROWS = np.stack([np.arange(20), np.arange(10, 30), np.arange(20)[::-1]])
MODEL = models.create("logistic", input_shape=(5,), n_classes=3)
DATA = Dataset(jax.random.normal(jax.random.key(1), (30, 5)), jnp.arange(30) % 3)


class Interrupt:
    """Notes epochs, and raises in one of them."""

    def __init__(self, epoch=None):
        self.epoch, self.seen = epoch, []

    def __call__(self, epoch, metrics):
        self.seen.append(epoch)
        if epoch == self.epoch:
            raise KeyboardInterrupt


def many(**options):
    return fit_many(KEYS, MODEL, DATA, RECIPE, **{"subsets": ROWS, **options})


def one(**options):
    return fit(KEYS[0], MODEL, DATA, RECIPE, **options)


@pytest.mark.parametrize("seconds", [0.0, 1e-9])
@pytest.mark.parametrize("batching", ["map", "vmap"])
def test_many_runs_go_on_with_the_same_bits(tmp_path, batching, seconds):
    options = {"batching": batching, "checkpoint": tmp_path / "c", "checkpoint_seconds": seconds}
    with pytest.raises(KeyboardInterrupt):
        many(on_epoch=Interrupt(3), **options)
    rest = Interrupt()
    resumed = many(on_epoch=rest, **options)
    assert rest.seen == [3, 4]
    whole = many(batching=batching)
    assert same_bits(resumed.variables, whole.variables)
    assert same_bits(resumed.info.history, whole.info.history)
    assert resumed.info.cost.example_gradients == whole.info.cost.example_gradients


def test_one_run_with_timed_checkpoints_goes_on_with_the_same_bits(tmp_path):
    options = {"checkpoint": tmp_path / "c", "checkpoint_seconds": 1e-9}
    with pytest.raises(KeyboardInterrupt):
        one(on_epoch=Interrupt(2), **options)
    rest = Interrupt()
    resumed = one(on_epoch=rest, **options)
    assert rest.seen == [3, 4]  # saved before anyone is told
    assert same_bits(resumed.variables, one().variables)


@pytest.mark.parametrize("run", [one, many])
def test_a_run_that_is_shorter_than_the_time_between_checkpoints_writes_none(tmp_path, run):
    run(checkpoint=tmp_path / "c", checkpoint_seconds=1e6)
    assert not (tmp_path / "c").exists()


@pytest.mark.parametrize("run", [one, many])
def test_timed_checkpoints_do_not_end_a_run(tmp_path, run):
    """The end belongs to who keeps the result; asked again, the run takes its last epoch again."""
    options = {"checkpoint": tmp_path / "c", "checkpoint_seconds": 1e-9}
    run(**options)
    again = Interrupt()
    run(on_epoch=again, **options)
    assert again.seen == [4]


@pytest.mark.parametrize(
    "changes", [{"subsets": ROWS[:, ::-1]}, {"batching": "vmap"}, {"subsets": None}]
)
def test_checkpoints_of_other_runs_are_refused(tmp_path, changes):
    many(checkpoint=tmp_path, batching="map")
    with pytest.raises(CheckpointError, match="another run"):
        many(**{"checkpoint": tmp_path, "batching": "map", **changes})


@pytest.mark.parametrize("options", [{"checkpoint_seconds": -1.0}, {"checkpoint_every": 0}])
def test_numbers_that_are_too_small_are_refused(tmp_path, options):
    with pytest.raises(ValueError, match=f"{next(iter(options))} must be >="):
        one(checkpoint=tmp_path, **options)


def test_histories_are_packed_in_their_types():
    history = {"loss": [np.array([1.5, np.inf], np.float32)] * 3}
    again = unpack_history(pack_history(history), 2)
    assert again["loss"][0].dtype == np.float32
    np.testing.assert_array_equal(again["loss"], history["loss"])


def test_a_series_of_trainings_goes_on_in_the_one_that_was_interrupted(tmp_path):
    """One network, several, and one that is watched epoch by epoch, which begins again."""

    def series(on_epoch=None, on_last=None):
        first = one(on_epoch=on_epoch)
        second = many(on_epoch=on_epoch)
        return first, second, one(on_epoch=on_last, on_snapshot=lambda epoch, now: None)

    whole = series()
    heard = Interrupt(4)
    with pytest.raises(KeyboardInterrupt), keep_trainings(tmp_path, seconds=1e-9):
        series(heard)
    names = [path.name for path in sorted(tmp_path.iterdir())]
    assert (heard.seen, names) == ([1, 2, 3, 4], ["training-001"])  # the first ended
    heard = Interrupt()
    with pytest.raises(KeyboardInterrupt), keep_trainings(tmp_path, seconds=1e-9):
        series(heard, Interrupt(2))
    assert heard.seen == 2 * [1, 2, 3, 4]  # all epochs of all networks, none of them computed
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    again, last = Interrupt(), Interrupt()
    with keep_trainings(tmp_path, seconds=1e-9):
        found = series(again, last)
    assert (again.seen, last.seen) == (2 * [1, 2, 3, 4], [1, 2, 3, 4])
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before
    for trained, expected in zip(found, whole, strict=True):
        assert same_bits(trained.variables, expected.variables)
        assert same_bits(trained.info.history, expected.info.history)


def test_what_ended_before_is_written_with_the_first_checkpoint_that_is_due(tmp_path, monkeypatch):
    now, whole = [0.0], one().variables
    monkeypatch.setattr(resuming.time, "monotonic", lambda: now[0])

    def late(epoch, metrics):
        now[0] += 10.0 if epoch == 3 else 0.0
        if epoch == 4:
            raise KeyboardInterrupt

    def pair():
        with keep_trainings(tmp_path, seconds=10):
            one()
            assert list(tmp_path.iterdir()) == []
            many(on_epoch=late)

    with pytest.raises(KeyboardInterrupt):
        pair()
    assert len(list(tmp_path.glob("training-00[12]/checkpoint.json"))) == 2
    with keep_trainings(tmp_path, seconds=10):
        assert same_bits(one().variables, whole)
    with pytest.raises(CheckpointError, match="another run"), keep_trainings(tmp_path):
        fit(KEYS[1], MODEL, DATA, RECIPE)
