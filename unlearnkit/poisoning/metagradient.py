"""Poisons by the gradient through the victim's whole training (metagradient descent)."""

from __future__ import annotations

import dataclasses
from functools import lru_cache, partial
from typing import ClassVar, Literal, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, Key

from unlearnkit.base import Attack, Cost, Dataset, Model, Params, Poisoned, Task, Variables
from unlearnkit.costs import FORWARD, Stopwatch
from unlearnkit.host import choose_rows
from unlearnkit.host.random import host_key
from unlearnkit.models import create
from unlearnkit.poisoning._split import check_share
from unlearnkit.poisoning._start import Start, check_start, start_from
from unlearnkit.poisoning.bounds import Bounds, Region
from unlearnkit.poisoning.budget import Budget
from unlearnkit.poisoning.label_flip import check_flippable, flip_by_logits
from unlearnkit.poisoning.placing import Placement, PoisonInfo, place
from unlearnkit.poisoning.total_gradient.generator import Box, Generator, make_generator
from unlearnkit.training import DivergedError, Recipe, cross_entropy, differentiate_fit, predict
from unlearnkit.training.smoothness import check_smooth
from unlearnkit.trials import AttackTrial
from unlearnkit.validation import (
    check_above,
    check_at_least,
    check_choice,
    check_continuous,
    check_task,
    check_variables,
)

Labels: TypeAlias = Literal["clean", "free"]
Form: TypeAlias = Literal["pixels", "generator"]
Option: TypeAlias = int | float | str | tuple[int, ...]

_PASSES = 5
"""Gradients that a step of the differentiated training costs: two passes over the steps to have
their states, and the derivative of a gradient."""


@dataclasses.dataclass(frozen=True)
class Surrogate:
    """A network that the attack trains in the place of the victim's.

    Attributes:
      name: as `unlearnkit.models.create` calls it.
      options: of that network, by name.
    """

    name: str
    options: tuple[tuple[str, Option], ...] = ()

    def model(self, victim: Model) -> Model:
        """Returns the network, for the inputs and classes of the victim's."""
        return create(
            self.name,
            input_shape=victim.input_shape,
            n_classes=victim.n_classes,
            **dict(self.options),
        )


