import jax
import numpy as np
import pytest
import softmax_regression as sr

from unlearnkit.unlearning import FineTune, NegGradPlus
from unlearnkit.unlearning._passes import cycled_batches

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
def test_the_forget_set_is_cycled_in_fresh_orders(n, batch, steps):
    batches = np.asarray(cycled_batches(KEY, n, batch, steps))
    assert batches.shape == (steps, batch)
    per_pass = n // batch
    passes = [batches[i : i + per_pass].ravel() for i in range(0, steps, per_pass)]
    for rows in passes:
        assert len(set(rows.tolist())) == len(rows)
        assert rows.min() >= 0
        assert rows.max() < n
    if len(passes) > 1 and batch * per_pass > 1:
        assert not np.array_equal(passes[0][: len(passes[1])], passes[1])


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
