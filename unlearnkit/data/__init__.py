"""Datasets from files, decoded once, and their splits into what is retained and forgotten."""

from unlearnkit.data.examples import from_examples
from unlearnkit.data.forget import (
    ClassForget,
    FileForget,
    ForgetRequest,
    IndexForget,
    PredicateForget,
    RandomForget,
    WithinClassForget,
    parse_forget,
)
from unlearnkit.data.loading import NAMES, describe, load, training_ids
from unlearnkit.data.normalising import NORMALISATIONS, SYMMETRIC
from unlearnkit.data.parts import draw_order, keep_classes, subset
from unlearnkit.data.source import Description
from unlearnkit.data.splits import Split, choose_split, make_task
from unlearnkit.reading import Reading

__all__ = [
    "NAMES",
    "NORMALISATIONS",
    "SYMMETRIC",
    "ClassForget",
    "Description",
    "FileForget",
    "ForgetRequest",
    "IndexForget",
    "PredicateForget",
    "RandomForget",
    "Reading",
    "Split",
    "WithinClassForget",
    "choose_split",
    "describe",
    "draw_order",
    "from_examples",
    "keep_classes",
    "load",
    "make_task",
    "parse_forget",
    "subset",
    "training_ids",
]
