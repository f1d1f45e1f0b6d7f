"""What Di et al. 2024 report, see paper.toml."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

_SAID: dict[str, Any] = tomllib.loads(
    Path(__file__).with_name("paper.toml").read_text(encoding="utf-8")
)
METRICS: list[str] = _SAID["metrics"]
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
