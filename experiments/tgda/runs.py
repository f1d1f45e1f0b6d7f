"""The protocol of section 4.2: train, poison, train from scratch on what is poisoned, compare."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Key

from experiments.frame import collect_warnings
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
    """Some poisons of an attack, as pixels in [0, 1].

    Attributes:
      poison: [k, h, w, c].
      base: [k, h, w, c] what they were made of, None for poisons made of nothing.
    """

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
        "input_shape": tuple(train.x.shape[1:]),
        "n_classes": int(jnp.max(train.y)) + 1,
    }
    if target.train is not None:
        if target.train > train.size:
            raise ValueError(
                f"{target.source} has {train.size} training examples, fewer than {target.train}"
            )
        train = train.take(jax.random.permutation(jax.random.key(0), train.size)[: target.train])
    model = models.create(target.model, **shape)
    others = {name: models.create(name, **shape) for name in target.transfer}
    return Data(model, others, train, test)


def _keep_classes(dataset: Dataset, classes: tuple[int, ...] | None) -> Dataset:
    if classes is None:
        return dataset
    y = np.asarray(dataset.y)
    kept = dataset.take(np.flatnonzero(np.isin(y, classes)))
    labels = np.searchsorted(np.asarray(classes), np.asarray(kept.y))
    return kept._replace(y=jnp.asarray(labels, jnp.int32))


def attack_all(
    key: Key[Array, ""],
    target: Target,
    data: Data,
    on_stage: OnStage,
) -> Outcome:
    """Returns what each attack does to the network, seed by seed.

    Clean and poisoned training of a seed share a key, so that their difference is the poisons'.

    Args:
      key: of the whole.
      target: what is attacked by what.
      data: from `load_data`.
      on_stage: called as the work goes on.
    """
    outcome = Outcome([], {}, {})
    for seed in range(target.seeds):
        train_key, attack_key = jax.random.split(jax.random.fold_in(key, seed))

        def tell(stage: str, seed: int = seed) -> None:
            on_stage(f"{stage}, seed {seed + 1} of {target.seeds}", 0, 1)

        tell("training on clean data")
        defender = _Defender(train_key, target, data)
        clean = defender.measure(data.train, {CLEAN: data.model, **data.others})
        outcome.records.append(Record(CLEAN, seed, _named(clean), Cost(0.0, 0.0)))
        for name, attack in target.attacks.items():
            tell(name)
            run = _Run(name, attack, attack_key, defender, clean)
            record = run(outcome, seed)
            outcome.records.append(record)
    return outcome


class Trained(NamedTuple):
    """A network after training, and its accuracy on the test set."""

    variables: Variables
    accuracy: float


class _Defender(NamedTuple):
    """Who trains, always in the same way."""

    key: Key[Array, ""]
    target: Target
    data: Data

    def train(self, model: Model, dataset: Dataset) -> Trained:
        variables = fit(jax.random.clone(self.key), model, dataset, self.target.recipe).variables
        return Trained(variables, accuracy(model, variables, self.data.test))

    def measure(self, dataset: Dataset, networks: Mapping[str, Model]) -> dict[str, Trained]:
        return {name: self.train(model, dataset) for name, model in networks.items()}

    def task(self) -> Task:
        """Returns the clean examples as a task; no attack here reads what is not its `train`."""
        train, test = self.data.train, self.data.test
        last = train.size - 1
        return Task(train.take(np.arange(last)), train.take(np.array([last])), test, test)


class _Run(NamedTuple):
    """One attack on one seed."""

    name: str
    attack: Attack
    key: Key[Array, ""]
    defender: _Defender
    clean: Mapping[str, Trained]

    def __call__(self, outcome: Outcome, seed: int) -> Record:
        try:
            poisoned = self._poison(outcome.notes)
            metrics = self._judge(poisoned, outcome.notes)
        except DivergedError as error:
            return Record(self.name, seed, {}, Cost(0.0, 0.0), str(error))
        if seed == 0:
            outcome.samples[self.name] = _sample(poisoned, self.defender.data.train)
        return Record(self.name, seed, metrics, poisoned.info.cost)

    def _poison(self, notes: dict[str, list[str]]) -> Poisoned:
        defender = self.defender
        with collect_warnings(notes.setdefault(self.name, []), PoisonWarning):
            return self.attack(
                jax.random.clone(self.key),
                defender.data.model,
                self.clean[CLEAN].variables,
                defender.task(),
            )

    def _judge(self, poisoned: Poisoned, notes: dict[str, list[str]]) -> dict[str, float]:
        defender, data = self.defender, self.defender.data
        trained = defender.train(data.model, poisoned.dataset)
        metrics = {
            "accuracy": trained.accuracy,
            "drop": self.clean[CLEAN].accuracy - trained.accuracy,
            "poisons": float(poisoned.is_poison.sum()),
            **_describe(poisoned, data.train),
        }
        if self.name != TGDA:
            return metrics
        for name, model in data.others.items():
            moved = defender.train(model, poisoned.dataset).accuracy
            metrics[f"drop_on_{name}"] = self.clean[name].accuracy - moved
        for number, (name, defence) in enumerate(defender.target.defences.items()):
            with collect_warnings(notes.setdefault(self.name, []), DefenceWarning):
                metrics |= self._defend(name, number, defence, poisoned, trained.variables)
        return metrics

    def _defend(
        self,
        name: str,
        number: int,
        defence: Defence | RobustTrainer,
        poisoned: Poisoned,
        variables: Variables,
    ) -> dict[str, float]:
        """Returns the drop that a defence leaves (Tables 10 and 11), and what a filter found."""
        defender, model, found = self.defender, self.defender.data.model, {}
        if isinstance(defence, RobustTrainer):
            train_key, recipe = jax.random.clone(defender.key), defender.target.recipe
            robust = defence.fit(train_key, model, poisoned.dataset, recipe).variables
            after = accuracy(model, robust, defender.data.test)
        else:
            own_key = jax.random.fold_in(self.key, number)
            defended = defence(own_key, model, variables, poisoned.dataset)
            score = score_defence(defended, poisoned.is_poison)
            found = {f"{metric}_of_{name}": score[metric] for metric in ("precision", "recall")}
            kept = poisoned.dataset.take(np.flatnonzero(defended.keep))
            after = defender.train(model, kept).accuracy
        return {f"drop_after_{name}": self.clean[CLEAN].accuracy - after, **found}


def _named(clean: Mapping[str, Trained]) -> dict[str, float]:
    own = {"accuracy": clean[CLEAN].accuracy, "drop": 0.0, "poisons": 0.0}
    others = {f"accuracy_{n}": t.accuracy for n, t in clean.items() if n != CLEAN}
    return own | others


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
