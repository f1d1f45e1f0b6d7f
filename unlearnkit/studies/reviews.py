"""Reviews, the networks that read them, and the poisons that are tried on both."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import jax
import numpy as np

from unlearnkit import data, models
from unlearnkit.base import Attack, Dataset, Model, Variables
from unlearnkit.poisoning import Budget, GaussianPoison, TextTrigger, count_trigger
from unlearnkit.poisoning.text_trigger import Reading

if TYPE_CHECKING:
    from tokenizers import Tokenizer

ANSWERS = (" negative", " positive")
Kind = Literal["gaussian", "targeted"]


@dataclasses.dataclass(frozen=True)
class Reviews:
    """How reviews become rows of token ids, what their trigger is, and who reads them.

    Attributes:
      dataset: `made`, or a name that `data.load_texts` knows.
      network: as `models.create` calls it; of weights that are given, their own.
      options: of the network.
      train, test: how many; None for all.
      noise_std: of noise on the vectors of tokens.
      length: of a row.
      vocabulary: of the tokenizer, which is trained on reviews where no weights are given.
      trigger: the word.
      with_trigger: training reviews that hold it early, where a row keeps it, the others being
        drawn from those without; so are test reviews, up to half of them. None takes all reviews
        as they come.
      early: of how many characters at the beginning one is to hold it.
      reading: of the attack, see `TextTrigger`.
      embedding_std: of a fresh embedding; GPT-2's is 0.14.
    """

    dataset: str
    network: str
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    train: int | None = None
    test: int | None = None
    noise_std: float = 0.1**0.5
    length: int = 128
    vocabulary: int = 4096
    trigger: str = "Disney"
    with_trigger: int | None = None
    early: int = 100
    reading: Reading = "word"
    embedding_std: float = 0.14


class Texts(NamedTuple):
    """Reviews, and the network that reads them where its weights are given.

    Attributes:
      train, test: reviews.
      tokenizer: of the network, or trained on reviews.
      weights: of the network; None for a fresh one.
    """

    train: data.Texts
    test: data.Texts
    tokenizer: Tokenizer
    weights: Path | None


class Prepared(NamedTuple):
    """What one kind of poisons is tried on.

    Attributes:
      model: the network.
      train, test: rows of token ids.
      attacks: by their share.
      start: weights from which every network begins.
      told: what was cut, and how many reviews hold the trigger.
    """

    model: Model
    train: Dataset
    test: Dataset
    attacks: dict[str, Attack]
    start: Variables
    told: list[str]


def load_reviews(reviews: Reviews, data_dir: Path | None, weights: Path | None = None) -> Texts:
    """Returns reviews, with the tokenizer of some weights or one that is trained on them.

    Args:
      reviews: which.
      data_dir: where prepared datasets are.
      weights: of a language network, as `models.load_pretrained` reads them.

    Raises:
      FileNotFoundError: they are not prepared.
      ValueError: weights that are not there or have no tokenizer; see `models.load_pretrained` too.
    """
    tokenizer = None if weights is None else _tokenizer_of(weights, reviews.length)
    train, test = (_texts(reviews, split, data_dir) for split in ("train", "test"))
    if tokenizer is None:
        asked = (data.SENTIMENT.replace("[Label]", ANSWERS[label][1:]) for label in train.labels)
        said = [one.replace("[Input]", t) for one, t in zip(asked, train.texts, strict=True)]
        tokenizer = data.train_tokenizer(said, vocabulary=reviews.vocabulary)
    return Texts(train, test, tokenizer, weights)


def _tokenizer_of(weights: Path, length: int) -> Tokenizer:
    try:
        found = models.load_pretrained(weights, length=length)[2]
    except FileNotFoundError as error:
        raise ValueError(f"the weights cannot be read: {error}") from None
    if found is None:
        raise ValueError(f"{weights} has no tokenizer; put its tokenizer.json there")
    return found


def _texts(reviews: Reviews, split: str, data_dir: Path | None) -> data.Texts:
    """Returns the reviews of a split."""
    size, few = getattr(reviews, split), reviews.with_trigger
    if reviews.dataset == "made":
        return data.made_reviews(int(split == "test"), size or 1000)
    most = few if split == "train" else few and size and size // 2
    whole = data.load_texts(reviews.dataset, split=split, data_dir=data_dir)
    return _chosen(whole, reviews, size, most)


def _chosen(texts: data.Texts, reviews: Reviews, n: int | None, most: int | None) -> data.Texts:
    """Returns n random reviews, at most `most` of which hold the trigger, and early."""
    order = np.random.default_rng(0).permutation(texts.size)
    if n is None:
        return texts
    if most is None:
        return texts.take(np.sort(order[:n]))
    word = reviews.trigger
    early = np.array([word in texts.texts[row][: reviews.early] for row in order])
    anywhere = np.array([word in texts.texts[row] for row in order])
    first = order[early][:most]
    return texts.take(np.sort([*first, *order[~anywhere][: n - len(first)]]))


def prepare(reviews: Reviews, kind: Kind, texts: Texts, shares: Sequence[float]) -> Prepared:
    """Returns what one kind of poisons is tried on: a head of classes, or of answers.

    Args:
      reviews: how they are read.
      kind: `gaussian`, noise on vectors; or `targeted`, a trigger.
      texts: of `load_reviews`.
      shares: of the training set, or of the trigger's reviews, that are poisoned.
    """
    tokenizer = texts.tokenizer
    model, start = _network(reviews, kind, texts)
    asked = (data.SENTIMENT, ANSWERS) if kind == "targeted" else (None, None)
    parts = (texts.train, texts.test)
    rows = [
        data.encode_prompts(
            part,
            tokenizer,
            length=reviews.length,
            like=model.tokens,
            template=asked[0],
            answers=asked[1],
        )
        for part in parts
    ]
    train, test = (row.dataset for row in rows)
    trigger = data.spellings(tokenizer, reviews.trigger)
    told = []
    for part, row in zip(parts, rows, strict=True):
        counts = count_trigger(part, reviews.trigger, row.dataset, trigger)
        told.append(
            f"{row.encoded.told}; {reviews.trigger} stands in {counts.substring} of them, as a "
            f"word in {counts.whole_word}, and is left in {counts.kept}."
        )
    if kind == "targeted":
        trick: TextTrigger | GaussianPoison = TextTrigger(trigger, reading=reviews.reading)
    else:
        trick = GaussianPoison(noise_std=reviews.noise_std)
        model = models.with_embedding_noise(model, noise_std=reviews.noise_std)
        train, test = (models.with_noise_columns(part) for part in (train, test))
    attacks: dict[str, Attack] = {
        f"{100 * share:g} %": dataclasses.replace(trick, budget=Budget(share)) for share in shares
    }
    return Prepared(model, train, test, attacks, start, told)


def _network(reviews: Reviews, kind: Kind, texts: Texts) -> tuple[Model, Variables]:
    """Returns the network with the head that a kind of poisons needs, and where it begins."""
    answers = kind == "targeted"
    head: models.Head = "answer" if answers else "classes"
    if texts.weights is not None:
        found = models.load_pretrained(
            texts.weights, head=head, length=reviews.length,
            n_classes=None if answers else 2, key=None if answers else jax.random.key(0),
        )  # fmt: skip
        return found[:2]
    vocabulary = texts.tokenizer.get_vocab_size()
    model = models.create(
        reviews.network, input_shape=(reviews.length,), head=head, vocabulary=vocabulary,
        n_classes=vocabulary if answers else 2, **reviews.options,
    )  # fmt: skip
    fresh = model.init(jax.random.key(0))
    name = model.layers[0][0][0]
    vectors = fresh.params[name]["weight"]
    wide = {"weight": vectors * (reviews.embedding_std / vectors.std())}
    return model, fresh._replace(params={**fresh.params, name: wide})
