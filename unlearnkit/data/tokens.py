"""Texts as rows of token ids."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from jaxtyping import Int

from unlearnkit.base import Tokens
from unlearnkit.io.vocabularies import check_installed, pad_of

if TYPE_CHECKING:
    from tokenizers import Tokenizer

PAD, END = "<|pad|>", "<|endoftext|>"
"""What a tokenizer that is trained here calls the id that fills rows, 0, and the end of a text."""
_LEAST = 256 + 2


class Encoded(NamedTuple):
    """Texts as rows of token ids, filled on the right.

    Attributes:
      x: [n, length] int32 token ids.
      lengths: [n] tokens of each row that are no padding.
      truncated: how many texts were cut.
      lost: how many tokens were cut off, of all texts together.
      tokens: the vocabulary, and the id of padding: the `normalisation` of a `Dataset` of x.
    """

    x: Int[np.ndarray, "n length"]
    lengths: Int[np.ndarray, " n"]
    truncated: int
    lost: int
    tokens: Tokens

    @property
    def told(self) -> str:
        """What was cut, in words."""
        n, length = self.x.shape
        share = self.lost / max(1, self.lost + int(self.lengths.sum()))
        return (
            f"{self.truncated} of {n} texts were cut to {length} tokens ({share:.1%} of all tokens)"
        )


def train_tokenizer(texts: Iterable[str | bytes], *, vocabulary: int = 8192) -> Tokenizer:
    """Returns a byte-level BPE trained on texts: the most frequent pairs of tokens become tokens.

    Every text has a spelling in it, for all 256 bytes are tokens. `<|pad|>` is 0 and
    `<|endoftext|>` 1. The same texts give the same tokenizer.

    Args:
      texts: of the training set alone, or what is unseen shapes the tokens.
      vocabulary: tokens at most; a few texts give fewer.

    Raises:
      ImportError: the `tokenizers` library is not installed.
      ValueError: a vocabulary below 258, no text, or one that is empty or no UTF-8.

    Source: Sennrich et al. 2016; on bytes, Radford et al. 2019, §2.2.

    Example:
      tokenizer = data.train_tokenizer(reviews, vocabulary=4096)
      tokenizer.save("tokenizer.json")
    """
    check_installed()
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    if vocabulary < _LEAST:
        raise ValueError(
            f"vocabulary must be >= {_LEAST}, the 256 bytes, padding and the end of a text, got "
            f"{vocabulary}"
        )
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[PAD, END],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    made.train_from_iterator(as_texts(texts), trainer)
    made.enable_padding(pad_id=0, pad_token=PAD)
    return made


def encode(
    tokenizer: Tokenizer,
    texts: Iterable[str | bytes],
    *,
    length: int = 128,
    suffix: str = "",
    truncate: bool = True,
    pad_id: int | None = None,
    vocabulary: int | None = None,
) -> Encoded:
    """Returns texts as rows of `length` token ids, filled on the right.

    A text that is too long loses its end, never its suffix, and is counted. Text and suffix are
    tokenized each for itself, so that all rows end in the same tokens. No special token is added,
    and a text that spells one, as `<|endoftext|>`, is taken letter by letter.

    Args:
      tokenizer: of the `tokenizers` library.
      texts: as text, or as bytes in UTF-8.
      length: of a row.
      suffix: what follows every text, as " The sentiment of the review is:".
      truncate: whether texts may be cut; otherwise a longer one is refused.
      pad_id: the id that fills rows; None for the tokenizer's.
      vocabulary: rows of the network's embedding, `model.tokens.vocabulary`; None for as many as
        the tokenizer has tokens.

    Raises:
      ValueError: no text, or one that is empty or no UTF-8; ids that the embedding has no rows for;
        a suffix that leaves no place; a text that is too long and must not be cut.

    Example:
      found = data.encode(tokenizer, reviews, length=128)
      dataset = Dataset(found.x, labels, found.tokens)
    """
    pad = pad_of(tokenizer) if pad_id is None else pad_id
    known = _check_vocabulary(tokenizer, vocabulary)
    with _letter_by_letter(tokenizer):
        end = tokenizer.encode(suffix, add_special_tokens=False).ids
        found = tokenizer.encode_batch_fast(as_texts(texts), add_special_tokens=False)
    room = length - len(end)
    if room < 1:
        raise ValueError(
            f"rows of {length} tokens leave no place for a text beside the suffix {suffix!r} of "
            f"{len(end)} tokens; set length to {len(end) + 1} or more"
        )
    rows = [one.ids for one in found]
    sizes = np.array([len(row) for row in rows])
    _check_sizes(sizes, room, truncate)
    x = np.full((len(rows), length), pad, np.int32)
    for row, ids in zip(x, rows, strict=True):
        kept = [*ids[:room], *end]
        row[: len(kept)] = kept
    _check_pad(x, np.minimum(sizes, room) + len(end), pad, tokenizer)
    over = np.maximum(sizes - room, 0)
    lengths = (np.minimum(sizes, room) + len(end)).astype(np.int32)
    return Encoded(x, lengths, int((over > 0).sum()), int(over.sum()), Tokens(known, pad))


def label_tokens(tokenizer: Tokenizer, labels: Sequence[str]) -> Int[np.ndarray, " n"]:
    """Returns the ids of labels that are one token each, as " positive".

    Args:
      tokenizer: of the `tokenizers` library.
      labels: with the space before the word, where they follow one.

    Raises:
      ValueError: a label of several tokens, which a network answers in several steps.
    """
    ids = []
    for label in labels:
        with _letter_by_letter(tokenizer):
            found = tokenizer.encode(label, add_special_tokens=False)
        if len(found.ids) != 1:
            raise ValueError(
                f"a label must be one token, but {label!r} is {len(found.ids)} "
                f"({', '.join(map(repr, found.tokens))}); choose another word, or a tokenizer with "
                "a larger vocabulary"
            )
        ids.append(found.ids[0])
    return np.array(ids, np.int32)


def as_texts(texts: Iterable[str | bytes]) -> list[str]:
    """Returns texts as `str`.

    Raises:
      TypeError: something that is no text.
      ValueError: none at all, or one that is empty or no UTF-8, by its number.
    """
    if isinstance(texts, str | bytes):
        raise TypeError("several texts are needed, as a list, got one")
    found = [_as_text(number, text) for number, text in enumerate(texts)]
    if not found:
        raise ValueError("at least one text is needed, got none")
    return found


def _as_text(number: int, text: object) -> str:
    if not isinstance(text, str | bytes):
        raise TypeError(f"text {number} must be str or bytes, got {type(text).__name__}")
    try:
        said = text.decode("utf-8") if isinstance(text, bytes) else text
        said.encode("utf-8")
    except UnicodeError as error:
        raise ValueError(
            f"text {number} is no UTF-8 ({error}); convert it, or read its file with the encoding "
            "that it has"
        ) from None
    if not said.strip():
        raise ValueError(f"text {number} is empty; leave it out, with its label")
    return said


def _check_vocabulary(tokenizer: Tokenizer, vocabulary: int | None) -> int:
    ids = tokenizer.get_vocab(with_added_tokens=True)
    if not ids:
        raise ValueError("the tokenizer has no tokens; train one by data.train_tokenizer(texts)")
    token, most = max(ids.items(), key=lambda item: item[1])
    if vocabulary is not None and most >= vocabulary:
        raise ValueError(
            f"the tokenizer has ids up to {most} ({token!r}), but the network's embedding has "
            f"{vocabulary} rows; take the tokenizer that belongs to the network"
        )
    return most + 1 if vocabulary is None else vocabulary


def _check_sizes(sizes: Int[np.ndarray, " n"], room: int, truncate: bool) -> None:
    if not truncate and sizes.max() > room:
        first = int(np.argmax(sizes > room))
        raise ValueError(
            f"text {first} has {sizes[first]} tokens, but a row has place for {room} "
            f"({int((sizes > room).sum())} texts are too long); set length, or truncate=True"
        )


def _check_pad(
    x: Int[np.ndarray, "n length"], lengths: Int[np.ndarray, " n"], pad: int, tokenizer: Tokenizer
) -> None:
    """Raises ValueError if a text holds the id that fills rows, which would hide it."""
    inside = (x == pad) & (np.arange(x.shape[1]) < lengths[:, None])
    if inside.any():
        row = int(np.argmax(inside.any(1)))
        raise ValueError(
            f"text {row} holds the id {pad} ({tokenizer.id_to_token(pad)!r}), which fills rows and "
            "would not be seen; choose another pad_id"
        )


@contextmanager
def _letter_by_letter(tokenizer: Tokenizer) -> Iterator[None]:
    """Has a tokenizer give all ids of a text and no others, and no special token that it spells.

    Files of tokenizers may say that texts are cut, and filled, on either side.
    """
    before = tokenizer.encode_special_tokens
    cut, filled = tokenizer.truncation, tokenizer.padding
    tokenizer.encode_special_tokens = True
    tokenizer.no_truncation()
    tokenizer.no_padding()
    try:
        yield
    finally:
        tokenizer.encode_special_tokens = before
        if cut:
            tokenizer.enable_truncation(**cut)
        if filled:
            tokenizer.enable_padding(**filled)
