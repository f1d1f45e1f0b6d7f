"""What changes the key of a stage, and what does not."""

import dataclasses
import importlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from unlearnkit import models
from unlearnkit.base import Cost, Dataset, Normalisation, Variables
from unlearnkit.models import from_functions
from unlearnkit.studies.store import Environment, StageKey, content_hash, keys, stage_key
from unlearnkit.studies.store.environment import source_digest
from unlearnkit.unlearning import FineTune, Scrub

ROOT = Path(__file__).parents[2]
HERE = Environment.of({"jax": "0"})


@dataclasses.dataclass(frozen=True)
class Own:
    """A method of a user."""

    rate: float = 0.1


class OwnTuple(NamedTuple):
    rate: float = 0.1


@dataclasses.dataclass
class Mutable:
    rate: float = 0.1


def own_function(x):
    return x


def network(scale, begin=0.1):
    held = jnp.array(scale)
    return from_functions(
        lambda key: {"w": begin * jax.random.normal(key, (4, 3))},
        lambda params, x: (x @ params["w"]) * held,
        input_shape=(4,),
    )


NETWORK = network((1.0, 2.0, 3.0))


def differ(*values):
    return len({content_hash(value) for value in values}) == len(values)


def same(*values):
    return len({content_hash(value) for value in values}) == 1


SETTINGS = {"method": Normalisation("cifar10", (0.5,), (0.25,)), "seeds": 3, "rates": [0.1, 1e-30]}
INPUTS = {"x": np.arange(6, dtype=np.float32).reshape(2, 3), "cost": Cost(1.0, 2.0)}
CONTENT = "b5f0428301ef02f331cdbb06760eb4d51caa20475649cc55fd6fee3c54d9d3a1"


def test_a_key_is_the_same_in_every_process():
    assert stage_key("original", SETTINGS, INPUTS, HERE).content == CONTENT
    script = (
        "from test_store_keys import *\n"
        "print(stage_key('original', SETTINGS, INPUTS, HERE).content, content_hash(NETWORK))"
    )
    ended = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parent,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.split() == [CONTENT, content_hash(NETWORK)]


def test_kind_settings_and_inputs_count():
    keys = {
        stage_key("original", SETTINGS, INPUTS, HERE).content,
        stage_key("audit", SETTINGS, INPUTS, HERE).content,
        stage_key("original", INPUTS, SETTINGS, HERE).content,
        stage_key("original", SETTINGS, {**INPUTS, "y": None}, HERE).content,
    }
    assert len(keys) == 4


def test_numbers_and_text_count_exactly():
    assert differ(1, 1.0, True, "1", None, 0, False, "", [], {}, [1], [[1]], {"a": 1}, {1: 1})
    assert differ(0.1, 0.1 + 2**-56, -0.0, 0.0, float("inf"), float("nan"), "NaN", "Infinity")
    assert differ({1: 2}, {"1": 2})


def test_order_of_names_and_kind_of_sequence_do_not_count():
    assert same({"a": 1, "b": 2}, {"b": 2, "a": 1})
    assert same((1, 2), [1, 2])
    assert differ((1, 2), (2, 1))


def test_arrays_count_bit_for_bit():
    x = np.arange(6, dtype=np.float32)
    changed = x.copy()
    changed[-1] = np.nextafter(changed[-1], 9)
    assert differ(x, changed, x.reshape(2, 3), x.reshape(3, 2), x.astype(np.float64), list(x))
    assert differ(x, x.view(np.int32), jnp.asarray(x, jnp.bfloat16), x.astype(np.float16))
    assert differ(np.zeros((0, 2)), np.zeros((2, 0)), np.zeros(()), 0.0)
    assert differ(np.float32(0.0), np.float32(-0.0))
    assert same(x, jnp.asarray(x), x.astype(">f4"), np.repeat(x, 2)[::2])
    assert same(x.reshape(2, 3), np.asfortranarray(x.reshape(2, 3)))


