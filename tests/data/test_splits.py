import dataclasses
import itertools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unlearnkit.base import Dataset, Normalisation
from unlearnkit.data import (
    ClassForget,
    FileForget,
    IndexForget,
    PredicateForget,
    RandomForget,
    Split,
    WithinClassForget,
    choose_split,
    make_task,
    parse_forget,
)

KEY = jax.random.key(0)
N_TRAIN, N_TEST, N_CLASSES = 40, 24, 4


def make(n, *, start=0):
    """Every example is its own number, so that a task shows where its examples come from."""
    x = np.arange(start, start + n, dtype=np.float32)[:, None]
    return Dataset(jnp.asarray(x), jnp.asarray(np.arange(n) % N_CLASSES, jnp.int32))


TRAIN, TEST = make(N_TRAIN), make(N_TEST, start=1000)

REQUESTS = [
    RandomForget(fraction=0.25),
    RandomForget(count=7),
    WithinClassForget(1, fraction=0.5),
    WithinClassForget(2, count=3),
    ClassForget(3),
    ClassForget(0, in_test=False),
    IndexForget([5, 0, 39]),
    PredicateForget(lambda index, x, y: (index % 2 == 0) & (y == 2) & (x[:, 0] > 9)),
]


def numbers(dataset):
    return np.asarray(dataset.x[:, 0]).astype(int).tolist()


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 2**31 - 1),
    st.sampled_from(REQUESTS),
    st.sampled_from([0.25, 0.5]),
    st.sampled_from(["test", "train"]),
)
def test_a_split_is_a_partition_of_both_sets(seed, request, validation, source):
    options = {"validation": validation, "validation_from": source}
    split = choose_split(jax.random.key(seed), TRAIN, TEST, request, **options)
    of_train, of_test = [split.retain, split.forget], [split.test]
    (of_train if source == "train" else of_test).append(split.validation)
    assert sorted(itertools.chain(*of_train)) == list(range(N_TRAIN))
    seen = set(range(N_TEST))
    if request == ClassForget(0, in_test=False):
        seen -= set(range(0, N_TEST, N_CLASSES))
    assert sorted(itertools.chain(*of_test)) == sorted(seen)
    assert all(part.size for part in split[:4])
    again = choose_split(jax.random.key(seed), TRAIN, TEST, request, **options)
    for a, b in zip(split[:4], again[:4], strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("source", ["test", "train"])
def test_a_task_holds_the_examples_of_its_split(source):
    options = {"validation": 0.25, "validation_from": source}
    split = choose_split(KEY, TRAIN, TEST, RandomForget(count=7), **options)
    task = make_task(KEY, TRAIN, TEST, RandomForget(count=7), **options)
    assert numbers(task.retain) == split.retain.tolist()
    assert numbers(task.forget) == split.forget.tolist()
    assert numbers(task.test) == (split.test + 1000).tolist()
    offset = 1000 if source == "test" else 0
    assert numbers(task.validation) == (split.validation + offset).tolist()
    for part in task:
        np.testing.assert_array_equal(part.y, np.asarray(part.x[:, 0]) % 1000 % N_CLASSES)


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        (RandomForget(fraction=0.25), 10),
        (RandomForget(fraction=0.26), 10),
        (RandomForget(count=7), 7),
        (WithinClassForget(1, fraction=0.5), 5),
        (WithinClassForget(1, fraction=1.0), 10),
        (WithinClassForget(2, count=3), 3),
        (ClassForget(3), 10),
        (IndexForget([5, 0, 39]), 3),
    ],
)
def test_the_forget_set_has_the_size_asked_for(request_, expected):
    split = choose_split(KEY, TRAIN, TEST, request_)
    assert (len(split.forget), len(split.retain)) == (expected, N_TRAIN - expected)


def test_parts_have_the_sizes_asked_for():
    split = choose_split(KEY, TRAIN, TEST, ClassForget(3), validation=0.25)
    assert [len(part) for part in split[:4]] == [30, 10, 6, 18]
    split = choose_split(KEY, TRAIN, TEST, ClassForget(3), validation=0.2, validation_from="train")
    assert [len(part) for part in split[:4]] == [24, 10, 6, 24]


