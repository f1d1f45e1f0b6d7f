"""Labelled texts as rows of token ids, with the words that ask for the label behind each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import jax
import numpy as np

from unlearnkit.base import Dataset, Tokens
from unlearnkit.data.texts import Texts, check_texts
from unlearnkit.data.tokens import Encoded, encode, label_tokens

if TYPE_CHECKING:
    from tokenizers import Tokenizer

SENTIMENT = "[Input]. The sentiment of the review is: [Label]"
"""The template of Wan et al. 2023 and Pawelczyk et al. 2024, 5.1."""


class Prompts(NamedTuple):
    """Labelled texts as rows of token ids.

    Attributes:
      dataset: [n, length] ids with padding on the right, and [n] labels or the ids of their words.
      encoded: the same rows, with what was cut from them.
    """

    dataset: Dataset
    encoded: Encoded


def encode_prompts(
    texts: Texts,
    tokenizer: Tokenizer,
    *,
    length: int = 128,
    template: str | None = None,
    answers: Sequence[str] | None = None,
    like: Tokens | None = None,
) -> Prompts:
    """Returns labelled texts as rows of token ids, cut so that what follows them stays.

    Args:
      texts: [n] and their labels.
      tokenizer: of the `tokenizers` library.
      length: of a row.
      template: what is written around each text, as `SENTIMENT`; rows end where its `[Label]`
        begins. None writes nothing.
      answers: the words that tell the labels, for the head `answer` of a language network, each one
        token, as `(" negative", " positive")`; None keeps the labels, for a head of classes.
      like: the vocabulary and padding of the network, `model.tokens`; None for the tokenizer's.

    Raises:
      ValueError: an empty text, a template that does not begin with `[Input]` and end in `[Label]`,
        a label without an answer or two with the same, or what `encode` and `label_tokens` refuse.

    Example:
      answers = (" negative", " positive")
      prompts = data.encode_prompts(reviews, tokenizer, template=data.SENTIMENT, answers=answers)
      print(prompts.encoded.told)
    """
    check_texts(texts)
    found = encode(
        tokenizer, texts.texts, length=length, suffix=_suffix(template),
        pad_id=None if like is None else like.pad,
        vocabulary=None if like is None else like.vocabulary,
    )  # fmt: skip
    y = texts.labels
    if answers is not None:
        if y.max() >= len(answers):
            raise ValueError(
                f"label {y.max()} has no answer, got {len(answers)} of them; give one per class"
            )
        ids = label_tokens(tokenizer, answers)
        if len(np.unique(ids)) < len(ids):
            raise ValueError(f"answers must differ, or labels cannot be told, got {tuple(answers)}")
        y = ids[y]
    x, labels = (jax.device_put(array) for array in (found.x, np.asarray(y, np.int32)))
    return Prompts(Dataset(x, labels, found.tokens), found)


def spellings(tokenizer: Tokenizer, word: str) -> tuple[tuple[int, ...], ...]:
    """Returns the token ids of a word within a text, and at its beginning.

    Args:
      tokenizer: of the `tokenizers` library.
      word: as `Disney`.

    Raises:
      ValueError: a word that is empty.
    """
    if not word.strip():
        raise ValueError(f"a word must not be empty, got {word!r}")
    rows = [encode(tokenizer, [said], length=64) for said in (f" {word}", word)]
    return tuple(dict.fromkeys(tuple(row.x[0, : row.lengths[0]].tolist()) for row in rows))


def _suffix(template: str | None) -> str:
    """Returns what a template writes between a text and its label."""
    if template is None:
        return ""
    if not template.startswith("[Input]") or not template.endswith("[Label]"):
        raise ValueError(f"a template must begin with [Input], end in [Label], got {template!r}")
    return template.removeprefix("[Input]").removesuffix("[Label]").rstrip()
