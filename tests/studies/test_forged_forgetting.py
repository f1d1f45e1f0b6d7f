"""Forgers in a study: how far each forged step errs, and who accepts it."""

import jax
import numpy as np
import pytest
from tiny_study import KEY, RECIPE, study, table
from trial_settings import made

from unlearnkit.auditing import (
    Case,
    ForgedForgetting,
    NotApplicable,
    Subject,
    ThresholdAttack,
    forged_forgetting,
)
from unlearnkit.base import Cost, Task, Unlearned, UnlearnInfo
from unlearnkit.data import RandomForget
from unlearnkit.forging import GreedyForger, OptimiseForger, SubstitutionForger
from unlearnkit.studies import ORIGINAL, RETRAIN, StudyFileError, read_study, run
from unlearnkit.training import Recipe, TrajectoryError
from unlearnkit.unlearning import FineTune

SUBSTITUTE = SubstitutionForger(60)
AUDITS = {
    "whole": ForgedForgetting(SUBSTITUTE, segments=2, shuffles=3),
    "late": ForgedForgetting(SUBSTITUTE, epochs=(1, 4), segments=2, shuffles=3),
    "lenient": ForgedForgetting(SUBSTITUTE, epochs=(4,), tolerance=1.0),
    "greedy": ForgedForgetting(GreedyForger(60, 50), epochs=(4,), tolerance=1e-6),
}


def asked(**changes):
    parts = {
        "forget": {"one": RandomForget(count=1), "five": RandomForget(count=5)},
        "audits": {"": ThresholdAttack(), **AUDITS},
        "methods": {"fine_tune": FineTune(epochs=1, batch_size=20)},
        "seeds": 1,
    }
    return study(**{**parts, **changes})


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    return tmp_path_factory.mktemp("store")


@pytest.fixture(scope="module")
def records(kept):
    return list(run(asked(), KEY, store=kept, strict=True))


def of(records, question, method=ORIGINAL):
    (found,) = [r for r in records if (r.question, r.method) == (question, method)]
    return found


def test_each_forged_step_has_an_error_and_a_verdict_by_epoch(records):
    five = of(records, "five")
    for epoch in (1, 2, 3, 4):
        assert five.metrics[f"whole_error_epoch_{epoch}"] > 0
        assert 0 <= five.metrics[f"whole_accepted_epoch_{epoch}"] <= 1
    assert {n for n in five.metrics if n.startswith("late_error_epoch")} == {
        "late_error_epoch_1",
        "late_error_epoch_4",
    }
    assert five.metrics["whole_valid"] == five.metrics["whole_replays_pass"] == 0
    assert five.metrics["whole_tolerance"] < 1e-5
    steps = five.curves["whole_step"]
    assert len(steps) <= 5 * RECIPE.epochs
    assert np.all(five.curves["whole_errors"] > five.curves["whole_limits"])
    assert 1 <= len(of(records, "one").curves["whole_step"]) <= RECIPE.epochs


def test_steps_of_chosen_epochs_fare_as_they_do_in_the_whole_log(records):
    curves = of(records, "five").curves
    at = curves["whole_step"] // 6 + 1  # 120 examples make 6 batches of 20
    # The forged log ends earlier: 115 examples make 5 batches an epoch.
    there = [step for step in curves["late_step"] if step < 20]
    assert there == [
        s for s, epoch in zip(curves["whole_step"], at, strict=True) if epoch in (1, 4)
    ]
    for name in ("errors", "limits", "step_accepted"):
        whole = dict(zip(curves["whole_step"], curves[f"whole_{name}"], strict=True))
        late = dict(zip(curves["late_step"], curves[f"late_{name}"], strict=True))
        np.testing.assert_allclose([whole[s] for s in there], [late[s] for s in there], rtol=1e-5)


def test_fewer_exchanged_examples_err_less(records):
    metrics = of(records, "five").metrics
    assert metrics["lenient_error"] < 0.5 * metrics["greedy_error"]
    assert metrics["lenient_tolerance"] == 1.0  # the segment's own limit holds still
    assert metrics["lenient_accepted"] == metrics["greedy_accepted"] == 0


