"""Poisons of a generator that a discriminator holds near real examples (pGAN)."""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import ClassVar, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, Key

from unlearnkit.base import Cost, Dataset, Model, Params, Poisoned, Task, Variables
from unlearnkit.costs import Stopwatch
from unlearnkit.host import choose_rows
from unlearnkit.kernels import cross_entropy_losses
from unlearnkit.models import mlp
from unlearnkit.poisoning.bounds import Bounds, Region
from unlearnkit.poisoning.budget import Budget
from unlearnkit.poisoning.placing import Placement, PoisonInfo, place
from unlearnkit.poisoning.total_gradient.generator import (
    Box,
    Generator,
    beside_labels,
    make_generator,
)
from unlearnkit.training import (
    CrossEntropy,
    DivergedError,
    Recipe,
    TrainState,
    init_train_state,
    train_step,
)
from unlearnkit.trials import AttackTrial
from unlearnkit.validation import (
    check_above,
    check_choice,
    check_continuous,
    check_task,
    check_variables,
)

_CLASSIFIER = Recipe(epochs=20, batch_size=100, learning_rate=0.05)


@dataclasses.dataclass(frozen=True)
class PoisoningGan:
    """Generates poisons that pass for examples of their label and that a classifier gets wrong.

    min_G max_{D, C}  α V(D, G) + (1 - α) W(C, G)

    V = E_x log D(x, y) + E_z log(1 - D(G(z, y), y))
    W = -λ E_z CE_C(G(z, y), y) - (1 - λ) E_x CE_C(x, y)

    for a generator G of standard normal noise z and a label y, a discriminator D of examples and
    their labels, and a classifier C like the victim, which is trained from scratch on a share λ of
    poisons. Each takes a step in its turn: D, C, G. The step of G ascends log D in the place of
    descending log(1 - D), which has no gradient where D is sure; and it takes its part of W
    without λ, which only scales α.

    The larger α, the nearer the poisons are to real examples, and the less they harm: what removes
    outliers finds the others.

    Attributes:
      budget: how many poisons.
      bounds: within which they lie.
      placement: `add`, or `perturb` to replace examples in place.
      labels: that the poisons have; () for all.
      alpha: α in [0, 1].
      hidden: widths of the hidden layers of G and D.
      learning_rate: of the Adam steps of G and D.
      recipe: by which C is trained; its epochs and its batches are those of the game.

    Example:
      attack = poisoning.PoisoningGan(budget=poisoning.Budget(0.03), alpha=0.3)
      poisoned = attack(key, model, variables, task)

    Cost: the gradients of a training twice.

    Source: Muñoz-González et al. 2019, equations (1) to (4) and algorithm 1.
    """

    budget: Budget = Budget()  # noqa: RUF009 (frozen, and so safe to share)
    bounds: Bounds = Bounds()  # noqa: RUF009
    placement: Placement = "add"
    labels: tuple[int, ...] = ()
    alpha: float = 0.3
    hidden: tuple[int, ...] = (256, 256)
    learning_rate: float = 2e-4
    recipe: Recipe = _CLASSIFIER

    trial: ClassVar[AttackTrial] = AttackTrial(
        small={"hidden": (16,)},
        effective={
            "placement": "perturb",
            "alpha": 0.0,
            "hidden": (32,),
            "learning_rate": 1e-2,
            "recipe": Recipe(epochs=40, batch_size=20, learning_rate=0.1),
        },
    )

    def __post_init__(self) -> None:
        check_choice("placement", self.placement, Placement)
        if not 0 <= self.alpha <= 1:
            raise ValueError(f"alpha must be in [0, 1], got {self.alpha}")
        check_above(self, 0, "learning_rate")
        if not self.hidden or min(self.hidden) < 1:
            raise ValueError(f"hidden must be widths of at least 1, got {self.hidden}")
        if any(label < 0 for label in self.labels):
            raise ValueError(f"labels must be >= 0, got {self.labels}")

    def __call__(
        self, key: Key[Array, ""], model: Model, variables: Variables, task: Task
    ) -> Poisoned:
        """Returns the training set with the poisons; the classifier is a fresh one.

        Raises:
          ValueError: a task or variables that do not fit the model, labels that are not there or
            have fewer examples than there are poisons, a batch larger than the training set, or
            bounds that exclude a training image.
          DivergedError: a loss is no longer finite.
        """
        check_task(task, model)
        normalisation = check_continuous(task.retain, method="PoisoningGan")
        check_variables(variables, model)
        clean = task.train
        m, steps = self.budget.of(clean.size), self.recipe.steps_per_epoch(clean.size)
        row_key, start_key, game_key, noise_key = jax.random.split(key, 4)
        real, base = self._choose(row_key, clean, m)
        region = self.bounds.region(clean.x[base], normalisation)
        share = m / clean.size if self.placement == "perturb" else m / (clean.size + m)
        rules = self._rules(model, clean, share)
        data = _GameData(clean, real, base, region)
        history: dict[str, list[float]] = {"classifier_loss": [], "realism": []}
        with Stopwatch() as watch:
            game = _start(start_key, rules, steps)
            for epoch in range(self.recipe.epochs):
                epoch_key = jax.random.fold_in(game_key, epoch)
                game, told = _play(game, data, epoch_key, rules=rules, steps=steps)
                for name, value in told.items():
                    history[name].append(float(value))
                if not all(np.isfinite(values[-1]) for values in history.values()):
                    raise DivergedError(
                        f"the game diverged in epoch {epoch + 1}; lower learning_rate="
                        f"{self.learning_rate:g} or the recipe's {self.recipe.learning_rate:g}"
                    )
            x = jax.block_until_ready(_generate(noise_key, game.generator.params, data, rules))
        dataset, is_poison = place(clean, x, clean.y[base], base, self.placement)
        # Of the classifier: one gradient in its weights and one in the poisons.
        examples = 2.0 * self.recipe.epochs * steps * self.recipe.batch_size
        cost = Cost(examples, watch.seconds, watch.compile_seconds)
        curves = {name: jnp.asarray(values) for name, values in history.items()}
        return Poisoned(dataset, is_poison, PoisonInfo(base, self.bounds, curves, cost))

    def _choose(
        self, key: Key[Array, ""], clean: Dataset, m: int
    ) -> tuple[Int[Array, " r"], Int[Array, " m"]]:
        """Returns the rows of all real examples of the labels, and those of the poisons."""
        known = np.asarray(clean.y)
        rows = np.arange(clean.size)
        if self.labels:
            if missing := sorted(set(self.labels) - set(known.tolist())):
                raise ValueError(f"labels={self.labels}: no training example has {missing}")
            rows = np.flatnonzero(np.isin(known, self.labels))
        if m > len(rows):
            raise ValueError(
                f"{m} poisons, but {len(rows)} examples have the labels {self.labels}; lower the "
                "budget, or name more labels"
            )
        real = jnp.asarray(rows, jnp.int32)
        return real, real[choose_rows(key, len(rows), m)]

    def _rules(self, model: Model, clean: Dataset, share: float) -> _Rules:
        shape, c, batch = clean.x.shape[1:], model.n_classes, self.recipe.batch_size
        return _Rules(
            model,
            make_generator("mlp", shape, c, hidden=self.hidden, in_box=self.bounds.box is not None),
            Discriminator(
                mlp(
                    input_shape=(math.prod(shape) + c,),
                    n_classes=1,
                    hidden=self.hidden,
                    activation="leaky_relu",
                ),
                c,
            ),
            CrossEntropy(model, self.recipe),
            self.alpha,
            min(max(1, round(share * batch)), batch),
            self.bounds.radius is not None,
            _adam(self.learning_rate),
        )


