"""Lists of examples to forget as files really hold them."""

import gzip
import json

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unlearnkit.base import Dataset
from unlearnkit.data import FileForget, choose_split, list_texts, parse_forget
from unlearnkit.data.lists import match_ids, read_list

KEY, N = jax.random.key(0), 40
TRAIN, TEST = (
    Dataset(jnp.arange(n, dtype=jnp.float32)[:, None] + start, jnp.arange(n) % 4)
    for n, start in ((N, 0), (24, 1000))
)
WANTED = [2, 4, 17]
MASK = np.isin(np.arange(N), WANTED)
ONES = "\n".join(str(int(chosen)) for chosen in MASK)


def forgotten(request):
    return choose_split(KEY, TRAIN, TEST, request).forget.tolist()


TEXTS = {
    "a header": ("a.csv", "index\n4\n2\n17\n"),
    "a header of ids and positions": ("a.csv", "image_id,index\nx9,4\nx1,2\nx3,17\n"),
    "pandas' own": ("a.csv", ",index,label\n0,4,1\n1,2,1\n2,17,0\n"),
    "a quoted header": ("a.csv", '"Index","why"\n"4","moved, twice"\n"2","x"\n"17","y"\n'),
    "one quoted column": ("a.csv", '"index"\n"4"\n"2"\n"17"\n'),
    "a list as Python prints it": ("a.txt", "[4, 2,\n 17]\n"),
    "a list within an object": ("a.json", '{"forget": {"rows": [4, 2, 17], "asked": "May"}}'),
    "semicolons": ("a.csv", "index;label\n4;1\n2;1\n17;0\n"),
    "tabs": ("a.tsv", "index\tlabel\n4\t1\n2\t1\n17\t0\n"),
    "one header of any name": ("a.csv", "rows that go\n4\n2\n17\n"),
    "numpy.savetxt": (
        "a.txt",
        "4.000000000000000000e+00\n2.000000000000000000e+00\n1.700000000000000000e+01\n",
    ),
    "numpy.savetxt with a header": ("a.txt", "# which go\n4.0\n2.0\n17.0\n"),
    "commas": ("a.txt", "4, 2, 17"),
    "commas at the end": ("a.txt", "4, 2,\n17,\n"),
    "commas in uneven lines": ("a.txt", "4, 2\n17\n"),
    "spaces": ("a.txt", "4 2 17\n"),
    "a byte order mark and CRLF": ("a.csv", "\ufeffindex\r\n4\r\n2\r\n17\r\n"),
    "comments": ("a.txt", "# which\n4\n\n 2 # the second\n17"),
    "runs": ("a.txt", "17\n2-2\n4"),
    "runs with a header": ("a.csv", "index,why\n2,x\n4 - 4,y\n17,z\n"),
    "an upper-case ending": ("A.TXT", "4\n2\n17\n"),
    "no ending": ("forget", "4\n2\n17\n"),
    "a mask": ("a.txt", ONES),
    "a mask with a header": ("a.csv", "forget\n" + ONES),
    "truth": ("a.csv", "forget\n" + "\n".join(str(bool(chosen)) for chosen in MASK)),
    "an object": ("a.json", '{"forget": [4, 2, 17], "asked": "2026-01-05"}'),
    "an object of one list": ("a.JSON", '{"gdpr": [4, 2, 17]}'),
    "objects": ("a.json", '[{"index": 4}, {"index": 2}, {"index": 17}]'),
    "whole floats": ("a.json", "[4.0, 2.0, 17.0]"),
    "lines of JSON": ("a.jsonl", '{"index": 4}\n{"index": 2}\n{"index": 17}\n'),
}


@pytest.mark.parametrize("case", TEXTS)
def test_texts_that_need_no_word(tmp_path, case):
    name, text = TEXTS[case]
    (tmp_path / name).write_text(text, encoding="utf-8", newline="")
    assert forgotten(FileForget(tmp_path / name)) == WANTED
    assert forgotten(parse_forget(f"file:{tmp_path / name}")) == WANTED


