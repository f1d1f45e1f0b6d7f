"""Pytrees with leaves that are not trained: which are weights, which state, which neither."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, Literal, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Key

from unlearnkit.base import Params, Variables
from unlearnkit.models.assembling import Held

Role: TypeAlias = Literal["trained", "carried", "static"]


def role_of(leaf: object) -> Role:
    """Returns what a leaf is.

    Floating-point arrays are trained; arrays of integers, booleans or keys are carried; all else,
    as texts, functions and Python's numbers, is static.
    """
    if isinstance(leaf, jax.Array | np.ndarray | np.generic | jax.ShapeDtypeStruct):
        if jnp.issubdtype(leaf.dtype, jnp.inexact):
            return "trained"
        keys = jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
        return "carried" if keys or leaf.dtype.kind in "iub" else "static"
    return "static"


@dataclasses.dataclass(frozen=True)
class Leaves:
    """Takes a pytree apart into weights, state and what never changes, and puts it together.

    Attributes:
      structure: of the whole tree, None where all leaves are trained.
      roles: of its leaves.
      static: the static leaves, None in the place of others.
    """

    structure: Held
    roles: tuple[Role, ...]
    static: Held

    @property
    def plain(self) -> bool:
        """Whether all leaves are trained, so that a tree is its own parameters."""
        return all(role == "trained" for role in self.roles)

    def split(self, tree: Any) -> Variables:
        """Returns the trained leaves as parameters and the carried ones as state.

        Both keep the structure of the tree, with None in the place of the other leaves.
        """
        if self.plain:
            return Variables(jax.tree.map(jnp.asarray, tree))
        leaves = [jnp.asarray(n) if isinstance(n, float) else n for n in jax.tree.leaves(tree)]
        params = self._only("trained", leaves)
        return Variables(params, self._only("carried", leaves) if "carried" in self.roles else {})

    def join(self, variables: Variables) -> Params:
        """Returns the tree that `split` took apart."""
        if self.plain:
            return variables.params
        structure = self.structure.value
        leaves = list(self.static.value)
        parts = {"trained": variables.params, "carried": variables.state}
        for role, part in parts.items():
            if role not in self.roles:
                continue
            for position, leaf in enumerate(structure.flatten_up_to(part)):
                if self.roles[position] == role:
                    leaves[position] = leaf
        return jax.tree.unflatten(structure, leaves)

    def _only(self, role: Role, leaves: list[Any]) -> Any:
        kept = [leaf if of == role else None for leaf, of in zip(leaves, self.roles, strict=True)]
        return jax.tree.unflatten(self.structure.value, kept)


def leaves_of(tree: Any) -> Leaves:
    """Returns how a tree is taken apart."""
    leaves, structure = jax.tree.flatten(tree)
    # A function's own Python floats are weights, as they are to jax.grad.
    roles = tuple("trained" if isinstance(leaf, float) else role_of(leaf) for leaf in leaves)
    static = tuple(
        leaf if role == "static" else None for leaf, role in zip(leaves, roles, strict=True)
    )
    return Leaves(Held(structure), roles, Held(static))


def split_leaves(init: Callable[[Key[Array, ""]], Any]) -> Leaves:
    """Returns how the trees of an initialisation are taken apart; nothing is computed."""
    found: list[Leaves] = []

    def trace(key: Key[Array, ""]) -> Array:
        found.append(leaves_of(init(key)))
        return jnp.zeros(())

    jax.eval_shape(trace, jax.random.key(0))
    return found[0]