@dataclasses.dataclass(frozen=True)
class Discriminator:
    """Tells examples of a label from poisons with that label.

    Attributes:
      network: [n, d + c] -> [n, 1].
      n_classes: c.
    """

    network: Model
    n_classes: int

    def __call__(self, params: Params, part: Dataset) -> Float[Array, " n"]:
        """Returns log D / (1 - D) of each example with its label.

        Args:
          params: of the network.
          part: [n] examples.
        """
        inputs = beside_labels(part.x, part.y, self.n_classes)
        odds: Array = self.network.apply(Variables(params), inputs)[:, 0]
        return odds


class _Rules(NamedTuple):
    """What does not change in a game.

    Attributes:
      model: of C.
      generator: G.
      discriminator: D.
      objective: of C.
      alpha: α.
      poisons: of each batch of C.
      projected: whether poisons are projected onto a ball.
      optimizer: of G and D.
    """

    model: Model
    generator: Generator
    discriminator: Discriminator
    objective: CrossEntropy
    alpha: float
    poisons: int
    projected: bool
    optimizer: optax.GradientTransformation


class _GameData(NamedTuple):
    """The clean training set, its rows of the poisons' labels, and those that poisons stand for."""

    clean: Dataset
    real: Int[Array, " r"]
    base: Int[Array, " m"]
    region: Region


class _Player(NamedTuple):
    params: Params
    memory: optax.OptState


class _Game(NamedTuple):
    classifier: TrainState
    generator: _Player
    discriminator: _Player


_Told: TypeAlias = dict[str, Float[Array, ""]]


@functools.partial(jax.jit, static_argnames=("rules", "steps"))
def _start(key: Key[Array, ""], rules: _Rules, steps: int) -> _Game:
    keys = jax.random.split(key, 3)
    made = [rules.generator.network.init(keys[0]), rules.discriminator.network.init(keys[1])]
    players = [_Player(v.params, rules.optimizer.init(v.params)) for v in made]
    fresh = rules.model.init(keys[2])
    return _Game(init_train_state(rules.objective.recipe, steps, fresh), *players)


