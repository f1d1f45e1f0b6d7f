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
from unlearnkit.data.prompts import SENTIMENT, Prompts, encode_prompts, spellings
from unlearnkit.data.source import Description
from unlearnkit.data.splits import Split, choose_split, make_task
from unlearnkit.data.texts import TEXT_NAMES, Texts, load_texts, made_reviews
from unlearnkit.data.tokens import Encoded, encode, label_tokens, train_tokenizer
from unlearnkit.reading import Reading

__all__ = [
    "NAMES",
    "NORMALISATIONS",
    "SENTIMENT",
    "SYMMETRIC",
    "TEXT_NAMES",
    "ClassForget",
    "Description",
    "Encoded",
    "FileForget",
    "ForgetRequest",
    "IndexForget",
    "PredicateForget",
    "Prompts",
    "RandomForget",
    "Reading",
    "Split",
    "Texts",
    "WithinClassForget",
    "choose_split",
    "describe",
    "draw_order",
    "encode",
    "encode_prompts",
    "from_examples",
    "keep_classes",
    "label_tokens",
    "load",
    "load_texts",
    "made_reviews",
    "make_task",
    "parse_forget",
    "spellings",
    "subset",
    "train_tokenizer",
    "training_ids",
]
