"""Every registered attack bites: victims trained on its poisons do worse than on random ones.

Each attack poisons a tiny task, and ten victims train on what it made. The control is the same set
with the poisons' pixels moved at random by the same L2 norm, from the same images and (but where
the attack is the label) with the same labels; ten victims with the same keys train on one draw of
that each. By what the attack is for, its mean victim must be beyond the controls' mean by more than
two standard errors, and by more than 1.5 standard deviations of the controls: an attack is one set
of poisons, and so must be beyond what one random set may be.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from unlearnkit import models, poisoning
from unlearnkit.auditing import GaussianUnlearningScore, gaussian_poisons
from unlearnkit.base import Cost, Dataset, Poisoned, Task, concatenate
from unlearnkit.poisoning import (
    BackGradient,
    Bounds,
    Budget,
    ErrorMinimizing,
    GaussianPoison,
    GradientCanceling,
    GradientMatching,
    GradPC,
    ImprovedMinMax,
    InfluenceAttack,
    KktAttack,
    LabelFlip,
    MetaPoison,
    MinMax,
    PoisonInfo,
    PoisonSvm,
    TotalGradientAttack,
)
from unlearnkit.training import Recipe, cross_entropy, fit, fit_many

SHAPE, VICTIMS = (4, 4, 1), 10
RECIPE = Recipe(epochs=20, batch_size=20, learning_rate=0.3)
BUDGET = Budget(0.25)  # 20 of 80
WIDE = Bounds(radius=0.5)
TARGET = {"targets": (0,), "adversarial_class": 0}
"""A validation example of class 1, which the victim shall take for class 0."""

METHODS = {
    "label_flip": LabelFlip(BUDGET, rule="runner_up", placement="perturb"),
    "min_max": MinMax(BUDGET, burn_in=30, batch_size=20),
    "improved_min_max": ImprovedMinMax(
        BUDGET, burn_in=30, batch_size=20, tau=2.0, recipe=Recipe(epochs=10, batch_size=20)
    ),
    "back_gradient": BackGradient(
        BUDGET, group=10, steps=15, step_size=0.3, unroll_steps=60, learning_rate=1.0
    ),
    "influence": InfluenceAttack(BUDGET, steps=30),
    "kkt": KktAttack(BUDGET, grid=4, steps=50),
    "poison_svm": PoisonSvm(BUDGET, steps=5),
    "total_gradient": TotalGradientAttack(
        BUDGET, placement="perturb", epochs=100, batch_size=20, hidden=(8,), defender_steps=2,
        attacker_rate=1.0,
        pretrain=Recipe(epochs=5, batch_size=20, optimizer="adam", learning_rate=1e-2),
    ),
    "gradient_canceling": GradientCanceling(
        BUDGET, bounds=Bounds(), corruption=GradPC(radius=2.0, steps=10, step_size=0.5), steps=300
    ),
    "error_minimizing": ErrorMinimizing(
        bounds=WIDE, steps=10, rounds=10, step_size=0.1,
        recipe=Recipe(batch_size=20, learning_rate=0.1),
    ),
    "gradient_matching": GradientMatching(
        BUDGET, Bounds(radius=0.3), restarts=2, steps=100, shift=0, flip=False, **TARGET
    ),
    "gaussian": GaussianPoison(Budget(0.5), noise_std=0.5),
    "meta_poison": MetaPoison(
        BUDGET, WIDE, placement="perturb", networks=8, steps=60, batch_size=20, advance_steps=5,
        horizon=40, learning_rate=0.5, network_rate=0.3, **TARGET,
    ),
}  # fmt: skip
TARGETED = {"gradient_matching", "meta_poison"}
FLIPS = {"label_flip"}


def draw(seed, n):
    """Images in [0, 1] whose class is the brighter of their first two rows."""
    x = jax.random.uniform(jax.random.key(seed), (n, *SHAPE))
    return Dataset(x, jnp.argmax(x[:, :2].mean((2, 3)), axis=-1).astype(jnp.int32))


def without_class_zero_first(dataset):
    first = int(np.flatnonzero(np.asarray(dataset.y) == 1)[0])
    return dataset.take(np.r_[first, np.delete(np.arange(dataset.size), first)])


MODEL = models.create("logistic", input_shape=SHAPE, n_classes=2)
TASK = Task(draw(0, 60), draw(1, 20), without_class_zero_first(draw(2, 40)), draw(3, 200))


@pytest.fixture(scope="module")
def clean():
    return fit(jax.random.key(0), MODEL, TASK.train, RECIPE).variables


def control(key, poisoned, *, labels):
    """Returns the set with the poisons' pixels moved at random, as far as the attack moved them."""
    rows = np.flatnonzero(poisoned.is_poison)
    base = np.asarray(poisoned.info.base)
    origin_key, way_key = jax.random.split(key)
    any_row = jax.random.randint(origin_key, base.shape, 0, TASK.train.size)
    source = np.where(base < 0, any_row, base)  # made from nothing: of any image
    origin = TASK.train.x[source].reshape(len(rows), -1)
    moved = poisoned.dataset.x[rows].reshape(len(rows), -1) - origin
    way = jax.random.normal(way_key, origin.shape)
    way = way / jnp.linalg.norm(way, axis=1, keepdims=True)
    x = jnp.clip(origin + jnp.linalg.norm(moved, axis=1, keepdims=True) * way, 0, 1)
    y = poisoned.dataset.y[rows] if labels else TASK.train.y[source]
    data = poisoned.dataset
    return data._replace(x=data.x.at[rows].set(x.reshape(-1, *SHAPE)), y=data.y.at[rows].set(y))


