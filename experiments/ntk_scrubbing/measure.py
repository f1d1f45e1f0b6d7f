"""One seed: fine-tuning with and without the forget set, scrubbing, and what is read out."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Key

from experiments.frame import rounded
from experiments.ntk_scrubbing.settings import Setting
from unlearnkit import auditing
from unlearnkit.base import Cost, Dataset, Model, Params, Task, Variables
from unlearnkit.costs import Stopwatch
from unlearnkit.host import epoch_rows, host_key, reserve
from unlearnkit.studies import Record
from unlearnkit.training import (
    CrossEntropy,
    Recipe,
    init_train_state,
    predict,
    rate_table,
    take_steps,
)
from unlearnkit.unlearning import NtkScrub
from unlearnkit.unlearning.fisher_forgetting import fisher_noise_variance, gaussian_around

ORIGINAL, RETRAIN = "original", "retrain"
CLOUD = 60
"""Draws of the noise in Figure 1."""

OnWork = Callable[[str], None]


@dataclasses.dataclass(frozen=True)
class Seed:
    """What one seed gives: a record per method, and the numbers of the figures by name."""

    records: list[Record]
    figures: dict[str, Any]


def run_seed(
    key: Key[Array, ""],
    seed: int,
    setting: Setting,
    model: Model,
    start: Variables,
    task: Task,
    on_work: OnWork,
) -> Seed:
    """Returns the records and figures of one seed.

    The reference is fine-tuned on the retain set with the seed of the original. The row `retrain`
    is another fine-tuning with another key: its distance to the reference is the floor.
    """
    tune_key, other_key, method_key, audit_key, figure_key = jax.random.split(key, 5)
    on_work("fine-tuning")
    original, path_all, _ = fine_tune(tune_key, model, task.train, setting.tune, start)
    reference, path_retain, _ = fine_tune(tune_key, model, task.retain, setting.tune, start)
    retrained, _, retrain_cost = fine_tune(other_key, model, task.retain, setting.tune, start)
    relearn = auditing.RelearnTime(
        auditing.forget_loss(model, original, task),
        cap=setting.relearn_cap,
        momentum=setting.tune.momentum,
        samples=task.train.size,
        batch_size=min(setting.tune.batch_size, task.train.size),
    )
    networks = {ORIGINAL: (original, Cost(0.0, 0.0)), RETRAIN: (retrained, retrain_cost)}
    extra: dict[str, dict[str, float]] = {}
    for index, (name, method) in enumerate(setting.methods().items()):
        on_work(name)
        run = functools.partial(method, initial=start) if isinstance(method, NtkScrub) else method
        unlearned = run(jax.random.fold_in(method_key, index), model, original, task)
        networks[name] = (unlearned.variables, unlearned.info.cost)
        if "shift" in unlearned.info.history:
            extra[name] = {"shift": float(unlearned.info.history["shift"][-1])}
    records = []
    for name, (variables, spent) in networks.items():
        on_work(f"reading out {name}")
        metrics = read_out(audit_key, model, variables, task, reference, relearn)
        away = optax.tree.norm(optax.tree.sub(variables.params, reference.params))
        metrics["weight_distance"] = float(away)
        records.append(Record(name, seed, metrics | extra.get(name, {}), spent))
    on_work("figures")
    scrubbed = networks["ntk"][0]
    shapes = {
        name: NoiseShape.measure(model, variables, task)
        for name, variables in (("fisher", original), ("ntk", scrubbed), ("reference", reference))
    }
    noisy = {name: shape.scaled(setting.ntk_noise) for name, shape in shapes.items()}
    clouds = {"fisher": shapes["fisher"].scaled(setting.fisher), "ntk": noisy["ntk"]}
    judged = functools.partial(
        auditing.information_tradeoff, figure_key, model, levels=setting.levels
    )
    figures = {
        "paths": path_figure(figure_key, path_all, path_retain, clouds),
        "tradeoff": {
            name: rounded(judged(noisy[name], noisy["reference"], task).curves)
            for name in ("fisher", "ntk")
        },
        "leakage": rounded(
            auditing.sample_leakage(model, noisy["ntk"], noisy["reference"], task, limit=100).curves
        ),
        "activations": rounded(
            auditing.scrubbing_path(model, original, scrubbed, reference, task).curves
        ),
    }
    return Seed(records, figures)


def fine_tune(
    key: Key[Array, ""], model: Model, dataset: Dataset, recipe: Recipe, start: Variables
) -> tuple[Variables, Params, Cost]:
    """Returns the weights, their path with an epoch per point, and the cost."""
    (order_key, step), held = host_key(key).split(), reserve(dataset)
    steps, objective = recipe.steps_per_epoch(dataset.size), CrossEntropy(model, recipe)
    step_key, rates = step.typed(), rate_table(recipe, steps, recipe.epochs * steps)
    state = init_train_state(recipe, steps, jax.tree.map(jnp.array, start))
    path = [jax.tree.map(np.array, start.params)]
    with Stopwatch() as watch:
        for epoch in range(recipe.epochs):
            rows = epoch_rows(order_key, epoch, dataset.size, recipe.batch_size)
            now = rates[epoch * steps : (epoch + 1) * steps]
            state, _ = take_steps(
                state, held, rows, now, step_key, objective=objective, recipe=recipe
            )
            path.append(jax.tree.map(np.array, state.variables.params))
    spent = Cost(
        float(recipe.epochs * steps * recipe.batch_size), watch.seconds, watch.compile_seconds
    )
    return state.variables, _stack(path), spent


def read_out(
    key: Key[Array, ""],
    model: Model,
    variables: Variables,
    task: Task,
    reference: Variables,
    relearn: auditing.RelearnTime,
) -> dict[str, float]:
    """Returns the readouts of Golatkar et al. 2020b, §5.4, and distances to the reference."""
    attack_key, relearn_key = jax.random.split(key)
    metrics = {
        f"error_{name}": 1 - auditing.accuracy(model, variables, getattr(task, name))
        for name in ("retain", "forget", "test")
    }
    attacked = auditing.EntropySvm(balanced=False)(attack_key, model, variables, task).metrics
    metrics["member_share_forget"] = attacked["member_share_forget"]
    metrics |= relearn(relearn_key, model, variables, task).metrics
    for name in ("retain", "forget"):
        x = getattr(task, name).x
        one, other = (predict(model, weights, x) for weights in (variables, reference))
        metrics[f"activation_distance_{name}"] = auditing.activation_distance(one, other)
    return metrics


@dataclasses.dataclass(frozen=True)
class NoiseShape:
    """Weights, and the Fisher noise of Golatkar et al. 2020b around them up to its scale."""

    variables: Variables
    variance: Params

    @classmethod
    def measure(cls, model: Model, variables: Variables, task: Task) -> NoiseShape:
        """Returns the noise of scale 1; it takes a backward pass per class of the retain set."""
        return cls(variables, fisher_noise_variance(model, variables, task.retain.x, alpha=1.0))

    def scaled(self, alpha: float) -> auditing.GaussianWeights:
        """Returns the noise of scale `alpha`."""
        return auditing.GaussianWeights(self.variables, optax.tree.scale(alpha, self.variance))


def path_figure(
    key: Key[Array, ""],
    path_all: Params,
    path_retain: Params,
    clouds: dict[str, auditing.GaussianWeights],
) -> dict[str, Any]:
    """Returns Figure 1: both paths, and each method's weights with its noise, in their plane."""
    plane = auditing.principal_paths({"all": path_all, "retain": path_retain})
    figure: dict[str, Any] = rounded(dict(plane.coordinates))
    figure["explained"] = rounded(plane.explained)
    keys = jax.random.split(key, CLOUD)
    for name, (mean, variance) in clouds.items():
        draws = [gaussian_around(k, mean.params, variance) for k in keys]
        figure[f"{name}_noise"] = rounded(plane.project(_stack(draws)))
        figure[f"{name}_mean"] = rounded(plane.project(_stack([mean.params])))[0]
    return figure


def _stack(trees: list[Params]) -> Params:
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)
