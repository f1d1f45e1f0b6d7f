"""The four steps for one kind of poisons, and their records on disk."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Key

from experiments.poison_unlearning.pictures import Shown, show
from experiments.poison_unlearning.setting import Data, Poison, Setting
from unlearnkit.base import Poisoned
from unlearnkit.io.files import as_json, write_json
from unlearnkit.records import Record, record_from_dict, record_to_dict
from unlearnkit.studies import OnStage, poison_and_unlearn

KEPT = "gaussian_statistic"
"""The curve that is kept of the networks before unlearning and after Retrain, which are drawn."""


def run_grid(
    key: Key[Array, ""], setting: Setting, poison: Poison, data: Data, on_stage: OnStage
) -> tuple[list[Record], Shown]:
    """Returns the records of one kind of poisons, and some of the first attack's."""
    attacks = setting.attacks(poison)
    first = next(iter(attacks))
    shown: list[Shown] = []

    def keep(name: str, seed: int, poisoned: Poisoned) -> None:
        if (name, seed) == (first, 0):
            shown.append(show(poisoned, data.train))

    records = list(
        poison_and_unlearn(
            key,
            data.model,
            data.train,
            data.test,
            attacks=attacks,
            recipe=setting.recipe,
            methods=setting.methods(),
            budgets=setting.budgets,
            seeds=setting.seeds,
            on_stage=on_stage,
            on_poisoned=keep,
        )
    )
    if not shown:
        raise ValueError(f"{poison} poisons of the first seed: {records[0].diverged}")
    return records, shown[0]


def save_grid(path: Path, records: Sequence[Record], run: Mapping[str, Any]) -> None:
    """Writes the records and how they came about."""
    lines = [
        {
            **record_to_dict(record, curves=False),
            "curves": {
                name: np.round(values, 4).tolist()
                for name, values in record.curves.items()
                if name == KEPT and record.budget is None
            },
        }
        for record in records
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, as_json({**run, "records": lines}))


def load_grid(path: Path) -> tuple[dict[str, Any], list[Record]]:
    """Returns the settings and the records that `save_grid` wrote."""
    content = json.loads(path.read_text(encoding="utf-8"))
    return content, [record_from_dict(line) for line in content.pop("records")]


def as_rows(records: Sequence[Record]) -> list[Record]:
    """Returns the records with attack and budget in the name of their row, for tables.

    What no budget allowed has no row: see `over_budget`.
    """
    return [
        Record(_row(record), record.seed, record.metrics, record.cost, record.diverged)
        for record in records
        if record.over_budget is None
    ]


def over_budget(records: Sequence[Record]) -> list[str]:
    """Returns what a budget did not allow, in words."""
    messages = [f"{_row(r)}: {r.over_budget}" for r in records if r.over_budget is not None]
    return list(dict.fromkeys(messages))


def _row(record: Record) -> str:
    budget = "" if record.budget is None else f", {100 * record.budget:g} % of Retrain"
    return f"{record.question} poisons: {record.method}{budget}"


def key_of(key: Key[Array, ""], part: str, parts: Sequence[str]) -> Key[Array, ""]:
    """Returns the key of a part, the same whichever other parts are run."""
    return jax.random.fold_in(key, parts.index(part))
