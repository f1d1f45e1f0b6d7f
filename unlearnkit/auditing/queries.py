"""Several queries of one example: shifted and mirrored views of an image."""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp
from jaxtyping import Array, Float

from unlearnkit.validation import check_at_least


@dataclasses.dataclass(frozen=True)
class Queries:
    """Which views of an example an attack queries the network with.

    Every shift by (i, j), i, j in {-shift, -shift + stride, …, shift}, of the image and, with
    `mirror`, then of its mirror image. What is shifted in is reflected at the border. The default
    is the example itself, of any shape; the public code of LiRA has the image and its mirror image.

    Attributes:
      shift: the largest shift, in pixels; less than the image's sides.
      stride: between two shifts, in pixels.
      mirror: whether left and right are exchanged too.

    Source: Carlini et al. 2022, §6.2 (querying augmentations), and the public code.
    """

    shift: int = 0
    stride: int = 1
    mirror: bool = False

    def __post_init__(self) -> None:
        check_at_least(self, 0, "shift")
        check_at_least(self, 1, "stride")

    @property
    def count(self) -> int:
        """The number of views."""
        return len(range(0, 2 * self.shift + 1, self.stride)) ** 2 * (2 if self.mirror else 1)

    def views(self, x: Float[Array, "n ..."]) -> list[Float[Array, "n ..."]]:
        """Returns `count` arrays like `x`.

        Raises:
          ValueError: views of something else than images, or a shift as large as one.
        """
        if self.shift == 0 and not self.mirror:
            return [x]
        if x.ndim != 4:
            raise ValueError(
                f"shifted and mirrored queries need images [n, h, w, c], got {list(x.shape)}; "
                "choose Queries(), the example alone"
            )
        height, width = x.shape[1:3]
        if self.shift >= min(height, width):
            raise ValueError(
                f"shift must be less than the image's sides {height} and {width}, got {self.shift}"
            )
        by = (self.shift, self.shift)
        offsets = range(0, 2 * self.shift + 1, self.stride)
        found = []
        for image in (x, x[:, :, ::-1]) if self.mirror else (x,):
            padded = jnp.pad(image, ((0, 0), by, by, (0, 0)), mode="reflect")
            found += [padded[:, i : i + height, j : j + width] for i in offsets for j in offsets]
        return found


ALONE = Queries()
"""The example itself."""
