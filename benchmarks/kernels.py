"""Total gradients, HVPs, per-example gradients and the NTK product, against PyTorch and theory.

Run with `python -m benchmarks kernels`: a few minutes on two cores. On an accelerator PyTorch runs
there too where its build can.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import problems
from benchmarks.frame import Row, Timing, compare
from unlearnkit import kernels
from unlearnkit.base import Dataset

BATCH, POISONED = 1000, 0.3
STEPS = 16
"""CGNR steps of the published code: 34 products."""


def networks(n: int) -> dict[str, tuple[problems.Apply, Any, np.ndarray, np.ndarray]]:
    """Returns each network trained for one epoch on n images, with the images."""
    x, y, _ = problems.mnist(n)
    mlp = problems.init_mlp(jax.random.key(0))
    lenet = problems.init_lenet(jax.random.key(0))
    return {
        "NN 784-784-784-10": (
            problems.apply_mlp,
            problems.train(problems.apply_mlp, mlp, x, y, epochs=1),
            x,
            y,
        ),
        "LeNet": (
            problems.apply_lenet,
            problems.train(problems.apply_lenet, lenet, x, y, epochs=1),
            x,
            y,
        ),
    }


def run() -> list[Row]:
    rows = []
    for name, (apply, params, x, y) in networks(10_000).items():
        rows.append(total_gradient_row(name, apply, params, x, y))
        rows += hvp_rows(name, apply, params, x[:BATCH], y[:BATCH])
    rows.append(per_example_row(apply, params, x[:2000], y[:2000]))
    rows.append(gram_row(apply, params, x[:2000], y[:2000]))
    rows.append(memory_row(apply, params, x))
    return rows


def total_gradient_row(
    name: str,
    apply: problems.Apply,
    params: Any,
    x: np.ndarray,
    y: np.ndarray,
    *,
    batch: int = BATCH,
    repeats: int = 5,
) -> Row:
    """The peer runs its published number of steps; we run to the residual that it reaches."""
    poisoned = round(POISONED * batch)
    clean = slice(0, batch - poisoned)
    poison, labels = x[batch : batch + poisoned], (y[batch : batch + poisoned] + 1) % 10
    held_out = slice(2 * batch, 3 * batch)
    damping = 0.0
    size = f"{name}, batch {batch:,}"
    theirs, synchronise = _torch_total_gradient(
        name, params, (poison, labels), (x[clean], y[clean]), (x[held_out], y[held_out]), damping
    )
    reference, residual = theirs()

    @jax.jit
    def ours(leader: Any, follower: Any, data: tuple[Any, ...]) -> Any:
        labels, clean_x, clean_y, held_x, held_y, tol = data

        def follower_loss(leader: Any, follower: Any) -> Any:
            inputs = jnp.concatenate([clean_x, leader])
            return problems.cross_entropy(
                apply(follower, inputs), jnp.concatenate([clean_y, labels])
            )

        def leader_loss(_: Any, follower: Any) -> Any:
            return problems.cross_entropy(apply(follower, held_x), held_y)

        return kernels.total_gradient(
            leader_loss, follower_loss, leader, follower, damping=damping, tol=tol, max_steps=200
        )

    data = jax.device_put(
        (labels, x[clean], y[clean], x[held_out], y[held_out], np.float32(residual))
    )
    leader = jnp.asarray(poison)
    gradient, info = ours(leader, params, data)

    def call_theirs() -> None:
        theirs()
        synchronise()

    calls = {"ours": lambda: ours(leader, params, data), "torch": call_theirs}
    timings = compare(calls, repeats=repeats)
    cosine = _cosine(np.ravel(gradient), np.ravel(reference))
    return Row(
        "total gradient",
        size,
        timings["ours"],
        "PyTorch double backward, CG on the normal equations",
        timings["torch"],
        goal=4,
        accuracy=f"residual {float(info.residual):.3g}, {int(info.steps)} steps",
        peer_accuracy=f"residual {residual:.3g}, {STEPS} steps",
        note=f"{2 * STEPS + 2} products of theirs; cosine of the two results {cosine:.3f}",
    )


def _torch_total_gradient(
    name: str, params: Any, poison: Any, clean: Any, held_out: Any, damping: float
) -> tuple[Callable[[], tuple[np.ndarray, float]], Callable[[], None]]:
    from benchmarks.peers import torch_models as peer

    lenet = name == "LeNet"
    apply = peer.apply_lenet if lenet else peer.apply_mlp
    weights = (peer.lenet_params if lenet else peer.mlp_params)(params)

    def pair(data: tuple[np.ndarray, np.ndarray]) -> Any:
        return peer.tensor(data[0]), peer.tensor(data[1].astype(np.int64))

    (poison_x, poison_y), clean_pair, held_pair = pair(poison), pair(clean), pair(held_out)

    def call() -> tuple[np.ndarray, float]:
        gradient, residual = peer.total_gradient(
            apply,
            weights,
            poison_x,
            poison_y,
            clean_pair,
            held_pair,
            damping=damping,
            steps=STEPS,
        )
        return gradient.cpu().numpy(), residual

    return call, peer.synchronise


def hvp_rows(
    name: str, apply: problems.Apply, params: Any, x: np.ndarray, y: np.ndarray
) -> list[Row]:
    """The time of a Hessian-vector product over that of a gradient, alone and linearised."""
    data = jax.device_put((x, y))
    many = 10

    def loss(params: Any, x: Any, y: Any) -> Any:
        return problems.cross_entropy(apply(params, x), y)

    @jax.jit
    def gradient(params: Any, x: Any, y: Any) -> Any:
        with jax.default_matmul_precision("highest"):
            return jax.grad(loss)(params, x, y)

    @jax.jit
    def product(params: Any, x: Any, y: Any, vector: Any) -> Any:
        return kernels.hvp(lambda p: loss(p, x, y), params, vector)

    @partial(jax.jit, static_argnums=4)
    def linearised(params: Any, x: Any, y: Any, vector: Any, count: int) -> Any:
        matvec = kernels.hvp_operator(lambda p: loss(p, x, y), params)
        return jax.lax.fori_loop(0, count, lambda _, v: matvec(v), vector)

    vector = jax.tree.map(lambda leaf: leaf / 10, params)
    timings = compare(
        {
            "gradient": lambda: gradient(params, *data),
            "hvp": lambda: product(params, *data, vector),
            "few": lambda: linearised(params, *data, vector, 1),
            "many": lambda: linearised(params, *data, vector, 1 + many),
        },
        repeats=7,
    )
    base = timings["gradient"]
    seconds = (timings["many"].least - timings["few"].least) / many
    each = Timing(seconds, seconds, many, timings["many"].compile_seconds)
    size = f"{name}, batch {len(y):,}"
    shared: dict[str, Any] = {"peer_name": "gradient", "peer": base, "lower_is_better": True}
    ratios = timings["hvp"].least / base.least, seconds / base.least
    return [
        Row("HVP / gradient", size, timings["hvp"], value=ratios[0], goal=2.5, **shared),
        Row("HVP / gradient, linearised", size, each, value=ratios[1], goal=1.5, **shared),
    ]


def per_example_row(
    apply: problems.Apply, params: Any, x: np.ndarray, y: np.ndarray, *, repeats: int = 5
) -> Row:
    """Ours fills one [n, p] array; the peer returns its gradients apart, at its best chunk."""
    from benchmarks.peers import torch_models as peer

    def loss(params: Any, x: Any, y: Any) -> Any:
        return problems.cross_entropy(apply(params, x), y)

    dataset = Dataset(jnp.asarray(x), jnp.asarray(y))
    weights = peer.lenet_params(params)
    inputs, labels = peer.tensor(x), peer.tensor(y.astype(np.int64))

    def theirs(chunk: int | None) -> Any:
        gradients = peer.per_example_gradients(
            peer.apply_lenet, weights, inputs, labels, chunk=chunk
        )
        peer.synchronise()
        return gradients

    calls: dict[str, Callable[[], Any]] = {
        f"torch {chunk}": partial(_discard, partial(theirs, chunk)) for chunk in (None, 100, 500)
    }
    calls["ours"] = lambda: kernels.gradient_bank(loss, params, dataset)

    @jax.jit
    def vmap_of_grad(params: Any, x: Any, y: Any) -> Any:
        return jax.vmap(lambda a, b: jax.grad(loss)(params, a[None], b[None]))(x, y)

    calls["plain"] = lambda: vmap_of_grad(params, dataset.x, dataset.y)
    timings = compare(calls, repeats=repeats)
    best = min((name for name in calls if "torch" in name), key=lambda n: timings[n].seconds)
    bank, reference = calls["ours"](), theirs(100)
    column = bank[:, -84:] - jnp.asarray(reference["fc2.weight"].cpu().numpy()[:, :, -1])
    against_plain = timings["plain"].seconds / timings["ours"].seconds
    return Row(
        "per-example gradients",
        f"LeNet, n {len(y):,}",
        timings["ours"],
        "torch.func vmap(grad), " + best.removeprefix("torch ").replace("None", "one") + " a chunk",
        timings[best],
        goal=1.5,
        accuracy=f"differs by {float(jnp.abs(column).max()):.1e}",
        note=f"{against_plain:.2f} times as fast as one plain vmap(grad) of our own",
    )


def gram_row(
    apply: problems.Apply, params: Any, x: np.ndarray, y: np.ndarray, *, repeats: int = 5
) -> Row:
    """The inner products of all per-example gradients; the peer multiplies its bank."""
    from benchmarks.peers import torch_models as peer

    def loss(params: Any, x: Any, y: Any) -> Any:
        return problems.cross_entropy(apply(params, x), y)

    gradients = kernels.GradientOperator(loss, params, Dataset(jnp.asarray(x), jnp.asarray(y)))
    weights = peer.lenet_params(params)
    inputs, labels = peer.tensor(x), peer.tensor(y.astype(np.int64))
    answers: dict[str, Any] = {}

    def ours() -> Any:
        answers["ours"] = kernels.gram(gradients)
        return answers["ours"]

    def theirs() -> None:
        rows = peer.per_example_gradients(peer.apply_lenet, weights, inputs, labels, chunk=500)
        answers["torch"] = peer.gram(rows)
        peer.synchronise()

    timings = compare({"ours": ours, "torch": theirs}, repeats=repeats)
    reference = answers["torch"].cpu().numpy()
    error = np.abs(np.asarray(answers["ours"]) - reference).max() / np.abs(reference).max()
    return Row(
        "Gram matrix of gradients",
        f"LeNet, n {len(y):,}",
        timings["ours"],
        "torch.func vmap(grad), 500 a chunk, and one matrix product",
        timings["torch"],
        accuracy=f"differs by {error:.1e} of the largest entry",
        note="dense layers by their factors, no row formed",
    )


def _discard(call: Callable[[], Any]) -> None:
    call()


def memory_row(apply: problems.Apply, params: Any, x: np.ndarray) -> Row:
    """Temporary memory of a chunked NTK product at 8 times the inputs, by XLA's own account."""

    def temporary(n: int) -> int:
        def product(params: Any, x: Any, v: Any) -> Any:
            return kernels.ntk_operator(apply, params, x, damping=1.0, chunk=100)(v)

        shapes = params, jnp.zeros((n, *x.shape[1:])), jnp.zeros((n, 10))
        analysis = jax.jit(product).lower(*shapes).compile().memory_analysis()
        assert analysis is not None, "this backend does not report its memory"
        return analysis.temp_size_in_bytes

    small, large = temporary(500), temporary(4000)
    return Row(
        "NTK product, memory of n 4,000 over n 500",
        "LeNet, chunk 100",
        value=large / small,
        goal=1.2,
        lower_is_better=True,
        note=f"{small / 2**20:.1f} MiB and {large / 2**20:.1f} MiB of temporaries",
    )


def _cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))