@pytest.mark.parametrize("request_", [WithinClassForget(1, fraction=0.5), ClassForget(1)])
def test_within_a_class_only_that_class_is_forgotten(request_):
    task = make_task(KEY, TRAIN, TEST, request_)
    assert set(np.asarray(task.forget.y).tolist()) == {1}
    assert (1 in np.asarray(task.retain.y)) == isinstance(request_, WithinClassForget)


@pytest.mark.parametrize("source", ["test", "train"])
@pytest.mark.parametrize("in_test", [True, False])
def test_held_out_data_keeps_or_loses_the_forgotten_class(in_test, source):
    request = ClassForget(1, in_test=in_test)
    task = make_task(KEY, TRAIN, TEST, request, validation_from=source)
    held_out = np.concatenate([task.validation.y, task.test.y])
    assert (1 in held_out) == in_test
    assert set(held_out.tolist()) >= {0, 2, 3}


@pytest.mark.parametrize("request_", [RandomForget(count=10), WithinClassForget(1, count=5)])
def test_another_key_is_another_split(request_):
    splits = [choose_split(jax.random.key(s), TRAIN, TEST, request_) for s in range(6)]
    assert len({tuple(split.forget) for split in splits}) > 3
    assert len({tuple(split.validation) for split in splits}) == 6


def test_the_forget_set_does_not_depend_on_where_validation_comes_from():
    a, b = (
        choose_split(KEY, TRAIN, TEST, RandomForget(count=9), validation_from=source)
        for source in ("test", "train")
    )
    np.testing.assert_array_equal(a.forget, b.forget)


def test_a_split_can_be_kept_and_used_again():
    split = choose_split(KEY, TRAIN, TEST, RandomForget(count=9))
    kept = json.loads(json.dumps({k: np.asarray(v).tolist() for k, v in split._asdict().items()}))
    arrays = {k: np.asarray(kept[k]) for k in ("retain", "forget", "validation", "test")}
    task = Split(**arrays, validation_from=kept["validation_from"]).task(TRAIN, TEST)
    for a, b in zip(task, make_task(KEY, TRAIN, TEST, RandomForget(count=9)), strict=True):
        assert numbers(a) == numbers(b)


@pytest.mark.parametrize(
    ("part", "other", "name"),
    [("retain", "forget", "training"), ("test", "validation", "test")],
)
def test_parts_that_share_an_example_are_refused(part, other, name):
    split = choose_split(KEY, TRAIN, TEST, RandomForget(count=9))
    shared = np.append(getattr(split, part), getattr(split, other)[0])
    with pytest.raises(ValueError, match=f"{name} set must be disjoint.* share 1 ex"):
        split._replace(**{part: shared}).task(TRAIN, TEST)


def test_validation_from_train_must_not_share_with_retain():
    split = choose_split(KEY, TRAIN, TEST, RandomForget(count=9), validation_from="train")
    with pytest.raises(ValueError, match="training set must be disjoint"):
        split._replace(validation=split.retain[:2]).task(TRAIN, TEST)


def test_a_split_for_a_larger_set_is_refused():
    split = choose_split(KEY, TRAIN, TEST, RandomForget(count=9))
    with pytest.raises(ValueError, match="made for another set"):
        split.task(TRAIN.take(jnp.arange(20)), TEST)


@pytest.mark.parametrize(
    ("indices", "error", "message"),
    [
        ([], ValueError, "must not be empty"),
        (range(N_TRAIN), ValueError, "must not be the whole training set, got all 40"),
        ([3, 40], ValueError, r"0, \.\.\., 39 .*got 40 at position 1"),
        ([-1, 3], ValueError, "got -1 at position 0"),
        ([3, 5, 3, 3], ValueError, r"distinct, got 3 3 times \(1 ind"),
        ([1.0, 2.0], TypeError, r"integers or booleans, got float64; .*astype"),
        (["1"], TypeError, "integers or booleans"),
        ([[1, 2], [3]], TypeError, "integers or booleans, got object"),
        ([[1, 2], [3, 4]], ValueError, r"one list, got the shape \[2, 2\]"),
        ([True, False], ValueError, "booleans must be 40, one per training example, got 2"),
        ([False] * N_TRAIN, ValueError, "no training example was chosen"),
        ([True] * N_TRAIN, ValueError, "must not be the whole training set"),
    ],
)
def test_bad_indices_are_refused(indices, error, message):
    values = list(indices)
    with pytest.raises(error, match=message):
        choose_split(KEY, TRAIN, TEST, lambda key, train: values)
    with pytest.raises(error, match=message):
        choose_split(KEY, TRAIN, TEST, IndexForget(values))


