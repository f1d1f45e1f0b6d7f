"""The runs behind the tables and the figures."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Key

from experiments.sg_unlearn.settings import ALPHAS, Setting
from unlearnkit.auditing import MembershipInference, evaluate
from unlearnkit.base import Dataset, Model, OnEpoch, Record, Task, Unlearned, Unlearner, Variables
from unlearnkit.data import ClassForget, RandomForget, choose_split
from unlearnkit.study import OnStage, compare
from unlearnkit.training import fit_many

Kind = Literal["random", "class"]
ATTACK = MembershipInference("loss", "logistic")
"""The attack of section 6.2: ten folds, balanced, on the cross-entropy losses."""
WATCHED = (
    "accuracy_test", "mia_loss_logistic_accuracy", "wasserstein", "ks_statistic"
)  # fmt: skip


class Recorded:
    """An unlearner that remembers the loss of every epoch of every run."""

    def __init__(self, method: Unlearner):
        self.method = method
        self.losses: list[list[float]] = []
        self.recipe = getattr(method, "recipe", None)

    def __call__(
        self,
        key: Key[Array, ""],
        model: Model,
        variables: Variables,
        task: Task,
        *,
        on_epoch: OnEpoch | None = None,
    ) -> Unlearned:
        unlearned = self.method(key, model, variables, task, on_epoch=on_epoch)
        self.losses.append([float(loss) for loss in unlearned.info.history["loss"]])
        return unlearned


def compare_methods(
    key: Key[Array, ""],
    setting: Setting,
    kind: Kind,
    model: Model,
    train: Dataset,
    test: Dataset,
    on_stage: OnStage,
) -> tuple[list[Record], list[list[float]]]:
    """Returns every method's records, and Retrain's losses by seed and epoch.

    A forgotten class is taken from the held-out data too, as in the paper, whose accuracy of
    Retrain on the forget set is 0 while that on the test set is not lower for it.
    """
    forget = (
        RandomForget(fraction=setting.forget)
        if kind == "random"
        else ClassForget(setting.label, in_test=False)
    )
    methods = dict(setting.methods())
    retrain = Recorded(methods["retrain"])
    methods["retrain"] = retrain
    records = list(
        compare(
            key,
            model,
            train,
            test,
            forget=forget,
            recipe=setting.recipe,
            methods=methods,
            seeds=setting.seeds,
            attacks=(ATTACK,),
            on_stage=on_stage,
        )
    )
    return records, retrain.losses


class Ablation(NamedTuple):
    """What the auditor does to random forgetting.

    Attributes:
      traces: by alpha (`0` and `1`) and metric, [seeds, 1 + epochs]; epoch 0 is the original.
      sweep: by alpha of Figure 2 and metric, [seeds].
      retrain: by metric, [seeds].
    """

    traces: dict[str, dict[str, list[list[float]]]]
    sweep: dict[str, dict[str, list[float]]]
    retrain: dict[str, list[float]]


def ablate(
    key: Key[Array, ""],
    setting: Setting,
    model: Model,
    train: Dataset,
    test: Dataset,
    on_stage: OnStage,
) -> Ablation:
    """Returns SG's course at alpha 0 and 1, and its end at the alphas of the sweep."""
    seeds = setting.traces
    split_keys, train_keys, game_keys, audit_keys = zip(
        *(jax.random.split(jax.random.fold_in(key, seed), 4) for seed in range(seeds)),
        strict=True,
    )
    forget = RandomForget(fraction=setting.forget)
    splits = [choose_split(split_key, train, test, forget) for split_key in split_keys]
    networks = {}
    for index, (name, rows) in enumerate(
        (
            ("originals", [np.concatenate([split.retain, split.forget]) for split in splits]),
            ("retrainings", [split.retain for split in splits]),
        )
    ):
        on_stage(f"training the {name} of the ablation", 0, 1)
        keys = [jax.random.fold_in(train_key, index) for train_key in train_keys]
        networks[name] = fit_many(
            jnp.stack(keys), model, train, setting.recipe, subsets=np.stack(rows)
        ).variables
    traces: dict[str, dict[str, list[list[float]]]] = {
        alpha: {metric: [] for metric in WATCHED} for alpha in ("0", "1")
    }
    sweep: dict[str, dict[str, list[float]]] = {
        f"{alpha:g}": {metric: [] for metric in WATCHED} for alpha in ALPHAS
    }
    retrain: dict[str, list[float]] = {metric: [] for metric in WATCHED}
    for seed, split in enumerate(splits):
        task = split.task(train, test)
        original, retrained = (
            jax.tree.map(lambda leaf, seed=seed: leaf[seed], networks[name])
            for name in ("originals", "retrainings")
        )
        judge = _Judge(audit_keys[seed], model, task)
        _append(retrain, judge(retrained))
        for alpha, trace in traces.items():
            on_stage(f"alpha {alpha} over the epochs, seed {seed + 1} of {seeds}", 0, 1)
            courses = [judge(original)]
            game = setting.stackelberg(float(alpha))
            for played in game.play(game_keys[seed], model, original, task):
                courses.append(judge(played.variables))
            for metric in WATCHED:
                trace[metric].append([course[metric] for course in courses])
        for alpha, ends in sweep.items():
            on_stage(f"alpha {alpha}, seed {seed + 1} of {seeds}", 0, 1)
            game = setting.stackelberg(float(alpha))
            _append(ends, judge(game(game_keys[seed], model, original, task).variables))
    return Ablation(traces, sweep, retrain)


@dataclasses.dataclass(frozen=True)
class _Judge:
    key: Key[Array, ""]
    model: Model
    task: Task

    def __call__(self, variables: Variables) -> Mapping[str, Any]:
        return evaluate(self.key, self.model, variables, self.task, attacks=(ATTACK,)).metrics


def _append(lists: dict[str, list[float]], metrics: Mapping[str, float]) -> None:
    for name, values in lists.items():
        values.append(metrics[name])
