"""Studies where only a part of the poisons is identified, and attacks that had no effect."""

import dataclasses

import jax
import numpy as np
import pytest
from tiny_study import KEY, RECIPE, draw, network

from unlearnkit.base import Cost, Dataset, Task, Unlearned, UnlearnInfo
from unlearnkit.poisoning import Budget, GradientCanceling, LabelFlip, SameNormControl
from unlearnkit.records import Record, record_from_dict, record_to_dict, row_name
from unlearnkit.reporting import (
    by_identified,
    identified_rows,
    identified_shares,
    rates_told,
    retain_losses,
)
from unlearnkit.studies import (
    CONTROL,
    ORIGINAL,
    RETRAIN,
    Pair,
    Study,
    StudyFileError,
    check,
    count_records,
    parse_study,
    partial_task,
    poison_and_unlearn,
    run,
    search_rates,
    significance,
)
from unlearnkit.studies.tuning import best_factor
from unlearnkit.training import DivergedError
from unlearnkit.unlearning import FineTune, GradientAscent, Retrain, Scrub

FLIP = LabelFlip(budget=Budget(0.2), placement="perturb")
CLEAN = Pair(draw(0, 120), draw(1, 80))
SHARES = (0.25, 0.5, 1.0)


@dataclasses.dataclass(frozen=True)
class Looks:
    """Changes nothing, and keeps the task in `SEEN`."""

    epochs: int = 1

    def __call__(self, key, model, variables, task, *, on_epoch=None) -> Unlearned:
        SEEN.append(task)
        return Unlearned(variables, UnlearnInfo({}, Cost(1.0, 0.0)))


SEEN: list[Task] = []
NETWORKS: dict[float, int] = {}


@dataclasses.dataclass(frozen=True)
class Fragile(Looks):
    """Diverges on the second network that it meets, but at a small rate."""

    learning_rate: float = 1.0

    def __call__(self, key, model, variables, task, *, on_epoch=None) -> Unlearned:
        weight = float(jax.tree.leaves(variables.params)[-1].ravel()[0])
        place = NETWORKS.setdefault(weight, len(NETWORKS))
        if self.learning_rate > 0.1 and place == 1:
            raise DivergedError("lost")
        return super().__call__(key, model, variables, task, on_epoch=on_epoch)


def study(**options):
    settings = {
        "data": CLEAN, "networks": network(), "recipes": RECIPE, "attacks": {"flip": FLIP},
        "methods": {"looks": Looks()}, "identified": SHARES,
    }  # fmt: skip
    return Study(**(settings | options))


@pytest.fixture(scope="module")
def records():
    SEEN.clear()
    # Long enough for a network to learn labels that are wrong.
    recipe = dataclasses.replace(RECIPE, epochs=40)
    return list(run(study(seeds=2, recipes=recipe), KEY)), list(SEEN)


def test_what_is_not_identified_is_retained():
    parts = [draw(seed, n) for seed, n in enumerate((30, 10, 5, 5))]
    task, key = Task(*parts), jax.random.key(3)
    few, most = (partial_task(key, task, share) for share in (0.2, 0.7))
    assert (few.forget.size, few.retain.size) == (2, 38)
    assert (most.forget.size, most.retain.size) == (7, 33)

    def rows(dataset):
        return {row.tobytes() for row in np.asarray(dataset.x)}

    assert rows(few.forget) < rows(most.forget) < rows(task.forget)
    for part in (few, most):
        assert rows(part.retain) | rows(part.forget) == rows(task.train)
    np.testing.assert_array_equal(few.retain.x[:30], task.retain.x)
    assert partial_task(key, task, 1.0) is task
    for share in (0.0, 1.1):
        with pytest.raises(ValueError, match=r"share must be in \(0, 1\]"):
            partial_task(key, task, share)
    with pytest.raises(ValueError, match=r"share=0.01 of 10 poisons is none"):
        partial_task(key, task, 0.01)


