import dataclasses
import importlib
import threading

import jax
import numpy as np
import pytest

from unlearnkit import data, models
from unlearnkit.auditing import MembershipInference, audit_reference
from unlearnkit.base import Cost, Unlearned, UnlearnInfo
from unlearnkit.studies import compare
from unlearnkit.training import DivergedError, Recipe
from unlearnkit.unlearning import FineTune, GradientAscent, Retrain

RECIPE = Recipe(epochs=3, batch_size=32, learning_rate=0.05)
ATTACKS = [MembershipInference()]


@dataclasses.dataclass(frozen=True)
class Explodes:
    """Diverges on every call."""

    def __call__(self, key, model, variables, task, *, on_epoch=None) -> Unlearned:
        raise DivergedError("training diverged in epoch 1: loss nan")


@pytest.fixture(scope="module")
def digits():
    train, test = (data.load("digits", split=split) for split in ("train", "test"))
    return train, test


@pytest.fixture(scope="module")
def model():
    return models.create("mlp", input_shape=(8, 8, 1), n_classes=10, hidden=(32,))


def run(model, digits, methods, **options):
    settings = {
        "forget": data.RandomForget(fraction=0.2),
        "recipe": RECIPE,
        "methods": methods,
        "seeds": 2,
        "attacks": ATTACKS,
    }
    return list(compare(jax.random.key(0), model, *digits, **{**settings, **options}))