@pytest.mark.parametrize(
    "values",
    [
        np.array([4.0, 2, 17]),
        np.array([[4], [2], [17]]),
        np.array([[4, 2, 17]], np.int16),
        MASK,
        MASK.astype(np.int64),
        MASK.astype(float)[:, None],
    ],
)
def test_arrays_that_need_no_word(tmp_path, values):
    np.save(tmp_path / "a.npy", values)
    np.savez(tmp_path / "a.NPZ", forget=values, others=np.arange(3))
    np.savez(tmp_path / "one.npz", anything=values)
    for name in ("a.npy", "a.NPZ.npz", "one.npz"):
        assert forgotten(FileForget(tmp_path / name)) == WANTED


@pytest.mark.parametrize(
    ("name", "text", "told", "message"),
    [
        ("a.csv", "person,age\n4,31\n2,40\n17,9\n", "#person", "columns person, age; say which"),
        ("a.csv", "person,age\n4,31\n2,40\n17,9\n", "#0", "columns person, age; say which"),
        ("a.txt", "4 31\n2 40\n17 9\n", "#0", "3 lines of 2 entries: a table, .* or one list"),
        ("a.txt", "4 2\n17 5\n", "#all", "2 lines of 2 entries: a table"),
        ("a.json", '{"a": [4, 2, 17], "b": [1]}', "#a", "lists a, b; say which"),
    ],
)
def test_what_can_be_read_in_two_ways_names_them(tmp_path, name, text, told, message):
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        forgotten(FileForget(path))
    found = forgotten(parse_forget(f"file:{path}{told}"))
    assert found == ([2, 4, 5, 17] if told == "#all" else WANTED)


@pytest.mark.parametrize(
    "text", ["7-9, 3", "rows that go\n7-9\n3", "3\n7\u20138\n9..9", "7-9\n3-3"]
)
def test_runs_hold_both_of_their_ends(tmp_path, text):
    path = tmp_path / "a.txt"
    path.write_text(text, encoding="utf-8")
    assert forgotten(FileForget(path)) == [3, 7, 8, 9]
    hyphenated = [f"{i}-{i + 2}" for i in range(N)]  # names of examples that look like runs
    if text == "7-9, 3":
        path.write_text("7-9\n3-5\n")
        assert forgotten(FileForget(path, ids=hyphenated)) == [3, 7]


@pytest.mark.parametrize("text", ["9-7", "2\n1-99999999999"])
def test_runs_that_are_none(tmp_path, text):
    (tmp_path / "a.txt").write_text(text)
    with pytest.raises(ValueError, match="which is no run of positions"):
        forgotten(FileForget(tmp_path / "a.txt"))


IDS = [f"p{i:03d}" for i in range(N)]


@pytest.mark.parametrize(
    "text", ["image_id\np004\np002\np017\n", "p004\np002\np017\n", "p004, p002, p017"]
)
def test_ids_are_matched_to_the_training_set(tmp_path, text):
    path, table = tmp_path / "rows.csv", tmp_path / "train.csv"
    path.write_text(text)
    pd.DataFrame({"image_id": IDS, "label": 0}).to_csv(table, index=False)
    with pytest.raises(ValueError, match="by ids, the first is 'p004', and not by positions; say"):
        forgotten(FileForget(path))
    assert forgotten(FileForget(path, ids=IDS)) == WANTED
    assert forgotten(parse_forget(f"file:{path}@{table}")) == WANTED
    assert forgotten(parse_forget(f"file:{path}@{table}#image_id")) == WANTED
    with pytest.raises(ValueError, match="an id for each of the 40 training examples, got 39"):
        forgotten(FileForget(path, ids=IDS[1:]))
    with pytest.raises(ValueError, match="1 of 3 ids are not among the 40 .* first is 'p004'"):
        forgotten(FileForget(path, ids=["x" if i == "p004" else i for i in IDS]))
    with pytest.raises(ValueError, match="2 training examples have the id 'p004'"):
        forgotten(FileForget(path, ids=["p004" if i == "p005" else i for i in IDS]))


def test_numbers_that_are_ids_are_no_positions(tmp_path):
    (tmp_path / "a.csv").write_text("id\n104\n102\n117\n")
    assert forgotten(FileForget(tmp_path / "a.csv", ids=np.arange(100, 140))) == WANTED


