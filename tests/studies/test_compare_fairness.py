"""What `compare` shows to whom: recorded datasets, and methods that remember what they were given.

Planted here are the ways in which a comparison flatters: references that saw the forget set,
methods that do not start from the network that they are compared with, audits on other folds.
"""

import dataclasses
import importlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from unlearnkit import models
from unlearnkit.auditing import MembershipInference
from unlearnkit.base import Cost, Dataset, Unlearned, UnlearnInfo, Variables
from unlearnkit.data import RandomForget
from unlearnkit.studies import compare
from unlearnkit.training import Recipe, fit_many
from unlearnkit.unlearning import Retrain

# Some spies answer with the reference itself.
pytestmark = pytest.mark.filterwarnings(
    "ignore:the reference answers as the audited network does:unlearnkit.validation.InputWarning"
)

RECIPE = Recipe(epochs=2, batch_size=20, learning_rate=0.1)
SEEDS = 2
SHAPE = (3, 3, 1)


@dataclasses.dataclass(frozen=True)
class Call:
    """What a method was given."""

    key: Any
    variables: Variables
    task: Any


class Spy:
    """Leaves the network as it is, or answers with `answer`, and remembers its calls."""

    def __init__(self, answer=None):
        self.answer, self.calls = answer, []

    def __call__(self, key, model, variables, task, *, on_epoch=None) -> Unlearned:
        self.calls.append(Call(key, jax.tree.map(np.array, variables), task))
        answer = variables if self.answer is None else self.answer(len(self.calls) - 1)
        return Unlearned(answer, UnlearnInfo({}, Cost(1.0, 0.0)))


def numbered(start, n):
    """Returns examples whose first entry is their own number."""
    x = jax.random.uniform(jax.random.key(start), (n, *SHAPE))
    x = x.at[:, 0, 0, 0].set((start + jnp.arange(n)) / 1000)
    return Dataset(x, jax.random.randint(jax.random.key(start + 1), (n,), 0, 3, jnp.int32))


def numbers(dataset):
    return {round(1000 * float(value)) for value in np.asarray(dataset.x)[:, 0, 0, 0]}


@dataclasses.dataclass(frozen=True)
class Study:
    """A comparison that ran: records, spies, and the trainings of originals and references."""

    records: list
    first: Spy
    second: Spy
    mirror: Spy
    trainings: list

    @property
    def originals(self):
        return self.trainings[0][1]

    @property
    def references(self):
        return self.trainings[1][1]


def seed_of(tree, seed):
    return jax.tree.map(lambda leaf: leaf[seed], tree)


@pytest.fixture(scope="module")
def study():
    model = models.create("mlp", input_shape=SHAPE, n_classes=3, hidden=(8,))
    train, test = numbered(0, 120), numbered(500, 80)
    runs = []

    def record(keys, model, dataset, recipe, *, subsets, **options):
        trained = fit_many(keys, model, dataset, recipe, subsets=subsets, **options)
        seen = [numbers(dataset.take(np.asarray(rows))) for rows in subsets]
        runs.extend((seen[i], seed_of(trained.variables, i), key) for i, key in enumerate(keys))
        return trained

    def doubled_reference(seed):
        """Returns the reference with twice its hidden values: other weights, the same outputs."""
        hidden, out = (path[0] for layer in model.layers for path in layer)
        params = runs[SEEDS + seed][1].params
        params = {name: dict(leaves) for name, leaves in params.items()}
        params[hidden] = jax.tree.map(lambda leaf: 2 * leaf, params[hidden])
        params[out]["kernel"] = params[out]["kernel"] / 2
        return Variables(params)

    spies = Spy(), Spy(), Spy(doubled_reference)
    with pytest.MonkeyPatch.context() as patch:
        module = importlib.import_module("unlearnkit.studies.lanes")
        patch.setattr(module, "fit_many", record)
        methods = dict(zip(("first", "second", "mirror"), spies, strict=True))
        records = list(
            compare(
                jax.random.key(0), model, train, test, forget=RandomForget(fraction=0.25),
                recipe=RECIPE, methods=methods | {"retrain": Retrain(RECIPE)}, seeds=SEEDS,
                attacks=[MembershipInference()],
            )
        )  # fmt: skip
    trainings = []
    for part in (runs[:SEEDS], runs[SEEDS:]):
        seen, networks, keys = zip(*part, strict=True)
        trainings.append((seen, jax.tree.map(lambda *each: jnp.stack(each), *networks), keys))
    return Study(records, *spies, trainings)


def test_the_references_do_not_see_the_forget_set(study):
    (originals, _, _), (references, _, _) = study.trainings
    for seed, call in enumerate(study.first.calls):
        forget, retain = numbers(call.task.forget), numbers(call.task.retain)
        assert len(forget) == 30
        assert not references[seed] & forget
        assert references[seed] == retain
        assert originals[seed] == retain | forget


def test_no_network_trains_on_what_the_audit_holds_out(study):
    for seed, call in enumerate(study.first.calls):
        held_out = numbers(call.task.test) | numbers(call.task.validation)
        for seen, _, _ in study.trainings:
            assert not seen[seed] & held_out
    assert numbers(study.first.calls[0].task.forget) != numbers(study.first.calls[1].task.forget)


def test_every_method_starts_from_the_original_and_has_the_same_question(study):
    for spy in (study.first, study.second, study.mirror):
        for seed, call in enumerate(spy.calls):
            original = seed_of(study.originals, seed)
            jax.tree.map(np.testing.assert_array_equal, call.variables, original)
            jax.tree.map(np.testing.assert_array_equal, call.task, study.first.calls[seed].task)


def test_method_and_reference_are_audited_on_the_same_folds(study):
    """A network that answers as the reference does, bit for bit, is at no distance from it."""
    assert len(study.mirror.calls) == SEEDS
    for record in study.records:
        if record.method == "mirror":
            assert record.metrics["average_gap"] == 0.0
            assert record.metrics["activation_distance_forget"] == 0.0
        if record.method == "retrain":
            assert record.metrics["average_gap"] > 0.0


def test_a_method_that_changes_nothing_has_the_original_s_figures(study):
    found = {(r.method, r.seed): dict(r.metrics) for r in study.records}
    for seed in range(SEEDS):
        assert found["first", seed] == found["second", seed] == found["original", seed]


def test_all_networks_and_methods_have_keys_of_their_own(study):
    keys = [key for _, _, many in study.trainings for key in many]
    keys += [call.key for spy in (study.first, study.second) for call in spy.calls]
    assert len({jax.random.key_data(key).tobytes() for key in keys}) == len(keys) == 4 * SEEDS
