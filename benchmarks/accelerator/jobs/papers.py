"""The papers' experiments on ResNet-18 and with whole games, by their own code."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np

from benchmarks.accelerator.context import Context, Split
from benchmarks.accelerator.jobs.training import fast_recipe, make_resnet18
from benchmarks.frame import Row, Timing
from experiments.poison_unlearning import settings as poison_setting
from experiments.sg_unlearn import runs, settings
from experiments.tgda.settings import Target, targets
from unlearnkit import models
from unlearnkit.auditing import accuracy
from unlearnkit.base import Cost, Dataset, Model, Poisoned, Task, Variables, concatenate
from unlearnkit.data import RandomForget
from unlearnkit.poisoning import PoisonWarning, TotalGradientAttack, attack_in_lanes
from unlearnkit.studies import compare, poison_and_unlearn
from unlearnkit.training import fit_many

AT_ONCE = 6
"""Methods of the first seed that compile side by side."""


def sg_unlearn(context: Context) -> Iterator[Row]:
    """Di et al. 2024, Table 1: random forgetting on ResNet-18 by every method, each seed's rows."""
    context.check_memory()
    data, setting = context.data("cifar10"), sg_setting(context)
    records = compare(
        jax.random.key(0),
        _network(context),
        data.train,
        data.test,
        forget=RandomForget(fraction=setting.forget),
        recipe=setting.recipe,
        methods=few_methods(context, setting.methods()),
        seeds=setting.seeds,
        attacks=(runs.ATTACK,),
        on_stage=Announced(context),
        compile_at_once=AT_ONCE,
        batching="map",  # one ResNet-18 fills a card, and its grouped convolutions are slow
    )
    for record in records:
        yield row_of(
            f"Di et al. 2024: {record.method}",
            f"{_name(context)}, {100 * setting.forget:g} % forgotten, seed {record.seed}",
            record.cost,
            record.metrics,
            record.diverged,
        )


def _name(context: Context) -> str:
    return context.pick("ResNet-18", "mlp") + ", CIFAR-10"


def _network(context: Context) -> Model:
    """Returns ResNet-18; in a rehearsal a network that compiles at once."""
    if context.rehearse:
        return models.create("mlp", input_shape=(32, 32, 3), n_classes=10, hidden=(32, 32, 32))
    return make_resnet18(context)


def sg_setting(context: Context) -> settings.Setting:
    """Returns the paper's setting with the fast recipe; methods keep their share of its epochs."""
    whole = settings.settings("paper")["cifar10"]
    recipe = fast_recipe(context)
    share = recipe.epochs / whole.recipe.epochs
    tuned = {
        name: {
            option: max(1, round(share * value)) if option == "epochs" else value
            for option, value in options.items()
        }
        for name, options in whole.tuned.items()
    }
    tuned["scrub"] |= {"max_epochs": 1, "milestones": ()}
    return dataclasses.replace(
        whole,
        recipe=recipe,
        tuned=tuned,
        forget=context.pick(whole.forget, 0.25),
        seeds=context.pick(3, 1),
    )


def few_methods(context: Context, methods: Mapping[str, Any]) -> dict[str, Any]:
    """Returns all methods, and for a rehearsal, which compiles for most of its time, some."""
    kept = context.pick(tuple(methods), ("retrain", "fine_tune", "stackelberg"))
    return {name: method for name, method in methods.items() if name in kept}


class Announced:
    """Reports a job's stages, once each."""

    def __init__(self, context: Context):
        self._context, self._last = context, ""

    def __call__(self, stage: str, done: int, total: int) -> None:
        if stage != self._last:
            self._context.say(stage)
        self._last = stage


def row_of(kernel: str, size: str, cost: Cost, metrics: Mapping[str, Any], lost: str | None) -> Row:
    shown = {
        "retain": "accuracy_retain",
        "forget": "accuracy_forget",
        "test": "accuracy_test",
        "accuracy": "accuracy",
        "trigger": "targets_targeted_success",
        "MIA": "mia_loss_logistic_accuracy",
    }
    shares = [
        f"{short} {100 * metrics[name]:.1f} %" for short, name in shown.items() if name in metrics
    ]
    numbers = {name: float(value) for name, value in metrics.items() if np.ndim(value) == 0}
    return Row(
        kernel,
        size,
        Timing(cost.seconds, cost.seconds, 1, cost.compile_seconds),
        accuracy=", ".join(shares),
        note=lost or "",
        metrics={**numbers, "example_gradients": cost.example_gradients},
    )


# Pawelczyk et al. 2024: poisons and what is left of them ------------------------------------------


def gaussian(context: Context) -> Iterator[Row]:
    """Pawelczyk et al. 2024: Gaussian poisons."""
    yield from poison_rows(context, "gaussian")


def targeted(context: Context) -> Iterator[Row]:
    """Pawelczyk et al. 2024: poisons for a target, by gradient matching."""
    yield from poison_rows(context, "targeted")


def indiscriminate(context: Context) -> Iterator[Row]:
    """Pawelczyk et al. 2024: poisons against all, by gradient canceling."""
    yield from poison_rows(context, "indiscriminate")


