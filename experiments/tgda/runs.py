"""The protocol of section 4.2: train, poison, train from scratch on what is poisoned, compare."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Key

from experiments.frame import collect_warnings, draw_order
from experiments.tgda.settings import Target
from unlearnkit import models
from unlearnkit.auditing import CaseAudit, FilterScore, PoisonSize, PoisonTransfer, accuracy
from unlearnkit.base import Audit, Audited, Cost, Dataset, Model, Poisoned, Task, Variables
from unlearnkit.data import load
from unlearnkit.defences import DefenceWarning
from unlearnkit.poisoning import FROM_SCRATCH, PoisonWarning
from unlearnkit.studies import ORIGINAL, RETRAIN, OnStage, Pair, Record, Study, run
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


@dataclasses.dataclass(frozen=True)
class TestAccuracy:
    """The accuracy on the test set."""

    __test__ = False

    def __call__(
        self, key: Key[Array, ""], model: Model, variables: Variables, task: Task
    ) -> Audited:
        """Returns it."""
        return Audited({"accuracy": accuracy(model, variables, task.test)})


def attack_all(
    key: Key[Array, ""], target: Target, data: Data, on_stage: OnStage, store: Path | None = None
) -> Outcome:
    """Returns what each attack does to the network, seed by seed.

    Clean and poisoned training of a seed share a key, so that their difference is the poisons'.

    Args:
      key: of the whole.
      target: what is attacked by what.
      data: from `load_data`.
      on_stage: called as the work goes on.
      store: a folder of finished stages; None for none.
    """
    notes: dict[str, list[str]] = {name: [] for name in target.attacks}
    samples: dict[str, Sample] = {}
    costs: dict[tuple[str, int], Cost] = {}

    def keep(name: str, seed: int, poisoned: Poisoned) -> None:
        costs[name, seed] = poisoned.info.cost
        if seed == 0:
            samples[name] = _sample(poisoned, data.train)

    found: list[Record] = []
    for study in _studies(target, data):
        records = run(study, key, store=store, on_stage=on_stage, on_poisoned=keep, strict=True)
        while True:
            told: list[str] = []
            with collect_warnings(told, PoisonWarning), collect_warnings(told, DefenceWarning):
                record = next(records, None)
            if record is None:
                break
            found.append(record)
            of_attack = notes[record.question]
            of_attack += [note for note in told if note not in of_attack]
    rows = [row for seed in range(target.seeds) for row in _rows(seed, target, found, costs)]
    return Outcome(rows, notes, samples)


def _studies(target: Target, data: Data) -> Iterator[Study]:
    """Yields the study of TGDA on other networks and behind defences, and that of all others."""
    shared: Any = {
        "data": Pair(data.train, data.test, data.test), "networks": data.model,
        "recipes": target.recipe, "seeds": target.seeds, "paired": True, "reference": "clean",
    }  # fmt: skip
    audits: dict[str, Audit | CaseAudit] = {"": TestAccuracy(), "poisons": PoisonSize()}
    further: dict[str, Audit | CaseAudit] = {"filter": FilterScore()}
    further["transfer"] = PoisonTransfer(data.others)
    if others := {name: made for name, made in target.attacks.items() if name != TGDA}:
        yield Study(attacks=others, audits=audits, **shared)
    if TGDA in target.attacks:
        yield Study(
            attacks={TGDA: target.attacks[TGDA]}, audits=audits | further,
            defences=target.defences, **shared,
        )  # fmt: skip


def _rows(
    seed: int, target: Target, found: Sequence[Record], costs: Mapping[tuple[str, int], Cost]
) -> Iterator[Record]:
    """Yields the rows of a seed: the clean network, then each attack with all that it was asked."""
    own = [record for record in found if record.seed == seed]
    clean = next((r.metrics["accuracy"] for r in own if r.method == RETRAIN), math.nan)
    rows = {name: [r for r in own if (r.question, r.method) == (name, ORIGINAL)]
            for name in target.attacks}  # fmt: skip
    metrics = {"accuracy": clean, "drop": 0.0, "poisons": 0.0}
    for name in target.transfer:
        for record in rows.get(TGDA, []):
            if (before := record.metrics.get(f"transfer_accuracy_clean_{name}")) is not None:
                metrics[f"accuracy_{name}"] = before
    yield Record(CLEAN, seed, metrics, Cost(0.0, 0.0))
    for name, (undefended, *defended) in rows.items():
        if not undefended.finished:
            yield Record(name, seed, {}, Cost(0.0, 0.0), undefended.diverged)
            continue
        told = undefended.metrics
        metrics = {"accuracy": told["accuracy"], "drop": clean - told["accuracy"]}
        metrics |= _renamed(told, "poisons_", "{}") | _renamed(told, "transfer_drop_", "drop_on_{}")
        for record in (record for record in defended if record.finished):
            after = record.metrics
            metrics[f"drop_after_{record.defence}"] = clean - after["accuracy"]
            for score in ("precision", "recall"):
                metrics |= _renamed(after, f"filter_{score}", f"{score}_of_{record.defence}")
        yield Record(name, seed, metrics, costs[name, seed])


def _renamed(metrics: Mapping[str, float], prefix: str, name: str) -> dict[str, float]:
    """Returns the metrics that begin with a prefix, the rest of their names put into another."""
    return {
        name.format(metric.removeprefix(prefix)): value
        for metric, value in metrics.items() if metric.startswith(prefix)
    }  # fmt: skip


def _sample(poisoned: Poisoned, train: Dataset) -> Sample:
    base = np.asarray(poisoned.info.base)
    rows = np.unique(np.linspace(0, len(base) - 1, min(SHOWN, len(base))).round().astype(int))
    pixels = check_continuous(train, method="a picture").invert
    places = np.flatnonzero(poisoned.is_poison)[rows]
    x = np.asarray(pixels(poisoned.dataset.x[places]))
    if np.any(base == FROM_SCRATCH):
        return Sample(x, None)
    return Sample(x, np.asarray(pixels(train.x[base[rows]])))
