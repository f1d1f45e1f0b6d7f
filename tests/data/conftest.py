"""Small data in every format that is read, and a user cache that is not the user's."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image


@pytest.fixture(autouse=True)
def user_cache(tmp_path, monkeypatch):
    folder = tmp_path / "user-cache"
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    return folder


@pytest.fixture
def pixels():
    """Returns a function that makes n random images of a shape."""

    def make(n, shape, seed=0):
        return np.random.default_rng(seed).integers(0, 256, (n, *shape), dtype=np.uint8)

    return make


@pytest.fixture
def npz(tmp_path, pixels):
    """Returns a function that writes an `.npz`; None leaves a key out."""

    def write(name="data.npz", **replaced):
        arrays = {
            "x_train": pixels(6, (4, 5, 3)),
            "y_train": np.array([0, 1, 2, 0, 1, 2]),
            "x_test": pixels(3, (4, 5, 3), seed=1),
            "y_test": np.array([2, 1, 0], np.uint8),
        }
        arrays |= replaced
        path = tmp_path / "arrays" / name
        path.parent.mkdir(exist_ok=True)
        np.savez(path, **{key: array for key, array in arrays.items() if array is not None})
        return path

    return write


def encode(image, image_format="PNG"):
    file = io.BytesIO()
    Image.fromarray(image.squeeze()).save(file, image_format)
    return file.getvalue()


@pytest.fixture
def folders(tmp_path, pixels):
    """Returns a function that writes an image folder of two classes, and its images by path."""

    def write(shape=(4, 5, 3)):
        root = tmp_path / "images"
        images = {}
        for split, n in (("train", 3), ("test", 2)):
            for label, name in enumerate(["cat", "dog"]):
                for i, image in enumerate(pixels(n, shape, seed=10 * label + n)):
                    path = root / split / name / f"{i}.png"
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.write_bytes(encode(image))
                    images[str(path.relative_to(root))] = image
        return root, images

    return write


@pytest.fixture
def tfds_dir(tmp_path):
    """Returns a function that writes a dataset as TensorFlow Datasets prepares it."""
    from array_record.python.array_record_module import ArrayRecordWriter
    from tensorflow_datasets.proto import tf_example_pb2

    def write(
        name,
        images,
        labels,
        *,
        n_classes=10,
        version="3.0.1",
        class_names=None,
        metadata_shape=None,
        file_format="array_record",
        extra_labels=(),
        data_dir=None,
    ):
        """`images` and `labels` are dicts by split; `extra_labels` are further label features."""
        data_dir = Path(data_dir or tmp_path / "tfds")
        folder = data_dir / name / version
        folder.mkdir(parents=True)
        shape = metadata_shape or next(iter(images.values())).shape[1:]
        for split, of_split in images.items():
            path = folder / f"{name}-{split}.{file_format}-00000-of-00001"
            writer = ArrayRecordWriter(str(path), "group_size:1")
            for image, label in zip(of_split, labels[split], strict=True):
                example = tf_example_pb2.Example()
                features = example.features.feature
                features["image"].bytes_list.value.append(encode(image))
                features["label"].int64_list.value.append(int(label))
                for extra in extra_labels:
                    features[extra].int64_list.value.append(0)
                writer.write(example.SerializeToString())
            writer.close()
        splits = [
            {
                "filepathTemplate": "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}",
                "name": split,
                "numBytes": "1000",
                "shardLengths": [str(len(of_split))],
            }
            for split, of_split in images.items()
        ]
        info = {"fileFormat": file_format, "name": name, "splits": splits, "version": version}
        (folder / "dataset_info.json").write_text(json.dumps(info))
        core = "tensorflow_datasets.core.features"
        label_feature = {
            "classLabel": {"numClasses": str(n_classes)},
            "pythonClassName": f"{core}.class_label_feature.ClassLabel",
        }
        dimensions = {"dimensions": [str(d) for d in shape]}
        features = {
            "image": {
                "image": {"dtype": "uint8", "shape": dimensions},
                "pythonClassName": f"{core}.image_feature.Image",
            },
            "label": label_feature,
        } | dict.fromkeys(extra_labels, label_feature)
        (folder / "features.json").write_text(
            json.dumps(
                {
                    "featuresDict": {"features": features},
                    "pythonClassName": f"{core}.features_dict.FeaturesDict",
                }
            )
        )
        if class_names:
            (folder / "label.labels.txt").write_text("\n".join(class_names) + "\n")
        return data_dir

    return write