def test_methods_are_told_of_each_share(records):
    found, seen = records
    assert [task.forget.size for task in seen] == [6, 12, 24] * 2
    assert {task.train.size for task in seen} == {120}
    rows = [(ORIGINAL, 1.0), (RETRAIN, 1.0), (RETRAIN, 0.25), (RETRAIN, 0.5)]
    rows += [("looks", share) for share in SHARES]
    assert [(r.method, r.identified) for r in found] == rows * 2
    assert len(found) == count_records(study(seeds=2))


def test_retraining_without_more_of_the_poisons_says_fewer_of_them(records):
    """Accuracies are on all poisons, whatever was identified."""
    found, _ = records
    left = by_identified(found, "accuracy_forget", question="flip")
    assert identified_shares(found) == list(SHARES)
    assert list(left) == [RETRAIN, "looks"]
    assert left[RETRAIN][0] > left[RETRAIN][2]
    untouched = np.mean([r.metrics["accuracy_forget"] for r in found if r.method == ORIGINAL])
    np.testing.assert_allclose(left["looks"], untouched)


def test_whole_shares_leave_the_bits_of_a_study_as_they_were(records):
    recipe = dataclasses.replace(RECIPE, epochs=40)
    methods = {"a": FineTune(batch_size=20)}
    plain = run(study(seeds=2, identified=(1.0,), recipes=recipe, methods=methods), KEY)
    found, _ = records
    for record in plain:
        if record.method in (ORIGINAL, RETRAIN):
            (same,) = [
                r for r in found
                if (r.method, r.seed, r.identified) == (record.method, record.seed, 1.0)
            ]  # fmt: skip
            assert same.metrics == record.metrics


def test_records_say_how_much_was_identified():
    record = Record("scrub", 0, {"m": 1.0}, Cost(0.0, 0.0), question="flip", identified=0.25)
    assert row_name(record) == "flip: scrub, 25 % identified"
    assert record_from_dict(record_to_dict(record)) == record
    others = [
        record._replace(method=ORIGINAL, identified=1.0, metrics={"m": 2.0}),
        record._replace(identified=1.0),
    ]
    cells = significance([record, *others], "m")
    assert [cell.method for cell in cells] == ["scrub, 25 % identified", "scrub"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"identified": ()}, r"identified must be shares of the poisons in \(0, 1\], got \(\)"),
        ({"identified": (0.0, 1.0)}, "of nothing there is nothing to forget"),
        ({"identified": (1.5,)}, "got"),
        ({"identified": (0.5, 0.5)}, "identified has a share twice"),
    ],
)
def test_refuses(options, message):
    with pytest.raises(ValueError, match=message):
        study(**options)


def test_refuses_shares_without_poisons_before_training():
    with pytest.raises(ValueError, match=r"identified=0.01 of the 24 poisons of flip is none"):
        check(study(identified=(0.01, 1.0)), KEY)


TEXT = """
identified = [0.5, 1.0]
[data.digits]
train_rows = 60
[networks.logistic]
[recipes.plain]
[attacks.gradient_canceling]
[attacks.random]
use = "gradient_canceling"
control = true
"""


def test_a_file_says_what_is_identified_and_which_attack_is_a_control():
    declared = parse_study(TEXT).study
    assert declared.identified == (0.5, 1.0)
    assert declared.named.attacks["random"] == SameNormControl(GradientCanceling())
    assert declared.named.attacks["gradient_canceling"] == GradientCanceling()
    for old, new, message in (
        ("[0.5, 1.0]", "0.5", "identified must be a list of numbers"),
        ("control = true", "control = 1", "control must be true or false"),
    ):
        with pytest.raises(StudyFileError, match=message):
            parse_study(TEXT.replace(old, new))


