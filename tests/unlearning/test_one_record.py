"""One record to forget: every method at its defaults, judged against Retrain over ten seeds.

The record carries a wrong label, which the original has learned and Retrain does not guess. Seeds
share the data and differ in initialisation and order, so that each network is one training program
and each method one compiled program.
"""

import dataclasses
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from trial_settings import trial_of

from unlearnkit import models, unlearning
from unlearnkit.base import Dataset, Task, Unlearned, UnlearnInfo, Variables
from unlearnkit.models import from_linen
from unlearnkit.training import Recipe, fit_many
from unlearnkit.trials import UnlearnerTrial

RETAIN = 1024
SEEDS = {"mlp": 10, "batch_norm": 20}
RECIPE = Recipe(
    epochs=300, batch_size=RETAIN, learning_rate=0.1, weight_decay=5e-4, schedule="cosine"
)


class Normed(nn.Module):
    """Two layers with BatchNorm."""

    @nn.compact
    def __call__(self, x, train=False):
        for name in ("first", "second"):
            x = nn.Dense(24, name=name)(x)
            norm = nn.BatchNorm(use_running_average=not train, momentum=0.9, name=f"{name}_norm")
            x = nn.relu(norm(x))
        return nn.Dense(3, name="classifier")(x)


NETWORKS = {
    "mlp": models.create("mlp", input_shape=(40,), n_classes=3, hidden=(64,)),
    "batch_norm": from_linen(Normed(), input_shape=(40,)),
}
STRANGE = {"mlp": 1.0, "batch_norm": 0.125}
"""How far the record is from an example of another label, so that a network can learn both."""
EXCUSED = {
    name: trial.one_record
    for name, kind in unlearning.UNLEARNERS.items()
    if (trial := trial_of(kind, UnlearnerTrial())).one_record
}
"""Rows without an effect, three at most: on which networks, a citation and a measured figure."""


def draw(key, n, d):
    x_key, y_key = jax.random.split(key)
    y = jax.random.randint(y_key, (n,), 0, 3)
    noise = 0.12 * jax.random.normal(x_key, (n, d))
    x = jnp.clip(0.3 + 0.4 * jax.nn.one_hot(y, d) + noise, 0, 1)
    return Dataset(x, y.astype(jnp.int32))


def make_task(network, forget=1):
    (d,) = NETWORKS[network].input_shape
    keys = jax.random.split(jax.random.key(2), 4)
    retain, validation, test = (draw(keys[i], n, d) for i, n in ((0, RETAIN), (2, 60), (3, 60)))
    near = retain.take(np.arange(forget))
    x = near.x + STRANGE[network] * jax.random.normal(keys[1], near.x.shape)
    return Task(retain, Dataset(jnp.clip(x, 0, 1), (near.y + 1) % 3), validation, test)


class Trained:
    """The originals, and how sure each network and its Retrain are of the record's label."""

    def __init__(self, network, forget=1):
        self.model, self.task = NETWORKS[network], make_task(network, forget)
        whole = dataclasses.replace(RECIPE, batch_size=RETAIN + forget)
        self.seeds = SEEDS[network]
        keys = jax.random.split(jax.random.key(0), (2, self.seeds))
        self.originals = fit_many(keys[0], self.model, self.task.train, whole).variables
        retrained = fit_many(keys[1], self.model, self.task.retain, RECIPE).variables
        self.before = confidence(self.originals, self.task.forget, model=self.model)
        self.aim = confidence(retrained, self.task.forget, model=self.model)

    def original(self, seed):
        return jax.tree.map(lambda leaf: leaf[seed], self.originals)

    def run(self, method):
        return [
            method(jax.random.key(50 + seed), self.model, self.original(seed), self.task)
            for seed in range(self.seeds)
        ]

    def gains(self, results):
        """How much nearer to Retrain each result is than its original: [seeds]."""
        variables = jax.tree.map(lambda *leaves: jnp.stack(leaves), *(r.variables for r in results))
        after = confidence(variables, self.task.forget, model=self.model)
        return np.mean(abs(self.before - self.aim) - abs(after - self.aim), axis=1)


def confidence(variables, dataset, *, model):
    probabilities = _probabilities(variables, dataset.x, model=model)
    return np.asarray(probabilities[:, np.arange(dataset.size), dataset.y], np.float64)


@functools.partial(jax.jit, static_argnames="model")
def _probabilities(variables, x, *, model):
    return jax.vmap(lambda one: jax.nn.softmax(model.apply(one, x)))(variables)


def errors_above_zero(gains):
    return gains.mean() / (gains.std(ddof=1) / np.sqrt(len(gains)))


@pytest.fixture(scope="module", params=list(NETWORKS))
def network(request):
    return request.param


@pytest.fixture(scope="module")
def trained(network):
    return Trained(network)


def test_the_original_knows_the_record_and_retrain_does_not(trained):
    assert trained.before.mean() > 0.4
    assert trained.aim.mean() < 0.1


@pytest.mark.parametrize("name", list(unlearning.UNLEARNERS))
def test_forgets_one_record_at_its_defaults(name, network, trained):
    results = trained.run(unlearning.create(name))
    gains = trained.gains(results)
    if network not in EXCUSED.get(name, ((), ""))[0]:
        assert errors_above_zero(gains) > 2, (
            f"{name} at its defaults comes nearer to Retrain by {gains.mean():.3f} in probability, "
            f"{errors_above_zero(gains):.1f} standard errors; more than 2 are asked"
        )


def test_at_most_three_rows_are_excused_for_a_reason_and_by_a_figure():
    assert len(EXCUSED) <= 3
    for networks, reason in EXCUSED.values():
        assert networks <= set(NETWORKS)
        assert "Measured" in reason


def test_a_placebo_has_no_effect(trained):
    def placebo(key, model, variables, task):
        leaves, structure = jax.tree.flatten(variables.params)
        keys = jax.random.split(jax.random.fold_in(key, 1), len(leaves))
        pairs = zip(keys, leaves, strict=True)
        moved = [leaf + 1e-6 * jax.random.normal(k, leaf.shape) for k, leaf in pairs]
        params = jax.tree.unflatten(structure, moved)
        return Unlearned(Variables(params, variables.state), UnlearnInfo({}, None))

    assert errors_above_zero(trained.gains(trained.run(placebo))) < 2