def test_keys_count_with_their_generator():
    words = jax.random.key_data(jax.random.key(1, impl="rbg"))
    assert differ(
        jax.random.key(1),
        jax.random.key(2),
        jax.random.key_data(jax.random.key(1)),
        jax.random.wrap_key_data(words, impl="rbg"),
        jax.random.wrap_key_data(words, impl="unsafe_rbg"),
    )
    assert same(jax.random.key(1), jax.random.key(1))


def test_classes_count_by_name_and_all_fields():
    assert differ(Own(), Own(0.2), OwnTuple(), {"rate": 0.1}, Cost(1.0, 2.0), (1.0, 2.0, 0.0))
    assert differ(FineTune(), FineTune(epochs=7), Scrub())
    assert differ(Normalisation("a"), Normalisation("b"))
    assert same(Own(), Own(0.1))
    assert differ(
        Dataset(INPUTS["x"], np.zeros(2)), Dataset(INPUTS["x"], np.zeros(2), Normalisation("b"))
    )


def test_networks_count_by_what_they_compute():
    made = models.create("mlp", input_shape=(4,), n_classes=3, hidden=(5,))
    wider = models.create("mlp", input_shape=(4,), n_classes=3, hidden=(6,))
    assert differ(
        made,
        wider,
        models.freeze_state(models.create("allcnn_small", input_shape=(8, 8, 3), n_classes=3)),
        models.create("allcnn_small", input_shape=(8, 8, 3), n_classes=3),
    )
    assert differ(NETWORK, network((1.0, 2.0, 4.0)), network((1.0, 2.0, 3.0), begin=0.2))
    assert differ(
        NETWORK,
        NETWORK._replace(apply=lambda variables, x: x @ variables.params["w"]),
        NETWORK._replace(layers=((("v",),),)),
    )
    assert same(NETWORK, network((1.0, 2.0, 3.0)))


def test_functions_count_by_name():
    assert differ(own_function, jax.nn.relu, jnp.sin, Own, jnp.float32, np.dtype("float32"))


class Outer:
    class Inner(NamedTuple):
        rate: float = 0.1


