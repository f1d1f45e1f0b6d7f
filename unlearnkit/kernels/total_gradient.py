"""The total gradient of a Stackelberg game, by one linearisation and one symmetric solve."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
from jaxtyping import Array

from unlearnkit.base import SolveInfo
from unlearnkit.kernels import _trees, krylov, solvers
from unlearnkit.kernels._trees import Precision, at_precision

Player = Any
"""A pytree of arrays: the leader's or the follower's variables."""
PlayerLoss = Callable[[Player, Player], Array]
SOLVERS: dict[str, solvers.Solver] = {
    "minres": krylov.minres,
    "cg": krylov.cg,
    "cgnr": krylov.cgnr,
}


class Game(NamedTuple):
    """A follower's loss linearised at one point.

    Attributes:
      leader_gradient: d f / d x.
      follower_gradient: d f / d w.
      products: v -> (∇_xw f v, ∇_ww f v), both by one product.
    """

    leader_gradient: Player
    follower_gradient: Player
    products: Callable[[Player], tuple[Player, Player]]

    def hessian(self, vector: Player) -> Player:
        """Returns ∇_ww f v; the cross product is dead code where only this is used."""
        return self.products(vector)[1]


@at_precision
def linearise(
    follower_loss: PlayerLoss, leader: Player, follower: Player, *, precision: Precision = "highest"
) -> Game:
    """Returns the follower's gradients at a point and its second-order products, linearised once.

    The derivative of (∇_x f, ∇_w f) along v in w is (∇_xw f v, ∇_ww f v): the Hessian products of
    the solve and the cross product after it share one linearisation.

    Args:
      follower_loss: (leader, follower) -> scalar f.
      leader: x.
      follower: w.
      precision: of the matrix products; see `Precision`.
    """
    gradients = jax.grad(follower_loss, argnums=(0, 1))
    (to_leader, to_follower), products = jax.linearize(lambda w: gradients(leader, w), follower)
    return Game(to_leader, to_follower, products)


@at_precision
def total_gradient(
    leader_loss: PlayerLoss,
    follower_loss: PlayerLoss,
    leader: Player,
    follower: Player,
    *,
    damping: Any,
    tol: Any,
    max_steps: int,
    solver: str | solvers.Solver = "minres",
    precision: Precision = "highest",
) -> tuple[Player, SolveInfo]:
    """Returns the gradient of the leader's loss through the follower's best response.

    D_x l = ∇_x l - ∇_xw f (∇_ww f + damping I)⁻¹ ∇_w l

    Args:
      leader_loss: (leader, follower) -> scalar l.
      follower_loss: (leader, follower) -> scalar f, which the follower minimises.
      leader: x.
      follower: w, at or near a minimum of f(x, ·) for D_x l to be the derivative of the response.
      damping: added to the diagonal of the Hessian.
      tol: wanted relative residual of the solve.
      max_steps: the most steps of the solve.
      solver: `minres`; `cg`, for a convex f alone; `cgnr`, as published code does; or any `Solver`,
        as `partial(neumann, step_size=0.1)`.
      precision: of the matrix products; see `Precision`.

    Returns:
      D_x l like `leader`, and how the solve ended.

    Raises:
      ValueError: no solver has that name, or a loss does not return a scalar.

    Example:
      def follows(leader, follower):
          return jnp.sum((follower - leader) ** 2)  # the follower answers w = x
      def leads(leader, follower):
          return jnp.sum(follower**2)
      ones, settings = jnp.ones(3), {"damping": 0.0, "tol": 1e-6, "max_steps": 10}
      gradient, info = kernels.total_gradient(leads, follows, ones, ones, **settings)  # 2 x

    Source: Lu et al. 2022, §3.3. MINRES replaces the CG on (H + damping I)² of the paper's
    reference code: one product a step, not two, and the condition number is not squared.
    """
    solve = get_solver(solver)
    _trees.check_scalar("leader_loss", leader_loss, leader, follower)
    _trees.check_scalar("follower_loss", follower_loss, leader, follower)
    game = linearise(follower_loss, leader, follower, precision=precision)
    settings = {"damping": damping, "tol": tol, "max_steps": max_steps}
    return through_response(game, leader_loss, leader, follower, solve, settings)


def through_response(
    game: Game,
    leader_loss: PlayerLoss,
    leader: Player,
    follower: Player,
    solve: solvers.Solver,
    settings: dict[str, Any],
) -> tuple[Player, SolveInfo]:
    """Returns the total gradient at the point where `game` was linearised.

    Args:
      game: the follower's loss, linearised at this point.
      leader_loss: (leader, follower) -> a scalar.
      leader: x.
      follower: w.
      solve: with the follower's Hessian.
      settings: of the solve, as `damping`, `tol` and `max_steps`.
    """
    direct, to_follower = jax.grad(leader_loss, argnums=(0, 1))(leader, follower)
    response, info = solve(game.hessian, to_follower, **settings)
    return _trees.subtract(direct, game.products(response)[0]), info


def get_solver(solver: str | solvers.Solver) -> solvers.Solver:
    """Returns the solver of a name, or `solver` itself where it is one.

    Raises:
      ValueError: no solver has that name.
    """
    if not isinstance(solver, str):
        return solver
    if solver not in SOLVERS:
        raise ValueError(f"solver must be one of {sorted(SOLVERS)} or a Solver, got {solver!r}")
    return SOLVERS[solver]
