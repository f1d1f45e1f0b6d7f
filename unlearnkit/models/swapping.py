"""Has the convolutions of a flax network computed in another way, on the same weights.

`flax.linen.Conv` and `flax.nnx.Conv` call a function with the arguments of
`jax.lax.conv_general_dilated`, which can be put in their place: bias, masks, dtypes and padding
stay theirs. Convolutions of images by a kernel without dilation or groups are computed by
`patches` or `bilinear`; all others stay XLA's.
"""

from __future__ import annotations

import contextlib
import dataclasses
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache, partial
from typing import Any, TypeAlias

import flax.linen as nn
import jax
from flax import nnx
from jaxtyping import Array

from unlearnkit.models import convolution, patches
from unlearnkit.models.layers import check_implementation, wanted_implementation

Option: TypeAlias = Any
"""What flax and `jax.lax.conv_general_dilated` hand on, whatever it is."""
_PLAIN_AXES = jax.lax.conv_dimension_numbers(
    (1, 1, 1, 1), (1, 1, 1, 1), ("NHWC", "HWIO", "NHWC")
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Convolution:
    """Convolves as `jax.lax.conv_general_dilated`, by another implementation where it can.

    Attributes:
      implementation: `xla`, `patches` or `bilinear`; None for XLA's, of which a CPU is told that
        there is a faster one.
    """

    implementation: str | None = None

    def __post_init__(self) -> None:
        try:
            check_implementation(self.implementation)
        except ValueError as error:
            raise ValueError(str(error).replace("implementation", "convolution", 1)) from None

    def __call__(
        self,
        x: Array,
        kernel: Array,
        strides: Sequence[int],
        padding: str | Sequence[tuple[int, int]],
        **options: Option,
    ) -> Array:
        """Returns the cross-correlation of `x` with a kernel.

        Args:
          x: [n, ..., c], as flax lays it out.
          kernel: [..., c, o].
          strides: step between outputs along each axis.
          padding: `SAME`, `VALID`, or what is added on each side of each axis.
          options: as of `jax.lax.conv_general_dilated`.
        """
        chosen = wanted_implementation() or self.implementation or "xla"
        if chosen == "xla" or not _is_plain(x, kernel, **options):
            return jax.lax.conv_general_dilated(x, kernel, strides, padding, **options)
        rows, columns = (
            jax.lax.padtype_to_pads(x.shape[1:3], kernel.shape[:2], strides, padding)
            if isinstance(padding, str)
            else padding
        )
        even = len({strides[0], strides[1]}) == 1 and len({*rows, *columns}) == 1
        if chosen == "bilinear" and even:
            return convolution.convolve(x, kernel, stride=strides[0], padding=rows[0])
        sides = ((rows[0], rows[1]), (columns[0], columns[1]))
        steps = (strides[0], strides[1])
        y = patches.convolve(x.transpose(3, 1, 2, 0), kernel, None, stride=steps, padding=sides)
        return y.transpose(3, 1, 2, 0)

    @contextlib.contextmanager
    def in_linen(self, met: set[type] | None = None) -> Iterator[None]:
        """Convolves so in the linen modules that are called here.

        Args:
          met: gets `Convolution` where a module could be faster on a CPU.
        """
        if self.implementation is None and met is None:
            yield
            return
        with nn.intercept_methods(partial(_intercept, self, set() if met is None else met)):
            yield

    def put_into(self, module: nnx.Module) -> None:
        """Has the convolutions of an nnx module computed so."""
        if self.implementation is None:
            return
        for _, part in nnx.iter_graph(module):
            if isinstance(part, nnx.Conv) and _is_own(part):
                part.conv_general_dilated = self

    def tell(self, met: bool) -> None:
        """Warns, once a process, where a network convolves by XLA on a CPU and need not.

        Args:
          met: whether the network has convolutions that `patches` computes.
        """
        if met and self.implementation is None and jax.default_backend() == "cpu":
            _tell_of_patches()


@cache
def _tell_of_patches() -> None:
    warnings.warn(
        "this network convolves by XLA, whose gradients are slow on a CPU (up to 30 times inside a "
        "compiled loop, jax-ml/jax#12868); convolution='patches' computes the same numbers on the "
        "same weights, and convolution='xla' says that you know",
        stacklevel=1,
    )


def meets_slow(parts: Iterable[object]) -> bool:
    """Returns whether parts of an nnx module could be faster on a CPU."""
    return any(isinstance(part, nnx.Conv) and _is_own(part) and _is_slow(part) for part in parts)


def _intercept(
    convolution: Convolution,
    met: set[type],
    call: Callable[..., Option],
    args: Option,
    kwargs: Option,
    context: Option,
) -> Any:
    module = context.module
    if not (isinstance(module, nn.Conv) and context.method_name == "__call__" and _is_own(module)):
        return call(*args, **kwargs)
    if _is_slow(module):
        met.add(Convolution)
    if convolution.implementation is None:
        return call(*args, **kwargs)
    # The module is flax's own copy for this call.
    object.__setattr__(module, "conv_general_dilated", convolution)
    try:
        return call(*args, **kwargs)
    finally:
        object.__setattr__(module, "conv_general_dilated", None)


def _is_own(module: nn.Conv | nnx.Conv) -> bool:
    """Whether a module convolves by flax's default function."""
    function = module.conv_general_dilated
    named = getattr(module, "conv_general_dilated_cls", None)
    return named is None and (function is None or function is jax.lax.conv_general_dilated)


def _is_slow(module: nn.Conv | nnx.Conv) -> bool:
    """Whether `patches` would compute what a flax module does."""
    dilations = (module.input_dilation, module.kernel_dilation)
    images = not isinstance(module.kernel_size, int) and len(module.kernel_size) == 2
    plain = all(d is None or {*_all(d)} == {1} for d in dilations)
    return images and plain and module.feature_group_count == 1


def _all(value: int | Sequence[int]) -> Sequence[int]:
    return (value,) if isinstance(value, int) else value


def _is_plain(x: Array, kernel: Array, **options: Option) -> bool:
    """Whether a call is the correlation of NHWC images with an HWIO kernel, and no more."""
    if x.ndim != 4 or kernel.ndim != 4:
        return False
    axes = options.get("dimension_numbers")
    dilations = (options.get("lhs_dilation"), options.get("rhs_dilation"))
    return (
        axes is not None
        and jax.lax.conv_dimension_numbers(x.shape, kernel.shape, axes) == _PLAIN_AXES
        and all(d is None or set(d) == {1} for d in dilations)
        and options.get("feature_group_count", 1) == options.get("batch_group_count", 1) == 1
        and options.get("preferred_element_type") in (None, x.dtype)
    )
