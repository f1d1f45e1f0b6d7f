"""NTK scrubbing: memory, time against the dense form, and how far it scales.

Run with `python -m benchmarks ntk_scrub`: All-CNN of width 24 on CIFAR-10, fine-tuned with the
decay of Golatkar et al. 2020b (λ = 0.1 toward the start), L2 loss. `python -m benchmarks.ntk_scrub
--sizes 60000 --network lenet` scales one network alone, into a results file of its own; the
setting of Golatkar et al. 2020b, All-CNN of width 96, needs an accelerator: `--network allcnn
--sizes 500 5000 50000`. `--forms` compares the forms of the softmax scrub in place of that, into
`ntk_scrub_forms`: processor seconds of all threads, and example-gradients beside Retrain's.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks.frame import Row, Timing, markdown, write_json
from benchmarks.problems import DATA
from unlearnkit import models
from unlearnkit.base import Dataset, Model, Task, Unlearned, Variables
from unlearnkit.data import load
from unlearnkit.training import Recipe, fit
from unlearnkit.unlearning import NtkScrub
from unlearnkit.unlearning.ntk_scrub.products import size_of
from unlearnkit.unlearning.ntk_scrub.settings import LossName, choose_form
from unlearnkit.unlearning.ntk_scrub.solves import shift_by

KEY = jax.random.key(0)
METHOD = NtkScrub(
    loss="l2", form="matrix_free", weight_decay=0.1, noise=0.0, tol=1e-3, chunk=10, jacobian_chunk=4
)
FORGET = 0.05
DATASETS = {"allcnn_small": "cifar10", "allcnn": "cifar10", "lenet": "mnist"}
SKETCH_NUMBERS = 2**30
"""The most that the preconditioner may hold: 4 GB. With 1 GB LeNet's 60,000 took 144 products."""
DENSE_CLASSES = {"allcnn_small": 5, "lenet": 10}
SIZES = (500, 1000, 2000, 5000, 10_000, 20_000, 50_000)
PRODUCTS_AT_MOST = {("lenet", 60_000): 60}
MINUTES_AT_MOST = {("allcnn_small", 50_000): 45}
"""The goals at a network's full data: products with the kernel in both solves, and minutes."""


def run(
    *,
    memory_n: int = 500,
    dense_n: int = 2000,
    sizes: tuple[int, ...] = SIZES,
    budget: float = 600.0,
) -> list[Row]:
    """Returns the rows of the goals, then those of growing data until `budget` seconds are gone."""
    rows = [printed(memory_row(network, memory_n)) for network in ("allcnn", "allcnn_small")]
    rows += [printed(dense_row(name, dense_n, classes=c)) for name, c in DENSE_CLASSES.items()]
    for network in ("allcnn_small", "lenet"):
        rows += scaling_rows(network, sizes, budget / 2)
    return rows


def printed(row: Row) -> Row:
    """Prints a row as soon as it is made: all of them take half an hour on two cores."""
    print(markdown([row]).splitlines()[-1], flush=True)
    return row


def memory_row(network: str, n: int) -> Row:
    """What XLA sets aside for the scrub of n examples with 5 outputs, besides its arguments."""
    free, dense = _temporary(network, n), 2 * (5 * n) ** 2 * 4
    return Row(
        "NTK scrub, peak memory in GB",
        f"{network}, n {n:,} x 5 outputs",
        value=free / 1e9,
        goal=1,
        lower_is_better=True,
        note=f"our dense form holds {dense / 1e9:.3g} GB of kernels; the public code of Golatkar "
        "et al. 2020b stores a Jacobian of 18 GB for All-CNN",
    )


def dense_row(network: str, n: int, *, classes: int) -> Row:
    """Both forms from the same weights on the same data, one run each."""
    model, start, trained, task = problem(network, n, classes=classes)
    dense_method = dataclasses.replace(METHOD, form="dense")
    free, dense = (
        method(KEY, model, trained, task, initial=start) for method in (METHOD, dense_method)
    )
    steps = [
        optax.tree.sub(unlearned.variables.params, trained.params) for unlearned in (free, dense)
    ]
    difference = float(optax.tree.norm(optax.tree.sub(*steps)) / optax.tree.norm(steps[1]))
    return Row(
        "NTK scrub, matrix-free / dense",
        f"{network}, {DATASETS[network]}, n {n:,} x {classes} outputs",
        timing(free),
        "two dense ridge solves",
        timing(dense),
        goal=10,
        accuracy=f"{accuracy(free)}; the shifts differ by {difference:.1e}",
        peer_accuracy=accuracy(dense),
    )


