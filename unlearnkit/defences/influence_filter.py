"""Drops the examples of the largest influence."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable
from functools import partial
from typing import ClassVar, Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Key

from unlearnkit import kernels
from unlearnkit.base import Cost, Dataset, Defended, Model, Params, SolveInfo, Variables
from unlearnkit.costs import BACKWARD, JVP, VJP, Stopwatch
from unlearnkit.defences._dropping import (
    DefenceWarning,
    DropSettings,
    check_input,
    finish,
    warn_unconverged,
)
from unlearnkit.host import choose_rows
from unlearnkit.kernels.preconditioners import LowRank
from unlearnkit.training import cross_entropy
from unlearnkit.trials import DefenceTrial
from unlearnkit.validation import check_above, check_at_least, check_known

TargetName = Literal["self", "objective"]
PRODUCT = JVP + BACKWARD
"""Example-gradients of a product with the Gauss-Newton matrix."""


@dataclasses.dataclass(frozen=True)
class InfluenceFilter(DropSettings):
    """Drops the examples on which the trained weights rest most.

    `self`:       s_i = g_iᵀ (H + λI)⁻¹ g_i,  by how much the loss at i would grow without i
    `objective`:  s_i = |ḡᵀ (H + λI)⁻¹ g_i|, by how much the mean loss would change without i

    (times 1/n), with g_i = ∇ℓ_i, ḡ their mean and H the Gauss-Newton matrix of the mean loss.
    `objective` takes one solve. `self` would take n of them; H is replaced by its randomised
    Nyström approximation of the given rank, whose inverse is explicit. It is exact where the rank
    reaches that of H, and warns where what was left out of H is not small beside λ.

    Attributes:
      target: `self` or `objective`.
      damping: λ, > 0.
      rank: of the approximation for `self`, in products with H; at most the number of weights,
        which many numbers times `rank` are held.
      tol: relative residual of the solve for `objective`.
      max_steps: its most steps.
      chunk: examples at a time; `self` holds, for each, a layer's outputs `rank` times.
      curvature_examples: whose mean H is taken for that of all, drawn without replacement; all
        where there are fewer, or None. The products with H are what takes the time of `self` for a
        large network.
      fraction, per_class: see `DropSettings`.

    Example:
      defend = defences.InfluenceFilter(fraction=0.03, damping=1e-2)
      keep, scores, info = defend(key, model, variables, train)

    Cost: `rank` products with the curvature (`self`), or one solve (`objective`).

    Source: Koh and Liang 2017, §5.4, whose self-influence finds wrong labels; Lu et al. 2022,
    §5.6 (b) and Table 11, drops 3 %. `objective` is the form of the public code; its
    sign tells little, as the mean includes the poisons themselves. At a minimum ḡ vanishes and it
    ranks by rounding.
    """

    target: TargetName = "self"
    damping: float = 0.1
    rank: int = 100
    tol: float = 1e-3
    max_steps: int = 1000
    chunk: int = 100
    curvature_examples: int | None = 10_000

    trial: ClassVar[DefenceTrial] = DefenceTrial(
        small={"rank": 30, "damping": 0.1}, across_classes=True
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        check_known("target", self.target, get_args(TargetName))
        check_above(self, 0, "damping", "tol")
        check_at_least(self, 1, "rank", "max_steps", "chunk")
        if self.curvature_examples is not None:
            check_at_least(self, 1, "curvature_examples")

    def __call__(
        self, key: Key[Array, ""], model: Model, variables: Variables, dataset: Dataset
    ) -> Defended:
        """Returns which examples to keep; the key draws the approximation of `self`.

        `info.solves["influence"]` says how the solve of `objective` ended;
        `info.history["least_curvature"]` is the least eigenvalue that the approximation of `self`
        kept.

        Raises:
          ValueError: data or variables that do not fit the model, or a class that would vanish.
          DivergedError: a score is not finite.
        """
        check_input(model, variables, dataset)
        draw_key, key = jax.random.split(key) if self.curvature_examples else (key, key)
        n = min(self.curvature_examples or dataset.size, dataset.size)
        seen = dataset.x
        if n < dataset.size:
            seen = dataset.take(choose_rows(draw_key, dataset.size, n)).x
        history: dict[str, Array] = {}
        solves: dict[str, SolveInfo] = {}
        with Stopwatch() as watch:
            if self.target == "self":
                rank = min(self.rank, ravel_pytree(variables.params)[0].size)
                low_rank = _approximate(model, variables, seen, key, self, rank)
                scores = np.concatenate(
                    [
                        _unscaled(*_self_influence(model, variables, part, low_rank))
                        for part in _parts(dataset, self.chunk)
                    ]
                )
                history["least_curvature"] = self._check(low_rank, rank)
                work = rank * PRODUCT * n / dataset.size + VJP
            else:
                *found, info = _objective_influence(model, variables, dataset, seen, self)
                scores, solves["influence"] = _unscaled(*found), info
                work = VJP + (int(info.steps) + 1) * PRODUCT * n / dataset.size + JVP
        for info in solves.values():
            warn_unconverged("the influence", info, "allow more max_steps, or raise damping or tol")
        cost = Cost(dataset.size * work, watch.seconds, watch.compile_seconds)
        dropped = self.drop(scores, np.asarray(dataset.y))
        return finish(dropped, scores, dataset, cost, history=history, solves=solves)

    def _check(self, low_rank: LowRank, rank: int) -> Array:
        least: Array = jnp.linalg.eigvalsh(low_rank.gram)[:1]
        if rank < low_rank.factor.shape[0] and float(least[0]) > self.damping:
            warnings.warn(
                f"the curvature that rank={self.rank} leaves out may be as large as "
                f"{float(least[0]):.2g}, above damping={self.damping:g}; raise either",
                DefenceWarning,
                stacklevel=3,
            )
        return least


@partial(jax.jit, static_argnames=("model", "method", "rank"))
def _approximate(
    model: Model,
    variables: Variables,
    x: Array,
    key: Key[Array, ""],
    method: InfluenceFilter,
    rank: int,
) -> LowRank:
    operator = _curvature(model, variables, x, method)
    return kernels.nystrom(key, operator, variables.params, rank=rank, shift=method.damping)


@partial(jax.jit, static_argnames="model")
def _self_influence(
    model: Model, variables: Variables, part: Dataset, low_rank: LowRank
) -> tuple[Array, Array, Array]:
    """Returns gᵀ (F Fᵀ + λ I)⁻¹ g of every example, by Woodbury's identity; see `_unscaled`."""
    gradients = kernels.GradientOperator(_loss(model, variables), variables.params, part)
    found = gradients.matmat(0, part.size, low_rank.factor)
    with jax.default_matmul_precision("highest"):
        explained = jax.scipy.linalg.solve_triangular(
            low_rank.cholesky, found.products.T, lower=True
        )
    scores = (found.squares - jnp.sum(explained**2, axis=0)) / low_rank.shift
    return scores, found.size, found.size


