"""Weights of torchvision and timm give the logits that PyTorch gave; the script that made the files
is `make_torch_logits.py`."""

import json
from pathlib import Path

import jax
import numpy as np
import pytest

from unlearnkit.models import create
from unlearnkit.weights import read_weights, write_weights

FOLDER = Path(__file__).parent / "from_torch"
NETWORKS = json.loads((FOLDER / "networks.json").read_text())
NAMES = sorted(set(NETWORKS) - {"versions"})


def made(name, x):
    said = NETWORKS[name]
    options = {k: tuple(v) if isinstance(v, list) else v for k, v in said["options"].items()}
    return create(said["network"], input_shape=x.shape[1:], n_classes=5, **options)


@pytest.mark.parametrize("name", NAMES)
def test_logits_are_those_of_torch(name, tmp_path):
    with np.load(FOLDER / f"{name}.npz") as file:
        x, logits = file["x"].astype(np.float32), file["logits"]
    model = made(name, x)
    found = read_weights(FOLDER / f"{name}.safetensors", model)
    ours = np.asarray(jax.jit(model.apply)(found.variables, x))
    assert np.abs(logits).max() > 0.1  # a network that answers nothing would agree
    np.testing.assert_allclose(ours, logits, atol=1e-4, rtol=0)
    write_weights(tmp_path / "again.safetensors", found.variables, like=found)
    written = (tmp_path / "again.safetensors").read_bytes()
    assert written == (FOLDER / f"{name}.safetensors").read_bytes()


def test_the_files_are_small():
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) < 1_000_000
