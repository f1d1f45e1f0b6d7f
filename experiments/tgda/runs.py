"""The protocol of section 4.2: train, poison, train from scratch on what is poisoned, compare."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Key

from experiments.frame import collect_warnings, draw_order
from experiments.tgda.settings import Target
from unlearnkit import models
from unlearnkit.auditing import accuracy
from unlearnkit.base import (
    Attack,
    Cost,
    Dataset,
    Defence,
    Model,
    Poisoned,
    RobustTrainer,
    Task,
    Variables,
)
from unlearnkit.data import load
from unlearnkit.defences import DefenceWarning, score_defence
from unlearnkit.poisoning import FROM_SCRATCH, PoisonWarning
from unlearnkit.studies import OnStage, Record
from unlearnkit.training import DivergedError, fit
from unlearnkit.validation import check_continuous

CLEAN, TGDA = "clean", "tgda"
SHOWN = 6
"""Poisons of a picture."""


class Data(NamedTuple):
    """The examples of a target, and the networks that are trained on them: its own and others."""

    model: Model
    others: dict[str, Model]
    train: Dataset
    test: Dataset


class Sample(NamedTuple):
    """Some poisons [k, h, w, c], as pixels in [0, 1], and what they were made of, if anything."""

    poison: np.ndarray
    base: np.ndarray | None


class Outcome(NamedTuple):
    """What came of all attacks on a target.

    Attributes:
      records: a method for each attack, and `clean`; accuracies in [0, 1].
      notes: by attack, what it warned of.
      samples: poisons of the first seed, by attack.
    """

    records: list[Record]
    notes: dict[str, list[str]]
    samples: dict[str, Sample]


def load_data(target: Target, data_dir: Path | None) -> Data:
    """Returns the target's examples, pixels in [0, 1], its subset drawn by a key of its own."""
    train, test = (
        _keep_classes(load(target.dataset, split=split, data_dir=data_dir), target.classes)
        for split in ("train", "test")
    )
    shape: dict[str, Any] = {
        "input_shape": train.x.shape[1:], "n_classes": int(jnp.max(train.y)) + 1
    }  # fmt: skip
    if target.train is not None:
        if target.train > train.size:
            raise ValueError(
                f"{target.source} has {train.size} training examples, fewer than {target.train}"
            )
        train = train.take(draw_order(train)[: target.train])
    names = (target.model, *target.transfer)
    model, *others = (models.create(name, **shape) for name in names)
    return Data(model, dict(zip(target.transfer, others, strict=True)), train, test)


def _keep_classes(dataset: Dataset, classes: tuple[int, ...] | None) -> Dataset:
    if classes is None:
        return dataset
    y = np.asarray(dataset.y)
    kept = dataset.take(np.flatnonzero(np.isin(y, classes)))
    labels = np.searchsorted(np.asarray(classes), np.asarray(kept.y))
    return kept._replace(y=jnp.asarray(labels, jnp.int32))


def attack_all(key: Key[Array, ""], target: Target, data: Data, on_stage: OnStage) -> Outcome:
    """Returns what each attack does to the network, seed by seed.

    Clean and poisoned training of a seed share a key, so that their difference is the poisons'. A
    `Study` draws another key for every training, and so cannot take the place of this.

    Args:
      key: of the whole.
      target: what is attacked by what.
      data: from `load_data`.
      on_stage: called as the work goes on.
    """
    outcome = Outcome([], {}, {})
    for seed in range(target.seeds):
        of = f", seed {seed + 1} of {target.seeds}"
        on_stage(f"training on clean data{of}", 0, 1)
        train_key, attack_key = jax.random.split(jax.random.fold_in(key, seed))
        bench = _Bench(train_key, attack_key, target, data)
        networks = {CLEAN: data.model, **data.others}
        clean = {name: bench.train(model, data.train) for name, model in networks.items()}
        metrics = {"accuracy": clean[CLEAN].accuracy, "drop": 0.0, "poisons": 0.0}
        metrics |= {f"accuracy_{name}": clean[name].accuracy for name in data.others}
        outcome.records.append(Record(CLEAN, seed, metrics, Cost(0.0, 0.0)))
        for name, attack in target.attacks.items():
            on_stage(f"{name}{of}", 0, 1)
            notes = outcome.notes.setdefault(name, [])
            try:
                with collect_warnings(notes, PoisonWarning):
                    poisoned = bench.poison(attack, clean[CLEAN].variables)
                with collect_warnings(notes, DefenceWarning):
                    metrics = bench.judge(poisoned, clean, further=name == TGDA)
            except DivergedError as error:
                outcome.records.append(Record(name, seed, {}, Cost(0.0, 0.0), str(error)))
                continue
            outcome.records.append(Record(name, seed, metrics, poisoned.info.cost))
            if seed == 0:
                outcome.samples[name] = _sample(poisoned, data.train)
    return outcome


