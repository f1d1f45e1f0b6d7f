"""What the iterative solvers share: their contract, and the loop that checks true residuals.

All solve (A + damping I) x = b by products alone, over pytrees, inside jit and vmap. Which one:
`minres` for symmetric A, definite or not (Hessians); `cg` for what is positive semi-definite by
construction (Gauss-Newton, Fisher, Gram, NTK); `cgnr` is what published code does to indefinite
Hessians, at two products per step and the condition number squared. `neumann` and `lissa` are the
influence literature's. None repairs anything: what happened is in the `SolveInfo`.

The right-hand side is solved for in units of a power of two near its largest entry, so that the
relative result does not depend on its scale: 1e-30 in float32 is as good as 1. Where the solution
itself leaves the range of its dtype, the residual is infinite.

The operator is traced into a loop: pass the arrays that it needs as arguments of the compiled
function around the solve, or they become constants of it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, TypeAlias, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array

from unlearnkit.base import SolveInfo
from unlearnkit.kernels import _trees
from unlearnkit.kernels._trees import axpy, norm

Vector: TypeAlias = Any
"""A pytree of real floating-point arrays."""
Scalar: TypeAlias = float | int | Array
Operator: TypeAlias = Callable[[Vector], Vector]
Inner: TypeAlias = Callable[[Vector, Vector], Array]

MARGIN = 0.9
"""A round stops at this fraction of `tol`, since its running residual drifts from the true one."""
HEADWAY = 0.5
"""A round that leaves more than this fraction of the true residual is the last."""


@runtime_checkable
class Solver(Protocol):
    """Solves (A + damping I) x = b by products with A."""

    def __call__(
        self, matvec: Operator, b: Vector, *, damping: Any, tol: Any, max_steps: int
    ) -> tuple[Vector, SolveInfo]:
        """Returns x, and how the solve ended.

        Args:
          matvec: v -> A v, A symmetric.
          b: the right-hand side, a pytree of real floating-point arrays.
          damping: added to the diagonal of A.
          tol: wanted relative residual, ‖b - (A + damping I) x‖ / ‖b‖.
          max_steps: the most products.
        """
        ...


class Progress(NamedTuple):
    """Where a solve stands between two rounds.

    Attributes:
      x: the solution so far.
      r: b - (A + damping I) x, computed from x.
      size: ‖r‖.
      steps: iterations so far.
      curvature: the least p·(A + damping I)p / p·p so far; NaN before the first.
      go: whether another round makes sense.
    """

    x: Vector
    r: Vector
    size: Array
    steps: Array
    curvature: Array
    go: Array


def on_unit_scale(
    solve: Callable[[Vector], tuple[Vector, SolveInfo]], b: Vector
) -> tuple[Vector, SolveInfo]:
    """Returns the solution for b by `solve`, which gets b / s, s a power of two near max |b_i|.

    Squares of what `solve` sees neither vanish nor overflow. x / s is multiplied by s, which is
    exact unless x is out of range; its residual is then infinite, and 1 where b is nothing but
    subnormal numbers, which the arithmetic takes for 0.
    """
    dtype, eps = dtype_and_eps(b)
    unit = _trees.unit(b)
    small, info = solve(_trees.divide(b, unit))
    x = _trees.scale(unit, small)
    back = _trees.subtract(_trees.divide(x, unit), small)
    lost = norm(back) > eps * norm(small)
    ignored = _has_bits(b) & (norm(b) == 0)
    residual = jnp.where(ignored, 1, jnp.where(lost, jnp.inf, info.residual)).astype(dtype)
    return x, info._replace(residual=residual, converged=info.converged & ~lost & ~ignored)


def _has_bits(b: Vector) -> Array:
    """Whether any number in b is other than +0 and -0, to the last bit."""

    def of_leaf(leaf: Array) -> Array:
        unsigned = jnp.dtype(f"uint{8 * leaf.dtype.itemsize}")
        return jnp.any(jax.lax.bitcast_convert_type(leaf, unsigned) << 1 != 0)

    return jnp.any(jnp.stack([of_leaf(jnp.asarray(leaf)) for leaf in jax.tree.leaves(b)]))


def solve_in_rounds(
    one_round: Callable[[Progress, Array], tuple[Vector, Array, Array, Array]],
    system: Operator,
    b: Vector,
    *,
    tol: Any,
    max_steps: int,
    inner: Inner = _trees.dot,
) -> tuple[Vector, SolveInfo]:
    """Returns the solution by rounds of a Krylov method, each begun at the true residual.

    In float32 the residual that a method carries along falls below `tol` where that of x does not;
    the next round then refines x. One product per round besides those of the method, which is the
    one that gives the reported residual.

    Args:
      one_round: (progress, wanted ‖r‖) -> (x, steps, curvature, sound): solves for a correction
        from progress.r, until its running residual is below what is wanted or no step is left.
      system: v -> (A + damping I) v.
      b: right-hand side.
      tol: wanted relative residual.
      max_steps: the most steps of all rounds.
      inner: whose norms are taken.
    """
    dtype, size = dtype_and_eps(b)[0], norm(b, inner)

    def proceed(progress: Progress) -> Array:
        found: Array = progress.go & (progress.size > tol * size) & (progress.steps < max_steps)
        return found

    def body(progress: Progress) -> Progress:
        x, steps, curvature, sound = one_round(progress, MARGIN * tol * size)
        r = _trees.subtract(b, system(x))
        left = norm(r, inner)
        return Progress(x, r, left, steps, curvature, sound & (left < HEADWAY * progress.size))

    start = Progress(
        x=_trees.zeros_like(b),
        r=b,
        size=size,
        steps=jnp.asarray(0),
        curvature=jnp.asarray(jnp.nan, dtype),
        go=jnp.asarray(True),
    )
    end = jax.lax.while_loop(proceed, body, start)
    residual = end.size / jnp.where(size == 0, 1, size)
    return end.x, SolveInfo(residual, end.steps, residual <= tol, end.curvature)


def damped(matvec: Operator, damping: Any) -> Operator:
    """Returns v -> A v + damping v."""
    return lambda v: axpy(damping, v, matvec(v))


def measure(
    system: Operator, x: Vector, b: Vector, steps: Array, tol: Any, curvature: Array
) -> SolveInfo:
    """Returns how a solve ended, by one more product.

    Args:
      system: v -> A v, with the damping in it.
      x: the solution that was found.
      b: the right-hand side, like `x`.
      steps: that it took.
      tol: of ‖b - A x‖ / ‖b‖, up to which it has converged.
      curvature: the least v·A v / v·v that was met.
    """
    size = norm(b)
    residual = norm(_trees.subtract(b, system(x))) / jnp.where(size == 0, 1, size)
    return SolveInfo(residual, steps, residual <= tol, curvature)


def dtype_and_eps(b: Vector) -> tuple[Any, Any]:
    """Returns the dtype of the scalars of a solve for b, and its machine epsilon."""
    dtype = jnp.result_type(*jax.tree.leaves(b))
    return dtype, jnp.finfo(dtype).eps


def check(b: Vector, tol: Any, max_steps: int) -> None:
    """Raises ValueError if no solver can solve it.

    Args:
      b: the right-hand side, a pytree of floating-point arrays.
      tol: wanted relative residual.
      max_steps: the most steps.
    """
    leaves = jax.tree.leaves(b)
    if not leaves:
        raise ValueError("b must hold at least one array, got an empty pytree")
    for leaf in leaves:
        if not jnp.issubdtype(jnp.result_type(leaf), jnp.floating):
            raise ValueError(f"b must be real floating point, got {jnp.result_type(leaf)}; cast it")
    check_number("tol", tol)
    _trees.check_positive(max_steps=max_steps)


def check_number(name: str, value: Any) -> None:
    """Raises ValueError if a number is negative, where it is known before tracing."""
    if isinstance(value, jax.core.Tracer):
        return
    if not value >= 0:
        raise ValueError(f"{name} must be >= 0, got {value}")
