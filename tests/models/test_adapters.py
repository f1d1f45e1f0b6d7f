import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from unlearnkit.models import freeze_state, from_functions, from_linen, from_nnx


class LinenNet(nn.Module):
    @nn.compact
    def __call__(self, x, train: bool = False):
        x = nn.Conv(4, (3, 3), name="zoom")(x)
        x = nn.BatchNorm(use_running_average=not train, momentum=0.5, name="norm")(x)
        x = nn.Dropout(0.5, deterministic=not train)(x)
        return nn.Dense(3, name="answer")(x.reshape(x.shape[0], -1))


class NnxNet(nnx.Module):
    def __init__(self, rngs):
        self.zoom = nnx.Conv(1, 4, (3, 3), rngs=rngs)
        self.norm = nnx.BatchNorm(4, momentum=0.5, rngs=rngs)
        self.drop = nnx.Dropout(0.5, rngs=rngs)
        self.body = nnx.List([nnx.Linear(100, 7, rngs=rngs)])
        self.answer = nnx.Linear(7, 3, rngs=rngs)

    def __call__(self, x):
        x = self.drop(self.norm(self.zoom(x)))
        return self.answer(self.body[0](x.reshape(x.shape[0], -1)))


def init_linear(key):
    return {"weight": jax.random.normal(key, (25, 3)), "bias": jnp.zeros(3)}


def apply_linear(params, x):
    return x.reshape(x.shape[0], -1) @ params["weight"] + params["bias"]


BUILDERS = {
    "linen": lambda: from_linen(LinenNet(), input_shape=(5, 5, 1)),
    "nnx": lambda: from_nnx(NnxNet, input_shape=(5, 5, 1)),
    "functions": lambda: from_functions(init_linear, apply_linear, input_shape=(5, 5, 1)),
}
LAYERS = {
    "linen": ((("zoom",), ("norm",)), (("answer",),)),
    "nnx": ((("zoom",), ("norm",)), (("body", "0"),), (("answer",),)),
    "functions": (((),),),
}


@pytest.fixture(params=list(BUILDERS))
def kind(request):
    return request.param


@pytest.fixture
def x():
    return jax.random.normal(jax.random.key(7), (6, 5, 5, 1))


def test_knows_its_shape_and_layers(kind):
    model = BUILDERS[kind]()
    assert model.n_classes == 3
    assert model.input_shape == (5, 5, 1)
    assert model.layers == LAYERS[kind]


def test_equal_modules_share_one_compilation(kind, x):
    traces = []

    def logits(model, variables, x):
        traces.append(1)
        return model.apply(variables, x)

    compiled = jax.jit(logits, static_argnums=0)
    for _ in range(2):
        model = BUILDERS[kind]()
        compiled(model, model.init(jax.random.key(0)), x)
    assert len(traces) == 1


def test_apply_uses_the_variables_it_is_given(kind, x):
    model = BUILDERS[kind]()
    one, other = model.init(jax.random.key(1)), model.init(jax.random.key(2))
    np.testing.assert_array_equal(model.apply(one, x), jax.jit(model.apply)(one, x))
    assert not np.allclose(model.apply(one, x), model.apply(other, x))


@pytest.mark.parametrize("kind", ["linen", "nnx"])
def test_training_mode_draws_dropout_and_updates_the_statistics(kind, x):
    model = BUILDERS[kind]()
    variables = model.init(jax.random.key(0))
    logits, state = jax.jit(model.apply_train)(variables, x, jax.random.key(1))
    again, _ = jax.jit(model.apply_train)(variables, x, jax.random.key(1))
    other, _ = jax.jit(model.apply_train)(variables, x, jax.random.key(2))
    np.testing.assert_array_equal(logits, again)
    assert not np.allclose(logits, other)
    assert jax.tree.structure(state) == jax.tree.structure(variables.state)
    moved = jax.tree.map(lambda a, b: not np.allclose(a, b), state, variables.state)
    assert all(jax.tree.leaves(moved))
    updated = variables._replace(state=state)
    assert not np.allclose(model.apply(updated, x), model.apply(variables, x))


def test_frozen_state_stays(kind, x):
    model = BUILDERS[kind]()
    variables = model.init(jax.random.key(0))
    logits, state = freeze_state(model).apply_train(variables, x, jax.random.key(1))
    np.testing.assert_array_equal(logits, model.apply(variables, x))
    jax.tree.map(np.testing.assert_array_equal, state, variables.state)


def test_refuses_what_is_no_classifier():
    with pytest.raises(ValueError, match=r"logits \[n, c\]"):
        from_functions(init_linear, lambda params, x: x, input_shape=(5, 5, 1))
