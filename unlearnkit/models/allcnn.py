"""All-CNN with BatchNorm."""

from __future__ import annotations

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
)


class _Block(nn.Module):
    features: int
    size: int
    stride: int

    @nn.compact
    def __call__(self, x: Images, train: bool) -> Images:
        conv = Conv(
            self.features,
            self.size,
            stride=self.stride,
            padding=self.size // 2,
            use_bias=False,
            kernel_init=nn.initializers.he_normal(),
            name="conv",
        )
        return batch_norm(conv(x), train, name="norm").map(nn.relu)


class AllCnn(nn.Module):
    """Eight convolutions, two of them with stride 2 in the place of pools."""

    n_classes: int
    width: int
    implementation: Implementation | None

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"], train: bool = False) -> Float[Array, "n k"]:
        narrow, wide = self.width, 2 * self.width
        plan = [(narrow, 3, 1), (narrow, 3, 1), (narrow, 3, 2)]
        plan += [(wide, 3, 1), (wide, 3, 1), (wide, 3, 2)]
        plan += [(wide, 3, 1), (wide, 1, 1)]
        maps = images(x, self.implementation)
        for i, (features, size, stride) in enumerate(plan, start=1):
            maps = _Block(features, size, stride, name=f"block{i}")(maps, train)
        return nn.Dense(self.n_classes, name="classifier")(global_average_pool(maps))


def allcnn(
    *,
    input_shape: tuple[int, ...],
    n_classes: int,
    width: int = 96,
    implementation: str | None = None,
) -> Model:
    """Returns All-CNN-C with BatchNorm before each ReLU.

    Args:
      input_shape: (height, width, channels), at least 4x4.
      n_classes: the number of logits.
      width: channels of the first three convolutions; the others have twice as many.
      implementation: of the convolutions, `xla`, `bilinear` or `patches`; None for the backend's
        default.

    Raises:
      ValueError: the input is no image or too small, or the width is not positive.

    Source: Springenberg et al. 2015, All-CNN-C; BatchNorm as in Golatkar et al. 2020b, §5.2. The
    1x1 convolution to the classes stands behind the global mean, with which it commutes, and has no
    ReLU; no dropout.
    """
    check_image_shape("allcnn", input_shape, smallest=4)
    if width < 1:
        raise ValueError(f"width must be >= 1, got {width}")
    network = AllCnn(n_classes, width, check_implementation(implementation))
    return from_linen(network, input_shape=input_shape)


def allcnn_small(
    *,
    input_shape: tuple[int, ...],
    n_classes: int,
    implementation: str | None = None,
) -> Model:
    """Returns All-CNN of width 24, with a sixteenth of the work, for CPUs.

    Raises the same errors as `allcnn`.

    Args:
      input_shape: (height, width, channels), at least 4x4.
      n_classes: the number of logits.
      implementation: of the convolutions; see `allcnn`.
    """
    return allcnn(
        input_shape=input_shape, n_classes=n_classes, width=24, implementation=implementation
    )