def scaling_rows(network: str, sizes: tuple[int, ...], budget: float) -> list[Row]:
    """Returns a row per size, with 10 outputs, until `budget` seconds are gone.

    Its value is the number of products with the kernel in both solves; a row of minutes follows
    where they have a goal.
    """
    rows: list[Row] = []
    begun = time.perf_counter()
    for n in sizes:
        model, start, trained, task = problem(network, n, classes=10)
        rank = min(METHOD.rank, max(1, SKETCH_NUMBERS // (n * model.n_classes)))
        method = dataclasses.replace(METHOD, rank=rank)
        unlearned = method(KEY, model, trained, task, initial=start)
        work = unlearned.info.cost.example_gradients / n
        size = f"{network}, {DATASETS[network]}, n {n:,} x 10 outputs"
        row = Row(
            "NTK scrub, matrix-free, products",
            size,
            timing(unlearned),
            value=sum(int(info.steps) for info in unlearned.info.solves.values()),
            goal=PRODUCTS_AT_MOST.get((network, n)),
            lower_is_better=True,
            accuracy=accuracy(unlearned),
            note=f"the cost of {work:.0f} epochs; preconditioner of rank {rank:,}",
        )
        rows.append(printed(row))
        if minutes := MINUTES_AT_MOST.get((network, n)):
            row = Row(
                "NTK scrub, matrix-free, minutes",
                size,
                value=unlearned.info.cost.seconds / 60,
                goal=minutes,
                lower_is_better=True,
            )
            rows.append(printed(row))
        if time.perf_counter() - begun > budget:
            break
    return rows


FORMS: dict[str, dict[str, Any]] = {
    "stored": {"form": "stored"},
    "stored, bfloat16": {"form": "stored", "store": "bfloat16"},
    "dense": {"form": "dense"},
    "matrix-free": {"form": "matrix_free"},
}


def form_rows(
    network: str, n: int, *, classes: int, loss: LossName, names: tuple[str, ...], tol: float
) -> list[Row]:
    """Returns a row for each form: the seconds of the whole scrub, and its passes beside Retrain's.

    All from the same weights. The goal is 15 s and fewer example-gradients than Retrain's 50
    epochs, at n 500 x 5.

    Args:
      network: its name.
      n: examples.
      classes: outputs.
      loss: of the scrub.
      names: of the forms, among `FORMS`.
      tol: relative residual.
    """
    model, start, trained, task = problem(network, n, classes=classes)
    retrain, method = 50 * task.retain.size, dataclasses.replace(METHOD, loss=loss, tol=tol)
    own = dataclasses.replace(method, form="auto").settings()
    auto = choose_form(own, size_of(trained.params, task.train.size, model.n_classes)).name
    rows: list[Row] = []
    for name in names:
        method = dataclasses.replace(method, **{"store": "full", **FORMS[name]})
        begun = time.process_time()
        found = method(KEY, model, trained, task, initial=start)
        seconds = time.process_time() - begun
        history, cost = found.info.history, found.info.cost
        row = Row(
            f"NTK scrub, {loss}, processor seconds",
            f"{network}, {DATASETS[network]}, n {n:,} x {classes} outputs: {name}",
            Timing(seconds, seconds, 1, cost.compile_seconds),
            value=cost.example_gradients,
            goal=retrain if name in ("stored", "dense") else None,
            lower_is_better=True,
            accuracy=accuracy(found),
            note=f"example-gradients, of Retrain {retrain:,}; compilation is in the seconds; the "
            f"shift {float(history['shift'][0]):.4g} errs by at most "
            f"{float(history['shift_error'][0]):.1e}",
        )
        rows.append(printed(row))
    taken = [row for name, row in zip(names, rows, strict=True) if FORMS[name] == {"form": auto}]
    if taken and len(rows) > 1:
        rows.append(printed(_choice_row(taken[0], rows, auto)))
    return rows


def _choice_row(taken: Row, rows: list[Row], auto: str) -> Row:
    """How many times the fastest form's seconds are those of the form that `auto` takes."""
    seconds = [row.ours.seconds for row in rows if row.ours is not None]
    assert taken.ours is not None
    where = taken.size.partition(":")[0]
    return Row(
        taken.kernel.replace("processor seconds", "auto / fastest form"),
        where,
        value=taken.ours.seconds / min(seconds),
        goal=1.5,
        lower_is_better=True,
        note=f"auto takes the form {auto}; compilation is in the seconds",
    )


def problem(
    network: str,
    n: int,
    *,
    classes: int,
    data: tuple[Dataset, Dataset] | None = None,
    **options: Any,
) -> tuple[Model, Variables, Variables, Task]:
    """Returns a network, its weights before and after fine-tuning on n examples, and the task.

    Args:
      network: its name.
      n: training examples.
      classes: the first so many are kept.
      data: training and held-out examples; None loads those of `DATASETS`.
      **options: of the network.
    """
    train, held_out = data or (
        _images(DATASETS[network], "train"),
        _images(DATASETS[network], "test"),
    )
    shape = tuple(train.x.shape[1:])
    model = models.create(network, input_shape=shape, n_classes=classes, **options)
    pool = np.flatnonzero(np.asarray(train.y) < classes)
    if n > len(pool):
        raise ValueError(f"{classes} classes have {len(pool)} examples; choose n <= that, not {n}")
    chosen = train.take(np.random.default_rng(0).permutation(pool)[:n])
    short = held_out.take(np.flatnonzero(np.asarray(held_out.y) < classes)[:100])
    warm = Recipe(epochs=max(1, 2000 // n), batch_size=min(n, 100), learning_rate=0.05)
    tune = dataclasses.replace(
        warm,
        learning_rate=0.01,
        weight_decay=METHOD.weight_decay,
        decay_toward="start",
        frozen_state=True,
    )
    start = fit(KEY, model, chosen, warm).variables
    trained = fit(KEY, model, chosen, tune, variables=start).variables
    forget = max(1, round(FORGET * n))
    retain, gone = chosen.take(np.arange(forget, n)), chosen.take(np.arange(forget))
    return model, start, trained, Task(retain, gone, short, short)


@functools.cache
def _images(name: str, split: str) -> Dataset:
    return load(name, split=split, normalisation="standard", data_dir=DATA)


def _temporary(network: str, n: int) -> int:
    return memory(models.create(network, input_shape=(32, 32, 3), n_classes=5), METHOD, n)


def memory(model: Model, method: NtkScrub, n: int) -> int:
    """Returns the bytes that XLA sets aside for the matrix-free scrub, besides its arguments."""
    point = jax.eval_shape(model.init, KEY)
    train = Dataset(
        jax.ShapeDtypeStruct((n, *model.input_shape), jnp.float32),  # type: ignore[arg-type]
        jax.ShapeDtypeStruct((n,), jnp.int32),  # type: ignore[arg-type]
    )
    kept = n - max(1, round(FORGET * n))
    settings, form = method.settings(), "matrix_free"
    lowered = shift_by.lower(KEY, model, settings, form, None, point, point.params, train, kept)
    analysis = lowered.compile().memory_analysis()
    assert analysis is not None, "this backend does not report its memory"
    return analysis.temp_size_in_bytes + analysis.output_size_in_bytes


def timing(unlearned: Unlearned) -> Timing:
    cost = unlearned.info.cost
    return Timing(cost.seconds, cost.seconds, 1, cost.compile_seconds)


def accuracy(unlearned: Unlearned) -> str:
    return ", ".join(
        f"{name} {float(info.residual):.1e} in {int(info.steps)}"
        for name, info in unlearned.info.solves.items()
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--network", choices=list(DATASETS), default="allcnn_small")
    parser.add_argument("--sizes", type=int, nargs="+", default=list(SIZES))
    parser.add_argument("--budget", type=float, default=600.0, help="seconds; sizes begin within")
    parser.add_argument("--forms", nargs="+", choices=list(FORMS), default=[])
    parser.add_argument("--loss", choices=["softmax", "l2"], default="softmax")
    arguments = parser.parse_args()
    if arguments.forms:
        loss, names = arguments.loss, tuple(arguments.forms)
        options: Any = {"classes": 5, "loss": loss, "names": names, "tol": 1e-4}
        rows = [row for n in arguments.sizes for row in form_rows(arguments.network, n, **options)]
        write_json(f"ntk_scrub_forms_{arguments.network}", rows)
        return
    rows = scaling_rows(arguments.network, tuple(arguments.sizes), arguments.budget)
    write_json(f"ntk_scrub_{arguments.network}", rows)


if __name__ == "__main__":
    main()
