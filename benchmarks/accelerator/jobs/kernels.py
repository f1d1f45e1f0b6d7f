"""Kernels against PyTorch on the same card, at the same precision."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import kernels as benchmark
from benchmarks import problems, svm
from benchmarks.accelerator.context import Context
from benchmarks.accelerator.job import Unavailable
from benchmarks.frame import Row, compare
from unlearnkit import kernels

FASTER = 1.5
"""How many times as fast as PyTorch each kernel is meant to be on a card."""


def run(context: Context) -> Iterator[Row]:
    """Total gradients, Hessian products, per-example gradients and their Gram matrix."""
    _same_precision()
    batch, repeats = context.pick(benchmark.BATCH, 10), context.pick(5, 1)
    many = context.pick(2000, 20)
    for name, (apply, params, x, y) in benchmark.networks(context.pick(10_000, 100)).items():
        if context.rehearse and name != "LeNet":
            continue
        context.say(name)
        data = (name, apply, params, x, y)
        yield _raised(benchmark.total_gradient_row(*data, batch=batch, repeats=repeats))
        yield _hvp_row(*data, batch=batch, repeats=repeats)
    yield _raised(benchmark.per_example_row(apply, params, x[:many], y[:many], repeats=repeats))
    yield _raised(benchmark.gram_row(apply, params, x[:many], y[:many], repeats=repeats))


def ntk(context: Context) -> Iterator[Row]:
    """The kernel stored and not stored, of LeNet."""
    _same_precision()
    from benchmarks.peers import torch_models as peer

    repeats = context.pick(5, 1)
    x, y, source = problems.mnist(context.pick(5000, 100))
    params = problems.train(
        problems.apply_lenet, problems.init_lenet(jax.random.key(0)), x, y, epochs=1
    )
    weights = peer.lenet_params(params)
    for n in context.pick((256, 1024), (4,)):
        inputs, theirs = jnp.asarray(x[:n]), peer.tensor(x[:n])
        yield _against(
            "empirical NTK",
            f"LeNet, {source}, n {n:,}",
            partial(kernels.empirical_ntk, problems.apply_lenet, params, inputs),
            partial(peer.empirical_ntk, peer.apply_lenet, weights, theirs, chunk=256),
            "torch.func jacrev and a product",
            repeats,
        )
    n = context.pick(5000, 8)
    inputs, theirs = jnp.asarray(x[:n]), peer.tensor(x[:n])
    vector = np.random.default_rng(0).normal(size=(n, 10)).astype(np.float32)
    for precision in context.pick(("highest", "tensorfloat32"), ("highest",)):
        product = jax.jit(partial(_ntk_product, precision))
        yield _against(
            "NTK product",
            f"LeNet, {source}, n {n:,}, products at {precision}",
            partial(product, params, inputs, jnp.asarray(vector)),
            partial(peer.ntk_product, peer.apply_lenet, weights, theirs, peer.tensor(vector)),
            "torch.func vjp and jvp",
            repeats,
        )


def auditors(context: Context) -> Iterator[Row]:
    """The differentiable SVM and its folds, against scikit-learn on the host's cores."""
    n = context.pick(svm.EXAMPLES, 100)
    yield svm.own_layer(n, repeats=context.pick(10, 1)).row
    yield from svm.fold_rows(n, only="dual=False", repeats=context.pick(3, 1))


def _ntk_product(precision: Any, params: Any, x: Any, vector: Any) -> Any:
    apply = problems.apply_lenet
    operator = kernels.ntk_operator(apply, params, x, damping=0.0, precision=precision)
    return operator(vector)


def _hvp_row(
    name: str,
    apply: problems.Apply,
    params: Any,
    x: np.ndarray,
    y: np.ndarray,
    *,
    batch: int,
    repeats: int,
) -> Row:
    from benchmarks.peers import torch_models as peer

    @jax.jit
    def product(params: Any, x: Any, y: Any) -> Any:
        def loss(p: Any) -> Any:
            return problems.cross_entropy(apply(p, x), y)

        return kernels.hvp(loss, params, params)

    lenet = name == "LeNet"
    theirs = peer.apply_lenet if lenet else peer.apply_mlp
    weights = (peer.lenet_params if lenet else peer.mlp_params)(params)
    images, labels = peer.tensor(x[:batch]), peer.tensor(y[:batch].astype(np.int64))
    data = jax.device_put((x[:batch], y[:batch]))

    def norm(answer: Any) -> float:
        leaves = [np.asarray(leaf.cpu()) for leaf in answer]
        return float(np.sqrt(sum(np.sum(leaf.astype(np.float64) ** 2) for leaf in leaves)))

    ours = partial(product, params, *data)
    reference = norm(peer.hessian_product(theirs, weights, images, labels, weights))
    found = np.sqrt(sum(np.sum(np.square(leaf, dtype=np.float64)) for leaf in jax.tree.leaves(
        jax.device_get(ours())
    )))  # fmt: skip
    timings = compare(
        {
            "ours": ours,
            "torch": partial(
                _waited, peer.hessian_product, theirs, weights, images, labels, weights
            ),
        },
        repeats=repeats,
    )
    return Row(
        "HVP",
        f"{name}, batch {batch:,}",
        timings["ours"],
        "PyTorch double backward",
        timings["torch"],
        goal=FASTER,
        accuracy=f"norms differ by {abs(found / reference - 1):.1e}",
    )


def _against(
    kernel: str,
    size: str,
    ours: Callable[[], Any],
    theirs: Callable[[], Any],
    name: str,
    repeats: int,
) -> Row:
    answer, reference = np.asarray(ours()), theirs().detach().cpu().numpy()
    error = np.abs(answer - reference).max() / np.abs(reference).max()
    timings = compare({"ours": ours, "torch": partial(_waited, theirs)}, repeats=repeats)
    return Row(
        kernel,
        size,
        timings["ours"],
        name,
        timings["torch"],
        goal=FASTER,
        accuracy=f"differs by {error:.1e} of the largest entry",
    )


def _waited(call: Callable[..., Any], *arguments: Any) -> None:
    from benchmarks.peers import torch_models as peer

    call(*arguments)
    peer.synchronise()


def _raised(row: Row) -> Row:
    return dataclasses.replace(row, goal=FASTER)


def _same_precision() -> None:
    """Has PyTorch compute convolutions in float32, as our kernels do, and not in TF32.

    Raises:
      Unavailable: PyTorch is not installed.
    """
    jax.devices()  # JAX opens the card first, and takes its share of the memory
    try:
        import torch
    except ImportError:
        raise Unavailable("PyTorch is not installed") from None
    torch.backends.cudnn.allow_tf32 = False