def poison_rows(context: Context, poison: poison_setting.Poison) -> Iterator[Row]:
    """Yields what Retrain and seven methods leave of one kind of poisons, a row per seed."""
    context.check_memory()
    data, setting = context.data("cifar10"), poison_settings(context)
    index = poison_setting.POISONS.index(poison)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PoisonWarning)  # a column of the experiment's own table
        records = poison_and_unlearn(
            jax.random.fold_in(jax.random.key(0), index),
            _network(context),
            data.train,
            data.test,
            attacks=setting.attacks(poison),
            recipe=setting.recipe,
            methods=few_methods(context, setting.methods()),
            budgets=setting.budgets,
            seeds=setting.seeds,
            on_stage=Announced(context),
        )
        for record in records:
            yield row_of(
                f"Pawelczyk et al. 2024, {poison}: {record.method}",
                f"{_name(context)}, {record.question} poisoned, seed {record.seed}",
                record.cost,
                record.metrics,
                record.diverged or record.over_budget,
            )


def poison_settings(context: Context) -> poison_setting.Setting:
    """Returns the paper's setting with the fast recipe, one ε and one budget; attacks cut short."""
    whole = poison_setting.choose_settings("paper")["cifar10"]
    recipe = fast_recipe(context)
    share = context.pick(0.015, 0.1)
    return dataclasses.replace(
        whole,
        recipe=recipe,
        gaussian=(share,),
        targeted=(share,),
        indiscriminate=(share,),
        budgets=(context.pick(0.1, 1.0),),
        rate_factor=whole.recipe.epochs / recipe.epochs,
        matching=dataclasses.replace(whole.matching, restarts=1, steps=context.pick(250, 1)),
        canceling=dataclasses.replace(whole.canceling, steps=context.pick(250, 1)),
        seeds=context.pick(2, 1),
    )


# Lu et al. 2022: games ----------------------------------------------------------------------------


def tgda(context: Context) -> Iterator[Row]:
    """Lu et al. 2022: TGDA's whole games against NN and the CNN, all seeds in lanes."""
    context.check_memory()
    data = context.data("mnist", normalisation="unit")
    for name in context.pick(("mnist-nn", "mnist-cnn"), ("mnist-nn",)):
        context.say(name)
        yield from game_rows(context, name, data)


def tgda_colour(context: Context) -> Iterator[Row]:
    """Lu et al. 2022: TGDA's whole game against the CNN on CIFAR-10, all seeds in lanes."""
    context.check_memory()
    data = context.data("cifar10", normalisation="unit")
    yield from game_rows(context, "cifar10-cnn", data)


def game_rows(context: Context, name: str, data: Split) -> Iterator[Row]:
    """Yields what TGDA does to one network, a row per seed."""
    target = shortened(context, targets("paper")[name])
    shape = tuple(data.train.x.shape[1:])
    model = models.create(target.model, input_shape=shape, n_classes=10)
    seeds = context.pick(target.seeds, 2)
    train_keys, attack_keys = (
        jax.random.split(jax.random.fold_in(jax.random.key(0), half), seeds) for half in (0, 1)
    )
    context.say("training on clean data")
    clean = fit_many(train_keys, model, data.train, target.recipe).variables
    last = data.train.size - 1
    task = Task(
        data.train.take(np.arange(last)), data.train.take(np.array([last])), data.test, data.test
    )
    attack: Any = target.attacks["tgda"]
    context.say("the game")
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always", PoisonWarning)
        poisoned = attack_in_lanes(attack, attack_keys, model, clean, task)
    context.say("training on poisoned data")
    trained = train_on_each(train_keys, model, target, poisoned)
    messages = "; ".join(sorted({str(warning.message) for warning in warned}))
    for seed, made in enumerate(poisoned):
        before, after = (
            accuracy(model, jax.tree.map(lambda leaf, i=seed: leaf[i], networks), data.test)
            for networks in (clean, trained)
        )
        metrics = {"accuracy": after, "accuracy_clean": before, "drop": before - after}
        row = row_of(
            f"Lu et al. 2022: TGDA on {target.model}",
            f"{name}, {data.train.size:,} images, ε {attack.budget.epsilon:g}, seed {seed}",
            made.info.cost,
            metrics,
            None,
        )
        note = "; ".join(filter(None, ["points lost", messages]))
        yield dataclasses.replace(row, value=100 * (before - after), note=note)


def train_on_each(keys: Any, model: Model, target: Target, poisoned: list[Poisoned]) -> Variables:
    """Returns the networks trained on each poisoned set, side by side."""
    sets: list[Dataset] = [made.dataset for made in poisoned]
    sizes = [one.size for one in sets]
    starts = np.cumsum([0, *sizes[:-1]])
    rows = np.stack([start + np.arange(size) for start, size in zip(starts, sizes, strict=True)])
    return fit_many(
        jax.random.clone(keys), model, concatenate(*sets), target.recipe, subsets=rows
    ).variables


def shortened(context: Context, target: Target) -> Target:
    """Returns the target, in a rehearsal with one epoch of everything."""
    if not context.rehearse:
        return target
    recipe = dataclasses.replace(target.recipe, epochs=1, batch_size=64)
    attack = target.attacks["tgda"]
    assert isinstance(attack, TotalGradientAttack)
    brief = dataclasses.replace(
        attack,
        epochs=1,
        batch_size=64,
        defender_steps=1,
        max_solve_steps=2,
        hidden=(8,),
        pretrain=dataclasses.replace(attack.pretrain, epochs=0),
    )
    return dataclasses.replace(target, model="logistic", recipe=recipe, attacks={"tgda": brief})