@dataclasses.dataclass(frozen=True)
class Repeats:
    """Adds clean examples as its poisons: they have no effect."""

    def __call__(self, key, model, variables, task):
        poisoned = FLIP(key, model, variables, task)
        return poisoned._replace(dataset=task.train)


def test_an_attack_without_effect_is_flagged_and_decides_nothing(records):
    # Of equal bits, the victim is the clean network.
    idle = list(run(study(attacks={"idle": Repeats()}, seeds=2, paired=True), KEY))
    assert all("points below" in record.no_effect for record in idle if record.finished)
    (cell,) = [c for c in significance(idle, "accuracy_test") if c.method == "looks"]
    assert cell.verdict == "no result"
    assert "2 on which the attack had no effect on its own victim" in cell.words
    wild = LabelFlip(budget=Budget(0.8), placement="perturb")
    for record in run(study(attacks={"wild": wild}), KEY):
        assert record.no_effect is None


def test_controls_share_keys_and_have_no_methods():
    attack = GradientCanceling(budget=Budget(0.2), steps=3)
    made = {}
    found = list(
        poison_and_unlearn(
            KEY, network(), *CLEAN[:2], attacks={"a": attack}, recipe=RECIPE,
            methods={"looks": Looks()}, budgets=(0.5,), paired=True, controls=True,
            on_poisoned=lambda name, seed, poisoned: made.update({name: poisoned}),
        )
    )  # fmt: skip
    rows = [(r.question, r.method) for r in found]
    assert rows == [
        ("a", ORIGINAL), ("a", RETRAIN), ("a", "looks"),
        (f"a{CONTROL}", ORIGINAL), (f"a{CONTROL}", RETRAIN),
    ]  # fmt: skip
    one, other = made.values()
    np.testing.assert_array_equal(one.info.base, other.info.base)
    sizes = [
        np.linalg.norm(np.asarray(p.dataset.x[120:] - CLEAN.train.x[p.info.base]).reshape(24, -1),
                       axis=1)
        for p in made.values()
    ]  # fmt: skip
    np.testing.assert_allclose(*sizes, rtol=1e-4)


def test_a_batch_larger_than_what_is_identified_becomes_it():
    """24 poisons of 120 examples: a quarter are 6, half 12."""
    methods = {
        "ascent": GradientAscent(epochs=1, batch_size=10, learning_rate=1e-3),
        "scrub": Scrub(epochs=1, batch_size=20, forget_batch_size=16, learning_rate=1e-3),
        "tuned": FineTune(epochs=1, batch_size=20, learning_rate=1e-3),
    }
    found = run(study(methods=methods), KEY)
    adapted = {(r.method, r.identified): dict(r.adapted) for r in found}
    assert all(said == {} for (_, share), said in adapted.items() if share == 1)
    for share, poisons in ((0.25, 6), (0.5, 12)):
        smaller = {"batch_size": poisons} if poisons < 10 else {}
        assert adapted["ascent", share] == smaller
        assert adapted["scrub", share] == {"forget_batch_size": poisons}
        assert adapted["tuned", share] == {}
    whole = study(methods={"ascent": GradientAscent(batch_size=30)}, identified=(1.0,))
    (refused,) = (r for r in run(whole, KEY) if r.method == "ascent")
    assert "batch_size=30 is larger than the data (24 examples)" in refused.failed


