"""Solvers of the Stackelberg game max_x l(x, w*(x)), w*(x) = argmin_w f(x, w), as init and step.

Each is built of two losses and two optax optimizers and returns a `GameSolver`:

    solver = tgda(leader_loss, follower_loss, optax.sgd(0.1), optax.sgd(0.1), damping=1.0)
    state = solver.init(leader, follower)
    state, info = jax.jit(solver.step)(state, *batch)

Losses are called as loss(leader, follower, *batch). The leader ascends, the follower descends.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array

from unlearnkit.base import SolveInfo
from unlearnkit.kernels import _trees, solvers
from unlearnkit.kernels._trees import Precision, at_precision
from unlearnkit.kernels.total_gradient import (
    Player,
    get_solver,
    linearise,
    response_gradient,
    through_response,
    total_gradient,
)
from unlearnkit.validation import check_choice

BatchLoss = Callable[..., Array]


class GameState(NamedTuple):
    """What the next step needs.

    Attributes:
      leader: x.
      follower: w.
      leader_optimizer: its optax state.
      follower_optimizer: its optax state; empty for Gradient Descent Newton.
    """

    leader: Player
    follower: Player
    leader_optimizer: Any
    follower_optimizer: Any


class GameInfo(NamedTuple):
    """Diagnostics of a step.

    Attributes:
      leader_loss: l before the step.
      follower_loss: f before the step.
      leader_gradient_norm: ‖D_x l‖.
      follower_gradient_norm: ‖∇_w f‖ before the step, 0 on the ridge.
      solves: the linear solves of the step, in order; none for unrolling.
    """

    leader_loss: Array
    follower_loss: Array
    leader_gradient_norm: Array
    follower_gradient_norm: Array
    solves: tuple[SolveInfo, ...]


class GameSolver(NamedTuple):
    """A pair of pure functions.

    Attributes:
      init: (leader, follower) -> GameState.
      step: (GameState, *batch) -> (GameState, GameInfo).
    """

    init: Callable[[Player, Player], GameState]
    step: Callable[..., tuple[GameState, GameInfo]]


def tgda(
    leader_loss: BatchLoss,
    follower_loss: BatchLoss,
    leader_optimizer: optax.GradientTransformation,
    follower_optimizer: optax.GradientTransformation,
    *,
    damping: Any = 0.0,
    tol: Any = 1e-3,
    max_steps: int = 20,
    solver: str | solvers.Solver = "minres",
    hessian_loss: BatchLoss | None = None,
    inverse: Callable[..., solvers.Operator] | None = None,
    precision: Precision = "highest",
) -> GameSolver:
    """Returns total gradient descent ascent.

    x <- x + eta_x D_x l(x, w),   w <- w - eta_w ∇_w f(x, w),   both at the old point.

    Args:
      leader_loss: (leader, follower, *batch) -> scalar l.
      follower_loss: (leader, follower, *batch) -> scalar f.
      leader_optimizer: makes a descent step of -D_x l.
      follower_optimizer: makes a descent step of ∇_w f.
      damping: of the solve; see `total_gradient` for this and the next three.
      tol: wanted relative residual.
      max_steps: the most steps of the solve.
      solver: by name, or a `Solver`.
      hessian_loss: (leader, follower, *batch) -> scalar, whose Hessian is solved in the place of
        f's; see `total_gradient`.
      inverse: (leader, follower, *batch) -> (v -> P v), an approximation of the inverse Hessian in
        the place of the solve, as by `kfac_inverse`; see `response_gradient`.
      precision: of the matrix products of D_x l.

    Raises:
      ValueError: no solver has that name.

    Example:
      def gains(leader, follower):
          return -jnp.sum((leader - follower) ** 2)
      def loses(leader, follower):
          return jnp.sum((follower - 1) ** 2 + leader * follower)
      game = kernels.tgda(gains, loses, optax.sgd(0.1), optax.sgd(0.1))
      state = game.init(jnp.zeros(2), jnp.zeros(2))
      state, info = jax.jit(game.step)(state)

    Source: Lu et al. 2022, equations (15) and (16).
    """
    get_solver(solver)

    def step(state: GameState, *batch: Any) -> tuple[GameState, GameInfo]:
        outer, inner = _bind(leader_loss, batch), _bind(follower_loss, batch)
        players = state.leader, state.follower
        solves: tuple[SolveInfo, ...] = ()
        if inverse is None:
            part = None if hessian_loss is None else _bind(hessian_loss, batch)
            gradient, solve = total_gradient(
                outer,
                inner,
                *players,
                damping=damping,
                tol=tol,
                max_steps=max_steps,
                solver=solver,
                hessian_loss=part,
                precision=precision,
            )
            solves = (solve,)
        else:
            near = inverse(*players, *batch)
            gradient = response_gradient(outer, inner, *players, near, precision=precision)
        leader_move, leader_state = _ascend(leader_optimizer, gradient, state)
        slope = jax.grad(inner, argnums=1)(state.leader, state.follower)
        follower_move, follower_state = follower_optimizer.update(
            slope, state.follower_optimizer, state.follower
        )
        new = _moved(state, leader_move, follower_move, leader_state, follower_state)
        return new, _read(outer, inner, state, gradient, slope, solves)

    return GameSolver(_init(leader_optimizer, follower_optimizer), step)


def follow_the_ridge(
    leader_loss: BatchLoss,
    follower_loss: BatchLoss,
    leader_optimizer: optax.GradientTransformation,
    follower_optimizer: optax.GradientTransformation,
    *,
    damping: Any = 0.0,
    tol: Any = 1e-3,
    max_steps: int = 20,
    solver: str | solvers.Solver = "minres",
    precision: Precision = "highest",
) -> GameSolver:
    """Returns follow-the-ridge: the follower also moves along its own best response.

    Δx = eta_x D_x l,   Δw = -eta_w ∇_w f - (∇_ww f + damping I)⁻¹ ∇_wx f Δx

    Args:
      leader_loss: (leader, follower, *batch) -> scalar l.
      follower_loss: (leader, follower, *batch) -> scalar f.
      leader_optimizer: makes a descent step of -D_x l.
      follower_optimizer: makes a descent step of ∇_w f.
      damping: of both solves of a step; see `total_gradient` for this and the next three.
      tol: wanted relative residual.
      max_steps: the most steps of a solve.
      solver: by name, or a `Solver`.
      precision: of the matrix products of D_x l and of the response.

    Raises:
      ValueError: no solver has that name.

    Example:
      game = kernels.follow_the_ridge(gains, loses, optax.sgd(0.1), optax.sgd(0.1))  # as in `tgda`
      state, info = game.step(game.init(jnp.zeros(2), jnp.zeros(2)))

    Source: Wang, Zhang and Ba 2020; Lu et al. 2022, equations (48) and (49). The paper prints +
    before the last term, which is right for a leader that descends; its leader ascends, and the
    ridge dw* = -(∇_ww f)⁻¹ ∇_wx f dx then has a minus. Δx is the step that the optimizer really
    made.
    """
    solve = get_solver(solver)
    check_choice("precision", precision, Precision)

    def step(state: GameState, *batch: Any) -> tuple[GameState, GameInfo]:
        outer, inner = _bind(leader_loss, batch), _bind(follower_loss, batch)
        settings = {"damping": damping, "tol": tol, "max_steps": max_steps}
        with jax.default_matmul_precision(precision):
            game = linearise(inner, state.leader, state.follower, precision=precision)
            gradient, first = through_response(
                game, outer, state.leader, state.follower, solve, settings
            )
            leader_move, leader_state = _ascend(leader_optimizer, gradient, state)
            slope_of = jax.grad(inner, argnums=1)
            _, pushed = jax.jvp(
                lambda x: slope_of(x, state.follower), (state.leader,), (leader_move,)
            )
            along, second = solve(game.hessian, pushed, **settings)
        slope = game.follower_gradient
        follower_move, follower_state = follower_optimizer.update(
            slope, state.follower_optimizer, state.follower
        )
        follower_move = _trees.subtract(follower_move, along)
        new = _moved(state, leader_move, follower_move, leader_state, follower_state)
        return new, _read(outer, inner, state, gradient, slope, (first, second))

    return GameSolver(_init(leader_optimizer, follower_optimizer), step)


def gradient_descent_newton(
    leader_loss: BatchLoss,
    follower_loss: BatchLoss,
    leader_optimizer: optax.GradientTransformation,
    *,
    newton_rate: Any = 1.0,
    damping: Any = 0.0,
    tol: Any = 1e-3,
    max_steps: int = 20,
    solver: str | solvers.Solver = "minres",
    precision: Precision = "highest",
) -> GameSolver:
    """Returns gradient-descent-Newton: the follower answers the new x by a Newton step.

    x' = x + eta_x D_x l(x, w),   w' = w - newton_rate (∇_ww f(x', w) + damping I)⁻¹ ∇_w f(x', w)

    Args:
      leader_loss: (leader, follower, *batch) -> scalar l.
      follower_loss: (leader, follower, *batch) -> scalar f.
      leader_optimizer: makes a descent step of -D_x l.
      newton_rate: 1 for the full Newton step.
      damping: of both solves of a step; see `total_gradient` for this and the next three.
      tol: wanted relative residual.
      max_steps: the most steps of a solve.
      solver: by name, or a `Solver`.
      precision: of the matrix products of D_x l and of the response.

    Raises:
      ValueError: no solver has that name.

    Example:
      game = kernels.gradient_descent_newton(gains, loses, optax.sgd(0.1))  # as in `tgda`
      state, info = game.step(game.init(jnp.zeros(2), jnp.zeros(2)))

    Source: Zhang et al. 2021; Lu et al. 2022, equations (50) and (51), who evaluate the Newton
    step at the old x: we take the new one, of which follow-the-ridge is a first-order
    approximation.
    """
    solve = get_solver(solver)
    check_choice("precision", precision, Precision)

    def step(state: GameState, *batch: Any) -> tuple[GameState, GameInfo]:
        outer, inner = _bind(leader_loss, batch), _bind(follower_loss, batch)
        settings = {"damping": damping, "tol": tol, "max_steps": max_steps}
        with jax.default_matmul_precision(precision):
            before = linearise(inner, state.leader, state.follower, precision=precision)
            gradient, first = through_response(
                before, outer, state.leader, state.follower, solve, settings
            )
            leader_move, leader_state = _ascend(leader_optimizer, gradient, state)
            leader = optax.apply_updates(state.leader, leader_move)
            after = linearise(inner, leader, state.follower, precision=precision)
            newton, second = solve(after.hessian, after.follower_gradient, **settings)
        follower_move = _trees.scale(-newton_rate, newton)
        new = _moved(state, leader_move, follower_move, leader_state, state.follower_optimizer)
        slope = before.follower_gradient
        return new, _read(outer, inner, state, gradient, slope, (first, second))

    return GameSolver(_init(leader_optimizer, optax.identity()), step)


def ugda(
    leader_loss: BatchLoss,
    follower_loss: BatchLoss,
    leader_optimizer: optax.GradientTransformation,
    follower_optimizer: optax.GradientTransformation,
    *,
    unroll_steps: int,
    unroll_rate: Any,
    precision: Precision = "highest",
) -> GameSolver:
    """Returns k-step unrolled gradient descent ascent.

    x <- x + eta_x d/dx l(x, w_k(x)),   w <- w - eta_w ∇_w f(x, w),   w_k as in `unrolled_gradient`.

    Args:
      leader_loss: (leader, follower, *batch) -> scalar l.
      follower_loss: (leader, follower, *batch) -> scalar f.
      leader_optimizer: makes a descent step of -D_x l.
      follower_optimizer: makes a descent step of ∇_w f.
      unroll_steps: `steps` of `unrolled_gradient`.
      unroll_rate: `rate` of `unrolled_gradient`.
      precision: of the matrix products of the gradient.

    Raises:
      ValueError: `unroll_steps` < 0.

    Example:
      rates = {"unroll_steps": 5, "unroll_rate": 0.1}
      game = kernels.ugda(gains, loses, optax.sgd(0.1), optax.sgd(0.1), **rates)  # as in `tgda`
      state, info = game.step(game.init(jnp.zeros(2), jnp.zeros(2)))

    Source: Lu et al. 2022, equations (10) and (11); Metz et al. 2017. With k -> infinity it is
    TGDA.
    """
    _check_steps(unroll_steps)

    def step(state: GameState, *batch: Any) -> tuple[GameState, GameInfo]:
        outer, inner = _bind(leader_loss, batch), _bind(follower_loss, batch)
        gradient = unrolled_gradient(
            outer,
            inner,
            state.leader,
            state.follower,
            steps=unroll_steps,
            rate=unroll_rate,
            precision=precision,
        )
        leader_move, leader_state = _ascend(leader_optimizer, gradient, state)
        slope = jax.grad(inner, argnums=1)(state.leader, state.follower)
        follower_move, follower_state = follower_optimizer.update(
            slope, state.follower_optimizer, state.follower
        )
        new = _moved(state, leader_move, follower_move, leader_state, follower_state)
        return new, _read(outer, inner, state, gradient, slope, ())

    return GameSolver(_init(leader_optimizer, follower_optimizer), step)


@at_precision
def unrolled_gradient(
    leader_loss: BatchLoss,
    follower_loss: BatchLoss,
    leader: Player,
    follower: Player,
    *,
    steps: int,
    rate: Any,
    precision: Precision = "highest",
) -> Player:
    """Returns the gradient of the leader's loss through k gradient steps of the follower.

    d/dx l(x, w_k(x)),   w_0 = w,   w_{j+1} = w_j - rate ∇_w f(x, w_j)

    Args:
      leader_loss: (leader, follower) -> scalar l.
      follower_loss: (leader, follower) -> scalar f.
      leader: x.
      follower: w.
      steps: k; memory grows with it.
      rate: the follower's step size.
      precision: of the matrix products; see `Precision`.

    Returns:
      The gradient, like `leader`.

    Raises:
      ValueError: `steps` < 0.

    Example:
      def follows(leader, follower):
          return jnp.sum((follower - leader) ** 2)
      def leads(leader, follower):
          return jnp.sum(follower**2)
      ones = jnp.ones(3)
      gradient = kernels.unrolled_gradient(leads, follows, ones, ones, steps=5, rate=0.1)

    Source: Lu et al. 2022, equation (10).
    """
    _check_steps(steps)

    def response(x: Player) -> Array:
        def descend(w: Player, _: None) -> tuple[Player, None]:
            return _trees.axpy(-rate, jax.grad(follower_loss, argnums=1)(x, w), w), None

        # Unrolled: gradients of convolutions in a loop's body are ~30 times slower on CPUs.
        return leader_loss(x, jax.lax.scan(descend, follower, length=steps, unroll=True)[0])

    return jax.grad(response)(leader)


def _bind(loss: BatchLoss, batch: tuple[Any, ...]) -> BatchLoss:
    return partial(_call, loss, batch)


def _call(loss: BatchLoss, batch: tuple[Any, ...], leader: Player, follower: Player) -> Array:
    return loss(leader, follower, *batch)


def _init(
    leader_optimizer: optax.GradientTransformation, follower_optimizer: optax.GradientTransformation
) -> Callable[[Player, Player], GameState]:
    def init(leader: Player, follower: Player) -> GameState:
        return GameState(
            leader, follower, leader_optimizer.init(leader), follower_optimizer.init(follower)
        )

    return init


def _ascend(
    optimizer: optax.GradientTransformation, gradient: Player, state: GameState
) -> tuple[Player, Any]:
    downhill = jax.tree.map(jnp.negative, gradient)
    updates, memory = optimizer.update(downhill, state.leader_optimizer, state.leader)
    return updates, memory


def _moved(
    state: GameState, leader_move: Player, follower_move: Player, leader_state: Any, follower: Any
) -> GameState:
    return GameState(
        optax.apply_updates(state.leader, leader_move),
        optax.apply_updates(state.follower, follower_move),
        leader_state,
        follower,
    )


def _read(
    outer: BatchLoss,
    inner: BatchLoss,
    state: GameState,
    gradient: Player,
    slope: Player,
    solves: tuple[SolveInfo, ...],
) -> GameInfo:
    return GameInfo(
        outer(state.leader, state.follower),
        inner(state.leader, state.follower),
        _trees.norm(gradient),
        _trees.norm(slope),
        solves,
    )


def _check_steps(steps: int) -> None:
    if steps < 0:
        raise ValueError(f"the number of unrolled steps must be >= 0, got {steps}")
