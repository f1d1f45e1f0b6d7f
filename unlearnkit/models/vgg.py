"""VGGmini."""

from __future__ import annotations

import flax.linen as nn
from jaxtyping import Array, Float

from unlearnkit.base import Model
from unlearnkit.models.adapters import from_linen
from unlearnkit.models.layers import (
    Conv,
    Implementation,
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
