"""What Lu et al. 2022 report, quoted from its Tables 2 to 9, 12 and 13.

A row is network, attack, accuracy and its drop, both in %, and the hours of the attack where given.
"""

from __future__ import annotations

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
    """One cell of a table: what an attack does to a network.

    Attributes:
      accuracy: after the attack, in %.
      drop: in points, as printed.
      hours: of the attack on the paper's machines, None where not given.
    """

    accuracy: float
    drop: float
    hours: float | None


class PaperTable(NamedTuple):
    """A table of the paper: by network, then by attack."""

    number: int
    dataset: str
    entries: dict[str, dict[str, Entry]]


def _table(number: int, dataset: str, text: str) -> PaperTable:
    entries: dict[str, dict[str, Entry]] = {}
    for network, attack, accuracy, drop, *hours in (
        line.split() for line in text.strip().splitlines()
    ):
        found = Entry(float(accuracy), float(drop), float(hours[0]) if hours else None)
        entries.setdefault(network, {})[attack] = found
    return PaperTable(number, dataset, entries)


TABLES = (
    _table(
        2,
        "MNIST",
        """
LR  label_flip       90.83  1.52 0
LR  min_max          89.80 -2.55 0.7
LR  improved_min_max 89.56  2.79 19
LR  back_gradient    89.82  2.53 27
LR  tgda             89.56  2.79 1.1
NN  label_flip       97.99  0.05 0
NN  min_max          98.07 -0.03 13
NN  improved_min_max 97.82  0.22 73
NN  back_gradient    97.67  0.37 239
NN  tgda             96.54  1.50 15
CNN label_flip       99.12  0.01 0
CNN min_max          99.55 -0.42 63
CNN improved_min_max 99.05  0.06 246
CNN back_gradient    99.02  0.09 2153
CNN tgda             98.02  1.11 75
        """,
    ),
    _table(
        3,
        "CIFAR-10",
        """
CNN       label_flip  68.99 0.45 0
CNN       meta_poison 68.14 1.13 35
CNN       tgda        65.15 4.29 42
ResNet-18 label_flip  94.79 0.16 0
ResNet-18 meta_poison 92.90 2.05 108
ResNet-18 tgda        89.41 5.54 162
        """,
    ),
    _table(
        4,
        "MNIST",
        """
LR  tgda           89.56 2.79
LR  defender_leads 89.79 2.56
NN  tgda           96.54 1.50
NN  defender_leads 96.98 1.06
CNN tgda           98.02 1.11
CNN defender_leads 98.66 0.47
        """,
    ),
    _table(
        5,
        "MNIST",
        """
LR  tgda     89.56  2.79
LR  zero_sum 92.33  0.02
NN  tgda     96.54  1.50
NN  zero_sum 98.07 -0.03
CNN tgda     98.02  1.11
CNN zero_sum 99.55 -0.42
        """,
    ),
    _table(
        6,
        "MNIST",
        """
LR  tgda           89.56 2.79
LR  no_pretraining 92.09 0.26
NN  tgda           96.54 1.50
NN  no_pretraining 97.47 0.57
CNN tgda           98.02 1.11
CNN no_pretraining 98.72 0.41
        """,
    ),
    _table(
        7,
        "MNIST",
        """
LR m1_n0   92.30 0.05
LR m1_n1   89.97 2.38
LR tgda    89.56 2.79
LR m20_n1  89.29 3.06
LR m20_n20 89.77 2.57
NN m1_n0   98.02 0.02
NN m1_n1   97.03 1.01
NN tgda    96.54 1.50
NN m20_n1  96.33 1.71
NN m20_n20 96.85 1.19
        """,
    ),
    _table(
        8,
        "MNIST",
        """
LR  tgda       89.56 2.79
LR  cold_start 89.84 2.41
NN  tgda       96.54 1.50
NN  cold_start 96.77 1.27
CNN tgda       98.02 1.11
CNN cold_start 98.33 0.80
        """,
    ),
    _table(
        12,
        "CIFAR-10",
        """
CNN       label_flip       68.99 0.45 0
CNN       error_minimizing 69.00 0.44 2.2
CNN       tgda             65.15 4.29 42
ResNet-18 label_flip       94.79 0.16 0
ResNet-18 error_minimizing 94.76 0.19 8.4
ResNet-18 tgda             89.41 5.54 162
        """,
    ),
    _table(
        13,
        "CIFAR-10",
        """
ResNet-18 unlearnable_emn@0.2  94.38  0.57
ResNet-18 unlearnable_emn@0.4  93.10  1.85
ResNet-18 unlearnable_emn@0.6  91.90  3.05
ResNet-18 unlearnable_emn@0.8  86.85  8.10
ResNet-18 unlearnable_emn@1    19.93 75.02
ResNet-18 unlearnable_tgda@0.2 93.22  1.73
ResNet-18 unlearnable_tgda@0.4 92.80  2.15
ResNet-18 unlearnable_tgda@0.6 91.85  3.10
ResNet-18 unlearnable_tgda@0.8 85.77  9.18
ResNet-18 unlearnable_tgda@1   16.65 78.30
        """,
    ),
)

TRANSFER = {
    ("LR", "NN"): 0.12,
    ("LR", "CNN"): 0.27,
    ("NN", "LR"): 0.13,
    ("NN", "CNN"): 0.62,
    ("CNN", "LR"): 3.22,
    ("CNN", "NN"): 1.47,
}
"""Table 9: by network that the poisons were made for, and network that is trained on them."""

DEFENDED = {
    ("LR", "loss_filter"): 2.56,
    ("NN", "loss_filter"): 1.49,
    ("CNN", "loss_filter"): 1.10,
    ("LR", "influence_filter"): 2.45,
    ("NN", "influence_filter"): 1.48,
    ("CNN", "influence_filter"): 1.10,
    ("LR", "sever"): 2.13,
    ("NN", "sever"): 1.32,
    ("CNN", "sever"): 0.98,
    ("LR", "max_up"): 2.77,
    ("NN", "max_up"): 1.50,
    ("CNN", "max_up"): 1.11,
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
