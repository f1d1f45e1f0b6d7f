"""The furthest point in a direction, within box, sphere and half-space: exact to rounding."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

_REACH = 1e8
"""Bisections look this far beyond where they begin, on a logarithmic scale."""


class Ball(NamedTuple):
    """A box and a sphere whose centre is in it; any of them may be infinite, not both.

    Attributes:
      low: least value, broadcast to the shape of `centre`.
      high: greatest value.
      centre: of the sphere.
      radius: of the sphere.
    """

    low: Array
    high: Array
    centre: Float[Array, ...]
    radius: Float[Array, ""]


class HalfSpace(NamedTuple):
    """Where normal·x <= offset."""

    normal: Float[Array, ...]
    offset: Float[Array, ""]


def _halvings(dtype: Any) -> int:
    """Returns after how many halvings of log `_REACH` the ends are a rounding apart."""
    return math.ceil(math.log2(math.log(_REACH) / float(jnp.finfo(dtype).eps)))


def furthest(direction: Float[Array, ...], ball: Ball) -> Float[Array, ...]:
    """Returns argmax g·x over box and sphere.

    x(t) = clip(c + t g, box) with the greatest t of ‖x(t) - c‖ <= r: the stationary points of the
    Lagrangian of the sphere alone, whose distance grows with t. Where the corner of the box is
    within the sphere it is the answer. Entries where g is 0 stay at the centre.

    Args:
      direction: g.
      ball: box and sphere.
    """
    g, c = direction, ball.centre
    corner = jnp.where(g > 0, ball.high, jnp.where(g < 0, ball.low, c))
    size = jnp.linalg.norm(g.ravel())
    # Without a sphere the corner is the answer, and any number does here.
    least = jnp.where(jnp.isfinite(ball.radius), ball.radius, 1) / jnp.where(size > 0, size, 1)

    def at(t: Array) -> Array:
        return jnp.clip(c + t * g, ball.low, ball.high)

    def halve(_: Array | int, ends: tuple[Array, Array]) -> tuple[Array, Array]:
        inner, outer = ends
        middle = jnp.sqrt(inner) * jnp.sqrt(outer)
        inside = jnp.linalg.norm((at(middle) - c).ravel()) <= ball.radius
        return jnp.where(inside, middle, inner), jnp.where(inside, outer, middle)

    # Clipping only shortens, so that the first t is inside.
    inner, _ = jax.lax.fori_loop(0, _halvings(g.dtype), halve, (least * (1 - 1e-6), least * _REACH))
    return jnp.where(jnp.linalg.norm((corner - c).ravel()) <= ball.radius, corner, at(inner))


def furthest_within(
    direction: Float[Array, ...], ball: Ball, half_space: HalfSpace
) -> tuple[Float[Array, ...], Bool[Array, ""]]:
    """Returns argmax g·x over box, sphere and half-space, and whether the three meet.

    With a multiplier μ >= 0 of the half-space, x(μ) maximises (g - μ a)·x over box and sphere, and
    a·x(μ) falls as μ grows. Where it jumps over the offset, both sides of the jump maximise the
    same Lagrangian, and so does the point between them that lies on the plane. Where the three sets
    do not meet it is the point of box and sphere that is nearest to the half-space.

    Args:
      direction: g.
      ball: box and sphere.
      half_space: a·x <= offset.
    """
    g, (a, offset) = direction, half_space
    free = furthest(g, ball)
    nearest = furthest(-a, ball)
    feasible = jnp.vdot(a, nearest) <= offset
    ratio = jnp.linalg.norm(g.ravel()) / jnp.maximum(jnp.linalg.norm(a.ravel()), 1e-30)
    ratio = jnp.where(ratio > 0, ratio, 1)

    def halve(_: Array | int, ends: tuple[Array, Array]) -> tuple[Array, Array]:
        outside, inside = ends
        middle = jnp.sqrt(outside) * jnp.sqrt(inside)
        within = jnp.vdot(a, furthest(g - middle * a, ball)) <= offset
        return jnp.where(within, outside, middle), jnp.where(within, middle, inside)

    ends = (ratio / _REACH**0.5, ratio * _REACH**0.5)
    outside, inside = (
        furthest(g - mu * a, ball) for mu in jax.lax.fori_loop(0, _halvings(g.dtype), halve, ends)
    )
    over, under = jnp.vdot(a, outside) - offset, jnp.vdot(a, inside) - offset
    inside = jnp.where(under <= 0, inside, nearest)
    under = jnp.minimum(under, jnp.vdot(a, inside) - offset)
    share = jnp.where(over > 0, over / jnp.maximum(over - under, 1e-30), 0)
    on_plane = outside + jnp.clip(share, 0, 1) * (inside - outside)
    on_plane = jnp.where(feasible, on_plane, nearest)
    return jnp.where(jnp.vdot(a, free) <= offset, free, on_plane), feasible
