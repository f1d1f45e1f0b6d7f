"""Poisons that lead training to a network which the attacker chose (model-targeted poisoning)."""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, Key

from unlearnkit.base import FROM_SCRATCH, Cost, Dataset, Model, Params, Poisoned, Task, Variables
from unlearnkit.costs import Stopwatch
from unlearnkit.poisoning._feasible import Ball, furthest
from unlearnkit.poisoning._saddle import FeasibleSet
from unlearnkit.poisoning.bounds import Bounds, check_limits
from unlearnkit.poisoning.budget import Budget
from unlearnkit.poisoning.label_flip import LabelFlip
from unlearnkit.poisoning.min_max import make_feasible_set
from unlearnkit.poisoning.placing import PoisonInfo, place
from unlearnkit.training import DivergedError, Recipe, cross_entropy, fit
from unlearnkit.trials import AttackTrial
from unlearnkit.validation import (
    check_above,
    check_at_least,
    check_continuous,
    check_task,
    check_variables,
)

_MOMENTUM = 0.9


@dataclasses.dataclass(frozen=True)
class ModelTargeted:
    """Adds, again and again, the point on which a victim errs and the attacker's network does not.

    (x_t, y_t) = argmax_{x, y feasible} ℓ(w_t; x, y) - ℓ(w_target; x, y)
    w_{t+1} = steps of SGD on  Σ ℓ(w; clean) + Σ_{s ≤ t} m_s ℓ(w; x_s, y_s)  from w_t

    with ℓ the cross-entropy, and m_s copies of each point. Each point pulls the victim to the
    target; where no point is left with a gap, no poison of this kind can pull it further. The
    target is trained on flipped labels. Feasible are the points of box and sphere, see `MinMax`;
    they are found by Frank-Wolfe from the centre of each class, the best on the way taken.

    Attributes:
      budget: how many poisons.
      bounds: the box; they are made of no base image, so that a radius means nothing.
      sphere: the quantile of the distances of a class to its centre that is the radius, in (0, 1];
        None for no sphere.
      target: which labels are flipped for the target, and how many.
      recipe: how the target is trained.
      rounds: points that are looked for; the poisons are shared among them evenly.
      ascent_steps: Frank-Wolfe steps of each point and class.
      descent_steps: of the victim after each point, with momentum .9.
      learning_rate: of these.
      batch_size: clean examples of such a step, drawn with replacement.

    Example:
      attack = poisoning.ModelTargeted(budget=poisoning.Budget(0.03), rounds=20)
      poisoned = attack(key, model, variables, task)

    Cost: one training of the target, and `rounds` times `descent_steps` batches of gradients.

    Source: Suya et al. 2021, Algorithm 1, who train the victim to the optimum after each point, of
    a convex loss, and add one copy of it.
    """

    budget: Budget = Budget()  # noqa: RUF009 (frozen, and so safe to share)
    bounds: Bounds = Bounds()  # noqa: RUF009
    sphere: float | None = 0.95
    target: LabelFlip = LabelFlip(Budget(0.3), "runner_up", "perturb")  # noqa: RUF009
    recipe: Recipe = Recipe()  # noqa: RUF009
    rounds: int = 50
    ascent_steps: int = 10
    descent_steps: int = 20
    learning_rate: float = 0.1
    batch_size: int = 1000

    trial: ClassVar[AttackTrial] = AttackTrial(
        small={"rounds": 3, "ascent_steps": 2}, effective={"rounds": 10}
    )

    def __post_init__(self) -> None:
        check_limits(self.bounds, self.sphere, without="the gap of the losses has no maximum")
        check_at_least(self, 1, "rounds", "ascent_steps", "descent_steps", "batch_size")
        check_above(self, 0, "learning_rate")

    def __call__(
        self, key: Key[Array, ""], model: Model, variables: Variables, task: Task
    ) -> Poisoned:
        """Returns the training set with the poisons added; the victim starts at `variables`.

        Raises:
          ValueError: a task or variables that do not fit the model, a box that excludes a training
            image, or a recipe whose batch is larger than the training set.
          DivergedError: a loss is no longer finite.
        """
        check_task(task, model)
        check_continuous(task.retain, method="ModelTargeted")
        check_variables(variables, model)
        clean = task.train
        m = self.budget.of(clean.size)
        feasible_set = make_feasible_set(clean, model.n_classes, self.bounds, self.sphere)
        flip_key, fit_key, play_key = jax.random.split(key, 3)
        trained = fit(
            fit_key, model, self.target(flip_key, model, variables, task).dataset, self.recipe
        )
        rounds = min(self.rounds, m)
        copies = np.diff(np.linspace(0, m, rounds + 1).round()).astype(int)
        chase = Chase(
            model,
            self.learning_rate,
            min(self.batch_size, clean.size),
            self.ascent_steps,
            self.descent_steps,
        )
        with Stopwatch() as watch:
            points, history = play(
                play_key,
                variables,
                trained.variables,
                clean,
                feasible_set,
                jnp.asarray(copies, clean.x.dtype),
                chase=chase,
            )
            jax.block_until_ready(points)
        if not all(np.isfinite(values).all() for values in history.values()):
            raise DivergedError(
                f"the rounds diverged; lower learning_rate={self.learning_rate:g}, or the recipe's"
            )
        base = jnp.full(m, FROM_SCRATCH, jnp.int32)
        x, y = (np.repeat(np.asarray(part), copies, axis=0) for part in points)
        dataset, is_poison = place(clean, jnp.asarray(x), jnp.asarray(y), base, "add")
        found = 2 * model.n_classes * (self.ascent_steps + 1)
        examples = rounds * (found + self.descent_steps * (chase.batch_size + rounds))
        cost = trained.info.cost.plus(Cost(examples, watch.seconds, watch.compile_seconds))
        return Poisoned(dataset, is_poison, PoisonInfo(base, self.bounds, history, cost))


