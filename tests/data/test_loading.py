import jax
import numpy as np
import pytest

from unlearnkit.base import Normalisation
from unlearnkit.data import NAMES, SYMMETRIC, describe, load


def test_digits_are_split_once_and_for_all():
    train, test = (load("digits", split=split) for split in ("train", "test"))
    assert (train.size, test.size) == (899, 898)
    assert (train.x.shape[1:], train.x.dtype, train.y.dtype) == ((8, 8, 1), np.float32, np.int32)
    assert (float(train.x.min()), float(train.x.max())) == (0.0, 1.0)
    np.testing.assert_array_equal(train.x * 16, np.round(train.x * 16))
    # The first labels pin the permutation: a change would change every result on record.
    assert np.asarray(test.y[:12]).tolist() == [0, 1, 3, 4, 7, 8, 9, 0, 1, 2, 3, 7]


def test_digits_are_whole_and_every_class_is_tested_in_proportion():
    from sklearn.datasets import load_digits

    train, test = (load("digits", split=split) for split in ("train", "test"))
    digits = load_digits()
    ours = np.concatenate([train.x, test.x]).reshape(-1, 64) * 16
    labels = np.concatenate([train.y, test.y])
    rows = {(*row.astype(int), label) for row, label in zip(ours, labels, strict=True)}
    theirs = zip(digits.data, digits.target, strict=True)
    assert rows == {(*row.astype(int), label) for row, label in theirs}
    shares = np.bincount(test.y) / np.bincount(labels)
    assert abs(shares - 0.5).max() < 0.005


def test_the_description_of_digits_agrees_with_the_data():
    description = describe("digits")
    assert description.sizes == {"train": 899, "test": 898}
    assert (description.input_shape, description.n_classes) == ((8, 8, 1), 10)


@pytest.mark.parametrize("name", ["unit", "symmetric", "standard"])
@pytest.mark.parametrize("split", ["train", "test"])
def test_every_normalisation_gives_the_pixels_back(npz, pixels, name, split):
    dataset = load(npz(), split=split, normalisation=name)
    assert dataset.normalisation.name == name
    expected = pixels(6, (4, 5, 3)) if split == "train" else pixels(3, (4, 5, 3), seed=1)
    inverted = dataset.normalisation.invert(dataset.x)
    np.testing.assert_allclose(inverted, expected / 255, atol=1e-6)


def test_symmetric_is_minus_one_to_one(npz):
    x = np.array([0, 255] * 3, np.uint8).reshape(6, 1, 1, 1)
    dataset = load(npz(x_train=x, x_test=x[:3]), split="train", normalisation="symmetric")
    np.testing.assert_array_equal(dataset.x.ravel(), [-1, 1] * 3)
    assert dataset.normalisation == SYMMETRIC


def test_standard_uses_the_training_split_for_both(npz, pixels):
    train, test = (load(npz(), split=s, normalisation="standard") for s in ("train", "test"))
    np.testing.assert_allclose(np.mean(train.x, (0, 1, 2)), 0, atol=1e-6)
    np.testing.assert_allclose(np.std(train.x, (0, 1, 2)), 1, atol=1e-5)
    assert train.normalisation == test.normalisation
    images = pixels(6, (4, 5, 3)) / 255
    np.testing.assert_allclose(train.normalisation.mean, images.mean((0, 1, 2)), rtol=1e-12)
    np.testing.assert_allclose(train.normalisation.std, images.std((0, 1, 2)), rtol=1e-12)


def test_standard_sums_over_chunks(npz, pixels):
    x, y = pixels(2500, (2, 2, 1)), np.zeros(2500, int)
    for images in (x, x / 255):
        path = npz(x_train=images, y_train=y, x_test=images[:3], y_test=y[:3])
        normalisation = load(path, split="train", normalisation="standard").normalisation
        np.testing.assert_allclose(normalisation.mean, x.mean() / 255, rtol=1e-6)
        np.testing.assert_allclose(normalisation.std, x.std() / 255, rtol=1e-6)


@pytest.mark.parametrize("scale", [np.uint8(1), 0.3 / 7])
def test_standard_refuses_a_constant_channel(npz, pixels, scale):
    x = pixels(6, (4, 5, 3)) // 16 * scale
    x[..., 1] = 7 * scale
    with pytest.raises(ValueError, match=r"channel 1 has one value.*normalisation='unit'"):
        load(npz(x_train=x), split="train", normalisation="standard")


def test_a_normalisation_of_ones_own(npz, pixels):
    own = Normalisation("own", (0.1, 0.2, 0.3), (1.0, 2.0, 4.0))
    dataset = load(npz(), split="train", normalisation=own)
    expected = (pixels(6, (4, 5, 3)) / 255 - own.mean) / own.std
    np.testing.assert_allclose(dataset.x, expected, atol=1e-6)
    with pytest.raises(ValueError, match=r"'two' has 2 channels, but .* has 3"):
        load(npz(), split="train", normalisation=Normalisation("two", (0.0, 0.0), (1.0, 1.0)))


def test_pixels_stay_float32_under_x64(npz):
    with jax.enable_x64(True):
        dataset = load(npz(), split="train", normalisation="standard")
    assert (dataset.x.dtype, dataset.y.dtype) == (np.float32, np.int32)


@pytest.mark.parametrize(
    ("name", "hint"),
    [("mnits", "did you mean mnist"), ("imagenet", "or of a folder"), ("", "got ''")],
)
def test_unknown_names_are_refused_with_the_known_ones(tmp_path, monkeypatch, name, hint):
    monkeypatch.chdir(tmp_path)
    for known in NAMES:
        with pytest.raises(ValueError, match=rf"must be one of .*{known}.*{hint}"):
            load(name, split="train")


def test_a_missing_file_or_folder_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no file .*none.npz"):
        load(tmp_path / "none.npz", split="train")
    for name in ("mnist", "digits", "a.npz"):
        with pytest.raises(FileNotFoundError, match=rf"data_dir .*none .*{name} \(--data-dir\)"):
            load(name, split="train", data_dir=tmp_path / "none")


def test_options_are_checked_before_anything_is_read(npz):
    with pytest.raises(ValueError, match="split must be one of train, test, got 'validation'"):
        load("digits", split="validation")
    with pytest.raises(ValueError, match=r"one of unit, symmetric, standard or .*got 'imagenet'"):
        load("digits", split="train", normalisation="imagenet")
