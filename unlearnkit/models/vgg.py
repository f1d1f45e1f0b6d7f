"""VGG: VGGmini for small images, and the networks of torchvision."""

from __future__ import annotations

from typing import Literal, TypeAlias

import flax.linen as nn
from jaxtyping import Array, Float

from unlearnkit.base import Model
from unlearnkit.models.adapters import from_linen
from unlearnkit.models.layers import (
    Conv,
    Implementation,
    adaptive_average_pool,
    batch_norm,
    check_image_shape,
    check_implementation,
    flatten,
    images,
    max_pool,
)


class VggMini(nn.Module):
    """Four 3x3 convolutions, three pools, two linear layers."""

    n_classes: int
    implementation: Implementation | None

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n k"]:
        maps = images(x, self.implementation)
        maps = max_pool(Conv(64, 3, padding=1, name="conv1")(maps)).map(nn.relu)
        maps = max_pool(Conv(128, 3, padding=1, name="conv2")(maps)).map(nn.relu)
        maps = Conv(256, 3, padding=1, name="conv3")(maps).map(nn.relu)
        maps = max_pool(Conv(512, 3, padding=1, name="conv4")(maps)).map(nn.relu)
        h = nn.relu(nn.Dense(512, name="fc1")(flatten(maps)))
        return nn.Dense(self.n_classes, name="classifier")(h)


def vggmini(
    *,
    input_shape: tuple[int, ...],
    n_classes: int,
    implementation: str | None = None,
) -> Model:
    """Returns VGGmini: 64 - pool - 128 - pool - 256 - 512 - pool - linear 512 - linear n_classes.

    Suliman et al. 2024 give no layout, but two numbers: 5.75 M parameters, and sqrt(1e-6 dim) =
    2.398, hence between 5,748,000 and 5,752,800. Of the VGG-style layouts for 32x32x3 and ten
    classes (3x3 convolutions, widths that at most double, 2x2 pools, no more than two hidden linear
    layers) those with six weight layers are the smallest in that range, and this is the one of them
    without BatchNorm, which VGG has not: 5,750,922 parameters, sqrt(1e-6 dim) = 2.3981.

    Args:
      input_shape: (height, width, channels), at least 8x8.
      n_classes: the number of logits.
      implementation: of the convolutions, `xla`, `bilinear` or `patches`; None for the backend's
        default.

    Raises:
      ValueError: the input is no image or too small.

    Source: Suliman et al. 2024, table 1 and appendix on error measures; Simonyan and Zisserman
    2014.
    """
    check_image_shape("vggmini", input_shape, smallest=8)
    network = VggMini(n_classes, check_implementation(implementation))
    return from_linen(network, input_shape=input_shape)


_Plan: TypeAlias = tuple[int | Literal["pool"], ...]
_VGG11: _Plan = (1, "pool", 2, "pool", 4, 4, "pool", 8, 8, "pool", 8, 8, "pool")
_VGG16: _Plan = (
    *(1, 1, "pool", 2, 2, "pool", 4, 4, 4, "pool"),
    *(8, 8, 8, "pool", 8, 8, 8, "pool"),
)
"""Channels of the convolutions in multiples of the width, and where the pools are."""
_POOLED = 7
"""Side of the map that the first linear layer takes, whatever the image's."""


class Vgg(nn.Module):
    """3x3 convolutions and pools, then three linear layers with dropout between."""

    n_classes: int
    plan: _Plan
    norm: bool
    width: int
    hidden: int
    dropout: float
    implementation: Implementation | None

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"], train: bool = False) -> Float[Array, "n k"]:
        maps, position = images(x, self.implementation), 0
        for step in self.plan:
            if step == "pool":
                maps, position = max_pool(maps), position + 1
                continue
            # Layers are called by their positions in torchvision's `features`, ReLUs counted.
            conv = Conv(
                step * self.width,
                3,
                padding=1,
                kernel_init=nn.initializers.variance_scaling(2.0, "fan_out", "truncated_normal"),
                name=f"features_{position}",
            )
            maps, position = conv(maps), position + 1
            if self.norm:
                maps = batch_norm(maps, train, name=f"features_{position}")
                position += 1
            maps, position = maps.map(nn.relu), position + 1
        h = flatten(adaptive_average_pool(maps, _POOLED))
        for name in ("fc1", "fc2"):
            h = nn.relu(nn.Dense(self.hidden, name=name)(h))
            h = nn.Dropout(self.dropout, deterministic=not train)(h)
        return nn.Dense(self.n_classes, name="classifier")(h)


def vgg11(
    *,
    input_shape: tuple[int, ...],
    n_classes: int,
    norm: bool = False,
    width: int = 64,
    hidden: int = 4096,
    dropout: float = 0.5,
    implementation: str | None = None,
) -> Model:
    """Returns VGG-11 as torchvision's `vgg11`, or `vgg11_bn` with BatchNorm.

    With images of 224x224x3 and 1000 classes it has 132,863,336 parameters.

    Args:
      input_shape: (height, width, channels), at least 32x32.
      n_classes: the number of logits.
      norm: whether a BatchNorm follows each convolution.
      width: channels of the first convolution; the last ones have 8 times as many.
      hidden: width of the two hidden linear layers.
      dropout: share of their outputs that training sets to zero, in [0, 1).
      implementation: of the convolutions, `xla`, `bilinear` or `patches`; None for the backend's
        default.

    Raises:
      ValueError: the input is no image or too small, or a setting is out of its range.

    Source: Simonyan and Zisserman 2014, configuration A.

    Example:
      models.create("vgg11", input_shape=(32, 32, 3), n_classes=10, norm=True, hidden=512)
    """
    check_image_shape("vgg11", input_shape, smallest=32)
    _check_sizes("vgg11", width, hidden, dropout)
    made = check_implementation(implementation)
    network = Vgg(n_classes, _VGG11, norm, width, hidden, dropout, made)
    return from_linen(network, input_shape=input_shape)


def vgg16(
    *,
    input_shape: tuple[int, ...],
    n_classes: int,
    norm: bool = False,
    width: int = 64,
    hidden: int = 4096,
    dropout: float = 0.5,
    implementation: str | None = None,
) -> Model:
    """Returns VGG-16 as torchvision's `vgg16`, or `vgg16_bn` with BatchNorm.

    With images of 224x224x3 and 1000 classes it has 138,357,544 parameters.

    Args:
      input_shape: (height, width, channels), at least 32x32.
      n_classes: the number of logits.
      norm: see `vgg11`.
      width: see `vgg11`.
      hidden: see `vgg11`.
      dropout: see `vgg11`.
      implementation: see `vgg11`.

    Raises:
      ValueError: see `vgg11`.

    Source: Simonyan and Zisserman 2014, configuration D.

    Example:
      models.create("vgg16", input_shape=(32, 32, 3), n_classes=10, norm=True, hidden=512)
    """
    check_image_shape("vgg16", input_shape, smallest=32)
    _check_sizes("vgg16", width, hidden, dropout)
    made = check_implementation(implementation)
    network = Vgg(n_classes, _VGG16, norm, width, hidden, dropout, made)
    return from_linen(network, input_shape=input_shape)


def _check_sizes(name: str, width: int, hidden: int, dropout: float) -> None:
    if min(width, hidden) < 1 or not 0 <= dropout < 1:
        raise ValueError(
            f"{name} needs width and hidden >= 1 and dropout in [0, 1), got width={width}, "
            f"hidden={hidden}, dropout={dropout}"
        )
