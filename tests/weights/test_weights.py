import json

import flax.linen as nn
import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from flax import serialization
from safetensors.numpy import save_file

from unlearnkit import models
from unlearnkit.base import Variables
from unlearnkit.training.checkpoint import flatten, same_bits, save_variables
from unlearnkit.weights import WeightsError, fit, read_container, read_weights, write_weights
from unlearnkit.weights.flattening import flattened_maps

SIZES = {"input_shape": (8, 8, 1), "n_classes": 3}


class Small(nn.Module):
    """One layer of each kind that files have in another layout."""

    @nn.compact
    def __call__(self, x, train=False):
        x = nn.Conv(2, (3, 3), use_bias=False, name="conv1")(x)
        x = nn.relu(nn.BatchNorm(use_running_average=not train, name="bn1")(x))
        return nn.Dense(3, name="fc")(x.mean((1, 2)))


@pytest.fixture(scope="module")
def network():
    model = models.from_linen(Small(), input_shape=(4, 4, 1))
    shapes = jax.eval_shape(model.init, jax.random.key(0))
    rng = np.random.default_rng(0)
    drawn = jax.tree.map(lambda leaf: rng.normal(size=leaf.shape).astype(leaf.dtype), shapes)
    return model, jax.tree.map(jnp.asarray, drawn)


def theirs(variables):
    """Returns the arrays of `variables` under PyTorch's names, in its layouts."""
    conv, norm, fc = (variables.params[name] for name in ("conv1", "bn1", "fc"))
    moving = variables.state["batch_stats"]["bn1"]
    made = {
        "conv1.weight": np.asarray(conv["kernel"]).transpose(3, 2, 0, 1),
        "bn1.weight": norm["scale"],
        "bn1.bias": norm["bias"],
        "bn1.running_mean": moving["mean"],
        "bn1.running_var": moving["var"],
        "bn1.num_batches_tracked": np.int64(3),
        "fc.weight": np.asarray(fc["kernel"]).T,
        "fc.bias": fc["bias"],
    }
    return {name: np.array(array, order="C") for name, array in made.items()}


def tree_of(variables):
    return {"params": variables.params, **variables.state}


def save_orbax(path, tree):
    import orbax.checkpoint as ocp

    with ocp.PyTreeCheckpointer() as checkpointer:
        checkpointer.save(path, tree)


WRITERS = {
    "a checkpoint": lambda path, v: save_variables(path, v, {"epochs": 3}),
    "its file alone": lambda path, v: save_file(flatten(v._asdict()), path),
    "PyTorch's names": lambda path, v: save_file(theirs(v), path, {"format": "pt"}),
    "bfloat16": lambda path, v: save_file(
        {
            n: a.astype(ml_dtypes.bfloat16) if a.dtype == np.float32 else a
            for n, a in theirs(v).items()
        },
        path,
    ),
    "npz": lambda path, v: np.savez(path, **flatten(v._asdict())),
    "packed npz": lambda path, v: np.savez_compressed(path, **theirs(v)),
    "msgpack": lambda path, v: path.write_bytes(serialization.to_bytes(tree_of(v))),
    "a train state": lambda path, v: path.write_bytes(
        serialization.to_bytes({"step": np.int32(7), "opt_state": {"mu": v.params}, **tree_of(v)})
    ),
    "orbax": lambda path, v: save_orbax(path, tree_of(v)),
    "an orbax step": lambda path, v: save_orbax(path / "12" / "default", {"model": tree_of(v)}),
}
ENDINGS = {"npz": ".npz", "packed npz": ".npz"}


@pytest.mark.parametrize("kind", WRITERS)
def test_weights_are_read_and_written_back_as_they_were(kind, network, tmp_path):
    model, variables = network
    path = tmp_path / f"old{ENDINGS.get(kind, '')}"
    WRITERS[kind](path, variables)
    if kind == "bfloat16":
        variables = jax.tree.map(lambda a: a.astype(jnp.bfloat16).astype(a.dtype), variables)
    found = read_weights(path, model)
    assert same_bits(found.variables, variables)
    again = tmp_path / f"new{ENDINGS.get(kind, '')}"
    write_weights(again, found.variables, like=found)
    if path.is_file():
        assert again.read_bytes() == path.read_bytes()
    moved = jax.tree.map(lambda leaf: (2 * leaf).astype(leaf.dtype), found.variables)
    write_weights(tmp_path / f"moved{ENDINGS.get(kind, '')}", moved, like=found)
    stored = read_weights(tmp_path / f"moved{ENDINGS.get(kind, '')}", model)
    assert same_bits(stored.variables, moved)
    assert stored.format == found.format
    before, after = found.container.arrays, stored.container.arrays
    assert list(before) == list(after)
    assert all(before[place].dtype == after[place].dtype for place in before)


