import equinox as eqx
import flax.linen as nn
import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from unlearnkit import models, training
from unlearnkit.base import Dataset
from unlearnkit.models.leaves import leaves_of
from unlearnkit.training.checkpoint import same_bits

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of haiku's imports
X = jax.random.normal(jax.random.key(1), (4, 8))
IMAGES = jax.random.normal(jax.random.key(2), (4, 5, 6, 3))


class Module(nnx.Module):
    """Attributes in an order that is not that of their names."""

    def __init__(self, rngs):
        self.one = nnx.Linear(8, 6, rngs=rngs)
        self.norm = nnx.BatchNorm(6, rngs=rngs)
        self.drop = nnx.Dropout(0.5, rngs=rngs)
        self.last = nnx.Linear(6, 3, rngs=rngs)

    def __call__(self, x):
        return self.last(self.drop(nnx.relu(self.norm(self.one(x)))))


class Convolution(eqx.Module):
    """Of one example, channels first, with a state."""

    conv: eqx.nn.Conv2d
    bn: eqx.nn.BatchNorm
    drop: eqx.nn.Dropout
    out: eqx.nn.Linear

    def __init__(self, key):
        one, two = jax.random.split(key)
        self.conv = eqx.nn.Conv2d(3, 4, 3, key=one)
        self.bn = eqx.nn.BatchNorm(4, axis_name="batch", mode="batch")
        self.drop = eqx.nn.Dropout(0.5)
        self.out = eqx.nn.Linear(4 * 3 * 4, 3, key=two)

    def __call__(self, x, state, key=None):
        x, state = self.bn(self.conv(x), state)
        return self.out(self.drop(jax.nn.relu(x).reshape(-1), key=key)), state


def normed(x, is_training):
    x = hk.BatchNorm(True, True, 0.9)(hk.Linear(6)(x), is_training)
    if is_training:
        x = hk.dropout(hk.next_rng_key(), 0.5, x)
    return hk.Linear(3)(x)


def linen():
    net = nn.Dense(3)
    weights = net.init(jax.random.key(0), X)
    return models.adopt(net, weights, input_shape=(8,)), X, net.apply(weights, X)


def bare_linen():
    net = nn.Dense(3)
    weights = net.init(jax.random.key(0), X)
    return models.adopt(net, weights["params"], input_shape=(8,)), X, net.apply(weights, X)


def nnx_module():
    module = Module(nnx.Rngs(0))
    module.norm.mean[...] = jnp.arange(6.0)  # a statistic that is no initial one
    module.eval()
    expected = module(X)
    module.train()
    return models.adopt(module, input_shape=(8,)), X, expected


def equinox():
    module, state = eqx.nn.make_with_state(Convolution)(jax.random.key(0))
    call = jax.vmap(
        eqx.nn.inference_mode(module), in_axes=(0, None), out_axes=(0, None), axis_name="batch"
    )
    expected, _ = call(IMAGES.transpose(0, 3, 1, 2), state)
    return models.adopt(module, state, input_shape=(5, 6, 3)), IMAGES, expected


def haiku():
    net = hk.transform_with_state(normed)
    params, state = net.init(jax.random.key(0), X, is_training=True)
    _, state = net.apply(params, state, jax.random.key(1), X, is_training=True)
    expected, _ = net.apply(params, state, None, X, is_training=False)
    return models.adopt(net, (params, state), input_shape=(8,)), X, expected


def function():
    params = {"w": jnp.ones((8, 3)), "act": jnp.tanh, "n": 3, "name": "a", "t": jnp.arange(3)}

    def apply(params, x):
        return params["act"](x @ params["w"]) * params["n"] + params["t"]

    return models.adopt(apply, params, input_shape=(8,)), X, apply(params, X)


MADE = {f.__name__: f for f in (linen, bare_linen, nnx_module, equinox, haiku, function)}
DROPS = ("nnx_module", "equinox", "haiku")
LAYERS = {
    "nnx_module": ((("one",), ("norm",)), (("last",),)),
    "equinox": ((("conv",), ("bn",)), (("out",),)),
    "haiku": ((("linear",), ("batch_norm",)), (("linear_1",),)),
}


@pytest.mark.parametrize("kind", MADE)
def test_an_adopted_network_answers_and_learns_as_it_did(kind):
    (model, variables), x, expected = MADE[kind]()
    np.testing.assert_allclose(model.apply(variables, x), expected, atol=1e-5)
    assert model.n_classes == 3
    if kind in LAYERS:
        assert model.layers == LAYERS[kind]

    def loss(params, key):
        logits, state = model.apply_train(variables._replace(params=params), x, key)
        return (logits**2).sum(), state

    slope = jax.jit(jax.value_and_grad(loss, has_aux=True))
    (one, state), gradient = slope(variables.params, jax.random.key(0))
    (two, _), _ = slope(variables.params, jax.random.key(1))
    assert all(jnp.abs(leaf).max() > 0 for leaf in jax.tree.leaves(gradient)[-2:])
    assert (one != two) == (kind in DROPS)  # each key drops others
    assert same_bits(state, variables.state) == (kind not in DROPS)


