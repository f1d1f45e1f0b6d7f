import importlib.util
import json
import sys
import types

import numpy as np
import pytest

from unlearnkit.data import describe, load, prepared

GREY, COLOUR = (28, 28, 1), (32, 32, 3)
KNOWN = [
    ("mnist", GREY, 10, ()),
    ("fashion_mnist", GREY, 10, ()),
    ("cifar10", COLOUR, 10, ()),
    ("cifar100", COLOUR, 100, ("coarse_label",)),
    ("svhn_cropped", COLOUR, 10, ()),
]


@pytest.fixture
def tiny(tfds_dir, pixels):
    """Returns a function that prepares seven and three examples, and gives its folder and data."""

    def write(name="mnist", shape=GREY, n_classes=10, *, train_labels=None, **options):
        images = {"train": pixels(7, shape), "test": pixels(3, shape, seed=1)}
        labels = {"train": np.arange(7) * (n_classes - 1) // 6, "test": np.arange(3)}
        if train_labels is not None:
            labels["train"] = train_labels
        return tfds_dir(name, images, labels, n_classes=n_classes, **options), images, labels

    return write


@pytest.mark.parametrize(("name", "shape", "n_classes", "extra"), KNOWN)
def test_every_known_dataset_is_read_as_it_was_prepared(tiny, name, shape, n_classes, extra):
    data_dir, images, labels = tiny(name, shape, n_classes, extra_labels=extra)
    for split in ("train", "test"):
        dataset = load(name, split=split, data_dir=data_dir)
        np.testing.assert_array_equal(np.round(dataset.x * 255), images[split])
        np.testing.assert_array_equal(dataset.y, labels[split])
        assert (dataset.x.dtype, dataset.y.dtype) == (np.float32, np.int32)
    description = describe(name, data_dir=data_dir)
    assert description.input_shape == shape
    assert description.n_classes == len(description.class_names) == n_classes
    assert description.sizes == {"train": 7, "test": 3}


def test_known_names_are_all_tested():
    assert tuple(name for name, *_ in KNOWN) == prepared.NAMES


def test_class_names_are_those_of_the_metadata_or_of_cifar10(tiny):
    names = [f"kind {i}" for i in range(100)]
    data_dir, *_ = tiny("cifar100", COLOUR, 100, class_names=names)
    assert describe("cifar100", data_dir=data_dir).class_names == tuple(names)
    data_dir, *_ = tiny("cifar10", COLOUR)
    assert describe("cifar10", data_dir=data_dir).class_names[3] == "cat"


def test_tensorflow_is_not_even_looked_for(tiny, monkeypatch):
    asked = []

    class Recorder:
        @staticmethod
        def find_spec(name, path=None, target=None):
            asked.append(name.partition(".")[0])

    monkeypatch.setattr(sys, "meta_path", [Recorder, *sys.meta_path])
    data_dir, *_ = tiny()
    load("mnist", split="train", data_dir=data_dir)
    assert not {"tensorflow", "tf_nightly"} & set(asked)
    assert "tensorflow" not in sys.modules


def test_examples_keep_their_order_over_batches_and_progress_is_told(tiny, monkeypatch):
    monkeypatch.setattr(prepared, "_BATCH", 3)
    data_dir, images, _ = tiny()
    told = []
    dataset = load("mnist", split="train", data_dir=data_dir, progress=lambda *n: told.append(n))
    np.testing.assert_array_equal(np.round(dataset.x * 255), images["train"])
    assert told == [(3, 7), (6, 7), (7, 7)]


def test_the_default_data_dir_is_that_of_tfds(tiny, monkeypatch):
    data_dir, *_ = tiny()
    monkeypatch.setenv("TFDS_DATA_DIR", str(data_dir))
    assert load("mnist", split="test").size == 3
    monkeypatch.delenv("TFDS_DATA_DIR")
    monkeypatch.setenv("HOME", str(data_dir.parent))
    with pytest.raises(FileNotFoundError, match=f"{data_dir.parent}/tensorflow_datasets"):
        load("mnist", split="test")


def test_the_newest_readable_version_is_read(tiny, tfds_dir):
    tiny(version="3.0.9")
    data_dir, *_ = tiny(version="3.0.10")
    tfds_dir("mnist", {}, {}, version="4.0.0", file_format="tfrecord", metadata_shape=GREY)
    assert prepared.find("mnist", data_dir=data_dir, download=False).folder.name == "3.0.10"


def test_data_that_is_not_prepared_is_refused_with_both_remedies(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"cifar100 is not prepared.*--data-dir.*--down"):
        load("cifar100", split="train", data_dir=tmp_path)


def test_data_that_only_tensorflow_reads_is_refused(tfds_dir):
    data_dir = tfds_dir("mnist", {}, {}, file_format="tfrecord", metadata_shape=GREY)
    with pytest.raises(ValueError, match="prepared as tfrecord, which only TensorFlow reads"):
        load("mnist", split="train", data_dir=data_dir)


@pytest.mark.parametrize("module", ["tensorflow_datasets", "array_record", "importlib_resources"])
def test_a_missing_extra_is_named(tmp_path, monkeypatch, module):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match=r"pip install 'unlearnkit\[tfds\]'"):
        load("mnist", split="train", data_dir=tmp_path)


