"""Studies whose trainings begin from given weights or share keys; validation sets of their own.

A recipe without epochs shows where a training begins, and by which key.
"""

import dataclasses
import importlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_study import KEY, RECIPE, draw, network, study

from unlearnkit import models
from unlearnkit.auditing import FilterScore, Klom, Lira, PoisonSize, PoisonTransfer, RelearnTime
from unlearnkit.base import Audited, Cost, DefenceInfo, Defended, Unlearned, UnlearnInfo, Variables
from unlearnkit.data import ClassForget
from unlearnkit.defences import MaxUp
from unlearnkit.poisoning import Budget, GaussianPoison, LabelFlip, MinMax
from unlearnkit.studies import ORIGINAL, RETRAIN, Pair, StudyFileError, check, read_study, run
from unlearnkit.training import Recipe, fit, fit_many, save_variables, weight_path
from unlearnkit.unlearning import FineTune, Retrain
from unlearnkit.validation import InputWarning

UNTRAINED = Recipe(epochs=0, batch_size=20)
FLIP = LabelFlip(budget=Budget(0.2), placement="perturb")
CLEAN = Pair(draw(0, 120), draw(1, 80))


@pytest.fixture(scope="module")
def start():
    return network().init(jax.random.key(9))


def same(one, other):
    return all(
        np.array_equal(a, b)
        for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
    )


@dataclasses.dataclass(frozen=True, eq=False)
class Spy:
    """Remembers cases and subjects."""

    cases: list = dataclasses.field(default_factory=list)
    subjects: list = dataclasses.field(default_factory=list)

    def judge(self, key, case, subject):
        self.cases.append(case)
        self.subjects.append(subject)
        return Audited({"seen": 1.0})


@dataclasses.dataclass(frozen=True, eq=False)
class Asks:
    """A method that asks where training began."""

    told: list

    def __call__(self, key, model, variables, task, *, initial=None, on_epoch=None) -> Unlearned:
        self.told.append(initial)
        return Unlearned(variables, UnlearnInfo({"seen": np.ones(1)}, Cost(1.0, 0.0)))


def keep_all(key, model, variables, dataset):
    keep = jnp.ones(dataset.size, bool)
    return Defended(keep, jnp.zeros(dataset.size), DefenceInfo(Cost(0.0, 0.0)))


def spied(**changes):
    spy = Spy()
    records = list(run(study(audits={"": spy}, **changes), KEY, strict=True))
    return spy, records


def test_every_training_begins_from_the_start(start):
    told = []
    spy, _ = spied(
        start=start, recipes=UNTRAINED, seeds=1, attacks={"flip": FLIP},
        methods={"retrain": Retrain(), "asks": Asks(told)},
        defences={"all": keep_all, "max_up": MaxUp(copies=2)},
    )  # fmt: skip
    assert len(spy.subjects) == 4 + 4 + 3 + 3
    for case, subject in zip(spy.cases, spy.subjects, strict=True):
        weights = [case.start, case.original, case.reference.variables, subject.variables]
        assert all(same(one, start) for one in weights)
        assert case.clean is None or same(case.clean, start)
        assert subject.unlearner is None or not isinstance(subject.unlearner, Asks) or (
            subject.history["seen"] == 1
        )  # fmt: skip
    assert len(told) == 4
    assert all(same(one, start) for one in told)


def test_all_budgets_of_one_run_begin_from_the_start(start):
    """At a rate below what float32 tells from nothing a network stays where it began."""
    still = Recipe(epochs=2, batch_size=20, learning_rate=1e-30)
    methods = {"retrain": Retrain(), "tune": FineTune(epochs=1, batch_size=20)}
    spy, records = spied(start=start, recipes=still, seeds=1, methods=methods, budgets=(0.5, 1.0))
    assert [r.budget for r in records if r.method == "retrain"] == [0.5, 1.0]
    subjects = [s.variables for s in spy.subjects if isinstance(s.unlearner, Retrain)]
    assert len(subjects) == 2
    for one in subjects:
        for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(start), strict=True):
            np.testing.assert_allclose(a, b, rtol=0, atol=1e-20)


def test_without_a_start_each_begins_afresh_and_methods_are_told_nothing():
    told = []
    spy, _ = spied(recipes=UNTRAINED, seeds=1, methods={"asks": Asks(told)})
    case = spy.cases[0]
    assert case.start is None
    assert told == [None]
    assert not same(case.original, case.reference.variables)


