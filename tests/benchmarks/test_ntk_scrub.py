"""The rows that `python -m benchmarks ntk_scrub` measures, of LeNet on a few noisy stripes."""

import dataclasses
import re

import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import ntk_scrub
from unlearnkit.base import Dataset
from unlearnkit.training import fit

CLASSES = 10


@pytest.fixture(autouse=True)
def few_images(monkeypatch):
    def images(name, split):
        rng = np.random.default_rng(len(split))
        y = np.arange(80) % CLASSES
        x = rng.normal(size=(80, 28, 28, 1), scale=0.3)
        x[np.arange(80), 2 * y] += 1.0
        return Dataset(jnp.asarray(x, jnp.float32), jnp.asarray(y, jnp.int32))

    def briefly(key, model, data, recipe, **options):
        return fit(key, model, data, dataclasses.replace(recipe, epochs=3), **options)

    monkeypatch.setattr(ntk_scrub, "_images", images)
    monkeypatch.setattr(ntk_scrub, "fit", briefly)


def steps_of(accuracy):
    return [int(found) for found in re.findall(r" in (\d+)", accuracy)]


def test_each_size_has_its_products_and_its_goals(monkeypatch):
    monkeypatch.setattr(ntk_scrub, "PRODUCTS_AT_MOST", {("lenet", 20): 30})
    monkeypatch.setattr(ntk_scrub, "MINUTES_AT_MOST", {("lenet", 40): 45, ("lenet", 41): 1})
    first, second, minutes = ntk_scrub.scaling_rows("lenet", (20, 40), 1000.0)
    for row, n in ((first, 20), (second, 40)):
        assert row.size == f"lenet, mnist, n {n} x 10 outputs"
        assert row.value == sum(steps_of(row.accuracy))
        assert len(steps_of(row.accuracy)) == 2
        assert min(steps_of(row.accuracy)) > 1
        assert row.lower_is_better
    assert (first.goal, second.goal) == (30, None)
    assert minutes.kernel.endswith("minutes")
    assert minutes.size == second.size
    assert (minutes.value, minutes.goal) == (second.ours.seconds / 60, 45)
    assert minutes.lower_is_better


def test_no_size_begins_behind_the_budget_and_the_sketch_holds_what_it_may(monkeypatch):
    monkeypatch.setattr(ntk_scrub, "SKETCH_NUMBERS", 20 * CLASSES * 7)
    (row,) = ntk_scrub.scaling_rows("lenet", (20, 40), 0.0)
    assert row.note.endswith("preconditioner of rank 7")


def test_both_forms_find_one_shift():
    row = ntk_scrub.dense_row("lenet", 20, classes=4)
    differ = float(re.search(r"differ by (\S+)", row.accuracy)[1])
    assert 0 < differ < 0.02
    assert steps_of(row.accuracy)[0] > 1
    assert max(steps_of(row.peer_accuracy)) <= 2
    assert row.ratio == row.peer.seconds / row.ours.seconds


def test_the_forms_take_the_gradients_that_they_say_and_auto_is_measured_against_the_fastest():
    names = ("stored", "dense", "matrix-free")
    stored, dense, free, chosen = ntk_scrub.form_rows(
        "lenet", 20, classes=4, loss="softmax", names=names, tol=1e-4
    )
    retrain = 50 * 19  # one in twenty is to be forgotten
    assert (stored.goal, dense.goal, free.goal) == (retrain, retrain, None)
    assert stored.value < dense.value < free.value
    shifts = [re.search(r"the shift (\S+)", row.note)[1] for row in (stored, dense, free)]
    assert np.allclose([float(shift) for shift in shifts], float(shifts[1]), rtol=5e-3)
    fastest = min(row.ours.seconds for row in (stored, dense, free))
    taken = re.search(r"the form (\S+?);", chosen.note)[1]
    of_auto = {"stored": stored, "dense": dense, "matrix_free": free}[taken]
    assert chosen.value == of_auto.ours.seconds / fastest
    assert (chosen.goal, chosen.lower_is_better) == (1.5, True)


def test_a_class_with_too_few_examples_is_refused():
    with pytest.raises(ValueError, match="4 classes have 32 examples"):
        ntk_scrub.problem("lenet", 33, classes=4)


def test_the_memory_is_what_xla_sets_aside(monkeypatch):
    monkeypatch.setattr(ntk_scrub, "memory", lambda model, method, n: n * 1e6)
    row = ntk_scrub.memory_row("lenet", 500)
    assert (row.value, row.goal, row.lower_is_better) == (0.5, 1, True)
    assert "holds 0.05 GB of kernels" in row.note
