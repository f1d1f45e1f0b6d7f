"""ConvNeXt."""

from __future__ import annotations

from collections.abc import Sequence

import flax.linen as nn
from jaxtyping import Array, Float

from unlearnkit.base import Model
from unlearnkit.models.adapters import from_linen
from unlearnkit.models.layers import check_image_shape
from unlearnkit.models.vit import gelu, layer_norm

_small = nn.initializers.truncated_normal(0.02)
_LAYER_SCALE = 1e-6


class _Strided(nn.Module):
    """A convolution whose windows do not overlap, before its norm (the stem) or after it."""

    features: int
    size: int
    norm_first: bool

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n i j o"]:
        conv = nn.Conv(
            self.features,
            (self.size, self.size),
            self.size,
            padding="VALID",
            kernel_init=_small,
            name="conv",
        )
        norm = layer_norm("norm")
        return conv(norm(x)) if self.norm_first else norm(conv(x))


class _LayerScale(nn.Module):
    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n h w c"]:
        found: Array = x * self.param(
            "scale", nn.initializers.constant(_LAYER_SCALE), (x.shape[-1],)
        )
        return found


class _Block(nn.Module):
    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n h w c"]:
        width = x.shape[-1]
        y = nn.Conv(
            width,
            (7, 7),
            padding=3,
            feature_group_count=width,
            kernel_init=_small,
            name="conv_dw",
        )(x)
        y = layer_norm("norm")(y)
        y = gelu(nn.Dense(4 * width, kernel_init=_small, name="fc1")(y))
        y = nn.Dense(width, kernel_init=_small, name="fc2")(y)
        return x + _LayerScale(name="layer_scale")(y)


class _Stage(nn.Module):
    width: int
    depth: int
    downsample: bool

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n i j o"]:
        if self.downsample:
            x = _Strided(self.width, 2, norm_first=True, name="downsample")(x)
        for i in range(self.depth):
            x = _Block(name=f"blocks_{i}")(x)
        return x


class _Head(nn.Module):
    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n c"]:
        found: Array = layer_norm("norm")(x.mean((1, 2)))
        return found


class ConvNeXt(nn.Module):
    """A stem of patches, four stages of depthwise convolutions with hidden layers."""

    n_classes: int
    widths: tuple[int, ...]
    depths: tuple[int, ...]
    patch: int

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n k"]:
        x = _Strided(self.widths[0], self.patch, norm_first=False, name="stem")(x)
        for i, (width, depth) in enumerate(zip(self.widths, self.depths, strict=True)):
            x = _Stage(width, depth, downsample=i > 0, name=f"stages_{i}")(x)
        return nn.Dense(self.n_classes, kernel_init=_small, name="classifier")(
            _Head(name="head")(x)
        )


def convnext_tiny(
    *,
    input_shape: tuple[int, ...],
    n_classes: int,
    widths: Sequence[int] = (96, 192, 384, 768),
    depths: Sequence[int] = (3, 3, 9, 3),
    patch: int | None = None,
) -> Model:
    """Returns ConvNeXt-T, as timm's and torchvision's `convnext_tiny`, without stochastic depth.

    With images of 224x224x3 and 1000 classes it has 28,589,128 parameters.

    Args:
      input_shape: (height, width, channels); each stage but the first halves the sides.
      n_classes: the number of logits.
      widths: channels of the stages.
      depths: blocks of the stages.
      patch: side of the stem's windows, in pixels; None for 4, or 1 where a side is shorter than
        32.

    Raises:
      ValueError: the input is no image or too small, or there is not one width and one depth for
        each stage.

    Source: Liu et al. 2022, A ConvNet for the 2020s.

    Example:
      models.create("convnext_tiny", input_shape=(32, 32, 3), n_classes=10)
    """
    if not widths or len(widths) != len(depths) or min(*widths, *depths) < 1:
        raise ValueError(
            "convnext_tiny needs one width and one depth, both >= 1, for each stage, got "
            f"widths={tuple(widths)}, depths={tuple(depths)}"
        )
    check_image_shape("convnext_tiny", input_shape, smallest=1)
    side = patch or (4 if min(input_shape[:2]) >= 32 else 1)
    check_image_shape("convnext_tiny", input_shape, smallest=side * 2 ** (len(widths) - 1))
    network = ConvNeXt(n_classes, tuple(widths), tuple(depths), side)
    return from_linen(network, input_shape=input_shape)
