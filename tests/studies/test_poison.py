import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from unlearnkit import models
from unlearnkit.base import Audited, Cost, Dataset, Poisoned, Unlearned, UnlearnInfo
from unlearnkit.poisoning import Budget, GaussianPoison, GradientMatching, LabelFlip
from unlearnkit.studies import ORIGINAL, RETRAIN, poison_and_unlearn, poisoned_task
from unlearnkit.training import DivergedError, Recipe
from unlearnkit.unlearning import FineTune, Retrain, Scrub

KEY = jax.random.key(0)
RECIPE = Recipe(epochs=10, batch_size=20, learning_rate=0.3)
BUDGETS = (0.05, 0.1, 0.35)
SHAPE = (4, 4, 1)


def draw(seed, n):
    """Images in [0, 1] whose class is the brightest of their rows."""
    x = jax.random.uniform(jax.random.key(seed), (n, *SHAPE))
    return Dataset(x, jnp.argmax(x[:, :3].mean((2, 3)), axis=-1).astype(jnp.int32))


FLIP = LabelFlip(budget=Budget(0.2), placement="perturb")
TRAIN, TEST = draw(0, 100), draw(1, 80)


@pytest.fixture(scope="module")
def model():
    return models.create("logistic", input_shape=SHAPE, n_classes=3)


@dataclasses.dataclass(frozen=True)
class Costs:
    """Gives back the network for a price that no number of epochs changes."""

    price: float

    def __call__(self, key, model, variables, task, *, on_epoch=None) -> Unlearned:
        return Unlearned(variables, UnlearnInfo({}, Cost(self.price, 0.0)))


class LossAudit:
    """Never called."""

    def __call__(self, key, model, variables, task) -> Audited:
        raise AssertionError


@dataclasses.dataclass(frozen=True)
class Asks:
    """Does nothing, and costs as many gradients as the original had epochs."""

    train_like: Recipe | None = None

    def __call__(self, key, model, variables, task, *, on_epoch=None) -> Unlearned:
        return Unlearned(variables, UnlearnInfo({}, Cost(float(self.train_like.epochs), 0.0)))


def test_methods_are_told_how_the_network_was_trained(model):
    record = run(model, methods={"asks": Asks()}, budgets=(0.5,))[-1]
    assert record.cost.example_gradients == RECIPE.epochs


@dataclasses.dataclass(frozen=True)
class Explodes:
    """Diverges in its third epoch."""

    epochs: int = 1

    def __call__(self, key, model, variables, task, *, on_epoch=None) -> Unlearned:
        if self.epochs > 2:
            raise DivergedError("loss nan")
        return Unlearned(variables, UnlearnInfo({}, Cost(100.0 * self.epochs, 0.0)))


def run(model, **options):
    settings = {
        "attacks": {"flip": FLIP},
        "recipe": RECIPE,
        "methods": {"fine_tune": FineTune(batch_size=20)},
        "budgets": BUDGETS,
    }
    return list(poison_and_unlearn(KEY, model, TRAIN, TEST, **(settings | options)))


@pytest.fixture(scope="module")
def records(model):
    attacks = {
        "flip": FLIP,
        "gaussian": GaussianPoison(budget=Budget(0.2), noise_std=0.3),
        "matching": GradientMatching(
            budget=Budget(0.05), steps=10, restarts=2, shift=0, flip=False
        ),
    }  # fmt: skip
    methods = {
        "fine_tune": FineTune(batch_size=20),
        "retrain": Retrain(RECIPE),
        "scrub": Scrub(batch_size=20),
    }
    return run(model, attacks=attacks, methods=methods, seeds=2)


def test_a_row_of_every_attack_seed_method_and_budget(records):
    rows = [(ORIGINAL, None), (RETRAIN, None)]
    rows += [(name, b) for name in ("fine_tune", "retrain", "scrub") for b in BUDGETS]
    expected = [
        (attack, method, budget, seed)
        for seed in range(2)
        for attack in ("flip", "gaussian", "matching")
        for method, budget in rows
    ]
    assert [(r.question, r.method, r.budget, r.seed) for r in records] == expected


