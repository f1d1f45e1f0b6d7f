"""All budgets of a method from one run."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from unlearnkit import models
from unlearnkit.base import Cost, Dataset, Task, Unlearned, UnlearnInfo
from unlearnkit.data import RandomForget
from unlearnkit.records import record_from_dict, record_to_dict
from unlearnkit.studies import Pair, Store, Study, run
from unlearnkit.studies.snapshots import is_prefix_stable, unlearn_for
from unlearnkit.training import DivergedError, Recipe
from unlearnkit.unlearning import UNLEARNERS, FineTune, L1Sparse, Retrain, Scrub

KEY = jax.random.key(3)
RECIPE = Recipe(epochs=10, batch_size=16, learning_rate=0.1, schedule="cosine")


def draw(seed, n):
    x = jax.random.uniform(jax.random.key(seed), (n, 6))
    return Dataset(x, jnp.argmax(x[:, :3], axis=-1).astype(jnp.int32))


@pytest.fixture(scope="module")
def model():
    return models.create("logistic", input_shape=(6,), n_classes=3)


@pytest.fixture(scope="module")
def problem(model):
    return model, model.init(KEY), Task(draw(0, 48), draw(1, 9), draw(2, 10), draw(3, 10))


@dataclasses.dataclass(frozen=True)
class Doubles:
    """Doubles the weights each epoch; diverges in that epoch."""

    epochs: int = 5
    diverges: int = 99
    runs: list = dataclasses.field(default_factory=list, compare=False, repr=False)
    prefix_stable: bool = True

    def __call__(
        self, key, model, variables, task, *, on_epoch=None, on_snapshot=None
    ) -> Unlearned:
        self.runs.append(self.epochs)
        for epoch in range(1, self.epochs + 1):
            if epoch == self.diverges:
                raise DivergedError(f"diverged in epoch {epoch}")
            variables = jax.tree.map(lambda w: 2 * w, variables)
            if on_epoch is not None:
                on_epoch(epoch, {"loss": float(epoch)})
            if on_snapshot is not None:
                on_snapshot(epoch, variables)
        history = {"loss": jnp.arange(1.0, self.epochs + 1)}
        cost = Cost(self.example_gradients(variables, task), 0.0)
        return Unlearned(variables, UnlearnInfo(history, cost, adapted={"batch_size": 3}))

    def example_gradients(self, variables, task) -> float:
        return 10.0 * self.epochs


def taken(method, problem, epochs, **options):
    return dict(unlearn_for(KEY, *problem, method, epochs, **options))


def test_one_run_serves_all_numbers_of_epochs(problem):
    method = Doubles()
    heard = []
    found = taken(method, problem, [4, 1, 2, 2], on_epoch=lambda epoch, _: heard.append(epoch))
    assert method.runs == [4]
    assert heard == [1, 2, 3, 4]
    assert sorted(found) == [1, 2, 4]
    for epochs, result in found.items():
        expected = jax.tree.map(lambda w, n=epochs: 2**n * w, problem[1])
        assert jax.tree.all(jax.tree.map(np.array_equal, result.variables, expected))
        np.testing.assert_array_equal(result.info.history["loss"], np.arange(1, epochs + 1))
        assert result.info.cost.example_gradients == 10 * epochs
        assert result.info.adapted == {"batch_size": 3}


def test_a_run_that_diverges_leaves_what_comes_before(problem):
    method = Doubles(diverges=3)
    found = taken(method, problem, [1, 2, 3, 5])
    assert method.runs == [5, 3, 2]
    assert [type(found[epochs]) for epochs in (1, 2, 3, 5)] == [
        Unlearned, Unlearned, DivergedError, DivergedError
    ]  # fmt: skip
    np.testing.assert_array_equal(found[2].info.history["loss"], [1, 2])


def test_which_methods_can():
    assert is_prefix_stable(FineTune())
    assert is_prefix_stable(FineTune(train_like=Recipe(augmentation="shift_flip")))
    assert not is_prefix_stable(FineTune(train_like=RECIPE))  # the rate falls over all epochs
    for shrinks in ({"schedule": "step", "milestones": (2,)}, {"warmup_epochs": 2.0}):
        assert not is_prefix_stable(FineTune(train_like=Recipe(**shrinks)))
        assert is_prefix_stable(Retrain(Recipe(**shrinks)))
        assert is_prefix_stable(Scrub(train_like=Recipe(**shrinks)))  # its schedule is its own
    assert not L1Sparse().prefix_stable  # so does the penalty
    assert not is_prefix_stable(L1Sparse())
    assert is_prefix_stable(Scrub())
    assert not is_prefix_stable(Scrub(rewind=True))  # keeps the best of all epochs
    assert is_prefix_stable(Retrain())
    assert not is_prefix_stable(Retrain(RECIPE))
    assert not is_prefix_stable(lambda key, model, variables, task, on_epoch=None: None)
    assert sum(is_prefix_stable(kind()) for kind in UNLEARNERS.values()) >= 12


def test_a_method_that_does_not_tell_of_snapshots_runs_for_each_budget():
    class Silent(FineTune):
        def __call__(self, key, model, variables, task, *, on_epoch=None) -> Unlearned:
            raise AssertionError

    assert not is_prefix_stable(Silent())


@pytest.fixture(scope="module")
def study(model):
    def make(**changes):
        settings = {
            "data": Pair(draw(0, 80), draw(1, 40)),
            "networks": model,
            "recipes": RECIPE,
            "forget": RandomForget(fraction=0.2),
            "budgets": (0.1, 0.3, 0.5),
        }
        return Study(**(settings | changes))

    return make


def test_a_study_reads_all_budgets_off_one_run_and_says_so(study):
    method = Doubles()
    methods = {"doubles": method, "fine_tune": FineTune(batch_size=16, train_like=RECIPE)}
    records = [r for r in run(study(methods=methods), KEY) if r.budget is not None]
    # A budget is a share of 10 x 64 gradients: 6, 19 and 32 epochs at 10.
    assert [r for r in method.runs if r > 2] == [32]
    costs = [r.cost.example_gradients for r in records if r.method == "doubles"]
    assert costs == [60, 190, 320]
    assert [r.one_run for r in records] == [True] * 3 + [False] * 3
    assert [record_from_dict(record_to_dict(r)).one_run for r in records[::3]] == [True, False]


def test_further_budgets_leave_the_others_as_they_are(study, tmp_path):
    methods = {"fine_tune": FineTune(batch_size=16, train_like=Recipe())}

    def metrics(budgets, store=None):
        records = run(study(methods=methods, budgets=budgets), KEY, store=store)
        return {r.budget: r.metrics for r in records if r.budget is not None}

    alone = metrics((0.3,))
    store = Store(tmp_path / "store")
    kept, more = metrics((0.1, 0.3), store), metrics((0.1, 0.3, 0.5), store)
    assert alone[0.3] == kept[0.3] == more[0.3]
    assert more == metrics((0.5, 0.3, 0.1))
    assert more[0.1] != more[0.3] != more[0.5]


def test_budgets_beyond_a_divergence_are_rows_that_say_so(study):
    records = list(run(study(methods={"doubles": Doubles(diverges=8)}), KEY))
    found = {r.budget: r.diverged for r in records if r.budget is not None}
    assert found[0.1] is None
    assert found[0.3] == found[0.5] == "diverged in epoch 8"
