import itertools

import jax
import numpy as np
import pytest
import softmax_regression as sr
from watched_passes import numbered, watch

from unlearnkit.host import cycled_rows, host_key
from unlearnkit.unlearning import FineTune, NegGradPlus

KEY = jax.random.key(0)


def test_one_step_descends_one_loss_and_ascends_the_other():
    method = NegGradPlus(
        epochs=1, batch_size=24, learning_rate=0.3, weight_decay=0.1, momentum=0.0, beta=0.7
    )
    start = sr.weights()
    unlearned = method(KEY, sr.MODEL, start, sr.TASK)
    w = sr.as_float64(start)
    retain, forget = sr.gradient(w, sr.TASK.retain), sr.gradient(w, sr.TASK.forget)
    step = sr.combine((0.7, retain), (-0.3, forget), (0.1, w))
    sr.assert_close(unlearned.variables, sr.combine((1, w), (-0.3, step)))


def test_two_epochs_share_one_momentum():
    method = NegGradPlus(epochs=2, batch_size=24, learning_rate=0.2, weight_decay=0.0, beta=0.8)
    start = sr.weights()
    unlearned = method(KEY, sr.MODEL, start, sr.TASK)
    w, velocity = sr.as_float64(start), sr.combine((0, sr.as_float64(start)))
    for _ in range(2):
        forget = sr.gradient(w, sr.TASK.forget)
        step = sr.combine((0.8, sr.gradient(w, sr.TASK.retain)), (-0.2, forget))
        velocity = sr.combine((0.9, velocity), (1, step))
        w = sr.combine((1, w), (-0.2, velocity))
    sr.assert_close(unlearned.variables, w)


def test_beta_of_one_ignores_the_forget_set():
    method = NegGradPlus(epochs=1, batch_size=24, beta=1.0)
    fine_tuned = FineTune(epochs=1, batch_size=24)(KEY, sr.MODEL, sr.weights(), sr.TASK)
    unlearned = method(KEY, sr.MODEL, sr.weights(), sr.TASK)
    sr.assert_close(unlearned.variables, sr.as_float64(fine_tuned.variables))


@pytest.mark.parametrize(("n", "batch", "steps"), [(10, 5, 5), (10, 4, 7), (9, 9, 3), (40, 4, 3)])
def test_the_forget_set_is_cycled_in_fresh_orders_over_the_epochs(n, batch, steps):
    epochs = [cycled_rows(host_key(KEY), e * steps, n, batch, steps) for e in range(8)]
    assert all(batches.shape == (steps, batch) for batches in epochs)
    batches, per_pass = np.concatenate(epochs), -(-n // batch)
    whole = [batches[i : i + per_pass] for i in range(0, len(batches) - per_pass + 1, per_pass)]
    assert len(whole) > 1
    for one, other in itertools.pairwise(whole):
        assert set(one.ravel().tolist()) == set(range(n))
        assert not np.array_equal(one, other)
    for rows in batches:
        assert len(set(rows.tolist())) == batch


def test_epochs_pair_the_sets_in_new_orders(monkeypatch):
    seen = watch(monkeypatch)
    task = sr.TASK._replace(retain=numbered(12), forget=numbered(10, 12))
    method = NegGradPlus(epochs=2, batch_size=6, learning_rate=1e-6)
    method(KEY, sr.MODEL, sr.weights(), task)
    pixels = [part.pixels for part in seen]
    assert [rows.shape for rows in pixels] == [(2, 12), (2, 12)]
    retain, forget = ([rows[:, part] for rows in pixels] for part in (slice(6), slice(6, None)))
    assert not np.array_equal(*retain)
    assert not np.array_equal(*forget)
    for rows in retain:
        assert sorted(rows.ravel()) == list(range(12))
    for rows in forget:
        assert set(rows.ravel()) == set(range(12, 22))


def test_a_small_forget_set_is_one_batch():
    info = NegGradPlus(epochs=1, batch_size=12)(KEY, sr.MODEL, sr.weights(), sr.TASK).info
    assert info.cost.example_gradients == 2 * (12 + 10)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"beta": 0.0}, "beta must be in"),
        ({"beta": 1.1}, "beta must be in"),
        ({"beta": float("nan")}, "beta must be in"),
        ({"forget_batch_size": 0}, "forget_batch_size must be >= 1, got 0"),
        ({"learning_rate": -1.0}, "learning_rate must be > 0"),
    ],
)
def test_bad_hyperparameters_are_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        NegGradPlus(**wrong)


def test_a_forget_batch_larger_than_the_forget_set_is_refused():
    method = NegGradPlus(batch_size=12, forget_batch_size=11)
    with pytest.raises(ValueError, match=r"larger than the data \(10 forget examples\)"):
        method(KEY, sr.MODEL, sr.weights(), sr.TASK)
