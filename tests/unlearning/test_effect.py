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

from unlearnkit import models, unlearning
from unlearnkit.auditing import activation_distance
from unlearnkit.base import Cost, Dataset, Task, Unlearned, UnlearnInfo
from unlearnkit.training import Recipe, fit_many
from unlearnkit.unlearning import (
    BoundaryExpand,
    BoundaryShrink,
    CatastrophicLastLayers,
    ExactLastLayers,
    FineTune,
    FisherForgetting,
    GradientAscent,
    Influence,
    L1Sparse,
    NegGradPlus,
    NewtonScrub,
    NoisyDescent,
    NtkScrub,
    RandomLabel,
    Retrain,
    SalUn,
    Scrub,
    StackelbergUnlearn,
)

SEEDS = 10
RETAIN, FORGET, NEW = 120, 20, 60
DECAY = 0.01
RECIPE = Recipe(epochs=30, batch_size=20, learning_rate=0.1, weight_decay=DECAY)
RATES = {"weight_decay": DECAY, "momentum": 0.9}
PAIRED = {"batch_size": 20, "forget_batch_size": 10, **RATES}

METHODS = {
    "retrain": Retrain(RECIPE),
    "fine_tune": FineTune(epochs=10, batch_size=20, learning_rate=0.1, **RATES),
    "noisy_descent": NoisyDescent(
        epochs=10, batch_size=20, learning_rate=0.1, noise_std=0.01, **RATES
    ),
    "gradient_ascent": GradientAscent(epochs=5, batch_size=10, learning_rate=0.01, **RATES),
    "neg_grad_plus": NegGradPlus(epochs=5, learning_rate=0.05, beta=0.9, **PAIRED),
    "random_label": RandomLabel(epochs=10, learning_rate=0.05, **PAIRED),
    "salun": SalUn(epochs=10, learning_rate=0.05, **PAIRED),
    "l1_sparse": L1Sparse(epochs=10, batch_size=20, learning_rate=0.1, gamma=1e-4, **RATES),
    "boundary_shrink": BoundaryShrink(
        epochs=5, batch_size=10, learning_rate=0.02, step=0.5, box=None, **RATES
    ),
    "boundary_expand": BoundaryExpand(epochs=5, batch_size=10, learning_rate=0.02, **RATES),
    "scrub": Scrub(epochs=5, max_epochs=3, learning_rate=0.05, **PAIRED),
    "exact_last_layers": ExactLastLayers(epochs=30, batch_size=20, learning_rate=0.1, k=1, **RATES),
    "catastrophic_last_layers": CatastrophicLastLayers(
        epochs=10, batch_size=20, learning_rate=0.1, k=1, **RATES
    ),
    "stackelberg": StackelbergUnlearn(epochs=10, batch_size=20, learning_rate=0.1, **RATES),
    "influence": Influence(weight_decay=DECAY, tol=1e-3),
    "newton_scrub": NewtonScrub(damping=DECAY),
    "fisher_forgetting": FisherForgetting(alpha=3e-5),
    "ntk_scrub": NtkScrub(weight_decay=DECAY),
}

EXCUSED = {"fisher_forgetting": (0.05, 0.2)}
"""The least share of the way, and the most accuracy lost against Retrain, where not .1 and .1.

Fisher forgetting buys distance with noise alone: it reads no example of the forget set (Golatkar et
al. 2020a), and is known to pay in accuracy (Kurmanji et al. 2023, section 5). Measured here, of the
way 8 % at 78 % accuracy (alpha 3e-5), 18 % at 73 % (1e-4), 27 % at 59 % (3e-4); Retrain has 92 %,
the original 81 %.
"""


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


def test_every_registered_method_is_here():
    assert set(METHODS) == set(unlearning.UNLEARNERS)
    assert len(EXCUSED) <= 3


@pytest.mark.parametrize("name", METHODS)
def test_ends_nearer_to_retrain_than_the_original_is(name, model, planted):
    found = effect(model, METHODS[name], planted)
    share, loss = EXCUSED.get(name, (0.1, 0.1))
    assert has_effect(*found, share=share, loss=loss), found.mean(1)


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
        for share, loss in [(0.1, 0.1), *EXCUSED.values()]
    )
