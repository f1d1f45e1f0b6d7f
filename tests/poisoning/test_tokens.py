"""Poisons of token ids: wrong labels, kept on disk; attacks that move inputs refuse."""

import json

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from token_task import TOKENS, make_model, make_task, same

from unlearnkit import poisoning
from unlearnkit.base import Tokens, Variables
from unlearnkit.io.files import sha256_of_file
from unlearnkit.poisoning import (
    Budget,
    LabelFlip,
    PoisonFileError,
    TotalGradientAttack,
    attack_in_lanes,
    load_poisoned,
    save_poisoned,
)
from unlearnkit.training import fingerprint

KEY = jax.random.key(5)


@pytest.fixture(scope="module")
def task():
    return make_task()


@pytest.fixture(scope="module")
def poisoned(task):
    return LabelFlip(Budget(0.1), rule="random")(KEY, make_model(), start(), task)


def start():
    model = make_model()
    return jax.jit(model.init)(KEY)


MOVING = set(poisoning.ATTACKS) - {"label_flip", "text_trigger", "gaussian"}


@pytest.mark.parametrize("name", sorted(MOVING))
def test_attacks_that_move_inputs_refuse_tokens(name, task):
    """Before the weights are looked at, which are of no network."""
    attack = poisoning.create(name, budget=Budget(0.1))
    with pytest.raises(ValueError, match=f"{type(attack).__name__} needs inputs that are real"):
        attack(KEY, make_model(), Variables({}), task)


def test_lanes_refuse_tokens(task):
    attack = TotalGradientAttack(Budget(0.1))
    with pytest.raises(ValueError, match="TotalGradientAttack needs inputs that are real"):
        attack_in_lanes(attack, jax.random.split(KEY), make_model(), Variables({}), task)


def test_labels_of_tokens_are_flipped(poisoned, task):
    assert poisoned.dataset.normalisation == TOKENS
    rows = np.flatnonzero(poisoned.is_poison)
    assert len(rows) == round(0.1 * task.train.size)
    base = np.asarray(poisoned.info.base)
    np.testing.assert_array_equal(poisoned.dataset.x[rows], np.asarray(task.train.x)[base])
    assert np.all(np.asarray(poisoned.dataset.y)[rows] != np.asarray(task.train.y)[base])


def test_saved_poisons_come_back(poisoned, task, tmp_path):
    save_poisoned(tmp_path, poisoned, task.train)
    found = load_poisoned(tmp_path, task.train)
    assert same(found.dataset, poisoned.dataset)
    assert same(found.info.base, poisoned.info.base)


def test_saved_poisons_are_of_one_vocabulary(poisoned, task, tmp_path):
    save_poisoned(tmp_path, poisoned, task.train)
    other = task.train._replace(normalisation=Tokens(11))
    assert fingerprint(other) == fingerprint(task.train)
    with pytest.raises(PoisonFileError, match="normalised as"):
        load_poisoned(tmp_path, other)


@pytest.mark.parametrize("spoilt", ["ids", "box"])
def test_saved_poisons_that_cannot_be_are_refused(spoilt, poisoned, task, tmp_path):
    save_poisoned(tmp_path, poisoned, task.train)
    arrays, manifest = tmp_path / "poison.safetensors", tmp_path / "manifest.json"
    described = json.loads(manifest.read_text())
    if spoilt == "ids":
        held = load_file(arrays)
        held["x"][0, 0] = TOKENS.vocabulary
        save_file(held, arrays)
        described["sha256"] = sha256_of_file(arrays)
    else:
        described["bounds"]["box"] = [0.0, 1.0]
    manifest.write_text(json.dumps(described))
    message = {"ids": "token ids of the poisons must be in 0 … 9", "box": "no box"}[spoilt]
    with pytest.raises(PoisonFileError, match=message):
        load_poisoned(tmp_path, task.train)
