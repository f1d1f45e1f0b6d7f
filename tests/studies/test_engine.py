"""The engine: what records depend on, what becomes of failures, and defences."""

import dataclasses
import importlib

import jax
import numpy as np
import pytest
import tiny_study
from tiny_study import FLIP, KEY, METHODS, RECIPE, Fails, assert_same, draw, network, study

from unlearnkit.auditing import ThresholdAttack
from unlearnkit.base import Cost, DefenceInfo, Defended, Unlearned
from unlearnkit.data import RandomForget
from unlearnkit.defences import MaxUp
from unlearnkit.poisoning import Budget, GaussianPoison
from unlearnkit.studies import ORIGINAL, RETRAIN, Pair, run
from unlearnkit.training import DivergedError
from unlearnkit.unlearning import FineTune


@pytest.fixture(autouse=True)
def no_calls():
    tiny_study.CALLS.clear()


@pytest.fixture(scope="module")
def plain():
    return list(run(study(), KEY))


def test_a_row_for_the_untouched_the_retrained_and_each_method(plain):
    expected = [(name, seed) for seed in range(2) for name in (ORIGINAL, RETRAIN, *METHODS)]
    assert [(r.method, r.seed) for r in plain] == expected
    assert all(r.finished and r.question == "some" and r.budget is None for r in plain)