class Points(NamedTuple):
    """Points [k, ...] that were found, and their labels [k]."""

    x: Float[Array, "k ..."]
    y: Int[Array, " k"]


@dataclasses.dataclass(frozen=True)
class Chase:
    """The rules of the rounds; hashable, for `jax.jit`.

    Attributes:
      model: the network.
      learning_rate: of the victim.
      batch_size: clean examples of a step.
      ascent_steps: of a point.
      descent_steps: of the victim.
    """

    model: Model
    learning_rate: float
    batch_size: int
    ascent_steps: int
    descent_steps: int

    def widest(
        self, victim: Variables, target: Variables, feasible_set: FeasibleSet
    ) -> tuple[Array, Array, Array]:
        """Returns the feasible point of the widest gap, its label, and ℓ(victim) - ℓ(target).

        Args:
          victim: the network that trains on the poisons so far.
          target: the one that it is to become.
          feasible_set: where poisons may be.
        """
        labels = jnp.arange(self.model.n_classes)
        x, gaps = jax.lax.map(lambda y: self._climb(victim, target, feasible_set.ball, y), labels)
        best = jnp.argmax(jnp.where(feasible_set.present, gaps, -jnp.inf))
        return x[best], labels[best], gaps[best]

    def _climb(
        self, victim: Variables, target: Variables, balls: Ball, y: Array
    ) -> tuple[Array, Array]:
        ball = balls._replace(centre=balls.centre[y], radius=balls.radius[y])

        def gap(x: Array) -> Array:
            losses = (self._loss(one, x[None], y[None]) for one in (victim, target))
            return next(losses) - next(losses)

        def step(x: Array, k: Array) -> tuple[Array, tuple[Array, Array]]:
            corner = furthest(jax.grad(gap)(x), ball)
            moved = jnp.clip(x + 2 / (k + 2) * (corner - x), ball.low, ball.high)
            return moved, (moved, gap(moved))

        _, (path, gaps) = jax.lax.scan(
            step, ball.centre, jnp.arange(self.ascent_steps, dtype=float)
        )
        best = jnp.argmax(gaps)
        return path[best], gaps[best]

    def objective(
        self, params: Params, variables: Variables, clean: Dataset, n: int, points: Points,
        weights: Float[Array, " k"],
    ) -> Float[Array, ""]:  # fmt: skip
        """Returns the victim's mean loss, the batch in the place of its n clean examples.

        Args:
          params: of the victim, which the loss is a function of.
          variables: whose state is taken.
          clean: a batch of clean examples.
          n: how many clean examples there are.
          points: the poisons.
          weights: [k] of the poisons, 0 for those that are not made yet.
        """
        moved = Variables(params, variables.state)
        losses = -jnp.take_along_axis(
            jax.nn.log_softmax(self.model.apply(moved, points.x)), points.y[:, None], axis=1
        )[:, 0]
        whole = n * self._loss(moved, clean.x, clean.y) + weights @ losses
        return whole / (n + weights.sum())

    def _loss(self, variables: Variables, x: Array, y: Array) -> Array:
        return cross_entropy(self.model.apply(variables, x), y)


@partial(jax.jit, static_argnames="chase")
def play(
    key: Key[Array, ""],
    variables: Variables,
    target: Variables,
    clean: Dataset,
    feasible_set: FeasibleSet,
    copies: Float[Array, " k"],
    *,
    chase: Chase,
) -> tuple[Points, dict[str, Array]]:
    """Returns the point of each round, and by round its `gap` and the `poisoned_loss` after it.

    Args:
      key: draws the batches.
      variables: the victim's, at the start.
      target: the attacker's.
      clean: n examples.
      feasible_set: where the points may lie.
      copies: how many of each point are added.
      chase: the rules.
    """
    optimizer = optax.sgd(chase.learning_rate, momentum=_MOMENTUM)
    rounds = copies.shape[0]

    def body(
        carry: tuple[Params, Params, Points], t: Array
    ) -> tuple[tuple[Params, Params, Points], tuple[Array, Array]]:
        params, memory, points = carry
        x, y, gap = chase.widest(variables._replace(params=params), target, feasible_set)
        points = Points(points.x.at[t].set(x), points.y.at[t].set(y.astype(points.y.dtype)))
        weights = jnp.where(jnp.arange(rounds) <= t, copies, 0)

        def descend(state: tuple[Params, Params], k: Array) -> tuple[tuple[Params, Params], Array]:
            params, memory = state
            own_key = jax.random.fold_in(jax.random.fold_in(key, t), k)
            drawn = jax.random.randint(own_key, (chase.batch_size,), 0, clean.size)
            loss, slope = jax.value_and_grad(chase.objective)(
                params, variables, clean.take(drawn), clean.size, points, weights
            )
            updates, memory = optimizer.update(slope, memory, params)
            return (optax.apply_updates(params, updates), memory), loss

        (params, memory), losses = jax.lax.scan(
            descend, (params, memory), jnp.arange(chase.descent_steps)
        )
        return (params, memory, points), (gap, losses[-1])

    room = Points(
        jnp.zeros((rounds, *clean.x.shape[1:]), clean.x.dtype), jnp.zeros(rounds, clean.y.dtype)
    )
    start = (variables.params, optimizer.init(variables.params), room)
    (_, _, points), (gaps, losses) = jax.lax.scan(body, start, jnp.arange(rounds))
    return points, {"gap": gaps, "poisoned_loss": losses}
