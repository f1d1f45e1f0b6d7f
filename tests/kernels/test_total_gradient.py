from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from unlearnkit import kernels

SETTINGS = {"damping": 0.0, "tol": 1e-11, "max_steps": 300}


def quadratic_game():
    """f = 1/2 w·A w - w·B x + linear, whose response is w* = A⁻¹ (B x - c)."""
    a, b = jax.random.normal(jax.random.key(0), (2, 4, 4))
    a, b, c = a @ a.T + jnp.eye(4), b[:, :3], jnp.arange(4.0)

    def follower_loss(x, w):
        return w @ a @ w / 2 - w @ (b @ x - c)

    def leader_loss(x, w):
        return jnp.sum(jnp.sin(w)) + jnp.sum(x**3)

    return leader_loss, follower_loss, lambda x: jnp.linalg.solve(a, b @ x - c)


def network_game(problem):
    """The leader moves the inputs of half the examples; the follower is the network."""
    x, y = problem.dataset[:2]

    def follower_loss(leader, follower):
        inputs = jnp.concatenate([leader["x"], x[4:]])
        regulariser = sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(follower))
        return problem.loss(follower, inputs, y) + 1e-2 * regulariser

    def leader_loss(leader, follower):
        return problem.loss(follower, x[::-1], y) + jnp.sum(leader["x"] ** 2)

    return leader_loss, follower_loss, {"x": 1.5 * x[:4]}


def dense_total_gradient(leader_loss, follower_loss, leader, follower, damping):
    x, unravel_x = ravel_pytree(leader)
    w, unravel_w = ravel_pytree(follower)

    def f(x, w):
        return follower_loss(unravel_x(x), unravel_w(w))

    def l(x, w):  # noqa: E743
        return leader_loss(unravel_x(x), unravel_w(w))

    hessian = jax.jit(jax.hessian(f, argnums=1))(x, w) + damping * jnp.eye(w.size)
    cross = jax.jit(jax.jacrev(jax.grad(f, argnums=0), argnums=1))(x, w)
    to_x, to_w = jax.grad(l, argnums=(0, 1))(x, w)
    return to_x - cross @ jnp.linalg.solve(hessian, to_w), jnp.linalg.eigvalsh(hessian)


@pytest.mark.parametrize(
    "solver", ["minres", "cg", "cgnr", partial(kernels.neumann, step_size=0.1)]
)
def test_is_the_derivative_through_the_best_response(x64, solver):
    leader_loss, follower_loss, response = quadratic_game()
    x = jnp.array([0.3, -0.2, 0.9])
    got, info = kernels.total_gradient(
        leader_loss, follower_loss, x, response(x), solver=solver, **SETTINGS | {"max_steps": 5000}
    )
    assert info.converged
    want = jax.grad(lambda x: leader_loss(x, response(x)))(x)
    np.testing.assert_allclose(got, want, rtol=1e-7)


def test_with_an_inverse_of_its_own_it_is_the_derivative_through_the_best_response(x64):
    leader_loss, follower_loss, response = quadratic_game()
    x = jnp.array([0.3, -0.2, 0.9])
    hessian = jax.hessian(follower_loss, argnums=1)(x, response(x))

    def inverse(v):
        return jnp.linalg.solve(hessian, v)

    want = jax.grad(lambda x: leader_loss(x, response(x)))(x)
    got = kernels.response_gradient(leader_loss, follower_loss, x, response(x), inverse)
    np.testing.assert_allclose(got, want, rtol=1e-9)


def test_solves_in_the_hessian_of_another_loss(x64):
    """That of f with half the curvature; the cross derivative stays that of f."""
    leader_loss, follower_loss, response = quadratic_game()
    x = jnp.array([0.3, -0.2, 0.9])
    got, info = kernels.total_gradient(
        leader_loss,
        follower_loss,
        x,
        response(x),
        hessian_loss=lambda x, w: follower_loss(x, w) / 2,
        **SETTINGS,
    )
    assert info.converged
    exact = jax.grad(lambda x: leader_loss(x, response(x)))(x)
    direct = jax.grad(leader_loss)(x, response(x))
    np.testing.assert_allclose(got - direct, 2 * (exact - direct), rtol=1e-8)


def test_is_the_dense_formula_on_networks_away_from_a_minimum(problem):
    """Where the Hessian is indefinite too; MINRES need not care."""
    leader_loss, follower_loss, leader = network_game(problem)
    damping = 0.05
    want, eigenvalues = dense_total_gradient(
        leader_loss, follower_loss, leader, problem.params, damping
    )
    compute = jax.jit(
        lambda x, w: kernels.total_gradient(
            leader_loss, follower_loss, x, w, damping=damping, tol=1e-9, max_steps=2000
        )
    )
    got, info = compute(leader, problem.params)
    assert info.converged
    assert info.curvature >= eigenvalues[0] - 1e-9
    np.testing.assert_allclose(got["x"].reshape(-1), want, rtol=1e-5, atol=1e-7)


def test_vmap_over_leaders_and_no_second_trace(x64, compilations):
    leader_loss, follower_loss, response = quadratic_game()
    counted = compilations(follower_loss)
    compute = jax.jit(
        jax.vmap(
            lambda x, w: kernels.total_gradient(leader_loss, counted, x, w, **SETTINGS)[0]
        )
    )  # fmt: skip
    leaders = jax.random.normal(jax.random.key(1), (5, 3))
    followers = jax.vmap(response)(leaders)
    got = compute(leaders, followers)
    before = counted.count
    compute(leaders + 1, followers)
    assert counted.count == before
    want = jax.vmap(jax.grad(lambda x: leader_loss(x, response(x))))(leaders)
    np.testing.assert_allclose(got, want, rtol=1e-7)


def test_an_unconverged_solve_says_so(x64):
    leader_loss, follower_loss, _ = quadratic_game()
    _, info = kernels.total_gradient(
        leader_loss, follower_loss, jnp.ones(3), jnp.ones(4), **SETTINGS | {"max_steps": 1}
    )
    assert not info.converged
    assert info.residual > 1e-3


def test_the_solve_runs_the_network_once(x64):
    """The Hessian products share one linearisation: no tanh inside the loop."""
    weights = jnp.ones((3, 2))

    def follower_loss(x, w):
        return jnp.sum(jnp.tanh(x @ w) ** 2)

    program = jax.make_jaxpr(
        lambda x, w: kernels.total_gradient(
            lambda x, w: jnp.sum(w), follower_loss, x, w, **SETTINGS
        )[0]
    )(jnp.ones((4, 3)), weights)
    loops = [eqn for eqn in program.jaxpr.eqns if eqn.primitive.name == "while"]
    assert len(loops) == 1
    assert "tanh" not in str(loops[0])
    assert "tanh" in str(program)


def test_refuses_bad_input(x64):
    leader_loss, follower_loss, _ = quadratic_game()
    x, w = jnp.ones(3), jnp.ones(4)
    with pytest.raises(ValueError, match=r"solver must be one of .*, got 'gmres'"):
        kernels.total_gradient(leader_loss, follower_loss, x, w, solver="gmres", **SETTINGS)
    with pytest.raises(ValueError, match="leader_loss must return one scalar"):
        kernels.total_gradient(lambda x, w: w, follower_loss, x, w, **SETTINGS)
    with pytest.raises(ValueError, match="follower_loss must return one scalar"):
        kernels.total_gradient(leader_loss, lambda x, w: w, x, w, **SETTINGS)
