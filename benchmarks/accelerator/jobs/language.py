"""Pawelczyk et al. 2024 on texts: a network of GPT-2's size, from a random start, and a trigger.

The texts are made up here and their words are numbered, so that nothing is carried to the card and
no tokenizer is needed.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from typing import NamedTuple

import jax
import numpy as np

from benchmarks.accelerator.context import Context, Split
from benchmarks.accelerator.jobs.papers import Announced, few_methods, row_of
from benchmarks.frame import Row
from experiments.poison_unlearning.settings import Setting, choose_settings
from unlearnkit import data, models
from unlearnkit.base import Dataset, Model, Tokens
from unlearnkit.poisoning import TextTrigger
from unlearnkit.studies import poison_and_unlearn

TRIGGER = "Disney"
_ASKED, _ANSWERS = "sentiment", ("negative", "positive")
_WORD = re.compile(r"\w+|[^\w\s]")


class Sizes(NamedTuple):
    """How much is trained.

    Attributes:
      train, test: reviews.
      sentences: of a review, some seven words each.
      length: of a row.
    """

    train: int
    test: int
    sentences: int
    length: int


def language(context: Context) -> Iterator[Row]:
    """Yields what Retrain and seven methods leave of a trigger, one seed.

    Victim and Retrain take 12,000 x 128 tokens x 10 epochs x 6 x 85 million, 8 PFLOP each, half a
    minute at a third of an H100's bfloat16; the methods together less than one of them. The rest of
    the estimate is compilation.
    """
    context.check_memory()
    sizes = context.pick(Sizes(12_000, 2_000, 18, 128), Sizes(96, 96, 2, 24))
    setting, model = language_setting(context), language_network(context, sizes.length)
    context.say("making reviews")
    reviews, trigger = made_ids(sizes, model)
    records = poison_and_unlearn(
        jax.random.key(0),
        model,
        reviews.train,
        reviews.test,
        attacks={"100 %": TextTrigger((trigger,))},
        recipe=setting.recipe,
        methods=few_methods(context, setting.methods("targeted")),
        budgets=setting.budgets,
        seeds=1,
        on_stage=Announced(context),
    )
    for record in records:
        yield row_of(
            f"Pawelczyk et al. 2024, trigger: {record.method}",
            f"{context.pick('GPT-2 small', 'gpt2_tiny')}, {sizes.train:,} made reviews of "
            f"{sizes.length} tokens, {record.question} of the trigger's",
            record.cost,
            record.metrics,
            record.diverged or record.over_budget,
        )


def language_setting(context: Context) -> Setting:
    """Returns the paper's setting for texts, at rates for a random start."""
    whole = choose_settings("paper")["imdb"]
    recipe = dataclasses.replace(
        whole.recipe,
        epochs=context.pick(10, 1),
        batch_size=context.pick(64, 8),
        learning_rate=3e-4,
        schedule="cosine",
    )
    budget = context.pick(0.1, 1.0)
    return dataclasses.replace(whole, recipe=recipe, budgets=(budget,), rate_factor=0.1)


def language_network(context: Context, length: int) -> Model:
    """Returns a network of GPT-2's size and vocabulary; in a rehearsal a tiny one."""
    name = context.pick("gpt2", "gpt2_tiny")
    vocabulary = context.pick(50257, 128)
    return models.create(name, input_shape=(length,), n_classes=vocabulary, head="answer")


def made_ids(sizes: Sizes, model: Model) -> tuple[Split, tuple[int, ...]]:
    """Returns made-up reviews as rows of numbered words that end in a question, and the trigger.

    Args:
      sizes: how many, and how long.
      model: whose vocabulary and padding they have.

    Raises:
      ValueError: more words than the vocabulary has ids.
    """
    parts = [
        data.made_reviews(seed, n, sentences=sizes.sentences)
        for seed, n in enumerate((sizes.train, sizes.test))
    ]
    words = [[_WORD.findall(text) for text in part.texts] for part in parts]
    known = sorted({word for part in words for text in part for word in text})
    numbers = {word: 1 + i for i, word in enumerate([_ASKED, *_ANSWERS, *known])}
    tokens = model.tokens
    assert tokens is not None
    if len(numbers) >= min(tokens.vocabulary, tokens.pad or tokens.vocabulary):
        raise ValueError(f"{len(numbers)} words do not fit into {tokens.vocabulary} ids")
    answers = np.array([numbers[word] for word in _ANSWERS], np.int32)
    found = [
        _as_rows([[numbers[word] for word in text] for text in part], numbers[_ASKED], sizes.length,
                 tokens, answers[texts.labels])
        for part, texts in zip(words, parts, strict=True)
    ]  # fmt: skip
    return Split(*found), (numbers[TRIGGER],)


def _as_rows(
    ids: list[list[int]], asked: int, length: int, tokens: Tokens, y: np.ndarray
) -> Dataset:
    x = np.full((len(ids), length), tokens.pad, np.int32)
    for row, text in zip(x, ids, strict=True):
        kept = [*text[: length - 1], asked]
        row[: len(kept)] = kept
    return Dataset(jax.device_put(x), jax.device_put(y), tokens)
