import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import softmax_regression as sr
from watched_passes import numbered, watch

from unlearnkit.unlearning import RandomLabel, SalUn
from unlearnkit.unlearning.random_label import relabel
from unlearnkit.unlearning.salun import saliency_mask

KEY = jax.random.key(0)
FULL = {"batch_size": 24, "learning_rate": 0.2, "weight_decay": 0.0}


@dataclasses.dataclass(frozen=True)
class MeanLabel:
    """Descends nothing; reports the mean label."""

    def __call__(self, params, state, batch, key, context):
        loss = sum(jnp.sum(w) for w in jax.tree.leaves(params))
        mean = jnp.mean(batch.y.astype(jnp.float32))
        return 0.0 * loss, (state, {"loss": mean, "accuracy": mean})


def random_labels(key, n, n_classes):
    """What the method draws, by JAX itself."""
    return np.asarray(jax.random.randint(key, (n,), 0, n_classes))


def test_labels_are_uniform_over_all_classes(monkeypatch):
    seen = watch(monkeypatch)
    task = sr.TASK._replace(forget=numbered(6_000))
    method = RandomLabel(epochs=5, batch_size=24, forget_batch_size=6_000, learning_rate=1e-9)
    method(KEY, sr.MODEL, sr.weights(), task)
    counts = np.bincount(np.concatenate([part.labels.ravel() for part in seen[::2]]))
    assert counts.size == 3
    assert counts.sum() == 30_000
    assert np.abs(counts - 10_000).max() < 5 * math.sqrt(30_000 / 3 * 2 / 3)


def test_labels_are_drawn_anew_in_each_epoch_and_only_for_the_forget_set():
    start = sr.weights()
    fitted = RandomLabel(epochs=6, batch_size=24).fitted_pair(start, sr.TASK)
    both = MeanLabel(), MeanLabel()
    history = relabel(KEY, fitted, sr.MODEL, both, start, sr.TASK).info.history
    assert len(set(np.asarray(history["random_label_loss"]).tolist())) > 2
    true = float(np.mean(np.asarray(sr.TASK.retain.y)))
    np.testing.assert_allclose(history["loss"], true, rtol=1e-6)


def two_passes(start, mask):
    """One epoch of one step a pass, forget first, by one optimiser, where the mask is on."""
    label_key = jax.random.split(jax.random.fold_in(KEY, 0), 4)[0]
    labels = random_labels(label_key, sr.TASK.forget.size, 3)
    w = sr.as_float64(start)
    velocity = sr.combine((0, w))
    for dataset, y in ((sr.TASK.forget, labels), (sr.TASK.retain, sr.TASK.retain.y)):
        step = sr.gradient(w, dataset, y)
        velocity = {name: 0.9 * velocity[name] + step[name] for name in velocity}
        w = {name: w[name] - 0.2 * mask[name] * velocity[name] for name in w}
    return w


def test_forget_pass_then_retain_pass_share_one_momentum():
    start = sr.weights()
    unlearned = RandomLabel(epochs=1, **FULL)(KEY, sr.MODEL, start, sr.TASK)
    everywhere = {"kernel": 1.0, "bias": 1.0}
    sr.assert_close(unlearned.variables, two_passes(start, everywhere))


def test_salun_takes_the_same_steps_inside_its_mask():
    start = sr.weights()
    unlearned = SalUn(epochs=1, fraction=0.4, **FULL)(KEY, sr.MODEL, start, sr.TASK)
    mask = saliency_mask(sr.MODEL, start, sr.TASK.forget, fraction=0.4, chunk=10)
    sr.assert_close(unlearned.variables, two_passes(start, mask.get("classifier")))


def test_salun_on_all_weights_is_random_label():
    start = sr.weights()
    salun = SalUn(epochs=3, fraction=1.0, **FULL)(KEY, sr.MODEL, start, sr.TASK)
    plain = RandomLabel(epochs=3, **FULL)(KEY, sr.MODEL, start, sr.TASK)
    sr.assert_close(salun.variables, sr.as_float64(plain.variables))


@pytest.mark.parametrize("fraction", [0.01, 0.3, 0.5, 1.0])
def test_the_mask_is_the_largest_gradients_of_all_parameters_together(fraction):
    start = sr.weights()
    mask = saliency_mask(sr.MODEL, start, sr.TASK.forget, fraction=fraction, chunk=3)
    on = np.concatenate([np.ravel(m) for m in jax.tree.leaves(mask)])
    gradient = sr.gradient(sr.as_float64(start), sr.TASK.forget)
    sizes = np.abs(np.concatenate([gradient["bias"], gradient["kernel"].ravel()]))
    assert on.sum() == math.ceil(fraction * sizes.size)
    assert fraction == 1.0 or sizes[on].min() > sizes[~on].max()


def test_ties_do_not_widen_the_mask():
    blank = sr.TASK.forget._replace(x=jnp.zeros_like(sr.TASK.forget.x))
    mask = saliency_mask(sr.MODEL, sr.weights(), blank, fraction=0.6, chunk=10)
    assert sum(int(np.sum(m)) for m in jax.tree.leaves(mask)) == math.ceil(0.6 * 15)


@pytest.mark.parametrize(
    "leak", [{"momentum": 0.9, "weight_decay": 0.0}, {"momentum": 0.0, "weight_decay": 0.5}]
)
def test_nothing_leaks_through_the_mask(leak):
    start = sr.weights()
    method = SalUn(epochs=4, batch_size=8, learning_rate=0.1, fraction=0.3, **leak)
    unlearned = method(KEY, sr.MODEL, start, sr.TASK)
    mask = saliency_mask(sr.MODEL, start, sr.TASK.forget, fraction=0.3, chunk=8)
    for on, new, old in zip(
        jax.tree.leaves(mask),
        jax.tree.leaves(unlearned.variables.params),
        jax.tree.leaves(start.params),
        strict=True,
    ):
        np.testing.assert_array_equal(np.asarray(new)[~on], np.asarray(old)[~on])
        assert np.all(np.asarray(new)[on] != np.asarray(old)[on])


@pytest.mark.parametrize("fraction", [0.0, -0.5, 1.5, float("nan")])
def test_fractions_outside_their_range_are_refused(fraction):
    with pytest.raises(ValueError, match="fraction must be in"):
        SalUn(fraction=fraction)


def test_bad_batches_are_refused():
    with pytest.raises(ValueError, match="forget_batch_size must be >= 1"):
        RandomLabel(forget_batch_size=-1)
    with pytest.raises(ValueError, match="larger than the data"):
        SalUn(batch_size=8, forget_batch_size=11)(KEY, sr.MODEL, sr.weights(), sr.TASK)
