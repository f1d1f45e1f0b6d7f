import errno
import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import unlearnkit
from unlearnkit.data import cache, load
from unlearnkit.data.arrays import Arrays
from unlearnkit.data.folders import Folders


@pytest.fixture
def reads(monkeypatch):
    """Counts how often a source is decoded."""
    calls = []
    for source in (Arrays, Folders):
        read = source.read

        def counted(self, split, progress, read=read):
            calls.append(split)
            return read(self, split, progress)

        monkeypatch.setattr(source, "read", counted)
    return calls


def beside(path):
    return path.parent / ".unlearnkit" / path.name


def same(path, pixels):
    dataset = load(path, split="train")
    np.testing.assert_array_equal(np.round(dataset.x * 255), pixels(6, (4, 5, 3)))
    np.testing.assert_array_equal(dataset.y, [0, 1, 2, 0, 1, 2])


def test_a_hit_decodes_nothing_and_gives_the_same(npz, pixels, reads, user_cache):
    path = npz()
    for _ in range(3):
        same(path, pixels)
    assert reads == ["train"]
    load(path, split="test")
    assert reads == ["train", "test"]
    assert sorted(p.name for p in beside(path).iterdir()) == [
        *("test.json", "test.x.npy", "test.y.npy"),
        *("train.json", "train.x.npy", "train.y.npy"),
    ]
    assert not user_cache.exists()


def test_the_statistics_of_training_come_from_the_cache_too(npz, reads):
    path = npz()
    load(path, split="test", normalisation="standard")
    load(path, split="test", normalisation="standard")
    assert sorted(reads) == ["test", "train"]


def test_a_hit_is_mapped_not_read_into_memory(npz):
    path = npz()
    load(path, split="train")
    pixels = cache.read_cached(Arrays(path), "train", None)
    assert isinstance(pixels.x, np.memmap)
    assert pixels.x.dtype == np.uint8


def test_the_sidecar_says_what_is_there(npz):
    path = npz()
    load(path, split="train")
    entry = json.loads((beside(path) / "train.json").read_text())
    assert entry["x"]["shape"] == [6, 4, 5, 3]
    assert (entry["x"]["dtype"], entry["y"]["dtype"]) == ("|u1", "<i4")
    assert len(entry["x"]["sha256"]) == 64


def flip(path):
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def truncate(path):
    path.write_bytes(path.read_bytes()[:-2])  # JSON can do without its last newline


def empty(path):
    path.write_bytes(b"")


def reshape(path):
    array = np.load(path)
    np.save(path, array.reshape(*array.shape, 1))


@pytest.mark.parametrize("name", ["train.x.npy", "train.y.npy", "train.json"])
@pytest.mark.parametrize("damage", [flip, truncate, empty])
def test_a_damaged_cache_is_rebuilt(npz, pixels, reads, caplog, name, damage):
    path = npz()
    same(path, pixels)
    damage(beside(path) / name)
    same(path, pixels)
    assert reads == ["train", "train"]
    assert "is damaged" in caplog.text
    same(path, pixels)
    assert reads == ["train", "train"]


@pytest.mark.parametrize("content", ["[]", "{}", "null", '{"version": 1}'])
def test_a_foreign_sidecar_is_rebuilt(npz, pixels, reads, content):
    path = npz()
    same(path, pixels)
    (beside(path) / "train.json").write_text(content)
    same(path, pixels)
    assert reads == ["train", "train"]


def test_changed_statistics_are_rebuilt(npz, reads):
    path = npz()
    mean = load(path, split="train", normalisation="standard").normalisation.mean
    sidecar = beside(path) / "train.json"
    sidecar.write_text(sidecar.read_text().replace(str(mean[0]), "0.25"))
    assert load(path, split="train", normalisation="standard").normalisation.mean == mean
    assert reads == ["train", "train"]


def test_an_array_of_another_shape_is_rebuilt(npz, pixels, reads):
    path = npz()
    same(path, pixels)
    reshape(beside(path) / "train.x.npy")
    same(path, pixels)
    assert reads == ["train", "train"]


def test_a_missing_array_is_rebuilt(npz, pixels, reads):
    path = npz()
    same(path, pixels)
    (beside(path) / "train.x.npy").unlink()
    same(path, pixels)
    assert reads == ["train", "train"]


def test_another_version_of_the_format_is_rebuilt(npz, pixels, reads, monkeypatch):
    path = npz()
    same(path, pixels)
    monkeypatch.setattr(cache, "_VERSION", cache._VERSION + 1)
    same(path, pixels)
    assert reads == ["train", "train"]


def test_a_changed_file_is_decoded_again(npz, pixels, reads):
    load(npz(), split="train")
    other = pixels(6, (4, 5, 3), seed=9)
    path = npz(x_train=other)
    np.testing.assert_array_equal(np.round(load(path, split="train").x * 255), other)
    assert reads == ["train", "train"]


