"""A PyTorch module as a model, with a stand-in of the few functions of torch that it calls."""

import contextlib
import sys
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from unlearnkit.models.pytorch import adopt_torch


class Tensor:
    def __init__(self, array):
        self.array = np.asarray(array)

    def numpy(self):
        return self.array

    def permute(self, *axes):
        return Tensor(self.array.transpose(axes))

    def contiguous(self):
        return self

    def to(self, dtype):
        return Tensor(self.array.astype(dtype))


class Linear:
    """x [n, …] -> [n, 3]: its inputs flattened, times a weight, plus a buffer."""

    def __init__(self, features=8):
        rng = np.random.default_rng(0)
        self.held = {"body.weight": rng.normal(size=(features, 3)).astype(np.float32)}
        self.fixed = {"shift": np.arange(3, dtype=np.float32)}
        self.training = True

    def named_parameters(self):
        return ((name, Tensor(value)) for name, value in self.held.items())

    def named_buffers(self):
        return ((name, Tensor(value)) for name, value in self.fixed.items())

    def eval(self):
        self.training = False
        return self

    def cpu(self):
        return self

    def requires_grad_(self, wanted):
        return self

    def call(self, weights, x):
        assert not self.training
        return x.reshape(len(x), -1) @ weights["body.weight"] + weights["shift"]


def functional_call(module, weights, inputs):
    plain = {name: value.numpy() for name, value in weights.items()}
    return Tensor(module.call(plain, inputs[0].numpy()))


@pytest.fixture(autouse=True)
def torch(monkeypatch):
    stand_in = types.ModuleType("torch")
    stand_in.from_numpy, stand_in.float32, stand_in.no_grad = (
        Tensor,
        np.float32,
        contextlib.nullcontext,
    )
    stand_in.func = types.SimpleNamespace(functional_call=functional_call)
    monkeypatch.setitem(sys.modules, "torch", stand_in)


X = jnp.arange(16.0).reshape(2, 2, 1, 4) / 16


@pytest.mark.parametrize("channels_first", [False, True])
def test_logits_are_the_module_s_and_it_stays_as_it_is(channels_first):
    module = Linear()
    model, variables = adopt_torch(module, input_shape=(2, 1, 4), channels_first=channels_first)
    shown = np.asarray(X).transpose(0, 3, 1, 2) if channels_first else np.asarray(X)
    wanted = shown.reshape(2, 8) @ module.held["body.weight"] + module.fixed["shift"]
    np.testing.assert_allclose(model.apply(variables, X), wanted, rtol=1e-5)
    others = variables._replace(params=jax.tree.map(lambda w: 0 * w, variables.params))
    np.testing.assert_allclose(model.apply(others, X), [[0, 1, 2]] * 2, atol=1e-6)
    assert module.training
    assert variables.params["body"]["weight"].shape == (8, 3)
    assert variables.state["shift"].shape == (3,)


def test_gradients_and_training_are_refused_by_name():
    model, variables = adopt_torch(Linear(), input_shape=(2, 1, 4), channels_first=False)
    message = "PyTorch module, of which JAX can take no gradient: .*audit_gradients"
    with pytest.raises(ValueError, match=message):
        jax.grad(lambda x: model.apply(variables, x).sum())(X)
    with pytest.raises(ValueError, match=message):
        model.apply_train(variables, X, jax.random.key(0))


def test_outputs_of_another_shape_are_refused():
    module = Linear()
    module.call = lambda weights, x: x
    with pytest.raises(ValueError, match=r"must map x \[n, …\] to logits \[n, c\]"):
        adopt_torch(module, input_shape=(2, 1, 4), channels_first=False)
