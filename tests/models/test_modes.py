"""Modules of users: whatever their mode is called, they train in training mode or are refused."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from unlearnkit.base import Dataset, Variables
from unlearnkit.models import from_linen, from_nnx
from unlearnkit.models.modes import Traced, trace_call
from unlearnkit.training import Recipe, fit

SHAPE = (4,)
X = jax.random.normal(jax.random.key(7), (6, *SHAPE))
KEYS = jax.random.split(jax.random.key(8), 2)
USUAL = {
    "train": True,
    "training": True,
    "is_training": True,
    "deterministic": False,
    "use_running_average": False,
}


def linen_body(x, train):
    x = nn.BatchNorm(use_running_average=not train, momentum=0.5)(nn.Dense(16)(x))
    return nn.Dense(3)(nn.Dropout(0.5, deterministic=not train)(x))


class NnxBody(nnx.Module):
    def __init__(self, rngs):
        self.first = nnx.Linear(4, 16, rngs=rngs)
        self.norm = nnx.BatchNorm(16, momentum=0.5, rngs=rngs)
        self.drop = nnx.Dropout(0.5, rngs=rngs)
        self.last = nnx.Linear(16, 3, rngs=rngs)

    def run(self, x, train):
        x = self.norm(self.first(x), use_running_average=not train)
        return self.last(self.drop(x, deterministic=not train))


def define(kind, signature, train):
    """Defines a module whose call has a signature, and trains where an expression says so."""
    body = "linen_body" if kind == "linen" else "self.run"
    base = "nn.Module" if kind == "linen" else "NnxBody"
    decorator = "    @nn.compact\n" if kind == "linen" else ""
    source = f"class Net({base}):\n{decorator}    def __call__(self, x, {signature}):\n"
    scope = dict(globals())
    exec(f"{source}        return {body}(x, {train})\n", scope)
    return scope["Net"]


def adapt(kind, net, **options):
    if kind == "linen":
        return from_linen(net(), input_shape=SHAPE, **options)
    return from_nnx(net, input_shape=SHAPE, **options)


def assert_trains(model):
    """Dropout draws, statistics move, and evaluation does neither."""
    variables = model.init(jax.random.key(0))
    (one, state), (other, _) = (model.apply_train(variables, X, key) for key in KEYS)
    assert not np.allclose(one, other)
    assert jax.tree.structure(state) == jax.tree.structure(variables.state)
    moved = jax.tree.map(lambda a, b: not np.allclose(a, b), state, variables.state)
    assert all(jax.tree.leaves(moved))
    assert jax.tree.leaves(moved)
    np.testing.assert_array_equal(model.apply(variables, X), model.apply(variables, X))
    assert not np.allclose(model.apply(variables._replace(state=state), X), one)


SIGNATURES = {
    **{name: (f"{name}={not value}", f"{name} == {value}") for name, value in USUAL.items()},
    **{f"the required {name}": (name, f"{name} == {value}") for name, value in USUAL.items()},
    **{
        f"{name} in kwargs": ("**kwargs", f"kwargs.get({name!r}, {not value}) == {value}")
        for name, value in USUAL.items()
    },
    "the required training in kwargs": ("**kwargs", "kwargs['training']"),
    "training by default": ("train=True", "train"),
    "training by default in kwargs": ("**kwargs", "kwargs.get('training', True)"),
}


@pytest.mark.parametrize("train", [True, False])
def test_what_a_loop_draws_is_seen(train):
    def call(variables, x, key):
        def step(x, _):
            kept = jax.random.bernoulli(key, 0.5, x.shape) if train else 2.0
            return x * kept, None

        return jax.lax.scan(step, x, None, length=2)[0], variables.state

    shapes = Variables({}, {"mean": jax.ShapeDtypeStruct((4,), jnp.float32)})
    assert trace_call(call, shapes, jax.ShapeDtypeStruct(SHAPE, jnp.float32)) == Traced(
        draws=train, moves=False
    )


@pytest.mark.parametrize("kind", ["linen", "nnx"])
@pytest.mark.parametrize("case", SIGNATURES)
def test_the_usual_names_are_recognised(kind, case):
    assert_trains(adapt(kind, define(kind, *SIGNATURES[case])))


def test_two_arguments_are_both_given():
    class Net(nn.Module):
        @nn.compact
        def __call__(self, x, use_running_average=True, deterministic=True):
            x = nn.BatchNorm(use_running_average=use_running_average)(nn.Dense(16)(x))
            return nn.Dense(3)(nn.Dropout(0.5, deterministic=deterministic)(x))

    assert_trains(adapt("linen", Net))


def test_keyword_arguments_are_passed_to_layers_that_take_one_name_only():
    class Block(nn.Module):
        @nn.compact
        def __call__(self, x, training):
            return linen_body(x, training)

    class Net(nn.Module):
        @nn.compact
        def __call__(self, x, **kwargs):
            return Block()(x, **kwargs)

    assert_trains(adapt("linen", Net))


def test_keyword_arguments_that_change_nothing_are_not_given():
    class Net(nn.Module):
        @nn.compact
        def __call__(self, x, **kwargs):
            assert len(kwargs) <= 1
            return linen_body(x, kwargs.get("training", False))

    assert_trains(adapt("linen", Net))


def test_a_module_behind_a_transformation_is_seen_through():
    class Net(nn.Module):
        @nn.compact
        def __call__(self, x, train):
            return nn.jit(Fixed, static_argnums=(2,))()(x, train)

    assert_trains(adapt("linen", Net))
    with pytest.raises(ValueError, match="has dropout and batch statistics"):
        adapt("linen", Inner)


class Inner(nn.Module):
    @nn.compact
    def __call__(self, x, learn=False):
        return nn.jit(Fixed, static_argnums=(2,))()(x, learn and False)


class Fixed(nn.Module):
    @nn.compact
    def __call__(self, x, train):
        return linen_body(x, train)


@pytest.mark.parametrize("kind", ["linen", "nnx"])
@pytest.mark.parametrize(
    ("signature", "train", "mode"),
    [
        ("learn=False", "learn", "learn"),
        ("learn", "learn", "learn"),
        ("**options", "options.get('learn', False)", "learn"),
        ("inference=True", "not inference", {"inference": False}),
        ("learn=False", "learn", {"learn": True}),
    ],
)
def test_any_other_name_is_given_as_mode(kind, signature, train, mode):
    net = define(kind, signature, train)
    with pytest.raises(ValueError, match="mode="):
        adapt(kind, net)
    assert_trains(adapt(kind, net, mode=mode))


@pytest.mark.parametrize("kind", ["linen", "nnx"])
def test_the_argument_to_name_is_told(kind):
    with pytest.raises(ValueError, match="give mode='learn', or .* as mode={'learn': True}"):
        adapt(kind, define(kind, "learn=False, train=False", "learn"))
    with pytest.raises(ValueError, match="needs learn.*mode='learn'"):
        adapt(kind, define(kind, "learn", "learn"))


def test_a_switch_that_dropout_is_not_even_built_without_is_found():
    class Net(nn.Module):
        @nn.compact
        def __call__(self, x, learn=False):
            x = nn.Dropout(0.5, deterministic=False)(x) if learn else x
            return nn.Dense(3)(x)

    with pytest.raises(ValueError, match="'learn' switches dropout or statistics on"):
        adapt("linen", Net)


def test_other_boolean_arguments_are_left_alone():
    class Net(nn.Module):
        @nn.compact
        def __call__(self, x, train=False, doubled=False):
            x = linen_body(x, train)
            return 2 * x if doubled else x

    assert_trains(adapt("linen", Net))


class DeadDropout(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Dense(3)(nn.Dropout(0.5, deterministic=True)(x))


class DeadNorm(nn.Module):
    @nn.compact
    def __call__(self, x, train=False):
        x = nn.Dropout(0.5, deterministic=not train)(x)
        return nn.Dense(3)(nn.BatchNorm(use_running_average=True)(x))


class NoDropout(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Dense(3)(nn.Dropout(0.0, deterministic=True)(x))


@pytest.mark.parametrize(
    ("net", "dead"), [(DeadDropout, "dropout"), (DeadNorm, "batch statistics")]
)
def test_layers_that_never_train_are_refused(net, dead):
    with pytest.raises(ValueError, match=f"has {dead}, but its training call.*mode='name'"):
        adapt("linen", net)
    model = adapt("linen", net, mode={})
    variables = model.init(jax.random.key(0))
    logits, _ = model.apply_train(variables, X, KEYS[0])
    np.testing.assert_array_equal(logits, model.apply(variables, X))


@pytest.mark.parametrize("kind", ["linen", "nnx"])
def test_naming_an_argument_that_does_nothing_does_not_help(kind):
    net = define(kind, "learn=False", "False")
    with pytest.raises(ValueError, match=r"dropout and batch statistics.*with learn=True"):
        adapt(kind, net, mode="learn")


def test_dropout_of_rate_0_is_no_dropout():
    adapt("linen", NoDropout)

    class Nnx(nnx.Module):
        def __init__(self, rngs):
            self.layer, self.drop = nnx.Linear(4, 3, rngs=rngs), nnx.Dropout(0.0, rngs=rngs)

        def __call__(self, x):
            return self.layer(self.drop(x, deterministic=True))

    adapt("nnx", Nnx)


@pytest.mark.parametrize("kind", ["linen", "nnx"])
@pytest.mark.parametrize("mode", ["learn", {"learn": True}])
def test_an_argument_that_is_not_there_is_refused(kind, mode):
    net = define(kind, "train=False", "train")
    with pytest.raises(ValueError, match=r"no argument learn; .*its arguments: train"):
        adapt(kind, net, mode=mode)


@pytest.mark.parametrize("kind", ["linen", "nnx"])
def test_evaluation_that_draws_is_refused(kind):
    with pytest.raises(ValueError, match=r"evaluation call.*mode='name'"):
        adapt(kind, define(kind, "learn=True", "True"))


def test_evaluation_that_draws_and_moves_nothing_is_refused():
    class Net(nnx.Module):
        def __init__(self, rngs):
            self.dense, self.dropout = nnx.Linear(4, 3, rngs=rngs), nnx.Dropout(0.5, rngs=rngs)

        def __call__(self, x, learn=True):
            return self.dropout(self.dense(x), deterministic=False)

    with pytest.raises(ValueError, match="draws random numbers in its evaluation call"):
        from_nnx(Net, input_shape=SHAPE)


class Noisy(nn.Module):
    asks: bool = False

    @nn.compact
    def __call__(self, x, train=False):
        x = nn.Dense(3)(nn.Dropout(0.5, deterministic=not train)(x))
        if not train or (self.asks and not self.has_rng("noise")):
            return x
        return x + jax.random.normal(self.make_rng("noise"), x.shape)


class OnlyDropped(nn.Module):
    @nn.compact
    def __call__(self, x, train=False):
        return nn.Dense(3, name="Dense_0")(nn.Dropout(0.5, deterministic=not train)(x))


@pytest.mark.parametrize("asks", [False, True])
def test_other_streams_than_dropout_are_served(asks):
    rngs = ("noise",) if asks else ()
    model = from_linen(Noisy(asks), input_shape=SHAPE, rngs=rngs)
    quiet = adapt("linen", OnlyDropped)
    variables = quiet.init(jax.random.key(0))
    noises = [
        np.asarray(model.apply_train(variables, X, k)[0] - quiet.apply_train(variables, X, k)[0])
        for k in KEYS
    ]
    assert all(0.5 < noise.std() < 1.7 for noise in noises)
    assert not np.allclose(*noises)


class WithValues(nn.Module):
    values: Any

    @nn.compact
    def __call__(self, x, train=False):
        scale = jnp.asarray(self.values)
        return linen_body(x * scale, train)


class NnxWithArray(nnx.Module):
    def __init__(self, rngs):
        self.scale = jnp.array([1.0, 2.0, 3.0, 4.0])
        self.layer = nnx.Linear(4, 3, rngs=rngs)

    def __call__(self, x):
        return self.layer(x * self.scale)


def nnx_with_list(rngs):
    class Net(nnx.Module):
        def __init__(self):
            self.layers = [nnx.Linear(4, 4, rngs=rngs), nnx.Linear(4, 3, rngs=rngs)]

        def __call__(self, x):
            return self.layers[1](self.layers[0](x))

    return Net()


MODELS = {
    "a list": lambda: adapt("linen", lambda: WithValues([1.0, 2.0, 3.0, 4.0])),
    "an array": lambda: adapt("linen", lambda: WithValues(jnp.arange(4.0))),
    "a numpy array": lambda: adapt("linen", lambda: WithValues(np.arange(4.0))),
    "an array in nnx": lambda: adapt("nnx", NnxWithArray),
}


@pytest.mark.parametrize("values", MODELS)
def test_modules_with_lists_and_arrays_train(values):
    model = MODELS[values]()
    dataset = Dataset(X, jnp.arange(6, dtype=jnp.int32) % 3)
    trained = fit(KEYS[0], model, dataset, Recipe(epochs=1, batch_size=3))
    assert jax.tree.leaves(trained.variables.params)
    assert model == model
    assert hash(model) == hash(model)
    assert (model == MODELS[values]()) == (values == "an array in nnx")  # made by one function


def test_a_list_that_flax_cannot_hold_is_refused_at_construction():
    with pytest.raises(ValueError, match="list"):
        adapt("nnx", nnx_with_list)