def test_a_start_trains_as_fit_does_from_there(start):
    spy, _ = spied(start={"": start}, methods={}, seeds=1)
    case = spy.cases[0]
    again = fit(case.train_key, case.model, case.task.train, RECIPE, variables=start).variables
    assert same(case.original, again)
    many = fit_many(case.train_key[None], case.model, case.task.train, RECIPE, variables=start)
    assert same(jax.tree.map(lambda leaf: leaf[0], many.variables), again)
    path = weight_path(case.train_key, case.model, case.task.train, RECIPE, variables=start)
    assert same(jax.tree.map(lambda leaf: leaf[0], path), start.params)
    assert same(jax.tree.map(lambda leaf: leaf[-1], path), again.params)
    assert jax.tree.leaves(path)[0].shape[0] == 1 + RECIPE.epochs


def test_ensembles_begin_from_the_start_too(start):
    """Two ensembles without epochs from one start are one network: nothing tells them apart."""
    asked = study(
        start=start, recipes=UNTRAINED, seeds=1, methods={"retrain": Retrain()},
        audits={"": Klom(count=3)},
    )  # fmt: skip
    with pytest.warns(InputWarning, match="compared with itself"):
        assert {r.metrics["klom_mean"] for r in run(asked, KEY, strict=True)} == {0.0}


def test_shadows_begin_from_the_start_too(start, monkeypatch):
    lira, trained = importlib.import_module("unlearnkit.auditing.lira"), []
    train = lira.train_shadow_networks

    def spy(*arguments, **options):
        trained.append(train(*arguments, **options))
        return trained[-1]

    monkeypatch.setattr(lira, "train_shadow_networks", spy)
    asked = study(start=start, recipes=UNTRAINED, seeds=1, methods={}, audits={"": Lira(count=4)})
    list(run(asked, KEY))
    (networks,) = trained
    for shadow in range(4):
        assert same(jax.tree.map(lambda leaf, i=shadow: leaf[i], networks.variables), start)


def test_another_start_is_another_stage(start, tmp_path):
    other = network().init(jax.random.key(8))
    found = [
        [r.metrics for r in run(study(start=s, methods={}, seeds=1), KEY, store=tmp_path)]
        for s in (start, other, None, start)
    ]
    assert found[0] == found[3]
    assert found[0] != found[1]
    assert found[0] != found[2]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"start": Variables({"w": np.zeros(3)}, {})}, "start: variables do not fit the model"),
        ({"networks": {"a": network(), "b": network()}}, r"start must be given by the name .*'a'"),
        ({"start": {"b": None}}, "unknown network of start 'b'"),
        ({"reference": "best"}, "reference must be one of retrained, clean, none"),
    ],
)
def test_starts_that_make_no_sense_are_refused(start, changes, message, unchecked_types):
    with pytest.raises(ValueError, match=message):
        study(**{"start": start, **changes})


def test_a_defence_that_cannot_begin_there_is_refused(start):
    class Own:
        def fit(self, key, model, dataset, recipe):
            raise AssertionError

    attacked = study(attacks={"flip": FLIP}, defences={"own": Own()})
    check(attacked, KEY)
    with pytest.raises(ValueError, match=r"defences\['own'\] cannot begin from the study's start"):
        check(dataclasses.replace(attacked, start=start), KEY)


# Common random numbers.


def test_paired_trainings_share_a_key_and_so_differ_by_their_data_alone():
    spy, _ = spied(recipes=UNTRAINED, paired=True, methods={}, attacks={"flip": FLIP})
    for case in spy.cases:
        assert same(case.original, case.reference.variables)
        assert case.clean is None or same(case.clean, case.original)
    assert not same(spy.cases[0].original, spy.cases[2].original)  # of another seed


def test_paired_attacks_have_the_same_bits_under_any_name_and_in_any_place():
    options = {"forget": {}, "methods": {}, "seeds": 1, "paired": True, "audits": {}}
    flips = {"one": LabelFlip(budget=Budget(0.2)), "two": LabelFlip(budget=Budget(0.2))}
    both = list(run(study(attacks=flips, **options), KEY))
    alone = list(run(study(attacks={"two": flips["two"]}, **options), KEY))
    found = {(r.question, r.method): r.metrics for r in both}
    assert found["one", ORIGINAL] == found["two", ORIGINAL]
    assert found["two", ORIGINAL] == alone[0].metrics
    apart = list(run(study(attacks=flips, **{**options, "paired": False}), KEY))
    assert apart[0].metrics != apart[2].metrics


def test_the_clean_network_is_the_reference_of_attacks_on_everything():
    everything = GaussianPoison(budget=Budget(1.0), noise_std=0.1)
    options = {"forget": {}, "attacks": {"all": everything}, "methods": {}, "seeds": 1}
    (refused,) = run(study(**options), KEY)
    assert "there must be poisons and clean examples" in refused.failed
    spy, records = spied(reference="clean", **options)
    assert [r.method for r in records] == [ORIGINAL, RETRAIN]
    case = spy.cases[0]
    assert same(case.reference.variables, case.clean)
    assert not same(case.original, case.clean)
    assert case.task.retain.size == 0
    assert case.full_gradients == RECIPE.example_gradients(120)