def test_judges_every_method_on_every_seed(model, digits):
    stages = []
    methods = {"retrain": Retrain(RECIPE), "fine_tune": FineTune(epochs=1, batch_size=32)}
    records = run(model, digits, methods, on_stage=lambda *stage: stages.append(stage))
    assert [(r.method, r.seed) for r in records] == [
        (name, seed) for seed in range(2) for name in ("original", *methods)
    ]
    for record in records:
        assert all(np.isfinite(value) for value in record.metrics.values())
        assert record.curves["loss_forget"].shape == (180,)
    assert records[0].cost.example_gradients == 0
    assert records[1].cost.example_gradients == 3 * (719 // 32) * 32
    names = {stage[0] for stage in stages}
    assert {"training the originals (2 seeds)", "retrain, seed 2 of 2"} <= names
    assert ("fine_tune, seed 1 of 2", 1, 1) in stages


def test_the_key_decides_everything_and_seeds_differ(model, digits):
    methods = {"gradient_ascent": GradientAscent(epochs=1, batch_size=32)}
    first, second = run(model, digits, methods), run(model, digits, methods)
    assert [r.metrics for r in first] == [r.metrics for r in second]
    assert first[0].metrics != first[2].metrics


def test_a_method_s_result_does_not_depend_on_its_company(model, digits):
    ascent = GradientAscent(epochs=1, batch_size=32)
    alone = run(model, digits, {"ascent": ascent})
    together = run(model, digits, {"ascent": ascent, "tune": FineTune(epochs=1, batch_size=32)})
    assert alone[1].metrics == together[1].metrics


def test_the_reference_is_not_the_retrained_row(model, digits):
    records = run(model, digits, {"retrain": Retrain(RECIPE)}, seeds=1)
    assert records[1].metrics["activation_distance_forget"] > 0


def test_divergence_is_a_row_and_the_study_goes_on(model, digits):
    methods = {"explodes": Explodes(), "fine_tune": FineTune(epochs=1, batch_size=32)}
    records = run(model, digits, methods, seeds=1)
    assert records[1].diverged is not None
    assert "loss nan" in records[1].diverged
    assert records[1].metrics == {}
    assert records[2].diverged is None


@dataclasses.dataclass(frozen=True)
class GivesNan:
    """Returns weights whose outputs are not finite."""

    def __call__(self, key, model, variables, task, *, on_epoch=None) -> Unlearned:
        broken = jax.tree.map(lambda w: w * np.nan, variables)
        return Unlearned(broken, UnlearnInfo({}, Cost(0.0, 0.0)))


@dataclasses.dataclass(frozen=True)
class Asks:
    """Does nothing, and asks how the original was trained."""

    train_like: Recipe | None = None

    def __call__(self, key, model, variables, task, *, on_epoch=None) -> Unlearned:
        return Unlearned(variables, UnlearnInfo({}, Cost(float(self.train_like.epochs), 0.0)))


def test_methods_are_told_how_the_original_was_trained_unless_told_otherwise(model, digits):
    methods = {"told": Asks(), "otherwise": Asks(Recipe())}
    records = {r.method: r for r in run(model, digits, methods, seeds=1)}
    assert records["told"].cost.example_gradients == RECIPE.epochs
    assert records["otherwise"].cost.example_gradients == Recipe().epochs


def test_outputs_that_are_not_finite_are_a_divergence(model, digits):
    records = run(model, digits, {"nan": GivesNan()}, seeds=1)
    assert "not finite" in records[1].diverged


def test_the_reference_is_audited_once_a_seed(model, digits, monkeypatch):
    audited = []

    def spy(key, *arguments, **options):
        audited.append(key)
        return audit_reference(key, *arguments, **options)

    module = importlib.import_module("unlearnkit.auditing.evaluation")
    monkeypatch.setattr(module, "audit_reference", spy)
    ascent = GradientAscent(epochs=1, batch_size=32)
    run(model, digits, {"one": ascent, "two": ascent}, seeds=2)
    assert len(audited) == 2


def test_a_store_keeps_a_comparison(model, digits, tmp_path, monkeypatch):
    methods = {"fine_tune": FineTune(epochs=1, batch_size=32)}
    first = run(model, digits, methods, store=tmp_path)
    module = importlib.import_module("unlearnkit.studies.lanes")
    monkeypatch.setattr(module, "fit_many", pytest.fail)
    again = run(model, digits, methods, store=tmp_path)
    assert [r.metrics for r in again] == [r.metrics for r in first]


def test_nonsense_is_refused(model, digits):
    with pytest.raises(ValueError, match="seeds must be >= 1"):
        run(model, digits, {}, seeds=0)
    with pytest.raises(ValueError, match="have a meaning of their own in a study"):
        run(model, digits, {"original": Retrain(RECIPE)})
    other = models.create("mlp", input_shape=(9, 9, 1), n_classes=10)
    with pytest.raises(ValueError, match="has shape"):
        run(other, digits, {})
    few = models.create("mlp", input_shape=(8, 8, 1), n_classes=5)
    with pytest.raises(ValueError, match="labels of train must be < 5"):
        run(few, digits, {})


@dataclasses.dataclass(frozen=True)
class Meets:
    """Changes nothing, and on its first call waits for the others to be called too."""

    barrier: threading.Barrier
    calls: list

    def __call__(self, key, model, variables, task, *, on_epoch=None) -> Unlearned:
        self.calls.append(threading.current_thread().name)
        if len(self.calls) == 1:
            self.barrier.wait(timeout=60)
        return Unlearned(variables, UnlearnInfo({}, Cost(0.0, 0.0)))


def test_methods_of_the_first_seed_run_side_by_side_where_asked(model, digits):
    barrier = threading.Barrier(2)
    first, second = (Meets(barrier, []) for _ in range(2))
    methods = {"first": first, "explodes": Explodes(), "second": second}
    records = run(model, digits, methods, compile_at_once=3)
    assert [(r.method, r.seed) for r in records] == [
        (name, seed) for seed in range(2) for name in ("original", *methods)
    ]
    main = threading.main_thread().name
    for method in (first, second):
        assert method.calls[0] != main
        assert method.calls[1:] == [main]
    in_turn = run(model, digits, {"fine_tune": FineTune(epochs=1, batch_size=32)})
    at_once = run(
        model, digits, {"fine_tune": FineTune(epochs=1, batch_size=32)}, compile_at_once=2
    )
    assert [r.metrics for r in in_turn] == [r.metrics for r in at_once]
    with pytest.raises(ValueError, match="compile_at_once must be >= 1"):
        run(model, digits, methods, compile_at_once=0)
