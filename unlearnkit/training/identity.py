"""The identity of a training run, as JSON values.

Two runs are the same where they start from the same bits, descend the same objective of the same
network on the same data in the same order, and step alike. An objective is its class and all its
fields. A network that `models.create` made is its name and options; any other, and any objective
that is not this library's, is the text of its traced computation (forward and backward, as training
runs it) together with every byte of the arrays that it closes over, under one version of JAX.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.extend.core as jex
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Key

from unlearnkit.base import Dataset, Model, Variables
from unlearnkit.io.files import sha256_of_array
from unlearnkit.models import MODELS, create
from unlearnkit.training.checkpoint import fingerprint
from unlearnkit.training.recipe import Recipe
from unlearnkit.training.step import Objective
from unlearnkit.validation import named_leaves

_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")


def identify(
    key: Key[Array, ...],
    objective: Objective,
    recipe: Recipe,
    dataset: Dataset,
    start: Variables,
    context: Any = None,
) -> dict[str, Any]:
    """Returns the identity of a run; its number of epochs is included but may be extended later.

    Args:
      key: of the run, or of several.
      objective: what it descends.
      recipe: how.
      dataset: [n] examples.
      start: the initial weights.
      context: passed on to the objective.
    """
    batch = _batch_shapes(recipe, dataset)
    reader = _Reader(recipe)
    described = reader.read(objective)
    if reader.opaque or not _is_ours(type(objective)):
        described = {"is": described, **trace_gradient(objective, start, batch, context)}
    return {
        "key": [str(jax.random.key_impl(key)), np.asarray(jax.random.key_data(key)).tolist()],
        "recipe": _Reader(None).read(recipe)["fields"],
        "data": fingerprint(dataset),
        "normalisation": _Reader(None).read(dataset.normalisation)["fields"],
        "network": [_network(model, batch) for model in reader.models],
        "objective": described,
        "start": digest(start),
        "context": digest(context),
        "matmul_precision": jax.config.values["jax_default_matmul_precision"],
    }


def identify_network(model: Model, recipe: Recipe, dataset: Dataset) -> dict[str, Any]:
    """Returns the identity of a network: its name and options, or a digest of its computation.

    Args:
      model: the network.
      recipe: for the batch size.
      dataset: for the shape of the examples.
    """
    return _network(model, _batch_shapes(recipe, dataset))


def digest(tree: Any) -> str:
    """Returns a SHA-256 over the structure, the names and every byte of a pytree."""
    leaves, structure = jax.tree_util.tree_flatten_with_path(tree)
    lines = [_ADDRESS.sub("", str(structure))]
    lines += [f"{jax.tree_util.keystr(path)} {_array_digest(leaf)}" for path, leaf in leaves]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def trace_gradient(
    objective: Callable[..., Any], start: Variables, batch: Any, context: Any
) -> dict[str, str]:
    """Returns the SHA-256 of an objective's traced value and gradient, and JAX's version.

    Args:
      objective: (params, state, batch, key, context) -> (loss, rest).
      start: variables, or their shapes.
      batch: examples, or their shapes.
      context: of the objective.
    """

    def step(params: Any, state: Any, batch: Any, key: Any, context: Any) -> Any:
        graded = jax.value_and_grad(objective, has_aux=True)
        return graded(params, state, batch, key, context)

    key = jax.eval_shape(lambda: jax.random.key(0))
    traced = jax.make_jaxpr(step)(start.params, start.state, batch, key, context)
    return {"computation": digest_traced(traced), "jax": jax.__version__}


def digest_traced(traced: jex.ClosedJaxpr) -> str:
    """Returns a SHA-256 of a traced function: its text, and the bytes of its constants.

    Names of variables and addresses of functions, which differ from process to process, are left
    out.
    """
    return hashlib.sha256("\n".join(_Printer().closed(traced)).encode()).hexdigest()


def _batch_shapes(recipe: Recipe, dataset: Dataset) -> Any:
    return jax.eval_shape(lambda: jax.tree.map(lambda a: a[: recipe.batch_size], dataset))


def _network(model: Model, batch: Dataset) -> dict[str, Any]:
    """Returns a network's name and options, or what it computes."""
    shape = [list(model.input_shape), model.n_classes]
    if model.origin is not None and model.origin[0] in MODELS:
        name, options = model.origin
        if _is_made_by(MODELS.find(name), model):
            return {"name": name, "options": _Reader(None).read(dict(options)), "shape": shape}
    shapes = jax.eval_shape(model.init, jax.random.key(0))
    x = batch.x
    if x.shape[1:] != tuple(model.input_shape):  # the objective makes its inputs of the examples
        shape_of_x = (x.shape[0], *model.input_shape)
        batch = batch._replace(x=jax.eval_shape(lambda: jnp.zeros(shape_of_x, x.dtype)))

    def scored(params: Any, state: Any, batch: Dataset, key: Any, _: None) -> Any:
        logits, state = model.apply_train(Variables(params, state), batch.x, key)
        return logits.sum(), (logits, state)

    names = [f"{name} {leaf.shape} {leaf.dtype}" for name, leaf in named_leaves(shapes).items()]
    variables = hashlib.sha256("\n".join(names).encode()).hexdigest()
    traced = trace_gradient(scored, shapes, batch, None)
    return {"shape": shape, "variables": variables, **traced}


