"""Tiny images of two classes and a linear network: what every registered attack can poison."""

import jax
import jax.numpy as jnp
import numpy as np
from trial_settings import made, trial_of

from unlearnkit import models, poisoning
from unlearnkit.base import Dataset, Task
from unlearnkit.poisoning import Budget
from unlearnkit.training import Recipe, fit
from unlearnkit.trials import AttackTrial

SHAPE = (4, 4, 1)
RECIPE = Recipe(epochs=20, batch_size=20, learning_rate=0.3)
EFFECTIVE = {
    "budget": Budget(0.25),  # 20 of 80
    "batch_size": 20,
    "recipe": Recipe(epochs=10, batch_size=20),
    "targets": (0,),
    "adversarial_class": 0,
}
"""What an attack is given of it by the names of its fields; see `unlearnkit.trials` for more.

The target is a validation example of class 1, which the victim shall take for class 0.
"""


def draw(seed, n):
    """Images in [0, 1] whose class is the brighter of their first two rows."""
    x = jax.random.uniform(jax.random.key(seed), (n, *SHAPE))
    return Dataset(x, jnp.argmax(x[:, :2].mean((2, 3)), axis=-1).astype(jnp.int32))


def without_class_zero_first(dataset):
    first = int(np.flatnonzero(np.asarray(dataset.y) == 1)[0])
    return dataset.take(np.r_[first, np.delete(np.arange(dataset.size), first)])


MODEL = models.create("logistic", input_shape=SHAPE, n_classes=2)
TASK = Task(draw(0, 60), draw(1, 20), without_class_zero_first(draw(2, 40)), draw(3, 200))


def train_clean():
    return fit(jax.random.key(0), MODEL, TASK.train, RECIPE).variables


def effective(name):
    """Returns the registered attack with settings that bite here."""
    kind = poisoning.ATTACKS[name]
    return made(kind, EFFECTIVE, trial_of(kind, AttackTrial()).effective)
