import jax
import jax.numpy as jnp
import numpy as np
import pytest

from unlearnkit import kernels


def dense_ntk(problem):
    rows = problem.jacobian.reshape(-1, problem.jacobian.shape[-1])
    return rows @ rows.T


def dense(operator, shape):
    size = int(np.prod(shape))
    columns = jax.vmap(lambda v: operator(v.reshape(shape)).reshape(-1))(jnp.eye(size))
    return columns.T


class TestSketchedNtk:
    @pytest.mark.parametrize("shift", [0.3, None])
    def test_is_the_exact_inverse_where_the_rank_holds_all_parameters(self, problem, shift):
        inverse = kernels.sketched_ntk(
            jax.random.key(0), problem.apply, problem.params, problem.dataset.x, damping=0.3,
            shift=shift, rank=10**6,
        )  # fmt: skip
        system = dense_ntk(problem) + 0.3 * jnp.eye(21)
        np.testing.assert_allclose(dense(inverse, (7, 3)) @ system, np.eye(21), atol=1e-9)

    def test_the_sketch_is_unbiased(self, mlp):
        """E[J S (J S)ᵀ] = J Jᵀ: the mean over keys tends to the kernel at the rate 1/√keys."""
        theta = dense_ntk(mlp)

        def sketched(key):
            factor = kernels.sketched_ntk(
                key, mlp.apply, mlp.params, mlp.dataset.x, damping=1.0, rank=16
            ).factor
            return factor @ factor.T

        def error(count):
            mean = jnp.mean(jax.vmap(sketched)(jax.random.split(jax.random.key(1), count)), axis=0)
            return jnp.linalg.norm(mean - theta) / jnp.linalg.norm(theta)

        assert error(400) < 0.05
        assert error(400) < 0.3 * error(4)

    @pytest.mark.parametrize("chunk", [1, 3, 7, 100])
    def test_does_not_depend_on_the_chunk_nor_on_jit(self, mlp, chunk):
        def build(params, x, size):
            return kernels.sketched_ntk(
                jax.random.key(0), mlp.apply, params, x, damping=0.1, rank=20, chunk=size
            )

        whole = build(mlp.params, mlp.dataset.x, 7)
        parts = build(mlp.params, mlp.dataset.x, chunk)
        traced = jax.jit(build, static_argnums=2)(mlp.params, mlp.dataset.x, chunk)
        for other in (parts, traced):
            np.testing.assert_allclose(other.factor, whole.factor, rtol=1e-10, atol=1e-12)
        for other in (parts, traced):
            np.testing.assert_allclose(other.shift, whole.shift, rtol=1e-9)

    @pytest.mark.parametrize(("damping", "rank"), [(1e-4, 20), (0.1, 20), (0.1, 3), (10.0, 9)])
    def test_the_shift_is_the_ridge_that_a_sketch_of_so_many_columns_amounts_to(
        self, mlp, damping, rank
    ):
        """κ = λ + κ / rank tr(G (G + κ I)⁻¹), checked with the dense G = Fᵀ F."""
        inverse = kernels.sketched_ntk(
            jax.random.key(0), mlp.apply, mlp.params, mlp.dataset.x, damping=damping, rank=rank
        )
        gram = inverse.factor.T @ inverse.factor
        ridge = (float(inverse.shift) + damping) / 2
        share = np.trace(np.linalg.solve(gram + ridge * np.eye(rank), gram)) / rank
        np.testing.assert_allclose(ridge, damping + ridge * share, rtol=1e-8)
        assert ridge > damping

    @pytest.mark.parametrize("damping", [0.1, 1e-2])
    @pytest.mark.parametrize("rank", [25, 100, 400])
    def test_no_other_shift_takes_far_fewer_steps(self, x64, damping, rank):
        """A of 900 rows, whose eigenvalues fall as a network's do, and sketches of its root."""
        n, p = 900, 1200
        keys = jax.random.split(jax.random.key(0), 4)
        left, right = (
            jnp.linalg.qr(jax.random.normal(key, shape))[0]
            for key, shape in zip(keys, [(n, n), (p, n)], strict=False)
        )
        root = (left * jnp.sqrt(1e3 * jnp.arange(1.0, n + 1) ** -1.5)) @ right.T
        signs = jax.random.rademacher(keys[2], (p,), root.dtype)
        factor = (root * signs).reshape(n, -1, rank).sum(1)
        b = jax.random.normal(keys[3], (n,))
        made = kernels.LowRank.of_sketch(factor, damping, columns=p)

        @jax.jit
        def steps(preconditioner):
            return kernels.cg(
                lambda v: root @ (root.T @ v), b, damping=damping, tol=1e-3, max_steps=900,
                preconditioner=preconditioner,
            )[1].steps  # fmt: skip

        others = [int(steps(made.with_shift(damping * 3.0**i))) for i in range(7)]
        assert int(steps(made)) <= 1.3 * min(others)
        assert max(others) > 1.3 * min(others)

    def test_saves_steps(self, mlp):
        """A larger problem: rank 40 of 60 unknowns, at a damping where plain CG is slow."""
        x = jax.random.normal(jax.random.key(5), (20, 4, 4, 1))

        @jax.jit
        def solve(params, x, preconditioner):
            operator = kernels.ntk_operator(mlp.apply, params, x, damping=0.0)
            return kernels.cg(
                operator,
                jax.random.normal(jax.random.key(6), (20, 3)),
                damping=1e-3,
                tol=1e-6,
                max_steps=500,
                preconditioner=preconditioner,
            )

        inverse = kernels.sketched_ntk(
            jax.random.key(0), mlp.apply, mlp.params, x, damping=1e-3, rank=90
        )
        want, plain = solve(mlp.params, x, None)
        got, preconditioned = solve(mlp.params, x, inverse)
        assert preconditioned.converged
        assert preconditioned.steps < 0.6 * plain.steps
        np.testing.assert_allclose(got, want, rtol=1e-3, atol=1e-3 * np.abs(want).max())

    def test_another_shift_needs_no_new_sketch(self, mlp):
        def build(**settings):
            return kernels.sketched_ntk(
                jax.random.key(0), mlp.apply, mlp.params, mlp.dataset.x, rank=20, **settings
            )

        moved, fresh = build(damping=1.0).with_shift(2.0), build(damping=0.2, shift=2.0)
        v = jax.random.normal(jax.random.key(1), (7, 3))
        np.testing.assert_allclose(moved(v), fresh(v), rtol=1e-10)

    def test_refuses_bad_input(self, mlp):
        def build(**settings):
            return kernels.sketched_ntk(
                jax.random.key(0), mlp.apply, mlp.params, mlp.dataset.x, **settings
            )

        with pytest.raises(ValueError, match="rank must be >= 1, got 0"):
            build(damping=1.0, rank=0)
        with pytest.raises(ValueError, match="shift must be > 0, got 0"):
            build(damping=0)


