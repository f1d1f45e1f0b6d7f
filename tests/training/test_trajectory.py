import dataclasses
import hashlib
import json
import os
import shutil

import jax
import jax.numpy as jnp
import killing
import numpy as np
import pytest
from safetensors.numpy import load_file

from unlearnkit import models
from unlearnkit.base import Dataset
from unlearnkit.forging import verify
from unlearnkit.io.files import read_regular_file
from unlearnkit.models import from_functions
from unlearnkit.training import (
    CheckpointWarning,
    CrossEntropy,
    DivergedError,
    Recipe,
    TrajectoryError,
    epoch_batches,
    fit,
    logged_run,
    read_trajectory,
)

KEY = jax.random.key(1)
RECIPE = Recipe(epochs=3, batch_size=10, learning_rate=0.05)
EVERY = 4


@pytest.fixture
def model():
    return models.create("mlp", input_shape=(4,), n_classes=3, hidden=(6,))


@pytest.fixture
def dataset():
    x = jax.random.normal(jax.random.key(0), (50, 4))
    return Dataset(x, jnp.argmax(x[:, :3], axis=1).astype(jnp.int32))


def tree_equal(one, other):
    jax.tree.map(np.testing.assert_array_equal, one, other)


def folder_bytes(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_a_logged_run_trains_as_an_unlogged_one(tmp_path, model, dataset):
    epochs = []
    logged = fit(
        KEY,
        model,
        dataset,
        RECIPE,
        trajectory=tmp_path / "log",
        every=EVERY,
        on_epoch=lambda epoch, metrics: epochs.append((epoch, metrics["loss"])),
    )
    plain = fit(KEY, model, dataset, RECIPE)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6),
        logged.variables,
        plain.variables,
    )
    for name, values in plain.info.history.items():
        np.testing.assert_allclose(logged.info.history[name], values, rtol=1e-5)
    assert [epoch for epoch, _ in epochs] == [1, 2, 3]
    np.testing.assert_allclose([loss for _, loss in epochs], plain.info.history["loss"], rtol=1e-5)
    assert logged.info.cost.example_gradients == plain.info.cost.example_gradients == 150


def test_the_log_holds_what_the_run_did(tmp_path, model, dataset):
    trained = fit(KEY, model, dataset, RECIPE, trajectory=tmp_path / "log", every=EVERY)
    log = read_trajectory(tmp_path / "log")
    assert (log.segments, log.steps, log.complete) == (4, 15, True)
    order_key, step_key = jax.random.split(jax.random.split(KEY)[1])
    expected = [epoch_batches(order_key, epoch, 50, 10) for epoch in range(3)]
    np.testing.assert_array_equal(log.batches, np.concatenate(expected))
    assert (log.rows(3) == log.batches[12:]).all()
    assert jnp.array_equal(jax.random.key_data(log.claim.step_key), jax.random.key_data(step_key))
    tree_equal(log.read(4, model).state.variables, trained.variables)
    assert log.claim.recipe == RECIPE
    assert log.claim.network.name == "mlp"
    assert log.claim.network.options == {"hidden": (6,)}
    raw = np.load(tmp_path / "log" / "batches.npy", allow_pickle=False)
    assert raw.dtype.str == "<i4"
    last = load_file(tmp_path / "log" / "state-0000000015.safetensors")
    trace = [name for name in last if name.endswith("trace/fc1/kernel")]
    assert len(trace) == 1
    assert np.abs(last[trace[0]]).max() > 0