def test_a_checkpoint_keeps_its_metadata(network, tmp_path):
    model, variables = network
    save_variables(tmp_path / "old", variables, {"epochs": 3})
    found = read_weights(tmp_path / "old", model)
    write_weights(tmp_path / "new", variables, like=found)
    assert json.loads((tmp_path / "new.json").read_text())["metadata"] == {"epochs": 3}


PREFIXES = ("module.", "_orig_mod.", "model._orig_mod.", "state_dict.model.")


@pytest.mark.parametrize("prefix", PREFIXES)
def test_a_prefix_of_all_names_is_removed(prefix, network, tmp_path):
    model, variables = network
    arrays = {prefix + name: array for name, array in theirs(variables).items()}
    others = {"criterion.weight": np.ones(3), "optimizer.mu": np.ones(2)}
    save_file(arrays | (others if "." in prefix[:-1] else {}), tmp_path / "w")
    found = read_weights(tmp_path / "w", model)
    assert same_bits(found.variables, variables)
    assert ("not used: 1 arrays of criterion" in found.notes) == ("." in prefix[:-1])


def test_averaged_weights_are_taken_when_they_are_asked_for(network, tmp_path):
    model, variables = network
    doubled = jax.tree.map(lambda leaf: 2 * leaf, variables)
    both = {f"state_dict.{n}": a for n, a in theirs(variables).items()}
    both |= {f"state_dict_ema.{n}": a for n, a in theirs(doubled).items()}
    save_file(both, tmp_path / "w")
    found = read_weights(tmp_path / "w", model)
    assert same_bits(found.variables, variables)
    assert any("part='state_dict_ema'" in note for note in found.notes)
    asked = read_weights(tmp_path / "w", model, part="state_dict_ema")
    assert same_bits(asked.variables, doubled)
    write_weights(tmp_path / "new", variables, like=asked)
    assert same_bits(read_weights(tmp_path / "new", model).variables, variables)


def test_two_parts_that_fit_alike_are_named(network, tmp_path):
    model, variables = network
    arrays = theirs(variables)
    save_file({f"{p}.{n}": a for p in ("student", "teacher") for n, a in arrays.items()},
              tmp_path / "w")  # fmt: skip
    with pytest.raises(WeightsError, match="student and teacher fit equally.*part='student'"):
        read_weights(tmp_path / "w", model)


def test_the_first_five_misfits_are_named(network, tmp_path):
    model, variables = network
    arrays = theirs(variables)
    for name in ("bn1.bias", "bn1.running_mean"):
        del arrays[name]
    arrays |= {"fc.bias": np.zeros(4, np.float32), "extra": np.ones(2), "conv1.bias": np.ones(2)}
    arrays["fc.weight"] = arrays["fc.weight"].T.copy()
    save_file(arrays, tmp_path / "w")
    with pytest.raises(WeightsError) as raised:
        read_weights(tmp_path / "w", model)
    said = str(raised.value)
    for part in (
        "2 missing, 2 extra, 2 of another shape",
        "shape fc.bias: params/fc/bias: the file has [4]; the network has [3]",
        "the file has [2, 3], [3, 2] in the network's layout; the network has [2, 3]",
        "missing params/bn1/bias: the network has [2]",
        "and 1 more",
        "names=",
    ):
        assert part in said
    found = fit(read_container(tmp_path / "w"), model)
    assert [m.kind for m in found.misfits].count("shape") == 2
    assert len(found.misfits) == 6


class Flattening(nn.Module):
    """A convolution, then a linear layer over its map."""

    channels_first: bool = False

    @nn.compact
    def __call__(self, x):
        x = nn.max_pool(nn.relu(nn.Conv(3, (3, 3), name="conv")(x)), (2, 2), (2, 2))
        if self.channels_first:
            x = x.transpose(0, 3, 1, 2)
        return nn.Dense(2, name="fc")(nn.relu(x.reshape(len(x), -1)))