# What is said of the poisons themselves.


def test_reports_on_poisons(recorded):
    metrics, left_out = recorded
    assert metrics["gaussian", "none", ORIGINAL]["size_poisons"] == 24
    assert 0 < metrics["gaussian", "none", ORIGINAL]["size_change"] <= 0.3
    assert "size_change" not in metrics["scratch", "none", ORIGINAL]
    whole, kept = (metrics["gaussian", name, ORIGINAL] for name in ("none", "all"))
    assert np.isnan(kept["filter_precision"])
    assert kept["filter_recall"] == 0
    assert "there is no filter" in left_out["gaussian", "none", ORIGINAL]["filter"]
    drop = whole["transfer_accuracy_clean_other"] - whole["transfer_accuracy_other"]
    assert whole["transfer_drop_other"] == drop
    assert "untouched network alone" in left_out["gaussian", "none", RETRAIN]["transfer"]
    assert "transfer_drop_other" not in kept


@pytest.fixture(scope="module")
def recorded():
    asked = study(
        forget={}, methods={}, seeds=1, paired=True, defences={"all": keep_all},
        attacks={
            "gaussian": GaussianPoison(budget=Budget(0.2), noise_std=0.1),
            "scratch": MinMax(budget=Budget(0.1), burn_in=2, batch_size=20),
        },
        audits={
            "size": PoisonSize(), "filter": FilterScore(),
            "transfer": PoisonTransfer({"other": network()}),
        },
    )  # fmt: skip
    records = list(run(asked, KEY, strict=True))
    return (
        {(r.question, r.defence, r.method): r.metrics for r in records},
        {(r.question, r.defence, r.method): r.left_out for r in records},
    )


def test_transfer_to_the_same_network_is_its_own_drop(recorded):
    """It trains by the key of the network that was attacked."""
    metrics = recorded[0]["gaussian", "none", ORIGINAL]
    assert metrics["transfer_drop_other"] == pytest.approx(metrics["accuracy_drop"], abs=1e-6)


def test_relearning_aims_at_the_original_s_own_loss(unchecked_types):
    audit = RelearnTime(samples=None, batch_size=20, cap=3)
    records = list(run(study(methods={}, seeds=1, audits={"": audit}), KEY, strict=True))
    assert records[0].metrics["relearn_time"] == 1
    with pytest.raises(ValueError, match="target_loss must be given outside of a study"):
        audit(KEY, network(), None, None)


# Validation sets.


def test_a_validation_set_of_its_own_leaves_the_test_set_whole():
    own = CLEAN._replace(validation=draw(2, 30))
    spy, _ = spied(data=own, methods={}, attacks={"flip": FLIP}, seeds=1)
    for case in spy.cases:
        np.testing.assert_array_equal(case.task.test.x, own.test.x)
        np.testing.assert_array_equal(case.task.validation.x, own.validation.x)
    halved, _ = spied(methods={}, seeds=1)
    assert same(spy.cases[0].task.retain, halved.cases[0].task.retain)


def test_a_class_that_is_forgotten_leaves_a_validation_set_too():
    own = CLEAN._replace(validation=draw(2, 30))
    spy, _ = spied(data=own, methods={}, forget={"c": ClassForget(1, in_test=False)}, seeds=1)
    assert 1 not in np.asarray(spy.cases[0].task.validation.y)
    assert 1 not in np.asarray(spy.cases[0].task.test.y)


def test_a_validation_set_of_other_data_is_refused():
    other = draw(2, 30)
    wrong = other._replace(x=other.x[:, :2])
    with pytest.raises(ValueError, match="an example of validation has shape"):
        check(study(data=CLEAN._replace(validation=wrong)), KEY)


# As a file.

TEXT = """
paired = true
reference = "clean"
[data.digits]
[networks.small]
use = "logistic"
start = "{start}"
[recipes.short]
[forget]
tenth = "random:0.1"
"""


def test_a_file_says_where_training_begins(tmp_path):
    model = models.create("logistic", input_shape=(8, 8, 1), n_classes=10)
    weights = model.init(KEY)
    save_variables(tmp_path / "w.safetensors", weights)
    file = tmp_path / "study.toml"
    file.write_text(TEXT.format(start=tmp_path / "w.safetensors"))
    found = read_study(file).study
    assert same(found.named.start["small"], weights)
    assert (found.paired, found.reference) == (True, "clean")
    file.write_text(TEXT.format(start=tmp_path / "gone.safetensors"))
    with pytest.raises(StudyFileError, match="networks.small.start: .*gone"):
        read_study(file)
    file.write_text("paired = 1\n" + TEXT.replace("paired = true", ""))
    with pytest.raises(StudyFileError, match="paired must be true or false, got 1"):
        read_study(file)
