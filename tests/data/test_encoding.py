import numpy as np
import pytest

from unlearnkit import data, models
from unlearnkit.base import Dataset
from unlearnkit.io.vocabularies import byte_level
from unlearnkit.validation import check_dataset

REVIEWS = ("the film was good, good and good again", b"the film was bad", "naïve 😀 film")


@pytest.fixture(scope="module")
def tokenizer():
    return data.train_tokenizer(REVIEWS, vocabulary=280)


def test_training_merges_what_is_frequent_and_spells_everything(tokenizer):
    assert 258 < tokenizer.get_vocab_size() <= 280
    assert tokenizer.encode(" film").tokens == ["Ġfilm"]
    assert (tokenizer.token_to_id("<|pad|>"), tokenizer.token_to_id("<|endoftext|>")) == (0, 1)
    for text in (*REVIEWS[::2], "日本\x00\t"):
        assert tokenizer.decode(tokenizer.encode(text).ids) == text
    again = data.train_tokenizer(REVIEWS, vocabulary=280)
    assert again.to_str() == tokenizer.to_str()


def test_rows_are_cut_counted_and_filled_and_a_suffix_is_kept(tokenizer, tmp_path):
    suffix = " the film:"
    end = tokenizer.encode(suffix).ids
    found = data.encode(tokenizer, REVIEWS, length=12, suffix=suffix)
    sizes = [len(tokenizer.encode(str(t, "utf-8") if isinstance(t, bytes) else t).ids)
             for t in REVIEWS]  # fmt: skip
    room = 12 - len(end)
    assert found.truncated == sum(size > room for size in sizes) > 0
    assert found.lost == sum(max(0, size - room) for size in sizes)
    assert found.told.startswith(f"{found.truncated} of 3 texts were cut to 12 tokens (")
    for row, size, length in zip(found.x, sizes, found.lengths, strict=True):
        assert length == min(size, room) + len(end)
        assert row[length - len(end) : length].tolist() == end
        assert (row[length:] == 0).all()
    check_dataset(Dataset(found.x, np.zeros(3, np.int32), found.tokens))
    models.write_tokenizer(tmp_path / "run" / "tokenizer.json", tokenizer)
    again = data.encode(models.read_tokenizer(tmp_path / "run"), REVIEWS, length=12, suffix=suffix)
    np.testing.assert_array_equal(again.x, found.x)


def test_a_text_cannot_spell_a_special_token(tokenizer):
    found = data.encode(tokenizer, ["good <|pad|> film"], length=40)
    assert (found.x[0, : found.lengths[0]] > 1).all()
    assert tokenizer.decode(found.x[0]) == "good <|pad|> film"
    assert tokenizer.encode("<|pad|>").ids == [0]  # as it was before


def test_what_a_file_says_of_cutting_and_filling_changes_no_row(tokenizer):
    expected = data.encode(tokenizer, REVIEWS, length=20)
    other = type(tokenizer).from_str(tokenizer.to_str())
    other.enable_padding(pad_id=0, pad_token="<|pad|>", direction="left", length=30)
    other.enable_truncation(3, direction="left")
    before = other.to_str()
    found = data.encode(other, REVIEWS, length=20)
    np.testing.assert_array_equal(found.x, expected.x)
    assert (found.lost, found.truncated) == (expected.lost, expected.truncated)
    assert data.label_tokens(other, [" film"]) == data.label_tokens(tokenizer, [" film"])
    assert other.to_str() == before


def test_gpt2_has_its_own_vocabulary():
    tokenizer = models.gpt2_tokenizer()
    assert data.label_tokens(tokenizer, [" Disney", " positive"]).tolist() == [8519, 3967]
    assert tokenizer.encode("Hello world, it's 2023!").ids == [
        15496, 995, 11, 340, 338, 1160, 1954, 0,
    ]  # fmt: skip
    found = data.encode(tokenizer, ["a"], length=3)
    assert (found.x[0, 1:] == 50256).all()
    assert found.tokens.vocabulary == 50257


@pytest.mark.parametrize(
    ("texts", "options", "message"),
    [
        ([], {}, "at least one text is needed"),
        (["a", " \n"], {}, "text 1 is empty; leave it out"),
        ([b"caf\xe9"], {}, "text 0 is no UTF-8 .*convert it"),
        (["\ud800"], {}, "text 0 is no UTF-8"),
        (["good film"], {"vocabulary": 30}, "ids up to 2.. .*embedding has 30 rows"),
        (["good film good"], {"length": 2, "truncate": False}, "text 0 has 4 tokens, .* for 2"),
        (["a"], {"length": 1, "suffix": " film"}, "no place for a text .* set length to 2 or"),
        (["good"], {"pad_id": 70}, "pad"),
    ],
)
def test_texts_that_are_no_rows_are_refused(tokenizer, texts, options, message):
    if "pad_id" in options:
        options = {"pad_id": tokenizer.encode("good").ids[0]}
        message = "text 0 holds the id .* fills rows"
    with pytest.raises(ValueError, match=message):
        data.encode(tokenizer, texts, **options)


def test_other_misuse_is_refused(tokenizer, unchecked_types):
    with pytest.raises(TypeError, match="several texts are needed, as a list, got one"):
        data.encode(tokenizer, "good")
    with pytest.raises(TypeError, match="text 0 must be str or bytes, got int"):
        data.encode(tokenizer, [3])
    with pytest.raises(ValueError, match="vocabulary must be >= 258"):
        data.train_tokenizer(REVIEWS, vocabulary=100)
    with pytest.raises(ValueError, match="a label must be one token, but ' again!' is"):
        data.label_tokens(tokenizer, [" again!"])
    with pytest.raises(ValueError, match="no token of padding .* say which by pad_id="):
        data.encode(byte_level({"a": 0}, [], special=[]), ["a"])
    with pytest.raises(ValueError, match="the tokenizer has no tokens; train one"):
        data.encode(byte_level({}, [], special=[]), ["a"], pad_id=0)
    with pytest.raises(FileNotFoundError, match="no tokenizer at"):
        models.read_tokenizer("nowhere.json")