class TestRates:
    def search(self, **options):
        settings = {
            "attacks": {"flip": FLIP}, "recipe": RECIPE, "budgets": (0.5,),
            "factors": (1e-6, 1.0, 1e6),
            "methods": {
                "tuned": FineTune(batch_size=20, learning_rate=0.3), "fixed": Retrain(RECIPE),
            },
        }  # fmt: skip
        return search_rates(KEY, network(), *CLEAN[:2], **(settings | options))

    def test_the_rate_that_helps_is_taken(self):
        """A tiny rate leaves the flipped labels, a huge one ruins the network."""
        found = self.search()
        assert found.methods["tuned"] == FineTune(batch_size=20, learning_rate=0.3)
        assert found.methods["fixed"] == Retrain(RECIPE)
        scores = found.scores["tuned"]
        assert list(found.scores) == ["tuned"]
        assert scores[1.0] > scores[1e-6]
        assert scores[1.0] > scores[1e6]

    def test_what_is_left_of_the_poisons_counts_against_a_rate(self):
        plain, judged = self.search(), self.search(effect="accuracy_forget")
        for factor, score in judged.scores["tuned"].items():
            assert score <= plain.scores["tuned"][factor]
        assert judged.scores["tuned"][1e-6] < plain.scores["tuned"][1e-6] - 0.3

    def made(self, monkeypatch, kept, **options):
        """Returns the factor that is chosen where studies have made the retain accuracies `kept`.

        By the attack, the share of identified poisons and the budget, then by the factor; a larger
        factor is better on the test set where rates are judged, and worse elsewhere. The poisoned
        networks' retain accuracy is .9.
        """

        def studied(*args, attacks, methods, budgets, identified, seeds, **_):
            for question in attacks:
                yield Record(
                    ORIGINAL, 0, {"accuracy_retain": 0.9}, Cost(1.0, 0.0), question=question
                )
            for (question, share, budget), by_factor in kept.items():
                for name in methods:
                    factor = float(name.rpartition(" ")[2])
                    test = factor / 100 if (share, budget) == (1.0, 0.5) else 1 / factor
                    metrics = {"accuracy_retain": by_factor[factor], "accuracy_test": test}
                    yield Record(
                        name, 0, metrics, Cost(1.0, 0.0), question=question, budget=budget,
                        identified=share,
                    )  # fmt: skip

        monkeypatch.setattr("unlearnkit.studies.tuning.poison_and_unlearn", studied)
        given = {
            "methods": {"tuned": FineTune(learning_rate=0.3)}, "factors": (1.0, 3.0, 9.0),
            "attacks": dict.fromkeys(dict.fromkeys(name for name, *_ in kept), FLIP),
            "budgets": (0.1, 0.5), "identified": (0.5, 1.0), "tolerance": 0.05,
        }  # fmt: skip
        found = self.search(**(given | options))
        return {n: round(m.learning_rate / 0.3, 3) for n, m in found.methods.items()}, found

    def test_a_rate_that_ruins_what_is_retained_is_not_taken(self, monkeypatch):
        everywhere = [(name, share, b) for name in "ab" for share in (0.5, 1.0) for b in (0.1, 0.5)]
        good = dict.fromkeys((1.0, 3.0, 9.0), 0.88)
        kept = dict.fromkeys(everywhere, good)
        rates, found = self.made(monkeypatch, kept)
        assert rates == {"tuned": 3.0}, "the largest one has no larger one that would be safe"
        assert found.losses == {"tuned": pytest.approx(dict.fromkeys((1.0, 3.0, 9.0), 0.02))}
        assert found.scores == {"tuned": pytest.approx({1.0: 0.01, 3.0: 0.03, 9.0: 0.09})}
        assert self.made(monkeypatch, kept, tolerance=1.0)[0] == {"tuned": 9.0}
        for place in everywhere:
            for ruin, taken in ((9.0, {"tuned": 1.0}), (3.0, {}), (1.0, {"tuned": 3.0})):
                harmed = kept | {place: good | {ruin: 0.5}}
                rates, found = self.made(monkeypatch, harmed)
                assert rates == taken
                assert found.losses["tuned"][ruin] == pytest.approx(0.4)
        assert found.unmet == {}
        assert found.factors == {"tuned": 3.0}
        one = {key: good | {1.0: 0.5} for key in everywhere}
        rates, found = self.made(monkeypatch, one, factors=(1.0,))
        assert rates == {}
        assert found.factors == {}
        assert found.unmet == {
            "tuned": "none of 1 rates keeps, together with the next larger one, the retain "
            "accuracy of every network within 0.05; the mildest loses 0.400 of one"
        }

    def test_a_rate_that_diverges_on_one_network_is_not_taken(self):
        found = self.search(seeds=2, methods={"tuned": Fragile(learning_rate=1.0)})
        assert found.methods["tuned"].learning_rate == 1e-6
        assert found.scores["tuned"][1.0] == -np.inf
        assert len(NETWORKS) == 2

    def test_of_equal_rates_the_largest_is_taken(self):
        harmless = dict.fromkeys((0.01, 0.1, 1.0, 3.0), 0.0)
        assert best_factor(dict.fromkeys(harmless, 0.5), harmless, 0.05) == 1.0
        assert best_factor(dict.fromkeys(harmless, 0.5) | {0.1: 0.6}, harmless, 0.05) == 0.1

    def test_refuses(self):
        for factors in ((), (0.0,), (-1.0, 1.0)):
            with pytest.raises(ValueError, match="factors must be positive"):
                self.search(factors=factors)
        with pytest.raises(ValueError, match=r"tolerance must be in \[0, 1\]"):
            self.search(tolerance=2.0)
        with pytest.raises(ValueError, match="add 1.0"):
            self.search(identified=(0.5,))


