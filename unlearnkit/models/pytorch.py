"""A PyTorch module as a model that can be audited: logits by a host callback, and no gradients."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Key

from unlearnkit.base import Model, State, Variables
from unlearnkit.models.assembling import Held, assemble, example_of
from unlearnkit.models.fresh import given

if TYPE_CHECKING:
    import torch

_REFUSAL = (
    "this is a PyTorch module, of which JAX can take no gradient: audits that look at logits work, "
    "methods and audits that need gradients or training do not; read its weights into a network "
    "of JAX (weights.read_weights), or compute the gradients in PyTorch (audit_gradients)"
)


def adopt_torch(
    module: torch.nn.Module, *, input_shape: tuple[int, ...], channels_first: bool
) -> tuple[Model, Variables]:
    """Returns the model of a PyTorch module in evaluation mode, and its weights.

    Each call hands weights and inputs to PyTorch on the host, so that two sets of weights of one
    module can be compared. The module itself stays as it is.

    Args:
      module: maps x [n, ...] to logits [n, c].
      input_shape: the shape of one example of the data.
      channels_first: whether the module takes [n, c, h, w] where the data are [n, h, w, c].

    Raises:
      ValueError: the module does not map to [n, c].
    """
    import copy

    own = copy.deepcopy(module).eval().cpu().requires_grad_(False)
    params = {name: value.numpy() for name, value in own.named_parameters()}
    buffers = {name: value.numpy() for name, value in own.named_buffers()}
    variables = Variables(
        _nested({name: jnp.asarray(value) for name, value in params.items()}),
        _nested({name: jnp.asarray(value) for name, value in buffers.items()}),
    )
    example = example_of(input_shape, "float32")
    host = _Host(Held(own), channels_first)
    logits = host(
        {name: np.asarray(value) for name, value in (params | buffers).items()},
        np.zeros((2, *input_shape), np.float32),
    )
    if logits.ndim != 2 or logits.shape[0] != 2:
        raise ValueError(
            f"the module must map x [n, …] to logits [n, c], but 2 examples gave {logits.shape}"
        )
    apply = _Apply(host, int(logits.shape[1]))
    return assemble(given(variables, None), apply, _refuse_training, example), variables


def _nested(flat: Mapping[str, Any]) -> dict[str, Any]:
    """Returns nested dicts for dotted names."""
    made: dict[str, Any] = {}
    for name, value in flat.items():
        *path, last = name.split(".")
        node = made
        for part in path:
            node = node.setdefault(part, {})
        node[last] = value
    return made


def _flat(tree: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    made: dict[str, Any] = {}
    for name, value in tree.items():
        if isinstance(value, Mapping):
            made |= _flat(value, f"{before}{name}.")
        else:
            made[before + name] = value
    return made


@dataclasses.dataclass(frozen=True)
class _Host:
    """Calls the module on the host."""

    module: Held
    channels_first: bool

    def __call__(
        self, weights: Mapping[str, np.ndarray | Array], x: np.ndarray | Array
    ) -> np.ndarray:
        import torch

        tensors = {name: torch.from_numpy(np.array(value)) for name, value in weights.items()}
        inputs = torch.from_numpy(np.array(x))
        if self.channels_first:
            inputs = inputs.permute(0, 3, 1, 2).contiguous()
        with torch.no_grad():
            logits = torch.func.functional_call(self.module.value, tensors, (inputs,))
        found: np.ndarray = logits.to(torch.float32).numpy()
        return found


@dataclasses.dataclass(frozen=True)
class _Apply:
    host: _Host
    n_classes: int

    def __call__(self, variables: Variables, x: Array) -> Array:
        weights = _flat(variables.params) | _flat(variables.state)
        found: Array = _logits(self, weights, x)
        return found


def _logits(apply: _Apply, weights: Mapping[str, Array], x: Array) -> Array:
    shape = jax.ShapeDtypeStruct((x.shape[0], apply.n_classes), jnp.float32)

    @jax.custom_jvp
    def call(weights: Mapping[str, Array], x: Array) -> Array:
        found: Array = jax.pure_callback(apply.host, shape, weights, x, vmap_method="sequential")
        return found

    call.defjvp(_refuse_gradient)
    found: Array = call(weights, x)
    return found


def _refuse_gradient(primals: Any, tangents: Any) -> Any:
    raise ValueError(_REFUSAL)


def _refuse_training(variables: Variables, x: Array, key: Key[Array, ""]) -> tuple[Array, State]:
    raise ValueError(_REFUSAL)
