"""Solves by a truncated Neumann series, exact or stochastic (LiSSA): the influence literature's.

Both converge only where ‖I - step_size (A + damping I)‖ < 1, linearly in the condition number;
`minres` and `cg` need fewer products. They are here to be compared with.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Key

from unlearnkit.base import SolveInfo
from unlearnkit.kernels import _trees
from unlearnkit.kernels._trees import Precision, at_precision, axpy, dot, rayleigh_quotient
from unlearnkit.kernels.solvers import (
    MARGIN,
    Operator,
    Vector,
    check,
    check_number,
    damped,
    dtype_and_eps,
    measure,
    on_unit_scale,
)


@at_precision
def neumann(
    matvec: Operator,
    b: Vector,
    *,
    damping: Any,
    tol: Any,
    max_steps: int,
    step_size: Any,
    precision: Precision = "highest",
) -> tuple[Vector, SolveInfo]:
    """Returns the truncated Neumann series for (A + damping I)⁻¹ b.

    x = s Σ_{j<k} (I - s (A + damping I))^j b, s the step size, until the residual is below `tol`.
    It diverges where s > 2 / ‖A + damping I‖ or A + damping I is not positive definite: the
    residual then says so.

    Args:
      matvec: v -> A v.
      b: right-hand side.
      damping: added to the diagonal.
      tol: wanted ‖b - (A + damping I) x‖ / ‖b‖.
      max_steps: the most terms.
      step_size: s, below 2 / ‖A + damping I‖. Bind it (`functools.partial`) to pass `neumann` where
        a `Solver` is wanted.
      precision: of the matrix products; see `Precision`.

    Returns:
      x like `b`, and how the solve ended.

    Raises:
      ValueError: `b` is not real floating point, `max_steps` < 1, or `tol` or `step_size` < 0.

    Example:
      product = kernels.ggn_operator(apply, params, x, kernels.cross_entropy_hessian)
      settings = {"damping": 0.1, "tol": 1e-2, "max_steps": 200}
      solution, info = kernels.neumann(product, v, step_size=0.5, **settings)

    Source: Lorraine et al. 2020, Optimizing millions of hyperparameters by implicit
    differentiation.
    """
    check(b, tol, max_steps)
    check_number("step_size", step_size)
    system = damped(matvec, damping)
    dtype, _ = dtype_and_eps(b)

    def series(b: Vector) -> tuple[Vector, SolveInfo]:
        rr0 = dot(b, b)

        def proceed(state: tuple[Any, ...]) -> Array:
            _, _, rr, _, step = state
            # A series that has grown a millionfold diverges; NaN compares false and ends it too.
            found: Array = (rr > (MARGIN * tol) ** 2 * rr0) & (rr < 1e12 * rr0) & (step < max_steps)
            return found

        def body(state: tuple[Any, ...]) -> tuple[Any, ...]:
            x, r, _, least, step = state
            ar = system(r)
            least = jnp.fmin(least, rayleigh_quotient(r, ar))
            x, r = axpy(step_size, r, x), axpy(-step_size, ar, r)
            return x, r, dot(r, r), least, step + 1

        start = (_trees.zeros_like(b), b, rr0, jnp.asarray(jnp.nan, dtype), jnp.asarray(0))
        x, _, _, least, step = jax.lax.while_loop(proceed, body, start)
        return x, measure(system, x, b, step, tol, least)

    return on_unit_scale(series, b)


@at_precision
def lissa(
    key: Key[Array, ""],
    sampled_matvec: Callable[[Key[Array, ""], Vector], Vector],
    matvec: Operator,
    b: Vector,
    *,
    damping: Any,
    tol: Any,
    step_size: Any,
    depth: int,
    repeats: int = 1,
    precision: Precision = "highest",
) -> tuple[Vector, SolveInfo]:
    """Returns the LiSSA estimate of (A + damping I)⁻¹ b, from products with samples of A.

    x_{j+1} = x_j + s (b - (A_j + damping I) x_j), A_j an independent, unbiased sample of A, the
    mean over `repeats` runs. One full product at the end gives the true residual.

    Args:
      key: of the samples.
      sampled_matvec: (key, v) -> A_j v, as an HVP over a random mini-batch.
      matvec: v -> A v, used once.
      b: right-hand side.
      damping: added to the diagonal.
      tol: at which residual the solve counts as converged.
      step_size: s, below 2 / ‖A_j + damping I‖ for nearly all samples.
      depth: steps per run.
      repeats: runs averaged.
      precision: of the matrix products; see `Precision`.

    Returns:
      x like `b`, and how the solve ended: `steps` counts the sampled products of all runs, and
      `curvature` is of the full operator along x.

    Raises:
      ValueError: `b` is not real floating point, `depth` or `repeats` < 1, or `step_size` < 0.

    Example:
      def sampled(key, v):
          rows = jax.random.choice(key, len(y), (8,))
          return kernels.hvp(lambda p: loss(p, x[rows], y[rows]), params, v)
      product = kernels.hvp_operator(lambda p: loss(p, x, y), params)
      settings = {"damping": 1.0, "tol": 0.1, "step_size": 0.1, "depth": 50}
      solution, info = kernels.lissa(key, sampled, product, v, **settings)

    Source: Agarwal, Bullins and Hazan 2017; Koh and Liang 2017, §3.
    """
    check(b, tol, depth)
    _trees.check_positive(repeats=repeats)
    check_number("step_size", step_size)

    def estimate(b: Vector) -> tuple[Vector, SolveInfo]:
        def run(run_key: Array) -> Vector:
            def step(x: Vector, step_key: Array) -> tuple[Vector, None]:
                ax = damped(lambda v: sampled_matvec(step_key, v), damping)(x)
                return axpy(step_size, _trees.subtract(b, ax), x), None

            return jax.lax.scan(step, _trees.zeros_like(b), jax.random.split(run_key, depth))[0]

        runs = jax.lax.map(run, jax.random.split(key, repeats))
        x = jax.tree.map(lambda leaf: jnp.mean(leaf, axis=0), runs)
        ax, size = damped(matvec, damping)(x), _trees.norm(b)
        residual = _trees.norm(_trees.subtract(b, ax)) / jnp.where(size == 0, 1, size)
        steps = jnp.asarray(depth * repeats)
        return x, SolveInfo(residual, steps, residual <= tol, rayleigh_quotient(x, ax))

    return on_unit_scale(estimate, b)
