import json
import shutil

import jax
import jax.numpy as jnp
import killing
import numpy as np
import pytest

from unlearnkit.base import Dataset, Variables
from unlearnkit.models import from_functions
from unlearnkit.training import (
    CheckpointError,
    CheckpointWarning,
    Recipe,
    fingerprint,
    fit,
    load_variables,
    save_variables,
)

KEY = jax.random.key(1)
RECIPE = Recipe(epochs=4, batch_size=10, optimizer="adam", learning_rate=0.01, momentum=0.9)
VARIABLES = Variables(
    {"conv": {"kernel": jnp.arange(6.0).reshape(2, 3), "bias": jnp.ones(3, jnp.bfloat16)}},
    {"batch_stats": {"norm": {"mean": jnp.zeros(3)}}},
)


@pytest.fixture
def model():
    return from_functions(
        lambda key: {"w": 0.1 * jax.random.normal(key, (4, 3))},
        lambda params, x: x @ params["w"],
        input_shape=(4,),
    )


@pytest.fixture
def dataset():
    x = jax.random.normal(jax.random.key(0), (50, 4))
    return Dataset(x, jnp.argmax(x[:, :3], axis=1).astype(jnp.int32))


def tree_equal(one, other):
    assert jax.tree.structure(one) == jax.tree.structure(other)
    jax.tree.map(np.testing.assert_array_equal, one, other)


def stop_after(epochs):
    """Raises in the middle of a run, as an interrupt would."""

    def on_epoch(epoch, _):
        if epoch == epochs:
            raise KeyboardInterrupt

    return on_epoch


def interrupt(folder, model, dataset, epochs=2):
    with pytest.raises(KeyboardInterrupt):
        fit(KEY, model, dataset, RECIPE, checkpoint=folder, on_epoch=stop_after(epochs))


def test_variables_come_back_as_they_were(tmp_path):
    path = tmp_path / "deep" / "model.safetensors"
    save_variables(path, VARIABLES, {"accuracy": 0.5})
    tree_equal(load_variables(path), VARIABLES)
    assert json.loads(path.with_name("model.safetensors.json").read_text())["metadata"] == {
        "accuracy": 0.5
    }


def test_a_run_killed_at_ten_random_moments_ends_with_the_same_bits(tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    killing.finish("checkpoint", whole)
    runs = list(killing.kill("checkpoint", killed, times=10, most_lines=6, seed=11))
    epochs = [int(line.split()[1]) for lines in runs for line in lines if "epoch" in line]
    assert epochs == sorted(epochs)
    last = f"epoch {killing.EPOCHS['checkpoint']}"
    assert last not in killing.finish("checkpoint", killed)[:2]
    (weights, history), (expected, expected_history) = map(killing.result, (killed, whole))
    tree_equal(weights, expected)
    assert history == expected_history


def test_an_interrupted_run_resumes_where_it_stood(tmp_path, model, dataset):
    whole = fit(KEY, model, dataset, RECIPE)
    interrupt(tmp_path, model, dataset)
    epochs = []
    resumed = fit(
        KEY, model, dataset, RECIPE, checkpoint=tmp_path, on_epoch=lambda e, _: epochs.append(e)
    )
    assert epochs == [3, 4]
    tree_equal(resumed.variables, whole.variables)
    tree_equal(resumed.info.history, whole.info.history)
    assert resumed.info.cost.example_gradients == whole.info.cost.example_gradients
    assert len(list(tmp_path.glob("state-*"))) == 1


@pytest.mark.parametrize("differs", ["key", "recipe", "data", "network"])
def test_another_run_s_checkpoint_is_refused(tmp_path, model, dataset, differs):
    interrupt(tmp_path, model, dataset)
    key, recipe = KEY, RECIPE
    if differs == "key":
        key = jax.random.key(2)
    if differs == "recipe":
        recipe = Recipe(epochs=4, batch_size=10, learning_rate=0.02)
    if differs == "data":
        dataset = dataset._replace(y=dataset.y.at[0].set((dataset.y[0] + 1) % 3))
    if differs == "network":
        model = from_functions(
            lambda key: {"v": jnp.zeros((4, 3))}, lambda p, x: x @ p["v"], input_shape=(4,)
        )
    with pytest.raises(CheckpointError, match=f"another run .differs in {differs}"):
        fit(key, model, dataset, recipe, checkpoint=tmp_path)


def flip_a_byte(path):
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)


