from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse.linalg
from hypothesis import given, settings
from hypothesis import strategies as st

from unlearnkit.kernels import SolveInfo, cg, cgnr, lissa, minres, neumann, solvers

SYMMETRIC = {"minres": minres, "cgnr": cgnr}
ALL = {**SYMMETRIC, "cg": cg, "neumann": partial(neumann, step_size=0.1)}
SETTINGS = settings(max_examples=12, deadline=None, derandomize=True)


def matrix(seed, eigenvalues):
    """A symmetric matrix with these eigenvalues."""
    rng = np.random.default_rng(seed)
    q, _ = np.linalg.qr(rng.normal(size=(len(eigenvalues),) * 2))
    return (q * np.asarray(eigenvalues)) @ q.T, rng


@partial(jax.jit, static_argnames=("solver", "max_steps"))
def solve(solver, a, b, damping=0.0, tol=1e-9, max_steps=200):
    return solver(lambda v: a @ v, b, damping=damping, tol=tol, max_steps=max_steps)


def check_info(info: SolveInfo, a, x, b, tol):
    """The promises that hold however a solve ended."""
    residual = np.linalg.norm(b - a @ x) / np.linalg.norm(b)
    np.testing.assert_allclose(info.residual, residual, rtol=1e-6, atol=1e-14)
    assert bool(info.converged) == bool(info.residual <= tol)
    assert info.curvature >= np.linalg.eigvalsh(a).min() - 1e-9


