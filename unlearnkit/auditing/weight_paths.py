"""Training paths in the plane of their two principal directions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from unlearnkit.base import Params
from unlearnkit.validation import all_finite


class PathPlane(NamedTuple):
    """The plane that holds most of what several paths of weights vary.

    Attributes:
      coordinates: by the path's name, [t, 2], in units of the weights.
      explained: the share of the paths' variance along each of the two directions, [2].
      mean: the paths' common mean, like the weights.
      directions: the two orthonormal directions, like the weights with [2] in front.
    """

    coordinates: Mapping[str, Float[Array, "t 2"]]
    explained: Float[Array, " 2"]
    mean: Params
    directions: Params

    def project(self, weights: Params) -> Float[Array, "m 2"]:
        """Returns the coordinates of other weights, like the paths' with [m] in front."""
        found: Array = _project(weights, self.mean, self.directions)
        return found


def principal_paths(paths: Mapping[str, Params]) -> PathPlane:
    """Returns several paths of weights projected on their first two principal directions.

    With X [T, p] the points of all paths less their mean, X Xᵀ = U S² Uᵀ; the directions are
    Xᵀ u_k / s_k and the coordinates u_k s_k, k = 1, 2. Only the T x T Gram matrix is formed, never
    the covariance of the p weights. The sign of a direction is chosen so that the largest
    coordinate is positive.

    Args:
      paths: by name, weights with a leading axis of the path's points; at least three points in
        all that are not on one line.

    Raises:
      ValueError: paths of different networks, fewer than three points, weights that are not
        finite, or points on one line.

    Source: Golatkar et al. 2020b, figure 1.
    """
    sizes = _check_paths(paths)
    stacked = jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *paths.values())
    mean, gram = _centred_gram(stacked)
    values, vectors = np.linalg.eigh(np.asarray(gram, np.float64))
    largest, total = values[::-1][:2], values.clip(0).sum()
    # The Gram matrix is of float32 weights: below this share of the variance is rounding.
    if not largest[1] > 1e-6 * total:
        raise ValueError(
            "the paths must span a plane, but all points lie on one line; "
            "add a path, or points of it"
        )
    u = vectors[:, ::-1][:, :2]
    u = u * np.sign(u[np.abs(u).argmax(axis=0), [0, 1]])
    directions = _combine(stacked, mean, jnp.asarray(u / np.sqrt(largest), jnp.float32))
    coordinates = np.split(u * np.sqrt(largest), np.cumsum(sizes)[:-1])
    named = {
        name: jnp.asarray(part, jnp.float32) for name, part in zip(paths, coordinates, strict=True)
    }
    return PathPlane(named, jnp.asarray(largest / total, jnp.float32), mean, directions)


def _check_paths(paths: Mapping[str, Params]) -> list[int]:
    """Returns how many points each path has."""
    if not paths:
        raise ValueError("paths must hold at least one path, got none")
    shapes = {}
    for name, path in paths.items():
        leaves = jax.tree.leaves(path)
        lengths = {leaf.shape[0] if leaf.ndim else 0 for leaf in leaves}
        if len(lengths) != 1 or 0 in lengths:
            raise ValueError(f"every array of path {name!r} must have its points in front")
        if not all_finite(path):
            raise ValueError(f"weights of path {name!r} must be finite; its run has diverged")
        shapes[name] = [jax.tree.structure(path), *(leaf.shape[1:] for leaf in leaves)]
    first, *others = shapes
    for name in others:
        if shapes[name] != shapes[first]:
            raise ValueError(f"paths {first!r} and {name!r} must be of one network")
    sizes = [jax.tree.leaves(path)[0].shape[0] for path in paths.values()]
    if sum(sizes) < 3:
        raise ValueError(f"a plane needs at least 3 points, got {sum(sizes)}")
    return sizes


@jax.jit
def _centred_gram(stacked: Params) -> tuple[Params, Float[Array, "t t"]]:
    mean = jax.tree.map(lambda leaf: leaf.mean(0), stacked)
    centred = jax.tree.map(lambda leaf, m: (leaf - m).reshape(leaf.shape[0], -1), stacked, mean)
    products = [jnp.matmul(x, x.T, precision="highest") for x in jax.tree.leaves(centred)]
    return mean, jnp.sum(jnp.stack(products), axis=0)


@jax.jit
def _combine(stacked: Params, mean: Params, weights: Float[Array, "t 2"]) -> Params:
    def combine(leaf: Array, m: Array) -> Array:
        return jnp.tensordot(weights.T, leaf - m, axes=1, precision="highest")

    return jax.tree.map(combine, stacked, mean)


@jax.jit
def _project(weights: Params, mean: Params, directions: Params) -> Float[Array, "m 2"]:
    def project(leaf: Array, m: Array, direction: Array) -> Array:
        away = (leaf - m).reshape(leaf.shape[0], -1)
        return jnp.matmul(away, direction.reshape(2, -1).T, precision="highest")

    products = jax.tree.leaves(jax.tree.map(project, weights, mean, directions))
    return jnp.sum(jnp.stack(products), axis=0)