@dataclasses.dataclass(frozen=True)
class MetagradientAttack:
    """Moves poisons up the held-out loss of networks trained on them, through all of that training.

    x <- Π(x + α_t sign(ḡ)),   ḡ a running mean of g / ‖g‖,   g = d/dx ℓ(w_T(x))

    w_T is what `recipe` makes of a fresh initialisation, T steps on clean examples and poisons in
    their true proportion, and ℓ the cross-entropy on the clean examples left out. Every step of the
    poisons draws anew the initialisation, the order of batches and which examples are left out, so
    that what it finds holds for any run. α_t falls linearly to 0.

    The network must be smooth in training: with max-pool or dropout it is refused, and a
    `surrogate` trained in its place; GELU in the place of ReLU, and batch norm before it, make
    better gradients.

    Attributes:
      budget: how many poisons.
      bounds: within which they lie.
      placement: `add`, or `perturb` the examples in place.
      labels: `clean`, those of the examples that the poisons are made of; or `free`, the class that
        the clean network thinks least of.
      form: `pixels`, each value free within the bounds; or `generator`, a network that makes the
        poisons of images and labels, moved by Adam.
      recipe: by which the victims are trained, by SGD; shorter than theirs will do.
      steps: of the poisons.
      step_size: α_0, in pixel units [0, 1].
      averaging: weight of the past in ḡ, in [0, 1); what one seed says is noisy.
      held_out: the share of the clean examples that a step leaves out, in (0, 1).
      judges: the most of them by which it judges.
      start: an attack that keeps labels, whose poisons are moved, as `Subpopulation()`; None for
        the examples as they are. A network that is not linear sets images of the gradients' making
        apart from natural ones, so that pixels alone do it little harm.
      surrogate: trained in the place of the victim's network; None for the network itself.
      hidden: widths of the hidden layers of the generator.
      generator_rate: of Adam, for the generator.
      checkpoints: the most states of a training that are kept; None for about 2 √T.

    Example:
      attack = poisoning.MetagradientAttack(budget=poisoning.Budget(0.03), steps=30)
      poisoned = attack(key, model, variables, task)

    Cost: `steps` trainings, each differentiated: about five times its gradients.

    Source: Engstrom et al. 2025, §4.3; signed steps and fresh seeds are theirs. They hold out a
    fixed set and move each poison every step; here the left out examples rotate, and with them a
    share of the poisons, so that what trains is in the proportion of the victim's set.
    """

    budget: Budget = Budget()  # noqa: RUF009 (frozen, and so safe to share)
    bounds: Bounds = Bounds()  # noqa: RUF009
    placement: Placement = "add"
    labels: Labels = "clean"
    form: Form = "pixels"
    recipe: Recipe = Recipe(epochs=5, batch_size=500)  # noqa: RUF009
    steps: int = 50
    step_size: float = 0.2
    averaging: float = 0.8
    held_out: float = 0.2
    judges: int = 5000
    start: Attack | None = None
    surrogate: Surrogate | None = None
    hidden: tuple[int, ...] = (784, 784)
    generator_rate: float = 1e-3
    checkpoints: int | None = None

    trial: ClassVar[AttackTrial] = AttackTrial(
        small={"hidden": (8,)},
        effective={"placement": "perturb", "steps": 30},
    )

    def __post_init__(self) -> None:
        check_choice("placement", self.placement, Placement)
        check_choice("labels", self.labels, Labels)
        check_choice("form", self.form, Form)
        check_share(self.held_out)
        check_start(self.start)
        if self.start is not None and (self.labels, self.form) != ("clean", "pixels"):
            raise ValueError(
                "start needs labels='clean' and form='pixels': its poisons keep their labels, and "
                f"a fresh generator would not show them; got {self.labels!r} and {self.form!r}"
            )
        check_at_least(self, 1, "steps", "judges")
        check_above(self, 0, "step_size", "generator_rate")
        if not 0 <= self.averaging < 1:
            raise ValueError(f"averaging must be in [0, 1), got {self.averaging}")
        if self.recipe.epochs < 1:
            raise ValueError("recipe must have epochs >= 1: an untrained network answers nothing")

    def __call__(
        self, key: Key[Array, ""], model: Model, variables: Variables, task: Task
    ) -> Poisoned:
        """Returns the poisoned training set; the networks trained are fresh ones.

        Raises:
          ValueError: a task or variables that do not fit the model, a network with max-pool or
            dropout and no surrogate, a batch larger than the data, too few checkpoints, bounds that
            exclude a training image, or a start that makes another number of poisons, poisons of no
            example, or other labels.
          DivergedError: a training, or its gradient, is no longer finite.
        """
        check_task(task, model)
        normalisation = check_continuous(task.retain, method="MetagradientAttack")
        check_variables(variables, model)
        network = model if self.surrogate is None else self.surrogate.model(model)
        check_smooth(network, self.recipe)
        clean = task.train
        row_key, turn_key, make_key, round_key = jax.random.split(key, 4)
        m = self.budget.of(clean.size)
        base, x = self._choose(row_key, model, variables, task, m)
        region = self.bounds.region(clean.x[base], normalisation)
        turns = Turns.of(turn_key, clean.size, np.asarray(base), self.held_out, self.placement)
        self.recipe.steps_per_epoch(turns.size)
        unit = 1 / jnp.asarray(normalisation.std, clean.x.dtype)
        loss = _held_out_loss(network)
        losses: list[float] = []
        with Stopwatch() as watch:
            y = self._labels(model, variables, clean, base)
            poisons = self._begin(make_key, model, region, y, x)
            for step in range(self.steps):
                split_key, fit_key = jax.random.split(jax.random.fold_in(round_key, step))
                ours, theirs, present = turns.draw(split_key, step)
                x = poisons.x[present]
                data, is_poison = place(
                    clean.take(ours), x, y[present], jnp.zeros(len(present), jnp.int32), "add"
                )
                run = differentiate_fit(
                    fit_key,
                    network,
                    data,
                    self.recipe,
                    loss,
                    clean.take(theirs[: self.judges]),
                    rows=np.flatnonzero(is_poison),
                    checkpoints=self.checkpoints,
                )
                slope = jnp.zeros_like(region.base).at[present].set(run.inputs)
                poisons = self._move(poisons, slope, step, region, y, unit, model)
                losses.append(float(run.value))
            jax.block_until_ready(poisons.x)
        if not np.isfinite(np.asarray(poisons.x)).all():
            raise DivergedError("a poison is not finite; lower generator_rate")
        dataset, placed = place(clean, poisons.x, y, base, self.placement)
        cost = Cost(self._count(turns), watch.seconds, watch.compile_seconds)
        history = {"attacker_loss": jnp.asarray(losses)}
        return Poisoned(dataset, placed, PoisonInfo(base, self.bounds, history, cost))

    def _choose(
        self, key: Key[Array, ""], model: Model, variables: Variables, task: Task, m: int
    ) -> Start:
        if self.start is not None:
            return start_from(self.start, key, model, variables, task, m)
        base = choose_rows(key, task.train.size, m)
        return Start(base, task.train.x[base])

    def _labels(
        self, model: Model, variables: Variables, clean: Dataset, base: Int[Array, " m"]
    ) -> Int[Array, " m"]:
        if self.labels == "clean":
            return clean.y[base]
        check_flippable(model)
        logits = predict(model, variables, clean.x[base])
        return flip_by_logits(logits, clean.y[base], farthest=True)[0]

    def _begin(
        self,
        key: Key[Array, ""],
        model: Model,
        region: Region,
        y: Int[Array, " m"],
        x: Float[Array, "m ..."],
    ) -> _Poisons:
        mean = jnp.zeros_like(region.base)
        if self.form == "pixels":
            return _Poisons(region.project(x), mean, {}, {})
        generator = self._generator(model)
        theta = jax.jit(generator.network.init)(key).params
        made = _generate(theta, region, y, generator=generator)
        return _Poisons(made, mean, theta, optax.adam(self.generator_rate).init(theta))

    def _move(
        self,
        poisons: _Poisons,
        slope: Float[Array, "m ..."],
        step: int,
        region: Region,
        y: Int[Array, " m"],
        unit: Float[Array, "#c"],
        model: Model,
    ) -> _Poisons:
        if self.form == "pixels":
            length = jnp.float32(self.step_size * (1 - step / self.steps))
            moved = _move_pixels(poisons, slope, region, length * unit, jnp.float32(self.averaging))
        else:
            moved = _move_generator(
                poisons,
                slope,
                region,
                y,
                generator=self._generator(model),
                rate=self.generator_rate,
            )
        found: _Poisons = moved
        return found

    def _generator(self, model: Model) -> Generator:
        return make_generator(
            "mlp",
            tuple(model.input_shape),
            model.n_classes,
            hidden=self.hidden,
            in_box=self.bounds.box is not None,
        )

    def _count(self, turns: Turns) -> float:
        """Returns the example-gradients of all steps, and of the labels."""
        run = self.recipe.example_gradients(turns.size)
        judged = min(self.judges, turns.left_out)
        labels = turns.poisons * FORWARD if self.labels == "free" else 0.0
        return self.steps * (_PASSES * run + judged) + labels


