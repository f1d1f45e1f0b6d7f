"""The rows of `python -m benchmarks poisoning` about what TGDA's time buys, of small games."""

import dataclasses

import jax
import numpy as np
import pytest

from benchmarks import poisoning
from unlearnkit.base import Cost
from unlearnkit.poisoning import TotalGradientAttack
from unlearnkit.training import Recipe

N = 600


@pytest.fixture
def task(monkeypatch):
    short = {"batch_size": 100, "pretrain": Recipe(epochs=1, batch_size=100), "epochs": 2}
    attack = dataclasses.replace(poisoning.PAGE["lr"], **short)
    monkeypatch.setattr(poisoning, "PAGE", {"lr": attack, "nn": attack})
    monkeypatch.setattr(poisoning, "GAME_SECONDS", 1.0)
    monkeypatch.setattr(poisoning, "SEEDS", 2)
    return poisoning.load_task(N)


def test_each_inverse_is_measured_and_has_the_published_game_s_harm_as_its_goal(task, monkeypatch):
    keys, call = [], TotalGradientAttack.__call__

    def noted(attack, key, *rest):
        keys.append((attack.inverse, jax.random.key_data(key).tobytes()))
        return call(attack, key, *rest)

    monkeypatch.setattr(TotalGradientAttack, "__call__", noted)
    rows = poisoning.inverse_rows(*task)
    assert [row.kernel.partition("=")[2].partition(",")[0] for row in rows] == [
        "'minres'", "'none'", "'kfac'"
    ]  # fmt: skip
    published, *others = rows
    assert published.goal is None
    assert all(row.goal == pytest.approx(published.value) for row in others)
    for row in rows:
        lost = list(row.metrics.values())
        assert row.value == pytest.approx(np.mean(lost))
        assert len(lost) == row.ours.repeats == 2
        assert row.ours.seconds > 0
    own = poisoning.KEY
    games = [key for key in keys if key[1] != jax.random.key_data(own).tobytes()]
    assert len(set(games)) == 6  # of three inverses, two seeds with a game of their own


def test_the_note_says_the_errors_of_the_harm_and_of_its_difference():
    lost = {"minres": np.array([1.0, 3.0]), "none": np.array([2.0, 6.0])}
    games = [Game(seconds) for seconds in (3.0, 5.0)]
    row = poisoning._inverse_row(lost, "none", "data", 100, games, 7)
    assert "4.00 ± 2.00 (standard error) over" in row.note
    assert "7 epochs" in row.note
    assert "the published game's and +2.00 ± 1.00" in row.note
    assert (row.value, row.goal, row.ours.seconds, row.ours.least) == (4.0, 2.0, 4.0, 3.0)
    assert row.metrics == {"lost_0": 2.0, "lost_1": 6.0}


class Game:
    """What a row asks of a game: how long it took."""

    def __init__(self, seconds):
        self.info = type("Info", (), {"cost": Cost(0.0, seconds=seconds)})


def test_the_short_game_s_minutes_are_its_seconds(task, monkeypatch):
    create = poisoning.create
    monkeypatch.setattr(poisoning, "create", lambda _, **shape: create("logistic", **shape))
    row = poisoning.short_game_row(*task)
    assert row.value == pytest.approx(row.ours.seconds / 60)
    assert row.goal == 30
    assert row.lower_is_better
    assert row.size.endswith(f"n {N}")
