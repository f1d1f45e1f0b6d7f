"""What Lu et al. 2022 report, see paper.toml."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

from experiments.claims import read_toml
from experiments.tgda.settings import LONG

_SAID = read_toml(__file__)
NETWORKS: dict[str, str] = _SAID["networks"]
"""The paper's names of our networks."""
DATASETS: dict[str, str] = _SAID["datasets"]
TITLES: dict[str, str] = _SAID["titles"]
CLEAN: dict[str, dict[str, float]] = _SAID["clean"]
"""Accuracy without poisons, in %, by dataset and network."""
MISPRINTED = {(int(number), *row) for number, rows in _SAID["misprinted"].items() for row in rows}
"""Rows whose drop is not the clean accuracy less the accuracy that stands beside it."""


class Entry(NamedTuple):
    """What an attack does to a network: accuracy and drop in %, and the hours; NaN if not given."""

    accuracy: float
    drop: float
    hours: float = math.nan


class PaperTable(NamedTuple):
    """A table of the paper: by network, then by attack."""

    number: int
    dataset: str
    entries: dict[str, dict[str, list[float]]]

    def rows(self) -> Iterator[tuple[tuple[str, str], Entry]]:
        """Yields (network, attack) and what is printed of them."""
        for network, attacks in self.entries.items():
            yield from (((network, attack), Entry(*row)) for attack, row in attacks.items())


TABLES = [PaperTable(**told) for told in _SAID["tables"]]
ON_OTHERS = {place: told.drop for t in TABLES if 8 < t.number < 12 for place, told in t.rows()}
"""TGDA's drop in points on MNIST: by network, and other network or defence (Tables 9 to 11)."""


def title(name: str) -> str:
    """Returns how tables call an attack; `tgda@0.1` is TGDA at ε = 0.1."""
    attack, _, share = name.partition("@")
    return TITLES[attack] + (f", {100 * float(share):g} %" if share else "")


def needed(table: int, network: str, name: str) -> str:
    """Returns what it would take to measure a row that cpu scale does not; "" if nobody said."""
    asked = {"tables": table, "networks": network, "rows": name}.items()
    all_of = (t for t in _SAID["needs"] if all(part in t.get(of, (part,)) for of, part in asked))
    return next((told["says"] for told in all_of), "")


def chooses_labels(name: str) -> bool:
    """Returns whether an attack gives its poisons labels that are not their images'."""
    return name.partition("@")[0] in _SAID["labels_chosen"]


def quote(dataset: str, model: str, name: str) -> Entry | None:
    """Returns what the paper says of an attack on one of our networks, or None."""
    sought = NETWORKS[model], "tgda" if name == LONG else name
    tables = (t for t in TABLES if t.number > 1 and t.dataset == DATASETS.get(dataset))
    return next((entry for t in tables for place, entry in t.rows() if place == sought), None)


def printed_drop(dataset: str, model: str, name: str) -> str:
    """Returns the drop that the paper prints for an attack, or its clean accuracy; "" for none."""
    if name == "clean":
        clean = CLEAN.get(DATASETS.get(dataset, ""), {}).get(NETWORKS[model])
        return "" if clean is None else f"clean {clean:.2f} %"
    entry = quote(dataset, model, name)
    return "" if entry is None else f"{entry.drop:.2f}"
