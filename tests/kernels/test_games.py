import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from unlearnkit import kernels

SOLVE = {"damping": 0.0, "tol": 1e-12, "max_steps": 50}
A = np.array([[3.0, 0.5], [0.5, 1.0]])
B = np.array([[1.0, -0.4], [0.2, 0.7]])


def follower_loss(x, w, shift=0.0):
    return w @ A @ w / 2 - w @ (B @ x + shift)


def leader_loss(x, w, shift=0.0):
    """Concave in x along the response, so that the ascending leader has a solution."""
    return -jnp.sum((w - 1) ** 2) - 0.1 * jnp.sum(x**2)


def response(x, shift=0.0):
    return jnp.linalg.solve(A, B @ x + shift)


def total(x, w):
    to_x, to_w = jax.grad(leader_loss, argnums=(0, 1))(x, w)
    return to_x + B.T @ jnp.linalg.solve(A, to_w)


def make(name, leader_rate=0.05, follower_rate=0.1):
    leader, follower = optax.sgd(leader_rate), optax.sgd(follower_rate)
    losses = (leader_loss, follower_loss)
    return {
        "tgda": lambda: kernels.tgda(*losses, leader, follower, **SOLVE),
        "follow_the_ridge": lambda: kernels.follow_the_ridge(*losses, leader, follower, **SOLVE),
        "gradient_descent_newton": lambda: kernels.gradient_descent_newton(
            *losses, leader, **SOLVE
        ),
        "ugda": lambda: kernels.ugda(
            *losses, leader, follower, unroll_steps=80, unroll_rate=0.3
        ),
    }[name]()  # fmt: skip


NAMES = ["tgda", "follow_the_ridge", "gradient_descent_newton", "ugda"]
START = (jnp.array([0.5, -1.0]), jnp.array([0.2, 0.4]))


def start(x64_dtype=jnp.float64):
    return tuple(jnp.asarray(v, x64_dtype) for v in START)


def step_once(name, x, w, *batch):
    solver = make(name)
    return jax.jit(solver.step)(solver.init(x, w), *batch)


class TestOneStep:
    """Each against the paper's equations, written out with the dense matrices."""

    def test_tgda(self, x64):
        x, w = start()
        new, info = step_once("tgda", x, w)
        np.testing.assert_allclose(new.leader, x + 0.05 * total(x, w), rtol=1e-9)
        np.testing.assert_allclose(new.follower, w - 0.1 * (A @ w - B @ x), rtol=1e-9)
        np.testing.assert_allclose(info.leader_gradient_norm, jnp.linalg.norm(total(x, w)))
        np.testing.assert_allclose(info.follower_gradient_norm, jnp.linalg.norm(A @ w - B @ x))
        np.testing.assert_allclose(info.leader_loss, leader_loss(x, w))
        np.testing.assert_allclose(info.follower_loss, follower_loss(x, w))
        assert [bool(solve.converged) for solve in info.solves] == [True]

    def test_follow_the_ridge(self, x64):
        x, w = start()
        new, info = step_once("follow_the_ridge", x, w)
        move = 0.05 * total(x, w)
        np.testing.assert_allclose(new.leader, x + move, rtol=1e-9)
        along = np.linalg.solve(A, B @ move)
        np.testing.assert_allclose(new.follower, w - 0.1 * (A @ w - B @ x) + along, rtol=1e-9)
        assert len(info.solves) == 2

    def test_follow_the_ridge_stays_on_the_ridge(self, x64):
        """With the sign that the paper prints the follower would leave it, twice as fast."""
        x, _ = start()
        new, info = step_once("follow_the_ridge", x, response(x))
        assert info.follower_gradient_norm < 1e-12
        np.testing.assert_allclose(new.follower, response(new.leader), rtol=1e-9)
        printed = response(x) - (new.follower - response(x))
        assert np.linalg.norm(printed - response(new.leader)) > 1e-2

    def test_gradient_descent_newton(self, x64):
        x, w = start()
        new, info = step_once("gradient_descent_newton", x, w)
        np.testing.assert_allclose(new.leader, x + 0.05 * total(x, w), rtol=1e-9)
        np.testing.assert_allclose(new.follower, response(new.leader), rtol=1e-9)
        assert len(info.solves) == 2

    def test_ugda(self, x64):
        x, w = start()
        new, info = step_once("ugda", x, w)
        np.testing.assert_allclose(new.follower, w - 0.1 * (A @ w - B @ x), rtol=1e-9)

        def unrolled(x):
            v = w
            for _ in range(80):
                v = v - 0.3 * (A @ v - B @ x)
            return leader_loss(x, v)

        np.testing.assert_allclose(new.leader, x + 0.05 * jax.grad(unrolled)(x), rtol=1e-9)
        assert info.solves == ()


@pytest.mark.parametrize("name", NAMES)
class TestEverySolver:
    def test_reaches_the_stackelberg_equilibrium(self, name, x64):
        x, w = start()
        solver = make(name, 0.3, 0.3)
        state = solver.init(x, w)
        state = jax.jit(
            lambda s: jax.lax.fori_loop(0, 400, lambda _, s: solver.step(s)[0], s)
        )(state)  # fmt: skip
        linear = np.linalg.solve(A, B)
        want = np.linalg.solve(linear.T @ linear + 0.1 * np.eye(2), linear.T @ np.ones(2))
        np.testing.assert_allclose(state.leader, want, rtol=1e-5)
        np.testing.assert_allclose(state.follower, response(want), rtol=1e-5)

    def test_takes_the_batch_as_an_argument_and_traces_once(self, name, x64, compilations):
        x, w = start()
        solver = make(name)
        step = compilations(solver.step)
        compiled = jax.jit(step)
        state = solver.init(x, w)
        one, _ = compiled(state, 0.0)
        two, _ = compiled(state, 1.0)
        assert step.count == 1
        assert not np.allclose(one.follower, two.follower)

    def test_vmap_over_starts(self, name, x64):
        solver = make(name)
        x, w = start()
        xs = jnp.stack([x, 2 * x])
        states = jax.vmap(solver.init, in_axes=(0, None))(xs, w)
        new, _ = jax.jit(jax.vmap(solver.step))(states)
        alone, _ = jax.jit(solver.step)(solver.init(2 * x, w))
        np.testing.assert_allclose(new.leader[1], alone.leader, rtol=1e-9)


def test_unrolling_ever_longer_gives_the_total_gradient(x64):
    x, _ = start()
    want, _ = kernels.total_gradient(leader_loss, follower_loss, x, response(x), **SOLVE)
    errors = [
        np.linalg.norm(
            kernels.unrolled_gradient(
                leader_loss, follower_loss, x, response(x), steps=k, rate=0.3
            )
            - want
        )
        for k in (0, 5, 80)
    ]  # fmt: skip
    assert errors[0] > errors[1] > errors[2]
    assert errors[2] < 1e-8


def test_refuses_bad_input():
    sgd = optax.sgd(0.1)
    with pytest.raises(ValueError, match="solver must be one of"):
        kernels.tgda(leader_loss, follower_loss, sgd, sgd, solver="gmres")
    with pytest.raises(ValueError, match="must be >= 0, got -1"):
        kernels.ugda(leader_loss, follower_loss, sgd, sgd, unroll_steps=-1, unroll_rate=0.1)
