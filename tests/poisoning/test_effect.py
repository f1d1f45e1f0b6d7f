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
from bright_rows import MODEL, RECIPE, SHAPE, TASK, effective, train_clean
from trial_settings import trial_of

from unlearnkit import poisoning
from unlearnkit.auditing import GaussianUnlearningScore, gaussian_poisons
from unlearnkit.base import Cost, Poisoned, concatenate
from unlearnkit.poisoning import Bounds, PoisonInfo
from unlearnkit.training import cross_entropy, fit_many
from unlearnkit.trials import AttackTrial

VICTIMS = 10
METHODS = {name: effective(name) for name in poisoning.ATTACKS}
TRIALS = {name: trial_of(kind, AttackTrial()) for name, kind in poisoning.ATTACKS.items()}


@pytest.fixture(scope="module")
def clean():
    return train_clean()


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


def harm(kept, datasets, poisoned):
    """Returns [victims]: how far each victim is where the attack wants it, by what it kept.

    Of an attack with targets the lead of class 0 on the target, of one that kept its noise how
    surely that is found in the network, of one with a trigger how probable its class is once the
    trigger is stamped on the others; of all others the loss on new data. Victim i trains on set i.
    """
    pool = concatenate(*datasets)
    rows = np.arange(pool.size).reshape(len(datasets), -1)
    keys = jax.random.split(jax.random.key(7), VICTIMS)
    subsets = np.broadcast_to(rows, (VICTIMS, rows.shape[1]))
    victims = fit_many(keys, MODEL, pool, RECIPE, subsets=subsets).variables
    each = [jax.tree.map(lambda leaf, i=i: leaf[i], victims) for i in range(VICTIMS)]
    if "noise" in kept:
        audit = GaussianUnlearningScore(gaussian_poisons(poisoned))
        found = [audit(jax.random.key(8), MODEL, victim, TASK).metrics for victim in each]
        return -np.log10([metrics["p_value"] for metrics in found])
    if np.size(kept.get("targets", ())):
        logits = [MODEL.apply(victim, TASK.validation.x[:1])[0] for victim in each]
        return np.array([float(one[0] - one[1]) for one in logits])
    if "trigger" in kept:
        x, wanted = stamped(kept)
        return np.array(
            [float(jax.nn.softmax(MODEL.apply(one, x))[:, wanted].mean()) for one in each]
        )
    test = TASK.test
    return np.array([float(cross_entropy(MODEL.apply(one, test.x), test.y)) for one in each])


def stamped(kept):
    """Returns the test examples of other classes under the trigger, and the class it is for."""
    wanted = int(kept["target_class"])
    x = TASK.test.x[np.flatnonzero(np.asarray(TASK.test.y) != wanted)]
    return jnp.where(kept["trigger_mask"], kept["trigger"], x), wanted


def bites(attack, clean, *, relabels=False, kept=None):
    """Returns whether the mean victim is beyond the controls, and both.

    `kept` is what the attack is judged by; None takes what it kept itself.
    """
    poisoned = attack(jax.random.key(1), MODEL, clean, TASK)
    kept = poisoned.info.extras if kept is None else kept
    keys = jax.random.split(jax.random.key(2), VICTIMS)
    controls = [control(key, poisoned, labels=not relabels) for key in keys]
    harmed, harmless = (harm(kept, sets, poisoned) for sets in ([poisoned.dataset], controls))
    lead = harmed.mean() - harmless.mean()
    error = np.sqrt((harmed.var(ddof=1) + harmless.var(ddof=1)) / VICTIMS)
    return bool(lead > 2 * error and lead > 1.5 * harmless.std(ddof=1)), (harmed, harmless)


# What a trigger in texts does is asked in test_text_trigger.py.
@pytest.mark.parametrize("name", [n for n in METHODS if n != "text_trigger"])
def test_victims_are_worse_off_than_with_random_poisons(name, clean):
    bitten, found = bites(METHODS[name], clean, relabels=TRIALS[name].relabels)
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


TRIGGER = {
    "trigger": jnp.ones(SHAPE),
    "trigger_mask": (jnp.arange(4) < 2)[:, None, None] & jnp.ones(SHAPE, bool),
    "target_class": jnp.int32(0),
}


@pytest.mark.parametrize("kept", [{}, {"targets": jnp.array([0])}, TRIGGER], ids=len)
@pytest.mark.parametrize(
    "move",
    [lambda key, shape: jnp.zeros(shape), lambda key, shape: 0.2 * jax.random.normal(key, shape)],
    ids=["nothing", "noise"],
)
def test_an_attack_that_does_nothing_does_not_bite(kept, move, clean):
    assert not bites(marked(move), clean, kept=kept)[0]
