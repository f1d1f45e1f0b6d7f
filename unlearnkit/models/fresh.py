"""The initialisation of a network that was given as it is, trained, and how to refuse it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

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


@dataclasses.dataclass(frozen=True)
class _From:
    """An initialisation that returns weights that were given, up to what is drawn.

    Attributes:
      init: key -> Variables, of the network itself.
      variables: what is returned.
      drawn: which leaves are drawn anew, in the order of `jax.tree.leaves`.
    """

    init: Callable[[Key[Array, ""]], Variables]
    variables: Held
    drawn: tuple[bool, ...]

    def __call__(self, key: Key[Array, ""]) -> Variables:
        given: Variables = at_hand(self.variables, key)
        if not any(self.drawn):
            return given
        leaves, structure = jax.tree.flatten(given)
        new = jax.tree.leaves(self.init(key))
        chosen = [n if drawn else g for n, g, drawn in zip(new, leaves, self.drawn, strict=True)]
        made: Variables = jax.tree.unflatten(structure, chosen)
        return made


def at_hand(held: Held, key: Key[Array, ""]) -> Any:
    """Returns a pytree of arrays that is held, in a traced initialisation too.

    There they would be constants of the program, which is then as large as they are; they are
    brought in as it runs.

    Args:
      held: the pytree.
      key: what the initialisation was given: whether it is traced.
    """
    if not isinstance(key, jax.core.Tracer):
        return held.value
    shapes = jax.tree.map(_shape_of, held.value)

    def bring(_: object) -> Any:
        return jax.tree.map(np.asarray, held.value)

    data = jax.random.key_data(key)
    return jax.pure_callback(bring, shapes, data, vmap_method="sequential")


def _shape_of(leaf: Array) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype)


def starting_from(model: Model, variables: Variables, *, but: tuple[Path, ...] = ()) -> Model:
    """Returns a network whose `init` returns given weights, as those of a pretraining.

    Whatever trains the network from the start then fine-tunes these weights, as retraining does,
    and what resets a layer sets it back to them.

    Args:
      model: the network.
      variables: its weights; held, not copied.
      but: the paths of parameters that are drawn anew from the key, as a head that is not
        pretrained.

    Example:
      model = models.starting_from(model, pretrained)
      retrained = unlearning.Retrain(recipe)(key, model, variables, task)
    """
    paths = [path for path, _ in jax.tree_util.tree_flatten_with_path(variables)[0]]
    drawn = tuple(tuple(getattr(entry, "key", None) for entry in path[1:]) in but for path in paths)
    return model._replace(init=_From(model.init, Held(jax.block_until_ready(variables)), drawn))
