"""Selective Synaptic Dampening (SSD)."""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from unlearnkit import kernels
from unlearnkit.base import Cost, Dataset, Model, OnEpoch, Params, Task, Unlearned, Variables
from unlearnkit.costs import Stopwatch
from unlearnkit.training import cross_entropy
from unlearnkit.trials import UnlearnerTrial
from unlearnkit.unlearning._one_shot import at_state, finish
from unlearnkit.validation import check_above, check_at_least, check_task, check_variables

DEFAULT_ALPHA = 10.0
"""Of Foster et al. 2024, as is the default of λ."""


@dataclasses.dataclass(frozen=True)
class SelectiveSynapticDampening:
    """Shrinks the weights that matter far more to the forget set than to the training set.

    w <- w min(λ I_D / I_f, 1)   where I_f > α I_D,   I_S = 1/|S| Σ_{i in S} (∇_w log p(y_i|x_i))²

    with I the diagonal of the empirical Fisher information, of the given labels, in evaluation
    mode, and D the whole training set, the forget set included. There is no training and no noise.

    As D holds the forget set, I_f <= |D| / |D_f| I_D, and an α of |D| / |D_f| or more selects no
    weight. `info.history` has `alpha`, what was used, and `dampened`, the share of weights that
    were selected.

    Attributes:
      alpha: α > 0, how much more a weight must matter to be selected. None takes 10, or 1
        where |D| / |D_f| is 10 or less, and then `info.adapted` says so.
      dampening: λ > 0; the smaller, the further a selected weight shrinks.
      chunk: examples at a time; chunk p numbers are held.

    Example:
      unlearn = unlearning.SelectiveSynapticDampening(alpha=10.0, dampening=1.0)
      forgotten, info = unlearn(key, model, variables, task)

    Cost: `retain + forget` example-gradients.

    Source: Foster et al. 2024, with its α = 10 and λ = 1. I_D is made of the sums over
    the retain and the forget set, so that each example is looked at once. The public code squares
    the gradient of each batch's mean loss, and averages over batches: with batches of b examples
    that is about 1/b of I plus the square of the mean gradient, and so the ratio depends on b. Here
    each example's gradient is squared, as the equations have it. The adapted α is ours.
    """

    alpha: float | None = None
    dampening: float = 1.0
    chunk: int = 16

    trial: ClassVar[UnlearnerTrial] = UnlearnerTrial(
        effective={"alpha": 5.0},
        deterministic=True,
        whole_sets=True,
    )

    def __post_init__(self) -> None:
        if self.alpha is not None:
            check_above(self, 0, "alpha")
        check_above(self, 0, "dampening")
        check_at_least(self, 1, "chunk")

    def __call__(
        self,
        key: Key[Array, ""],
        model: Model,
        variables: Variables,
        task: Task,
        *,
        on_epoch: OnEpoch | None = None,
    ) -> Unlearned:
        """Returns the network with dampened weights; the key is not used.

        Raises:
          ValueError: a task or variables that do not fit the model.
          DivergedError: a weight is not finite.
        """
        check_task(task, model)
        check_variables(variables, model)
        alpha = self._alpha_of(task)
        with Stopwatch() as watch:
            params, dampened = _dampen(
                *(variables, task.retain, task.forget, alpha, self.dampening),
                model=model,
                chunk=self.chunk,
            )
            jax.block_until_ready(params)
        cost = Cost(self.example_gradients(variables, task), watch.seconds, watch.compile_seconds)
        history = {"alpha": alpha, "dampened": float(dampened)}
        unlearned = finish(
            model, params, variables.state, task, cost, history=history, on_epoch=on_epoch
        )
        if self.alpha is None and alpha < DEFAULT_ALPHA:
            info = unlearned.info._replace(adapted={"alpha": round(alpha)})
            return unlearned._replace(info=info)
        return unlearned

    def example_gradients(self, variables: Variables, task: Task) -> float:
        """Returns what a run takes, which follows from sizes alone; see `info.cost`."""
        return float(task.retain.size + task.forget.size)

    def _alpha_of(self, task: Task) -> float:
        if self.alpha is not None:
            return self.alpha
        largest_ratio = (task.retain.size + task.forget.size) / task.forget.size
        return DEFAULT_ALPHA if largest_ratio > DEFAULT_ALPHA else 1.0


@partial(jax.jit, static_argnames=("model", "chunk"))
def _dampen(
    variables: Variables,
    retain: Dataset,
    forget: Dataset,
    alpha: float | Float[Array, ""],
    dampening: float | Float[Array, ""],
    *,
    model: Model,
    chunk: int,
) -> tuple[Params, Float[Array, ""]]:
    """Returns the dampened weights, and the share of them that were selected."""
    apply = at_state(model, variables.state)

    def loss(params: Params, x: Array, y: Array) -> Float[Array, ""]:
        return cross_entropy(apply(params, x), y)

    def importance(dataset: Dataset) -> Params:
        return kernels.empirical_fisher_diagonal(loss, variables.params, dataset, chunk=chunk)

    of_forget, share = importance(forget), forget.size / (retain.size + forget.size)
    of_all = jax.tree.map(lambda r, f: (1 - share) * r + share * f, importance(retain), of_forget)

    def selected(of_all: Array, of_forget: Array) -> Array:
        return of_forget > alpha * of_all

    def dampen(weight: Array, of_all: Array, of_forget: Array) -> Array:
        ratio = dampening * of_all / jnp.where(of_forget > 0, of_forget, 1)
        return jnp.where(selected(of_all, of_forget), weight * jnp.minimum(ratio, 1), weight)

    params = jax.tree.map(dampen, variables.params, of_all, of_forget)
    chosen: list[Any] = jax.tree.leaves(jax.tree.map(selected, of_all, of_forget))
    share_chosen = sum(jnp.sum(part) for part in chosen) / sum(part.size for part in chosen)
    return params, share_chosen
