"""What Di et al. 2024 report in Tables 1, 2, 4 and 6: mean and deviation over their runs.

Columns: Acc_r, Acc_te, Acc_f, |Acc_f - Acc_te|, MIA accuracy, AUC and F1, KS statistic, Wasserstein
distance, minutes. The fourth and the last have no standard deviation there.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

METRICS = (
    "accuracy_retain", "accuracy_test", "accuracy_forget", "accuracy_gap",
    "mia_loss_logistic_accuracy", "mia_loss_logistic_auc", "mia_loss_logistic_f1", "ks_statistic",
    "wasserstein", "minutes",
)  # fmt: skip
"""The columns of the tables, by the names that `unlearnkit.auditing.evaluate` gives them."""

SPREAD = tuple(name for name in METRICS if name not in ("accuracy_gap", "minutes"))
"""Those that have a deviation there."""

NAMES = {
    "retrain": "Retrain",
    "fine_tune": "FT",
    "gradient_ascent": "GA",
    "influence": "IU",
    "l1_sparse": "L1-sparse",
    "random_label": "RL",
    "boundary_expand": "BE",
    "boundary_shrink": "BS",
    "scrub": "SCRUB",
    "stackelberg": "SG",
}
"""The paper's methods, as it calls them."""

MISPRINTED = {(4, "fine_tune")}
"""Rows not to aim for: the accuracies of FT in Table 4 are those of CIFAR-100 in Table 1."""


class PaperTable(NamedTuple):
    """A table of random or class-wise forgetting: mean and deviation by method and metric."""

    number: int
    dataset: str
    kind: str
    mean: dict[str, dict[str, float]]
    std: dict[str, dict[str, float]]


def _read(text: str) -> list[PaperTable]:
    """Returns the tables of a text: a line of means, and under it their deviations."""
    tables: list[PaperTable] = []
    method = ""
    for first, *values in (line.split() for line in text.strip().splitlines()):
        if first == "Table":
            tables.append(PaperTable(int(values[0]), values[1], values[2], {}, {}))
        elif first == "±":
            tables[-1].std[method] = dict(zip(SPREAD, map(float, values), strict=True))
        else:
            method = first
            tables[-1].mean[method] = dict(zip(METRICS, map(float, values), strict=True))
    return tables


TABLES = _read(Path(__file__).with_name("tables.txt").read_text(encoding="utf-8"))
