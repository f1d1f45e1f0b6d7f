import jax
import jax.numpy as jnp
import numpy as np
import pytest

from unlearnkit import kernels
from unlearnkit.kernels import ntk
from unlearnkit.kernels._dense_layers import dense_kernels
from unlearnkit.kernels.ntk import cheapest_method

CLOSE = {"rtol": 1e-9, "atol": 1e-11}


def oracle(problem):
    return jnp.einsum("iap,jbp->iajb", problem.jacobian, problem.jacobian)


class TestEmpiricalNtk:
    @pytest.mark.parametrize("method", ["auto", "jacobian", "products", "structured"])
    def test_is_the_product_of_dense_jacobians(self, problem, method):
        x = problem.dataset.x
        want = oracle(problem)
        got = kernels.empirical_ntk(problem.apply, problem.params, x, method=method)
        np.testing.assert_allclose(got, want, **CLOSE)
        cross = kernels.empirical_ntk(
            problem.apply, problem.params, x[:5], x[2:], method=method
        )  # fmt: skip
        np.testing.assert_allclose(cross, want[:5, :, 2:], **CLOSE)

    @pytest.mark.parametrize("method", ["jacobian", "products", "structured"])
    @pytest.mark.parametrize("chunk", [2, 7])
    def test_does_not_depend_on_the_chunk(self, mlp, method, chunk):
        x, want = mlp.dataset.x, oracle(mlp)
        got = kernels.empirical_ntk(mlp.apply, mlp.params, x, method=method, chunk=chunk)
        np.testing.assert_allclose(got, want, **CLOSE)
        cross = kernels.empirical_ntk(
            mlp.apply, mlp.params, x, x[:3], method=method, chunk=chunk
        )  # fmt: skip
        np.testing.assert_allclose(cross, want[:, :, :3], **CLOSE)

    @pytest.mark.parametrize("method", ["jacobian", "products", "structured"])
    @pytest.mark.parametrize("limit", ["CHUNK_BYTES", "HELD_BYTES"])
    def test_does_not_depend_on_what_is_kept(self, mlp, monkeypatch, method, limit):
        monkeypatch.setattr(ntk, limit, 0)
        monkeypatch.setattr(ntk, "HELD_SHARE", 0)
        x, want = mlp.dataset.x, oracle(mlp)
        got = kernels.empirical_ntk(mlp.apply, mlp.params, x, method=method, chunk=3)
        np.testing.assert_allclose(got, want, **CLOSE)

    def test_under_jit_and_vmap_over_parameters(self, mlp):
        stacked = jax.tree.map(lambda leaf: jnp.stack([2 * leaf, leaf]), mlp.params)
        got = jax.jit(
            jax.vmap(lambda p, x: kernels.empirical_ntk(mlp.apply, p, x), in_axes=(0, None))
        )(stacked, mlp.dataset.x)
        np.testing.assert_allclose(got[1], oracle(mlp), **CLOSE)

    def test_second_call_does_not_compile(self, mlp, compilations):
        counted = compilations(mlp.apply)
        kernels.empirical_ntk(counted, mlp.params, mlp.dataset.x, method="jacobian", chunk=7)
        before = counted.count
        kernels.empirical_ntk(counted, mlp.params, 2 * mlp.dataset.x, method="jacobian", chunk=7)
        assert counted.count == before

    @pytest.mark.parametrize(
        ("best", "places", "inputs", "hidden", "outputs"),
        [("jacobian", 50, 3, 4, 2), ("products", 1, 3, 4, 90), ("structured", 1, 30, 60, 5)],
    )
    def test_auto_counts(self, x64, best, places, inputs, hidden, outputs):
        """Shared weights favour the contraction, many outputs the products, width the factors."""

        def apply(params, x):
            return jnp.mean(jnp.tanh(x @ params["a"]) @ params["b"], axis=1)

        params = {"a": jnp.ones((inputs, hidden)), "b": jnp.ones((hidden, outputs))}
        x = jnp.ones((8, places, inputs))
        assert cheapest_method(apply, params, x, x) == best

    def test_refuses_bad_input(self, mlp):
        x = mlp.dataset.x
        with pytest.raises(ValueError, match=r"method must be .*, got 'exact'"):
            kernels.empirical_ntk(mlp.apply, mlp.params, x, method="exact")
        with pytest.raises(ValueError, match="chunk must be >= 1, got 0"):
            kernels.empirical_ntk(mlp.apply, mlp.params, x, chunk=0)
        with pytest.raises(ValueError, match=r"to outputs \[n, ...\], but 1 input gave \(\)"):
            kernels.empirical_ntk(lambda p, x: mlp.apply(p, x).sum(), mlp.params, x)


