"""Rules of choice on made-up measures, and `sweep` by them."""

import dataclasses
import math
import typing

import jax
import numpy as np
import pytest

from unlearnkit import data, models
from unlearnkit.base import Unlearned
from unlearnkit.studies import (
    RULES,
    AccuracyLessMia,
    Measured,
    RetrainLike,
    Rule,
    ToleranceError,
    choose,
    grid,
    sweep,
)
from unlearnkit.studies.rules import LOST, choose_on_networks, mean_of
from unlearnkit.training import Recipe, fit
from unlearnkit.unlearning import FineTune, GradientAscent

ORIGINAL = Measured(accuracy=0.7, mia_accuracy=0.6, accuracy_retain=0.99, ks_statistic=0.2)
RUINED = Measured(accuracy=0.45, mia_accuracy=0.28, accuracy_retain=0.5, ks_statistic=0.02)
GOOD = Measured(accuracy=0.69, mia_accuracy=0.52, accuracy_retain=0.98, ks_statistic=0.05)
WEAK = Measured(accuracy=0.70, mia_accuracy=0.59, accuracy_retain=0.99, ks_statistic=0.19)


def test_the_papers_rule_prefers_a_ruined_network_and_the_other_does_not():
    trials = [WEAK, RUINED, GOOD]
    assert choose("accuracy_less_mia", trials, original=ORIGINAL) == 1
    assert choose("retrain_like", trials, original=ORIGINAL) == 2


@pytest.mark.parametrize("lost", ["accuracy", "accuracy_retain"])
def test_both_accuracies_have_to_stay(lost):
    less = GOOD._replace(**{lost: getattr(ORIGINAL, lost) - 0.03})
    assert choose("retrain_like", [WEAK, less], original=ORIGINAL) == 0
    assert choose(RetrainLike(0.05), [WEAK, less], original=ORIGINAL) == 1


def test_what_retrain_loses_too_is_no_loss_and_what_it_shows_is_the_goal():
    """A forgotten class that is in the validation set: MIA and KS are far from chance."""
    retrained = Measured(accuracy=0.63, mia_accuracy=0.98, accuracy_retain=0.99, ks_statistic=0.97)
    forgot = retrained._replace(mia_accuracy=0.95, ks_statistic=0.9)
    trials = [GOOD, forgot]
    assert choose("retrain_like", trials, original=ORIGINAL, reference=retrained) == 1
    assert choose("retrain_like", trials, original=ORIGINAL) == 0


def test_a_tolerance_that_no_setting_meets_is_an_error_that_says_so():
    told = r"none of 2 settings keeps a retain accuracy of 0.990 and a validation accuracy of 0.700"
    with pytest.raises(ToleranceError, match=told + r" within 0.02.*0.500 and 0.450.*larger tol"):
        choose("retrain_like", [RUINED, RUINED], original=ORIGINAL)
    with pytest.raises(ToleranceError):
        choose("retrain_like", [GOOD._replace(accuracy=math.nan)], original=ORIGINAL)


def test_a_setting_that_ruins_one_network_of_three_is_refused_though_its_average_is_kept():
    networks = [ORIGINAL, ORIGINAL._replace(accuracy_retain=0.90), ORIGINAL]
    ruins_one = [GOOD, GOOD, GOOD._replace(accuracy_retain=0.87)]
    tolerant = RetrainLike(0.1)
    assert mean_of(ruins_one).accuracy_retain > mean_of(networks).accuracy_retain - 0.1
    assert choose_on_networks(tolerant, [[WEAK] * 3, ruins_one], originals=networks) == 0
    spared = [ruins_one[i] for i in (0, 2, 1)]  # the second network had no more than that to keep
    assert choose_on_networks(tolerant, [[WEAK] * 3, spared], originals=networks) == 1
    with pytest.raises(ToleranceError, match=r"0.960 .* within 0.1 on each of 3 networks"):
        choose_on_networks(tolerant, [[GOOD, GOOD, LOST]], originals=networks)
    papers = [[WEAK] * 3, [GOOD, RUINED, LOST]]  # 0.11 and (0.17 + 0.17 - 1) / 3
    assert choose_on_networks("accuracy_less_mia", papers, originals=networks) == 0


def test_the_first_of_equals_is_taken_and_nonsense_is_refused(unchecked_types):
    assert choose("retrain_like", [WEAK, GOOD, GOOD], original=ORIGINAL) == 1
    assert all(isinstance(rule, Rule) for rule in RULES.values())
    assert AccuracyLessMia().score(RUINED, ORIGINAL, None) == pytest.approx(0.17)
    with pytest.raises(ValueError, match="at least one setting"):
        choose("retrain_like", [], original=ORIGINAL)
    with pytest.raises(ValueError, match="unknown rule 'best'; known: accuracy_less_mia"):
        choose("best", [GOOD], original=ORIGINAL)
    with pytest.raises(ValueError, match="tolerance must be >= 0, got -1"):
        RetrainLike(-1.0)


@pytest.fixture(scope="module")
def problem():
    model = models.create("mlp", input_shape=(8, 8, 1), n_classes=10, hidden=(16,))
    train, test = (data.load("digits", split=split) for split in ("train", "test"))
    train, test = train.take(np.arange(300)), test.take(np.arange(120))
    task = data.make_task(jax.random.key(0), train, test, data.RandomForget(fraction=0.2))
    recipe = Recipe(epochs=10, batch_size=32, learning_rate=0.05)
    return model, fit(jax.random.key(1), model, task.train, recipe).variables, task


def test_a_sweep_refuses_ruined_settings_and_reports_the_front(problem, unchecked_types):
    methods = grid(GradientAscent(epochs=2, batch_size=20), learning_rate=(1e-5, 0.3))
    found = sweep(jax.random.key(2), *problem, methods, rule="retrain_like", reference=problem[1])
    assert found.method == methods[0]
    assert found.original == found.reference
    mild, ruined = (trial.measured for trial in found.trials)
    assert mild.accuracy_retain > 0.9 > ruined.accuracy_retain + 0.3
    assert ruined.ks_statistic > 0
    with pytest.raises(ToleranceError, match="none of 1 settings"):
        sweep(jax.random.key(2), *problem, methods[1:], rule="retrain_like")
    with pytest.raises(ValueError, match="unknown rule"):
        sweep(jax.random.key(2), *problem, methods, rule="nearest")


@dataclasses.dataclass(frozen=True)
class Counted:
    """Fine-tuning that counts how often it is called; each run may be cut short."""

    epochs: int = 1
    calls: typing.ClassVar = []

    prefix_stable = True

    def example_gradients(self, variables, task):
        return float(self.epochs)

    def __call__(
        self, key, model, variables, task, *, on_epoch=None, on_snapshot=None
    ) -> Unlearned:
        self.calls.append(self.epochs)
        method = FineTune(epochs=self.epochs, batch_size=20, learning_rate=0.05)
        return method(key, model, variables, task, on_epoch=on_epoch, on_snapshot=on_snapshot)


def test_numbers_of_epochs_are_one_run_with_the_results_of_many(problem):
    Counted.calls.clear()
    together = sweep(jax.random.key(2), *problem, grid(Counted(), epochs=(3, 1, 2)))
    assert Counted.calls == [3]
    for trial in together.trials:
        assert sweep(jax.random.key(2), *problem, [trial.method]).trials == (trial,)
