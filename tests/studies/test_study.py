"""What a study refuses before anything is trained."""

import dataclasses
import importlib

import jax
import numpy as np
import pytest
from tiny_study import KEY, METHODS, RECIPE, Nothing, draw, network, study

from unlearnkit import models
from unlearnkit.auditing import ThresholdAttack
from unlearnkit.base import Cost, Unlearned, UnlearnInfo, Variables
from unlearnkit.data import ClassForget, RandomForget
from unlearnkit.defences import LossFilter
from unlearnkit.poisoning import Budget, LabelFlip
from unlearnkit.studies import Pair, Study, check, run
from unlearnkit.training import Recipe
from unlearnkit.unlearning import FineTune, Retrain

FLIP = LabelFlip(budget=Budget(0.2))


def bare(key, model, variables, task, *, on_epoch=None):
    return variables


def annotated_bare(key, model, variables, task, *, on_epoch=None) -> Variables:
    return variables


def silent(key, model, variables, task):
    return Unlearned(variables, UnlearnInfo({}, Cost(1.0, 0.0)))


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"methods": {"ft": FineTune}}, TypeError, r"methods\['ft'\] is the class FineTune; give"),
        ({"audits": {"a": ThresholdAttack}}, TypeError, "is the class ThresholdAttack"),
        ({"methods": {"ft": 3}}, TypeError, "must be of the kind Unlearner, got 3"),
        ({"networks": {"n": 3}}, TypeError, "must be of the kind Model"),
        ({"recipes": {"r": None}}, TypeError, "must be of the kind Recipe"),
        ({"methods": {"original": Nothing()}}, ValueError, r"\['original'\] have a meaning"),
        ({"methods": {"retrained": Nothing()}}, ValueError, r"\['retrained'\] have a meaning"),
        ({"attacks": {"some": FLIP}}, ValueError, "name a request and an attack"),
        ({"forget": {}}, ValueError, "needs a question"),
        ({"networks": {}}, ValueError, "networks must hold at least one entry"),
        ({"defences": {"loss": LossFilter(fraction=0.1)}}, ValueError, "defences need attacks"),
        (
            {"attacks": {"flip": FLIP}, "audits": {"gaussian": ThresholdAttack()}},
            ValueError,
            r"\['gaussian'\] have a meaning",
        ),
        ({"budgets": (0.5, 0.0)}, ValueError, r"budgets must be shares of Retrain in \(0, 1\]"),
        ({"budgets": (1.5,)}, ValueError, "budgets must be"),
        ({"seeds": 0}, ValueError, "seeds must be >= 1, got 0"),
    ],
)
def test_declarations_that_make_no_sense(changes, error, message, unchecked_types):
    with pytest.raises(error, match=message):
        study(**changes)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"methods": {"m": silent}}, TypeError, r"methods\['m'\] must be callable as .*on_epoch"),
        ({"methods": {"m": bare}}, TypeError, "must return Unlearned.*, got Variables"),
        ({"methods": {"m": annotated_bare}}, TypeError, "must return Unlearned.*, got Variables"),
        ({"methods": {"m": Retrain(Recipe(batch_size=101))}}, ValueError, "larger than the data"),
        ({"recipes": Recipe(batch_size=101)}, ValueError, "larger than the data"),
        ({"forget": RandomForget(count=120)}, ValueError, "forget"),
        ({"forget": ClassForget(7)}, ValueError, "label must be a class"),
        (
            {"networks": models.create("logistic", input_shape=(5, 4, 1), n_classes=3)},
            ValueError,
            "an example of train has shape",
        ),
    ],
)
def test_studies_that_cannot_be_run(changes, error, message, monkeypatch, unchecked_types):
    refused = study(**changes)
    for module in ("engine", "lanes"):
        for name in ("fit", "fit_many"):
            there = importlib.import_module(f"unlearnkit.studies.{module}")
            monkeypatch.setattr(there, name, pytest.fail, raising=False)
    with pytest.raises(error, match=message):
        run(refused, KEY)


def test_every_network_and_dataset_is_checked():
    data = {"good": Pair(draw(0, 120), draw(1, 80)), "few": Pair(draw(0, 10), draw(1, 80))}
    with pytest.raises(ValueError, match="count must be at most 10"):
        check(study(data=data), KEY)
    other = models.create("logistic", input_shape=(4, 4, 1), n_classes=2)
    with pytest.raises(ValueError, match="labels of train must be < 2"):
        check(study(networks={"three": network(), "two": other}), KEY)


def test_a_study_that_does_not_fit_into_memory_is_refused(monkeypatch):
    checks = importlib.import_module("unlearnkit.studies.checks")
    monkeypatch.setattr(checks, "available_bytes", lambda: 10_000)
    with pytest.raises(ValueError, match="needs about .* GB .* are free; take fewer seeds"):
        check(study(), KEY)
    monkeypatch.setattr(checks, "available_bytes", lambda: None)  # nobody says
    check(study(), KEY)


def test_a_large_ensemble_counts_as_memory(monkeypatch):
    checks = importlib.import_module("unlearnkit.studies.checks")
    monkeypatch.setattr(checks, "available_bytes", lambda: 1_000_000)
    check(study(), KEY)

    @dataclasses.dataclass(frozen=True)
    class Many:
        count: int = 10_000

        def judge(self, key, case, subject):
            raise AssertionError  # it is only counted

    with pytest.raises(ValueError, match="smaller ensembles"):
        check(study(audits={"many": Many()}), KEY)


def test_one_of_a_kind_needs_no_name():
    one = Study(
        data=Pair(draw(0, 120), draw(1, 80)),
        networks=network(),
        recipes=RECIPE,
        forget=RandomForget(count=20),
    )
    assert list(one.data) == list(one.networks) == list(one.recipes) == list(one.forget) == [""]


def test_methods_are_checked_with_the_recipe_that_they_will_be_given():
    """Retrain without a recipe takes the study's, and so its batch."""
    check(study(methods={"retrain": Retrain(), **METHODS}), KEY)
    with pytest.raises(ValueError, match="larger than the data"):
        check(study(forget=RandomForget(count=101), methods={"retrain": Retrain()}), KEY)


def test_checking_trains_nothing_and_changes_nothing():
    checked = study()
    before = [np.array(part) for part in jax.tree.leaves(checked.data[""].train)]
    check(checked, KEY)
    for one, other in zip(before, jax.tree.leaves(checked.data[""].train), strict=True):
        np.testing.assert_array_equal(one, other)
