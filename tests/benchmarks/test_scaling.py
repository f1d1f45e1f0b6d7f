"""How many cells the study of the scaling benchmark has, and what its rows say."""

import dataclasses

from benchmarks import scaling
from unlearnkit.studies.parts import cells


def test_the_study_has_64_cells():
    assert len(cells(scaling.declare(scaling.FULL))) == 64


def test_rows_compare_one_worker_with_two_and_say_where_records_differ():
    one = scaling.Measured(seconds=30.0, start=4.0, again=0.04, records="a")
    found = dict.fromkeys(scaling.EXECUTORS, one)
    found["processes:2"] = dataclasses.replace(one, seconds=20.0)
    found["dask:2"] = dataclasses.replace(one, seconds=60.0, records="b")
    found["dask:1"] = dataclasses.replace(one, again=0.06)
    rows = scaling.rows(found, scaling.FULL)
    assert [row.ratio for row in rows[:2]] == [1.5, 0.5]
    assert ["the same records" in row.note for row in rows[:2]] == [True, False]
    assert "OTHER RECORDS" in rows[1].note
    assert [row.reached for row in rows[2:]] == [True, True, False]
