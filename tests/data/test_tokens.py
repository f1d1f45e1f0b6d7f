"""Token ids from a file."""

import numpy as np
import pytest
from token_task import LENGTH, TOKENS, draw, make_model, same

from unlearnkit.base import Normalisation, Tokens
from unlearnkit.data import describe, load
from unlearnkit.validation import check_compatible, check_dataset

TRAIN, TEST = draw(1, 20), draw(2, 12)


@pytest.fixture
def path(tmp_path):
    def write(dtype=np.int32, train=TRAIN, test=TEST):
        arrays = {"x_train": train.x, "y_train": train.y, "x_test": test.x, "y_test": test.y}
        kept = {k: np.asarray(a, dtype if k[0] == "x" else np.int32) for k, a in arrays.items()}
        np.savez(tmp_path / "text.npz", **kept)
        return tmp_path / "text.npz"

    return write


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.int32, np.int64])
def test_ids_are_read_as_they_are(path, dtype):
    file = path(dtype)
    assert same(load(file, split="train", normalisation=TOKENS), TRAIN)
    found = load(file, split="test", normalisation=TOKENS)  # from the cache by now
    assert same(found, TEST)
    check_dataset(found)
    check_compatible(found, make_model())
    assert describe(file).input_shape == (LENGTH,)


@pytest.mark.parametrize("normalisation", ["unit", "standard", Normalisation("own")])
def test_integers_are_no_pixels(path, normalisation):
    with pytest.raises(TypeError, match=r"is int32 .*Tokens\("):
        load(path(), split="train", normalisation=normalisation)


def test_reals_are_no_ids(path):
    file = path(np.float32, *(part._replace(x=part.x / 10) for part in (TRAIN, TEST)))
    with pytest.raises(TypeError, match=r"x of train in .*text.npz must be integer .* float32"):
        load(file, split="train", normalisation=TOKENS)


def test_ids_beyond_the_vocabulary_are_refused(path):
    with pytest.raises(ValueError, match=r"train in .*text.npz must be in 0 … 4, got 9"):
        load(path(), split="train", normalisation=Tokens(5))


def test_an_unknown_normalisation_is_refused(path):
    with pytest.raises(ValueError, match="a Normalisation, or Tokens, got 'words'"):
        load(path(), split="train", normalisation="words")
