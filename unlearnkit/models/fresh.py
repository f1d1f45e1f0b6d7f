"""The initialisation of a network that was given as it is, trained, and how to refuse it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import jax
import numpy as np
from jaxtyping import Array, Key

from unlearnkit.base import Model, Path, Variables
from unlearnkit.models.assembling import Held, subtrees

_REFUSAL = (
    "this network was given with its weights alone, so it cannot be initialised afresh, which "
    "retraining needs; give models.adopt the argument fresh=, a function that makes new weights"
)


@dataclasses.dataclass(frozen=True)
class Given:
    """Has the shapes of the weights that were given, and refuses to make new ones.

    Attributes:
      shapes: of the variables.
      order: of the subtrees of the parameters, as they were defined.
      fresh: key -> variables, or None.
    """

    shapes: Held
    order: tuple[Path, ...]
    fresh: Held | None = None

    def __call__(self, key: Key[Array, ""]) -> Variables:
        """Returns fresh variables where there is a way to make them.

        Raises:
          ValueError: there is none; a traced call says so when it runs.
        """
        if self.fresh is not None:
            made: Variables = self.fresh.value(key)
            return made
        if not isinstance(key, jax.core.Tracer):
            raise ValueError(_REFUSAL)
        data = jax.random.key_data(key)
        found: Variables = jax.pure_callback(_refuse, self.shapes.value, data)
        return found

    def ordered(self, key: Key[Array, ""], order: list[Path]) -> Variables:
        """See `assembling.Init`."""
        order.extend(self.order)
        return self(key)


def given(variables: Variables, fresh: Callable[..., Variables] | None) -> Given:
    """Returns the initialisation of a network that came with its weights.

    Args:
      variables: the weights, or their shapes.
      fresh: key -> variables, or None.
    """
    shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), variables)
    order = tuple(subtrees(variables.params))  # of `shapes` they would be sorted by name
    return Given(Held(shapes), order, None if fresh is None else Held(fresh))


def can_start_afresh(model: Model) -> bool:
    """Returns whether there is a way to make new weights of a network."""
    return not isinstance(model.init, Given) or model.init.fresh is not None


def check_fresh(model: Model) -> None:
    """Raises ValueError if a network was given with its weights and no way to make new ones."""
    if not can_start_afresh(model):
        raise ValueError(_REFUSAL)


def _refuse(key: np.ndarray) -> Variables:
    raise ValueError(_REFUSAL)
