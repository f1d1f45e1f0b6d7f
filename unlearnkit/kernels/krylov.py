"""Krylov solvers: `cg`, `minres` and `cgnr`; see `solvers` for what they share."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array

from unlearnkit.base import SolveInfo
from unlearnkit.kernels import _trees
from unlearnkit.kernels._trees import (
    Precision,
    at_precision,
    axpy,
    divide,
    dot,
    rayleigh_quotient,
    unit,
)
from unlearnkit.kernels.solvers import (
    Inner,
    Operator,
    Progress,
    Vector,
    check,
    check_number,
    damped,
    dtype_and_eps,
    on_unit_scale,
    solve_in_rounds,
)


class _Cg(NamedTuple):
    x: Vector
    r: Vector
    p: Vector
    rz: Array
    rr: Array
    curvature: Array
    largest: Array
    unit: Array
    steps: Array
    sound: Array


@at_precision
def cg(
    matvec: Operator,
    b: Vector,
    *,
    damping: Any,
    tol: Any,
    max_steps: int,
    preconditioner: Operator | None = None,
    inner: Inner | None = None,
    precision: Precision = "highest",
) -> tuple[Vector, SolveInfo]:
    """Returns the solution of (A + damping I) x = b by conjugate gradients, A PSD.

    x_k minimises 1/2 x·(A + damping I) x - b·x over the k-th Krylov space. One product per step and
    one at the end of a round. It stops where it meets a direction p with p·(A + damping I)p <= 0,
    returns the x before it, and `info.curvature` says so.

    Args:
      matvec: v -> A v, symmetric positive semi-definite.
      b: right-hand side.
      damping: added to the diagonal.
      tol: wanted ‖b - (A + damping I) x‖ / ‖b‖.
      max_steps: the most steps.
      preconditioner: r -> M r, symmetric positive definite, close to the inverse of A + damping I.
      inner: (u, v) -> u·v, the inner product in which A and M are symmetric and norms are taken;
        the Euclidean one where None. It may be that of a kernel, as of coefficients of features.
      precision: of the matrix products; see `Precision`.

    Returns:
      x like `b`, and how the solve ended.

    Raises:
      ValueError: `b` is not real floating point, `max_steps` < 1, or `tol` or `damping` < 0.

    Example:
      product = kernels.ggn_operator(apply, params, x, kernels.cross_entropy_hessian)
      solution, info = kernels.cg(product, v, damping=0.1, tol=1e-3, max_steps=100)
      print(info.residual, info.steps, info.converged)

    Source: Hestenes and Stiefel 1952. Unlike `jax.scipy.sparse.linalg.cg` it tests for negative
    curvature and returns the true residual.
    """
    check(b, tol, max_steps)
    check_number("damping", damping)
    system, precondition = damped(matvec, damping), preconditioner or (lambda r: r)
    dtype, eps = dtype_and_eps(b)
    dot = _trees.dot if inner is None else inner

    def step(state: _Cg) -> _Cg:
        ap = system(state.p)
        curvature = rayleigh_quotient(state.p, ap, dot)
        largest = jnp.maximum(state.largest, jnp.abs(curvature))
        # Below this the sign of the curvature is rounding; an exactly singular direction ends here.
        sound = (curvature > eps * largest) & (state.rz > 0)
        alpha = jnp.where(sound, state.rz / dot(state.p, state.p) / curvature, 0)
        x, r = axpy(alpha, state.p, state.x), axpy(-alpha, ap, state.r)
        z = divide(precondition(r), state.unit)
        rz = dot(r, z)
        return _Cg(
            x=x,
            r=r,
            p=axpy(jnp.where(sound, rz / state.rz, 0), state.p, z),
            rz=rz,
            rr=dot(r, r),
            curvature=jnp.fmin(state.curvature, curvature),
            largest=largest,
            unit=state.unit,
            steps=state.steps + 1,
            sound=sound,
        )

    def one_round(progress: Progress, wanted: Array) -> tuple[Vector, Array, Array, Array]:
        r = progress.r
        z = precondition(r)
        # The iterates do not depend on the scale of M; that of p·p and r·M r would.
        size = unit(z)
        z = divide(z, size)
        start = _Cg(
            x=progress.x,
            r=r,
            p=z,
            rz=dot(r, z),
            rr=dot(r, r),
            curvature=progress.curvature,
            largest=jnp.zeros((), dtype),
            unit=size.astype(dtype),
            steps=progress.steps,
            sound=jnp.asarray(True),
        )
        end = jax.lax.while_loop(
            lambda s: s.sound & (s.rr > wanted**2) & (s.steps < max_steps), step, start
        )
        return end.x, end.steps, end.curvature, end.sound

    def solve(b: Vector) -> tuple[Vector, SolveInfo]:
        return solve_in_rounds(one_round, system, b, tol=tol, max_steps=max_steps, inner=dot)

    return on_unit_scale(solve, b)


class _Minres(NamedTuple):
    x: Vector
    v_old: Vector
    v: Vector
    w_old: Vector
    w: Vector
    beta: Array
    dbar: Array
    epsln: Array
    cs: Array
    sn: Array
    phibar: Array
    scale: Array
    curvature: Array
    steps: Array
    sound: Array
    exhausted: Array


@at_precision
def minres(
    matvec: Operator,
    b: Vector,
    *,
    damping: Any,
    tol: Any,
    max_steps: int,
    precision: Precision = "highest",
) -> tuple[Vector, SolveInfo]:
    """Returns the solution of (A + damping I) x = b by MINRES, A symmetric, definite or not.

    x_k minimises ‖b - (A + damping I) x‖ over the k-th Krylov space, so the residual never grows.
    One product per step and one at the end of a round. On a singular, inconsistent system it stops
    at a least-squares solution and does not claim convergence.

    Args:
      matvec: v -> A v, symmetric.
      b: right-hand side.
      damping: added to the diagonal.
      tol: wanted ‖b - (A + damping I) x‖ / ‖b‖.
      max_steps: the most steps.
      precision: of the matrix products; see `Precision`.

    Returns:
      x like `b`, and how the solve ended; `info.curvature` is over the Lanczos vectors.

    Raises:
      ValueError: `b` is not real floating point, `max_steps` < 1, or `tol` < 0.

    Example:
      product = kernels.hvp_operator(lambda p: loss(p, x, y), params)  # perhaps indefinite
      solution, info = kernels.minres(product, v, damping=0.1, tol=1e-3, max_steps=100)

    Source: Paige and Saunders 1975.
    """
    check(b, tol, max_steps)
    system = damped(matvec, damping)
    dtype, eps = dtype_and_eps(b)

    def step(state: _Minres) -> _Minres:
        av = system(state.v)
        alpha = dot(state.v, av)
        y = axpy(-alpha, state.v, axpy(-state.beta, state.v_old, av))
        beta = _trees.norm(y)
        scale = jnp.maximum(state.scale, jnp.hypot(alpha, beta))
        delta = state.cs * state.dbar + state.sn * alpha
        gbar = state.sn * state.dbar - state.cs * alpha
        epsln, dbar = state.sn * beta, -state.cs * beta
        gamma = jnp.hypot(gbar, beta)
        tiny = 10 * eps * scale
        # ‖A r‖ = phibar hypot(gbar, dbar): zero at a least-squares solution, where gamma can vanish
        # too and a further step would divide rounding by rounding.
        sound = (jnp.hypot(gbar, dbar) > tiny) & (gamma > tiny)
        safe = jnp.where(sound, gamma, 1)
        cs, sn = gbar / safe, beta / safe
        w = jax.tree.map(
            lambda v, old, new: (v - state.epsln * old - delta * new) / safe,
            state.v,
            state.w_old,
            state.w,
        )
        phi = jnp.where(sound, cs * state.phibar, 0)
        return _Minres(
            x=axpy(phi, w, state.x),
            v_old=state.v,
            v=_trees.scale(1 / jnp.where(beta > 0, beta, 1), y),
            w_old=state.w,
            w=w,
            beta=beta,
            dbar=dbar,
            epsln=epsln,
            cs=cs,
            sn=sn,
            phibar=jnp.where(sound, jnp.abs(sn) * state.phibar, state.phibar),
            scale=scale,
            curvature=jnp.fmin(state.curvature, alpha),
            steps=state.steps + 1,
            sound=sound,
            exhausted=beta <= tiny,
        )

    def one_round(progress: Progress, wanted: Array) -> tuple[Vector, Array, Array, Array]:
        zero, nothing = jnp.zeros((), dtype), _trees.zeros_like(b)
        size = progress.size
        start = _Minres(
            x=progress.x,
            v_old=nothing,
            v=_trees.scale(1 / jnp.where(size > 0, size, 1), progress.r),
            w_old=nothing,
            w=nothing,
            beta=zero,
            dbar=zero,
            epsln=zero,
            cs=-jnp.ones((), dtype),
            sn=zero,
            phibar=size,
            scale=zero,
            curvature=progress.curvature,
            steps=progress.steps,
            sound=jnp.asarray(True),
            exhausted=jnp.asarray(False),
        )

        def proceed(s: _Minres) -> Array:
            return s.sound & ~s.exhausted & (s.phibar > wanted) & (s.steps < max_steps)

        end = jax.lax.while_loop(proceed, step, start)
        return end.x, end.steps, end.curvature, end.sound

    def solve(b: Vector) -> tuple[Vector, SolveInfo]:
        return solve_in_rounds(one_round, system, b, tol=tol, max_steps=max_steps)

    return on_unit_scale(solve, b)


class _Cgnr(NamedTuple):
    x: Vector
    r: Vector
    s: Vector
    p: Vector
    ss: Array
    rr: Array
    curvature: Array
    scale: Array
    steps: Array
    sound: Array


@at_precision
def cgnr(
    matvec: Operator,
    b: Vector,
    *,
    damping: Any,
    tol: Any,
    max_steps: int,
    precision: Precision = "highest",
) -> tuple[Vector, SolveInfo]:
    """Returns the solution of (A + damping I) x = b by CG on the normal equations, A symmetric.

    (A + damping I)² x = (A + damping I) b. Two products per step and two per round; the residual
    never grows, but falls with the square of the condition number: a baseline for `minres`.

    Args:
      matvec: v -> A v, symmetric.
      b: right-hand side.
      damping: added to the diagonal.
      tol: wanted ‖b - (A + damping I) x‖ / ‖b‖, of the system and not of its normal equations.
      max_steps: the most steps.
      precision: of the matrix products; see `Precision`.

    Returns:
      x like `b`, and how the solve ended.

    Raises:
      ValueError: `b` is not real floating point, `max_steps` < 1, or `tol` < 0.

    Example:
      product = kernels.hvp_operator(lambda p: loss(p, x, y), params)
      solution, info = kernels.cgnr(product, v, damping=0.1, tol=1e-2, max_steps=100)

    Source: Hestenes and Stiefel 1952, §10; the reference code of Lu et al. 2022.
    """
    check(b, tol, max_steps)
    system = damped(matvec, damping)
    dtype, _ = dtype_and_eps(b)

    def step(state: _Cgnr) -> _Cgnr:
        q = divide(system(state.p), state.scale)
        qq = dot(q, q)
        sound = qq > 0
        alpha = jnp.where(sound, state.ss / jnp.where(sound, qq, 1), 0)
        r = axpy(-alpha, q, state.r)
        s = divide(system(r), state.scale)
        ss = dot(s, s)
        return _Cgnr(
            x=axpy(alpha / state.scale, state.p, state.x),
            r=r,
            s=s,
            p=axpy(ss / state.ss, state.p, s),
            ss=ss,
            rr=dot(r, r),
            curvature=jnp.fmin(state.curvature, state.scale * rayleigh_quotient(state.p, q)),
            scale=state.scale,
            steps=state.steps + 1,
            sound=sound & (ss > 0),
        )

    def one_round(progress: Progress, wanted: Array) -> tuple[Vector, Array, Array, Array]:
        s = system(progress.r)
        # In units of A its square neither vanishes nor overflows.
        scale = unit(s) / unit(progress.r)
        s = divide(s, scale)
        ss = dot(s, s)
        start = _Cgnr(
            x=progress.x,
            r=progress.r,
            s=s,
            p=s,
            ss=ss,
            rr=progress.size**2,
            curvature=progress.curvature,
            scale=scale.astype(dtype),
            steps=progress.steps,
            sound=ss > 0,
        )
        end = jax.lax.while_loop(
            lambda s: s.sound & (s.rr > wanted**2) & (s.steps < max_steps), step, start
        )
        return end.x, end.steps, end.curvature, end.sound

    def solve(b: Vector) -> tuple[Vector, SolveInfo]:
        return solve_in_rounds(one_round, system, b, tol=tol, max_steps=max_steps)

    return on_unit_scale(solve, b)