@functools.lru_cache(maxsize=64)
def _is_made_by(factory: Callable[..., Model], model: Model) -> bool:
    """Whether a network is the one of its name and options; making it again takes a while.

    Args:
      factory: registered under the name now.
      model: a network with an origin.
    """
    assert model.origin is not None
    name, options = model.origin
    made = create(name, input_shape=model.input_shape, n_classes=model.n_classes, **dict(options))
    return made == model


class _Reader:
    """Describes values as JSON, and collects the networks and opaque values in them.

    Attributes:
      run: a recipe that is described as the run's own, so that its epochs do not count twice.
      models: the networks found.
      opaque: whether something was found that has no description.
    """

    def __init__(self, run: Recipe | None):
        self.run, self.models, self.opaque = run, list[Model](), False

    def read(self, value: Any) -> Any:
        if value is None or isinstance(value, bool | int | str):
            return value
        if isinstance(value, float):
            return value if np.isfinite(value) else str(value)
        if isinstance(value, Model):
            if value not in self.models:
                self.models.append(value)
            return {"network": self.models.index(value)}
        if isinstance(value, Recipe) and self._is_the_run_s(value):
            return "the run's"
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            names = (field.name for field in dataclasses.fields(value))
            fields = {name: self.read(getattr(value, name)) for name in names}
            return {"class": _qualified(type(value)), "fields": fields}
        if isinstance(value, tuple) and hasattr(value, "_fields"):
            pairs = zip(value._fields, value, strict=True)
            fields = {name: self.read(part) for name, part in pairs}
            return {"class": _qualified(type(value)), "fields": fields}
        if isinstance(value, tuple | list):
            return [self.read(part) for part in value]
        if isinstance(value, Mapping):
            return {str(name): self.read(part) for name, part in value.items()}
        if isinstance(value, np.ndarray | np.generic | jax.Array):
            return _array_digest(value)
        self.opaque = True
        return {"class": _qualified(value if callable(value) else type(value))}

    def _is_the_run_s(self, recipe: Recipe) -> bool:
        """Whether a recipe is the run's up to the epochs, which an objective never sees."""
        run = self.run
        return run is not None and dataclasses.replace(recipe, epochs=run.epochs) == run


class _Printer:
    """Writes a traced function line by line, its variables numbered in order."""

    def __init__(self) -> None:
        self._names: dict[Any, str] = {}

    def closed(self, traced: Any) -> list[str]:
        constants = [f"const {_array_digest(value)}" for value in traced.consts]
        return [*constants, *self.open(traced.jaxpr)]

    def open(self, jaxpr: Any) -> list[str]:
        lines = [f"given {self._all(jaxpr.constvars)} ; {self._all(jaxpr.invars)}"]
        for equation in jaxpr.eqns:
            # Read before the results are named, as the text of an equation has them on its left.
            given = self._all(equation.invars)
            parameters = [
                f"{name}={self.parameter(value)}" for name, value in equation.params.items()
            ]
            results = self._all(equation.outvars)
            lines.append(f"{results} = {equation.primitive.name}{parameters} {given}")
        return [*lines, f"return {self._all(jaxpr.outvars)}"]

    def parameter(self, value: Any) -> str:
        if isinstance(value, jex.ClosedJaxpr):
            return "{" + "\n".join(_Printer().closed(value)) + "}"
        if isinstance(value, jex.Jaxpr):
            return "{" + "\n".join(_Printer().open(value)) + "}"
        if isinstance(value, np.ndarray | jax.Array):
            return _array_digest(value)
        if isinstance(value, tuple | list):
            return "(" + ", ".join(self.parameter(part) for part in value) + ")"
        if isinstance(value, Mapping):
            parts = (f"{name}: {self.parameter(part)}" for name, part in value.items())
            return "{" + ", ".join(parts) + "}"
        if callable(value) or hasattr(value, "call_wrapped"):  # rules of custom derivatives
            return getattr(value, "__name__", type(value).__name__)
        return _ADDRESS.sub("", str(value))

    def _all(self, atoms: Sequence[Any]) -> str:
        return " ".join(self._atom(atom) for atom in atoms)

    def _atom(self, atom: Any) -> str:
        if isinstance(atom, jex.Literal):
            return _array_digest(atom.val)
        name = self._names.setdefault(atom, f"v{len(self._names)}")
        return f"{name}:{atom.aval.str_short()}"


def _array_digest(value: Any) -> str:
    """Returns the SHA-256 of an array, of a key, or of a number."""
    if isinstance(value, jax.Array) and jnp.issubdtype(value.dtype, jax.dtypes.prng_key):
        words = np.asarray(jax.random.key_data(value))
        return f"{jax.random.key_impl(value)} {sha256_of_array(words)}"
    return sha256_of_array(np.asarray(value))


def _qualified(thing: Any) -> str:
    return f"{getattr(thing, '__module__', '?')}.{getattr(thing, '__qualname__', '?')}"


def _is_ours(kind: type) -> bool:
    return kind.__module__.partition(".")[0] == "unlearnkit"