def harm(name, datasets, poisoned):
    """Returns [victims]: how far each victim is where the attack wants it.

    Of a targeted attack the lead of class 0 on the target, of Gaussian poisons how surely their
    noise is found in the network, of all others the loss on new data. Victim i trains on set i.
    """
    pool = concatenate(*datasets)
    rows = np.arange(pool.size).reshape(len(datasets), -1)
    keys = jax.random.split(jax.random.key(7), VICTIMS)
    subsets = np.broadcast_to(rows, (VICTIMS, rows.shape[1]))
    victims = fit_many(keys, MODEL, pool, RECIPE, subsets=subsets).variables
    each = [jax.tree.map(lambda leaf, i=i: leaf[i], victims) for i in range(VICTIMS)]
    if name == "gaussian":
        audit = GaussianUnlearningScore(gaussian_poisons(poisoned))
        found = [audit(jax.random.key(8), MODEL, victim, TASK).metrics for victim in each]
        return -np.log10([metrics["p_value"] for metrics in found])
    if name in TARGETED:
        logits = [MODEL.apply(victim, TASK.validation.x[:1])[0] for victim in each]
        return np.array([float(one[0] - one[1]) for one in logits])
    test = TASK.test
    return np.array([float(cross_entropy(MODEL.apply(one, test.x), test.y)) for one in each])


def bites(name, attack, clean):
    """Returns whether the mean victim is beyond the controls, and both."""
    poisoned = attack(jax.random.key(1), MODEL, clean, TASK)
    keys = jax.random.split(jax.random.key(2), VICTIMS)
    controls = [control(key, poisoned, labels=name not in FLIPS) for key in keys]
    harmed, harmless = (harm(name, sets, poisoned) for sets in ([poisoned.dataset], controls))
    lead = harmed.mean() - harmless.mean()
    error = np.sqrt((harmed.var(ddof=1) + harmless.var(ddof=1)) / VICTIMS)
    return bool(lead > 2 * error and lead > 1.5 * harmless.std(ddof=1)), (harmed, harmless)


def test_every_registered_attack_is_here():
    assert set(METHODS) == set(poisoning.ATTACKS)
    assert {type(method) for method in METHODS.values()} == set(poisoning.ATTACKS.values())


@pytest.mark.parametrize("name", METHODS)
def test_victims_are_worse_off_than_with_random_poisons(name, clean):
    bitten, found = bites(name, METHODS[name], clean)
    assert bitten, found


def marked(move):
    """Returns an attack that marks 20 examples as its poisons, and moves them by `move`."""

    def attack(key, model, variables, task):
        data, rows = task.train, np.arange(20)
        x = data.x.at[rows].set(jnp.clip(data.x[rows] + move(key, data.x[rows].shape), 0, 1))
        is_poison = jnp.arange(data.size) < 20
        info = PoisonInfo(jnp.asarray(rows), Bounds(), {}, Cost(0.0, 0.0))
        return Poisoned(data._replace(x=x), is_poison, info)

    return attack


@pytest.mark.parametrize("name", ["min_max", "gradient_matching"])
@pytest.mark.parametrize(
    "move",
    [lambda key, shape: jnp.zeros(shape), lambda key, shape: 0.2 * jax.random.normal(key, shape)],
    ids=["nothing", "noise"],
)
def test_an_attack_that_does_nothing_does_not_bite(name, move, clean):
    assert not bites(name, marked(move), clean)[0]
