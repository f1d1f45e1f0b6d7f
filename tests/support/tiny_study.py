"""A study that takes seconds, for tests of the engine; also as a process that tests kill.

    python tiny_study.py FOLDER OUTPUT

runs it on a store in FOLDER and writes its table to OUTPUT.
"""

import dataclasses
import json
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from unlearnkit import models
from unlearnkit.auditing import Klom, MembershipInference, ThresholdAttack
from unlearnkit.base import Cost, Dataset, Unlearned, UnlearnInfo
from unlearnkit.data import RandomForget
from unlearnkit.poisoning import Budget, GaussianPoison, LabelFlip
from unlearnkit.records import record_to_dict
from unlearnkit.studies import Pair, Study, run
from unlearnkit.training import Recipe
from unlearnkit.unlearning import FineTune, GradientAscent

KEY = jax.random.key(0)
SHAPE = (4, 4, 1)
RECIPE = Recipe(epochs=4, batch_size=20, learning_rate=0.3)
CALLS: list[str] = []
"""What `Counted` methods and audits were asked for in this process."""


def draw(seed, n):
    """Images in [0, 1] whose class is the brightest of their rows."""
    x = jax.random.uniform(jax.random.key(seed), (n, *SHAPE))
    return Dataset(x, jnp.argmax(x[:, :3].mean((2, 3)), axis=-1).astype(jnp.int32))


def network():
    return models.create("logistic", input_shape=SHAPE, n_classes=3)


@dataclasses.dataclass(frozen=True)
class Counted:
    """Fine-tunes, and says that it was called."""

    name: str
    epochs: int = 1

    def __call__(self, key, model, variables, task, *, on_epoch=None) -> Unlearned:
        CALLS.append(self.name)
        method = FineTune(epochs=self.epochs, batch_size=20, learning_rate=0.1)
        return method(key, model, variables, task, on_epoch=on_epoch)


@dataclasses.dataclass(frozen=True)
class Fails:
    """Raises a mistake of its own."""

    def __call__(self, key, model, variables, task, *, on_epoch=None) -> Unlearned:
        raise RuntimeError("a mistake in the method")


@dataclasses.dataclass(frozen=True)
class Nothing:
    """Leaves the network as it is."""

    def __call__(self, key, model, variables, task, *, on_epoch=None) -> Unlearned:
        return Unlearned(variables, UnlearnInfo({}, Cost(1.0, 0.0)))


FLIP = LabelFlip(budget=Budget(0.2), placement="perturb")
METHODS = {
    "fine_tune": FineTune(epochs=2, batch_size=20, learning_rate=0.1),
    "ascent": GradientAscent(epochs=1, batch_size=10, learning_rate=0.05),
}


def study(**changes):
    """Returns a study of one request, two methods and two seeds, with some parts changed."""
    parts = {
        "data": Pair(draw(0, 120), draw(1, 80)),
        "networks": network(),
        "recipes": RECIPE,
        "forget": {"some": RandomForget(count=20)},
        "methods": METHODS,
        "audits": {"": ThresholdAttack()},
        "seeds": 2,
    }
    return Study(**{**parts, **changes})


def whole(**changes):
    """Returns a study with every kind of stage but defences, with some parts changed."""
    return study(
        attacks={
            "flip": LabelFlip(budget=Budget(0.2), placement="perturb"),
            "gaussian": GaussianPoison(budget=Budget(0.1)),
        },
        audits={"": MembershipInference(), "klom": Klom(count=3)},
        **changes,
    )


def table(records):
    """Returns the records as JSON in the order of their coordinates, without times."""
    said = []
    for record in records:
        line = record_to_dict(record)
        line["cost"] = line["cost"]["example_gradients"]
        line["curves"] = {n: np.asarray(v, np.float64).tolist() for n, v in record.curves.items()}
        said.append(json.dumps(line, sort_keys=True, default=dict))
    return sorted(said)


def by_cell(records):
    return {(r.dataset, r.network, r.recipe, r.question, r.defence, r.method, r.budget, r.seed): r
            for r in records}  # fmt: skip


def assert_same(some, others):
    """Asserts that all of `some` are among the others, with the same bits."""
    others = by_cell(others)
    for where, record in by_cell(some).items():
        assert dict(record.metrics) == dict(others[where].metrics), where
        assert record.cost.example_gradients == others[where].cost.example_gradients


def main(folder, output):
    started = time.perf_counter()
    found = table(run(whole(seeds=1), KEY, store=folder))
    seconds = time.perf_counter() - started
    Path(output).write_text(json.dumps({"seconds": seconds, "table": found}))


if __name__ == "__main__":
    main(*sys.argv[1:])