def test_the_source_of_a_user_s_module_counts(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    path = tmp_path / "a_users_module.py"
    text = "import dataclasses\n@dataclasses.dataclass(frozen=True)\nclass A:\n    r: float = 0.1\n"
    found = []
    for more in ("", "# mended\n", ""):
        path.write_text(text + more)
        importlib.invalidate_caches()
        sys.modules.pop("a_users_module", None)
        module = importlib.import_module("a_users_module")
        found.append(content_hash(module.A()))
    sys.modules.pop("a_users_module")
    assert found[0] != found[1]
    assert found[0] == found[2]
    assert content_hash(Outer.Inner()) != content_hash(OwnTuple())


def made_within(rate):
    @dataclasses.dataclass(frozen=True)
    class Local:
        r: float = rate

    return Local()


REFUSED = {
    "a lambda": (lambda x: x, "closes over cannot be seen"),
    "a class in a function": (made_within(1), "cannot be seen"),
    "an optimiser": (optax.sgd(0.1), "cannot be seen"),
    "a partial function": (jax.tree_util.Partial(own_function), "cannot be seen"),
    "a class that can change": (Mutable(), "no sure description"),
    "a set": ({1, 2}, "no sure description"),
    "bytes": (b"ab", "no sure description"),
    "an object": (object(), "no sure description"),
    "objects in an array": (np.array([None]), "array of object"),
    "fields in an array": (np.zeros(2, [("a", "f4")]), "array of"),
    "a name that is no text": ({1.5: 1}, "names must be text"),
    "a key of a stage": (StageKey("a", "0" * 64, HERE), "give what the stage made"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_described_is_refused_by_its_place(case):
    value, message = REFUSED[case]
    with pytest.raises(TypeError, match=message):
        stage_key("original", {"methods": [Own(), value]}, {}, HERE)
    with pytest.raises(TypeError, match=r"value\['settings'\]\['methods'\]\[1\]"):
        stage_key("original", {"methods": [Own(), value]}, {}, HERE)


def test_a_module_without_a_source_is_refused(monkeypatch):
    module = type(sys)("nowhere_to_read")
    exec("def f(x): return x", module.__dict__)
    monkeypatch.setitem(sys.modules, "nowhere_to_read", module)
    with pytest.raises(TypeError, match="source cannot be read"):
        content_hash(module.f)


@pytest.mark.parametrize("kind", ["", "../up", "A", "a b", "a" * 65])
def test_a_kind_is_a_plain_name(kind):
    with pytest.raises(ValueError, match="kind of a stage"):
        stage_key(kind, {}, {}, HERE)
    with pytest.raises(ValueError, match="SHA-256"):
        StageKey("a", kind, HERE)


def test_the_environment_holds_what_decides_the_bits():
    base = Environment.current()
    assert base == Environment.current()
    assert base.digest == Environment.of(dict(reversed(base.facts))).digest
    others = [Environment.current(lane_width=2), Environment.current(lane_width=4)]
    for option in (jax.default_matmul_precision("highest"), jax.enable_x64(True)):
        with option:
            others.append(Environment.current())
    with jax.default_prng_impl("rbg"), jax.threefry_partitionable(False):
        others.append(Environment.current())
    assert len({base.digest, *(other.digest for other in others)}) == 6
    names = {name for name, _ in base.facts}
    assert {"jax", "jaxlib", "numpy", "flax", "optax", "unlearnkit", "source"} <= names
    assert {"platform", "device", "xla_flags", "threads", "threefry_partitionable"} <= names
    keys = [stage_key("a", {}, {}, environment) for environment in (base, others[0], None)]
    assert keys[0] == keys[2]
    assert keys[0].content == keys[1].content
    assert keys[0].name != keys[1].name


def test_the_source_digest_covers_names_and_every_byte(tmp_path):
    def digest(name, **files: Any):
        package = tmp_path / name
        for path, text in files.items():
            place = package / path.replace("__", "/")
            place.parent.mkdir(parents=True, exist_ok=True)
            place.with_suffix(".py").write_text(text)
        return source_digest(package)

    base = digest("one", a="x = 1", b__c="y = 2")
    assert base == digest("same", b__c="y = 2", a="x = 1")
    assert base != digest("changed", a="x = 1", b__c="y = 3")
    assert base != digest("moved", a="x = 1", c="y = 2")
    assert base != digest("more", a="x = 1", b__c="y = 2", d="")
    assert base != digest("shifted", a="x = 1y", b__c=" = 2")


def test_variables_of_equal_bits_are_equal_inputs():
    params = {"a": jnp.ones(2), 3: jnp.zeros(1)}
    assert same(Variables(params), Variables(dict(reversed(params.items()))))


def test_an_array_of_jax_is_hashed_once_and_one_of_numpy_each_time(monkeypatch):
    seen, compute = [], keys._digest

    def digest(content):
        seen.append(content.size)
        return compute(content)

    monkeypatch.setattr(keys, "_digest", digest)
    digests, fixed, changing = keys.ArrayDigests(), jnp.arange(5.0), np.arange(7.0)
    both = [content_hash([fixed, changing], digests=digests) for _ in range(2)]
    assert seen == [5, 7, 7]
    assert both[0] == both[1] == content_hash([fixed, changing])
    changing[0] = 1.0
    assert content_hash([fixed, changing], digests=digests) != both[0]


def test_another_array_in_the_place_of_one_that_is_gone_is_hashed():
    digests = keys.ArrayDigests()
    for value in range(20):
        array = jnp.full(3, value)  # most likely where the last one was
        assert content_hash(array, digests=digests) == content_hash(array)
        del array
    assert len(digests._known) <= 1
