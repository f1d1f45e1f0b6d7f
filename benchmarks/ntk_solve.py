"""Products to solve (J Jᵀ + damping I) v = r for a trained LeNet, set-up included.

n 500 x 10 outputs of MNIST, damping 0.1 n and 0.01 n, to a relative residual of 1e-3. A product is
one Jacobian-vector and one vector-Jacobian product over the 500 inputs. Set-up is counted in
products too: a block of k columns as k, all per-example Jacobians as c = 10 (they are 10
vector-Jacobian products); wall time, which also holds the dense algebra, stands beside it. About
five minutes on two idle cores.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from benchmarks import problems
from benchmarks.frame import Row, Timing, compare
from unlearnkit import kernels

N, TOL, STEPS = 500, 1e-3, 400
GOALS = {0.1: 60, 0.01: 150}
CLASSES = 10


def run() -> list[Row]:
    """Returns one row per damping and preconditioner; the goals stand at the one that we ship."""
    x, y, _ = problems.mnist(20_000)
    params = problems.train(
        problems.apply_lenet, problems.init_lenet(jax.random.key(0)), x, y, epochs=1
    )
    inputs = jnp.asarray(x[:N])
    logits = problems.apply_lenet(params, inputs)
    errors = jax.nn.one_hot(y[:N], CLASSES) - jax.nn.softmax(logits)
    rows = []
    for fraction, goal in GOALS.items():
        damping = fraction * N
        plain: Timing | None = None
        for name, (products, build) in _preconditioners(params, inputs, damping).items():
            row = _row(name, products, build, params, inputs, errors, damping, plain)
            plain = plain or row.ours
            shipped = name == "sketched Jacobians, rank 2,048"
            rows.append(dataclasses.replace(row, goal=goal) if shipped else row)
    return rows


def _preconditioners(
    params: Any, x: jax.Array, damping: float
) -> dict[str, tuple[int, Callable[[], Any]]]:
    """Returns by name: the products that the set-up costs, and the set-up."""
    key, apply = jax.random.key(1), problems.apply_lenet

    def nystrom(rank: int) -> Any:
        return _nystrom(params, x, key, rank, damping)

    def sketch(rank: int) -> Any:
        return kernels.sketched_ntk(key, apply, params, x, damping=damping, rank=rank)

    return {
        "none": (0, lambda: None),
        "Jacobi": (CLASSES, lambda: _diagonal(params, x, damping)),
        "Nyström, rank 20": (20, partial(nystrom, 20)),
        "Nyström, rank 60": (60, partial(nystrom, 60)),
        "sketched Jacobians, rank 512": (CLASSES, partial(sketch, 512)),
        "sketched Jacobians, rank 1,024": (CLASSES, partial(sketch, 1024)),
        "sketched Jacobians, rank 2,048": (CLASSES, partial(sketch, 2048)),
    }


def _row(
    name: str,
    products: int,
    build: Callable[[], Any],
    params: Any,
    x: jax.Array,
    r: jax.Array,
    damping: float,
    plain: Timing | None,
) -> Row:
    def solve() -> Any:
        return _solve(params, x, r, damping, build())

    timing = compare({"ours": solve}, repeats=1)["ours"]
    _, info = solve()
    steps = int(info.steps)
    reached = "" if bool(info.converged) else f", not converged in {steps} steps"
    return Row(
        f"NTK solve, products to {TOL:g}",
        f"LeNet, n {N}, damping {damping / N:g} n",
        timing,
        "" if plain is None else "plain CG",
        plain,
        value=products + steps + 1,
        lower_is_better=True,
        accuracy=f"residual {float(info.residual):.2g}{reached}",
        note=f"{name}: {products} products to set up",
    )


@jax.jit
def _solve(params: Any, x: jax.Array, r: jax.Array, damping: Any, preconditioner: Any) -> Any:
    operator = kernels.ntk_operator(problems.apply_lenet, params, x, damping=0.0)
    return kernels.cg(
        operator, r, damping=damping, tol=TOL, max_steps=STEPS, preconditioner=preconditioner
    )


@partial(jax.jit, static_argnums=3)
def _nystrom(params: Any, x: jax.Array, key: jax.Array, rank: int, damping: Any) -> Any:
    operator = kernels.ntk_operator(problems.apply_lenet, params, x, damping=0.0)
    like = jnp.zeros((len(x), CLASSES))
    return kernels.nystrom(key, operator, like, rank=rank, shift=damping)


def _diagonal(params: Any, x: jax.Array, damping: float) -> Any:
    """The exact diagonal of J Jᵀ, as the preconditioner v -> v / (diagonal + damping)."""
    parts = [_squares(params, x[start : start + 50]) for start in range(0, len(x), 50)]
    return jax.tree_util.Partial(_divide, jnp.concatenate(parts) + damping)


def _divide(diagonal: jax.Array, r: jax.Array) -> jax.Array:
    return r / diagonal


@jax.jit
def _squares(params: Any, x: jax.Array) -> jax.Array:
    leaves = jax.tree.leaves(kernels.jacobian(problems.apply_lenet, params, x))
    squares = [jnp.sum(leaf.reshape(len(x), CLASSES, -1) ** 2, axis=-1) for leaf in leaves]
    return jnp.sum(jnp.stack(squares), axis=0)


if __name__ == "__main__":
    from benchmarks.frame import markdown

    print(markdown(run()))