@partial(jax.jit, static_argnames=("model", "method"))
def _objective_influence(
    model: Model, variables: Variables, dataset: Dataset, seen: Array, method: InfluenceFilter
) -> tuple[Array, Array, Array, SolveInfo]:
    loss, params = _loss(model, variables), variables.params
    gradient = kernels.risk_gradient(loss, params, dataset, chunk=method.chunk)
    direction, info = kernels.cg(
        _curvature(model, variables, seen, method),
        gradient,
        damping=method.damping,
        tol=method.tol,
        max_steps=method.max_steps,
    )
    operator = kernels.GradientOperator(loss, params, dataset, method.chunk)
    size = _positive(kernels.tree_norm(direction))
    along = operator.matvec(ravel_pytree(direction)[0] / size)
    return jnp.abs(along), size, jnp.ones_like(size), info


def _unscaled(scores: Array, size: Array, other: Array) -> np.ndarray:
    """Returns scores · size · other in float64, where those of tiny gradients do not vanish."""
    return np.asarray(scores, np.float64) * float(size) * float(other)


def _positive(size: Array) -> Array:
    return jnp.where(size > 0, size, 1)


def _curvature(
    model: Model, variables: Variables, x: Array, method: InfluenceFilter
) -> Callable[[Params], Params]:
    def apply(params: Params, inputs: Array) -> Array:
        return model.apply(Variables(params, variables.state), inputs)

    hessian = kernels.cross_entropy_hessian
    return kernels.risk_ggn_operator(apply, variables.params, x, hessian, chunk=method.chunk)


def _loss(model: Model, variables: Variables) -> Callable[[Params, Array, Array], Array]:
    state = variables.state
    return lambda params, x, y: cross_entropy(model.apply(Variables(params, state), x), y)


def _parts(dataset: Dataset, chunk: int) -> list[Dataset]:
    starts = range(0, dataset.size, chunk)
    return [jax.tree.map(lambda array, s=s: array[s : s + chunk], dataset) for s in starts]
