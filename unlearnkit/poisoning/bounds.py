"""Where a poison may lie: the box of valid pixels, and a ball around the image it was made of."""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Literal, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from unlearnkit.base import Normalisation
from unlearnkit.validation import check_choice

Norm: TypeAlias = Literal["linf", "l2"]
Units: TypeAlias = Literal["pixels", "network"]

_INSIDE = 1 - 5e-5
_ONTO = 1 - 1e-4
"""What is further than _INSIDE of the l2 radius is scaled onto _ONTO of it: both are inside by more
than a float32 norm errs, and what was scaled stays where it is."""


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class Bounds:
    """The box of valid values and the largest change of an image.

    low <= p <= high,   ‖p - p_base‖ <= radius

    Attributes:
      box: least and greatest value; None for no box.
      radius: greatest distance from the base image; None for no limit.
      norm: of that distance over an image: `linf` or `l2`.
      units: of `box` and `radius`: `pixels`, p in [0, 1] before normalisation, or `network`, what
        the network sees after it.
    """

    box: tuple[float, float] | None = (0.0, 1.0)
    radius: float | None = None
    norm: Norm = "linf"
    units: Units = "pixels"

    def __post_init__(self) -> None:
        if self.box is not None and not self.box[0] < self.box[1]:
            raise ValueError(f"box must be (low, high) with low < high, got {self.box}")
        if self.radius is not None and not 0 < self.radius < float("inf"):
            raise ValueError(
                f"radius must be finite and > 0, got {self.radius}; None sets no limit"
            )
        check_choice("norm", self.norm, Norm)
        check_choice("units", self.units, Units)

    def region(self, base: Float[Array, "m ..."], normalisation: Normalisation) -> Region:
        """Returns where the poisons made of `base` may lie, in the units of the network.

        Args:
          base: [m, ...] clean images, normalised.
          normalisation: how they were.

        Raises:
          ValueError: a base image is outside the box.
        """
        region: Region
        region, inside = _region(base, bounds=self, normalisation=normalisation)
        outside = np.flatnonzero(~np.asarray(inside))
        if len(outside):
            row = base[outside[0]]
            raise ValueError(
                f"bounds exclude the base image in row {outside[0]} ({len(outside)} such rows): "
                f"its values are {float(row.min()):g} … {float(row.max()):g} after normalisation "
                f"{normalisation.name!r}, the box is {self.box} in units of {self.units}; "
                "widen the box, or set box=None"
            )
        return region


def check_limits(bounds: Bounds, sphere: float | None, *, without: str) -> None:
    """Raises ValueError if bounds of poisons without a base image lack a box and a sphere.

    Args:
      bounds: the box.
      sphere: a quantile of the distances of clean examples to the mean of their class, or None.
      without: the error where there is no limit.

    Raises:
      ValueError: a radius, neither box nor sphere, or a sphere outside (0, 1].
    """
    if bounds.radius is not None:
        raise ValueError(
            f"bounds.radius must be None, got {bounds.radius}: these poisons are made of "
            "no base image; limit them by box and sphere"
        )
    if sphere is None and bounds.box is None:
        raise ValueError(f"bounds.box and sphere cannot both be None: {without}")
    if sphere is not None and not 0 < sphere <= 1:
        raise ValueError(f"sphere must be a quantile in (0, 1], got {sphere}")


