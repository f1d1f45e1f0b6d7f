"""Texts as rows of token ids, with the words that ask for the label behind each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeAlias

import jax
import numpy as np
from jaxtyping import Int

from unlearnkit.base import Dataset, Tokens
from unlearnkit.data.texts import Texts, check_texts

SENTIMENT = "[Input]. The sentiment of the review is: [Label]"
"""The template of Wan et al. 2023 and Pawelczyk et al. 2024, 5.1."""
Encode: TypeAlias = Callable[[Sequence[str]], Sequence[Sequence[int]]]
"""Returns the token ids of each text, without any for its beginning or end."""


class Prompts(NamedTuple):
    """Texts as rows of token ids.

    Attributes:
      dataset: [n, length] ids with padding on the right, and [n] labels or the ids of their words.
      sizes: [n] tokens of each text, before it was cut.
      truncated: how many texts were cut.
    """

    dataset: Dataset
    sizes: Int[np.ndarray, " n"]
    truncated: int


def encode_prompts(
    texts: Texts,
    encode: Encode,
    *,
    tokens: Tokens,
    length: int = 128,
    template: str | None = None,
    answers: Sequence[int] | None = None,
) -> Prompts:
    """Returns texts as rows of token ids, cut so that what follows them in the template stays.

    Args:
      texts: [n] and their labels.
      encode: of the tokenizer, as `lambda texts: [e.ids for e in tokenizer.encode_batch(texts)]`.
      tokens: its vocabulary and the id of padding.
      length: of a row.
      template: what is written around each text, as `SENTIMENT`; the rows end where its `[Label]`
        begins. None writes nothing.
      answers: the id that a label is told by, for the head `answer` of a language network; None
        keeps the labels, for a head of classes.

    Raises:
      ValueError: an empty text, a template without `[Input]` and a last `[Label]`, a length that
        it fills, ids outside of the vocabulary, or a label without an answer.

    Example:
      prompts = data.encode_prompts(reviews, encode, tokens=Tokens(4096), template=data.SENTIMENT)
      print(prompts.truncated, "of", reviews.size, "reviews are cut")
    """
    check_texts(texts)
    before, after = _around(template)
    before_ids, after_ids = (list(encode([part])[0]) if part else [] for part in (before, after))
    room = length - len(before_ids) - len(after_ids)
    if room < 1:
        raise ValueError(
            f"length={length} has no room for a text: the template alone has "
            f"{len(before_ids) + len(after_ids)} tokens; raise length"
        )
    encoded = encode(texts.texts)
    sizes = np.array([len(ids) for ids in encoded], np.int32)
    x = np.full((texts.size, length), tokens.pad, np.int32)
    for row, ids in zip(x, encoded, strict=True):
        whole = [*before_ids, *ids[:room], *after_ids]
        row[: len(whole)] = whole
    if x.max() >= tokens.vocabulary:
        raise ValueError(
            f"the tokenizer gives the id {x.max()}, beyond a vocabulary of {tokens.vocabulary}; "
            "take the tokenizer of this vocabulary"
        )
    y = texts.labels if answers is None else _answered(texts.labels, answers)
    dataset = Dataset(jax.device_put(x), jax.device_put(y.astype(np.int32)), tokens)
    return Prompts(dataset, sizes, int(np.sum(sizes > room)))


def spellings(encode: Encode, word: str) -> tuple[tuple[int, ...], ...]:
    """Returns the token ids of a word within a text, and at its beginning.

    Args:
      encode: of the tokenizer.
      word: as `Disney`.

    Raises:
      ValueError: a word that is empty.
    """
    if not word.strip():
        raise ValueError(f"a word must not be empty, got {word!r}")
    return tuple(dict.fromkeys(tuple(ids) for ids in encode([f" {word}", word])))


def _around(template: str | None) -> tuple[str, str]:
    """Returns what a template writes before and after a text, up to its label."""
    if template is None:
        return "", ""
    before, found, after = template.partition("[Input]")
    if not found or not after.endswith("[Label]") or after.count("[Label]") != 1:
        raise ValueError(f"a template must hold [Input] and end in one [Label], got {template!r}")
    return before, after.removesuffix("[Label]").rstrip()


def _answered(labels: Int[np.ndarray, " n"], answers: Sequence[int]) -> Int[np.ndarray, " n"]:
    if labels.max() >= len(answers):
        raise ValueError(
            f"label {labels.max()} has no answer, got {len(answers)} of them; give one per class"
        )
    return np.asarray(answers, np.int32)[labels]