def test_downloading_needs_tensorflow(tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"preparing mnist needs TensorFlow.*pip install tensor"):
        load("mnist", split="train", data_dir=tmp_path / "new", download=True)


@pytest.fixture
def fake_builder(monkeypatch):
    """Lets `tfds.builder` prepare by a given function, as if TensorFlow were there."""
    import tensorflow_datasets as tfds

    calls = []

    def install(prepare):
        def builder(name, *, data_dir, file_format):
            calls.append((name, data_dir, file_format))
            return types.SimpleNamespace(download_and_prepare=prepare)

        monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
        monkeypatch.setattr(tfds, "builder", builder)
        return calls

    return install


def test_a_download_is_prepared_where_asked_and_only_once(tiny, tmp_path, fake_builder):
    data_dir = tmp_path / "new"
    calls = fake_builder(lambda: tiny(data_dir=data_dir))
    for _ in range(2):
        assert load("mnist", split="train", data_dir=data_dir, download=True).size == 7
    assert calls == [("mnist", str(data_dir), "array_record")]


def test_nothing_is_downloaded_unasked(tmp_path, fake_builder):
    calls = fake_builder(lambda: None)
    with pytest.raises(FileNotFoundError):
        load("mnist", split="train", data_dir=tmp_path)
    assert not calls


def test_a_failed_download_says_so(tmp_path, fake_builder):
    def fail():
        raise OSError("no route")

    fake_builder(fail)
    with pytest.raises(ConnectionError, match=r"mnist could not be downloaded.*no route.*network"):
        load("mnist", split="train", data_dir=tmp_path, download=True)


def test_truncated_records_are_refused(tiny):
    data_dir, *_ = tiny()
    (path,) = data_dir.glob("mnist/*/mnist-train*")
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(ValueError, match=r"records .* damaged or truncated, prepare"):
        load("mnist", split="train", data_dir=data_dir)


def test_labels_beyond_the_metadata_are_refused(tiny):
    data_dir, *_ = tiny(train_labels=[0, 1, 2, 10, 4, 5, 6])
    with pytest.raises(ValueError, match=r"labels of mnist train must be < 10.* got 10 at index 3"):
        load("mnist", split="train", data_dir=data_dir)


def test_images_unlike_the_metadata_are_refused(tiny):
    data_dir, *_ = tiny("mnist", (28, 27, 1), metadata_shape=GREY)
    with pytest.raises(ValueError, match=r"mnist train 0 has the shape \(28, 27, 1\)"):
        load("mnist", split="train", data_dir=data_dir)


def test_damaged_metadata_is_refused(tiny):
    data_dir, *_ = tiny()
    (path,) = data_dir.glob("mnist/*/dataset_info.json")
    for content in (path.read_text()[:-20], json.dumps({"name": "mnist"}), "[]"):
        path.write_text(content)
        with pytest.raises(ValueError, match=r"cannot read .*dataset_info.json.*prepare it again"):
            load("mnist", split="train", data_dir=data_dir)
