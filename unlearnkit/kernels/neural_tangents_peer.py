"""neural-tangents on the jax of today, and our kernels in its calling convention.

neural-tangents 0.6.5 asks jax for names that have since moved or gone. Within `neural_tangents()`
they are where it looks for them, so that its infinite-width kernels (`stax`), its empirical ones,
`linearize` and `predict` run beside ours; outside nothing is changed. It is no dependency: install
it without its own (`pip install --no-deps neural-tangents frozendict`), which hold TensorFlow.
"""

from __future__ import annotations

import contextlib
import importlib.util
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from types import ModuleType
from typing import NamedTuple
from unittest import mock

import jax
import jax.extend
import jax.extend.core as jex
import jax.numpy as jnp
from jax.interpreters import ad
from jaxtyping import Array

from unlearnkit.base import Params
from unlearnkit.kernels._outputs import Apply, Flat, check_outputs, choose_axes
from unlearnkit.kernels._trees import Inputs, Precision
from unlearnkit.kernels.ntk import empirical_ntk

_PACKAGE = "neural_tangents"


@contextlib.contextmanager
def neural_tangents() -> Iterator[ModuleType]:
    """Gives the module `neural_tangents` while the names of older jax that it needs are there.

    All of it works inside: `stax`, `empirical_nngp_fn`, `linearize`, `monte_carlo_kernel_fn` and
    `predict`; of `empirical_ntk_fn` the implementations by contracted Jacobians and by products,
    the others need more of an older jax than names. Its TensorFlow part is left out.

    Raises:
      ImportError: neural-tangents is not installed.

    Example:
      try:
          with kernels.neural_tangents() as nt:
              _, _, infinite = nt.stax.serial(nt.stax.Dense(512), nt.stax.Relu(), nt.stax.Dense(1))
              theta = infinite(x, None, "ntk")
      except ImportError:
          print("pip install --no-deps neural-tangents frozendict")

    Source: Novak et al. 2020, Neural Tangents.
    """
    if importlib.util.find_spec(_PACKAGE) is None:
        raise ImportError(
            "neural-tangents is not installed; pip install --no-deps neural-tangents frozendict"
        )
    internal = {name: importlib.import_module(f"jax._src.{name}") for name in _MOVED_MODULES}
    names: dict[ModuleType, dict[str, object]] = {
        jax.core: {name: getattr(jex, name) for name in _MOVED_TO_EXTEND}
        | {"DShapedArray": type("DShapedArray", (), {})},
        ad: {
            "source_info_util": internal["source_info_util"],
            "zeros_like_p": jex.Primitive("zeros_like"),
            "config": jax.config,
        },
        jax.extend: {"linear_util": internal["linear_util"]},
    }
    modules = {"jax.util": internal["util"], f"{_PACKAGE}.experimental": ModuleType("experimental")}
    with contextlib.ExitStack() as stack:
        for module, values in names.items():
            for name, value in values.items():
                if not hasattr(module, name):
                    stack.enter_context(mock.patch.object(module, name, value, create=True))
        absent = {name: m for name, m in modules.items() if name not in sys.modules}
        stack.enter_context(_present(absent))
        yield importlib.import_module(_PACKAGE)


_MOVED_TO_EXTEND = ("Jaxpr", "JaxprEqn", "Literal", "Primitive", "Var")
_MOVED_MODULES = ("source_info_util", "linear_util", "util")


@contextlib.contextmanager
def _present(modules: dict[str, ModuleType]) -> Iterator[None]:
    """Has these modules imported already, and takes only them away again."""
    sys.modules.update(modules)
    try:
        yield
    finally:
        for name in modules:
            sys.modules.pop(name, None)


class Kernels(NamedTuple):
    """Kernels of the same inputs, as neural-tangents returns them.

    Attributes:
      nngp: see `empirical_nngp`; None where it was not asked for.
      ntk: see `empirical_ntk`; likewise.
    """

    nngp: Array | None = None
    ntk: Array | None = None


def kernel_fn(
    apply: Apply,
    params: Params,
    *,
    trace_axes: Sequence[int] = (-1,),
    chunk: int = 64,
    precision: Precision = "highest",
) -> Callable[..., Kernels | Array]:
    """Returns (x1, x2, get) -> kernels in the convention of neural-tangents, for its `predict`.

    The mean is taken over traced axes of the outputs; the others stand in pairs, [n1, n2, a, a, b,
    b]. Its time of gradient descent is ours times the number of outputs, over which it takes the
    mean of the squared error too.

    Args:
      apply: (params, x) -> outputs [n, ...].
      params: where.
      trace_axes: axes of the outputs [n, ...] over which the mean is taken.
      chunk: see `empirical_ntk`.
      precision: of the matrix products; see `Precision`.

    Returns:
      A function of x1, x2 (x1 where None) and `get`: "ntk" or "nngp" for an array, a tuple of them,
      or None for both, for `Kernels`.

    Raises:
      ValueError: at a call, `get` names another kernel; see `empirical_ntk` too.

    Example:
      ours = kernels.kernel_fn(apply, params)
      theta = ours(x, None, "ntk")  # [n, n]
      both = ours(x[:5], x)  # for nt.predict.gradient_descent_mse_ensemble(ours, x, targets)
      print(both.ntk.shape, both.nngp.shape)
    """

    def ntk(x1: Inputs, x2: Inputs) -> Array:
        found = empirical_ntk(
            apply, params, x1, x2, trace_axes=trace_axes, chunk=chunk, precision=precision
        )
        axes = choose_axes(check_outputs(apply, params, x1), trace_axes, ())
        return _in_pairs(found / math.prod(axes.sizes(axes.traced)))

    def nngp(x1: Inputs, x2: Inputs) -> Array:
        axes = choose_axes(check_outputs(apply, params, x1), trace_axes, ())
        one = Flat(apply)(params, x1)
        other = one if x2 is None else Flat(apply)(params, x2)
        with jax.default_matmul_precision(precision):
            found = jnp.einsum("iktd,jltd->ikjl", axes.split(one), axes.split(other))
        kept = axes.sizes(axes.kept)
        found = found.reshape(len(one), *kept, len(other), *kept)
        return _in_pairs(found / math.prod(axes.sizes(axes.traced)))

    makers = {"nngp": nngp, "ntk": ntk}

    def kernel(
        x1: Inputs, x2: Inputs = None, get: str | Sequence[str] | None = None
    ) -> Kernels | Array:
        wanted = tuple(makers) if get is None else (get,) if isinstance(get, str) else tuple(get)
        if unknown := [name for name in wanted if name not in makers]:
            raise ValueError(f"get must be of {tuple(makers)}, got {unknown}")
        found = {name: makers[name](x1, x2) for name in wanted}
        return found[get] if isinstance(get, str) else Kernels(**found)

    return kernel


def _in_pairs(kernel: Array) -> Array:
    """Returns [n1, a, b, n2, a, b] as [n1, n2, a, a, b, b]."""
    half = kernel.ndim // 2
    return kernel.transpose([axis + side * half for axis in range(half) for side in range(2)])
