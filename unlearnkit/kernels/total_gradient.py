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
    hessian_loss: PlayerLoss | None = None,
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
      hessian_loss: (leader, follower) -> scalar, in whose Hessian is solved in the place of f's, as
        f on a part of the examples; None for f itself.
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

    Source: Lu et al. 2022, §3.2. MINRES replaces the CG on (H + damping I)² of the paper's
    reference code: one product a step, not two, and the condition number is not squared.
    """
    solve = get_solver(solver)
    _trees.check_scalar("leader_loss", leader_loss, leader, follower)
    _trees.check_scalar("follower_loss", follower_loss, leader, follower)
    settings = {"damping": damping, "tol": tol, "max_steps": max_steps}
    if hessian_loss is None:
        game = linearise(follower_loss, leader, follower, precision=precision)
        return through_response(game, leader_loss, leader, follower, solve, settings)
    _trees.check_scalar("hessian_loss", hessian_loss, leader, follower)
    part = hessian_loss
    _, product = jax.linearize(jax.grad(lambda w: part(leader, w)), follower)
    solves: list[SolveInfo] = []

    def inverse(vector: Player) -> Player:
        solution, info = solve(product, vector, **settings)
        solves.append(info)
        return solution

    gradient = response_gradient(
        leader_loss, follower_loss, leader, follower, inverse, precision=precision
    )
    return gradient, solves[0]


@at_precision
def response_gradient(
    leader_loss: PlayerLoss,
    follower_loss: PlayerLoss,
    leader: Player,
    follower: Player,
    inverse: solvers.Operator,
    *,
    precision: Precision = "highest",
) -> Player:
    """Returns the total gradient with a given approximation P of the inverse Hessian.

    D_x l = ∇_x l - ∇_x (∇_w f · P ∇_w l)

    at the price of one gradient of each loss and one more of f: no solve. P = I is the direction in
    which one gradient step of the follower moves; `kfac_inverse` makes a P that knows its layers.

    Args:
      leader_loss: (leader, follower) -> scalar l.
      follower_loss: (leader, follower) -> scalar f.
      leader: x.
      follower: w.
      inverse: v -> P v, like the follower.
      precision: of the matrix products; see `Precision`.

    Raises:
      ValueError: a loss does not return a scalar.

    Example:
      def follows(leader, follower):
          return jnp.sum((follower - leader) ** 2)
      def leads(leader, follower):
          return jnp.sum(follower**2)
      ones = jnp.ones(3)
      gradient = kernels.response_gradient(leads, follows, ones, ones, lambda v: v / 2)  # 2 x

    Source: Lu et al. 2022, §3.2, with P in the place of the inverse.
    """
    _trees.check_scalar("leader_loss", leader_loss, leader, follower)
    _trees.check_scalar("follower_loss", follower_loss, leader, follower)
    direct, to_follower = jax.grad(leader_loss, argnums=(0, 1))(leader, follower)
    response = jax.lax.stop_gradient(inverse(to_follower))

    def slope_along_response(x: Player) -> Array:
        along: Array = jax.jvp(lambda w: follower_loss(x, w), (follower,), (response,))[1]
        return along

    return _trees.subtract(direct, jax.grad(slope_along_response)(leader))


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
