"""Records as tidy rows."""

import json
import math

import pandas

from unlearnkit.base import Cost
from unlearnkit.records import (
    Record,
    record_from_dict,
    record_to_dict,
    row_name,
    shared_coordinates,
)
from unlearnkit.reporting import COORDINATES, to_pandas, to_rows, write_jsonl, write_parquet

WHERE = {"dataset": "d", "network": "n", "recipe": "r", "question": "q", "defence": "sever"}
RECORDS = [
    Record("a", 0, {"x": 1.0, "y": math.nan}, Cost(10.0, 0.5, 2.0), budget=0.1, **WHERE),
    Record("b", 1, {}, Cost(0.0, 0.0), failed="ValueError: no", **WHERE),
]


def test_a_row_for_each_metric_and_one_for_a_cell_without_any():
    rows = to_rows(RECORDS)
    assert [(r["method"], r["metric"]) for r in rows] == [("a", "x"), ("a", "y"), ("b", None)]
    for row in rows:
        assert row.keys() >= set(COORDINATES)
        assert {name: row[name] for name in WHERE} == WHERE
    assert (rows[0]["value"], rows[0]["budget"], rows[0]["example_gradients"]) == (1.0, 0.1, 10.0)
    assert (rows[0]["seconds"], rows[0]["compile_seconds"]) == (0.5, 2.0)
    assert rows[2]["problem"] == "ValueError: no"


def test_a_row_for_each_cell():
    one, other = to_rows(RECORDS, each="cell")
    assert one["x"] == 1.0
    assert "x" not in other


def test_files_hold_the_rows(tmp_path):
    write_jsonl(tmp_path / "rows.jsonl", RECORDS)
    lines = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    assert [line["value"] for line in lines] == [1.0, None, None]
    write_parquet(tmp_path / "rows.parquet", RECORDS)
    found = pandas.read_parquet(tmp_path / "rows.parquet")
    pandas.testing.assert_frame_equal(found, to_pandas(RECORDS))
    assert list(found.method) == ["a", "a", "b"]


def test_records_go_through_json_and_back():
    for record in RECORDS:
        text = json.dumps(record_to_dict(record, curves=False))
        back = record_from_dict(json.loads(text))
        assert back._replace(metrics={}) == record._replace(metrics={})
        assert back.metrics.keys() == record.metrics.keys()
    plain = record_to_dict(Record("a", 0, {}, Cost(0.0, 0.0)), curves=False)
    assert plain.keys() == {"method", "seed", "metrics", "cost"}


def test_names_say_what_tells_records_apart():
    record = RECORDS[0]
    assert row_name(record) == "d, n, r, q, behind sever: a, 10 % of Retrain"
    assert shared_coordinates(RECORDS) == {"dataset", "network", "recipe", "question"}
    other = record._replace(question="p")
    hidden = shared_coordinates([record, other])
    assert row_name(other, hidden=hidden) == "p, behind sever: a, 10 % of Retrain"
    assert row_name(Record("a", 0, {}, Cost(0.0, 0.0))) == "a"