@pytest.mark.parametrize(
    "changes",
    [
        {"seeds": 3},
        {"methods": {**METHODS, "more": FineTune(epochs=1, batch_size=20)}},
        {"forget": {"some": RandomForget(count=20), "more": RandomForget(count=10)}},
        {"attacks": {"flip": FLIP}},
        {"recipes": {"": RECIPE, "longer": dataclasses.replace(RECIPE, epochs=6)}},
        {"data": {"": Pair(draw(0, 120), draw(1, 80)), "other": Pair(draw(5, 100), draw(6, 60))}},
        {"networks": {"": network(), "again": network()}},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_what_is_appended_leaves_the_rest_as_it_was(plain, changes):
    more = list(run(study(**changes), KEY))
    assert len(more) > len(plain)
    assert_same(plain, more)


def test_appended_places_have_keys_of_their_own():
    """The same dataset, network and request again is another repetition, not the same one."""
    twice = study(
        networks={"a": network(), "b": network(), "c": network()},
        forget={"a": RandomForget(count=20), "b": RandomForget(count=20)},
        seeds=1,
    )
    records = [r for r in run(twice, KEY) if r.method == ORIGINAL]
    values = {tuple(r.metrics.items()) for r in records}
    assert len(records) == len(values) == 6


def test_budgets_of_a_forget_request():
    records = list(
        run(study(methods={"fine_tune": METHODS["fine_tune"]}, budgets=(0.1, 0.3, 0.6)), KEY)
    )
    found = {(r.budget, r.seed): r for r in records if r.method == "fine_tune"}
    assert "one epoch costs 25 % of Retrain" in found[0.1, 0].over_budget
    assert found[0.3, 1].cost.example_gradients == 100
    assert found[0.6, 1].cost.example_gradients == 200


# Failures.


def test_a_method_that_fails_is_a_row_and_the_study_goes_on(plain):
    records = list(run(study(methods={"bad": Fails(), **METHODS}), KEY))
    bad = [r for r in records if r.method == "bad"]
    assert [r.failed for r in bad] == ["RuntimeError: a mistake in the method"] * 2
    assert not any(r.metrics or r.finished for r in bad)
    assert len(records) == len(plain) + 2
    with pytest.raises(RuntimeError, match="a mistake in the method"):
        list(run(study(methods={"bad": Fails()}), KEY, strict=True))


def test_an_audit_or_an_attack_that_fails_is_a_row_too():
    @dataclasses.dataclass(frozen=True)
    class Breaks:
        def __call__(self, key, model, variables, task):
            raise ZeroDivisionError("a mistake")

    records = list(run(study(audits={"": Breaks()}), KEY))
    assert {r.failed for r in records} == {"ZeroDivisionError: a mistake"}
    assert [r.cost.example_gradients > 0 for r in records if r.method == "ascent"] == [True] * 2
    records = list(run(study(forget={}, attacks={"bad": Breaks(), "flip": FLIP}), KEY))
    assert [(r.question, r.method, r.failed) for r in records[:2]] == [
        ("bad", ORIGINAL, "ZeroDivisionError: a mistake"),
        ("flip", ORIGINAL, None),
    ]


def test_an_audit_that_returns_something_else_says_so():
    records = list(run(study(audits={"": lambda *_: {"accuracy": 1.0}}, seeds=1), KEY))
    assert "must return Audited(metrics, curves), got dict" in records[0].failed


def test_one_seed_that_diverges_is_found_out(monkeypatch):
    """Trainings of all seeds go together; the other seeds are trained all the same."""
    lanes = importlib.import_module("unlearnkit.studies.lanes")
    fit_many = lanes.fit_many

    bad = jax.random.split(jax.random.fold_in(KEY, 1), 5)[1]

    def diverges(keys, *arguments, **options):
        if any(np.array_equal(jax.random.key_data(key), jax.random.key_data(bad)) for key in keys):
            raise DivergedError("loss nan")
        return fit_many(keys, *arguments, **options)

    monkeypatch.setattr(lanes, "fit_many", diverges)
    for options in ({}, {"batching": "vmap"}):
        records = list(run(study(seeds=3), KEY, **options))
        assert [(r.seed, r.diverged) for r in records if r.method == ORIGINAL] == [
            (0, None), (1, "loss nan"), (2, None)
        ]  # fmt: skip
        with pytest.raises(DivergedError, match="loss nan"):
            list(run(study(seeds=3), KEY, strict=True, **options))


def test_an_audit_without_an_object_is_left_out_with_the_reason():
    records = list(
        run(
            study(
                attacks={"gaussian": GaussianPoison(budget=Budget(0.1)), "flip": FLIP},
                audits={"": ThresholdAttack(), "gus": tiny_gus()},
                seeds=1,
            ),
            KEY,
        )
    )
    for record in records:
        assert ("gus_gus" in record.metrics) == (record.question == "gaussian")
        assert ("gus" in record.left_out) == (record.question != "gaussian")
    assert "GaussianPoison" in records[0].left_out["gus"]


def tiny_gus():
    from unlearnkit.auditing import GaussianUnlearningScore

    return GaussianUnlearningScore()


# Defences.


@dataclasses.dataclass(frozen=True)
class Keeps:
    """Keeps the clean examples and a share of the poisons, which are the first of `draw`'s rows."""

    share: float

    def __call__(self, key, model, variables, dataset):
        wrong = np.asarray(dataset.y) != np.asarray(draw(0, 120).y)
        rows = np.flatnonzero(wrong)
        keep = np.ones(dataset.size, bool)
        keep[rows[int(self.share * len(rows)) :]] = False
        return Defended(jax.numpy.asarray(keep), jax.numpy.asarray(~keep, float),
                        DefenceInfo(Cost(0.0, 0.0)))  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Sizes:
    """Says how many examples the method was given, by its cost."""

    def __call__(self, key, model, variables, task, *, on_epoch=None) -> Unlearned:
        found = FineTune(epochs=1, batch_size=20)(key, model, variables, task)
        cost = Cost(1000.0 * task.retain.size + task.forget.size, 0.0)
        return found._replace(info=found.info._replace(cost=cost))


@pytest.fixture(scope="module")
def defended():
    asked = study(
        forget={},
        attacks={"flip": FLIP},
        defences={"half": Keeps(0.5), "all": Keeps(0.0), "max_up": MaxUp(copies=2)},
        methods={"sizes": Sizes()},
        audits={},
        seeds=1,
    )
    return list(run(asked, KEY))


def test_every_method_behind_every_defence(defended):
    assert [(r.defence, r.method) for r in defended] == [
        ("none", ORIGINAL), ("none", RETRAIN), ("none", "sizes"),
        ("half", ORIGINAL), ("half", "sizes"),
        ("all", ORIGINAL), ("all", "sizes"),
        ("max_up", ORIGINAL), ("max_up", "sizes"),
    ]  # fmt: skip


def test_methods_forget_what_a_defence_left_of_the_poisons(defended):
    cost = {r.defence: r.cost.example_gradients for r in defended if r.method == "sizes"}
    assert cost["none"] == cost["max_up"] == 96_024
    assert cost["half"] == 96_012
    (nothing,) = [r for r in defended if (r.defence, r.method) == ("all", "sizes")]
    assert "left no poison" in nothing.failed


def test_a_defended_network_is_trained_anew_and_judged_on_all_poisons(defended):
    said = {r.defence: r.metrics for r in defended if r.method == ORIGINAL}
    assert len({metrics["accuracy_test"] for metrics in said.values()}) >= 3
    # The network behind the perfect defence does not say the wrong labels, the undefended does.
    assert said["all"]["accuracy_forget"] < said["none"]["accuracy_forget"] - 0.1
