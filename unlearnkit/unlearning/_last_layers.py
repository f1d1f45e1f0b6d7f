"""Training only the last k layers of a network."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from itertools import compress, takewhile
from typing import Any, ClassVar, NamedTuple

import jax
from jaxtyping import Array, Float, Key

from unlearnkit.base import (
    Dataset,
    Model,
    OnEpoch,
    OnSnapshot,
    Params,
    Path,
    State,
    Unlearned,
    UnlearnInfo,
    Variables,
)
from unlearnkit.training import CrossEntropy, descend
from unlearnkit.training.step import Metrics
from unlearnkit.unlearning._sgd import SgdSettings, snapshots_of
from unlearnkit.validation import check_at_least

DEFAULT_K = 3
"""Layers that move where a method is not told how many: Pawelczyk et al. 2024, A.2.4."""


@dataclasses.dataclass(frozen=True)
class LastLayersSettings(SgdSettings):
    """Stochastic gradient descent on the last layers alone.

    Attributes:
      k: how many layers move, counted from the output: a convolution or linear layer each, with the
        norm that follows it. None takes 3, or all but the first of a network of fewer than 4 layers
        (of one layer, that one), and `info.adapted` says so.
    """

    k: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.k is not None:
            check_at_least(self, 1, "k")

    def depth(self, model: Model) -> int:
        """Returns how many layers move; an explicit k beyond the model's is refused later."""
        if self.k is not None:
            return self.k
        return min(DEFAULT_K, max(1, len(model.layers) - 1))


class Selection(NamedTuple):
    """Which leaves belong to the last layers, in the order of `jax.tree.leaves`.

    Attributes:
      params: one boolean per leaf of the parameters.
      state: one boolean per leaf of the state.
      unowned: one boolean per leaf of the state: it belongs to no layer.
    """

    params: tuple[bool, ...]
    state: tuple[bool, ...]
    unowned: tuple[bool, ...]


def select_last_layers(model: Model, variables: Variables, k: int) -> Selection:
    """Returns which leaves of `variables` belong to the last k layers of `model`.

    Raises:
      ValueError: the model has fewer layers.
    """
    if not 1 <= k <= len(model.layers):
        raise ValueError(
            f"k must be in 1 … {len(model.layers)}, the number of the model's layers, got {k}"
        )
    known = {path for layer in model.layers for path in layer}
    last = {path for layer in model.layers[-k:] for path in layer}
    owners = [_owner(keys, known) for keys in _keys(variables.state)]
    return Selection(
        tuple(keys in last for keys in _keys(variables.params)),
        tuple(owner in last for owner in owners),
        tuple(owner is None for owner in owners),
    )


def replace(chosen: Sequence[bool], tree: Any, other: Any) -> Any:
    """Returns `tree` with the chosen leaves taken from `other`, which is like it."""
    leaves, structure = jax.tree.flatten(tree)
    pairs = zip(chosen, leaves, jax.tree.leaves(other), strict=True)
    return jax.tree.unflatten(structure, [new if is_new else old for is_new, old, new in pairs])


def descend_last_layers(
    key: Key[Array, ""],
    model: Model,
    variables: Variables,
    dataset: Dataset,
    settings: LastLayersSettings,
    *,
    on_epoch: OnEpoch | None = None,
    on_snapshot: OnSnapshot | None = None,
) -> Unlearned:
    """Returns the network after descending the cross-entropy of `dataset` in its last k layers.

    The gradient goes no further down than these layers.

    Args:
      key: of the order of the batches and of the steps.
      model: the network.
      variables: where to start.
      dataset: what is descended on.
      settings: how, and how many layers.
      on_epoch: called after each epoch.
      on_snapshot: called with the network after each epoch.
    """
    k = settings.depth(model)
    selection = select_last_layers(model, variables, k)
    recipe, adapted = settings.fitted(variables, dataset)
    adapted |= {"k": k} if settings.k is None and k != DEFAULT_K else {}
    objective = _LastLayers(CrossEntropy(model, recipe), selection)

    def whole(moved: Variables) -> Variables:
        return moved._replace(params=_fill(selection.params, variables.params, moved.params))

    moving = list(compress(jax.tree.leaves(variables.params), selection.params))
    trained = descend(
        key,
        objective,
        recipe,
        dataset,
        Variables(moving, variables.state),
        context=variables.params,
        on_epoch=on_epoch,
        on_snapshot=snapshots_of(whole, on_snapshot),
    )
    info = UnlearnInfo(trained.info.history, trained.info.cost, adapted=adapted)
    return Unlearned(whole(trained.variables), info)


@dataclasses.dataclass(frozen=True)
class _LastLayers:
    """The objective as a function of the selected leaves; `context` holds all parameters.

    In training mode the whole network normalises by the batch; the running statistics of the
    layers that do not move are put back.
    """

    NUMBERS: ClassVar[tuple[str, ...]] = ()

    objective: CrossEntropy
    selection: Selection

    def __call__(
        self,
        params: list[Array],
        state: State,
        batch: Dataset,
        key: Key[Array, ""],
        context: Params,
    ) -> tuple[Float[Array, ""], tuple[State, Metrics]]:
        whole = _fill(self.selection.params, context, params)
        loss, (new_state, metrics) = self.objective(whole, state, batch, key)
        moves = [a or b for a, b in zip(self.selection.state, self.selection.unowned, strict=True)]
        return loss, (replace(moves, state, new_state), metrics)


def _fill(chosen: Sequence[bool], tree: Params, leaves: Sequence[Array]) -> Params:
    """Returns `tree` with its chosen leaves replaced by `leaves`, in order."""
    kept, structure = jax.tree.flatten(tree)
    new = iter(leaves)
    filled = [next(new) if is_new else old for is_new, old in zip(chosen, kept, strict=True)]
    return jax.tree.unflatten(structure, filled)


def _keys(tree: Any) -> list[Path]:
    """Lists for each leaf the keys of the dicts around it, which name its layer."""
    paths = [path for path, _ in jax.tree_util.tree_flatten_with_path(tree)[0]]
    is_key = jax.tree_util.DictKey
    named = (takewhile(lambda entry: isinstance(entry, is_key), path) for path in paths)
    return [tuple(entry.key for entry in entries)[:-1] for entries in named]


def _owner(keys: Path, layers: set[Path]) -> Path | None:
    """Returns the layer of a leaf of the state: flax.linen puts the collection's name in front."""
    return next((path for path in (keys, keys[1:]) if path in layers), None)
