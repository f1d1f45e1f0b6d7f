"""A log forged to forget: does it pass the verifier, and what do audits say of its model?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Key

from experiments.forging.measure import OnWork, highest_precision, verdict
from experiments.forging.settings import Forgetting
from experiments.frame import Data, rounded
from unlearnkit.auditing import (
    GaussianUnlearningScore,
    MembershipInference,
    accuracy,
    gaussian_poisons,
)
from unlearnkit.base import Dataset, Model, Poisoned, Task, Variables
from unlearnkit.data import RandomForget, make_task
from unlearnkit.forging import Calibration, calibrate, forge_trajectory, verify
from unlearnkit.forging.detectors import frequency_of_use, redrawn_steps
from unlearnkit.poisoning import Budget, GaussianPoison
from unlearnkit.training import fit, read_trajectory

MODELS = ("claimed", "retrained")
"""The model of the log, which a forged log claims never to have seen D_f, and one that has not."""
LITERATURE = 7.9e-3
"""What a verifier would have to allow for the attack of Kong et al. (2023): LeNet/MNIST, in l2."""


class Question(NamedTuple):
    """Training data, what of them is to be forgotten, and the task that the audits look at.

    Attributes:
      poisoned: the training set, its poisons among the examples to be forgotten.
      forget: rows of it: ordinary examples and poisons.
      kept: all other rows.
      task: its forget set are the ordinary examples; test examples are their like.
    """

    poisoned: Poisoned
    forget: np.ndarray
    kept: np.ndarray
    task: Task


def make_question(key: Key[Array, ""], setting: Forgetting, data: Data) -> Question:
    """Returns the question. Poisons are audited by their noise alone, for it tells them apart."""
    model, train, test = data
    rows_key, task_key, poison_key, init_key = jax.random.split(key, 4)
    own = train.take(jax.random.permutation(rows_key, train.size)[: setting.train])
    drawn = make_task(task_key, own, test, RandomForget(fraction=setting.fraction))
    attack = GaussianPoison(Budget(setting.poisons), noise_std=setting.noise_std)
    poisoned = attack(poison_key, model, model.init(init_key), drawn)
    poisons = np.flatnonzero(poisoned.is_poison)
    ordinary = np.setdiff1d(np.arange(drawn.retain.size, setting.train), poisons)
    forget = np.union1d(ordinary, poisons)
    kept = np.setdiff1d(np.arange(setting.train), forget)
    mixed = poisoned.dataset
    task = Task(mixed.take(kept), mixed.take(ordinary), drawn.validation, drawn.test)
    return Question(poisoned, forget, kept, task)


def run_seed(
    key: Key[Array, ""],
    setting: Forgetting,
    data: Data,
    folder: Path,
    on_work: OnWork,
    *,
    forge: bool,
) -> dict[str, Any]:
    """Returns the audits of both models and, where asked, the forged logs' fate: JSON values.

    Args:
      key: of this seed.
      setting: of the run.
      data: the network, training data to draw from, unseen data.
      folder: for logs.
      on_work: called as the work goes on.
      forge: whether the log is forged.
    """
    question_key, fit_key, retrain_key, audit_key, forge_key = jax.random.split(key, 5)
    question = make_question(question_key, setting, data)
    model, mixed = data.model, question.poisoned.dataset
    log = folder / "true" if forge else None
    on_work("training the model that forgets nothing")
    with highest_precision():
        claimed = fit(fit_key, model, mixed, setting.recipe, trajectory=log, every=1).variables
        on_work("retraining without what is to be forgotten")
        kept = mixed.take(question.kept)
        retrained = fit(retrain_key, model, kept, setting.recipe).variables
    audits = {
        name: audit(audit_key, model, variables, question)
        for name, variables in zip(MODELS, (claimed, retrained), strict=True)
    }
    found: dict[str, Any] = {"forgotten": len(question.forget), "audits": audits}
    if log is not None:
        found |= judge_logs(forge_key, setting, model, question, log, on_work)
    return rounded(found)


def audit(
    key: Key[Array, ""], model: Model, variables: Variables, question: Question
) -> dict[str, float]:
    """Returns accuracies, the loss attack on ordinary examples, and the poisons' score."""
    task = question.task
    metrics = {
        f"accuracy_{name}": accuracy(model, variables, getattr(task, name))
        for name in ("retain", "forget", "test")
    }
    attack = MembershipInference("loss", "logistic")(key, model, variables, task).metrics
    metrics |= {f"mia_{name}": attack[name] for name in ("accuracy", "auc", "auc_se")}
    score = GaussianUnlearningScore(gaussian_poisons(question.poisoned))
    found = score(key, model, variables, task).metrics
    return metrics | {name: float(found[name]) for name in ("gus", "z", "p_value")}


def judge_logs(
    key: Key[Array, ""],
    setting: Forgetting,
    model: Model,
    question: Question,
    log: Path,
    on_work: OnWork,
) -> dict[str, Any]:
    """Returns the verdicts on the true log and on its forgeries, which are written beside it."""
    calibration_key, forge_key = jax.random.split(key)
    data = question.poisoned.dataset
    segments = min(setting.segments, read_trajectory(log).segments)
    with highest_precision():
        on_work("calibrating the verifier")
        calibration = calibrate(
            calibration_key, log, data, model=model, segments=segments, shuffles=segments
        )
        logs = {"true": judge(log, model, data, calibration)}
        for index, (name, forger) in enumerate(setting.forgers.items()):
            on_work(f"forging the log: {name}")
            forged = forge_trajectory(
                jax.random.fold_in(forge_key, index),
                log,
                data,
                forget=question.forget,
                forger=forger,
                folder=log.with_name(name),
                model=model,
            )
            described = {"forger": repr(forger), "batches": len(forged.steps)}
            logs[name] = described | judge(forged.folder, model, data, calibration)
    band = list(calibration.band)
    return {"tolerance": calibration.tolerance, "band": band, "logs": logs}


def judge(log: Path, model: Model, data: Dataset, calibration: Calibration) -> dict[str, Any]:
    """Returns what verifier and detectors say of a log."""
    report = verify(log, data, tolerance=calibration.tolerance, model=model)
    logged = read_trajectory(log)
    usage = frequency_of_use(logged)
    return {
        **verdict(report),
        "steps": report.steps.tolist(),
        "errors": report.errors.tolist(),
        "carried_errors": report.carried_errors.tolist(),
        "lenient": int(np.sum(report.errors <= LITERATURE)),
        "redrawn_steps": int(redrawn_steps(logged).size),
        "repeated": int(np.max(usage.repeated)),
        "never": int(usage.never.size),
    }


def differences(seeds: Sequence[Mapping[str, Any]], metric: str) -> list[float]:
    """Returns claimed less retrained of a metric, one per seed."""
    claimed, retrained = ([seed["audits"][name][metric] for seed in seeds] for name in MODELS)
    return [one - other for one, other in zip(claimed, retrained, strict=True)]
