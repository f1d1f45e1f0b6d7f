"""Training: compiled epochs against PyTorch's eager loop, against a Python loop, and many seeds.

`python -m benchmarks.training` prints the table alone; `python -m benchmarks training` keeps it.
The peer is written as its users write it, in both of its memory layouts; the faster counts.
A few minutes on two CPU cores. On an accelerator the data are whole and the goals are absolute.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.epochs import one_more_epoch
from benchmarks.frame import (
    Row,
    Timing,
    compare,
    markdown,
    print_timings,
    time_on_cpu_devices,
)
from unlearnkit.base import Dataset
from unlearnkit.costs import program_flops
from unlearnkit.data import load
from unlearnkit.models import create
from unlearnkit.training import (
    CrossEntropy,
    Recipe,
    epoch_batches,
    fit,
    fit_many,
    init_train_state,
    train_step,
)

DATA = Path(__file__).resolve().parents[2] / "shared" / "data" / "tfds"
SHAPES = {"mnist": (28, 28, 1), "cifar10": (32, 32, 3)}
KEY = 0
SEEDS_ON_CPU = 8
SEED_EPOCHS = 5


def run() -> list[Row]:
    if jax.default_backend() != "cpu":
        return [_resnet_in_bfloat16(), _seeds_row(_time_seeds(64), 64, goal=10.0)]
    rows = [
        _against_torch("lenet", "mnist", n=6_000, batch_size=100, repeats=25, goal=1.5),
        _against_torch("cnn_cifar", "cifar10", n=3_000, batch_size=100, repeats=25, goal=1.2),
        _against_torch("allcnn_small", "cifar10", n=640, batch_size=128, repeats=3),
        _against_torch("resnet18", "cifar10", n=128, batch_size=64, repeats=3),
        _epoch_against_python_loop(),
    ]
    seeds = time_on_cpu_devices("benchmarks.training", "seeds")
    return [*rows, _seeds_row(seeds, SEEDS_ON_CPU, goal=1.3)]


def examples(name: str, n: int) -> tuple[Dataset, str]:
    """Returns n training examples and where they come from."""
    try:
        dataset = load(name, split="train", data_dir=DATA).take(jnp.arange(n))
    except (ImportError, FileNotFoundError):
        x_key, y_key = jax.random.split(jax.random.key(KEY))
        x = jax.random.uniform(x_key, (n, *SHAPES[name]))
        return Dataset(x, jax.random.randint(y_key, (n,), 0, 10)), f"noise shaped as {name}"
    return dataset, name


def _recipe(batch_size: int, **options: Any) -> Recipe:
    return Recipe(epochs=1, batch_size=batch_size, learning_rate=0.01, momentum=0.0, **options)


def _against_torch(
    name: str, data: str, *, n: int, batch_size: int, repeats: int, goal: float | None = None
) -> Row:
    dataset, source = examples(data, n)
    size = f"{source}, {n} examples, batch {batch_size}, SGD"
    model = create(name, input_shape=SHAPES[data], n_classes=10)
    epoch = one_more_epoch(jax.random.key(KEY), model, dataset, _recipe(batch_size))
    calls: dict[str, Callable[[], Any]] = {"ours": epoch}
    try:
        calls |= _torch_epochs(name, dataset, batch_size)
    except ImportError:
        return Row(name, size, compare(calls, repeats=repeats)["ours"], note="torch not installed")
    timings = compare(calls, repeats=repeats)
    ours = timings.pop("ours")
    layout, peer = min(timings.items(), key=lambda item: item[1].seconds)
    work = n // batch_size * _step_flops(name, data, batch_size)
    rates = [work / timing.seconds / 1e9 for timing in (ours, peer)]
    note = (
        f"{_least(ours, peer)}; {rates[0]:.0f} GFLOP/s, torch {rates[1]:.0f}, "
        f"a matrix product alone {_product_rate():.0f}"
    )
    return Row(name, size, ours, f"torch, {layout}", peer, goal=goal, note=note)


def _step_flops(name: str, data: str, batch_size: int) -> float:
    """Returns the floating-point operations of one step, by XLA's count of plain convolutions."""
    shape = SHAPES[data]
    options = {"implementation": "xla"}
    model = create(name, input_shape=shape, n_classes=10, **options)
    objective = CrossEntropy(model, _recipe(batch_size))
    batch = Dataset(jnp.zeros((batch_size, *shape)), jnp.zeros(batch_size, jnp.int32))
    key = jax.random.key(KEY)
    params, state = jax.eval_shape(model.init, key)
    step = jax.jit(jax.grad(objective, has_aux=True))
    return program_flops(step, params, state, batch, key) or math.nan


@lru_cache(maxsize=1)
def _product_rate() -> float:
    """Returns the GFLOP/s of a square matrix product: what the arithmetic alone allows."""
    side = 2048
    x = jnp.ones((side, side))
    product = jax.jit(jnp.matmul)
    return 2 * side**3 / compare({"x x": lambda: product(x, x)}, repeats=7)["x x"].least / 1e9


