"""Poisons that make a chosen classifier the optimum of training (KKT attack)."""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Key

from unlearnkit.base import FROM_SCRATCH, Cost, Dataset, Model, Poisoned, Task, Variables
from unlearnkit.costs import Stopwatch
from unlearnkit.kernels import svm
from unlearnkit.poisoning import _convex
from unlearnkit.poisoning._feasible import Ball, HalfSpace, furthest_within
from unlearnkit.poisoning.bounds import Bounds, check_limits
from unlearnkit.poisoning.budget import Budget
from unlearnkit.poisoning.label_flip import LabelFlip
from unlearnkit.poisoning.min_max import make_feasible_set
from unlearnkit.poisoning.placing import PoisonInfo, place, warn
from unlearnkit.trials import AttackTrial
from unlearnkit.validation import check_at_least, check_continuous, check_task, check_variables


@dataclasses.dataclass(frozen=True)
class KktAttack:
    """Adds copies of one point of each class under which a decoy satisfies the SVM's optimality.

    min ‖R‖²,   R = (w/C + Σ_i ∇l_i(w) - m₊ x₊ + m₋ x₋,  Σ_i ∂l_i/∂b - m₊ + m₋)

    with (w, b) the decoy, l the hinge loss of the clean examples, and m₊ + m₋ = m: where R = 0 the
    decoy is what the defender's SVM converges to. The points lie in the box, within the sphere of
    their class, and where their own hinge loss is active, y (w·x + b) <= 1. For each m₊ of a grid
    that is a convex problem, solved by Frank-Wolfe with exact line search; the best is taken.

    Attributes:
      budget: how many poisons.
      bounds: the box; they are made of no base image, so that a radius means nothing.
      sphere: the quantile of the distances of a class to its centre that is the radius, in (0, 1];
        None for no sphere.
      decoy: which labels are flipped for the decoy, and how many.
      C: weight of the hinge losses of the defender against 1/2 ‖w‖².
      grid: how many values of m₊ are tried, evenly from 0 to m; at least 2.
      steps: Frank-Wolfe steps for each.

    Example:
      attack = poisoning.KktAttack(budget=poisoning.Budget(0.03))
      poisoned = attack(key, model, variables, task)

    Cost: one training of a convex classifier.

    Source: Koh, Steinhardt and Liang 2022, §6; Lu et al. 2022, equations (30) to (34), which
    leave out the regulariser. The decoy is trained with the squared hinge: of a hinge SVM d + 1
    examples lie on the margin, where the gradient in R is not unique.
    """

    budget: Budget = Budget()  # noqa: RUF009 (frozen, and so safe to share)
    bounds: Bounds = Bounds()  # noqa: RUF009
    sphere: float | None = 0.95
    decoy: LabelFlip = LabelFlip(Budget(0.3), "runner_up", "perturb")  # noqa: RUF009
    C: float = 1.0
    grid: int = 11
    steps: int = 200

    trial: ClassVar[AttackTrial] = AttackTrial(
        small={"grid": 3, "steps": 20}, effective={"grid": 4, "steps": 50}, two_classes=True
    )

    def __post_init__(self) -> None:
        check_limits(self.bounds, self.sphere, without="the points have no limit")
        check_at_least(self, 2, "grid")
        _convex.check_settings(self.C, self.steps, 1.0)

    def __call__(
        self, key: Key[Array, ""], model: Model, variables: Variables, task: Task
    ) -> Poisoned:
        """Returns the training set with the poisons added; `variables` choose the flipped labels.

        Raises:
          ValueError: a task or variables that do not fit the model, a network that is not linear,
            not two classes, one class only in the training set, or a box that excludes an image.
        """
        check_task(task, model)
        check_continuous(task.retain, method="KktAttack")
        check_variables(variables, model)
        _convex.check_binary_linear("kkt", model)
        clean = task.train
        m = self.budget.of(clean.size)
        feasible_set = make_feasible_set(clean, 2, self.bounds, self.sphere)
        if not bool(feasible_set.present.all()):
            raise ValueError("the training set must hold examples of both classes, got one class")
        flipped = self.decoy(key, model, variables, task).dataset
        counts = jnp.asarray(np.unique(np.linspace(0, m, self.grid).round()), clean.x.dtype)
        with Stopwatch() as watch:
            target = svm(
                flipped.x.reshape(flipped.size, -1),
                _convex.signs(flipped.y),
                C=self.C,
                loss="squared_hinge",
            )
            _convex.warn_unconverged(np.asarray(target.info.converged)[None])
            decoy = Decoy(target.weights, target.bias)
            found = solve(
                clean, decoy, feasible_set.ball, counts, float(m), C=self.C, steps=self.steps
            )
            jax.block_until_ready(found)
        best = int(jnp.argmin(found.residual))
        if not bool(found.feasible[best]):
            warn(
                "no point of box and sphere has an active hinge loss under the decoy, so that "
                "copies of it pull less than asked for; flip more labels, or widen sphere"
            )
        positive = int(counts[best])
        copies = np.repeat([0, 1], [m - positive, positive])
        base = jnp.full(m, FROM_SCRATCH, jnp.int32)
        dataset, is_poison = place(clean, found.x[best][copies], jnp.asarray(copies), base, "add")
        examples = float(int(target.info.steps) * clean.size + clean.size)
        info = PoisonInfo(
            base,
            self.bounds,
            {"residual": found.residual},
            Cost(examples, watch.seconds, watch.compile_seconds),
            extras={"decoy_weights": decoy.weights, "decoy_bias": decoy.bias[None]},
        )
        return Poisoned(dataset, is_poison, info)


