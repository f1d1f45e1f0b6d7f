"""Faces as scikit-learn keeps them: Olivetti's file, and a folder for each person as LFW's."""

import pickle

import joblib
import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat
from sklearn.datasets import fetch_olivetti_faces

from unlearnkit.data import Reading, describe, load


@pytest.fixture(scope="module")
def faces():
    pixels = np.random.default_rng(0).integers(0, 256, (400, 4096), dtype=np.uint8)
    pixels[0, :2] = 0, 255  # so that scikit-learn's scaling is a division by 255
    return pixels


@pytest.mark.parametrize("file", ["olivetti_py3.pkz", "olivettifaces.mat"])
def test_olivetti_is_what_scikit_learn_reads(tmp_path, faces, file):
    if file.endswith("pkz"):
        joblib.dump(faces, tmp_path / file, compress=6)
        theirs = fetch_olivetti_faces(data_home=tmp_path, download_if_missing=False)
    else:
        savemat(tmp_path / file, {"faces": faces.T})
    x = faces.reshape(400, 64, 64).transpose(0, 2, 1) / 255
    if file.endswith("pkz"):
        np.testing.assert_allclose(theirs.images, x, atol=1e-6)
        np.testing.assert_array_equal(theirs.target, np.repeat(np.arange(40), 10))
    parts = {split: load(tmp_path, split=split) for split in ("train", "test")}
    assert describe(tmp_path / file).sizes == {"train": 200, "test": 200}
    for person in range(40):
        own = [part.x[np.asarray(part.y) == person] for part in parts.values()]
        assert [len(images) for images in own] == [5, 5]
        found = np.sort(np.concatenate(own)[..., 0].reshape(10, -1), axis=0)
        wanted = np.sort(x[10 * person : 10 * person + 10].reshape(10, -1), axis=0)
        np.testing.assert_allclose(found, wanted, atol=1e-6)
    one = np.asarray(parts["train"].x[0, ..., 0])
    assert min(np.abs(one - face).max() for face in x[:10]) < 1e-6  # upright, not transposed


def test_another_share_may_be_held_out(tmp_path, faces):
    joblib.dump(faces, tmp_path / "olivetti_py3.pkz", compress=6)
    told = describe(tmp_path, reading=Reading(test_fraction=0.2))
    assert told.sizes == {"train": 320, "test": 80}
    assert (told.input_shape, told.n_classes) == ((64, 64, 1), 40)
    with pytest.raises(ValueError, match=r"but for test_fraction, got resize=32"):
        describe(tmp_path, reading=Reading(resize=32))


class Evil:
    def __reduce__(self):
        return (exec, ("raise SystemExit('it ran')",))


@pytest.mark.parametrize("content", [pickle.dumps(Evil()), b"", b"\x78\x9cno", b"." * 1_638_500])
def test_what_is_no_array_is_refused_and_nothing_runs(tmp_path, content):
    (tmp_path / "olivetti_py3.pkz").write_bytes(content)
    with pytest.raises(ValueError, match="cannot read .*olivetti_py3.pkz as 400 faces of 64x64"):
        load(tmp_path, split="train")


@pytest.fixture
def people(tmp_path):
    """`lfw_funneled` with persons of 1, 4 and 6 pictures."""
    for name, count in (("Ada_Byron", 4), ("Alan_Turing", 1), ("Emmy_Noether", 6)):
        folder = tmp_path / "lfw_funneled" / name
        folder.mkdir(parents=True)
        for i in range(count):
            image = np.full((6, 6, 3), 20 * i, np.uint8)
            Image.fromarray(image).save(folder / f"{name}_{i + 1:04}.jpg")
    return tmp_path / "lfw_funneled"


def test_persons_with_few_pictures_are_left_out(people):
    reading = Reading(test_fraction=0.5, least_per_class=4, resize=4, mode="grey")
    told = describe(people, reading=reading)
    assert told.class_names == ("Ada_Byron", "Emmy_Noether")
    assert (told.input_shape, told.sizes) == ((4, 4, 1), {"train": 5, "test": 5})
    np.testing.assert_array_equal(load(people, split="test", reading=reading).y, [0, 0, 1, 1, 1])
    with pytest.raises(
        ValueError, match="least_per_class=7 leaves no class .* Emmy_Noether, has 6"
    ):
        describe(people, reading=Reading(test_fraction=0.5, least_per_class=7))
    with pytest.raises(ValueError, match="least_per_class must be >= 1, got 0"):
        Reading(least_per_class=0)


def test_pictures_that_lie_deeper_count_for_their_person(people):
    for path in sorted(people.glob("*/*.jpg")):
        deeper = path.parent / "session" / path.name
        deeper.parent.mkdir(exist_ok=True)
        path.rename(deeper)
    told = describe(people, reading=Reading(test_fraction=0.5, least_per_class=4))
    assert told.class_names == ("Ada_Byron", "Emmy_Noether")
    assert told.sizes == {"train": 5, "test": 5}
