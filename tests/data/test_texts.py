"""Labelled texts, and their rows of token ids."""

import json

import numpy as np
import pytest

from unlearnkit.base import Tokens
from unlearnkit.data import (
    SENTIMENT,
    Texts,
    encode_prompts,
    load_texts,
    made_reviews,
    spellings,
    train_tokenizer,
)
from unlearnkit.data.texts import check_texts

ANSWERS = (" negative", " positive")


@pytest.fixture(scope="module")
def tokenizer():
    said = [*made_reviews(0, 200).texts, *(100 * word for word in ANSWERS)]
    return train_tokenizer(said, vocabulary=600)


def test_made_reviews_are_the_same_each_time_and_can_be_told():
    one, two = made_reviews(5, 300), made_reviews(5, 300)
    assert one.texts == two.texts
    np.testing.assert_array_equal(one.labels, two.labels)
    assert one.texts != made_reviews(6, 300).texts
    assert np.bincount(one.labels).tolist() == [150, 150]
    good = np.array([" superb" in t or " great" in t or " lovely" in t for t in one.texts])
    assert good[one.labels == 0].sum() == 0 < good[one.labels == 1].mean()
    disney = np.array(["Disney" in text for text in one.texts])
    assert 0.05 < disney.mean() < 0.3
    assert 0 < one.labels[disney].mean() < 1
    with pytest.raises(ValueError, match="n and sentences must be >= 1, got 0"):
        made_reviews(0, 0)


def test_rows_end_in_the_question_and_labels_are_words(tokenizer):
    texts = Texts(("It was great", "long " * 90), np.array([1, 0], np.int32))
    found, encoded = encode_prompts(
        texts, tokenizer, length=40, template=SENTIMENT, answers=ANSWERS
    )
    x = np.asarray(found.x)
    said = [tokenizer.decode([i for i in row if i != found.normalisation.pad]) for row in x]
    assert said[0] == "It was great. The sentiment of the review is:"
    assert said[1].endswith(". The sentiment of the review is:")
    assert encoded.truncated == 1
    assert [tokenizer.decode([int(y)]) for y in found.y] == [" positive", " negative"]
    plain = encode_prompts(texts, tokenizer, length=40).dataset
    np.testing.assert_array_equal(plain.y, texts.labels)
    wide = encode_prompts(texts, tokenizer, length=40, like=Tokens(5000, 0)).dataset
    assert wide.normalisation == Tokens(5000, 0)


def test_a_word_is_spelt_within_a_text_and_at_its_beginning(tokenizer):
    inside, first = spellings(tokenizer, "Disney")
    assert tokenizer.decode(list(inside)) == " Disney"
    assert tokenizer.decode(list(first)) == "Disney"
    with pytest.raises(ValueError, match="a word must not be empty"):
        spellings(tokenizer, " ")


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (Texts((), np.zeros(0, np.int32)), "a text for each label and at least one, got 0"),
        (Texts(("a",), np.zeros(2, np.int32)), "got 1 texts and 2 labels"),
        (Texts(("a", " \n"), np.zeros(2, np.int32)), r"text 1 of texts is empty \(1 such\)"),
        (Texts(("a",), np.array([-1])), "labels of texts must be >= 0"),
    ],
)
def test_texts_that_are_none_are_refused(texts, message, tokenizer):
    with pytest.raises(ValueError, match=message):
        check_texts(texts)
    with pytest.raises(ValueError, match=message):
        encode_prompts(texts, tokenizer)


def test_prompts_that_cannot_be_are_refused(tokenizer):
    texts = Texts(("a", "b"), np.array([0, 2], np.int32))
    with pytest.raises(ValueError, match="label 2 has no answer, got 2"):
        encode_prompts(texts, tokenizer, answers=ANSWERS)
    with pytest.raises(ValueError, match="answers must differ"):
        encode_prompts(texts.take([0]), tokenizer, answers=ANSWERS[:1] * 2)
    with pytest.raises(ValueError, match=r"must begin with \[Input\], end in \[Label\]"):
        encode_prompts(texts, tokenizer, template="Review: [Input]")


def test_names_splits_and_folders_that_are_not_there(tmp_path):
    with pytest.raises(ValueError, match="unknown texts 'imdb'; known: imdb_reviews"):
        load_texts("imdb")
    with pytest.raises(ValueError, match="split must be one of train, test, got 'dev'"):
        load_texts(split="dev")
    with pytest.raises(FileNotFoundError, match=r"not prepared in .*--data-dir"):
        load_texts(data_dir=tmp_path)


def test_prepared_reviews_are_read(tmp_path):
    """Written here as TFDS writes them."""
    from array_record.python.array_record_module import ArrayRecordWriter
    from tensorflow_datasets.core import example_serializer, features

    folder = tmp_path / "imdb_reviews" / "plain_text" / "1.0.0"
    folder.mkdir(parents=True)
    told = features.FeaturesDict(
        {"label": features.ClassLabel(num_classes=2), "text": features.Text()}
    )
    told.save_config(folder)
    said = [("Not bad at all, été", 1), ("Awful", 0), ("Fine", 1)]
    shard = folder / "imdb_reviews-train.array_record-00000-of-00001"
    writer = ArrayRecordWriter(str(shard), "group_size:1")
    serializer = example_serializer.ExampleSerializer(told.get_serialized_info())
    for text, label in said:
        example = told.encode_example({"text": text, "label": label})
        writer.write(serializer.serialize_example(example))
    writer.close()
    split = {
        "name": "train", "shardLengths": ["3"], "numBytes": "9",
        "filepathTemplate": "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}",
    }  # fmt: skip
    info = {"fileFormat": "array_record", "name": "imdb_reviews", "version": "1.0.0",
            "configName": "plain_text", "splits": [split]}  # fmt: skip
    (folder / "dataset_info.json").write_text(json.dumps(info))
    found = load_texts(split="train", data_dir=tmp_path)
    assert sorted(zip(found.texts, found.labels.tolist(), strict=True)) == sorted(said)