class Decoy(NamedTuple):
    """The classifier that the defender is to end at."""

    weights: Float[Array, " d"]
    bias: Float[Array, ""]


class SearchResult(NamedTuple):
    """For each m₊: the points of class 0 and 1, ‖R‖, and whether both could be feasible."""

    x: Float[Array, "k 2 ..."]
    residual: Float[Array, " k"]
    feasible: Bool[Array, " k"]


@partial(jax.jit, static_argnames=("C", "steps"))
def solve(
    clean: Dataset,
    decoy: Decoy,
    ball: Ball,
    positives: Float[Array, " k"],
    m: Float[Array, ""] | float,
    *,
    C: float,
    steps: int,
) -> SearchResult:
    """Returns the best two points for each number of positive poisons.

    Args:
      clean: the clean training set.
      decoy: (w, b).
      ball: box, and centre and radius of both classes.
      positives: m₊ of each problem.
      m: m₊ + m₋.
      C: weight of the hinge losses.
      steps: of Frank-Wolfe.
    """
    shape = clean.x.shape[1:]
    with jax.default_matmul_precision("highest"):
        pull, lean = clean_gradient(clean, decoy, C)
        x, residual, feasible = jax.lax.map(
            lambda positive: _frank_wolfe(pull, decoy, ball, positive, m, shape, steps), positives
        )
    return SearchResult(x, jnp.sqrt(residual**2 + (lean + m - 2 * positives) ** 2), feasible)


def clean_gradient(
    clean: Dataset, decoy: Decoy, C: float
) -> tuple[Float[Array, " d"], Float[Array, ""]]:
    """Returns w/C + Σ ∇l_i and Σ ∂l_i/∂b of the clean examples at the decoy, l the hinge.

    Args:
      clean: n examples of two classes.
      decoy: the weights [d] and the bias to reach.
      C: weight of the losses against the regularisation.
    """
    features, signs = clean.x.reshape(clean.size, -1), _convex.signs(clean.y)
    active = signs * (features @ decoy.weights + decoy.bias) < 1
    slope = -jnp.where(active, signs, 0)
    return decoy.weights / C + slope @ features, slope.sum()


def _frank_wolfe(
    pull: Float[Array, " d"],
    decoy: Decoy,
    ball: Ball,
    positive: Array,
    m: Float[Array, ""] | float,
    shape: tuple[int, ...],
    steps: int,
) -> tuple[Array, Array, Array]:
    """Returns x [2, ...], the norm of the first d entries of R, and whether x is feasible."""
    normal = decoy.weights.reshape(shape)
    numbers = jnp.stack([m - positive, positive])
    signs = jnp.array([-1.0, 1.0], pull.dtype)
    half_spaces = HalfSpace(signs.reshape(-1, *(1,) * len(shape)) * normal, 1 - signs * decoy.bias)

    def corner(r: Array) -> tuple[Array, Array]:
        """The points that reduce <r, R> most: those of x₊ along r, those of x₋ against it."""
        way = signs.reshape(-1, *(1,) * len(shape)) * r.reshape(shape)

        def one(g: Array, centre: Array, radius: Array, space: HalfSpace) -> tuple[Array, Array]:
            return furthest_within(g, ball._replace(centre=centre, radius=radius), space)

        return jax.vmap(one)(way, ball.centre, ball.radius, half_spaces)

    def residual(x: Array) -> Array:
        return pull - (signs * numbers) @ x.reshape(2, -1)

    def step(x: Array, _: None) -> tuple[Array, None]:
        r = residual(x)
        way = corner(r)[0] - x
        change = -(signs * numbers) @ way.reshape(2, -1)
        length = -jnp.vdot(r, change) / jnp.maximum(jnp.vdot(change, change), 1e-30)
        return x + jnp.clip(length, 0, 1) * way, None

    start, feasible = corner(pull)
    x, _ = jax.lax.scan(step, start, length=steps)
    x = jnp.clip(x, ball.low, ball.high)
    return x, jnp.linalg.norm(residual(x)), feasible.all()
