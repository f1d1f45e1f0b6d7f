"""SG-Unlearn: what the auditor adds to a fine-tuning pass, and the whole against Retrain.

Run with `python -m benchmarks sg_unlearn`: a few minutes on two cores. `UNLEARNKIT_EXAMPLES` takes
fewer training examples, to see that it runs.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from benchmarks.epochs import Epoch, one_more_epoch
from benchmarks.frame import Row, Timing, compare
from benchmarks.training import DATA
from unlearnkit.auditing import MembershipInference, accuracy
from unlearnkit.base import Model, Task, Unlearned, Unlearner, Variables
from unlearnkit.data import RandomForget, load, make_task
from unlearnkit.models import create, from_functions
from unlearnkit.training import Recipe, fit, predict
from unlearnkit.unlearning import AUDITORS, FineTune, Retrain, StackelbergUnlearn
from unlearnkit.unlearning.stackelberg.auditing_set import Pool, make_pool
from unlearnkit.unlearning.stackelberg.game import Game, answer_auditor

EXAMPLES = int(os.environ.get("UNLEARNKIT_EXAMPLES", "60000"))
KEY = jax.random.key(0)
RECIPE = Recipe(epochs=12, batch_size=100, learning_rate=0.02)
CHUNK = 1000


class Problem(NamedTuple):
    """A network, trained, and what it is to forget."""

    model: Model
    variables: Variables
    task: Task


def run() -> list[Row]:
    problem = _problem(forget=EXAMPLES // 12)
    rows = _step_rows(problem)
    return [*rows, *_whole_rows(_problem(forget=EXAMPLES // 10))]


def _problem(*, forget: int) -> Problem:
    """Returns a trained LeNet; a test set of 10,000 leaves 5,000 to the auditor."""
    train, test = (load("mnist", split=split, data_dir=DATA) for split in ("train", "test"))
    train, test = train.take(jnp.arange(EXAMPLES)), test.take(jnp.arange(EXAMPLES // 6))
    task = make_task(KEY, train, test, RandomForget(count=forget))
    model = create("lenet", input_shape=(28, 28, 1), n_classes=10)
    return Problem(model, fit(KEY, model, task.train, RECIPE).variables, task)


def _step_rows(problem: Problem) -> list[Row]:
    """The answer to the auditor against the pass, turn by turn: whole, and without the network."""
    model, variables, task = problem
    passes = _pass(problem)
    pool, size, _ = make_pool(task, folds=3, same_classes=False, per_class=False)
    outputs = pool._replace(
        dataset=pool.dataset._replace(x=predict(model, variables, pool.dataset.x))
    )
    shift = from_functions(_no_shift, _shift, input_shape=(10,))
    calls: dict[str, Callable[[], Any]] = {"pass": passes}
    for name in AUDITORS:
        feature = "margin" if name == "quantile" else "loss"
        whole = _answer(model, variables, pool, size, name, feature)
        alone = _answer(shift, Variables(_no_shift(KEY)), outputs, size, name, feature)
        calls |= {f"{name}, whole": whole, f"{name}, alone": alone}
    calls["hinge on logits, alone"] = _answer(
        shift, Variables(_no_shift(KEY)), outputs, size, "hinge", "logits"
    )
    timings = compare(calls, repeats=5)
    base = timings.pop("pass")
    return [_step_row(name, timing, base, task, size) for name, timing in timings.items()]


def _step_row(name: str, timing: Timing, base: Timing, task: Task, size: int) -> Row:
    alone = name.endswith("alone")
    share = (size if size <= CHUNK else size * 4 / 3) / task.retain.size
    return Row(
        f"auditor's step / pass: {name}",
        f"LeNet, mnist, n {size:,}, retain {task.retain.size:,}",
        timing,
        "the fine-tuning pass of an epoch",
        base,
        value=timing.seconds / base.seconds,
        goal=0.1 if alone else None,
        lower_is_better=True,
        note="from logits to their gradient: features, folds, solves, derivative"
        if alone
        else f"with the network's passes, {share:.0%} of the pass in example-gradients",
    )


def _pass(problem: Problem) -> Epoch:
    """Returns a call that fine-tunes for one more epoch."""
    model, variables, task = problem
    return one_more_epoch(KEY, model, task.retain, RECIPE, variables)


def _answer(
    model: Model, variables: Variables, pool: Pool, size: int, name: str, feature: Any
) -> Callable[[], Any]:
    game = Game(AUDITORS[name], feature, "total", 3, size, CHUNK, n_strata=1, moves=True)
    weights = jnp.float32(1.0), jnp.float32(0.0)
    return lambda: _jitted(KEY, model, variables, pool, weights, 0.01, game=game)


@partial(jax.jit, static_argnames=("model", "game"))
def _jitted(
    key: Any, model: Model, variables: Variables, pool: Pool, weights: Any, rate: Any, *, game: Game
) -> Any:
    return answer_auditor(key, model, variables, pool, weights, rate, game=game)


def _no_shift(key: Any) -> Any:
    return {"shift": jnp.zeros(10)}


def _shift(params: Any, x: jax.Array) -> jax.Array:
    return x + params["shift"]


def _whole_rows(problem: Problem) -> list[Row]:
    """SG from start to end, against Retrain and beside FT."""
    methods: dict[str, Unlearner] = {
        "retrain": Retrain(RECIPE),
        "fine_tune": FineTune(epochs=1, batch_size=100, learning_rate=0.01),
        "stackelberg": StackelbergUnlearn(epochs=1, batch_size=100, learning_rate=0.01, alpha=54.0),
    }
    results: dict[str, Unlearned] = {}

    def call(name: str) -> Any:
        results[name] = methods[name](jax.random.key(1), *problem)
        return results[name].variables

    timings = compare({name: partial(call, name) for name in methods}, repeats=3)
    work = {name: result.info.cost.example_gradients for name, result in results.items()}
    quality = {name: _quality(problem, result.variables) for name, result in results.items()}
    size = (
        f"LeNet, mnist, {problem.task.train.size:,} examples, forget {problem.task.forget.size:,}"
    )
    shared: dict[str, Any] = {
        "peer_name": f"Retrain, {RECIPE.epochs} epochs",
        "peer": timings["retrain"],
        "lower_is_better": True,
        "accuracy": quality["stackelberg"],
        "peer_accuracy": quality["retrain"],
        "note": f"one epoch; fine-tuning as long: {quality['fine_tune']}",
    }
    seconds = {name: timing.seconds for name, timing in timings.items()}
    return [
        Row(
            "SG-Unlearn / Retrain, example-gradients",
            size,
            timings["stackelberg"],
            value=work["stackelberg"] / work["retrain"],
            goal=0.12,
            **shared,
        ),
        Row(
            "SG-Unlearn / Retrain, time",
            size,
            timings["stackelberg"],
            value=seconds["stackelberg"] / seconds["retrain"],
            goal=0.15,
            **shared,
        ),
    ]


def _quality(problem: Problem, variables: Variables) -> str:
    model, _, task = problem
    attack = MembershipInference("loss", "logistic")
    audited = attack(KEY, model, variables, task).metrics
    return f"test {accuracy(model, variables, task.test):.4f}, MIA {audited['accuracy']:.4f}"
