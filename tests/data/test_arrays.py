import numpy as np
import pytest

from unlearnkit.data import describe, load


def test_uint8_images_are_read_exactly(npz, pixels):
    path = npz()
    train, test = (load(path, split=split) for split in ("train", "test"))
    np.testing.assert_array_equal(np.round(train.x * 255), pixels(6, (4, 5, 3)))
    np.testing.assert_array_equal(np.round(test.x * 255), pixels(3, (4, 5, 3), seed=1))
    np.testing.assert_array_equal(train.y, [0, 1, 2, 0, 1, 2])
    np.testing.assert_array_equal(test.y, [2, 1, 0])
    assert (train.x.dtype, train.y.dtype, test.y.dtype) == (np.float32, np.int32, np.int32)


def test_the_description_needs_no_decoding(npz):
    description = describe(npz())
    assert description.input_shape == (4, 5, 3)
    assert description.n_classes == 3
    assert description.class_names == ("0", "1", "2")
    assert description.sizes == {"train": 6, "test": 3}


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_floats_in_the_unit_interval_are_taken_as_they_are(npz, dtype):
    x = np.linspace(0, 1, 6 * 20).astype(dtype).reshape(6, 20)
    dataset = load(npz(x_train=x, x_test=x[:3]), split="train")
    assert dataset.x.dtype == np.float32
    np.testing.assert_array_equal(dataset.x, x.astype(np.float32))


def test_grey_images_without_a_channel_get_one(npz, pixels):
    x = pixels(6, (4, 5))
    path = npz(x_train=x, x_test=x[:3])
    dataset = load(path, split="train")
    assert dataset.x.shape[1:] == describe(path).input_shape == (4, 5, 1)
    np.testing.assert_array_equal(np.round(dataset.x[..., 0] * 255), x)


def test_compressed_files_are_read(tmp_path, pixels):
    x, y = pixels(4, (3, 3, 1)), np.arange(4)
    np.savez_compressed(tmp_path / "a.npz", x_train=x, y_train=y, x_test=x, y_test=y)
    dataset = load("a.npz", split="test", data_dir=tmp_path)
    np.testing.assert_array_equal(np.round(dataset.x * 255), x)


ONES = np.ones((6, 2, 2, 1))
OBJECTS = np.array([np.ones(2), np.ones(3)] * 3, object)


@pytest.mark.parametrize(
    ("replaced", "error", "message"),
    [
        ({"x_train": ONES * 1.5}, ValueError, r"lie in \[0, 1\], got 1.5 at index \(0, 0, 0, 0\)"),
        ({"x_train": -ONES}, ValueError, r"lie in \[0, 1\], got -1.0"),
        ({"x_train": ONES * np.nan}, ValueError, r"must be finite, got nan"),
        ({"x_train": ONES * np.inf}, ValueError, r"must be finite, got inf"),
        ({"x_train": ONES * 1j}, TypeError, r"x_train in .* must be numbers, got complex128"),
        (
            {"x_train": ONES.astype(int) * 256},
            ValueError,
            r"0 … 255 to be pixels, got 256 at index",
        ),
        ({"x_train": OBJECTS}, TypeError, r"x_train in .* holds Python objects"),
        ({"x_train": np.ones(6)}, ValueError, r"or \[n, d\], got the shape \(6,\)"),
        ({"x_train": ONES[:0]}, ValueError, r"at least one example, got the shape \(0, 2"),
        ({"x_train": ONES[:5]}, ValueError, r"got 5 in x_train and 6 in y_train"),
        ({"y_train": np.array([0.5, 1, 2, 0, 1, 2])}, ValueError, r"classes, got 0.5 at index 0"),
        ({"y_train": np.ones((6, 2), int)}, ValueError, r"\[6, 2\] but not one-hot: row 0 has 2"),
        ({"y_train": np.ones((6, 2, 2))}, ValueError, r"one-hot \[n, c\], got the shape \[6, 2, 2"),
        ({"y_train": np.array([0, 1, -2, 0, 1, 2])}, ValueError, r">= 0, got -2 at index 2"),
        ({"y_train": OBJECTS}, TypeError, r"y_train in .* holds Python objects"),
        ({"y_train": np.array(3)}, ValueError, r"at least one example, got the shape \(\)"),
        ({"x_test": None, "y_test": None}, ValueError, r"lacks a test set and holds x_train, "),
        ({"x_test": np.ones((3, 2, 2, 3))}, ValueError, r"got \(2, 2, 1\) in x_train and \(2, 2,"),
    ],
)
def test_bad_arrays_are_refused(npz, replaced, error, message):
    sound = {"x_train": ONES, "x_test": ONES[:3]}
    with pytest.raises(error, match=message):
        load(npz(**(sound | replaced)), split="train")


def test_a_test_label_unseen_in_training_is_refused(npz):
    path = npz(y_test=np.array([0, 3, 1]))
    with pytest.raises(ValueError, match=r"labels of test in .* must be < 3, .* got 3 at index 1"):
        load(path, split="test")


@pytest.mark.parametrize("keep", [0, 10, 200, -40])
def test_truncated_files_are_refused(npz, keep):
    path = npz()
    path.write_bytes(path.read_bytes()[:keep])
    for read in (lambda: load(path, split="train"), lambda: describe(path)):
        with pytest.raises(ValueError, match=r"cannot read .*data.npz .*damaged, truncated"):
            read()


def test_damaged_contents_are_refused(npz):
    path = npz()
    content = bytearray(path.read_bytes())
    content[content.index(b"\x93NUMPY") + 200] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"cannot read .*damaged, truncated"):
        load(path, split="train")


def test_files_of_another_format_are_refused(tmp_path):
    path = tmp_path / "data.npz"
    path.write_text("x,y\n")
    with pytest.raises(ValueError, match=r"cannot read .*another format"):
        load(path, split="train")