def test_no_method_costs_more_than_its_budget(records):
    """Training anew is 10 epochs; 5 % of them is not one."""
    for record in records:
        if record.finished and record.budget is not None:
            assert record.metrics["compute"] <= record.budget * (1 + 1e-9)
    for name in ("fine_tune", "retrain"):
        of_method = [r for r in records if r.method == name and r.question == "gaussian"]
        for least, one, three in zip(*[iter(of_method)] * 3, strict=True):
            assert "one epoch costs 10 % of Retrain" in least.over_budget
            assert least.diverged is None
            assert not least.finished
            assert one.metrics["compute"] == pytest.approx(0.1)
            assert three.metrics["compute"] == pytest.approx(0.3)
    dear = [r for r in records if r.method == "scrub" and r.budget == 0.1]
    assert all(r.over_budget is not None for r in dear)  # it looks at the teacher first


def test_the_rows_without_a_method(records):
    for record in records:
        if record.method == ORIGINAL:
            assert record.cost.example_gradients == record.metrics["compute"] == 0
            assert record.metrics["shift_l1"] == record.metrics["shift_l2"] == 0
        if record.method == RETRAIN:
            assert record.metrics["compute"] == 1
            assert record.metrics["shift_l2"] > 0


def test_each_attack_is_measured_by_its_own_effects(records):
    own = {"gaussian": "gaussian_tpr_above", "matching": "targets_targeted_success"}
    for record in records:
        if not record.finished:
            continue
        metrics = record.metrics
        assert {name for name, metric in own.items() if metric in metrics} == (
            {record.question} & own.keys()
        )
        assert metrics["accuracy_drop"] == pytest.approx(
            metrics["accuracy_clean"] - metrics["accuracy_test"]
        )


def test_flipped_labels_are_learnt_and_unlearnt(records):
    """The network that saw the flipped labels says them more often than one that did not."""
    for seed in range(2):
        by_name = {r.method: r.metrics for r in records if (r.question, r.seed) == ("flip", seed)}
        poisoned, retrained = by_name[ORIGINAL], by_name[RETRAIN]
        assert poisoned["accuracy_forget"] > retrained["accuracy_forget"] + 0.05
        assert retrained["accuracy_test"] > poisoned["accuracy_test"]


def test_same_key_same_numbers(model, records):
    again = run(model, methods={"fine_tune": FineTune(batch_size=20)})
    twice = run(model, methods={"fine_tune": FineTune(batch_size=20)})
    assert [r.metrics for r in again] == [r.metrics for r in twice]
    first = [r.metrics for r in records if r.question == "flip" and r.seed == 0][:2]
    assert [r.metrics for r in again[:2]] == first  # whatever other rows there are


def test_a_method_without_epochs_stands_where_its_cost_is_covered(model):
    full = 10 * 80  # of training anew on the 80 that stay
    records = run(model, methods={"cheap": Costs(0.07 * full), "dear": Costs(0.5 * full)})
    found = {(r.method, r.budget): r.over_budget for r in records}
    assert found["cheap", 0.1] is None
    assert found["cheap", 0.35] is None
    assert "costs 7 % of Retrain, more than the budget of 5 %" in found["cheap", 0.05]
    assert all(found["dear", budget] is not None for budget in BUDGETS)


def test_divergence_is_a_row_and_not_the_end(model):
    """It costs 100 per epoch of the 800 that training anew takes, and diverges in the third."""
    methods = {"a": Explodes(), "b": FineTune(batch_size=20)}
    records = run(model, methods=methods, budgets=(0.25, 0.4))
    assert [(r.method, r.budget, r.diverged) for r in records[2:]] == [
        ("a", 0.25, None),
        ("a", 0.4, "loss nan"),
        ("b", 0.25, None),
        ("b", 0.4, None),
    ]


