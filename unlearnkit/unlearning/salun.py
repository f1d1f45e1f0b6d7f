"""Random labels on the weights that matter to the forget set (SalUn)."""

from __future__ import annotations

import dataclasses
import math
from functools import partial
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from unlearnkit.base import (
    Dataset,
    Model,
    OnEpoch,
    OnSnapshot,
    Params,
    State,
    Task,
    Unlearned,
    Variables,
)
from unlearnkit.costs import Stopwatch
from unlearnkit.kernels import risk_gradient
from unlearnkit.training import CrossEntropy, Objective, cross_entropy
from unlearnkit.training.step import Metrics
from unlearnkit.unlearning._sgd import snapshots_of, with_preparation
from unlearnkit.unlearning.random_label import RandomLabel, relabel
from unlearnkit.validation import check_task, check_variables


@dataclasses.dataclass(frozen=True)
class SalUn(RandomLabel):
    """Runs `RandomLabel` on the weights that the forget set's loss is most sensitive to.

    w = m ⊙ v + (1 - m) ⊙ w₀,   m_j = 1 for the ⌈fraction · d⌉ largest |∂CE_forget(w₀) / ∂w_j|

    The descent is on v; neither momentum nor weight decay can thus move a weight outside the mask,
    which keeps its bits. BatchNorm is in evaluation mode for the mask, whose gradient is that of
    the whole forget set, and in training mode after; its statistics move, being no weights.

    Attributes:
      epochs: pairs of passes.
      fraction: share of all d parameters together that may move, in (0, 1].

    Example:
      unlearn = unlearning.SalUn(epochs=5, fraction=0.5)
      forgotten, info = unlearn(key, model, variables, task)

    Cost: `epochs * (retain + forget) + forget` example-gradients.

    Source: Fan et al. 2024, SalUn (fraction 0.5); the rest as `RandomLabel`. Ties at the threshold
    go to the parameter that comes first, so that the share is exact.
    """

    fraction: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.fraction <= 1:
            raise ValueError(f"fraction must be in (0, 1], got {self.fraction}")

    def __call__(
        self,
        key: Key[Array, ""],
        model: Model,
        variables: Variables,
        task: Task,
        *,
        on_epoch: OnEpoch | None = None,
        on_snapshot: OnSnapshot | None = None,
    ) -> Unlearned:
        """Returns the network after training its salient weights on random labels.

        Raises:
          ValueError: a task or variables that do not fit the model, or a batch larger than its set.
          DivergedError: the loss is no longer finite.
        """
        check_task(task, model)
        check_variables(variables, model)
        fitted = self.fitted_pair(variables, task)
        with Stopwatch() as watch:
            mask = saliency_mask(
                model,
                variables,
                task.forget,
                fraction=self.fraction,
                chunk=fitted.forget.batch_size,
            )
            jax.block_until_ready(mask)

        def masked(moved: Variables) -> Variables:
            return moved._replace(params=_select(mask, moved.params, variables.params))

        unlearned = relabel(
            key,
            fitted,
            model,
            (
                _Masked(CrossEntropy(model, fitted.forget)),
                _Masked(CrossEntropy(model, fitted.retain)),
            ),
            variables,
            task,
            context=_Mask(mask, variables.params),
            on_epoch=on_epoch,
            on_snapshot=snapshots_of(masked, on_snapshot),
        )
        unlearned = unlearned._replace(variables=masked(unlearned.variables))
        return with_preparation(unlearned, _mask_gradients(task), watch)

    def example_gradients(self, variables: Variables, task: Task) -> float:
        """Returns what a run takes, which follows from sizes alone; see `info.cost`."""
        return super().example_gradients(variables, task) + _mask_gradients(task)


def _mask_gradients(task: Task) -> float:
    """Returns what the mask takes: a gradient of the whole forget set."""
    return float(task.forget.size)


@partial(jax.jit, static_argnames=("model", "fraction", "chunk"))
def saliency_mask(
    model: Model, variables: Variables, dataset: Dataset, *, fraction: float, chunk: int
) -> Params:
    """Returns where |∇CE(dataset)| is among the ⌈fraction · d⌉ largest, as booleans like params.

    Args:
      model: the network, in evaluation mode.
      variables: where the gradient is taken.
      dataset: the loss is the mean over these examples.
      fraction: share of all parameters together.
      chunk: examples a gradient; the mask does not depend on it beyond rounding.
    """

    def loss(params: Params, x: Array, y: Array) -> Array:
        return cross_entropy(model.apply(variables._replace(params=params), x), y)

    gradient = risk_gradient(loss, variables.params, dataset, chunk=chunk)
    leaves, structure = jax.tree.flatten(gradient)
    sizes = jnp.abs(jnp.concatenate([leaf.ravel() for leaf in leaves]))
    largest = jnp.argsort(-sizes)[: math.ceil(fraction * sizes.size)]
    flat = jnp.zeros(sizes.shape, bool).at[largest].set(True)
    ends = [sum(leaf.size for leaf in leaves[: i + 1]) for i in range(len(leaves) - 1)]
    parts = jnp.split(flat, ends)
    masks = [part.reshape(leaf.shape) for part, leaf in zip(parts, leaves, strict=True)]
    return jax.tree.unflatten(structure, masks)


class _Mask(NamedTuple):
    mask: Params
    start: Params


@dataclasses.dataclass(frozen=True)
class _Masked:
    """The objective as a function of the weights inside the mask; those outside stay at `start`."""

    NUMBERS: ClassVar[tuple[str, ...]] = ()

    objective: Objective

    def __call__(
        self, params: Params, state: State, batch: Dataset, key: Key[Array, ""], context: _Mask
    ) -> tuple[Float[Array, ""], tuple[State, Metrics]]:
        masked = _select(context.mask, params, context.start)
        return self.objective(masked, state, batch, key, None)


def _select(mask: Params, inside: Params, outside: Params) -> Params:
    return jax.tree.map(jnp.where, mask, inside, outside)
