"""Datasets from files, decoded once, and their splits into what is retained and forgotten."""

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
from unlearnkit.data.loading import NAMES, NORMALISATIONS, SYMMETRIC, describe, load
from unlearnkit.data.source import Description
from unlearnkit.data.splits import Split, choose_classes, choose_split, make_task

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
    "Split",
    "WithinClassForget",
    "choose_classes",
    "choose_split",
    "describe",
    "load",
    "make_task",
    "parse_forget",
]
