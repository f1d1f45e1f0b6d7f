"""ResNet-18, for small images and for ImageNet's."""

from __future__ import annotations

from typing import Literal, TypeAlias

import flax.linen as nn
from jaxtyping import Array, Float

from unlearnkit.base import Model
from unlearnkit.models.adapters import from_linen
from unlearnkit.models.layers import (
    Conv,
    Images,
    Implementation,
    batch_norm,
    check_image_shape,
    check_implementation,
    global_average_pool,
    images,
    overlapping_max_pool,
)
from unlearnkit.validation import check_choice

Stem: TypeAlias = Literal["cifar", "imagenet"]
_he_fan_out = nn.initializers.variance_scaling(2.0, "fan_out", "truncated_normal")


class _ConvNorm(nn.Module):
    features: int
    size: int
    stride: int = 1

    @nn.compact
    def __call__(self, x: Images, train: bool) -> Images:
        conv = Conv(
            self.features,
            self.size,
            stride=self.stride,
            padding=self.size // 2,
            use_bias=False,
            kernel_init=_he_fan_out,
            name="conv",
        )
        return batch_norm(conv(x), train, name="norm")


class _BasicBlock(nn.Module):
    features: int
    stride: int

    @nn.compact
    def __call__(self, x: Images, train: bool) -> Images:
        y = _ConvNorm(self.features, 3, self.stride, name="first")(x, train).map(nn.relu)
        y = _ConvNorm(self.features, 3, name="second")(y, train)
        if self.stride != 1 or x.channels != self.features:
            x = _ConvNorm(self.features, 1, self.stride, name="shortcut")(x, train)
        return (x + y).map(nn.relu)


class ResNet18(nn.Module):
    """A stem, then four stages of two basic blocks."""

    n_classes: int
    width: int
    implementation: Implementation | None
    rematerialise: bool
    stem: str

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"], train: bool = False) -> Float[Array, "n k"]:
        block_type = _BasicBlock
        if self.rematerialise:
            block_type = nn.remat(_BasicBlock, static_argnums=(2,))  # `train`
        maps = images(x, self.implementation)
        size, stride = (3, 1) if self.stem == "cifar" else (7, 2)
        maps = _ConvNorm(self.width, size, stride, name="stem")(maps, train).map(nn.relu)
        if self.stem == "imagenet":
            maps = overlapping_max_pool(maps, 3, stride=2, padding=1)
        for stage in range(4):
            for block in range(2):
                stride = 2 if stage and not block else 1
                name = f"stage{stage + 1}_block{block + 1}"
                maps = block_type(self.width * 2**stage, stride, name=name)(maps, train)
        return nn.Dense(self.n_classes, name="classifier")(global_average_pool(maps))


def resnet18(
    *,
    input_shape: tuple[int, ...],
    n_classes: int,
    width: int = 64,
    implementation: str | None = None,
    rematerialise: bool = False,
    stem: str = "cifar",
) -> Model:
    """Returns ResNet-18: 11,173,962 parameters on 32x32x3 with ten classes.

    With the stem of ImageNet it is torchvision's `resnet18`: 11,689,512 parameters with 1000
    classes.

    Args:
      input_shape: (height, width, channels), at least 8x8.
      n_classes: the number of logits.
      width: channels of the first stage, doubled by each of the three that follow.
      implementation: of the convolutions, `xla`, `bilinear` or `patches`; None for the backend's
        default.
      rematerialise: whether a gradient keeps the inputs of blocks alone and computes what lies
        within them again: less memory on an accelerator, for more time. XLA undoes it on a CPU.
      stem: `cifar`, a 3x3 convolution; `imagenet`, a 7x7 convolution with stride 2 and a pool.

    Raises:
      ValueError: the input is no image or too small, the width is not positive, or the stem is
        unknown.

    Source: He et al. 2016; the CIFAR stem is the one that Di et al. 2024 and Golatkar et al. 2020b
    train on 32x32 images.
    """
    check_choice("stem", stem, Stem)
    check_image_shape("resnet18", input_shape, smallest=8 if stem == "cifar" else 32)
    if width < 1:
        raise ValueError(f"width must be >= 1, got {width}")
    network = ResNet18(n_classes, width, check_implementation(implementation), rematerialise, stem)
    return from_linen(network, input_shape=input_shape)