class TestNystrom:
    def test_is_exact_at_the_rank_of_the_operator(self, x64):
        factor = jax.random.normal(jax.random.key(0), (30, 6))
        inverse = kernels.nystrom(
            jax.random.key(1), lambda v: factor @ (factor.T @ v), jnp.zeros(30), rank=8, shift=0.1
        )
        system = factor @ factor.T + 0.1 * jnp.eye(30)
        np.testing.assert_allclose(dense(inverse, (30,)) @ system, np.eye(30), atol=1e-6)

    def test_saves_steps_on_a_tree(self, precise):
        scales = jnp.asarray(np.r_[np.geomspace(1e4, 10, 10), np.full(30, 1e-3)], precise)
        b = {"u": jnp.ones((4, 5), precise), "v": jnp.ones(20, precise)}

        def matvec(v):
            return {"u": scales[:20].reshape(4, 5) * v["u"], "v": scales[20:] * v["v"]}

        inverse = kernels.nystrom(jax.random.key(0), matvec, b, rank=15, shift=1.0)

        def steps(preconditioner):
            return kernels.cg(
                matvec, b, damping=1.0, tol=1e-4, max_steps=200, preconditioner=preconditioner
            )[1]

        assert steps(inverse).converged
        assert steps(inverse).steps <= 5 < steps(None).steps

    def test_refuses_a_rank_above_the_size(self):
        with pytest.raises(ValueError, match="from 1 to the number of unknowns 3, got 4"):
            kernels.nystrom(jax.random.key(0), lambda v: v, jnp.ones(3), rank=4, shift=1.0)


def test_jacobi_divides_by_the_damped_diagonal(x64):
    diagonal = {"w": jnp.array([1.0, 3.0]), "b": jnp.array([0.0])}
    got = kernels.jacobi(diagonal, damping=0.5)({"w": jnp.array([3.0, 7.0]), "b": jnp.array([1.0])})
    np.testing.assert_allclose(got["w"], [2.0, 2.0])
    np.testing.assert_allclose(got["b"], [2.0])


def test_a_restriction_is_the_exact_inverse_on_the_part_that_stays(mlp):
    kept = np.repeat([1.0, 1, 0, 1, 0, 1, 1], 3)
    whole = kernels.sketched_ntk(
        jax.random.key(0), mlp.apply, mlp.params, mlp.dataset.x, damping=0.3, rank=10**6
    )
    part = whole.restricted_to(jnp.asarray(kept), shift=0.3)
    system = kept[:, None] * dense_ntk(mlp) * kept + 0.3 * np.eye(21)
    np.testing.assert_allclose(dense(part, (7, 3)) @ system, np.eye(21), atol=1e-9)
    assert part.factor is whole.factor
    shifted = kept[:, None] * dense_ntk(mlp) * kept + 0.7 * np.eye(21)
    moved = dense(part.with_shift(0.7), (7, 3))
    np.testing.assert_allclose(moved @ shifted, np.eye(21), atol=1e-9)


def test_the_zero_operator_has_a_nystrom_approximation():
    found = kernels.nystrom(jax.random.key(0), lambda v: 0 * v, jnp.ones(5), rank=3, shift=2.0)
    np.testing.assert_allclose(found(jnp.arange(5.0)), jnp.arange(5.0) / 2, rtol=1e-6, atol=1e-6)
