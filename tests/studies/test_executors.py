"""What names an executor and a shard, and how a study falls into parts; nothing is computed."""

import itertools
import os
import pickle

import pytest
from tiny_study import KEY, METHODS, study, whole

from unlearnkit.defences import MaxUp
from unlearnkit.records import NO_DEFENCE
from unlearnkit.studies import ORIGINAL, RETRAIN, Dask, Processes, parse_executor, parse_shard, run
from unlearnkit.studies.parts import Wanted, cells, check_shard, parts, shard_of
from unlearnkit.studies.worker import confine


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("serial", None),
        ("processes:4", Processes(4)),
        ("dask:2", Dask(count=2)),
        ("dask://head.cluster:8786", Dask("tcp://head.cluster:8786")),
        ("dask://[::1]:8786/", Dask("tcp://[::1]:8786")),
    ],
)
def test_texts_that_name_an_executor(text, expected):
    assert parse_executor(text) == expected
    assert pickle.loads(pickle.dumps(expected)) == expected


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("processes", "processes:4"),
        ("processes:0", "processes:4"),
        ("processes:-1", "processes:4"),
        ("dask:many", "dask:4"),
        ("dask://head", "dask://HOST:PORT"),
        ("dask://head:99999", "dask://HOST:PORT"),
        ("dask://:8786", "dask://HOST:PORT"),
        ("slurm:4", "unknown executor 'slurm:4'; it is one of serial, processes:4"),
        ("", "unknown executor ''"),
    ],
)
def test_texts_that_name_none(text, said):
    with pytest.raises(ValueError, match=said):
        parse_executor(text)


def test_shards_are_counted_from_one():
    assert parse_shard("1/4") == (1, 4)
    assert parse_shard("4/4") == (4, 4)
    for text in ("5/4", "0/4", "1/0"):
        with pytest.raises(ValueError, match="1 <= which <= how many"):
            parse_shard(text)
    for text in ("", "1", "1/", "a/b", "-1/4", "1.5/4"):
        with pytest.raises(ValueError, match="a shard is written as 1/4"):
            parse_shard(text)
    with pytest.raises(ValueError, match=r"got \(True, 4\)"):
        check_shard((True, 4))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"shard": (5, 4)}, "1 <= which <= how many"),
        ({"executor": "slurm:4"}, "unknown executor"),
        ({"executor": "processes:2"}, "executor needs a store"),
        ({"minutes": 5}, "minutes needs a store"),
        ({"minutes": 0.0, "store": "unused"}, "minutes must be > 0"),
    ],
)
def test_bad_options_are_refused_before_anything(options, said, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("unlearnkit.studies.engine.check", pytest.fail)
    with pytest.raises(ValueError, match=said):
        run(study(), KEY, **options)
    assert not list(tmp_path.iterdir())


MANY = whole(defences={"max_up": MaxUp(copies=2)}, seeds=3)


@pytest.mark.parametrize("count", [1, 2, 5, 17, 200])
def test_every_cell_is_in_one_shard(count):
    everything = cells(MANY)
    shards = [shard_of(everything, (which, count)) for which in range(1, count + 1)]
    assert list(itertools.chain(*shards)) == everything
    sizes = {len(shard) for shard in shards}
    assert max(sizes) - min(sizes) <= 1


def test_a_part_comes_after_the_networks_that_it_starts_from():
    everything = cells(MANY)
    found = parts(MANY, everything)
    told = [cell for part in found for cell in part.cells if cell.question is not None]
    assert told == everything
    heads = 0
    for number, part in enumerate(found):
        first = part.cells[0]
        before = None if part.after is None else found[part.after].cells[0]
        assert part.after is None or part.after < number
        if first.question is None:
            assert before is None
        elif first.row in METHODS:
            assert len(part.cells) == 1
            assert (before[:6], before.row) == (first[:6], ORIGINAL)
        elif first.defence != NO_DEFENCE:
            assert (before[:5], before.defence, before.row) == (first[:5], NO_DEFENCE, ORIGINAL)
        elif first.question == "some":
            assert before is None
        else:
            assert (before.question, before.seed) == (None, first.seed)
        heads += first.row == ORIGINAL
    assert heads == 3 * (1 + 1 + 2 * 2)  # requests, clean networks, attacks with and without


def test_parts_of_a_shard_wait_for_nothing_that_is_not_in_it():
    everything = cells(MANY)
    (only,) = [c for c in everything if c[3:] == ("some", 2, NO_DEFENCE, "ascent")]
    assert parts(MANY, [only]) == [((only,), None)]
    attacked = [c for c in everything if c[3:] == ("flip", 1, "max_up", "ascent")]
    clean, method = parts(MANY, attacked)
    assert clean.cells[0].question is None
    assert method == (tuple(attacked), 0)


def test_wanted_knows_every_group_of_its_cells_and_no_other():
    (cell,) = [c for c in cells(MANY) if c[3:] == ("flip", 1, NO_DEFENCE, RETRAIN)]
    wanted = Wanted([cell])
    assert all(wanted(*cell[:length]) for length in range(1, 8))
    assert not wanted(*cell[:4], 2)
    assert not wanted(*cell[:6], ORIGINAL)


@pytest.mark.parametrize(
    ("slot", "count", "expected"),
    [(0, 2, [3, 5]), (1, 2, [7, 9]), (5, 4, [5]), (4, 6, [7]), (0, 1, [3, 5, 7, 9])],
)
def test_workers_share_out_the_processors(monkeypatch, slot, count, expected):
    given = {}
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {9, 7, 5, 3}, raising=False)
    monkeypatch.setattr(os, "sched_setaffinity", lambda t, share: given.update({t: share}),
                        raising=False)  # fmt: skip
    confine(slot, count)
    assert os.getpid() in given
    assert set(map(tuple, given.values())) == {tuple(expected)}
