"""What Di et al. 2024 report, see paper.toml."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from experiments.claims import read_toml

_SAID = read_toml(__file__)
METRICS: list[str] = _SAID["metrics"]
LABELS: dict[str, str] = _SAID["labels"]
"""The columns that are judged, as the page calls them."""
NAMES: dict[str, str] = _SAID["names"]
MISPRINTED = {(number, method) for number, method in _SAID["misprinted"]}
Rows = dict[str, dict[str, float]]


class PaperTable(NamedTuple):
    """A table of random or class-wise forgetting: mean and deviation by method and metric."""

    number: int
    dataset: str
    kind: str
    mean: Rows
    std: Rows


def _named(rows: Mapping[str, Sequence[float]], metrics: Sequence[str]) -> Rows:
    return {method: dict(zip(metrics, row, strict=True)) for method, row in rows.items()}


_SPREAD = [name for name in METRICS if name not in _SAID["no_deviation"]]
TABLES = [
    PaperTable(**{**t, "mean": _named(t["mean"], METRICS), "std": _named(t["std"], _SPREAD)})
    for t in _SAID["tables"]
]