def row(method, retain, budget=0.1, **more):
    metrics = {"accuracy_retain": retain, "accuracy_test": retain}
    return Record(method, 0, metrics, Cost(1.0, 0.0), question="flip", budget=budget, **more)


def test_what_loses_more_than_is_tolerated_is_found():
    records = [row(ORIGINAL, 0.9, None), row("mild", 0.86), row("mild", 0.88), row("harsh", 0.7)]
    records += [row("lost", 0.0)._replace(metrics={}), row("other", 0.1)._replace(question="else")]
    records += [row("wild", 0.9), row("wild", 0.9)._replace(metrics={}, diverged="nan")]
    (found, loss), (wild, half), *others = retain_losses(records, 0.05)
    assert (wild.method, half) == ("wild", pytest.approx(0.45))
    assert (found.method, others) == ("harsh", [])
    assert loss == pytest.approx(0.2)
    assert [one.method for one, _ in retain_losses(records, 0.01)] == ["mild", "harsh", "wild"]


def test_a_missing_point_of_a_curve_says_why():
    records = [
        row("one", 0.5, identified=0.5), row("one", 0.7),
        row("two", 0.5, identified=0.5)._replace(metrics={}, over_budget="dear"), row("two", 0.7),
    ]  # fmt: skip
    found = identified_rows(records, "accuracy_test", question="flip", budget=0.1)
    assert found == [["one", "0.500", "0.700"], ["two", "over budget", "0.700"]]


def test_only_some_classes():
    from unlearnkit.data import keep_classes

    data = Dataset(np.arange(6.0)[:, None], np.array([0, 1, 2, 3, 1, 0]))
    few = keep_classes(Dataset(*map(jax.numpy.asarray, data[:2])), (3, 1))
    np.testing.assert_array_equal(few.x[:, 0], [1, 3, 4])
    np.testing.assert_array_equal(few.y, [1, 0, 1])
    for classes in ((1,), (1, 1), (1, 7)):
        with pytest.raises(ValueError, match="two or more different ones"):
            keep_classes(few, classes)


def test_how_rates_were_chosen_is_told_in_words():
    losses = {"one": {"0.1": 0.0, "1": 0.012, "3": 0.02}, "two": {"0.1": 0.0, "1": 0.4, "3": 0.9}}
    told = rates_told({"one": 1.0}, losses, tolerance=0.03, seeds=2)
    assert told.endswith(
        "on 2 networks of their own for each share of poisons, of those where this factor and the "
        "next larger one lose at most 3 points of retain accuracy on every one of them: one 1 "
        "(loses 1.2), two none."
    )
