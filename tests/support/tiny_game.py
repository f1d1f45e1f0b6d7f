"""A tiny network, task and game for the tests of SG-Unlearn."""

import dataclasses

import jax
import jax.numpy as jnp

from unlearnkit.base import Dataset, Task, Variables
from unlearnkit.models import from_functions
from unlearnkit.unlearning import AUDITORS, StackelbergUnlearn
from unlearnkit.unlearning.stackelberg.auditing_set import make_pool
from unlearnkit.unlearning.stackelberg.game import Game, answer_auditor, auditor_cost

KEY = jax.random.key(7)


def init(key):
    first, second = jax.random.split(key)
    return {
        "hidden": {"kernel": 0.6 * jax.random.normal(first, (4, 5)), "bias": jnp.zeros(5)},
        "logits": {"kernel": 0.6 * jax.random.normal(second, (5, 3)), "bias": jnp.zeros(3)},
    }


def apply(params, x):
    hidden = jnp.tanh(x @ params["hidden"]["kernel"] + params["hidden"]["bias"])
    return hidden @ params["logits"]["kernel"] + params["logits"]["bias"]


answer = jax.jit(answer_auditor, static_argnames=("model", "game"))
cost_of = jax.jit(auditor_cost, static_argnames=("model", "game"))
MODEL = from_functions(init, apply, input_shape=(4,))


def examples(seed, n):
    x_key, y_key = jax.random.split(jax.random.key(seed))
    return Dataset(jax.random.normal(x_key, (n, 4)), jax.random.randint(y_key, (n,), 0, 3))


def make_task(n_forget=13, n_validation=17, n_retain=40):
    return Task(
        examples(1, n_retain), examples(2, n_forget), examples(3, n_validation), examples(4, 20)
    )


def make_game(task, *, name="logistic", feature="logits", path="total", **options):
    chosen = {"folds": 3, "same_classes": False, "per_class": False}
    pool, size, _ = make_pool(task, **(chosen | {k: options[k] for k in options if k in chosen}))
    chunk = options.get("chunk", 1000)
    game = Game(
        AUDITORS[name], feature, path, options.get("folds", 3), size, chunk,
        n_strata=pool.quotas.shape[0] // 2, moves=True,
    )  # fmt: skip
    return pool, game


QUICK = StackelbergUnlearn(epochs=3, batch_size=8, learning_rate=0.05, auditor="quantile")
"""The auditor that compiles fastest; what is tested with it does not depend on the auditor."""


def play(task=None, *, variables=None, **options):
    variables = Variables(init(jax.random.key(11))) if variables is None else variables
    return dataclasses.replace(QUICK, **options)(KEY, MODEL, variables, task or make_task())
