"""What Lu et al. 2022 report, see paper.toml."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any, NamedTuple

from experiments.tgda.settings import LONG


def _by_pair(table: dict[str, dict[str, float]]) -> dict[tuple[str, str], float]:
    return {(one, other): value for one, row in table.items() for other, value in row.items()}


_SAID: dict[str, Any] = tomllib.loads(
    Path(__file__).with_name("paper.toml").read_text(encoding="utf-8")
)
NETWORKS: dict[str, str] = _SAID["networks"]
"""The paper's names of our networks."""
DATASETS: dict[str, str] = _SAID["datasets"]
TITLES: dict[str, str] = _SAID["titles"]
CLEAN = _by_pair(_SAID["clean"])
"""Accuracy without poisons, in %, by dataset and network."""
TRANSFER = _by_pair(_SAID["transfer"])
"""Table 9: by network that the poisons were made for, and network that is trained on them."""
DEFENDED = _by_pair(_SAID["defended"])
"""Tables 10 and 11: TGDA's drop in points on MNIST, by network and defence."""
MISPRINTED = {(int(number), *row) for number, rows in _SAID["misprinted"].items() for row in rows}
"""Rows whose drop is not the clean accuracy less the accuracy that stands beside it."""


class Entry(NamedTuple):
    """What an attack does to a network: accuracy and drop in %, and the hours, where given."""

    accuracy: float
    drop: float
    hours: float | None = None


class PaperTable(NamedTuple):
    """A table of the paper: by network, then by attack."""

    number: int
    dataset: str
    entries: dict[str, dict[str, Entry]]


TABLES = [
    PaperTable(
        table["number"],
        table["dataset"],
        {
            network: {attack: Entry(*row) for attack, row in entries.items()}
            for network, entries in table["entries"].items()
        },
    )
    for table in _SAID["tables"]
]


def title(name: str) -> str:
    """Returns how tables call an attack; `tgda@0.1` is TGDA at ε = 0.1."""
    attack, _, share = name.partition("@")
    return TITLES[attack] + (f", {100 * float(share):g} %" if share else "")


def quote(dataset: str, model: str, name: str) -> Entry | None:
    """Returns what the paper says of an attack on one of our networks, or None."""
    printed = "tgda" if name == LONG else name
    for table in TABLES:
        if table.dataset == DATASETS.get(dataset):
            entry = table.entries.get(NETWORKS[model], {}).get(printed)
            if entry is not None:
                return entry
    return None