def test_the_reference_has_an_honest_log_and_methods_have_none(records):
    reference = of(records, "five", RETRAIN)
    assert reference.metrics["whole_valid"] == reference.metrics["late_accepted"] == 1
    assert reference.metrics["whole_error_largest"] == 0
    method = of(records, "five", "fine_tune")
    assert set(method.left_out) == set(AUDITS)
    assert "has no log of training" in method.left_out["whole"]


def test_what_the_store_holds_is_not_forged_again(records, kept, monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("trained again")

    monkeypatch.setattr(forged_forgetting, "_fit_logged", refuse)
    assert table(run(asked(), KEY, store=kept, strict=True)) == table(records)


def test_forgers_of_a_case_share_its_log(monkeypatch):
    trained = []

    def fit_logged(case, recipe, key, data, folder, *, every):
        trained.append(every)
        return original(case, recipe, key, data, folder, every=every)

    original = forged_forgetting._fit_logged
    monkeypatch.setattr(forged_forgetting, "_fit_logged", fit_logged)
    audits = {"": ThresholdAttack(), "lenient": AUDITS["lenient"], "greedy": AUDITS["greedy"]}
    list(run(asked(audits=audits, forget={"one": RandomForget(count=5)}), KEY, strict=True))
    assert trained == [1, 5]  # of the original each step, of the reference each epoch


def a_case(**changes):
    parts = asked()
    train, model = parts.data[""].train, parts.networks[""]
    task = Task(*(train.take(np.arange(*e)) for e in ((0, 80), (80, 90), (90, 100), (100, 120))))
    variables = jax.jit(model.init)(KEY)
    reference = Unlearned(variables, UnlearnInfo({}, Cost(1.0, 0.0)))
    return Case(KEY, model, RECIPE, task, variables, reference, **changes)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"epochs": (5,)}, ValueError, r"epochs must be in 1 … 4, got 5"),
        ({"recipe": Recipe(epochs=1, label_smoothing=0.1)}, NotApplicable, "label_smoothing=0.0"),
        ({"forger": OptimiseForger(1), "tolerance": 1.0}, ValueError, "makes examples of its own"),
    ],
)
def test_what_cannot_be_forged_is_refused(options, error, message):
    case = a_case()
    with pytest.raises(error, match=message):
        ForgedForgetting(**options).judge(KEY, case, Subject(case.original))


def test_a_log_that_no_tolerance_fits_is_left_out(monkeypatch):
    def calibrate(*_, **__):
        raise TrajectoryError("honest replays differ")

    monkeypatch.setattr(forged_forgetting, "calibrate", calibrate)
    case = a_case()
    with pytest.raises(NotApplicable, match="no tolerance tells a forgery here: honest replays"):
        ForgedForgetting(SUBSTITUTE).judge(KEY, case, Subject(case.original))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epochs": (0,)}, "epochs must be different and >= 1"),
        ({"epochs": (2, 2)}, "epochs must be different and >= 1"),
        ({"tolerance": -1.0}, "tolerance must be >= 0"),
        ({"most_steps": 0}, "most_steps must be >= 1"),
    ],
)
def test_bad_settings_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        made(ForgedForgetting, options, {})


DECLARED = """
[data.digits]
train_rows = 200
[networks.logistic]
[recipes.short]
epochs = 2
[forget]
one = "random:0.01"
[audits.substitution]
use = "forged_forgetting"
epochs = [1, 2]
[audits.greedy]
use = "forged_forgetting"
forger = "greedy"
[audits.swap]
use = "forged_forgetting"
forger = {use = "swap", points = 50}
"""


def test_a_file_names_forgers(tmp_path):
    path = tmp_path / "study.toml"
    path.write_text(DECLARED)
    audits = read_study(path).study.audits
    assert audits["substitution"] == ForgedForgetting(epochs=(1, 2))
    assert audits["greedy"].forger == GreedyForger()
    assert audits["swap"].forger.points == 50
    for old, new, message in (
        ('"greedy"', '"greedi"', "audits.greedy.forger: unknown forger 'greedi'.*mean greedy"),
        ("points = 50", "pointz = 50", "audits.swap.forger has the unknown field 'pointz'"),
        ('use = "swap", ', "", "audits.swap.forger needs use, the name of a forger"),
    ):
        path.write_text(DECLARED.replace(old, new))
        with pytest.raises(StudyFileError, match=message):
            read_study(path)
