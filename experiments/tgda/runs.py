"""The protocol of section 4.2: train, poison, train from scratch on what is poisoned, compare."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Array, Key

from experiments import frame
from experiments.frame import Data
from experiments.tgda.settings import Target
from unlearnkit import models
from unlearnkit.auditing import AccuracyDrop, CaseAudit, FilterScore, PoisonSize, PoisonTransfer
from unlearnkit.base import Audit, Cost, Dataset, Poisoned
from unlearnkit.defences import DefenceWarning
from unlearnkit.poisoning import FROM_SCRATCH, PoisonWarning
from unlearnkit.studies import ORIGINAL, OnStage, Pair, Record, Study, run
from unlearnkit.validation import check_continuous

CLEAN, TGDA, PGAN = "clean", "tgda", "pgan"
PGAN_DEFENCE = "loss_filter"
"""What pGAN is tried against (Table 10); TGDA is tried against all."""
SHOWN = 6
"""Poisons of a picture."""


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


def attack_all(
    key: Key[Array, ""], target: Target, data: Data, on_stage: OnStage, store: Path | None = None
) -> Outcome:
    """Returns what each attack does to the network, seed by seed.

    Clean and poisoned training of a seed share a key, so that their difference is the poisons'.

    Args:
      key: of the whole.
      target: what is attacked by what.
      data: network and examples.
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

    found, told = list[Record](), list[str]()
    options: dict[str, Any] = {"store": store, "on_stage": on_stage, "on_poisoned": keep}
    with frame.collect_warnings(told, PoisonWarning, DefenceWarning):
        for study in _studies(target, data):
            for record in run(study, key, strict=True, **options):
                found.append(record)
                notes[record.question] += [n for n in told if n not in notes[record.question]]
                told.clear()
    rows = [row for seed in range(target.seeds) for row in _rows(seed, target, found, costs)]
    return Outcome(rows, notes, samples)


def _studies(target: Target, data: Data) -> Iterator[Study]:
    """Yields the studies of TGDA and pGAN, which are defended against, and that of all others."""
    shared: Any = {
        "data": Pair(data.train, data.test, data.test), "networks": data.model,
        "recipes": target.recipe, "seeds": target.seeds, "paired": True, "reference": "clean",
    }  # fmt: skip
    drop = AccuracyDrop(victims=target.victims)
    audits: dict[str, Audit | CaseAudit] = {"": drop, "poisons": PoisonSize()}
    others = {name: made for name, made in target.attacks.items() if name not in (TGDA, PGAN)}
    if others:
        yield Study(attacks=others, audits=audits, **shared)
    audits["filter"] = FilterScore()
    if PGAN in target.attacks:
        pgan = {PGAN: target.attacks[PGAN]}
        defences = {n: made for n, made in target.defences.items() if n == PGAN_DEFENCE}
        yield Study(attacks=pgan, audits=dict(audits), defences=defences, **shared)
    if TGDA in target.attacks:
        shape: Any = {"input_shape": data.train.x.shape[1:], "n_classes": data.model.n_classes}
        networks = {name: models.create(name, **shape) for name in target.transfer}
        audits["transfer"] = PoisonTransfer(networks)
        tgda = {TGDA: target.attacks[TGDA]}
        yield Study(attacks=tgda, audits=audits, defences=target.defences, **shared)


def _rows(
    seed: int, target: Target, found: Sequence[Record], costs: Mapping[tuple[str, int], Cost]
) -> list[Record]:
    """Returns the rows of a seed: the clean network, then each attack and all that it was asked."""
    clean, rows = {"accuracy": math.nan, "drop": 0.0, "poisons": 0.0}, list[Record]()
    own = [record for record in found if (record.seed, record.method) == (seed, ORIGINAL)]
    for name in target.attacks:
        undefended, *defended = (record for record in own if record.question == name)
        if not undefended.finished:
            rows.append(Record(name, seed, {}, Cost(0.0, 0.0), undefended.diverged))
            continue
        told = undefended.metrics
        clean |= _renamed(told, "transfer_accuracy_clean_", "accuracy_{}")
        clean["accuracy"] = told["accuracy_clean"]
        metrics = {"accuracy": told["accuracy_test"]} | _renamed(told, "poisons_", "{}")
        metrics |= _renamed(told, "transfer_drop_", "drop_on_{}")
        for record in (undefended, *(record for record in defended if record.finished)):
            after, told = record is not undefended and f"_after_{record.defence}", record.metrics
            metrics[f"drop{after or ''}"] = told["accuracy_clean"] - told["accuracy_test"]
            metrics |= _renamed(told, "filter_", f"{{}}_of_{record.defence}")
        rows.append(Record(name, seed, metrics, costs[name, seed]))
    return [Record(CLEAN, seed, clean, Cost(0.0, 0.0)), *rows]


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
    made_of = None if np.any(base == FROM_SCRATCH) else np.asarray(pixels(train.x[base[rows]]))
    return Sample(x, made_of)
