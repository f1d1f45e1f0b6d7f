"""What a defence achieves: how well it finds the poisons, and the network trained after it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Key

from unlearnkit.base import (
    Dataset,
    Defence,
    Defended,
    Model,
    RobustTrainer,
    TrainInfo,
    Variables,
)
from unlearnkit.kernels.filter_score import check_poisons, score_defence
from unlearnkit.training import Recipe, fit, predict
from unlearnkit.validation import check_compatible, check_dataset, check_variables


class Retrained(NamedTuple):
    """A network trained under a defence.

    Attributes:
      variables: the network.
      defended: what the defence decided; None of one that keeps all examples.
      metrics: see `defend_and_retrain`.
      info: how the last training went.
    """

    variables: Variables
    defended: Defended | None
    metrics: Mapping[str, float]
    info: TrainInfo


def defend_and_retrain(
    key: Key[Array, ""],
    defence: Defence | RobustTrainer,
    model: Model,
    variables: Variables,
    dataset: Dataset,
    recipe: Recipe,
    *,
    test: Dataset,
    is_poison: Bool[Array | np.ndarray, " n"] | None = None,
) -> Retrained:
    """Returns a fresh network trained on what a defence keeps, or by one that trains itself.

    Metrics: `accuracy_test` of the new network and `accuracy_test_undefended` of the given one; of
    a defence that drops examples also `kept`, the number that it keeps, and where the poisons are
    known those of `score_defence`.

    Args:
      key: its halves drive the defence and the training; the second alone a `RobustTrainer`.
      defence: a filter or a `RobustTrainer`.
      model: the network.
      variables: trained on all of `dataset`.
      dataset: [n] training examples, poisons among them.
      recipe: how to train; give it the recipe of `variables`.
      test: unseen clean examples.
      is_poison: [n] which are poisons, where known.

    Raises:
      ValueError: data or variables that do not fit the model, `is_poison` without a poison or of
        another length, a class that would vanish, or a batch larger than what is kept.
      DivergedError: the loss or a score is no longer finite.

    Example:
      defence, recipe = defences.Sever(fraction=0.03), training.Recipe(epochs=10)
      found = defences.defend_and_retrain(
          key, defence, model, variables, poisoned.dataset, recipe, test=test
      )
    """
    for name, part in (("dataset", dataset), ("test", test)):
        check_dataset(part, name=name)
        check_compatible(part, model, name=name)
    check_variables(variables, model)
    if is_poison is not None:
        check_poisons(is_poison, dataset.size)
    defence_key, train_key = jax.random.split(key)
    metrics = {"accuracy_test_undefended": _accuracy(model, variables, test)}
    if isinstance(defence, RobustTrainer):
        defended, trained = None, defence.fit(train_key, model, dataset, recipe)
    else:
        defended = defence(defence_key, model, variables, dataset)
        rows = np.flatnonzero(defended.keep)
        trained = fit(train_key, model, dataset.take(rows), recipe)
        metrics["kept"] = float(len(rows))
        if is_poison is not None:
            metrics |= score_defence(defended, is_poison)
    metrics["accuracy_test"] = _accuracy(model, trained.variables, test)
    return Retrained(trained.variables, defended, metrics, trained.info)


def _accuracy(model: Model, variables: Variables, dataset: Dataset) -> float:
    logits = predict(model, variables, dataset.x)
    return float(jnp.mean(jnp.argmax(logits, axis=1) == dataset.y))