class Region(NamedTuple):
    """Where each poison may lie; every array is in the units of the network.

    Attributes:
      base: [m, ...] the images the poisons are made of.
      low: least value, one or one per channel.
      high: greatest value.
      reach: half side of the cube around the base; infinite for no cube.
      radius: of the l2 ball around the base, in the units of `scale`; infinite for no ball.
      scale: network units times this are the units of `radius`.
    """

    base: Float[Array, "m ..."]
    low: Float[Array, "#c"] | Float[Array, ""]
    high: Float[Array, "#c"] | Float[Array, ""]
    reach: Float[Array, "#c"] | Float[Array, ""]
    radius: Float[Array, ""]
    scale: Float[Array, "#c"] | Float[Array, ""]

    def take(self, rows: Array | np.ndarray) -> Region:
        """Returns the regions of some of the poisons."""
        return self._replace(base=self.base[rows])

    def limits(self) -> tuple[Float[Array, "m ..."], Float[Array, "m ..."]]:
        """Returns the least and greatest value of each entry, ball aside.

        base ± reach rounds; the limits are moved inwards by a bit where the rounded distance is
        more than `reach`, so that what lies within them is never further, in floating point too.
        """
        low, high = self.base - self.reach, self.base + self.reach
        low = jnp.where(self.base - low > self.reach, jnp.nextafter(low, self.base), low)
        high = jnp.where(high - self.base > self.reach, jnp.nextafter(high, self.base), high)
        return jnp.maximum(low, self.low), jnp.minimum(high, self.high)

    @jax.jit
    def project(self, x: Float[Array, "m ..."]) -> Float[Array, "m ..."]:
        """Returns `x` moved into the region; points inside stay as they are.

        First toward the base onto the ball, then into box and cube, entry by entry. The base is in
        the box, so that the second move shortens the distance of every entry and stays in the ball.
        """
        distance = self._distance(x)
        further = distance > self.radius * _INSIDE
        factor = jnp.where(further, self.radius * _ONTO / jnp.where(further, distance, 1), 1)
        factor = factor.reshape(-1, *(1,) * (x.ndim - 1))
        shrunk = self.base + (x - self.base) * factor
        low, high = self.limits()
        return jnp.clip(jnp.where(factor == 1, x, shrunk), low, high)

    def contains(self, x: Float[Array, "m ..."]) -> Bool[Array, " m"]:
        """Returns which of the poisons are in box, cube and ball, exactly."""
        low, high = self.limits()
        inside = _all_entries((x >= low) & (x <= high))
        return inside & (self._distance(x) <= self.radius)

    def in_box(self, x: Float[Array, "m ..."]) -> Bool[Array, " m"]:
        """Returns which of the images are in the box."""
        return _all_entries((x >= self.low) & (x <= self.high))

    def _distance(self, x: Float[Array, "m ..."]) -> Float[Array, " m"]:
        squares = ((x - self.base) * self.scale) ** 2
        total = squares.reshape(x.shape[0], -1).sum(1)
        # The root has no derivative at 0, where the point is inside anyway.
        return jnp.where(total > 0, jnp.sqrt(jnp.where(total > 0, total, 1)), 0)


@partial(jax.jit, static_argnames=("bounds", "normalisation"))
def _region(
    base: Float[Array, "m ..."], *, bounds: Bounds, normalisation: Normalisation
) -> tuple[Region, Bool[Array, " m"]]:
    """Returns the region around `base`, and which of its rows are in the box."""
    pixels = bounds.units == "pixels"
    std = jnp.asarray(normalisation.std if pixels else 1.0, base.dtype)
    low, high = bounds.box if bounds.box is not None else (-jnp.inf, jnp.inf)
    edges = [jnp.asarray(edge, base.dtype) for edge in (low, high)]
    if pixels:
        edges = [normalisation.apply(edge) for edge in edges]
    edges = _onto_rounded(base, *edges)
    radius = jnp.asarray(jnp.inf if bounds.radius is None else bounds.radius, base.dtype)
    infinite = jnp.asarray(jnp.inf, base.dtype)
    in_cube = bounds.norm == "linf"
    region = Region(
        base,
        edges[0].astype(base.dtype),
        edges[1].astype(base.dtype),
        radius / std if in_cube else infinite,
        infinite if in_cube else radius,
        std,
    )
    return region, region.in_box(base)


def _onto_rounded(base: Array, low: Array, high: Array) -> list[Array]:
    """Returns the edges, moved out to the outermost base values that only rounding puts past them.

    The data may have been normalised by another program, whose white is a bit brighter than ours.
    """
    axes = None if low.size == 1 else tuple(range(base.ndim - 1))
    least, most = base.min(axes), base.max(axes)
    slack = 4 * jnp.finfo(base.dtype).eps * (jnp.abs(low) + jnp.abs(high))
    return [
        jnp.where((least < low) & (least >= low - slack), least, low),
        jnp.where((most > high) & (most <= high + slack), most, high),
    ]


def _all_entries(condition: Bool[Array, "m ..."]) -> Bool[Array, " m"]:
    return condition.reshape(condition.shape[0], -1).all(1)
