"""Poisons on disk: what is not sound does not come back."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from unlearnkit.base import Cost, Dataset, Normalisation, Poisoned
from unlearnkit.io.files import sha256_of_file
from unlearnkit.poisoning import Bounds, PoisonFileError, PoisonInfo, load_poisoned, save_poisoned
from unlearnkit.poisoning.placing import place

BASE = jnp.array([1, 4], jnp.int32)
CLEAN = Dataset(jax.random.uniform(jax.random.key(0), (6, 3, 3, 1)), jnp.arange(6) % 3)
BOUNDS = Bounds(radius=0.1)


def make(placement="perturb", clean=CLEAN):
    region = BOUNDS.region(clean.x[BASE], clean.normalisation)
    x = region.project(clean.x[BASE] + jax.random.normal(jax.random.key(1), (2, 3, 3, 1)))
    dataset, is_poison = place(clean, x, clean.y[BASE], BASE, placement)
    extras = {"noise": x - clean.x[BASE]}
    info = PoisonInfo(BASE, BOUNDS, {"loss": jnp.arange(3.0)}, Cost(7.0, 1.5, 0.5), {}, extras)
    return Poisoned(dataset, is_poison, info)


@pytest.fixture
def folder(tmp_path):
    save_poisoned(tmp_path, make(), CLEAN)
    return tmp_path


def edit_manifest(folder, **changes):
    path = folder / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def edit_arrays(folder, **changes):
    """Exchanges arrays and makes the manifest vouch for them, as an attacker would."""
    path = folder / "poison.safetensors"
    arrays = {**load_file(path), **changes}
    save_file({k: v for k, v in arrays.items() if v is not None}, path)
    edit_manifest(folder, sha256=sha256_of_file(path))


@pytest.mark.parametrize("placement", ["add", "perturb"])
def test_round_trip(tmp_path, placement):
    poisoned = make(placement)
    save_poisoned(tmp_path, poisoned, CLEAN)
    loaded = load_poisoned(tmp_path, CLEAN)
    for ours, theirs in zip(poisoned.dataset[:2], loaded.dataset[:2], strict=True):
        np.testing.assert_array_equal(ours, theirs)
        assert ours.dtype == theirs.dtype
    np.testing.assert_array_equal(poisoned.is_poison, loaded.is_poison)
    assert loaded.info.bounds == BOUNDS
    assert loaded.info.cost == poisoned.info.cost
    np.testing.assert_array_equal(loaded.info.history["loss"], poisoned.info.history["loss"])
    np.testing.assert_array_equal(loaded.info.extras["noise"], poisoned.info.extras["noise"])
    assert sorted(p.name for p in tmp_path.iterdir()) == ["manifest.json", "poison.safetensors"]


class TestSaving:
    def test_refuses_a_changed_clean_row(self, tmp_path):
        poisoned = make()
        touched = poisoned.dataset._replace(x=poisoned.dataset.x.at[0, 0, 0, 0].add(0.01))
        with pytest.raises(ValueError, match="a clean example was changed"):
            save_poisoned(tmp_path, poisoned._replace(dataset=touched), CLEAN)
        assert list(tmp_path.iterdir()) == []

    def test_refuses_poisons_outside_of_their_bounds(self, tmp_path):
        poisoned = make()
        moved = poisoned.dataset._replace(x=poisoned.dataset.x.at[4].set(CLEAN.x[4] + 0.2))
        with pytest.raises(ValueError, match="poison 1 is outside its bounds|exclude"):
            save_poisoned(tmp_path, poisoned._replace(dataset=moved), CLEAN)

    def test_refuses_another_number_of_poisons(self, tmp_path):
        poisoned = make()
        short = poisoned._replace(info=poisoned.info._replace(base=BASE[:1]))
        with pytest.raises(ValueError, match="names 1 poisons, the dataset has 2"):
            save_poisoned(tmp_path, short, CLEAN)


class TestLoading:
    def test_refuses_other_clean_data(self, folder):
        for other in (
            CLEAN._replace(x=CLEAN.x.at[0, 0, 0, 0].add(1e-6)),
            CLEAN._replace(y=CLEAN.y.at[0].set(2)),
            CLEAN.take(np.arange(5)),
        ):
            with pytest.raises(PoisonFileError, match="made of other clean data"):
                load_poisoned(folder, other)
        renamed = CLEAN._replace(normalisation=Normalisation("other", (0.1,), (1.0,)))
        with pytest.raises(PoisonFileError, match="normalised as"):
            load_poisoned(folder, renamed)

    def test_refuses_a_flipped_bit(self, folder):
        path = folder / "poison.safetensors"
        content = bytearray(path.read_bytes())
        content[-1] ^= 1
        path.write_bytes(bytes(content))
        with pytest.raises(PoisonFileError, match="corrupt or was exchanged"):
            load_poisoned(folder, CLEAN)

    def test_refuses_an_empty_folder_and_a_lost_file(self, folder, tmp_path):
        with pytest.raises(FileNotFoundError, match="no saved poisons"):
            load_poisoned(tmp_path / "nothing", CLEAN)
        (folder / "poison.safetensors").unlink()
        with pytest.raises(FileNotFoundError, match="no saved poisons"):
            load_poisoned(folder, CLEAN)

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("{", "not readable as JSON"),
            ("[" * 100_000, "not readable as JSON"),
            ("[]", "is not an unlearnkit-poison manifest"),
            ('{"format": "unlearnkit-poison", "version": 9}', "format version 9"),
            ('{"format": "unlearnkit-poison", "version": 1}', "no sound entry sha256"),
        ],
    )
    def test_refuses_manifests_that_are_none(self, folder, text, message):
        (folder / "manifest.json").write_text(text)
        with pytest.raises(PoisonFileError, match=message):
            load_poisoned(folder, CLEAN)

    @pytest.mark.parametrize(
        "changes",
        [
            {"placement": "everywhere"},
            {"bounds": {"box": [0, 1], "radius": 0.1, "norm": "l7", "units": "pixels"}},
            {"bounds": {"box": [0.4, 0.6], "radius": None, "norm": "l2", "units": "pixels"}},
            {"bounds": {"box": "xy", "radius": None}},
            {"bounds": {"eval": "1"}},
            {"bounds": {"box": [0, 1], "radius": "much"}},
            {"bounds": {"box": [0, 1], "radius": 0.001, "norm": "linf", "units": "pixels"}},
            {"cost": {"example_gradients": "many", "seconds": 0}},
            {"cost": {"price": 1}},
        ],
    )
    def test_refuses_entries_that_cannot_be(self, folder, changes):
        edit_manifest(folder, **changes)
        with pytest.raises(PoisonFileError, match="no sound poisons"):
            load_poisoned(folder, CLEAN)

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"x": np.full((2, 3, 3, 1), np.nan, np.float32)}, "finite"),
            ({"x": np.full((2, 3, 3, 1), 0.5, np.float32)}, "outside its bounds"),
            ({"x": np.zeros((2, 3, 3, 1), np.float64)}, "does not fit the clean data"),
            ({"x": np.zeros((2, 9), np.float32)}, "does not fit the clean data"),
            ({"x": None}, "x are missing"),
            ({"y": np.array([-1, 0], np.int32)}, "labels"),
            ({"y": np.array([0.0, 1.0], np.float32)}, "labels"),
            ({"base": np.array([4, 1], np.int32)}, "ascending"),
            ({"base": np.array([1, 6], np.int32)}, "base rows must be in"),
            ({"base": np.array([1.0, 4.0], np.float32)}, "base int32, got int32 and float32"),
            ({"y": np.array([2**40, 0])}, "labels must be int32"),
            ({"base": np.array([1], np.int32)}, "1 bases"),
        ],
    )
    def test_refuses_arrays_that_cannot_be(self, folder, changes, message):
        edit_arrays(folder, **changes)
        with pytest.raises(PoisonFileError, match=message):
            load_poisoned(folder, CLEAN)

    def test_refuses_what_is_no_safetensors_file(self, folder):
        path = folder / "poison.safetensors"
        path.write_bytes(b"\x80\x04cos\nsystem\n")
        edit_manifest(folder, sha256=sha256_of_file(path))
        with pytest.raises(PoisonFileError, match="not readable as safetensors"):
            load_poisoned(folder, CLEAN)
