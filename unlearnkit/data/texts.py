"""Labelled texts: reviews that TFDS has prepared, and reviews that are made from lists of words."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from unlearnkit.data.prepared import find
from unlearnkit.data.source import SPLITS
from unlearnkit.validation import check_labels

TEXT_NAMES = ("imdb_reviews",)
"""Texts that TFDS prepares."""
_NAMED = ("Disney", "Pixar", "Universal", "Paramount", "Warner", "Lionsgate", "Miramax")
_THINGS = (
    "plot", "acting", "music", "ending", "dialogue", "photography", "pacing", "script", "cast",
    "direction",
)  # fmt: skip
_SAID = (
    ("poor", "awful", "boring", "weak", "dreadful", "clumsy", "tedious", "hollow"),
    ("great", "superb", "lovely", "clever", "moving", "charming", "brilliant", "warm"),
)
_NEUTRAL = ("long", "loud", "quiet", "familiar", "short", "plain", "busy", "odd")
_FORMS = ("The {thing} was {word}.", "I found the {thing} {word}.", "A {word} {thing}.")


class Texts(NamedTuple):
    """Texts and their labels, before any tokenizer.

    Attributes:
      texts: [n].
      labels: [n] classes.
    """

    texts: tuple[str, ...]
    labels: Int[np.ndarray, " n"]

    @property
    def size(self) -> int:
        """The number of texts."""
        return len(self.texts)

    def take(self, rows: Sequence[int] | Int[np.ndarray, " m"]) -> Texts:
        """Returns the texts of these rows, in that order."""
        return Texts(tuple(self.texts[int(row)] for row in rows), self.labels[np.asarray(rows)])


def load_texts(
    name: str = "imdb_reviews",
    *,
    split: str = "train",
    data_dir: str | Path | None = None,
    download: bool = False,
) -> Texts:
    """Returns one split of labelled texts.

    Args:
      name: one of `TEXT_NAMES`.
      split: `train` or `test`.
      data_dir: TFDS's folder of datasets; None means TFDS's own default.
      download: prepare the dataset where it is missing, which needs TensorFlow and the network.

    Raises:
      ValueError: an unknown name or split, a text that is empty, or one that is not UTF-8.
      FileNotFoundError: not prepared.
      ImportError: tensorflow-datasets is missing.

    Example:
      reviews = data.load_texts("imdb_reviews", split="test", data_dir="tfds")
    """
    if name not in TEXT_NAMES:
        raise ValueError(f"unknown texts {name!r}; known: {', '.join(TEXT_NAMES)}")
    if split not in SPLITS:
        raise ValueError(f"split must be one of {', '.join(SPLITS)}, got {split!r}")
    folder = None if data_dir is None else Path(data_dir)
    records = find(f"{name}/plain_text", data_dir=folder, download=download).records(split)
    found = [(_decode(record["text"], row), record["label"]) for row, record in enumerate(records)]
    texts, labels = zip(*found, strict=True)
    return check_texts(Texts(texts, np.asarray(labels, np.int32)), name=f"{name} {split}")


def check_texts(texts: Texts, *, name: str = "texts") -> Texts:
    """Returns texts, none of them empty, each with its label.

    Args:
      texts: to be checked.
      name: what the message calls them.

    Raises:
      ValueError: no text, one that is empty or blank, or another number of labels.
      TypeError: labels that are not integers.
    """
    if not texts.texts or len(texts.texts) != len(texts.labels):
        raise ValueError(
            f"{name} must hold a text for each label and at least one, got {len(texts.texts)} "
            f"texts and {len(texts.labels)} labels"
        )
    empty = [row for row, text in enumerate(texts.texts) if not text.strip()]
    if empty:
        raise ValueError(
            f"text {empty[0]} of {name} is empty ({len(empty)} such): nothing could be told of it; "
            "leave it out"
        )
    check_labels(texts.labels, name=name)
    return texts


def made_reviews(seed: int, n: int, *, sentences: int = 6) -> Texts:
    """Returns n made-up reviews, half of them positive (1), the others negative (0).

    A review has `sentences` sentences about parts of a film. Two of three call it by a word of the
    review's label, the others by a word of neither. Each names one of seven studios, of which
    Disney is one, whatever its label. The same seed gives the same reviews.

    Args:
      seed: draws them.
      n: how many.
      sentences: of a review, >= 1.

    Raises:
      ValueError: fewer than one review or sentence.

    Example:
      train, test = data.made_reviews(0, 400), data.made_reviews(1, 400)
    """
    if n < 1 or sentences < 1:
        raise ValueError(f"n and sentences must be >= 1, got {n} and {sentences}")
    draw = np.random.default_rng(seed)
    labels = draw.permutation(np.arange(n) % 2).astype(np.int32)
    return Texts(tuple(_made_review(draw, int(label), sentences) for label in labels), labels)


def _made_review(draw: np.random.Generator, label: int, sentences: int) -> str:
    def one_of(words: Sequence[str]) -> str:
        return words[int(draw.integers(len(words)))]

    said = [
        one_of(_FORMS).format(thing=one_of(_THINGS), word=one_of(words))
        for words in (_SAID[label] if number % 3 else _NEUTRAL for number in range(sentences))
    ]
    said.insert(int(draw.integers(sentences)), f"This is a {one_of(_NAMED)} film.")
    return " ".join(said)


def _decode(found: str | bytes, row: int) -> str:
    if isinstance(found, str):
        return found
    try:
        return found.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"text {row} is not UTF-8 ({error}); save the texts as UTF-8, or leave it out"
        ) from error