@pytest.mark.parametrize("channels_first", [False, True])
def test_the_inputs_of_a_linear_layer_after_a_map_are_reordered(channels_first, tmp_path):
    model = models.from_linen(Flattening(channels_first), input_shape=(4, 6, 1))
    kernel = np.random.default_rng(1).normal(size=(3, 1, 3, 3)).astype(np.float32)
    rows = np.arange(2 * 18, dtype=np.float32).reshape(2, 18)
    zeros = {"conv.bias": np.zeros(3, np.float32), "fc.bias": np.zeros(2, np.float32)}
    save_file({"conv.weight": kernel, "fc.weight": rows, **zeros}, tmp_path / "w")
    found = read_weights(tmp_path / "w", model)
    x = np.random.default_rng(0).normal(size=(5, 4, 6, 1)).astype(np.float32)
    maps = jax.lax.conv_general_dilated(x.transpose(0, 3, 1, 2), kernel, (1, 1), [(1, 1), (1, 1)])
    maps = np.maximum(np.asarray(maps), 0).reshape(5, 3, 2, 2, 3, 2).max((3, 5))
    expected = maps.reshape(5, -1) @ rows.T  # as PyTorch: channel, height, width
    np.testing.assert_allclose(
        model.apply(found.variables, jnp.asarray(x)), expected, rtol=1e-4, atol=1e-4
    )
    write_weights(tmp_path / "again", jax.tree.map(lambda a: a + 0, found.variables), like=found)
    moved = found.variables._replace(params=jax.tree.map(lambda a: 2 * a, found.variables.params))
    write_weights(tmp_path / "moved", moved, like=found)
    again = read_container(tmp_path / "moved").arrays
    np.testing.assert_array_equal(again["fc.weight",], 2 * rows)
    np.testing.assert_array_equal(again["conv.weight",], 2 * kernel)


@pytest.mark.parametrize("how", ["xla", "patches", "bilinear"])
def test_where_a_network_flattens_is_read_from_its_program(how):
    model = models.create("lenet", input_shape=(28, 28, 1), n_classes=10, implementation=how)
    assert {k: v for k, v in flattened_maps(model).items() if "fc1" in k} == {
        "params/fc1/kernel": (5, 5, 16)
    }


def test_names_and_order_help_where_names_tell_nothing(tmp_path):
    model = models.create("mlp", hidden=(4,), **SIZES)
    variables = model.init(jax.random.key(0))
    plain = {"fc1": "2", "classifier": "10"}
    arrays = {}
    for ours, number in plain.items():
        layer = variables.params[ours]
        arrays[f"{number}.weight"] = np.asarray(layer["kernel"]).T.copy()
        arrays[f"{number}.bias"] = np.asarray(layer["bias"]) + int(number)
    save_file(arrays, tmp_path / "w")
    with pytest.raises(WeightsError, match="4 missing, 4 extra"):
        read_weights(tmp_path / "w", model)
    for options in ({"by_order": True}, {"names": {"2": "fc1", "10": "classifier"}}):
        found = read_weights(tmp_path / "w", model, **options).variables.params
        np.testing.assert_array_equal(found["classifier"]["bias"], arrays["10.bias"])
        np.testing.assert_array_equal(found["fc1"]["kernel"], arrays["2.weight"].T)


def huge_header(path, v):
    path.write_bytes((10**15).to_bytes(8, "little") + b"{" + b"x" * 99)


def cut(path, v):
    save_file(theirs(v), path)
    path.write_bytes(path.read_bytes()[:-7])


def evil(path, v):
    np.savez(path, a=np.array([{}], dtype=object))


REFUSED = {
    "a huge header": (huge_header, "not readable as safetensors.*header too large"),
    "a truncated file": (cut, "not readable as safetensors"),
    "an empty file": (lambda path, v: path.write_bytes(b""), "is empty"),
    "a text": (lambda path, v: path.write_text("weights, please"), "of no format that is read"),
    "a truncated msgpack": (
        lambda path, v: path.write_bytes(serialization.to_bytes(tree_of(v))[:99]),
        "not readable as flax's msgpack",
    ),
    "objects": (evil, "Python objects, which are never opened"),
    "a folder": (lambda path, v: path.mkdir(), "orbax did not write it"),
    "a cut archive": (lambda path, v: path.write_bytes(b"PK\x03\x04" + b"x" * 30), "damaged"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_files_that_cannot_be_read_say_why(what, network, tmp_path):
    model, variables = network
    write, message = REFUSED[what]
    path = tmp_path / "weights.npz"
    write(path, variables)
    with pytest.raises(WeightsError, match=message) as raised:
        read_weights(path, model)
    assert str(path) in str(raised.value)


def test_a_pickle_is_not_opened_without_torch(network, tmp_path, monkeypatch):
    import pickle
    import sys

    monkeypatch.setitem(sys.modules, "torch", None)  # as where it is not installed
    (tmp_path / "w.pt").write_bytes(pickle.dumps({"a": 1}))
    with pytest.raises(ImportError, match=r"pip install 'unlearnkit\[torch\]'.*safetensors"):
        read_weights(tmp_path / "w.pt", network[0])


def test_weights_of_another_network_are_not_written(network, tmp_path):
    model, variables = network
    save_file(theirs(variables), tmp_path / "w")
    found = read_weights(tmp_path / "w", model)
    other = Variables({**variables.params, "more": jnp.ones(2)}, variables.state)
    with pytest.raises(ValueError, match="params/more is missing or of another shape"):
        write_weights(tmp_path / "x", other, like=found)
    assert not (tmp_path / "x").exists()
