"""The networks of a poison study are independent: attack, victim and Retrain have their own keys.

A recipe without epochs shows the initialisation, which is all that the key decides there.
"""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from unlearnkit import models
from unlearnkit.base import Audited, Cost, Dataset, Unlearned, UnlearnInfo
from unlearnkit.poisoning import Budget, LabelFlip
from unlearnkit.studies import ORIGINAL, RETRAIN, poison_and_unlearn
from unlearnkit.training import Recipe, fit
from unlearnkit.unlearning import Retrain

SHAPE = (3, 3, 1)
UNTRAINED = Recipe(epochs=0, batch_size=10)
BRIEF = Recipe(epochs=2, batch_size=10, learning_rate=0.1)
FLIP = LabelFlip(budget=Budget(0.2), placement="perturb")


def draw(seed, n):
    x = jax.random.uniform(jax.random.key(seed), (n, *SHAPE))
    return Dataset(x, jax.random.randint(jax.random.key(seed + 1), (n,), 0, 3, jnp.int32))


TRAIN, TEST = draw(0, 60), draw(2, 40)


@pytest.fixture(scope="module")
def model():
    return models.create("logistic", input_shape=SHAPE, n_classes=3)


class SpyAttack:
    """Flips labels, and remembers its keys and the networks that it was shown."""

    def __init__(self):
        self.keys, self.shown = [], []

    def __call__(self, key, model, variables, task):
        self.keys.append(key)
        self.shown.append(variables)
        return FLIP(key, model, variables, task)


class SpyMethod:
    """Leaves the network as it is, and remembers its keys, networks and tasks."""

    def __init__(self):
        self.calls = []

    def __call__(self, key, model, variables, task, *, on_epoch=None) -> Unlearned:
        self.calls.append((key, variables, task))
        return Unlearned(variables, UnlearnInfo({}, Cost(1.0, 0.0)))


def flat(variables):
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(variables)])


def assert_all_differ(networks):
    for one, other in itertools.combinations(map(flat, networks), 2):
        assert not np.allclose(one, other)


@dataclasses.dataclass(frozen=True, eq=False)
class SpyAudit:
    """Remembers the cases that it is shown."""

    cases: list = dataclasses.field(default_factory=list)

    def judge(self, key, case, subject):
        self.cases.append(case)
        return Audited({"seen": 1.0})


def test_attack_victim_and_retrain_have_keys_of_their_own(model):
    spy, audit, key = SpyAttack(), SpyAudit(), jax.random.key(0)
    list(
        poison_and_unlearn(
            key, model, TRAIN, TEST, attacks={"spy": spy}, recipe=UNTRAINED, methods={},
            audits={"": audit},
        )
    )  # fmt: skip
    case = audit.cases[0]
    np.testing.assert_array_equal(flat(case.clean), flat(spy.shown[0]))
    of_the_attack = fit(spy.keys[0], model, TRAIN, UNTRAINED).variables
    of_the_whole = fit(key, model, TRAIN, UNTRAINED).variables
    assert_all_differ(
        [case.clean, case.original, case.reference.variables, of_the_attack, of_the_whole]
    )


@pytest.fixture(scope="module")
def study(model):
    attacks = {"first": SpyAttack(), "second": SpyAttack()}
    methods = {"one": SpyMethod(), "two": SpyMethod()}
    records = list(
        poison_and_unlearn(
            jax.random.key(3), model, TRAIN, TEST, attacks=attacks, recipe=BRIEF,
            methods=methods | {"retrain": Retrain(BRIEF)}, budgets=(1.0,), seeds=2,
        )
    )  # fmt: skip
    return records, attacks, methods


def test_every_attack_and_method_draws_from_a_key_of_its_own(study):
    _, attacks, methods = study
    keys = [key for attack in attacks.values() for key in attack.keys]
    keys += [key for method in methods.values() for key, _, _ in method.calls]
    assert len(keys) == 2 * 2 + 2 * 2 * 2  # attacks x seeds, methods x attacks x seeds
    assert len({jax.random.key_data(key).tobytes() for key in keys}) == len(keys)


def test_attacks_of_one_seed_see_one_clean_network_and_seeds_have_their_own(study):
    _, attacks, _ = study
    first, second = (attack.shown for attack in attacks.values())
    for seed in range(2):
        np.testing.assert_array_equal(flat(first[seed]), flat(second[seed]))
    assert_all_differ(first)


def test_methods_start_from_the_victim_and_are_asked_to_forget_the_poisons(study):
    records, _, methods = study
    one, two = (method.calls for method in methods.values())
    for (_, start, task), (_, same, _) in zip(one, two, strict=True):
        np.testing.assert_array_equal(flat(start), flat(same))
        assert task.forget.size == 12
    assert_all_differ([start for _, start, _ in one])
    untouched = [r.metrics for r in records if r.method == ORIGINAL]
    after = [r.metrics for r in records if r.method == "one"]
    for before, now in zip(untouched, after, strict=True):
        assert {**before, "compute": None} == {**now, "compute": None}


def test_the_method_retrain_is_another_network_than_the_row_of_the_same_name(study):
    """In full, at a budget of one: as costly, and trained alike, but not the same."""
    records, _, _ = study
    own = [r.metrics["shift_l2"] for r in records if r.method == "retrain"]
    row = [r.metrics["shift_l2"] for r in records if r.method == RETRAIN]
    assert len(own) == len(row) == 4
    assert all(a != b for a, b in zip(own, row, strict=True))
