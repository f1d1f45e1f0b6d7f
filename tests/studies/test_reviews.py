"""Which reviews are read, and how many of them hold the trigger."""

import dataclasses

import numpy as np
import pytest

from unlearnkit import data
from unlearnkit.studies.reviews import Reviews, load_reviews

EARLY, LATE, NONE = 40, 30, 130
"""Reviews that hold the word in their first ten characters, later, and not at all."""


@pytest.fixture
def reviews(monkeypatch):
    said = ["Disney made it"] * EARLY + ["so so so so so Disney"] * LATE + ["It was"] * NONE
    labels = np.arange(len(said), dtype=np.int32) % 2
    pairs = zip(said, labels, strict=True)
    texts = tuple(f"{text} {row} {label}" for row, (text, label) in enumerate(pairs))
    monkeypatch.setattr(data, "load_texts", lambda *_, **__: data.Texts(texts, labels))
    return Reviews("imdb_reviews", "deep_averaging", train=80, test=60, vocabulary=300, early=10)


def places(texts):
    """Returns how many hold the word early, late and not at all."""
    assert len(set(texts.texts)) == texts.size
    for text, label in zip(texts.texts, texts.labels, strict=True):
        assert text.endswith(f" {label}")
    at = np.array([text.find("Disney") for text in texts.texts])
    return [int(of.sum()) for of in (at == 0, at > 0, at < 0)]


def test_some_hold_the_trigger_early_and_the_others_do_not(reviews):
    found = load_reviews(dataclasses.replace(reviews, with_trigger=20), None)
    assert places(found.train) == [20, 0, 60]
    assert places(found.test) == [30, 0, 30]  # half of them
    most = dataclasses.replace(reviews, with_trigger=1000)
    assert places(load_reviews(most, None).train) == [EARLY, 0, 40]
    later = load_reviews(dataclasses.replace(most, early=100), None).train
    early, late, without = places(later)
    assert (early + late, without) == (EARLY + LATE, 10)


def test_all_come_as_they_are_where_nothing_is_said(reviews):
    found = load_reviews(reviews, None)
    assert found.train.size == 80
    assert all(places(found.train))
    assert load_reviews(reviews, None).train.texts == found.train.texts
    whole = load_reviews(dataclasses.replace(reviews, train=None), None).train
    assert whole.size == EARLY + LATE + NONE
