import numpy as np
import pytest
from PIL import Image

from unlearnkit.data import describe, load
from unlearnkit.validation import InputWarning


@pytest.mark.parametrize("shape", [(4, 5, 3), (4, 5, 1)])
def test_images_are_read_in_the_order_of_class_and_name(folders, shape):
    root, images = folders(shape)
    for split, n in (("train", 3), ("test", 2)):
        dataset = load(root, split=split)
        expected = [images[path] for path in sorted(images) if path.startswith(split)]
        np.testing.assert_array_equal(np.round(dataset.x * 255), expected)
        np.testing.assert_array_equal(dataset.y, [0] * n + [1] * n)


def test_the_description_names_the_classes(folders):
    root, _ = folders()
    description = describe(root)
    assert description.input_shape == (4, 5, 3)
    assert (description.n_classes, description.class_names) == (2, ("cat", "dog"))
    assert description.sizes == {"train": 6, "test": 4}


def test_a_class_may_be_missing_from_the_test_set(folders):
    root, _ = folders()
    for path in (root / "test/cat").iterdir():
        path.unlink()
    (root / "test/cat").rmdir()
    np.testing.assert_array_equal(load(root, split="test").y, [1, 1])


def test_hidden_files_and_the_cache_are_not_data(folders):
    root, _ = folders()
    (root / "train/cat/.DS_Store").write_text("x")
    (root / "train/.hidden").mkdir()
    for _ in range(2):
        assert load(root, split="train").size == 6
    assert (root / ".unlearnkit").is_dir()
    assert describe(root).n_classes == 2


def test_files_that_are_no_images_are_passed_over_and_told(folders):
    root, _ = folders()
    (root / "train/dog/labels.csv").write_text("a")
    with pytest.warns(InputWarning, match=r"1 files are no images .* first is .*labels.csv"):
        assert load(root, split="train").size == 6


def test_progress_is_told_to_the_end(folders):
    told = []
    load(folders()[0], split="train", progress=lambda *n: told.append(n))
    assert told[-1] == (6, 6)


def test_palettes_and_bitmaps_show_what_they_showed(folders):
    root, _ = folders()
    image = np.zeros((4, 5, 3), np.uint8)
    image[1:3] = (10, 200, 30)
    Image.fromarray(image).quantize(4).save(root / "train/cat/0.png")
    np.testing.assert_array_equal(np.round(load(root, split="train").x[0] * 255), image)
    root, _ = folders((4, 5, 1))
    bits = np.eye(4, 5).astype(bool)
    Image.fromarray(bits).save(root / "train/cat/0.png")
    np.testing.assert_array_equal(load(root, split="train").x[0, :, :, 0], bits)


def save(root, image):
    image.save(root / "train/dog/1.png")


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (
            lambda root: save(root, Image.new("RGB", (5, 5))),
            ValueError,
            r"one size .*got \(5, 5, 3\) in .*train/dog/1.png and \(4, 5, 3\) in .*0.png; .*res",
        ),
        (
            lambda root: save(root, Image.new("L", (5, 4))),
            ValueError,
            r"got \(4, 5, 1\) in .*dog/1",
        ),
        (lambda root: save(root, Image.new("RGBA", (5, 4))), ValueError, r"1.png .* mode 'RGBA'"),
        (lambda root: save(root, Image.new("I;16", (5, 4))), ValueError, r"1.png .* mode 'I"),
        (
            lambda root: (root / "train/dog/notes.png").write_text("a"),
            ValueError,
            r"cannot decode .*train/dog/notes.png as an image .*; replace or remove it",
        ),
        (
            lambda root: (root / "train/dog/1.png").write_bytes(
                (root / "train/dog/1.png").read_bytes()[:60]
            ),
            ValueError,
            r"cannot decode .*train/dog/1.png",
        ),
        (lambda root: (root / "train/eel").mkdir(), ValueError, r"folder .*train/eel holds no im"),
        (
            lambda root: (root / "train").rename(root / "trained"),
            ValueError,
            r"it lacks train and holds test, trained",
        ),
    ],
)
def test_bad_folders_are_refused(folders, change, error, message):
    root, _ = folders()
    change(root)
    with pytest.raises(error, match=message):
        load(root, split="train")


def test_test_images_must_look_like_the_training_images(folders):
    root, _ = folders()
    Image.new("RGB", (9, 9)).save(root / "test/cat/0.png")
    with pytest.raises(ValueError, match=r"got \(9, 9, 3\) in .*test/cat/0.png and \(4, 5, 3\) in"):
        load(root, split="test")


def test_a_test_class_unknown_in_training_is_refused(folders):
    root, _ = folders()
    (root / "test/cat").rename(root / "test/cow")
    with pytest.raises(ValueError, match=r"got cow; the training classes are cat, dog"):
        load(root, split="test")


def test_a_split_without_classes_is_refused(tmp_path):
    for split in ("train", "test"):
        (tmp_path / split).mkdir()
    with pytest.raises(ValueError, match="train must hold a folder for each class"):
        load(tmp_path, split="train")
