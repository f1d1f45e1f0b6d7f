"""What a store gives back, and what it makes of damaged and foreign files."""

import collections
import json
import math
import os
import shutil
import struct

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from unlearnkit.base import (
    UNIT,
    Cost,
    Dataset,
    Normalisation,
    Poisoned,
    SolveInfo,
    Task,
    Trained,
    TrainInfo,
    Unlearned,
    UnlearnInfo,
    Variables,
)
from unlearnkit.poisoning import Bounds, PoisonInfo
from unlearnkit.studies.store import (
    Environment,
    Stage,
    Store,
    StoreError,
    StoreWarning,
    folder,
    stage_key,
)
from unlearnkit.studies.store.packing import pack, unpack
from unlearnkit.studies.store.stages import _digest
from unlearnkit.training import Recipe

HERE = Environment.of({"jax": "1", "source": "a"})
LATER = Environment.of({"jax": "2", "source": "a"})
KEY = stage_key("original", {"epochs": 3}, {}, HERE)
OTHER = stage_key("original", {"epochs": 4}, {}, HERE)
TREE = {"w": jnp.arange(6.0).reshape(2, 3), "b": np.arange(3)}
STAGE = Stage({"epochs": 3}, TREE, {"loss": 0.5, "warnings": ["few examples"]})

DTYPES = ("bool", "int8", "uint32", "float16", "bfloat16", "float32", "int32", "complex64", "int4")
"""Of arrays of JAX; `float64` and the like are NumPy's here."""


def words(dtype):
    shapes = hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=3)
    if dtype == "bool":
        return hnp.arrays(np.bool_, shapes)
    unsigned = {"bfloat16": "uint16", "int4": "uint8"}.get(dtype, dtype)
    return hnp.arrays(np.dtype(unsigned), shapes).map(
        lambda array: array.view(jnp.bfloat16) if dtype == "bfloat16" else array.astype(dtype)
    )


ARRAYS = st.sampled_from(DTYPES).flatmap(words)
LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=5),
    st.sampled_from(["float64", "int64", "complex128"]).flatmap(words),
    ARRAYS,
    ARRAYS.map(jax.device_put),
    st.integers(0, 9).map(jax.random.key),
    st.floats(width=32).map(np.float32),
    st.integers(-9, 9).map(np.int64),
)
NAMES = st.one_of(st.text(max_size=3), st.integers(-3, 3), st.sampled_from(["$array", "a/b", "a"]))
TREES = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.lists(inner, max_size=3).map(tuple),
        st.dictionaries(NAMES, inner, max_size=3),
        st.builds(Variables, inner, inner),
        st.builds(
            Dataset, inner, inner, st.sampled_from([UNIT, Normalisation("b", (0.1,), (3.0,))])
        ),
    ),
    max_leaves=8,
)


def same(one, other):
    """Whether two values have the same types and bits all the way down."""
    if type(one) is not type(other):
        return False
    if isinstance(one, jax.Array) and jnp.issubdtype(one.dtype, jax.dtypes.prng_key):
        return one.dtype == other.dtype and same(*map(jax.random.key_data, (one, other)))
    if isinstance(one, np.ndarray | np.generic | jax.Array):
        mine, theirs = np.asarray(one), np.asarray(other)
        kinds = (mine.dtype, mine.shape) == (theirs.dtype, theirs.shape)
        return kinds and mine.tobytes() == theirs.tobytes()
    if isinstance(one, float):
        return struct.pack("d", one) == struct.pack("d", other) or math.isnan(one + other)
    if isinstance(one, tuple | list):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, dict):
        return list(one) == list(other) and all(map(same, one.values(), other.values()))
    return one == other


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store")


@pytest.fixture
def place(store):
    """The folder of a stage."""
    store.put(KEY, STAGE)
    return next(store.folder.glob("stages/*/*/*"))


@given(TREES)
@example([math.nan, math.inf, -math.inf, -0.0, {"$float": "nan"}])
@settings(max_examples=150)
def test_what_was_packed_is_unpacked_bit_for_bit(tree):
    packed, arrays = pack(tree)
    text = json.dumps(packed, allow_nan=False)
    assert same(unpack(json.loads(text), arrays), tree)


@given(tree=TREES, info=st.dictionaries(st.text(max_size=3), TREES, max_size=2))
@settings(max_examples=40)
def test_stages_come_back_as_they_were(tmp_path_factory, tree, info):
    store = Store(tmp_path_factory.mktemp("store"))
    stage = Stage({"epochs": 3}, tree, info, failure="diverged at epoch 2")
    store.put(KEY, stage)
    found = Store(store.folder).get(KEY)
    assert same(found, stage)


