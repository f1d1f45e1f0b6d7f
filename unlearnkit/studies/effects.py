"""One poisoned training set: networks trained with it and without, and what is left of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Array, Key

from unlearnkit.auditing import (
    AccuracyDrop,
    GaussianUnlearningScore,
    TargetedSuccess,
    accuracy,
    gaussian_poisons,
    model_shift,
    poison_targets,
)
from unlearnkit.base import (
    Attack,
    Audit,
    Cost,
    Dataset,
    Model,
    Poisoned,
    Task,
    Unlearned,
    Variables,
)
from unlearnkit.host.random import host_key
from unlearnkit.training import Recipe, fit
from unlearnkit.unlearning import Retrain

OWN_AUDITS = frozenset({"", "gaussian", "targets"})
"""Names that begin the metrics of the effects that every study measures."""


class PoisonedTraining(NamedTuple):
    """The outcome of steps 1 and 2 of `poison_and_unlearn`, and the audits of step 4.

    Attributes:
      poisoned: the training set.
      task: U = the poisons are to be forgotten; all else stays.
      clean: the network that trained on the clean data.
      trained: the network that trained on the poisoned data.
      retrained: a network retrained without the poisons, which no method gets to see, and its cost.
      audits: of the effects of this attack, by name.
    """

    poisoned: Poisoned
    task: Task
    clean: Variables
    trained: Variables
    retrained: Unlearned
    audits: Mapping[str, Audit]

    @property
    def full_gradients(self) -> float:
        """The example-gradients of retraining."""
        return self.retrained.info.cost.example_gradients


def poison_and_train(
    key: Key[Array, ""],
    model: Model,
    clean: Variables,
    task: Task,
    attack: Attack,
    recipe: Recipe,
    *,
    audits: Mapping[str, Audit] | None = None,
) -> PoisonedTraining:
    """Returns a poisoned training set, the network trained on it, and one trained without it.

    Args:
      key: of the attack and of both trainings.
      model: the network.
      clean: weights trained on `task.train`, which the attack may look at.
      task: what is attacked: `task.train` is the clean training set.
      attack: what poisons it.
      recipe: how both networks are trained.
      audits: more of them than `poison_effects` measures anyway.

    Raises:
      ValueError: what the attack refuses, or an attack that poisoned everything.
      DivergedError: the attack or a training diverged.
    """
    keys = host_key(key).split(3)
    attack_key, train_key, retrain_key = (part.typed() for part in keys)
    poisoned = attack(attack_key, model, clean, task)
    question = poisoned_task(poisoned, task.validation, task.test)
    trained = fit(train_key, model, poisoned.dataset, recipe).variables
    retrained = Retrain(recipe)(retrain_key, model, trained, question)
    chosen: dict[str, Audit] = {"": AccuracyDrop(clean)}
    extras = getattr(poisoned.info, "extras", {})
    if "noise" in extras:
        chosen["gaussian"] = GaussianUnlearningScore(gaussian_poisons(poisoned))
    if np.size(extras.get("targets", ())):
        chosen["targets"] = TargetedSuccess(poison_targets(poisoned, task.validation))
    chosen |= audits or {}
    return PoisonedTraining(poisoned, question, clean, trained, retrained, chosen)


def poisoned_task(poisoned: Poisoned, validation: Dataset, test: Dataset) -> Task:
    """Returns the task of forgetting all poisons of a training set, U = S_poison.

    Args:
      poisoned: a training set and which of its n examples are poisons.
      validation: clean examples that no method trains on.
      test: clean examples to judge by.

    Raises:
      ValueError: no poisons, or nothing but poisons.
    """
    is_poison = np.asarray(poisoned.is_poison)
    if not 0 < is_poison.sum() < len(is_poison):
        raise ValueError(
            f"there must be poisons and clean examples, but {int(is_poison.sum())} of "
            f"{len(is_poison)} are poisons; choose another budget of the attack"
        )
    retain, forget = (
        poisoned.dataset.take(np.flatnonzero(rows)) for rows in (~is_poison, is_poison)
    )
    return Task(retain, forget, validation, test)


def poison_effects(
    key: Key[Array, ""],
    model: Model,
    variables: Variables,
    poisoned_training: PoisonedTraining,
    cost: Cost,
) -> tuple[dict[str, float], dict[str, Any]]:
    """Returns the metrics and curves of step 4.

    Args:
      key: of the audits.
      model: the network.
      variables: what an unlearning method left.
      poisoned_training: the poisons, and the networks to compare with.
      cost: of the method.

    Metrics:
      accuracy_{retain,forget}: on the clean examples that stay, and on the poisons
      accuracy_test, accuracy_clean, accuracy_drop, accuracy_drop_se: see `AccuracyDrop`
      gaussian_*: see `GaussianUnlearningScore`; where the attack kept its noise
      targets_*: see `TargetedSuccess`; where the attack had targets
      shift_{l1,l2}: how far the weights are from those that trained on the poisons
      compute: example-gradients, as a share of those of retraining

    Raises:
      ValueError: what an audit refuses.
    """
    metrics: dict[str, float] = {}
    curves: dict[str, Any] = {}
    for name in ("retain", "forget"):
        part = getattr(poisoned_training.task, name)
        metrics[f"accuracy_{name}"] = accuracy(model, variables, part)
    for name, audit in poisoned_training.audits.items():
        found = audit(key, model, variables, poisoned_training.task)
        prefix = f"{name}_" if name else ""
        metrics |= {f"{prefix}{metric}": value for metric, value in found.metrics.items()}
        curves |= {f"{prefix}{curve}": value for curve, value in found.curves.items()}
    shift = model_shift(variables.params, poisoned_training.trained.params)
    metrics |= {"shift_l1": shift.l1, "shift_l2": shift.l2}
    metrics["compute"] = cost.example_gradients / poisoned_training.full_gradients
    return metrics, curves