class TestAgainstScipy:
    @SETTINGS
    @given(st.integers(0, 10_000), st.lists(st.floats(-3, 3), min_size=6, max_size=6))
    def test_minres_on_any_symmetric_matrix(self, seed, eigenvalues):
        with jax.enable_x64(True):
            eigenvalues = [e if abs(e) > 0.05 else 0.0 for e in eigenvalues]
            a, rng = matrix(seed, eigenvalues)
            b = a @ rng.normal(size=6)  # consistent, even where singular
            if np.linalg.norm(b) == 0:
                return
            x, info = solve(minres, a, b)
            check_info(info, a, x, b, 1e-9)
            assert info.converged
            theirs, _ = scipy.sparse.linalg.minres(a, b, rtol=1e-12, maxiter=200)
            np.testing.assert_allclose(x, theirs, rtol=1e-5, atol=1e-6)

    @SETTINGS
    @given(st.integers(0, 10_000), st.lists(st.floats(0.05, 5), min_size=6, max_size=6))
    def test_cg_on_any_positive_matrix(self, seed, eigenvalues):
        with jax.enable_x64(True):
            a, rng = matrix(seed, eigenvalues)
            b = rng.normal(size=6)
            x, info = solve(cg, a, b)
            check_info(info, a, x, b, 1e-9)
            assert info.converged
            assert info.steps <= 10
            theirs, _ = scipy.sparse.linalg.cg(a, b, rtol=1e-12)
            np.testing.assert_allclose(x, theirs, rtol=1e-6, atol=1e-8)

    @SETTINGS
    @given(st.integers(0, 10_000))
    def test_minres_takes_the_same_steps(self, seed):
        """The k-th iterate, and not only the limit, minimises the residual."""
        with jax.enable_x64(True):
            a, rng = matrix(seed, np.linspace(-2, 3, 30))
            b = rng.normal(size=30)
            krylov = np.stack([np.linalg.matrix_power(a, k) @ b for k in range(8)], axis=1)
            krylov, _ = np.linalg.qr(krylov)
            best = np.linalg.lstsq(a @ krylov, b, rcond=None)[0]
            x, info = solve(minres, a, b, max_steps=8)
            assert info.steps == 8
            np.testing.assert_allclose(x, krylov @ best, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("name", ALL)
class TestEverySolver:
    def test_solves_a_positive_definite_tree(self, name, precise):
        a, rng = matrix(0, np.linspace(0.5, 4, 12))
        a, b = jnp.asarray(a, precise), jnp.asarray(rng.normal(size=12), precise)
        tree = {"u": b[:4].reshape(2, 2), "v": [b[4:]]}

        def matvec(v):
            out = a @ jnp.concatenate([v["u"].reshape(-1), v["v"][0]])
            return {"u": out[:4].reshape(2, 2), "v": [out[4:]]}

        tol = 1e-5 if precise == jnp.float32 else 1e-11
        run = partial(ALL[name], matvec, damping=0.5, tol=tol, max_steps=500)
        x, info = run(tree)
        compiled, _ = jax.jit(run)(tree)
        assert info.converged
        assert x["u"].dtype == precise
        want = np.linalg.solve(np.asarray(a, np.float64) + 0.5 * np.eye(12), b)
        got = np.concatenate([np.ravel(x["u"]), x["v"][0]])
        np.testing.assert_allclose(got, want, rtol=20 * tol, atol=20 * tol)
        jax.tree.map(
            lambda p, q: np.testing.assert_allclose(p, q, rtol=20 * tol, atol=tol), x, compiled
        )

    def test_zero_right_hand_side(self, name, precise):
        x, info = solve(ALL[name], jnp.eye(3, dtype=precise), jnp.zeros(3, precise))
        np.testing.assert_array_equal(x, 0)
        assert info.converged
        assert info.residual == 0
        assert info.steps == 0

    def test_not_a_number_never_converges(self, name, precise):
        for a, b in ((jnp.eye(2), jnp.array([1.0, jnp.nan])), (jnp.full((2, 2), jnp.nan), None)):
            _, info = solve(ALL[name], a, jnp.ones(2) if b is None else b)
            assert not info.converged

    def test_too_few_steps_are_reported(self, name, x64):
        a, rng = matrix(3, np.linspace(0.01, 9, 40))
        b = rng.normal(size=40)
        x, info = solve(ALL[name], a, b, max_steps=3)
        check_info(info, a, x, b, 1e-9)
        assert info.steps == 3
        assert not info.converged

    def test_vmap_is_a_loop(self, name, x64):
        """Lanes that are done stay as they are while others go on."""
        problems = [matrix(seed, [1.0, 1.5, 2.0, 3.0][: seed + 1] * 4) for seed in range(3)]
        problems = [(m[:4, :4], rng) for m, rng in problems]
        a = jnp.stack([m @ m.T + jnp.eye(4) for m, _ in problems])
        b = jnp.stack([jnp.asarray(rng.normal(size=4)) for _, rng in problems])
        a = a.at[0].set(jnp.eye(4))
        x, info = jax.vmap(partial(solve, ALL[name]))(a, b)
        alone = [solve(ALL[name], a[i], b[i]) for i in range(3)]
        for i, (xi, one) in enumerate(alone):
            np.testing.assert_allclose(x[i], xi, rtol=1e-9, atol=1e-12)
            assert info.steps[i] == one.steps
        assert len({int(s) for s in info.steps}) > 1

    def test_second_call_does_not_trace_again(self, name, compilations):
        matvec = compilations(lambda a, v: a @ v)
        run = jax.jit(
            lambda a, b, damping: ALL[name](
                partial(matvec, a), b, damping=damping, tol=1e-3, max_steps=5
            )
        )
        run(jnp.eye(3), jnp.ones(3), 0.1)
        before = matvec.count
        run(2 * jnp.eye(3), jnp.arange(3.0), 0.2)
        assert matvec.count == before

    def test_refuses_bad_input(self, name):
        run = partial(ALL[name], lambda v: v, damping=0.0)
        with pytest.raises(ValueError, match="max_steps must be >= 1, got 0"):
            run(jnp.ones(2), tol=0.1, max_steps=0)
        with pytest.raises(ValueError, match="tol must be >= 0, got -1"):
            run(jnp.ones(2), tol=-1, max_steps=1)
        with pytest.raises(ValueError, match="real floating point, got int32"):
            run(jnp.ones(2, int), tol=0.1, max_steps=1)
        with pytest.raises(ValueError, match="empty pytree"):
            run({}, tol=0.1, max_steps=1)


@pytest.mark.parametrize("name", SYMMETRIC)
def test_indefinite_systems_are_solved_and_their_curvature_reported(name, precise):
    a, rng = matrix(1, np.r_[np.linspace(-2, -0.5, 6), np.linspace(0.5, 3, 6)])
    b = rng.normal(size=12)
    tol = 1e-4 if precise == jnp.float32 else 1e-9
    x, info = solve(SYMMETRIC[name], jnp.asarray(a, precise), jnp.asarray(b, precise), tol=tol)
    assert info.converged
    assert info.curvature < 0
    np.testing.assert_allclose(x, np.linalg.solve(a, b), rtol=100 * tol, atol=10 * tol)


@pytest.mark.parametrize("name", ["minres", "cgnr"])
def test_rounds_of_refinement_reach_what_one_round_in_float32_does_not(name, monkeypatch):
    a, rng = matrix(0, np.geomspace(1e-4, 1, 40))
    a, b = jnp.float32(a), jnp.float32(rng.normal(size=40))

    def run():
        return ALL[name](lambda v: a @ v, b, damping=0.0, tol=1e-4, max_steps=5000)[1]

    refined = run()
    monkeypatch.setattr(solvers, "HEADWAY", 0.0)
    one_round = run()
    assert not one_round.converged
    assert refined.converged
    assert refined.steps <= one_round.steps + 20


class TestMinres:
    def test_inconsistent_singular_system_ends_at_least_squares(self, precise):
        a, rng = matrix(2, [-2.0, -1.0, 0.0, 0.0, 1.0, 3.0])
        b = rng.normal(size=6)
        x, info = solve(minres, jnp.asarray(a, precise), jnp.asarray(b, precise), tol=1e-6)
        assert not info.converged
        assert info.steps < 20
        assert np.all(np.isfinite(x))
        best = np.linalg.norm(b - a @ np.linalg.pinv(a) @ b) / np.linalg.norm(b)
        rtol = 1e-3 if precise == jnp.float32 else 1e-8
        np.testing.assert_allclose(info.residual, best, rtol=rtol)

    def test_right_hand_side_in_the_null_space(self, x64):
        x, info = solve(minres, jnp.diag(jnp.array([1.0, 0.0])), jnp.array([0.0, 1.0]))
        np.testing.assert_array_equal(x, 0)
        assert info.residual == 1
        assert not info.converged

    def test_residual_never_grows(self, x64):
        a, rng = matrix(4, np.linspace(-1, 4, 50))
        b = rng.normal(size=50)
        residuals = [solve(minres, a, b, max_steps=k)[1].residual for k in (2, 9, 16)]
        assert np.all(np.diff(residuals) <= 1e-12)

    def test_one_product_a_step_and_one_at_the_end(self, x64):
        a, rng = matrix(5, np.linspace(-1, 4, 30))
        calls = []

        def matvec(v):
            jax.debug.callback(lambda: calls.append(1))
            return jnp.asarray(a) @ v

        b = jnp.asarray(rng.normal(size=30))
        _, info = minres(matvec, b, damping=0.0, tol=1e-3, max_steps=60)
        jax.effects_barrier()
        assert info.converged
        assert len(calls) == info.steps + 1

    def test_residual_is_the_true_one_in_float32(self):
        """Where the running estimate drifts below `tol`, the solve does not count as converged."""
        a, rng = matrix(6, np.geomspace(1e-5, 1, 60))
        b = rng.normal(size=60)
        x, info = solve(minres, jnp.float32(a), jnp.float32(b), tol=1e-7, max_steps=2000)
        true = np.linalg.norm(b - a @ np.float64(x)) / np.linalg.norm(b)
        np.testing.assert_allclose(info.residual, true, rtol=0.1)
        assert not info.converged


class TestCg:
    def test_stops_at_negative_curvature(self, precise):
        a, rng = matrix(7, [-1.0, 0.5, 1.0, 2.0, 3.0])
        b = rng.normal(size=5)
        x, info = solve(cg, jnp.asarray(a, precise), jnp.asarray(b, precise))
        assert info.curvature < 0
        assert not info.converged
        assert np.all(np.isfinite(x))
        assert info.steps <= 5

    def test_damping_makes_it_positive(self, x64):
        a, rng = matrix(7, [-1.0, 0.5, 1.0, 2.0, 3.0])
        b = rng.normal(size=5)
        x, info = solve(cg, a, b, damping=1.5)
        assert info.converged
        assert info.curvature > 0
        np.testing.assert_allclose(x, np.linalg.solve(a + 1.5 * np.eye(5), b), rtol=1e-7)

    def test_singular_and_inconsistent(self, precise):
        a, rng = matrix(8, [0.0, 0.0, 1.0, 2.0, 3.0])
        b = rng.normal(size=5)
        a, b = jnp.asarray(a, precise), jnp.asarray(b, precise)
        x, info = solve(cg, a, b, tol=1e-3)
        assert not info.converged
        assert np.all(np.isfinite(x))
        x, info = solve(cg, a, a @ b, tol=1e-3)
        assert info.converged

    def test_preconditioner_saves_steps_and_keeps_the_solution(self, x64):
        a, rng = matrix(9, np.linspace(0.5, 2, 40))
        scales = np.geomspace(1, 1e3, 40)
        a, b = scales[:, None] * a * scales, rng.normal(size=40)

        def run(preconditioner):
            return cg(
                lambda v: a @ v,
                jnp.asarray(b),
                damping=0.0,
                tol=1e-8,
                max_steps=2000,
                preconditioner=preconditioner,
            )

        x, with_it = run(lambda r: r / np.diag(a))
        _, without = run(None)
        assert with_it.converged
        assert with_it.steps < without.steps / 4
        np.testing.assert_allclose(x, np.linalg.solve(a, b), rtol=1e-5, atol=1e-9)

    def test_an_indefinite_preconditioner_never_converges(self, x64):
        _, info = cg(
            lambda v: v * jnp.arange(1.0, 4),
            jnp.ones(3),
            damping=0.0,
            tol=1e-9,
            max_steps=50,
            preconditioner=lambda r: -r,
        )
        assert not info.converged

    def test_refuses_negative_damping(self):
        with pytest.raises(ValueError, match=r"damping must be >= 0, got -0\.1"):
            cg(lambda v: v, jnp.ones(2), damping=-0.1, tol=0.1, max_steps=1)


def test_cg_in_the_inner_product_of_features_is_cg_on_their_weights():
    """Coefficients a stand for the weights Fᵀ a: the same iterates, from products with F Fᵀ."""
    rng = np.random.default_rng(0)
    with jax.enable_x64(True):
        features = jnp.asarray(rng.normal(size=(6, 9)))
        scales, b = jnp.asarray(rng.uniform(0.1, 3, 6)), jnp.asarray(rng.normal(size=6))
        gram = features @ features.T
        options = {"damping": 0.1, "tol": 0.0, "max_steps": 3}
        weights, of_weights = cg(
            lambda w: features.T @ (scales * (features @ w)), features.T @ b, **options
        )
        found, info = cg(
            lambda a: scales * (gram @ a), b, inner=lambda u, v: u @ gram @ v, **options
        )
        np.testing.assert_allclose(features.T @ found, weights, rtol=1e-10)
        np.testing.assert_allclose(info.residual, of_weights.residual, rtol=1e-8)
        euclidean, _ = cg(lambda a: scales * (gram @ a), b, **options)
        assert jnp.linalg.norm(features.T @ euclidean - weights) > 1e-3


class TestNeumann:
    def test_is_the_truncated_series(self, x64):
        a, rng = matrix(10, np.linspace(0.2, 1, 6))
        b, rate = rng.normal(size=6), 0.7
        shrink = np.eye(6) - rate * (a + 0.1 * np.eye(6))
        want = rate * sum(np.linalg.matrix_power(shrink, j) @ b for j in range(5))
        x, info = neumann(
            lambda v: a @ v, jnp.asarray(b), damping=0.1, tol=0.0, max_steps=5, step_size=rate
        )
        np.testing.assert_allclose(x, want, rtol=1e-10)
        assert info.steps == 5

    def test_divergence_ends_early_and_is_reported(self, x64):
        _, info = neumann(
            lambda v: 100 * v, jnp.ones(3), damping=0.0, tol=1e-3, max_steps=10**6, step_size=1.0
        )
        assert not info.converged
        assert info.residual > 1
        assert info.steps < 100


class TestLissa:
    def test_without_noise_is_neumann(self, x64):
        a, rng = matrix(11, np.linspace(0.2, 1, 6))
        b = jnp.asarray(rng.normal(size=6))
        want, _ = neumann(
            lambda v: a @ v, b, damping=0.1, tol=0.0, max_steps=20, step_size=0.7
        )  # fmt: skip
        x, info = lissa(
            jax.random.key(0),
            lambda key, v: a @ v,
            lambda v: a @ v,
            b,
            damping=0.1,
            tol=1e-2,
            step_size=0.7,
            depth=20,
            repeats=2,
        )
        np.testing.assert_allclose(x, want, rtol=1e-9)
        assert info.steps == 40
        residual = np.linalg.norm(b - a @ x - 0.1 * x) / np.linalg.norm(b)
        np.testing.assert_allclose(info.residual, residual, rtol=1e-9)

    def test_repeats_use_different_samples(self, x64):
        rows = jax.random.normal(jax.random.key(1), (40, 4))
        b = jnp.ones(4)

        def sampled(key, v):
            row = rows[jax.random.randint(key, (), 0, 40)]
            return row * (row @ v)

        def error(repeats):
            x, _ = lissa(
                jax.random.key(2),
                sampled,
                lambda v: rows.T @ (rows @ v) / 40,
                b,
                damping=0.5,
                tol=0.1,
                step_size=0.05,
                depth=300,
                repeats=repeats,
            )
            exact = jnp.linalg.solve(rows.T @ rows / 40 + 0.5 * jnp.eye(4), b)
            return jnp.linalg.norm(x - exact)

        assert error(32) < 0.6 * error(1)
