"""Drops the examples whose gradients lie farthest along the direction of their largest spread."""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from unlearnkit.base import Cost, Dataset, Defended, Model, SolveInfo, Variables
from unlearnkit.costs import JVP, VJP, Stopwatch
from unlearnkit.defences._dropping import (
    DropSettings,
    check_input,
    finish,
    highest,
    refuse_lost_classes,
    warn_unconverged,
)
from unlearnkit.defences._spread import spread_scores
from unlearnkit.kernels import GradientOperator, tree_norm
from unlearnkit.training import Recipe, cross_entropy, fit
from unlearnkit.trials import DefenceTrial
from unlearnkit.validation import check_above, check_at_least

PRODUCT = VJP + JVP
"""Example-gradients of a product with G and one with its transpose."""


@dataclasses.dataclass(frozen=True)
class Sever(DropSettings):
    """Drops outliers among the per-example gradients, retrains, and drops again.

    s_i = ((g_i - ḡ)·v)²,   v the top right singular vector of the rows (g_i - ḡ)

    over the gradients g_i of one class in all parameters. G [n, p] is never formed: v is found by
    products with G and its transpose. Each of the rounds drops an equal part of the share and then
    trains a fresh network on what is left; the last does not train, as that is the user's next
    step.

    Attributes:
      recipe: how the network is trained between two rounds; give it the recipe of the original.
      rounds: how often examples are dropped.
      tol: relative residual of v's eigenvalue problem.
      max_steps: the most steps of its Lanczos method.
      chunk: examples at a time.
      fraction: what all rounds drop together; see `DropSettings`.
      per_class: see `DropSettings`.

    Example:
      defend = defences.Sever(fraction=0.03, rounds=2)
      keep, scores, info = defend(key, model, variables, train)

    Cost: per-example gradients and a training for each round.

    Source: Diakonikolas et al. 2019, algorithm 1; Lu et al. 2022, §5.6 (b) and Table 11, drops
    3 %. Two rounds, and each class by itself, as in the public code; its factor 1/√n on the rows
    changes no rank.
    """

    fraction: float = 0.03
    per_class: bool = True
    recipe: Recipe = Recipe()  # noqa: RUF009 (frozen, and so safe to share)
    rounds: int = 2
    tol: float = 1e-3
    max_steps: int = 100
    chunk: int = 100

    trial: ClassVar[DefenceTrial] = DefenceTrial(
        small={"fraction": 0.1}, precision=0.4, ranks_each_class=False
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        check_above(self, 0, "tol")
        check_at_least(self, 1, "rounds", "max_steps", "chunk")

    def __call__(
        self, key: Key[Array, ""], model: Model, variables: Variables, dataset: Dataset
    ) -> Defended:
        """Returns which examples to keep.

        The score of an example is that of the last round in which it took part; the history says
        per round how many were dropped, and the solves how each search for v ended, by round and
        group.

        Raises:
          ValueError: data or variables that do not fit the model, a class that would vanish, or a
            batch of the recipe that is larger than what is left.
          DivergedError: a retrained network, or a score, is no longer finite.
        """
        check_input(model, variables, dataset)
        labels = np.asarray(dataset.y)
        groups = self.groups(labels)
        size = max(len(rows) for rows in groups)
        keep, scores = np.ones(dataset.size, bool), np.zeros(dataset.size)
        solves: dict[str, SolveInfo] = {}
        dropped, cost = [], Cost(0.0, 0.0)
        for turn in range(1, self.rounds + 1):
            train_key, search_key = jax.random.split(jax.random.fold_in(key, turn))
            if turn > 1:
                refuse_lost_classes(keep, labels)
                kept = dataset.take(np.flatnonzero(keep))
                trained = fit(train_key, model, kept, self.recipe)
                variables, cost = trained.variables, cost.plus(trained.info.cost)
            before = keep.sum()
            with Stopwatch() as watch:
                work = 0.0
                for number, rows in enumerate(groups):
                    left = rows[keep[rows]]
                    own_key = jax.random.fold_in(search_key, number)
                    found = _outliers(own_key, model, variables, dataset, left, size, self)
                    scores[left], info = found
                    quota = round(self.fraction * len(rows) * turn / self.rounds)
                    keep[left[highest(scores[left], quota - int((~keep[rows]).sum()))]] = False
                    solves[f"round_{turn}_group_{number}"] = info
                    work += int(info.steps) * size * PRODUCT
            cost = cost.plus(Cost(work, watch.seconds, watch.compile_seconds))
            dropped.append(before - keep.sum())
        for name, info in solves.items():
            warn_unconverged(f"the search {name}", info, "allow more max_steps, or raise tol")
        history = {"dropped": jnp.asarray(np.array(dropped))}
        return finish(np.flatnonzero(~keep), scores, dataset, cost, history=history, solves=solves)


def _outliers(
    key: Key[Array, ""],
    model: Model,
    variables: Variables,
    dataset: Dataset,
    rows: np.ndarray,
    size: int,
    method: Sever,
) -> tuple[np.ndarray, SolveInfo]:
    """Returns the scores of `rows`; padded to `size`, so that one program serves all groups."""
    group = dataset.take(np.resize(rows, size))
    weights = jnp.asarray(np.arange(size) < len(rows), float)

    def product(u: np.ndarray) -> Any:
        vector = jnp.asarray(u, weights.dtype)
        image, size = _spread_product(model, variables, group, weights, vector, chunk=method.chunk)
        return np.asarray(image, np.float64) * float(size)

    scores, info = spread_scores(key, product, size, tol=method.tol, max_steps=method.max_steps)
    return scores[: len(rows)], info


@partial(jax.jit, static_argnames=("model", "chunk"))
def _spread_product(
    model: Model,
    variables: Variables,
    group: Dataset,
    weights: Float[Array, " m"],
    vector: Float[Array, " m"],
    *,
    chunk: int,
) -> tuple[Float[Array, " m"], Float[Array, ""]]:
    """Returns C G Gᵀ C u / s and s, with C the centring of the rows of weight 1.

    The other rows count nothing. Kept apart from its size s = ‖Gᵀ C u‖, the product of gradients
    that are tiny, as a confident network's are, does not vanish.
    """

    def loss(params: Any, x: Array, y: Array) -> Array:
        return cross_entropy(model.apply(Variables(params, variables.state), x), y)

    def centre(u: Array) -> Array:
        return weights * (u - weights @ u / weights.sum())

    gradients = GradientOperator(loss, variables.params, group, chunk)
    total = gradients.rmatvec(centre(vector))
    size = tree_norm(total)
    size = jnp.where(size > 0, size, 1)
    return centre(gradients.matvec(total / size)), size