def test_what_was_given_alone_cannot_start_afresh():
    model, _ = models.adopt(Module(nnx.Rngs(0)), input_shape=(8,))
    shapes = jax.eval_shape(model.init, jax.random.key(0))  # its shapes are known all the same
    assert shapes.params["one"]["kernel"].shape == (8, 6)
    data = Dataset(X, jnp.zeros(4, jnp.int32))
    with pytest.raises(ValueError, match="cannot be initialised afresh.*fresh="):
        model.init(jax.random.key(0))
    with pytest.raises(ValueError, match="cannot be initialised afresh.*fresh="):
        training.fit(jax.random.key(0), model, data, training.Recipe(epochs=1, batch_size=2))


FRESH = {
    "nnx": (Module(nnx.Rngs(0)), Module),
    "equinox": (
        eqx.nn.MLP(8, 3, 4, 1, key=jax.random.key(0)),
        lambda key: eqx.nn.MLP(8, 3, 4, 1, key=key),
    ),
}


@pytest.mark.parametrize("kind", FRESH)
def test_fresh_makes_new_weights(kind):
    module, fresh = FRESH[kind]
    model, variables = models.adopt(module, input_shape=(8,), fresh=fresh)
    made = [jax.jit(model.init)(jax.random.key(seed)) for seed in (5, 5, 6)]
    assert same_bits(made[0], made[1])
    assert not same_bits(made[0].params, made[2].params)
    assert not same_bits(made[0].params, variables.params)


def test_equal_functions_still_make_equal_models():
    def init(key):
        return {"w": jax.random.normal(key, (8, 3))}

    def apply(params, x):
        return x @ params["w"]

    one, two = (models.from_functions(init, apply, input_shape=(8,)) for _ in range(2))
    assert one == two
    assert hash(one) == hash(two)


def test_leaves_go_where_they_belong():
    tree = {"w": jnp.ones(2), "i": jnp.arange(2), "s": "text", "f": 0.5, "n": 2, "none": None}
    leaves = leaves_of(tree)
    variables = leaves.split(tree)
    assert sorted(k for k, v in variables.params.items() if v is not None) == ["f", "w"]
    assert [k for k, v in variables.state.items() if v is not None] == ["i"]
    joined = leaves.join(jax.tree.map(lambda leaf: 2 * leaf, variables))
    assert (joined["s"], joined["n"], joined["none"]) == ("text", 2, None)
    assert float(joined["f"]) == 1.0
    np.testing.assert_array_equal(joined["i"], [0, 2])


def test_refuses_what_cannot_be_adopted(unchecked_types):
    with pytest.raises(ValueError, match="does not hold its weights"):
        models.adopt(nn.Dense(3), input_shape=(8,))
    wide = nn.Dense(4).init(jax.random.key(0), X)
    with pytest.raises(ValueError, match="variables do not fit the model: params/bias"):
        models.adopt(nn.Dense(3), wide, input_shape=(8,))
    with pytest.raises(TypeError, match="got int"):
        models.adopt(3, {}, input_shape=(8,))
    with pytest.raises(ValueError, match="models.adopt takes it"):
        models.from_nnx(Module(nnx.Rngs(0)), input_shape=(8,))


FACTORIES = """
import flax.linen as nn
from unlearnkit import models

def plain(n_classes):
    return models.from_linen(nn.Dense(n_classes), input_shape=(8,))

def wide(input_shape, n_classes, width=2):
    return models.create("mlp", input_shape=input_shape, n_classes=n_classes, hidden=(width,))

def wrong():
    return 3
"""


def test_a_network_is_named_by_the_function_that_makes_it(tmp_path, monkeypatch):
    (tmp_path / "factories_of_mine.py").write_text(FACTORIES)
    monkeypatch.chdir(tmp_path)

    def create(name, **options):
        return models.create(name, input_shape=(8,), n_classes=3, **options)

    assert create("factories_of_mine:plain").n_classes == 3
    wide = create("factories_of_mine:wide", width=7)
    assert jax.eval_shape(wide.init, jax.random.key(0)).params["fc1"]["bias"].shape == (7,)
    for name, kind, message in (
        ("factories_of_mine:wrong", TypeError, "must return a Model.*got int"),
        ("factories_of_mine:none", ValueError, "has no function none"),
        ("no_such_module:f", ImportError, "No module named.*current folder"),
        ("factories_of_mine:", ValueError, "package.module:factory"),
    ):
        with pytest.raises(kind, match=message):
            create(name)
    with pytest.raises(ValueError, match="no option depth; its options: width"):
        create("factories_of_mine:wide", depth=7)