@functools.partial(jax.jit, static_argnames=("rules", "steps"))
def _play(
    game: _Game, data: _GameData, key: Key[Array, ""], *, rules: _Rules, steps: int
) -> tuple[_Game, _Told]:
    """Returns the game after an epoch, and the means over its steps of what `_turn` tells."""

    def one(game: _Game, key: Key[Array, ""]) -> tuple[_Game, _Told]:
        return _turn(game, data, key, rules, steps)

    game, told = jax.lax.scan(one, game, jax.random.split(key, steps))
    return game, jax.tree.map(jnp.mean, told)


def _turn(
    game: _Game, data: _GameData, key: Key[Array, ""], rules: _Rules, steps: int
) -> tuple[_Game, _Told]:
    """Returns the game after a step of D, of C and of G, in this order.

    Told are the loss of C at the poisons, and the share of them that D takes for real.
    """
    clean, batch = data.clean, rules.objective.recipe.batch_size
    real_key, clean_key, made_key, noise_key, step_key = jax.random.split(key, 5)
    real = clean.take(data.real[_draw(real_key, batch, len(data.real))])
    places = _draw(made_key, batch, len(data.base))
    z = _noise(noise_key, batch, clean)

    def make(params: Params) -> Dataset:
        return _made(params, z, places, data, rules)

    made = make(game.generator.params)
    slope = jax.grad(discriminator_loss)(game.discriminator.params, real, made, rules.discriminator)
    discriminator = _step(game.discriminator, slope, rules)
    ours = clean.take(_draw(clean_key, batch - rules.poisons, clean.size))
    few = made.take(np.arange(rules.poisons))
    mixed = jax.tree.map(lambda one, other: jnp.concatenate([one, other]), ours, few)
    recipe = rules.objective.recipe
    classifier, _ = train_step(rules.objective, recipe, steps, game.classifier, mixed, step_key)

    def loss(params: Params) -> tuple[Array, _Told]:
        return generator_loss(
            make(params), discriminator.params, classifier.variables,
            rules.discriminator, rules.model, rules.alpha,
        )  # fmt: skip

    slope, told = jax.grad(loss, has_aux=True)(game.generator.params)
    return _Game(classifier, _step(game.generator, slope, rules), discriminator), told


def discriminator_loss(
    params: Params, real: Dataset, made: Dataset, discriminator: Discriminator
) -> Float[Array, ""]:
    """Returns -V, to be descended: the mean of -log D at real and -log(1 - D) at made examples.

    Args:
      params: of D.
      real: [b] examples.
      made: [b] poisons.
      discriminator: D.
    """
    at_real, at_made = (discriminator(params, part) for part in (real, made))
    return jnp.mean(jax.nn.softplus(-at_real)) + jnp.mean(jax.nn.softplus(at_made))


def generator_loss(
    made: Dataset,
    discriminator_params: Params,
    classifier: Variables,
    discriminator: Discriminator,
    model: Model,
    alpha: float,
) -> tuple[Float[Array, ""], _Told]:
    """Returns -α E log D - (1 - α) E CE_C at poisons, to be descended; and what `_turn` tells.

    Args:
      made: [b] poisons.
      discriminator_params: of D.
      classifier: weights of C.
      discriminator: D.
      model: C.
      alpha: α.
    """
    odds = discriminator(discriminator_params, made)
    wrong = jnp.mean(cross_entropy_losses(model.apply(classifier, made.x), made.y))
    loss = alpha * jnp.mean(jax.nn.softplus(-odds)) - (1 - alpha) * wrong
    return loss, {"classifier_loss": wrong, "realism": jnp.mean(odds > 0)}


def _made(
    params: Params, z: Float[Array, "b ..."], places: Int[Array, " b"], data: _GameData,
    rules: _Rules,
) -> Dataset:  # fmt: skip
    """Returns poisons of G that stand for the base examples at `places`."""
    region, y = data.region.take(places), data.clean.y[data.base[places]]
    x = rules.generator(params, z, y, Box(region.low, region.high))
    return data.clean._replace(x=region.project(x) if rules.projected else x, y=y)


@functools.partial(jax.jit, static_argnames="rules")
def _generate(
    key: Key[Array, ""], params: Params, data: _GameData, rules: _Rules
) -> Float[Array, "m ..."]:
    """Returns a poison for each base example, within the bounds up to the last bit."""
    m = len(data.base)
    made = _made(params, _noise(key, m, data.clean), jnp.arange(m), data, rules)
    found: Array = data.region.project(made.x)
    return found


def _noise(key: Key[Array, ""], n: int, like: Dataset) -> Float[Array, "n ..."]:
    return jax.random.normal(key, (n, *like.x.shape[1:]), like.x.dtype)


def _draw(key: Key[Array, ""], n: int, among: int) -> Int[Array, " n"]:
    return jax.random.randint(key, (n,), 0, among)


def _step(player: _Player, slope: Params, rules: _Rules) -> _Player:
    updates, memory = rules.optimizer.update(slope, player.memory, player.params)
    return _Player(optax.apply_updates(player.params, updates), memory)


@functools.lru_cache(maxsize=16)
def _adam(learning_rate: float) -> optax.GradientTransformation:
    """Returns the optimiser of G and D; equal calls return the same one, for `jax.jit`."""
    return optax.adam(learning_rate, b1=0.5)
