"""Choosing for several methods by one study, and following a method over its epochs."""

import dataclasses

import jax
import numpy as np
import pytest

from unlearnkit import data, models
from unlearnkit.auditing import evaluate
from unlearnkit.studies import Course, Followed, Pair, RetrainLike, Study, run, tune
from unlearnkit.studies.rules import LOST
from unlearnkit.training import Recipe
from unlearnkit.unlearning import FineTune, GradientAscent

KEY = jax.random.key(3)


@pytest.fixture(scope="module")
def study():
    train, test = (data.load("digits", split=split) for split in ("train", "test"))
    return Study(
        data=Pair(train.take(np.arange(300)), test.take(np.arange(120))),
        networks=models.create("mlp", input_shape=(8, 8, 1), n_classes=10, hidden=(16,)),
        recipes=Recipe(epochs=10, batch_size=20, learning_rate=0.05),
        forget=data.RandomForget(fraction=0.2),
        methods={
            "ascent": GradientAscent(epochs=2, batch_size=20),
            "tune": FineTune(epochs=2, batch_size=20),
        },
        seeds=2,
    )


GRIDS = {
    "ascent": {"learning_rate": [1e-5, 0.3]},
    "tune": {"learning_rate": [1e-3, 0.02], "momentum": [0.0, 0.9]},
}


def test_every_method_has_its_best_values_and_a_front(study, tmp_path):
    found = tune(study, KEY, GRIDS, rule=RetrainLike(0.05), store=tmp_path)
    ascent, fine = found.methods["ascent"], found.methods["tune"]
    assert ascent.method == GradientAscent(epochs=2, batch_size=20, learning_rate=1e-5)
    assert [t.values for t in fine.trials] == [
        {"learning_rate": 1e-3, "momentum": 0.0}, {"learning_rate": 0.02, "momentum": 0.9}
    ]  # fmt: skip
    assert ascent.trials[1].measured.accuracy_retain < 0.6 < found.original.accuracy_retain
    assert found.reference.mia_accuracy != found.original.mia_accuracy
    told = found.as_json()["methods"]["ascent"]
    assert told["taken"] == 0
    assert told["tried"][1]["values"] == {"learning_rate": 0.3}

    stages = []
    strict = tune(
        study, KEY, {"ascent": {"learning_rate": [1e-5, 0.3]}}, rule=RetrainLike(0.05),
        store=tmp_path, on_stage=lambda stage, done, total: stages.append(stage),
    )  # fmt: skip
    assert strict.methods["ascent"] == ascent  # alone, first: of the same networks, from the store
    assert not any("ascent" in stage and "audit" not in stage for stage in stages)


def test_a_method_without_a_tolerable_value_has_none(study):
    ruin = {"ascent": {"learning_rate": [0.3, 0.5]}}
    found = tune(dataclasses.replace(study, seeds=1), KEY, ruin).methods["ascent"]
    assert (found.method, found.taken) == (None, None)
    assert "none of 2 settings keeps" in found.unmet
    assert len(found.trials) == 2


@pytest.mark.parametrize(
    ("grids", "message"),
    [
        ({"ascent": {"learning_rate": [1.0]}, "tune": {"learning_rate": [1.0, 2.0]}},
         r"as many trials as the others, got \[1, 2\]"),
        ({"ascent": {"learning_rate": []}}, r"as many trials as the others, got \[0\]"),
        ({}, r"as many trials as the others, got \[\]"),
        ({"scrub": {"learning_rate": [1.0]}}, "unknown method 'scrub'; known: ascent, tune"),
    ],
)  # fmt: skip
def test_unequal_or_unknown_grids_are_refused(study, grids, message):
    with pytest.raises(ValueError, match=message):
        tune(study, KEY, grids)


def test_a_choice_is_of_one_question(study):
    more = dataclasses.replace(
        study, forget={"a": data.RandomForget(fraction=0.1), "b": data.RandomForget(fraction=0.2)}
    )
    with pytest.raises(ValueError, match="one forget request on one dataset"):
        tune(more, KEY, GRIDS)


def test_a_followed_method_is_the_method_and_its_course_ends_where_it_ends(study):
    method = FineTune(epochs=3, batch_size=20, learning_rate=0.1)
    metrics = ("accuracy_test", "ks_statistic")
    both = dataclasses.replace(
        study, methods={"followed": Followed(method, metrics)}, audits={"course": Course()}, seeds=1
    )
    rows = {record.method: record for record in run(both, KEY, strict=True)}
    assert rows.keys() == {"original", "retrained", "followed"}
    assert "course" in rows["original"].left_out
    curves = rows["followed"].curves
    assert {name: np.shape(c) for name, c in curves.items() if name.startswith("course")} == {
        f"course_{name}": (3,) for name in metrics
    }

    network, pair = study.named.networks[""], study.named.data[""]
    task = data.make_task(KEY, *pair[:2], data.RandomForget(fraction=0.2))
    variables = network.init(jax.random.key(4))
    own = Followed(method, metrics)(KEY, network, variables, task)
    plain = method(KEY, network, variables, task)
    jax.tree.map(np.testing.assert_array_equal, own.variables, plain.variables)
    last = evaluate(jax.random.key(9), network, plain.variables, task).metrics
    for name in metrics:  # neither depends on the key of the audit
        assert own.info.history[f"course_{name}"][-1] == pytest.approx(last[name])
    assert own.info.history["loss"].shape == (3,)


def test_a_value_that_diverges_counts_as_a_ruined_network(study):
    grids = {"ascent": {"learning_rate": [1e-5, 1e30]}}
    found = tune(study, KEY, grids, rule=RetrainLike(0.05)).methods["ascent"]
    mild, lost = found.trials
    assert found.taken == 0
    assert (lost.measured, lost.worst, lost.diverged) == (LOST, 0.0, 2)
    assert mild.diverged == 0
    assert 0.9 < mild.worst <= mild.measured.accuracy_retain