def _least(ours: Timing, peer: Timing) -> str:
    """Returns the ratio of the fastest repeats: what a machine that is busy otherwise leaves."""
    return f"of the fastest of {ours.repeats}: {peer.least / ours.least:.2f}"


def _epoch_against_python_loop() -> Row:
    dataset, source = examples("mnist", 6_000)
    recipe = _recipe(100)
    model = create("lenet", input_shape=SHAPES["mnist"], n_classes=10)
    steps = recipe.steps_per_epoch(dataset.size)
    key = jax.random.key(KEY)

    @partial(jax.jit, donate_argnums=0)
    def step(state: Any, dataset: Dataset, batch: jax.Array) -> Any:
        objective = CrossEntropy(model, recipe)
        return train_step(objective, recipe, steps, state, dataset.take(batch), key)[0]

    state = init_train_state(recipe, steps, jax.jit(model.init)(key))

    def loop() -> Any:
        nonlocal state
        for batch in epoch_batches(key, 0, dataset.size, recipe.batch_size):
            state = step(state, dataset, batch)
        return state

    calls = {"ours": one_more_epoch(key, model, dataset, recipe), "loop": loop}
    timings = compare(calls, repeats=9)
    ours, peer = timings["ours"], timings["loop"]
    return Row(
        "compiled epoch / Python loop",
        f"lenet, {source}, {steps} steps of {recipe.batch_size}",
        ours,
        "the jitted step in a Python loop",
        peer,
        value=ours.seconds / peer.seconds,
        goal=1.05,
        lower_is_better=True,
        note=f"of the fastest of {ours.repeats}: {ours.least / peer.least:.2f}",
    )


def _time_seeds(n_seeds: int) -> dict[str, Timing]:
    dataset, _ = examples("mnist", 2_000)
    recipe = replace(_recipe(100), epochs=SEED_EPOCHS)
    model = create("lenet", input_shape=SHAPES["mnist"], n_classes=10)
    keys = jax.random.split(jax.random.key(KEY), n_seeds)
    return compare(
        {
            "at once": lambda: fit_many(keys, model, dataset, recipe).variables.params,
            "in turn": lambda: [fit(key, model, dataset, recipe).variables.params for key in keys],
        },
        repeats=5,
    )


def _seeds_row(timings: Mapping[str, Timing], n_seeds: int, goal: float) -> Row:
    ours, peer = timings["at once"], timings["in turn"]
    return Row(
        f"{n_seeds} runs at once",
        f"lenet, mnist, 2,000 examples, batch 100, {SEED_EPOCHS} epochs, initialisation included",
        ours,
        "fit, in turn",
        peer,
        goal=goal,
        note=_least(ours, peer),
    )


def _resnet_in_bfloat16() -> Row:
    """Times an epoch of ResNet-18 on CIFAR-10 as paper 001 trains it, and extrapolates to 160."""
    dataset, source = examples("cifar10", 50_000)
    recipe = _recipe(128, compute_dtype="bfloat16", augmentation="shift_flip")
    model = create("resnet18", input_shape=SHAPES["cifar10"], n_classes=10)
    epoch = one_more_epoch(jax.random.key(KEY), model, dataset, recipe)
    ours = compare({"ours": epoch}, repeats=3, warmups=2)["ours"]
    return Row(
        "resnet18, 160 epochs in bfloat16 (seconds)",
        f"{source}, 50,000 examples, batch 128, shift and flip",
        ours,
        value=160 * ours.seconds,
        goal=180.0,
        lower_is_better=True,
        note="160 times the median epoch",
    )


def _torch_epochs(name: str, dataset: Dataset, batch_size: int) -> dict[str, Callable[[], None]]:
    """Returns one call a memory layout that trains for one more epoch."""
    import torch

    from benchmarks.torch_networks import NETWORKS

    x = torch.from_numpy(np.array(dataset.x).transpose(0, 3, 1, 2).copy())
    y = torch.from_numpy(np.array(dataset.y)).long()

    def epochs(memory_format: torch.memory_format) -> Callable[[], None]:
        network: Any = NETWORKS[name]()
        network = network.to(memory_format=memory_format)
        images = x.to(memory_format=memory_format)
        optimizer = torch.optim.SGD(network.parameters(), lr=0.01)
        loss = torch.nn.CrossEntropyLoss()

        def epoch() -> None:
            for batch in torch.randperm(len(y)).split(batch_size):
                if len(batch) < batch_size:
                    return
                optimizer.zero_grad()
                loss(network(images[batch]), y[batch]).backward()
                optimizer.step()

        return epoch

    return {
        "contiguous": epochs(torch.contiguous_format),
        "channels last": epochs(torch.channels_last),
    }


if __name__ == "__main__":
    if sys.argv[1:] == ["seeds"]:
        print_timings(_time_seeds(SEEDS_ON_CPU))
    else:
        print(markdown(run()))