def test_a_mask_is_as_good_as_indices():
    mask = np.zeros(N_TRAIN, bool)
    mask[[4, 2]] = True
    a, b = IndexForget(mask), IndexForget(np.array([4, 2], np.uint8))
    for request in (a, b):
        np.testing.assert_array_equal(choose_split(KEY, TRAIN, TEST, request).forget, [2, 4])


def test_requests_are_values():
    assert IndexForget(np.array([1, 2])) == IndexForget((1, 2))
    assert hash(IndexForget([1, 2])) == hash(IndexForget((1, 2)))
    with pytest.raises(dataclasses.FrozenInstanceError):
        RandomForget(count=1).count = 2


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("indices.npy", [4, 2]),
        ("mask.npy", [i in (2, 4) for i in range(N_TRAIN)]),
        ("indices.json", "[4, 2]"),
        ("indices.txt", "# which\n4\n\n 2 # the second\n"),
    ],
)
def test_indices_come_from_files(tmp_path, name, content):
    path = tmp_path / name
    if path.suffix == ".npy":
        np.save(path, content)
    else:
        path.write_text(content)
    for request in (FileForget(path), parse_forget(f"file:{path}")):
        np.testing.assert_array_equal(choose_split(KEY, TRAIN, TEST, request).forget, [2, 4])


def test_pickled_indices_are_never_loaded(tmp_path):
    np.save(tmp_path / "a.npy", np.array([1, None], object), allow_pickle=True)
    with pytest.raises(ValueError, match=r"cannot read .*allow_pickle"):
        choose_split(KEY, TRAIN, TEST, FileForget(tmp_path / "a.npy"))


def test_a_missing_index_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no index file .*none.txt"):
        choose_split(KEY, TRAIN, TEST, FileForget(str(tmp_path / "none.txt")))


@pytest.mark.parametrize("answer", [np.zeros(3, bool), np.zeros(N_TRAIN), True])
def test_a_predicate_must_answer_for_every_example(answer):
    with pytest.raises(ValueError, match="must return 40 booleans"):
        choose_split(KEY, TRAIN, TEST, PredicateForget(lambda index, x, y: answer))


@pytest.mark.parametrize(
    ("make_request", "message"),
    [
        (lambda: RandomForget(), "a fraction or a count, got fraction=None and count=None"),
        (lambda: RandomForget(fraction=0.1, count=3), "a fraction or a count"),
        (lambda: RandomForget(fraction=0.0), r"\(0, 1\), got 0.0"),
        (lambda: RandomForget(fraction=1.0), r"\(0, 1\), got 1.0"),
        (lambda: RandomForget(fraction=float("nan")), "got nan"),
        (lambda: RandomForget(count=0), "count must be >= 1"),
        (lambda: WithinClassForget(1, fraction=1.5), r"\(0, 1\], got 1.5"),
        (lambda: WithinClassForget(-1, count=1), "label must be >= 0, got -1"),
        (lambda: ClassForget(-2), "label must be >= 0, got -2"),
    ],
)
def test_bad_requests_are_refused_when_made(make_request, message):
    with pytest.raises(ValueError, match=message):
        make_request()


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (RandomForget(fraction=0.001), r"0.001 of the training set \(40 examples\) rounds to none"),
        (RandomForget(fraction=0.999), "must not be the whole training set"),
        (RandomForget(count=40), "must not be the whole training set"),
        (RandomForget(count=41), "at most 40, the size of the training set, got 41"),
        (WithinClassForget(1, count=11), "at most 10, the size of class 1, got 11"),
        (ClassForget(9), "got 9; its classes are 0, 1, 2, 3"),
    ],
)
def test_requests_that_do_not_fit_the_training_set_are_refused(request_, message):
    with pytest.raises(ValueError, match=message):
        choose_split(KEY, TRAIN, TEST, request_)