def test_images_are_named_by_path_by_name_or_by_stem():
    ids = ["cat/0.png", "cat/1.png", "dog/2.png"]
    for wanted in (["dog/2.png"], ["2.png"], ["2"], ["train/dog/2.png"], ["train\\dog\\2.png"]):
        assert match_ids(np.array(wanted), ids, name="a").tolist() == [2]
    with pytest.raises(ValueError, match="2 training examples have the id '0.png'"):
        match_ids(np.array(["0.png"]), ["cat/0.png", "dog/0.png"], name="a")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", b"1\n2.5\n", r"whole numbers, got 2.5 as entry 2"),
        ("a.txt", b"1\n2\nx\n3\n", "entry 3 of .*a.txt must be an integer, got 'x'"),
        ("a.csv", b"index,b\n1,2\n,3\n4,5\n", "entry 2 of .* is empty"),
        ("a.csv", b"a,index\n1,2\n3\n", "row 2 of .*a.csv has 1 entries, too few"),
        ("a.txt", b"\n", "a.txt must not be empty"),
        ("a.txt", b"7\n7\n", "distinct, got 7 2 times"),
        ("a.txt", b"1\ntrue\n", "mixes numbers with true and false"),
        ("a.txt", b"\xff\xfa\x00", "is not text in UTF-8"),
        ("a.json", b"[1, 2", "cannot read .*a.json as JSON"),
        ("a.json", b"[1.5]", "whole numbers, got 1.5 as entry 1"),
        ("a.json", b"[[1, 2], [3, 4]]", r"one list, got the shape \[2, 2\]"),
        ("a.json", b'[1, {"a": 2}]', "one list of numbers or of ids"),
        ("a.json", b'[{"index": 1}, {"row": 2}]', "entry 1 of .* has no field 'index'"),
        ("a.json", b'{"n": 3}', "holds no list; save the list itself"),
        ("a.npy", b"\x93NUMPY", "cannot read .*a.npy"),
        ("a.npz", b"PK", "cannot read .*a.npz"),
        ("a.txt.gz", b"4", "cannot unpack .*a.txt.gz"),
        ("a.npy.gz", b"4", "cannot unpack .*a.npy.gz"),
        ("a.xlsx", b"PK", "got .*a.xlsx; save the sheet as CSV"),
        ("a.pkl", b"1,2", "must end in .npy, .npz, .json, .csv, .parquet or .txt, got .*a.pkl"),
    ],
)
def test_bad_lists_are_refused(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=message):
        forgotten(FileForget(tmp_path / name))


def test_a_packed_text_is_unpacked_up_to_a_limit(tmp_path, monkeypatch):
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress(b"index\n4\n2\n17\n"))
    assert forgotten(FileForget(tmp_path / "a.csv.gz")) == WANTED
    monkeypatch.setattr(list_texts, "_MOST_BYTES", 10)
    with pytest.raises(ValueError, match="holds more than 10 bytes"):
        forgotten(FileForget(tmp_path / "a.csv.gz"))


def test_a_column_that_is_not_there_is_named(tmp_path):
    (tmp_path / "a.csv").write_text("a,b\n1,2\n")
    with pytest.raises(ValueError, match="has no column 'c'; it has a, b"):
        read_list(tmp_path / "a.csv", "c")
    (tmp_path / "b.txt").write_text("1 2\n3 4\n")
    with pytest.raises(ValueError, match="no column '2': it has no header and 2 columns"):
        read_list(tmp_path / "b.txt", "2")


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(0, N - 1), min_size=1, max_size=N - 1, unique=True),
    st.sampled_from([",", ";", "\t", " "]),
    st.sampled_from(["\n", "\r\n"]),
    st.booleans(),
)
def test_one_column_is_read_however_it_is_written(tmp_path_factory, rows, separator, end, header):
    """A second column, of what is no number, is never taken for the list."""
    lines = [f"{row}{separator}{'yes' if row % 2 else 'no'}" for row in rows]
    lines = [f"index{separator}why", *lines] if header else [f"{row}" for row in rows]
    path = tmp_path_factory.mktemp("lists") / "a.csv"
    path.write_bytes(end.join(lines).encode())
    assert sorted(read_list(path).tolist()) == sorted(rows)


def test_zeros_and_ones_of_another_length_are_positions(tmp_path):
    (tmp_path / "a.json").write_text(json.dumps([0, 1]))
    assert forgotten(FileForget(tmp_path / "a.json")) == [0, 1]