def test_arrays_have_names_of_their_own():
    tree = {"array 1": np.arange(1), "ü": np.arange(2), "a": {"b": np.arange(3)}}
    packed, arrays = pack({**tree, "a/b": np.arange(4), "\ud800": np.arange(5)})
    assert sorted(arrays) == ["a/b", "array 1", "array 2", "array 3", "array 4"]
    assert same(unpack(packed, arrays)["a"], tree["a"])


def test_the_nouns_of_the_library_come_back(store):
    data = Dataset(jnp.ones((4, 2)), jnp.arange(4), Normalisation("symmetric", (0.5,), (0.5,)))
    variables = Variables({"dense": {"kernel": jnp.ones(2, jnp.bfloat16)}}, {})
    solve = SolveInfo(*map(jnp.asarray, (0.1, 3, True, 2.0)))
    cost = Cost(10.0, 0.25)
    tree = {
        "task": Task(data, data, data, data),
        "trained": Trained(variables, TrainInfo({"loss": jnp.ones(3)}, cost)),
        "unlearned": Unlearned(variables, UnlearnInfo({}, cost, {"cg": solve}, {"batch_size": 4})),
        "poisoned": Poisoned(
            data,
            jnp.array([True, False, True, False]),
            PoisonInfo(jnp.array([0, 2]), Bounds(radius=0.5, norm="l2"), {}, cost),
        ),
        "recipe": Recipe(epochs=3, batch_size=2, milestones=(1, 2), schedule="step"),
    }
    store.put(KEY, Stage({}, tree))
    assert same(store.get(KEY).tree, tree)
    assert jax.tree.structure(store.get(KEY).tree["task"]) == jax.tree.structure(tree["task"])


def test_weak_types_go_so_that_read_and_computed_stages_are_alike(store):
    weak = jnp.asarray(1.0) * 2
    assert weak.weak_type
    first, second = (store.obtain(KEY, lambda: Stage({}, weak)) for _ in range(2))
    assert not first.tree.weak_type
    assert same(first, second)


def test_what_is_there_is_not_computed_again(store):
    calls = []

    def compute():
        calls.append(1)
        return STAGE

    assert same([store.obtain(KEY, compute) for _ in range(3)], [STAGE] * 3)
    assert len(calls) == 1
    store.put(KEY, Stage({}, None, {"loss": 9.0}))
    assert same(store.get(KEY), STAGE)
    assert store.get(OTHER) is None


def test_failures_are_kept_too(store):
    store.put(KEY, Stage({}, failure="diverged"))
    assert store.get(KEY) == Stage({}, None, {}, "diverged")
    assert not list(store.folder.glob("stages/*/*/*/arrays*"))


def test_people_can_read_it(store, place):
    document = json.loads((place / "stage.json").read_text())
    assert document["description"] == {"epochs": 3}
    assert document["info"] == {"loss": 0.5, "warnings": ["few examples"]}
    assert document["environment"] == dict(HERE.facts)
    assert document["tree"]["w"]["$array"] == "tree/w"
    line = json.loads((store.folder / "index.jsonl").read_text())
    assert (line["kind"], line["content"], line["description"]) == (
        "original",
        KEY.content,
        {"epochs": 3},
    )
    assert place.relative_to(store.folder).parts[:3] == ("stages", "original", KEY.content[:2])


def test_the_index_is_never_read(store, place):
    (store.folder / "index.jsonl").write_text("nonsense")
    assert same(Store(store.folder).get(KEY), STAGE)


