"""Whether the card computes what the CPU does: kernels, bits, lanes, precision, logs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy import stats

from benchmarks.accelerator.context import Context
from benchmarks.accelerator.job import Unavailable
from benchmarks.accelerator.jobs.training import make_speedrun
from benchmarks.epochs import one_more_epoch
from benchmarks.frame import Row
from unlearnkit import forging, kernels, models
from unlearnkit.auditing import accuracy
from unlearnkit.base import Dataset, Model, Variables
from unlearnkit.training import (
    Recipe,
    cross_entropy,
    fit,
    fit_many,
)

TOLERANCES = {"highest": 1e-4, "tensorfloat32": 1e-2, "bfloat16": 1e-1}
"""Relative errors against float64, by the precision of matrix products."""
LESS = ("tensorfloat32", "bfloat16")
ROUNDING = 1e-4
"""Relative difference that some dozen steps of training make of rounding, at most."""
POINTS = 0.3
"""Of accuracy that bfloat16 may cost, in percentage points."""


def _name(context: Context) -> str:
    return context.pick("cnn_cifar", "mlp")


def _network(context: Context) -> Model:
    shape: dict[str, Any] = {"input_shape": (32, 32, 3), "n_classes": 10}
    options: dict[str, Any] = context.pick({"implementation": "xla"}, {"hidden": (8,)})
    return models.create(_name(context), **shape, **options)


def _recipe(context: Context, **options: Any) -> Recipe:
    return Recipe(
        epochs=1, batch_size=context.pick(100, 16), learning_rate=0.02, **options
    )  # fmt: skip


def _first(dataset: Dataset, n: int) -> Dataset:
    return dataset.take(jnp.arange(min(n, dataset.size)))


# Kernels --------------------------------------------------------------------------------------


def oracles(context: Context) -> Iterator[Row]:
    """Each kernel in float32 on the card against itself in float64 on the CPU."""
    context.check_memory()
    model = _network(context)
    data = _first(context.data("cifar10").train, context.pick(64, 4))
    params = jax.jit(model.init)(jax.random.key(0)).params
    host = jax.device_get((params, data.x, data.y))
    cpu, card = jax.devices("cpu")[0], jax.devices()[0]
    for name, kernel in _kernels(model).items():
        with jax.enable_x64(True), jax.default_device(cpu):
            exact = jax.device_get(kernel(_as(np.float64, host, cpu), {}))
        lower = LESS if name in WITH_PRECISION and not context.rehearse else ()
        for precision in ("highest", *lower):
            options = {"precision": precision} if name in WITH_PRECISION else {}
            found = jax.device_get(kernel(_as(np.float32, host, card), options))
            yield Row(
                f"{name}, relative error against float64",
                f"{_name(context)}, {data.size} images, products at {precision}",
                value=_distance(found, exact),
                goal=TOLERANCES[precision],
                lower_is_better=True,
            )


Kernel = Callable[[Any, dict[str, Any]], Any]
"""Of (parameters, inputs, labels), and options."""
WITH_PRECISION = ("hvp", "ggn_vp", "total_gradient", "ntk_operator", "empirical_ntk")


def _kernels(model: Model) -> dict[str, Kernel]:
    """Returns kernels by name."""

    def apply(p: Any, x: Any) -> Any:
        return model.apply(Variables(p), x)

    def loss(p: Any, x: Any, y: Any) -> Any:
        return cross_entropy(apply(p, x), y)

    def hvp(data: Any, options: dict[str, Any]) -> Any:
        p, x, y = data
        return jax.jit(lambda p, x, y: kernels.hvp(lambda q: loss(q, x, y), p, p, **options))(
            p, x, y
        )

    def ggn_vp(data: Any, options: dict[str, Any]) -> Any:
        p, x, _y = data
        hessian = kernels.cross_entropy_hessian
        return jax.jit(lambda p, x: kernels.ggn_vp(apply, p, x, hessian, p, **options))(p, x)

    def total_gradient(data: Any, options: dict[str, Any]) -> Any:
        p, x, y = data

        def solve(p: Any, x: Any, y: Any) -> Any:
            def follower(leader: Any, q: Any) -> Any:
                return loss(q, leader, y)

            def leader(_: Any, q: Any) -> Any:
                return loss(q, x[::-1], y)

            settings: dict[str, Any] = {"damping": 10.0, "tol": 0.0, "max_steps": 10}
            return kernels.total_gradient(leader, follower, x, p, **settings, **options)[0]

        return jax.jit(solve)(p, x, y)

    def ntk_operator(data: Any, options: dict[str, Any]) -> Any:
        p, x, _y = data

        def product(p: Any, x: Any) -> Any:
            operator = kernels.ntk_operator(apply, p, x, damping=0.0, chunk=3, **options)
            return operator(apply(p, x))

        return jax.jit(product)(p, x)

    def empirical_ntk(data: Any, options: dict[str, Any]) -> Any:
        p, x, _y = data
        return kernels.empirical_ntk(apply, p, x, method="jacobian", **options)

    def gram(data: Any, options: dict[str, Any]) -> Any:
        p, x, y = data
        return kernels.gram(kernels.GradientOperator(loss, p, Dataset(x, y)))

    def gradient_bank(data: Any, options: dict[str, Any]) -> Any:
        p, x, y = data
        return kernels.gradient_bank(loss, p, Dataset(x, y), chunk=3)

    def fisher_diagonal(data: Any, options: dict[str, Any]) -> Any:
        p, x, _y = data
        return jax.jit(lambda p, x: kernels.fisher_diagonal(apply, p, x, chunk=3))(p, x)

    def svm(data: Any, options: dict[str, Any]) -> Any:
        _p, x, y = data

        def weights(x: Any, y: Any) -> Any:
            return kernels.svm(x.mean((1, 2)), 2 * (y % 2) - 1, C=1.0).weights

        return jax.jit(weights)(x, y)

    made = (
        *(hvp, ggn_vp, total_gradient, ntk_operator, empirical_ntk),
        *(gram, gradient_bank, fisher_diagonal, svm),
    )
    return {kernel.__name__: kernel for kernel in made}


def _as(dtype: Any, host: Any, device: jax.Device) -> Any:
    def put(leaf: Any) -> Any:
        array = np.asarray(leaf)
        kind = dtype if np.issubdtype(array.dtype, np.floating) else array.dtype
        return jax.device_put(array.astype(kind), device)

    return jax.tree.map(put, host)


def _distance(found: Any, exact: Any) -> float:
    """Returns the distance of two trees relative to the norm of the second."""
    one, other = (
        np.concatenate([np.ravel(np.asarray(leaf, np.float64)) for leaf in jax.tree.leaves(tree)])
        for tree in (found, exact)
    )
    return float(np.linalg.norm(one - other) / np.linalg.norm(other))


# Training -------------------------------------------------------------------------------------


def same_bits(context: Context) -> Iterator[Row]:
    """The same training twice, and an epoch in which nothing passes between card and host."""
    model = _network(context)
    train = _first(context.data("cifar10").train, context.pick(10_000, 64))
    for dtype in ("float32", "bfloat16"):
        recipe = _recipe(context, augmentation="shift_flip", compute_dtype=dtype)
        once, again = (
            jax.device_get(fit(jax.random.key(0), model, train, recipe).variables) for _ in range(2)
        )
        differing = sum(
            int(np.sum(a.view(np.uint32) != b.view(np.uint32)))
            for a, b in zip(jax.tree.leaves(once), jax.tree.leaves(again), strict=True)
        )
        yield Row(
            "fit twice, weights that differ in a bit",
            f"{_name(context)}, {train.size:,} images, {dtype}",
            value=differing,
            goal=0,
            lower_is_better=True,
        )
    yield _transfers_row(context, model, train, recipe)


def _transfers_row(context: Context, model: Model, train: Dataset, recipe: Recipe) -> Row:
    """Trains an epoch with every transfer forbidden but for its batches and its metrics."""
    epoch = one_more_epoch(jax.random.key(0), model, train, recipe)
    epoch()
    note = ""
    try:
        with jax.transfer_guard("disallow"):
            epoch()
    except Exception as error:
        note = f"{error!s:.200}"
    return Row(
        "transfers between card and host in an epoch, but for batches and metrics",
        f"{_name(context)}, {recipe.steps_per_epoch(train.size)} steps",
        value=float(bool(note)),
        goal=0,
        lower_is_better=True,
        note=note,
    )


def lanes(context: Context) -> Iterator[Row]:
    """Seeds trained at once against the same seeds in turn."""
    model, seeds = _network(context), context.pick(4, 2)
    train = _first(context.data("cifar10").train, context.pick(2000, 48))
    recipe = _recipe(context)
    keys = jax.random.split(jax.random.key(0), seeds)
    with jax.default_matmul_precision("highest"):
        together = fit_many(keys, model, train, recipe, batching="vmap").variables.params
        in_turn = [fit(key, model, train, recipe).variables.params for key in keys]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *in_turn)
    yield Row(
        f"{seeds} seeds at once against in turn, relative difference",
        f"{_name(context)}, {recipe.steps_per_epoch(train.size)} steps, products in float32",
        value=_distance(jax.device_get(together), jax.device_get(stacked)),
        goal=ROUNDING,
        lower_is_better=True,
    )


def bfloat16(context: Context) -> Iterator[Row]:
    """The accuracy that training in bfloat16 costs, with a 95 % interval over the seeds."""
    import dataclasses

    data, seeds = context.data("cifar10"), 3
    try:
        model, recipe = make_speedrun(context)
        name = "speedrun"
    except Unavailable:
        model, name = _network(context), _name(context)
        recipe = _recipe(context, augmentation="shift_flip", schedule="cosine")
        recipe = dataclasses.replace(recipe, epochs=context.pick(10, 1), learning_rate=0.05)
    found = {}
    for dtype in ("float32", "bfloat16"):
        context.say(f"{name} in {dtype}")
        recipe = dataclasses.replace(recipe, compute_dtype=dtype)
        found[dtype] = np.array(
            [
                accuracy(
                    model,
                    fit(jax.random.key(seed), model, data.train, recipe).variables,
                    data.test,
                )
                for seed in range(seeds)
            ]
        )
    losses = 100 * (found["float32"] - found["bfloat16"])
    mean, error = float(np.mean(losses)), float(stats.sem(losses))
    half = float(stats.t.ppf(0.975, seeds - 1)) * error
    yield Row(
        "accuracy lost to bfloat16 (points)",
        f"{name}, CIFAR-10, {recipe.epochs} epochs, {seeds} seeds",
        value=abs(mean),
        goal=POINTS,
        lower_is_better=True,
        accuracy=f"float32 {100 * found['float32'].mean():.2f} %, "
        f"bfloat16 {100 * found['bfloat16'].mean():.2f} %",
        note=f"mean {mean:+.2f}, 95 % interval {mean - half:+.2f} … {mean + half:+.2f}",
    )


# Logs of training -----------------------------------------------------------------------------


def logs(context: Context) -> Iterator[Row]:
    """A log made on the card is verified on the CPU within the calibrated tolerance, and back."""
    model = _network(context)
    train = _first(context.data("cifar10").train, context.pick(1500, 64))
    cpu, card = jax.devices("cpu")[0], jax.devices()[0]
    for owner, verifier, precision in (
        (card, cpu, "highest"),
        (cpu, card, "highest"),
        *context.pick(((card, cpu, "default"),), ()),
    ):
        with (
            TemporaryDirectory(dir=context.work) as folder,
            jax.default_matmul_precision(precision),
        ):
            yield _log_row(context, Path(folder), model, train, owner, verifier, precision)


def _log_row(
    context: Context,
    folder: Path,
    model: Model,
    train: Dataset,
    owner: jax.Device,
    verifier: jax.Device,
    precision: str,
) -> Row:
    log, recipe = folder / "log", _recipe(context)
    every = context.pick(5, 2)
    with jax.default_device(owner):
        data = jax.device_put(train, owner)
        fit(jax.random.key(0), model, data, recipe, trajectory=log, every=every)
        calibration = forging.calibrate(
            jax.random.key(1),
            log,
            data,
            segments=context.pick(3, 1),
            shuffles=context.pick(10, 1),
            changes=("batch order", "matmul precision"),
        )
        own = forging.verify(log, data, tolerance=0.0, devices=[owner], parallel=1)
    with jax.default_device(verifier):
        data = jax.device_put(train, verifier)
        across = forging.verify(
            log, data, tolerance=calibration.tolerance, devices=[verifier], parallel=1
        )
    largest = float(np.max([across.errors, across.carried_errors]))
    exact = "to the bit" if np.max(own.errors) == 0 else f"to {np.max(own.errors):.1e}"
    return Row(
        "log verified on another device, largest error over the tolerance",
        f"{_name(context)}, {across.replayed_steps} steps, made on {owner.platform}, verified on "
        f"{verifier.platform}, products at {precision}",
        value=largest / calibration.tolerance if calibration.tolerance > 0 else largest,
        goal=1.0,
        lower_is_better=True,
        accuracy=f"largest error {largest:.2e}, tolerance {calibration.tolerance:.2e}",
        note=f"on the device that made it, {exact}",
        metrics={"largest": largest, "tolerance": calibration.tolerance},
    )
