"""Every registered unlearner has an effect: it ends nearer to Retrain than the original is.

The planted problem: three patterns under noise, and a forget set of a seventh of the training set
that is labelled wrong. The original says these labels, a network that never saw them does not. Over
ten seeds, each with its own data and networks, the mean L1 distance of the class probabilities of
the forget set to Retrain's must fall, by more than two standard errors and by a share of the way;
and the network must stay as useful on new data as Retrain is, so that to destroy it is no effect.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from trial_settings import made, trial_of

from unlearnkit import models, unlearning
from unlearnkit.auditing import activation_distance
from unlearnkit.base import Cost, Dataset, Task, Unlearned, UnlearnInfo
from unlearnkit.training import Recipe, fit_many
from unlearnkit.trials import UnlearnerTrial

SEEDS = 10
RETAIN, FORGET, NEW = 120, 20, 60
DECAY = 0.01
RECIPE = Recipe(epochs=30, batch_size=20, learning_rate=0.1, weight_decay=DECAY)
EFFECTIVE = {
    "epochs": 10, "batch_size": 20, "forget_batch_size": 10, "learning_rate": 0.1, "k": 1,
    "weight_decay": DECAY, "momentum": 0.9, "recipe": RECIPE,
}  # fmt: skip
"""What a method is given of it by the names of its fields; see `unlearnkit.trials` for more."""

TRIALS = {name: trial_of(kind, UnlearnerTrial()) for name, kind in unlearning.UNLEARNERS.items()}
METHODS = {
    name: made(kind, EFFECTIVE, TRIALS[name].effective)
    for name, kind in unlearning.UNLEARNERS.items()
}
EXCUSED = {name: trial.weak_effect for name, trial in TRIALS.items() if trial.weak_effect}
"""The least share of the way, and the most accuracy lost against Retrain, where not .1 and .1."""


def draw(key, n, wrong=0):
    """Returns n examples of three patterns; the last `wrong` are labelled as the next class."""
    x_key, y_key = jax.random.split(key)
    shown = jax.random.randint(y_key, (n,), 0, 3)
    x = (0.9 * jax.random.normal(x_key, (n, 6, 6, 1))).at[jnp.arange(n), 2 * shown].add(1.0)
    y = jnp.where(jnp.arange(n) >= n - wrong, (shown + 1) % 3, shown)
    return Dataset(x, y.astype(jnp.int32))


@dataclasses.dataclass(frozen=True)
class Planted:
    """One seed: a question, the network that is asked, and one that never saw the answer."""

    task: Task
    original: object
    reference: object


@pytest.fixture(scope="module")
def model():
    return models.create("mlp", input_shape=(6, 6, 1), n_classes=3, hidden=(16,))


@pytest.fixture(scope="module")
def planted(model):
    parts = [draw(jax.random.key(seed), RETAIN + FORGET, wrong=FORGET) for seed in range(SEEDS)]
    pool = jax.tree.map(lambda *arrays: jnp.concatenate(arrays), *parts)
    rows = np.arange(pool.size).reshape(SEEDS, -1)
    originals, references = (
        fit_many(
            jax.random.split(jax.random.key(key), SEEDS), model, pool, RECIPE, subsets=subsets
        ).variables
        for key, subsets in ((100, rows), (101, rows[:, :RETAIN]))
    )
    tasks = [
        Task(
            part.take(np.arange(RETAIN)),
            part.take(np.arange(RETAIN, RETAIN + FORGET)),
            draw(jax.random.key(200 + seed), NEW),
            draw(jax.random.key(300 + seed), NEW),
        )
        for seed, part in enumerate(parts)
    ]
    return [
        Planted(
            task, *(jax.tree.map(lambda leaf, i=i: leaf[i], v) for v in (originals, references))
        )
        for i, task in enumerate(tasks)
    ]


def measure(model, variables, one):
    """Returns the distance to Retrain on the forget set, and the accuracy on new data."""
    logits = jax.jit(model.apply)
    distance = activation_distance(
        logits(variables, one.task.forget.x), logits(one.reference, one.task.forget.x)
    )
    found = jnp.argmax(logits(variables, one.task.test.x), -1)
    return distance, float(jnp.mean(found == one.task.test.y))


def effect(model, method, planted):
    """Returns [seeds] distances before and after, and [seeds] accuracies after and of Retrain."""
    rows = []
    for seed, one in enumerate(planted):
        unlearned = method(jax.random.key(400 + seed), model, one.original, one.task).variables
        before, _ = measure(model, one.original, one)
        after, accuracy = measure(model, unlearned, one)
        rows.append((before, after, accuracy, measure(model, one.reference, one)[1]))
    return np.array(rows).T


def has_effect(before, after, accuracy, of_retrain, *, share=0.1, loss=0.1):
    gains = before - after
    error = gains.std(ddof=1) / np.sqrt(len(gains))
    return bool(
        gains.mean() > 2 * error
        and gains.mean() > share * before.mean()
        and accuracy.mean() > of_retrain.mean() - loss
    )


def tell(name, found):
    before, after, accuracy, of_retrain = found.mean(1)
    return (
        f"{name}: its mean distance to Retrain is {after:.3f}, before it {before:.3f}; its "
        f"accuracy is {accuracy:.3f}, Retrain's {of_retrain:.3f}. A method that needs other "
        f"settings on this small problem says so by UnlearnerTrial(effective=...)"
    )


def test_at_most_three_are_excused_for_a_reason_and_by_a_figure():
    assert len(EXCUSED) <= 3
    for share, loss, reason in EXCUSED.values():
        assert share >= 0.05
        assert loss <= 0.2
        assert "Measured" in reason


@pytest.mark.parametrize("name", METHODS)
def test_ends_nearer_to_retrain_than_the_original_is(name, model, planted):
    found = effect(model, METHODS[name], planted)
    share, loss, _ = EXCUSED.get(name, (0.1, 0.1, ""))
    assert has_effect(*found, share=share, loss=loss), tell(name, found)


def _moved(change):
    def method(key, model, variables, task):
        return Unlearned(change(key, variables), UnlearnInfo({}, Cost(0.0, 0.0)))

    return method


def _noise(key, variables):
    leaves, structure = jax.tree.flatten(variables)
    keys = jax.random.split(key, len(leaves))
    noisy = [
        leaf + 1e-6 * jax.random.normal(k, leaf.shape) for k, leaf in zip(keys, leaves, strict=True)
    ]
    return jax.tree.unflatten(structure, noisy)


@pytest.mark.parametrize(
    "change",
    [_noise, lambda key, v: v, lambda key, v: jax.tree.map(jnp.zeros_like, v)],
    ids=["placebo", "nothing", "destruction"],
)
def test_a_placebo_and_a_ruin_have_none(change, model, planted):
    found = effect(model, _moved(change), planted)
    assert not any(
        has_effect(*found, share=share, loss=loss)
        for share, loss, _ in [(0.1, 0.1, ""), *EXCUSED.values()]
    )