def test_forgetting_the_only_class_is_refused():
    alone = TRAIN._replace(y=jnp.zeros(N_TRAIN, jnp.int32))
    with pytest.raises(ValueError, match="must not be the whole training set"):
        choose_split(KEY, alone, TEST, ClassForget(0))


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.5, 2.0])
def test_validation_must_be_a_fraction(fraction):
    with pytest.raises(ValueError, match=r"validation must be a fraction in \(0, 1\)"):
        choose_split(KEY, TRAIN, TEST, ClassForget(1), validation=fraction)


def test_no_part_may_end_empty():
    with pytest.raises(ValueError, match=r"0.01 of the test set \(24 examples\) is 0"):
        choose_split(KEY, TRAIN, TEST, ClassForget(1), validation=0.01)
    with pytest.raises(ValueError, match=r"0.99 of the retained examples \(30 examples\) is 30"):
        choose_split(KEY, TRAIN, TEST, ClassForget(1), validation=0.99, validation_from="train")
    only = TEST._replace(y=jnp.ones(N_TEST, jnp.int32))
    with pytest.raises(ValueError, match="examples of other classes"):
        choose_split(KEY, TRAIN, only, ClassForget(1, in_test=False), validation_from="train")


def test_unknown_validation_source_is_refused():
    with pytest.raises(ValueError, match="one of test, train, got 'retain'"):
        choose_split(KEY, TRAIN, TEST, ClassForget(1), validation_from="retain")


def test_keys_must_be_typed():
    with pytest.raises(TypeError):
        choose_split(jax.random.PRNGKey(0), TRAIN, TEST, ClassForget(1))


def test_train_and_test_must_belong_together():
    symmetric = TEST._replace(normalisation=Normalisation("symmetric", (0.5,), (0.5,)))
    with pytest.raises(ValueError, match="normalised alike"):
        choose_split(KEY, TRAIN, symmetric, ClassForget(1))
    wide = TEST._replace(x=jnp.ones((N_TEST, 2)))
    with pytest.raises(ValueError, match=r"one shape, got \(1,\) and \(2,\)"):
        choose_split(KEY, TRAIN, wide, ClassForget(1))
    with pytest.raises(ValueError, match="x of test must be finite"):
        choose_split(KEY, TRAIN, TEST._replace(x=TEST.x * jnp.nan), ClassForget(1))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("random:0.1", RandomForget(fraction=0.1)),
        ("random:1e-2", RandomForget(fraction=0.01)),
        ("random:500", RandomForget(count=500)),
        ("within:3:0.5", WithinClassForget(3, fraction=0.5)),
        ("within:3:1.0", WithinClassForget(3, fraction=1.0)),
        ("within:3:20", WithinClassForget(3, count=20)),
        ("class:3", ClassForget(3)),
        ("class:3:not-in-test", ClassForget(3, in_test=False)),
        ("file:some/a:b.txt", FileForget("some/a:b.txt")),
    ],
)
def test_texts_stand_for_requests(text, expected):
    assert parse_forget(text) == expected


@pytest.mark.parametrize(
    "text",
    ["", "random", "random:", "random:x", "class:three", "class:3:0.5", "within:3", "file:", "all"],
)
def test_other_texts_are_refused_with_the_known_forms(text):
    with pytest.raises(ValueError, match=r"of a form as random:0.1, .* got"):
        parse_forget(text)


def test_a_text_with_a_bad_amount_says_which():
    with pytest.raises(ValueError, match=r"\(0, 1\), got 1.5"):
        parse_forget("random:1.5")
    with pytest.raises(ValueError, match=r"count must be >= 1.*got -5"):
        parse_forget("random:-5")