class TestDenseLayers:
    """Which kernels are contracted by their factors; a wrong yes would be a wrong kernel."""

    @staticmethod
    def found(apply, params, x):
        names = sorted(params)
        return {names[i] for i in dense_kernels(apply, params, x[0])}

    def check(self, apply, params, want):
        x = jax.random.normal(jax.random.key(0), (3, 4))
        assert self.found(apply, params, x) == want
        structured = kernels.empirical_ntk(apply, params, x, method="structured")
        dense = kernels.empirical_ntk(apply, params, x, method="jacobian")
        np.testing.assert_allclose(structured, dense, **CLOSE)

    @pytest.fixture
    def params(self, x64):
        keys = jax.random.split(jax.random.key(1), 3)
        shapes = {"a": (4, 4), "b": (4, 4), "c": (4, 2)}
        return {n: jax.random.normal(k, s) for k, (n, s) in zip(keys, shapes.items(), strict=True)}

    def test_inside_compiled_functions(self, params):
        @jax.jit
        def layer(kernel, x):
            return jax.nn.relu(x @ kernel)

        def apply(p, x):
            return layer(p["b"], layer(p["a"], x)) @ p["c"]

        self.check(apply, params, {"a", "b", "c"})

    def test_not_where_a_kernel_is_shared_or_penalised(self, params):
        def apply(p, x):
            return (jnp.tanh(x @ p["a"]) @ p["a"] + x @ (2 * p["b"])) @ p["c"]

        self.check(apply, params, {"c"})

    def test_not_where_a_kernel_is_used_otherwise_too(self, params):
        def apply(p, x):
            return jnp.tanh(x @ p["a"]) @ p["b"] @ p["c"] + jnp.sum(p["b"] ** 2)

        self.check(apply, params, {"a", "c"})

    def test_not_where_transposed_or_over_many_rows(self, params):
        def apply(p, x):
            rows = jnp.stack([x, x**2], axis=1) @ p["a"]
            return jnp.sum(jnp.tanh(rows), axis=1) @ p["b"].T @ p["c"]

        self.check(apply, params, {"c"})

    def test_a_kernel_that_is_not_used(self, params):
        self.check(lambda p, x: jnp.tanh(x @ p["a"]) @ p["c"], params, {"a", "c"})


class TestNtkOperator:
    @pytest.mark.parametrize("chunk", [None, 3])
    def test_is_the_dense_kernel_times_the_vector(self, problem, chunk):
        v = jax.random.normal(jax.random.key(0), (7, 3))

        @jax.jit
        def product(params, x, v):
            return kernels.ntk_operator(problem.apply, params, x, damping=0.7, chunk=chunk)(v)

        got = product(problem.params, problem.dataset.x, v)
        want = jnp.tensordot(oracle(problem), v, axes=2) + 0.7 * v
        np.testing.assert_allclose(got, want, **CLOSE)

    @pytest.mark.parametrize("chunk", [1, 7, 100])
    def test_does_not_depend_on_the_chunk_and_maps_over_vectors(self, mlp, chunk):
        vectors = jax.random.normal(jax.random.key(1), (4, 7, 3))
        operator = kernels.ntk_operator(
            mlp.apply, mlp.params, mlp.dataset.x, damping=0.0, chunk=chunk
        )  # fmt: skip
        got = jax.jit(jax.vmap(operator))(vectors)
        np.testing.assert_allclose(got, jnp.einsum("iajb,kjb->kia", oracle(mlp), vectors), **CLOSE)

    def test_the_product_runs_the_network_once_for_many_vectors(self, mlp):
        program = jax.make_jaxpr(
            lambda params, x, v: kernels.cg(
                kernels.ntk_operator(mlp.apply, params, x, damping=0.0),
                v,
                damping=1.0,
                tol=1e-3,
                max_steps=10,
            )[0]
        )(mlp.params, mlp.dataset.x, jnp.ones((7, 3)))
        loops = [eqn for eqn in program.jaxpr.eqns if eqn.primitive.name == "while"]
        assert "tanh" in str(program)
        assert all("tanh" not in str(loop) for loop in loops)

    def test_memory_of_a_chunked_product_is_flat(self):
        """Temporary memory beyond inputs and outputs; activations are 1,000 numbers an input."""

        def apply(params, x):
            return jnp.tanh(x @ params["a"]) @ params["b"]

        params = {"a": jnp.ones((2, 1000)), "b": jnp.ones((1000, 2))}

        def temporary(n, chunk):
            def product(params, x, v):
                return kernels.ntk_operator(apply, params, x, damping=0.0, chunk=chunk)(v)

            arrays = (params, jnp.ones((n, 2)), jnp.ones((n, 2)))
            return jax.jit(product).lower(*arrays).compile().memory_analysis().temp_size_in_bytes

        assert temporary(1024, 8) < 1.3 * temporary(128, 8)
        assert temporary(1024, None) > 4 * temporary(128, None)

    def test_refuses_bad_input(self, mlp):
        x = mlp.dataset.x
        with pytest.raises(ValueError, match="chunk must be >= 1, got 0"):
            kernels.ntk_operator(mlp.apply, mlp.params, x, damping=0.0, chunk=0)
        with pytest.raises(ValueError, match="one array of outputs, got a tuple"):
            kernels.ntk_operator(lambda p, x: (x, x), mlp.params, x, damping=0.0)
        product = kernels.ntk_operator(mlp.apply, mlp.params, x, damping=0.0)
        with pytest.raises(ValueError, match=r"like the outputs \(7, 3\), got \(3, 7\)"):
            product(jnp.ones((3, 7)))