def test_one_file_has_one_cache_however_it_is_named(npz, pixels, reads, monkeypatch):
    path = npz()
    same(path, pixels)
    monkeypatch.chdir(path.parent)
    same(path.name, pixels)
    moved = path.parent.rename(path.parent.with_name("moved"))
    same(moved / path.name, pixels)
    assert reads == ["train"]


def test_a_changed_image_folder_is_decoded_again(folders, reads):
    root, _ = folders()
    assert load(root, split="train").size == 6
    (root / "train/dog/2.png").rename(root / "train/cat/9.png")
    np.testing.assert_array_equal(load(root, split="train").y, [0, 0, 0, 0, 1, 1])
    assert reads == ["train", "train"]


def test_a_read_only_source_is_cached_for_the_user(npz, pixels, reads, user_cache):
    path = npz()
    path.parent.chmod(0o555)
    try:
        same(path, pixels)
        same(path, pixels)
        assert [p.name for p in path.parent.iterdir()] == ["data.npz"]
    finally:
        path.parent.chmod(0o755)
    assert reads == ["train"]
    assert len(list(user_cache.glob("unlearnkit/data.npz-*/train.json"))) == 1


def test_sources_of_one_name_do_not_share_a_cache(tmp_path, pixels):
    for name, seed in (("a", 1), ("b", 2)):
        folder = tmp_path / name
        folder.mkdir()
        x, y = pixels(4, (2, 2, 1), seed), np.arange(4)
        np.savez(folder / "data.npz", x_train=x, y_train=y, x_test=x, y_test=y)
        os.utime(folder / "data.npz", (0, 0))
        folder.chmod(0o555)
        for _ in range(2):
            dataset = load(folder / "data.npz", split="train")
            np.testing.assert_array_equal(np.round(dataset.x * 255), x)
        folder.chmod(0o755)


def test_without_any_place_the_data_is_still_loaded(npz, pixels, tmp_path, monkeypatch, caplog):
    path = npz()
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    path.parent.chmod(0o555)
    try:
        same(path, pixels)
    finally:
        path.parent.chmod(0o755)
    (warning,) = [r for r in caplog.records if r.levelno == logging.WARNING]
    assert "set XDG_CACHE_HOME to a writable folder" in warning.getMessage()


def test_a_full_disk_loses_nothing_and_leaves_nothing(npz, pixels, monkeypatch, caplog, user_cache):
    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    path = npz()
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        same(path, pixels)
    assert "could not be kept" in caplog.text
    for folder in (beside(path), user_cache):
        assert not [p for p in folder.rglob("*") if p.is_file()]
    same(path, pixels)
    assert (beside(path) / "train.json").exists()


@pytest.mark.parametrize("survivors", [0, 1, 2])
def test_a_writer_killed_between_files_leaves_no_false_cache(
    npz, pixels, monkeypatch, reads, survivors
):
    """The files of a first cache are replaced one by one by those of a changed source."""
    load(npz(x_train=pixels(6, (4, 5, 3), seed=5), y_train=np.arange(6)), split="train")
    path, replace, written = npz(), os.replace, []

    def kill(source, target):
        if len(written) == survivors:
            raise KeyboardInterrupt
        written.append(target)
        replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", kill)
        with pytest.raises(KeyboardInterrupt):
            load(path, split="train")
    same(path, pixels)
    assert len(reads) == 3


_RACE = """
import logging, sys
import numpy as np
from unlearnkit.data.arrays import Arrays
from unlearnkit.data.cache import read_cached
logging.basicConfig(level=logging.ERROR)
source = Arrays(__import__("pathlib").Path(sys.argv[1]))
print("ready", flush=True)
sys.stdin.readline()
expected = source.read("train", None)
for _ in range(100):
    (source.cache / "train.json").unlink(missing_ok=True)
    pixels = read_cached(source, "train", None)
    np.testing.assert_array_equal(pixels.x, expected.x)
    np.testing.assert_array_equal(pixels.y, expected.y)
"""


def test_two_processes_may_write_at_once(npz, pixels, reads, user_cache):
    path = npz()
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", _RACE, str(path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=Path(unlearnkit.__file__).parents[1],
            text=True,
        )
        for _ in range(2)
    ]
    for process in processes:
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        process.stdin.write("go\n")
        process.stdin.flush()
    for process in processes:
        _, error = process.communicate(timeout=120)
        assert process.returncode == 0, error
    same(path, pixels)
    assert reads == []
    assert not [p for p in beside(path).iterdir() if p.name.startswith(".")]
    # A writer that lost its temporary file to the other would have gone there.
    assert not user_cache.exists()
