"""A method is chosen on choosing data, within a budget, and reported on others."""

import dataclasses
import math

import jax
import numpy as np
import pytest
from tiny_study import KEY, RECIPE, Fails, Nothing, draw, network

from unlearnkit import training
from unlearnkit.base import Cost, Unlearned, UnlearnInfo, Variables
from unlearnkit.data import IndexForget
from unlearnkit.studies import ORIGINAL, RETRAIN, Pair, RetrainLike, Study, declared_set, recommend
from unlearnkit.unlearning import FineTune

TRAIN, CHOOSING, VALIDATION, REPORTING = draw(0, 120), draw(1, 200), draw(2, 40), draw(3, 60)
ROWS = np.flatnonzero(np.asarray(TRAIN.y) == 0)


@dataclasses.dataclass(frozen=True)
class Oracle:
    """Retrains, and says that it cost nearly nothing."""

    def __call__(self, key, model, variables, task, *, on_epoch=None) -> Unlearned:
        trained = training.fit(key, model, task.retain, RECIPE)
        return Unlearned(trained.variables, UnlearnInfo({}, Cost(1.0, 0.0)))


@dataclasses.dataclass(frozen=True)
class Ruins:
    """Leaves a network that answers nothing, so that nothing is told apart by it."""

    def __call__(self, key, model, variables, task, *, on_epoch=None) -> Unlearned:
        params = jax.tree.map(lambda leaf: 0 * leaf, variables.params)
        return Unlearned(Variables(params, variables.state), UnlearnInfo({}, Cost(1.0, 0.0)))


@pytest.fixture(scope="module")
def weights():
    return training.fit(jax.random.key(5), network(), TRAIN, RECIPE).variables


def study(weights, methods, **changes):
    parts = {
        "data": Pair(TRAIN, CHOOSING, VALIDATION),
        "networks": network(),
        "recipes": RECIPE,
        "forget": IndexForget(ROWS),
        "methods": methods,
        "original": weights,
    }
    return Study(**{**parts, **changes})


RULE = RetrainLike(tolerance=0.1)
PLANTED = {"nothing": Nothing(), "oracle": Oracle(), "ruins": Ruins()}


@pytest.fixture(scope="module")
def found(weights, tmp_path_factory):
    kept, told = [], []
    store = tmp_path_factory.mktemp("store")
    answer = recommend(
        study(weights, PLANTED),
        KEY,
        REPORTING,
        rule=RULE,
        store=store,
        on_record=told.append,
        on_network=lambda record, variables: kept.append((record.method, variables)),
    )
    return answer, kept, told


def test_the_planted_best_is_chosen_and_the_ruined_one_refused(found):
    answer, kept, told = found
    assert answer.chosen.name == "oracle"
    by_name = {one.name: one for one in answer.candidates}
    assert "ruins the network" in by_name["ruins"].refused
    assert by_name["ruins"].score == -math.inf
    assert by_name["oracle"].score > by_name["nothing"].score
    assert [r.method for r in answer.records] == [ORIGINAL, RETRAIN, "oracle"]
    assert {name for name, _ in kept} == {ORIGINAL, RETRAIN, "oracle"}
    assert len(told) == 5 + 3
    assert answer.finished
    assert by_name["nothing"].score == answer.untouched  # as it does nothing
    assert answer.helps
    assert not answer.forget_is_alike  # a whole class is forgotten


def test_reporting_data_decide_nothing_and_are_reported_on(found, weights):
    """Other labels there change the report, and not the choice."""
    answer, _, _ = found
    wrong = REPORTING._replace(y=(REPORTING.y + 1) % 3)
    other = recommend(study(weights, PLANTED), KEY, wrong, rule=RULE)
    assert other.chosen.name == answer.chosen.name
    assert [one.score for one in other.candidates] == [one.score for one in answer.candidates]
    honest, spoilt = (one.records[-1].metrics["accuracy_test"] for one in (answer, other))
    assert honest > 0.6 > spoilt


def test_the_report_is_of_other_runs(found):
    """The references that chose are not those that are reported on."""
    answer, _, told = found
    chosen_by, reported = (r.metrics for r in told if r.method == RETRAIN)
    assert chosen_by["accuracy_forget"] != reported["wasserstein"]
    assert not np.array_equal(
        told[1].curves["loss_forget"], answer.records[1].curves["loss_forget"]
    )


def test_without_a_reference_chance_is_the_goal(weights):
    even = IndexForget(np.arange(0, 120, 6))
    answer = recommend(study(weights, PLANTED, reference="none", forget=even), KEY, REPORTING)
    assert answer.reference is None
    assert [r.method for r in answer.records[:1]] == [ORIGINAL]
    assert RETRAIN not in {r.method for r in answer.records}
    assert "average_gap" not in answer.records[-1].metrics
    assert answer.forget_is_alike
    assert {one.name: one.refused is None for one in answer.candidates}["ruins"] is False


def test_nothing_is_recommended_where_none_will_do(weights):
    answer = recommend(study(weights, {"ruins": Ruins(), "fails": Fails()}), KEY, REPORTING)
    assert answer.chosen is None
    assert answer.records == ()
    assert "no candidate keeps a retain accuracy" in answer.unmet
    assert "a mistake in the method" in answer.candidates[1].refused


def test_a_budget_lowers_epochs_and_refuses_what_is_dearer_still(weights):
    quarter = 0.25  # of 4 epochs
    methods = {
        "long": FineTune(epochs=50, batch_size=20, learning_rate=0.1),
        "short": FineTune(epochs=1, batch_size=20, learning_rate=0.1),
    }
    asked = study(weights, methods, reference="none", recipes=RECIPE)
    answer = recommend(asked, KEY, REPORTING, budget=2 * quarter)
    assert [one.method.epochs for one in answer.candidates] == [2, 1]
    assert all(one.share <= 2 * quarter + 1e-9 for one in answer.candidates)
    none = recommend(asked, KEY, REPORTING, budget=quarter / 2)
    assert [one.refused for one in none.candidates] == [
        "one epoch costs more than 12.5 % of Retrain"
    ] * 2
    assert none.chosen is None


def test_time_that_is_over_is_told(weights, tmp_path):
    answer = recommend(
        study(weights, PLANTED), KEY, REPORTING, minutes=1e-9, store=tmp_path / "store"
    )
    assert not answer.finished
    assert answer.chosen is None
    assert "the time was over" in answer.unmet


@pytest.mark.parametrize(
    ("changes", "options", "message"),
    [
        ({"methods": {}}, {}, "at least one candidate"),
        ({"data": Pair(TRAIN, CHOOSING)}, {}, "a validation set of their own"),
        ({"forget": {"a": IndexForget((1,)), "b": IndexForget((2,))}}, {}, "one forget request"),
        ({}, {"budget": 0.0}, "budget must be > 0"),
        ({}, {"minutes": 1.0}, "needs a store"),
    ],
)
def test_bad_input(weights, changes, options, message):
    with pytest.raises(ValueError, match=message):
        recommend(study(weights, PLANTED) if not changes else study(
            weights, changes.get("methods", PLANTED),
            **{n: v for n, v in changes.items() if n != "methods"},
        ), KEY, REPORTING, **options)  # fmt: skip


def test_the_declared_set_is_cheap_methods_at_two_rates():
    found = declared_set(RECIPE)
    assert len(found) == 14
    rates = {round(method.learning_rate / RECIPE.learning_rate, 3) for method in found.values()}
    assert {1.0, 0.3} <= rates
    assert "retrain" not in " ".join(found)