class Trained(NamedTuple):
    """A network after training, and its accuracy on the test set."""

    variables: Variables
    accuracy: float


class _Bench(NamedTuple):
    """One seed: who trains, always in the same way, and who attacks."""

    train_key: Key[Array, ""]
    attack_key: Key[Array, ""]
    target: Target
    data: Data

    def train(self, model: Model, dataset: Dataset) -> Trained:
        trained = fit(jax.random.clone(self.train_key), model, dataset, self.target.recipe)
        return Trained(trained.variables, accuracy(model, trained.variables, self.data.test))

    def poison(self, attack: Attack, variables: Variables) -> Poisoned:
        """Attacks the clean examples as a task; no attack here reads what is not its `train`."""
        model, _, train, test = self.data
        last = train.size - 1
        task = Task(train.take(np.arange(last)), train.take(np.array([last])), test, test)
        return attack(jax.random.clone(self.attack_key), model, variables, task)

    def judge(
        self, poisoned: Poisoned, clean: Mapping[str, Trained], *, further: bool
    ) -> dict[str, float]:
        """Returns what the poisons do; further, to other networks and after each defence."""
        trained = self.train(self.data.model, poisoned.dataset)
        metrics = {
            "accuracy": trained.accuracy,
            "drop": clean[CLEAN].accuracy - trained.accuracy,
            "poisons": float(poisoned.is_poison.sum()),
            **_describe(poisoned, self.data.train),
        }
        if further:
            for name, model in self.data.others.items():
                moved = self.train(model, poisoned.dataset).accuracy
                metrics[f"drop_on_{name}"] = clean[name].accuracy - moved
            for number, (name, defence) in enumerate(self.target.defences.items()):
                after, found = self._defend(number, defence, poisoned, trained.variables)
                metrics[f"drop_after_{name}"] = clean[CLEAN].accuracy - after
                metrics |= {f"{metric}_of_{name}": value for metric, value in found.items()}
        return metrics

    def _defend(
        self,
        number: int,
        defence: Defence | RobustTrainer,
        poisoned: Poisoned,
        variables: Variables,
    ) -> tuple[float, dict[str, float]]:
        """Returns the accuracy after a defence (Tables 10 and 11), and how well a filter found."""
        model, dataset = self.data.model, poisoned.dataset
        if isinstance(defence, RobustTrainer):
            key = jax.random.clone(self.train_key)
            robust = defence.fit(key, model, dataset, self.target.recipe).variables
            return accuracy(model, robust, self.data.test), {}
        own_key = jax.random.fold_in(self.attack_key, number)
        defended = defence(own_key, model, variables, dataset)
        score = score_defence(defended, poisoned.is_poison)
        kept = dataset.take(np.flatnonzero(defended.keep))
        found = {metric: score[metric] for metric in ("precision", "recall")}
        return self.train(model, kept).accuracy, found


def _describe(poisoned: Poisoned, train: Dataset) -> dict[str, float]:
    """Returns how far poisons are from what they were made of, and how well solves ended.

    `change` is the mean over the poisons of the largest change of a pixel, in [0, 1] (Figure 5).
    """
    info: Any = poisoned.info
    found: dict[str, float] = {}
    if "solve_steps" in info.history:
        found["residual"] = float(info.history["residual"][-1])
    if not bool(jnp.any(info.base == FROM_SCRATCH)):
        x, base = _pixels(poisoned, train, np.arange(len(info.base)))
        largest = np.abs(x - base).reshape(len(x), -1).max(1)
        found["change"] = float(largest.mean())
    return found


def _sample(poisoned: Poisoned, train: Dataset) -> Sample:
    m = int(poisoned.is_poison.sum())
    rows = np.unique(np.linspace(0, m - 1, min(SHOWN, m)).round().astype(int))
    x, base = _pixels(poisoned, train, rows)
    scratch = bool(jnp.any(poisoned.info.base == FROM_SCRATCH))
    return Sample(x, None if scratch else base)


def _pixels(poisoned: Poisoned, train: Dataset, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns poisons and their base images; those of poisons made of nothing mean nothing."""
    places = np.flatnonzero(np.asarray(poisoned.is_poison))[rows]
    base = np.asarray(poisoned.info.base)[rows]
    normalisation = check_continuous(train, method="a picture")
    return (
        np.asarray(normalisation.invert(poisoned.dataset.x[places])),
        np.asarray(normalisation.invert(train.x[np.maximum(base, 0)])),
    )
