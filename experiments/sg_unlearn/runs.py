"""The runs behind the tables and the figures."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Key

from experiments.frame import Data
from experiments.sg_unlearn.settings import ALPHAS, Setting
from unlearnkit.auditing import (
    Case,
    Evaluation,
    MembershipInference,
    NotApplicable,
    Subject,
    evaluate,
)
from unlearnkit.base import Audited, Task, Variables
from unlearnkit.data import ClassForget, ForgetRequest, RandomForget, choose_split
from unlearnkit.studies import RETRAIN, OnStage, Pair, Record, Study, Trial, grid, run, sweep
from unlearnkit.training import fit
from unlearnkit.unlearning import Retrain

Kind = Literal["random", "class"]
ATTACK = MembershipInference("loss", "logistic")
"""The attack of section 6.2: ten folds, balanced, on the cross-entropy losses."""
WATCHED = ("accuracy_test", "mia_loss_logistic_accuracy", "wasserstein", "ks_statistic")
Metrics = Mapping[str, Any]


class Choice(NamedTuple):
    """One value that was tried.

    Attributes:
      value: of the hyperparameter.
      accuracy, mia_accuracy: what `Trial` says, on average over the tries.
      diverged: in how many tries there was no result, which counts as an accuracy of 0 and an MIA
        accuracy of 1.
    """

    value: float
    accuracy: float
    mia_accuracy: float
    diverged: int

    @property
    def score(self) -> float:
        """`accuracy` - `mia_accuracy`, the larger the better."""
        return self.accuracy - self.mia_accuracy


def choose(
    key: Key[Array, ""], setting: Setting, kind: Kind, data: Data, on_stage: OnStage
) -> tuple[Setting, dict[str, list[Choice]]]:
    """Returns the setting with the best value of every grid, and all values by method.

    In each try a network is trained, and each value judged by `sweep`: the rule of section 6.1.
    One try alone may take a value that ruins the network every third time.

    Args:
      key: of this choice alone.
      setting: its grids say what is tried, and its `tries` how often.
      kind: of forgetting.
      data: examples that are not in the tables, so that what is chosen saw none of them.
      on_stage: called as the work goes on.
    """
    methods = setting.methods()
    trials: dict[str, list[tuple[Trial, ...]]] = {name: [] for name in setting.grids}
    for number in range(setting.tries):
        again = f"try {number + 1} of {setting.tries}"
        split_key, fit_key, sweep_key = jax.random.split(jax.random.fold_in(key, number), 3)
        split = choose_split(split_key, data.train, data.test, _forget(setting, kind))
        task = split.task(data.train, data.test)
        on_stage(f"training the network that hyperparameters are chosen on, {again}", 0, 1)
        variables = fit(fit_key, data.model, task.train, setting.recipe).variables
        for name, (hyperparameter, values) in setting.grids.items():
            on_stage(f"choosing the {hyperparameter} of {name}, {again}", 0, 1)
            candidates = grid(methods[name], **{hyperparameter: values})
            selection = sweep(sweep_key, data.model, variables, task, candidates, attack=ATTACK)
            trials[name].append(selection.trials)
    tried = {
        name: [average(*of) for of in zip(values, zip(*trials[name], strict=True), strict=True)]
        for name, (_, values) in setting.grids.items()
    }
    best = {name: max(choices, key=lambda c: c.score).value for name, choices in tried.items()}
    return setting.chosen(best), tried


def average(value: float, trials: Sequence[Trial]) -> Choice:
    """Returns how a value did over all tries."""
    accuracies, attacks = zip(*((t.accuracy, t.mia_accuracy) for t in trials), strict=True)
    lost = sum(trial.diverged is not None for trial in trials)
    return Choice(value, float(np.mean(accuracies)), float(np.mean(attacks)), lost)


def _forget(setting: Setting, kind: Kind) -> ForgetRequest:
    if kind == "random":
        return RandomForget(fraction=setting.forget)
    return ClassForget(setting.label, in_test=False)


@dataclasses.dataclass(frozen=True)
class TrainingLoss:
    """The loss of every epoch of `Retrain`, as a curve."""

    def judge(self, key: Key[Array, ""], case: Case, subject: Subject) -> Audited:
        """Returns the curve `loss`."""
        if not isinstance(subject.unlearner, Retrain):
            raise NotApplicable("only the losses of Retrain are drawn")
        return Audited({}, {"loss": np.asarray(subject.history["loss"])})


def compare_methods(
    key: Key[Array, ""],
    setting: Setting,
    kind: Kind,
    data: Data,
    on_stage: OnStage,
    store: Path | None = None,
) -> tuple[list[Record], list[list[float]]]:
    """Returns every method's records, and Retrain's losses by seed and epoch.

    A forgotten class is taken from the held-out data too, as in the paper, whose accuracy of
    Retrain on the forget set is 0 while that on the test set is not lower for it.

    Args:
      key: of these tables alone.
      setting: what is run.
      kind: of forgetting.
      data: the examples of the tables.
      on_stage: called as the work goes on.
      store: a folder of finished stages; None for none.
    """
    study = Study(
        data=Pair(data.train, data.test), networks=data.model, recipes=setting.recipe,
        forget=_forget(setting, kind), methods=setting.methods(), seeds=setting.seeds,
        audits={"": Evaluation((ATTACK,)), "training": TrainingLoss()},
    )  # fmt: skip
    records, losses = [], []
    for record in run(study, key, store=store, on_stage=on_stage, strict=True):
        curves = dict(record.curves)
        if "training_loss" in curves:
            losses.append([float(loss) for loss in curves.pop("training_loss")])
        if record.method != RETRAIN:
            records.append(record._replace(curves=curves, left_out={}))
    return records, losses


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


def ablate(key: Key[Array, ""], setting: Setting, data: Data, on_stage: OnStage) -> Ablation:
    """Returns SG's course at alpha 0 and 1, and its end at the alphas of the sweep."""
    model, train, test = data
    traces = {alpha: {metric: list[list[float]]() for metric in WATCHED} for alpha in ("0", "1")}
    ends = {f"{alpha:g}": {metric: list[float]() for metric in WATCHED} for alpha in ALPHAS}
    retrain = {metric: list[float]() for metric in WATCHED}
    for seed in range(setting.traces):
        keys = jax.random.split(jax.random.fold_in(key, seed), 4)
        split_key, train_key, game_key, audit_key = keys
        split = choose_split(split_key, train, test, _forget(setting, "random"))
        task = split.task(train, test)
        on_stage(f"training the networks of the ablation, seed {seed + 1}", 0, 1)
        original, retrained = (
            fit(jax.random.fold_in(train_key, index), model, examples, setting.recipe).variables
            for index, examples in enumerate((task.train, task.retain))
        )

        def judge(variables: Variables, key: Any = audit_key, task: Task = task) -> Metrics:
            return evaluate(key, model, variables, task, attacks=(ATTACK,)).metrics

        measured = {"retrain": judge(retrained)}
        before = judge(original)
        for alpha in dict.fromkeys((*traces, *ends)):
            on_stage(f"alpha {alpha}, seed {seed + 1} of {setting.traces}", 0, 1)
            game = setting.stackelberg(float(alpha))
            if alpha in traces:
                played = game.play(game_key, model, original, task)
                course = [before, *(judge(epoch.variables) for epoch in played)]
                for metric, lines in traces[alpha].items():
                    lines.append([found[metric] for found in course])
                measured[alpha] = course[-1]
            else:
                measured[alpha] = judge(game(game_key, model, original, task).variables)
        for name, lists in (("retrain", retrain), *ends.items()):
            for metric, values in lists.items():
                values.append(measured[name][metric])
    return Ablation(traces, ends, retrain)