REFUSED = {
    "a function": {"model": {"init": jnp.sin}},
    "a class of somebody else": {"state": collections.OrderedDict(a=1)},
    "a NamedTuple of somebody else": {"point": collections.namedtuple("Point", "x")(1)},
    "objects": {"array": np.array([None])},
    "text in an array": {"names": np.array(["a"])},
    "dates": {"dates": np.zeros(1, "datetime64[s]")},
    "a name that is no text": {"names": {None: 1}},
    "a tuple as a name": {"names": {(1, 2): 1}},
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_kept_is_refused_by_its_place(store, case):
    (name,) = REFUSED[case]
    with pytest.raises(TypeError, match=f"stage/tree/{name}"):
        store.put(KEY, Stage({}, REFUSED[case]))
    assert not (store.folder / "stages").exists()
    with pytest.raises(TypeError, match=f"stage/info/{name}"):
        store.put(KEY, Stage({}, None, REFUSED[case]))


@pytest.mark.parametrize(
    "packed",
    [
        {"$record": "os:system", "command": "true"},
        {"$record": "unlearnkit.base:Callable"},
        {"$record": "unlearnkit.base:Model.__new__"},
        {"$record": "unlearnkit.base:Stopwatch"},
        {"$record": "unlearnkit.studies.store.folder:Store", "folder": "x"},
        {"$record": "unlearnkit.base:Cost", "hours": 1},
        {"$record": "unlearnkit.no_such_module:Cost"},
        {"$record": 3},
        {"$array": "missing", "dtype": "float32", "shape": [1], "of": "jax"},
        {"$array": "x", "dtype": "no such", "shape": [2], "of": "jax"},
        {"$array": "x", "dtype": "float32", "shape": [3], "of": "jax"},
        {"$array": "x", "dtype": "int32", "shape": [2], "of": "jax"},
        {"$array": "double", "dtype": "float64", "shape": [2], "of": "jax"},
        {"$array": "x"},
        {"$dict": [1]},
        {"$float": "one"},
    ],
)
def test_what_was_never_packed_is_refused(packed):
    arrays = {"x": np.zeros(2, np.float32), "double": np.zeros(2)}
    with pytest.raises(ValueError):
        unpack({"tree": packed}, arrays)


def flip(path, at):
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


def rewrite(place, **changes):
    """Changes a document, and its digest with it, as somebody who knows the format would."""
    path = place / "stage.json"
    document = {**json.loads(path.read_text()), **changes}
    document.pop("sha256")
    path.write_text(json.dumps({**document, "sha256": _digest(document)}))


DAMAGES = {
    **{
        f"a byte of {name} at {share}": lambda place, name=name, share=share: flip(
            place / name, int(share * ((place / name).stat().st_size - 3))
        )
        for name in ("stage.json", "arrays.safetensors")
        for share in (0, 0.1, 0.3, 0.5, 0.7, 0.9, 1)
    },
    "arrays cut short": lambda place: os.truncate(place / "arrays.safetensors", 40),
    "empty arrays": lambda place: os.truncate(place / "arrays.safetensors", 0),
    "longer arrays": lambda place: os.truncate(place / "arrays.safetensors", 9999),
    "another number": lambda place: (place / "stage.json").write_text(
        (place / "stage.json").read_text().replace('"loss": 0.5', '"loss": 0.4')
    ),
    "no arrays": lambda place: (place / "arrays.safetensors").unlink(),
    "a document cut short": lambda place: os.truncate(place / "stage.json", 100),
    "an empty document": lambda place: os.truncate(place / "stage.json", 0),
    "no document": lambda place: (place / "stage.json").unlink(),
    "a list": lambda place: (place / "stage.json").write_text("[]"),
    "a number": lambda place: (place / "stage.json").write_text("3"),
    "no text": lambda place: (place / "stage.json").write_bytes(b"\xff\xfe"),
    "a deep document": lambda place: (place / "stage.json").write_text("[" * 200_000),
    "another version": lambda place: rewrite(place, version=2),
    "another format": lambda place: rewrite(place, format="other"),
    "another kind": lambda place: rewrite(place, kind="audit"),
    "another content": lambda place: rewrite(place, content="0" * 64),
    "another environment": lambda place: rewrite(place, environment={"jax": "2"}),
    "no environment": lambda place: rewrite(place, environment=[]),
    "a class of somebody else": lambda place: rewrite(place, tree={"$record": "os:system"}),
    "no tree": lambda place: rewrite(place, arrays=None),
    "a link": lambda place: (
        shutil.copy(place / "stage.json", place / "copy"),
        (place / "stage.json").unlink(),
        (place / "stage.json").symlink_to(place / "copy"),
    ),
    "a file": lambda place: (shutil.rmtree(place), place.write_text("")),
    "nothing in it": lambda place: (shutil.rmtree(place), place.mkdir()),
}


@pytest.mark.parametrize("case", DAMAGES)
def test_a_damaged_stage_is_said_and_computed_again(store, place, case):
    DAMAGES[case](place)
    with pytest.warns(StoreWarning, match=f"{place}.* is damaged.*missing"):
        assert store.get(KEY) is None
    with pytest.warns(StoreWarning) as said:
        assert same(store.obtain(KEY, lambda: STAGE), STAGE)
    assert len(said) == 1
    assert same(Store(store.folder).get(KEY), STAGE)


def test_exchanged_files_are_found(store, place):
    store.put(OTHER, Stage({"epochs": 4}, {"w": jnp.ones((2, 3)), "b": np.arange(3)}))
    other = next(path for path in store.folder.glob("stages/*/*/*") if path != place)
    for name in ("arrays.safetensors", "stage.json"):  # of one, then of both
        shutil.copy(other / name, place / name)
        with pytest.warns(StoreWarning, match="damaged"):
            assert store.get(KEY) is None


def test_another_environment_is_another_stage(store):
    later = stage_key("original", {"epochs": 3}, {}, LATER)
    store.put(KEY, STAGE)
    assert store.get(later) is None
    reusing = Store(store.folder, reuse="any-version")
    found = reusing.get(later)
    assert found.reused_from == dict(HERE.facts)
    assert same(found._replace(reused_from=None), STAGE)
    assert reusing.get(KEY).reused_from is None
    assert reusing.get(stage_key("original", {"epochs": 5}, {}, LATER)) is None
    store.put(later, STAGE._replace(failure="later"))
    assert same(reusing.get(later), store.get(later))
    assert reusing.get(later).failure == "later"
    assert store.get(KEY).failure is None


def test_the_newest_whole_stage_of_other_environments_is_reused(store):
    for age, jax_version in enumerate("456"):
        key = stage_key("original", {}, {}, Environment.of({"jax": jax_version}))
        store.put(key, Stage({}, None, {"jax": jax_version}))
        os.utime(store._place(key), (age, age))
    newest = store._place(key)
    wanted = stage_key("original", {}, {}, HERE)
    reusing = Store(store.folder, reuse="any-version")
    assert reusing.get(wanted).info == {"jax": "6"}
    flip(newest / "stage.json", 60)
    with pytest.warns(StoreWarning, match="damaged"):
        assert reusing.get(wanted).info == {"jax": "5"}


def test_two_studies_share_a_folder(store):
    for key, loss in ((KEY, 1.0), (OTHER, 2.0)):
        Store(store.folder).put(key, Stage({}, None, {"loss": loss}))
    assert [store.get(key).info["loss"] for key in (KEY, OTHER)] == [1.0, 2.0]


def test_pruning_keeps_what_was_asked_for(store):
    for key in (KEY, OTHER):
        store.put(key, STAGE)
    whole = store.size()
    store.prune([OTHER])
    assert store.get(KEY) is None
    assert same(store.get(OTHER), STAGE)
    assert store.size() == whole // 2
    store.prune([])
    assert store.size() == 0
    assert not list((store.folder / "temporary").iterdir())
    store.put(KEY, STAGE)
    assert same(store.get(KEY), STAGE)


def test_shrinking_removes_the_oldest_first(store):
    keys = [stage_key("original", {"epochs": epochs}, {}, HERE) for epochs in range(4)]
    for age, key in zip((3, 1, 2, 4), keys, strict=True):
        store.put(key, STAGE)
        os.utime(store._place(key), (age, age))
    one = store.size() // 4
    for most, left in ((4 * one, [0, 1, 2, 3]), (4 * one - 1, [0, 2, 3]), (2 * one, [0, 3])):
        store.shrink(most)
        assert [i for i, key in enumerate(keys) if store.get(key)] == left
    store.shrink(0)
    assert store.size() == 0


def test_a_store_that_cannot_be_pruned_says_so(store, place, monkeypatch):
    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "rename", refuse)
    with pytest.raises(StoreError, match="cannot be pruned.*Permission"):
        store.prune([])
    monkeypatch.undo()
    assert same(store.get(KEY), STAGE)


def test_other_folders_are_refused(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(StoreError, match="no store's, as thesis.tex"):
        Store(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"format": "unlearnkit-store", "version": 2}', "format version 2; this release reads 1"),
        ('{"format": "other", "version": 1}', "not of a store"),
        ("[]", "not of a store"),
        ('{"format": "unl', "cannot be read"),
        (" " * 5000, "cannot be read"),
    ],
)
def test_a_store_of_another_version_is_refused(store, text, message):
    (store.folder / "store.json").write_text(text)
    with pytest.raises(StoreError, match=message):
        Store(store.folder)


def test_a_store_without_its_header_has_it_written_anew(store, place):
    (store.folder / "store.json").unlink()
    (store.folder / ".store.json.x1.tmp").write_text('{"fo')  # of a process that was killed
    assert same(Store(store.folder).get(KEY), STAGE)
    assert json.loads((store.folder / "store.json").read_text()) == folder._HEADER


def test_unknown_ways_of_reuse_are_refused(tmp_path, unchecked_types):
    with pytest.raises(ValueError, match="any-version"):
        Store(tmp_path, reuse="always")
