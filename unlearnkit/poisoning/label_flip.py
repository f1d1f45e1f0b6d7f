"""Poisons by wrong labels: random, by a rule, or where they hurt most (label flip)."""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import ClassVar, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from unlearnkit.base import Cost, Dataset, Model, Poisoned, Task, Variables
from unlearnkit.costs import FORWARD, Stopwatch
from unlearnkit.poisoning.bounds import Bounds
from unlearnkit.poisoning.budget import Budget
from unlearnkit.poisoning.placing import (
    Placement,
    PoisonInfo,
    place,
)
from unlearnkit.training import predict
from unlearnkit.trials import AttackTrial
from unlearnkit.validation import check_choice, check_task, check_variables

Rule = Literal["random", "mirror", "runner_up", "adversarial"]


@dataclasses.dataclass(frozen=True)
class LabelFlip:
    """Adds training examples once more, with labels that are not theirs.

    D_p = {(x_i, ȳ_i)}, |D_p| = ε |D_tr|, with ȳ by one of the rules

    - `random`: uniform over the other classes.
    - `mirror`: (c - y) mod c with c classes.
    - `runner_up`: the class of the highest logit but the label's, the best flip of a margin loss.
    - `adversarial`: the class of the largest loss, that is of the least logit; and poisons are not
      drawn but are the examples of the least loss, far from the decision surface, which support it
      only once their label is wrong.

    Attributes:
      budget: how many poisons.
      rule: see above.
      placement: `add`, or `perturb` to relabel the examples in place.

    Example:
      attack = poisoning.LabelFlip(budget=poisoning.Budget(0.03), rule="random")
      poisoned = attack(key, model, variables, task)

    Cost: nothing, or a look at the training set by the clean network.

    Source: Lu et al. 2022, equations (36) to (38) and A.4; Biggio et al. 2011 for `adversarial`.
    The rule of Lu et al. 2022, §5.2, is y <- 10 - y, which sends 0 to a label that does not exist:
    `mirror` takes it mod c. It leaves the classes 0 and c/2 as they are, and draws no poisons from
    them.
    """

    budget: Budget = Budget()  # noqa: RUF009 (frozen, and so safe to share)
    rule: Rule = "random"
    placement: Placement = "add"

    trial: ClassVar[AttackTrial] = AttackTrial(
        effective={"rule": "runner_up", "placement": "perturb"}, relabels=True
    )

    def __post_init__(self) -> None:
        check_choice("rule", self.rule, Rule)
        check_choice("placement", self.placement, Placement)

    def __call__(
        self, key: Key[Array, ""], model: Model, variables: Variables, task: Task
    ) -> Poisoned:
        """Returns the training set with flipped examples; `variables` are the clean network's.

        Raises:
          ValueError: a task or variables that do not fit the model, a network with one class, or
            a rule that flips fewer examples than the budget asks for.
        """
        check_task(task, model)
        check_variables(variables, model)
        clean = task.train
        m = self.budget.of(clean.size)
        check_flippable(model)
        with Stopwatch() as watch:
            flipped, fitness, cost = self._flip(key, model, variables, clean)
            rows = _best_rows(fitness, m)
            allowed = int((np.asarray(flipped) != np.asarray(clean.y)).sum())
            if allowed < m:
                raise ValueError(
                    f"rule={self.rule!r} flips {allowed} of {clean.size} labels, fewer than the "
                    f"{m} poisons of the budget; lower it, or choose rule='random'"
                )
            dataset, is_poison = place(clean, clean.x[rows], flipped[rows], rows, self.placement)
            jax.block_until_ready(dataset.x)
        info = PoisonInfo(
            rows, Bounds(box=None), {}, Cost(cost, watch.seconds, watch.compile_seconds)
        )
        return Poisoned(dataset, is_poison, info)

    def _flip(
        self, key: Key[Array, ""], model: Model, variables: Variables, clean: Dataset
    ) -> tuple[Int[Array, " n"], Float[Array, " n"], float]:
        """Returns every example's wrong label, how fit it is to be chosen, and the cost."""
        label_key, order_key = jax.random.split(key)
        c = model.n_classes
        drawn = jax.random.uniform(order_key, (clean.size,))
        if self.rule == "random":
            shift = jax.random.randint(label_key, (clean.size,), 1, c)
            return (clean.y + shift) % c, drawn, 0.0
        if self.rule == "mirror":
            flipped = (c - clean.y) % c
            return flipped, jnp.where(flipped == clean.y, -jnp.inf, drawn), 0.0
        logits = predict(model, variables, clean.x)
        flipped, margin = flip_by_logits(logits, clean.y, farthest=self.rule == "adversarial")
        fitness = margin if self.rule == "adversarial" else drawn
        return flipped, fitness, clean.size * FORWARD


def check_flippable(model: Model) -> None:
    """Raises ValueError if the network has one class."""
    if model.n_classes < 2:
        raise ValueError("a label can be flipped only where there are two classes or more")


def flip_by_logits(
    logits: Float[Array, "n c"], labels: Int[Array, " n"], *, farthest: bool
) -> tuple[Int[Array, " n"], Float[Array, " n"]]:
    """Returns the class that each example is relabelled to, and its margin under the true label.

    Args:
      logits: of the clean network.
      labels: the true classes.
      farthest: the class of the largest loss -log softmax_j; else of the least but the label's.

    Source: Lu et al. 2022, A.4, "Label flip for multi-class classification".
    """
    own = jax.nn.one_hot(labels, logits.shape[1], dtype=bool)
    best_other = jnp.argmax(jnp.where(own, -jnp.inf, logits), axis=1)
    worst_other = jnp.argmin(jnp.where(own, jnp.inf, logits), axis=1)
    true = jnp.take_along_axis(logits, labels[:, None], axis=1)[:, 0]
    runner_up = jnp.take_along_axis(logits, best_other[:, None], axis=1)[:, 0]
    flipped = worst_other if farthest else best_other
    return flipped.astype(labels.dtype), true - runner_up


@partial(jax.jit, static_argnames="m")
def _best_rows(fitness: Float[Array, " n"], m: int) -> Int[Array, " m"]:
    return jnp.sort(jnp.argsort(-fitness)[:m]).astype(jnp.int32)
