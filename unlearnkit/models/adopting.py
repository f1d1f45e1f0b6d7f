"""Takes a network from elsewhere together with its trained weights."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
from flax import nnx

from unlearnkit.base import Model, Variables
from unlearnkit.models.adapters import (
    from_functions,
    from_linen,
    from_nnx,
    nnx_layers,
    nnx_variables,
)
from unlearnkit.models.assembling import Held
from unlearnkit.models.equinox import adopt_equinox
from unlearnkit.models.fresh import given
from unlearnkit.models.haiku import from_haiku
from unlearnkit.models.leaves import leaves_of
from unlearnkit.models.pytorch import adopt_torch
from unlearnkit.validation import check_variables


class Adopted(NamedTuple):
    """A network and its weights.

    Attributes:
      model: the network as pure functions.
      variables: its weights and state.
    """

    model: Model
    variables: Variables


def adopt(
    network: Any,
    weights: Any = None,
    *,
    input_shape: tuple[int, ...],
    fresh: Callable[..., Any] | None = None,
    mode: str | Mapping[str, bool] | None = None,
    channels_first: bool | None = None,
    input_dtype: str = "float32",
    convolution: str | None = None,
) -> Adopted:
    """Returns a network from elsewhere as a `Model`, and its weights as `Variables`.

    | network | weights | fresh |
    | --- | --- | --- |
    | a `flax.linen` module | its variables, or its params alone | not needed |
    | a `flax.nnx` module | in the module | `nnx.Rngs -> module` |
    | an Equinox module | in the module; the `State` of its layers, if any | `key -> module` |
    | what `haiku.transform…` returns | params, or (params, state) | not needed |
    | a function (params, x) -> logits | params, any pytree | `key -> params` |
    | a PyTorch module, for audits alone | in the module | none |

    Args:
      network: see the table.
      weights: see the table.
      input_shape: the shape of one example of the data; (height, width, channels) for images.
      fresh: makes new weights, which retraining needs; without it `model.init` refuses.
      mode: see `from_linen`; for linen, nnx and haiku.
      channels_first: whether an Equinox or PyTorch module takes [c, h, w] where the data are
        [h, w, c]; None for yes where `input_shape` has three axes.
      input_dtype: see `from_linen`.
      convolution: see `from_linen`; for linen and nnx.

    Raises:
      TypeError: a network of none of these kinds.
      ValueError: weights that are lacking or do not fit; see `from_linen` too.

    Example:
      model, variables = models.adopt(my_trained_nnx_module, input_shape=(32, 32, 3))
      forgotten = unlearning.FineTune()(key, model, variables, task)
    """
    options: dict[str, Any] = {"input_shape": input_shape, "input_dtype": input_dtype}
    if convolution is not None and not isinstance(network, nn.Module | nnx.Module):
        raise ValueError(
            f"convolution is for modules of flax, got a {type(network).__name__}: leave it out"
        )
    first = len(input_shape) == 3 if channels_first is None else channels_first
    if isinstance(network, nnx.Module):
        return _adopt_nnx(
            network, weights, fresh, {"mode": mode, "convolution": convolution, **options}
        )
    if _comes_from(network, "torch.nn"):
        _check_absent("torch", fresh=fresh, weights=weights)
        return _fitting(*adopt_torch(network, input_shape=input_shape, channels_first=first))
    if _comes_from(network, "equinox"):
        made = adopt_equinox(network, weights, fresh=fresh, channels_first=first, **options)
        return _fitting(*made)
    if weights is None:
        raise ValueError(
            f"a {type(network).__name__} does not hold its weights; give them as the second "
            "argument"
        )
    if isinstance(network, nn.Module):
        model = from_linen(network, mode=mode, convolution=convolution, **options)
        params = weights if "params" in weights else {"params": weights}
        state = {name: value for name, value in params.items() if name != "params"}
        return _fitting(model, Variables(dict(params["params"]), state))
    if hasattr(network, "init") and hasattr(network, "apply"):
        model = from_haiku(network, mode=mode, **options)
        pair = weights if isinstance(weights, tuple) else (weights,)
        return _fitting(model, Variables(*pair))
    if callable(network):
        return _adopt_function(network, weights, fresh, options)
    raise TypeError(
        f"a network must be a module of flax, Equinox or PyTorch, a haiku pair or a function "
        f"(params, x) -> logits, got {type(network).__name__}"
    )


def _comes_from(network: object, package: str) -> bool:
    """Returns whether the class of a network derives from one of a package."""
    return any(f"{kind.__module__}.".startswith(f"{package}.") for kind in type(network).__mro__)


def _check_absent(kind: str, **arguments: object) -> None:
    named = [name for name, value in arguments.items() if value is not None]
    if named:
        raise ValueError(
            f"a {kind} module holds its weights and is not trained here: leave out "
            f"{' and '.join(named)}"
        )


def _fitting(model: Model, variables: Variables) -> Adopted:
    """Returns both after checking that they belong together."""
    check_variables(variables, model)
    return Adopted(model, variables)


def _adopt_nnx(
    module: nnx.Module, weights: Any, fresh: Callable[..., Any] | None, options: dict[str, Any]
) -> Adopted:
    if weights is not None:
        raise ValueError("an nnx module holds its weights: leave out the second argument")
    variables = nnx_variables(module)
    if fresh is not None:
        return _fitting(from_nnx(fresh, **options), variables)
    model = from_nnx(_Copy(Held(module)), **options)
    layers = nnx_layers(module)  # of the copy they would be in the order of their names
    return _fitting(model._replace(init=given(variables, None), layers=layers), variables)


@dataclasses.dataclass(frozen=True)
class _Copy:
    """Makes copies of a module, with random-number streams of their own."""

    module: Held

    def __call__(self, rngs: nnx.Rngs) -> nnx.Module:
        made: nnx.Module = nnx.clone(self.module.value)
        parts = [part for _, part in nnx.iter_graph(made) if isinstance(part, nnx.RngStream)]
        streams = {part.key.tag for part in parts}
        nnx.reseed(made, policy="match_shape", **{name: rngs() for name in sorted(streams)})
        return made


def _adopt_function(
    apply: Callable[..., jax.Array],
    params: Any,
    fresh: Callable[..., Any] | None,
    options: dict[str, Any],
) -> Adopted:
    variables = leaves_of(params).split(params)
    if fresh is not None:
        return _fitting(from_functions(fresh, apply, **options), variables)
    model = from_functions(lambda key: params, apply, **options)
    return _fitting(model._replace(init=given(variables, None)), variables)
