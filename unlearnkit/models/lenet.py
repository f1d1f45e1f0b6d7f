"""LeNet-5."""

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


class LeNet5(nn.Module):
    """Two convolutions with pools, three linear layers."""

    n_classes: int
    padding: int
    implementation: Implementation | None

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n k"]:
        maps = images(x, self.implementation)
        maps = max_pool(Conv(6, 5, padding=self.padding, name="conv1")(maps)).map(nn.relu)
        maps = max_pool(Conv(16, 5, name="conv2")(maps)).map(nn.relu)
        h = flatten(maps)
        h = nn.relu(nn.Dense(120, name="fc1")(h))
        h = nn.relu(nn.Dense(84, name="fc2")(h))
        return nn.Dense(self.n_classes, name="classifier")(h)


def lenet(
    *,
    input_shape: tuple[int, ...],
    n_classes: int,
    implementation: str | None = None,
) -> Model:
    """Returns LeNet-5 with ReLU and max-pooling: 61,706 parameters on 28x28x1 with ten classes.

    LeNet-5 takes 32x32 pixels; smaller images are padded by two zeros on each side, as MNIST's
    28x28 are.

    Args:
      input_shape: (height, width, channels), at least 12x12.
      n_classes: the number of logits.
      implementation: of the convolutions, `xla`, `bilinear` or `patches`; None for the backend's
        default.

    Raises:
      ValueError: the input is no image or too small.

    Source: LeCun et al. 1998; ReLU and max-pooling as in LeNet/MNIST of Suliman et al. 2024.
    """
    check_image_shape("lenet", input_shape, smallest=12)
    padding = 2 if min(input_shape[:2]) < 32 else 0
    network = LeNet5(n_classes, padding, check_implementation(implementation))
    return from_linen(network, input_shape=input_shape)
