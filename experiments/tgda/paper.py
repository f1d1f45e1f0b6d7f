"""What Lu et al. 2022 report, quoted from its Tables 2 to 9, 12 and 13.

A row is network, attack, accuracy and its drop, both in %, and the hours of the attack where given.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from experiments.tgda.settings import LONG

NETWORKS = {
    "logistic": "LR",
    "mlp": "NN",
    "nn": "NN",
    "cnn_mnist": "CNN",
    "cnn_cifar": "CNN",
    "resnet18": "ResNet-18",
}
"""The paper's names of our networks."""
DATASETS = {"mnist": "MNIST", "mnist17": "MNIST-17", "cifar10": "CIFAR-10"}

TITLES = {
    "clean": "Clean",
    "label_flip": "Label flip",
    "min_max": "Min-max",
    "improved_min_max": "i-Min-max",
    "back_gradient": "Back-gradient",
    "influence": "Influence",
    "kkt": "KKT",
    "poison_svm": "PoisonSVM",
    "meta_poison": "MetaPoison",
    "error_minimizing": "EMN",
    "gradient_canceling": "Gradient canceling",
    "gradient_canceling_unbounded": "Gradient canceling, no bounds",
    "tgda": "TGDA",
    LONG: "TGDA, for longer",
    "defender_leads": "TGDA, defender as leader",
    "zero_sum": "TGDA, zero-sum",
    "no_pretraining": "TGDA, leader not pretrained",
    "cold_start": "TGDA, cold start",
    "m1_n0": "TGDA, m = 1, n = 0",
    "m1_n1": "TGDA, m = 1, n = 1",
    "m20_n1": "TGDA, m = 20, n = 1",
    "m20_n20": "TGDA, m = 20, n = 20",
    "fr": "TGDA by follow the ridge",
    "gdn": "TGDA by Newton steps",
    "ugda": "TGDA by unrolling",
    "unlearnable_tgda": "Unlearnable, TGDA",
    "unlearnable_emn": "Unlearnable, EMN",
}

CLEAN = {
    ("MNIST", "LR"): 92.35,
    ("MNIST", "NN"): 98.04,
    ("MNIST", "CNN"): 99.13,
    ("CIFAR-10", "CNN"): 69.44,
    ("CIFAR-10", "ResNet-18"): 94.95,
}
"""Accuracy without poisons, in %."""

MISPRINTED = {
    (2, "LR", "min_max"),
    (2, "CNN", "improved_min_max"),
    (2, "CNN", "back_gradient"),
    (3, "CNN", "meta_poison"),
    (7, "LR", "m20_n20"),
    (8, "LR", "cold_start"),
}
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


def _read(text: str) -> list[PaperTable]:
    tables: list[PaperTable] = []
    for first, second, *values in (line.split() for line in text.strip().splitlines()):
        if first == "Table":
            tables.append(PaperTable(int(second), values[0], {}))
        else:
            tables[-1].entries.setdefault(first, {})[second] = Entry(*map(float, values))
    return tables


TABLES = _read(Path(__file__).with_name("tables.txt").read_text(encoding="utf-8"))

TRANSFER = {
    ("LR", "NN"): 0.12, ("LR", "CNN"): 0.27,
    ("NN", "LR"): 0.13, ("NN", "CNN"): 0.62,
    ("CNN", "LR"): 3.22, ("CNN", "NN"): 1.47,
}  # fmt: skip
"""Table 9: by network that the poisons were made for, and network that is trained on them."""

DEFENDED = {
    (network, defence): drop
    for defence, drops in {
        "loss_filter": (2.56, 1.49, 1.10),
        "influence_filter": (2.45, 1.48, 1.10),
        "sever": (2.13, 1.32, 0.98),
        "max_up": (2.77, 1.50, 1.11),
    }.items()
    for network, drop in zip(("LR", "NN", "CNN"), drops, strict=True)
}
"""Tables 10 and 11: TGDA's drop in points on MNIST against a defence."""


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