def rewrite_sidecar(**changes):
    def damage(folder):
        path = folder / "checkpoint.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))

    return damage


DAMAGES = {
    "a flipped byte": (lambda d: flip_a_byte(next(d.glob("state-*"))), "corrupt or was exchanged"),
    "a truncated file": (
        lambda d: next(d.glob("state-*")).write_bytes(b"\x08\0\0"),
        "corrupt or was exchanged",
    ),
    "a sidecar cut short": (
        lambda d: (d / "checkpoint.json").write_text('{"format": "unl'),
        "not readable as JSON",
    ),
    "another format": (rewrite_sidecar(format="other"), "not an unlearnkit-checkpoint"),
    "another version": (rewrite_sidecar(version=99), "format version 99; this release reads 2"),
    "a path": (rewrite_sidecar(file="../secret"), "no plain file name"),
}


@pytest.mark.parametrize("damage", list(DAMAGES))
def test_a_damaged_checkpoint_is_refused(tmp_path, model, dataset, damage):
    interrupt(tmp_path, model, dataset)
    act, message = DAMAGES[damage]
    act(tmp_path)
    with pytest.raises(CheckpointError, match=message):
        fit(KEY, model, dataset, RECIPE, checkpoint=tmp_path)


def test_a_checkpoint_whose_arrays_are_gone_is_reported(tmp_path, model, dataset):
    interrupt(tmp_path, model, dataset)
    next(tmp_path.glob("state-*")).unlink()
    with pytest.raises(FileNotFoundError, match="no checkpoint at"):
        fit(KEY, model, dataset, RECIPE, checkpoint=tmp_path)


def test_missing_weights_are_reported(tmp_path):
    with pytest.raises(FileNotFoundError, match="no checkpoint sidecar"):
        load_variables(tmp_path / "none.safetensors")


def test_a_full_disk_costs_the_checkpoint_not_the_run(tmp_path, model, dataset, monkeypatch):
    whole = fit(KEY, model, dataset, RECIPE)

    def full(*_args, **_kwargs):
        raise OSError(28, "No space left on device")

    interrupt(tmp_path, model, dataset)
    before = sorted(path.name for path in tmp_path.iterdir())
    with monkeypatch.context() as patch:
        patch.setattr("unlearnkit.training.checkpoint.write_bytes", full)
        with pytest.warns(CheckpointWarning, match="No space left.*last good checkpoint stays"):
            trained = fit(KEY, model, dataset, RECIPE, checkpoint=tmp_path)
    tree_equal(trained.variables, whole.variables)
    assert sorted(path.name for path in tmp_path.iterdir()) == before
    tree_equal(fit(KEY, model, dataset, RECIPE, checkpoint=tmp_path).variables, whole.variables)


def test_an_unusable_folder_is_refused_before_training(tmp_path, model, dataset):
    (tmp_path / "file").write_text("in the way")
    epochs = []
    with pytest.raises(OSError, match="file"):
        fit(
            KEY,
            model,
            dataset,
            RECIPE,
            checkpoint=tmp_path / "file",
            on_epoch=lambda e, _: epochs.append(e),
        )
    assert epochs == []


def test_the_fingerprint_covers_every_byte(dataset):
    base = fingerprint(dataset)
    assert base == fingerprint(Dataset(np.asarray(dataset.x), np.asarray(dataset.y)))
    assert base != fingerprint(dataset._replace(x=dataset.x.at[49, 3].multiply(1 + 2e-7)))
    assert base != fingerprint(dataset._replace(y=dataset.y.at[49].add(1)))
    assert base != fingerprint(dataset._replace(x=dataset.x.reshape(50, 2, 2)))


def test_finished_runs_are_returned_from_the_checkpoint(tmp_path, model, dataset):
    first = fit(KEY, model, dataset, RECIPE, checkpoint=tmp_path)
    epochs = []
    again = fit(
        KEY, model, dataset, RECIPE, checkpoint=tmp_path, on_epoch=lambda e, _: epochs.append(e)
    )
    assert epochs == []
    tree_equal(first.variables, again.variables)
    shutil.rmtree(tmp_path)