def test_the_chain_is_the_documented_one(tmp_path, model, dataset):
    fit(KEY, model, dataset, RECIPE, trajectory=tmp_path / "log", every=EVERY)
    manifest = json.loads((tmp_path / "log" / "manifest.json").read_text())

    def digest(value):
        text = json.dumps(value, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    checkpoints, head = manifest.pop("checkpoints"), manifest.pop("head")
    link = digest(manifest)
    for step, sha256 in zip((0, 4, 8, 12, 15), checkpoints, strict=True):
        file = f"state-{step:010d}.safetensors"
        link = digest({"previous": link, "step": step, "file": file, "sha256": sha256})
        content = (tmp_path / "log" / file).read_bytes()
        assert sha256 == hashlib.sha256(content).hexdigest()
    assert head == link
    assert read_trajectory(tmp_path / "log").head == link


def test_the_same_run_leaves_the_same_bytes(tmp_path, model, dataset):
    for name in ("one", "two"):
        fit(KEY, model, dataset, RECIPE, trajectory=tmp_path / name, every=EVERY)
    assert folder_bytes(tmp_path / "one") == folder_bytes(tmp_path / "two")


def test_an_interrupted_log_goes_on_to_the_same_bytes(tmp_path, model, dataset):
    whole = fit(KEY, model, dataset, RECIPE, trajectory=tmp_path / "whole", every=EVERY)

    def stop(epoch, _):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(KEY, model, dataset, RECIPE, trajectory=tmp_path / "cut", every=EVERY, on_epoch=stop)
    cut = read_trajectory(tmp_path / "cut")
    assert 0 < cut.steps < 15
    assert not cut.complete
    (tmp_path / "cut" / ".state-0000000012.safetensors.x.tmp").write_bytes(b"half a file")
    resumed = fit(KEY, model, dataset, RECIPE, trajectory=tmp_path / "cut", every=EVERY)
    assert folder_bytes(tmp_path / "cut") == folder_bytes(tmp_path / "whole")
    tree_equal(resumed.variables, whole.variables)
    tree_equal(resumed.info.history, whole.info.history)


def test_a_log_killed_at_random_moments_ends_with_the_same_bytes(tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    killing.finish("trajectory", whole)
    steps = [0]
    for _ in killing.kill("trajectory", killed, times=3, most_lines=3, seed=3):
        if (killed / "manifest.json").exists():
            steps.append(read_trajectory(killed).steps)
    assert steps == sorted(steps)
    assert steps[-1] > 0
    killing.finish("trajectory", killed)
    assert folder_bytes(killed) == folder_bytes(whole)
    (weights, history), (expected, expected_history) = map(killing.result, (killed, whole))
    tree_equal(weights, expected)
    assert history == expected_history


@pytest.mark.parametrize("differs", ["key", "recipe", "data", "network", "every", "start"])
def test_another_run_s_log_is_refused(tmp_path, model, dataset, differs):
    fit(KEY, model, dataset, RECIPE, trajectory=tmp_path, every=EVERY)
    key, recipe, every, variables = KEY, RECIPE, EVERY, None
    if differs == "key":
        key = jax.random.key(2)
    if differs == "recipe":
        recipe = Recipe(epochs=3, batch_size=10, learning_rate=0.02)
    if differs == "data":
        dataset = dataset._replace(y=dataset.y.at[0].set((dataset.y[0] + 1) % 3))
    if differs == "network":
        model = models.create("mlp", input_shape=(4,), n_classes=3, hidden=(6,), activation="tanh")
    if differs == "every":
        every = 5
    if differs == "start":
        variables = model.init(jax.random.key(9))
    with pytest.raises(TrajectoryError, match=rf"another run \(differs in .*{differs}"):
        fit(key, model, dataset, recipe, trajectory=tmp_path, every=every, variables=variables)


def test_a_network_that_no_name_makes_is_logged_without_one(tmp_path, dataset):
    own = from_functions(
        lambda key: {"w": jax.random.normal(key, (4, 3))}, lambda p, x: x @ p["w"], input_shape=(4,)
    )
    fit(KEY, own, dataset, RECIPE, trajectory=tmp_path / "own")
    assert read_trajectory(tmp_path / "own").claim.network.name is None
    posing = models.create("logistic", input_shape=(4,), n_classes=3)
    posing = own._replace(origin=posing.origin)
    fit(KEY, posing, dataset, RECIPE, trajectory=tmp_path / "posing")
    assert read_trajectory(tmp_path / "posing").claim.network.name is None


def own_network(activation=jax.nn.relu, scale=(1.0, 1.0, 1.0)):
    """A network that no name makes, and that closes over an array."""
    held = jnp.array(scale)
    return from_functions(
        lambda key: {"w": jax.random.normal(key, (4, 3))},
        lambda p, x: activation(x @ p["w"]) * held,
        input_shape=(4,),
    )


@pytest.mark.parametrize(
    "other", [own_network(jnp.tanh), own_network(scale=(1.0, 1.0, np.nextafter(1, 2, dtype="f4")))]
)
def test_a_log_is_gone_on_with_by_its_own_network_alone(tmp_path, dataset, other):
    run = {"trajectory": tmp_path / "log", "every": EVERY}
    fit(KEY, own_network(), dataset, RECIPE, **run)
    before = folder_bytes(tmp_path / "log")
    with pytest.raises(TrajectoryError, match=r"another run \(differs in network.computation\)"):
        fit(KEY, other, dataset, RECIPE, **run)
    fit(KEY, own_network(), dataset, RECIPE, **run)
    assert folder_bytes(tmp_path / "log") == before


def test_another_version_of_jax_is_said_when_going_on_and_does_not_matter_to_a_reader(
    tmp_path, dataset
):
    fit(KEY, own_network(), dataset, RECIPE, trajectory=tmp_path, every=EVERY)
    network = json.loads((tmp_path / "network.json").read_text())
    (tmp_path / "network.json").write_text(json.dumps({**network, "jax": "0.1", "computation": ""}))
    with pytest.raises(TrajectoryError, match="begun under JAX 0.1"):
        fit(KEY, own_network(), dataset, RECIPE, trajectory=tmp_path, every=EVERY)
    assert verify(tmp_path, dataset, model=own_network()).valid


@pytest.mark.parametrize("content", ["{", "[]", "[" * 60_000])
def test_a_spoilt_description_of_the_network_is_refused(tmp_path, model, dataset, content):
    fit(KEY, model, dataset, RECIPE, trajectory=tmp_path, every=EVERY)
    (tmp_path / "network.json").write_text(content)
    with pytest.raises(TrajectoryError, match=r"network\.json"):
        fit(KEY, model, dataset, RECIPE, trajectory=tmp_path, every=EVERY)


def test_a_log_without_a_description_of_its_network_is_gone_on_with(tmp_path, model, dataset):
    fit(KEY, model, dataset, RECIPE, trajectory=tmp_path, every=EVERY)
    (tmp_path / "network.json").unlink()
    fit(KEY, model, dataset, RECIPE, trajectory=tmp_path, every=EVERY)


def test_a_long_log_s_manifest_is_written_seldom_and_never_lags_far(
    tmp_path, model, dataset, monkeypatch
):
    recipe = dataclasses.replace(RECIPE, epochs=50)
    names, write, save = [], logged_run.write_json, logged_run.save_arrays
    whole, killed, cut = (tmp_path / name for name in ("whole", "killed", "cut"))

    def counted(path, value):
        names.append(path.name)
        write(path, value)

    def copying(path, arrays):
        if path == whole / "state-0000000200.safetensors":
            shutil.copytree(whole, killed)  # what a kill leaves
        return save(path, arrays)

    def stop(epoch, _):
        if epoch == 42:  # between two manifests
            raise KeyboardInterrupt

    monkeypatch.setattr(logged_run, "write_json", counted)
    monkeypatch.setattr(logged_run, "save_arrays", copying)
    fit(KEY, model, dataset, recipe, trajectory=whole, every=1)
    assert read_trajectory(whole).complete
    assert names.count("manifest.json") < 150
    assert 193 <= read_trajectory(killed).steps < 199  # of 200 checkpoints 1/32 may be unnamed
    with pytest.raises(KeyboardInterrupt):
        fit(KEY, model, dataset, recipe, trajectory=cut, every=1, on_epoch=stop)
    assert read_trajectory(cut).steps == len(list(cut.glob("state-*"))) - 1
    for folder in (killed, cut):
        fit(KEY, model, dataset, recipe, trajectory=folder, every=1)
        assert folder_bytes(folder) == folder_bytes(whole)


def test_a_full_disk_ends_the_log_not_the_run(tmp_path, model, dataset, monkeypatch):
    plain = fit(KEY, model, dataset, RECIPE, trajectory=tmp_path / "whole", every=EVERY)
    write = logged_run.save_arrays

    def full(path, arrays):
        if path.name == "state-0000000008.safetensors":
            raise OSError(28, "No space left on device")
        return write(path, arrays)

    monkeypatch.setattr(logged_run, "save_arrays", full)
    with pytest.warns(CheckpointWarning, match="ends before step 8 .*No space left"):
        trained = fit(KEY, model, dataset, RECIPE, trajectory=tmp_path / "log", every=EVERY)
    tree_equal(trained.variables, plain.variables)
    assert read_trajectory(tmp_path / "log").steps == 4


def test_a_log_ends_before_the_run_diverges(tmp_path, model, dataset):
    recipe = Recipe(epochs=3, batch_size=10, learning_rate=1e30, momentum=0.0)
    with pytest.raises(DivergedError):
        fit(KEY, model, dataset, recipe, trajectory=tmp_path, every=1)
    log = read_trajectory(tmp_path)
    assert log.steps < 15
    log.read(log.segments, model)


def test_bad_arguments_are_refused(tmp_path, model, dataset):
    with pytest.raises(ValueError, match="its own checkpoint"):
        fit(KEY, model, dataset, RECIPE, trajectory=tmp_path, checkpoint=tmp_path)
    objective = CrossEntropy(model, RECIPE)
    with pytest.raises(ValueError, match="leave out the objective or the trajectory"):
        fit(KEY, model, dataset, RECIPE, trajectory=tmp_path, objective=objective)
    with pytest.raises(ValueError, match="every must be >= 1"):
        fit(KEY, model, dataset, RECIPE, trajectory=tmp_path, every=0)
    assert list(tmp_path.iterdir()) == []


def test_only_regular_files_of_the_expected_size_are_read(tmp_path):
    (tmp_path / "file").write_bytes(b"12345")
    (tmp_path / "link").symlink_to(tmp_path / "file")
    os.mkfifo(tmp_path / "pipe")
    assert read_regular_file(tmp_path / "file", at_most=5) == b"12345"
    for name, message in {
        "file": "5 bytes",
        "link": "is a link",
        "pipe": "no regular file",
    }.items():
        with pytest.raises(ValueError, match=message):
            read_regular_file(tmp_path / name, at_most=4)
    with pytest.raises(ValueError, match="no regular file"):
        read_regular_file(tmp_path, at_most=4)