def test_a_network_that_cannot_be_audited_is_a_row_too(model):
    class Empties:
        def __call__(self, key, model, variables, task, *, on_epoch=None) -> Unlearned:
            empty = jax.tree.map(jnp.zeros_like, variables)
            return Unlearned(empty, UnlearnInfo({}, Cost(1.0, 0.0)))

    attacks = {"gaussian": GaussianPoison(budget=Budget(0.2))}
    records = run(model, attacks=attacks, methods={"empties": Empties()}, budgets=(0.5,))
    assert [record.finished for record in records] == [True, True, False]
    assert "no direction" in records[-1].diverged


def test_an_attack_that_diverges_is_a_row_too(model):
    @dataclasses.dataclass(frozen=True)
    class Diverges:
        def __call__(self, key, model, variables, task) -> Poisoned:
            raise DivergedError("the losses are nan")

    attacks = {"bad": Diverges(), "flip": FLIP}
    records = run(model, attacks=attacks, methods={})
    assert [(r.question, r.method, r.diverged) for r in records] == [
        ("bad", ORIGINAL, "the losses are nan"),
        ("flip", ORIGINAL, None),
        ("flip", RETRAIN, None),
    ]


def test_other_audits_join(model):
    def counts(key, model, variables, task):
        return Audited({"poisons": float(task.forget.size)}, {"row": np.arange(3)})

    record = run(model, methods={}, audits={"mine": counts})[0]
    assert record.metrics["mine_poisons"] == 20
    assert record.curves["mine_row"].shape == (3,)


def test_the_attacked_task_is_the_training_set_row_by_row(model):
    seen = []

    @dataclasses.dataclass(frozen=True)
    class Looks:
        def __call__(self, key, model, variables, task) -> Poisoned:
            seen.append(task)
            return FLIP(key, model, variables, task)

    made = []
    run(
        model,
        attacks={"looks": Looks()},
        methods={},
        on_poisoned=lambda name, seed, poisoned: made.append((name, seed, poisoned)),
    )
    ((name, seed, poisoned),) = made
    assert (name, seed, int(poisoned.is_poison.sum())) == ("looks", 0, 20)
    np.testing.assert_array_equal(seen[0].train.x, TRAIN.x)
    np.testing.assert_array_equal(seen[0].train.y, TRAIN.y)
    assert seen[0].validation.size == seen[0].test.size == 40


def test_a_store_keeps_poisons_and_networks(model, tmp_path, monkeypatch):
    first = run(model, store=tmp_path)
    monkeypatch.setattr("unlearnkit.studies.fitting.fit", pytest.fail)
    monkeypatch.setattr(LabelFlip, "__call__", pytest.fail)
    assert [r.metrics for r in run(model, store=tmp_path)] == [r.metrics for r in first]


def test_the_forget_set_is_the_poisons():
    data = Dataset(jnp.arange(5.0)[:, None], jnp.arange(5, dtype=jnp.int32))
    poisoned = Poisoned(data, jnp.array([False, True, False, True, False]), None)
    task = poisoned_task(poisoned, data, data)
    np.testing.assert_array_equal(task.forget.y, [1, 3])
    np.testing.assert_array_equal(task.retain.y, [0, 2, 4])
    for share, count in ((jnp.zeros(5, bool), 0), (jnp.ones(5, bool), 5)):
        with pytest.raises(ValueError, match=f"but {count} of 5 are poisons"):
            poisoned_task(Poisoned(data, share, None), data, data)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"budgets": (0.0,)}, r"budgets must be shares of Retrain in \(0, 1\], got \(0.0,\)"),
        ({"budgets": (1.5,)}, "got"),
        ({"seeds": 0}, "seeds must be >= 1"),
        ({"attacks": {}}, "give forget requests or attacks"),
        ({"methods": {ORIGINAL: FineTune()}}, "rename these methods"),
        ({"audits": {"gaussian": LossAudit()}}, "rename these audits"),
    ],
)
def test_refuses(model, options, message):
    with pytest.raises(ValueError, match=message):
        run(model, **options)