def test_kernels_ask_for_the_highest_precision():
    def apply(params, x):
        return jnp.tanh(x @ params)

    w, x = jnp.ones((3, 2)), jnp.ones((4, 3))
    for function in (
        lambda w, x: kernels.empirical_ntk(apply, w, x, method="jacobian"),
        lambda w, x: kernels.empirical_ntk(apply, w, x, method="products"),
        lambda w, x: kernels.empirical_ntk(apply, w, x, method="structured"),
        lambda w, x: kernels.ntk_operator(apply, w, x, damping=0.0)(x[:, :2]),
        lambda w, x: kernels.ntk_operator(apply, w, x, damping=0.0, chunk=3)(x[:, :2]),
    ):
        program = str(jax.make_jaxpr(function)(w, x))
        assert program.count("dot_general[") == program.count("precision=(Precision.HIGHEST") > 0


def test_without_a_count_the_jacobians_are_contracted(mlp, monkeypatch):
    monkeypatch.setattr("unlearnkit.kernels.ntk.program_flops", lambda *_, **__: None)
    ntk._cheapest.cache_clear()
    assert cheapest_method(mlp.apply, mlp.params, mlp.dataset.x, mlp.dataset.x) == "jacobian"
    ntk._cheapest.cache_clear()


def test_a_method_is_chosen_once_for_a_function_and_its_shapes(mlp, monkeypatch):
    asked = []
    monkeypatch.setattr(ntk, "program_flops", lambda name, *_: asked.append(name) or len(asked))
    ntk._cheapest.cache_clear()
    x = mlp.dataset.x
    first = cheapest_method(mlp.apply, mlp.params, x, x)
    assert cheapest_method(mlp.apply, jax.tree.map(jnp.cos, mlp.params), 2 * x, x) == first
    assert len(asked) == 3
    cheapest_method(mlp.apply, mlp.params, x[:2], x)
    assert len(asked) == 6
    ntk._cheapest.cache_clear()


def test_inputs_may_be_trees(mlp):
    def apply(params, inputs):
        return mlp.apply(params, inputs["half"] + inputs["rest"])

    x = mlp.dataset.x
    inputs = {"half": x / 2, "rest": x / 2}
    for method in ("auto", "jacobian", "products", "structured"):
        got = kernels.empirical_ntk(apply, mlp.params, inputs, method=method, chunk=3)
        np.testing.assert_allclose(got, oracle(mlp), **CLOSE)


@pytest.mark.parametrize("leaf", [jnp.arange(3), jnp.ones(3, jnp.complex64)])
def test_params_without_a_derivative_are_named(mlp, leaf):
    params = {"net": mlp.params, "steps": leaf}
    with pytest.raises(ValueError, match=rf"params\['steps'\] is {leaf.dtype}; close `apply`"):
        kernels.empirical_ntk(lambda p, x: mlp.apply(p["net"], x), params, mlp.dataset.x)