class _Poisons(NamedTuple):
    """The poisons as they stand, the mean direction, and the generator with its optimiser."""

    x: Float[Array, "m ..."]
    mean: Float[Array, "m ..."]
    theta: Params
    memory: Params


class Turns(NamedTuple):
    """Which examples and poisons a step trains on.

    Attributes:
      pool: clean rows of the victim's set.
      left_out: how many of them a step leaves out and judges by.
      order: the poisons, in the order in which they are left out.
      absent: how many poisons a step leaves out.
    """

    pool: Int[np.ndarray, " n"]
    left_out: int
    order: Int[np.ndarray, " m"]
    absent: int

    @classmethod
    def of(
        cls,
        key: Key[Array, ""],
        n: int,
        base: Int[np.ndarray, " m"],
        share: float,
        placement: Placement,
    ) -> Turns:
        """Returns the turns of an attack.

        Args:
          key: draws the order of the poisons.
          n: clean examples.
          base: [m] what the poisons are made of.
          share: of the examples and of the poisons that are left out.
          placement: whether they stand beside their examples or in their place.

        Raises:
          ValueError: fewer than two clean examples in the victim's set.
        """
        rows = np.arange(n, dtype=np.int32)
        pool = rows if placement == "add" else np.setdiff1d(rows, base)
        if len(pool) < 2:
            raise ValueError(
                f"{len(pool)} clean examples are left, of which none can be held out; lower the "
                "budget, or use placement='add'"
            )
        left_out = min(max(round(share * len(pool)), 1), len(pool) - 1)
        m = len(base)
        return cls(pool, left_out, host_key(key).permutation(m), min(round(share * m), m - 1))

    @property
    def poisons(self) -> int:
        """All poisons."""
        return len(self.order)

    @property
    def size(self) -> int:
        """Examples that a step trains on."""
        return len(self.pool) - self.left_out + self.poisons - self.absent

    def draw(self, key: Key[Array, ""], step: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Returns the clean rows to train on and to judge by, and the poisons to train on."""
        drawn = self.pool[host_key(key).permutation(len(self.pool))]
        present = np.roll(self.order, -step * self.absent)[: self.poisons - self.absent]
        return drawn[self.left_out :], drawn[: self.left_out], np.sort(present)


@dataclasses.dataclass(frozen=True)
class _HeldOutLoss:
    """The cross-entropy of a trained network on held-out examples, in evaluation mode."""

    model: Model

    def __call__(self, variables: Variables, context: Dataset) -> Float[Array, ""]:
        return cross_entropy(self.model.apply(variables, context.x), context.y)


@lru_cache(maxsize=16)
def _held_out_loss(model: Model) -> _HeldOutLoss:
    return _HeldOutLoss(model)


@jax.jit
def _move_pixels(
    poisons: _Poisons,
    slope: Float[Array, "m ..."],
    region: Region,
    length: Float[Array, "#c"],
    averaging: Float[Array, ""],
) -> _Poisons:
    """Returns the poisons after a signed step along the mean of the directions so far."""
    size = jnp.sqrt((slope.reshape(slope.shape[0], -1) ** 2).sum(1))
    size = jnp.where(size > 0, size, 1).reshape(-1, *(1,) * (slope.ndim - 1))
    mean = averaging * poisons.mean + (1 - averaging) * slope / size
    return poisons._replace(x=region.project(poisons.x + length * jnp.sign(mean)), mean=mean)


@partial(jax.jit, static_argnames="generator")
def _generate(
    theta: Params, region: Region, labels: Int[Array, " m"], *, generator: Generator
) -> Float[Array, "m ..."]:
    found: Array = region.project(
        generator(theta, region.base, labels, Box(region.low, region.high))
    )
    return found


@partial(jax.jit, static_argnames=("generator", "rate"))
def _move_generator(
    poisons: _Poisons,
    slope: Float[Array, "m ..."],
    region: Region,
    labels: Int[Array, " m"],
    *,
    generator: Generator,
    rate: float,
) -> _Poisons:
    """Returns the poisons of the generator after a step of Adam up the loss."""
    make = partial(_generate, region=region, labels=labels, generator=generator)
    _, pullback = jax.vjp(make, poisons.theta)
    (uphill,) = pullback(-slope)
    updates, memory = optax.adam(rate).update(uphill, poisons.memory)
    theta = optax.apply_updates(poisons.theta, updates)
    return poisons._replace(x=make(theta), theta=theta, memory=memory)
