"""Poisons by total gradient descent ascent (TGDA)."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from unlearnkit.base import (
    Attack,
    Cost,
    Dataset,
    Model,
    Params,
    Poisoned,
    Task,
    Variables,
    concatenate,
)
from unlearnkit.costs import BACKWARD, FORWARD, Stopwatch
from unlearnkit.kernels import Precision
from unlearnkit.poisoning._split import check_share, hold_out
from unlearnkit.poisoning._start import check_start, start_from
from unlearnkit.poisoning.bounds import Bounds, Region
from unlearnkit.poisoning.budget import Budget
from unlearnkit.poisoning.placing import Placement, PoisonInfo, place, warn
from unlearnkit.poisoning.total_gradient.game import (
    Game,
    GameData,
    Inverse,
    Keys,
    Side,
    SolverName,
    generate,
    play_epoch,
)
from unlearnkit.poisoning.total_gradient.generator import (
    Architecture,
    Box,
    Generator,
    Reconstruction,
    make_generator,
)
from unlearnkit.training import DivergedError, Recipe, descend
from unlearnkit.trials import AttackTrial
from unlearnkit.validation import (
    check_above,
    check_at_least,
    check_choice,
    check_continuous,
    check_task,
    check_variables,
)

_PRETRAINING = Recipe(epochs=100, batch_size=1000, optimizer="adam", learning_rate=1e-3)
_UNSOLVED = 0.9
"""A mean relative residual above this is no solution: x = 0 leaves 1."""
_CHUNK = 1000


@dataclasses.dataclass(frozen=True)
class TotalGradientAttack:
    """Trains a network that makes the poisons, against a defender who trains on them.

    max_θ ℓ(w*(θ)),  w*(θ) = argmin_w f(θ, w):   θ <- θ + α D_θ ℓ (m steps),  D_θ ℓ = ∇_θ ℓ -
    ∇_θw f (∇_ww f + damping I)⁻¹ ∇_w ℓ;   w <- w - β ∇_w f (n steps)

    with f the cross-entropy of clean and poisoned examples in the proportion in which the defender
    gets them, and ℓ that of clean examples held out from f. The poisons L_θ(x, y) keep the labels
    of the examples they are made of. The defender's BatchNorm statistics stay as they are. A round
    is one batch of each part, and an epoch of rounds is one compiled program.

    Attributes:
      budget: how many poisons; time does not depend on it.
      bounds: within which they lie; the tanh of the generator keeps to the box.
      placement: `add`; `perturb` with `zero_sum=True` and ε = 1 is the unlearnable form.
      solver: `tgda`, `fr` (follow the ridge: the follower also moves along its response), `gdn`
        (a Newton step of the follower after each of the leader's), `ugda` (gradient through
        `unroll_steps` steps of the follower, no solve).
      leads: `attacker`; or `defender`, who takes n total gradient steps on f before the attacker
        takes m on ℓ(w - β ∇_w f(θ, w)).
      zero_sum: the attacker ascends f in the place of ℓ.
      cold_start: the defender starts each round's n steps at its trained weights.
      epochs: passes over the clean training set.
      batch_size: clean examples of a round, of both parts.
      attacker_steps: m.
      attacker_rate: α.
      defender_steps: n.
      defender_rate: β.
      held_out: the attacker's share of the clean training set, in (0, 1).
      architecture: of the generator: `mlp`, `autoencoder`, or `residual`, an `mlp` that is added to
        the image: it begins at the images, exactly, and so is not pretrained.
      hidden: widths of the hidden layers of `mlp` and `residual`.
      start: an attack that keeps labels, as `Subpopulation()`; the generator then makes its poisons
        of what that attack's show, and learns to reconstruct them too. None for the examples.
      pretrain: how the generator learns to reconstruct; 0 epochs for none.
      reconstruction: the root mean square error, in pixel units, at which pretraining stops; a
        generator that does not reach it is warned of. None trains all epochs, whatever they reach.
      unroll_steps: k of `ugda`.
      inverse: how the inverse Hessian is had: `minres`, or `cg` or `cgnr` (as published code has
        it), solve; `kfac` takes its Kronecker factors; `none` the identity, the way of one step of
        the defender. Solves alone for the solvers `fr` and `gdn`, and where the defender leads.
      hessian_share: of a round's examples, by which the Hessian or its factors are taken, in
        (0, 1].
      refresh: rounds for which the factors of `kfac` are kept.
      unit_steps: whether the leader's step has the length of its rate, whatever the length of its
        gradient, which depends on `inverse` by orders of magnitude.
      damping: added to the diagonal of the Hessian.
      tol: wanted relative residual of a solve.
      max_solve_steps: the most steps of a solve.
      precision: of the matrix products of the leader's gradient; see `kernels.Precision`.

    Example:
      attack = poisoning.TotalGradientAttack(budget=poisoning.Budget(0.03), epochs=50)
      poisoned = attack(key, model, variables, task)

    Cost: the training of the start, then rounds of second derivatives on batches. `none` and `kfac`
    have shorter rounds than `minres`, and in a quarter of its time do a tenth of its harm to
    logistic regression (`benchmarks/poisoning.py`), so that it is the default.

    Source: Lu et al. 2022, Algorithm 1, §4.2 and §5.1, equations (15) to (17), (41), (42) and
    appendix C. We solve by MINRES where the paper's code has CG on the squared Hessian, keep the
    held-out part out of the defender's batches where that code trains on it, give labels one-hot,
    and pretrain the generator by Adam where the paper says gradient descent. The paper does not
    say what an attacker that follows responds to: see `leads`. Its cold start prints
    w <- w_pre - β ∇f for each of the n steps; we restart once per round.
    """

    budget: Budget = Budget()  # noqa: RUF009 (frozen, and so safe to share)
    bounds: Bounds = Bounds()  # noqa: RUF009
    placement: Placement = "add"
    solver: SolverName = "tgda"
    leads: Side = "attacker"
    zero_sum: bool = False
    cold_start: bool = False
    epochs: int = 200
    batch_size: int = 1000
    attacker_steps: int = 1
    attacker_rate: float = 0.01
    defender_steps: int = 20
    defender_rate: float = 0.1
    held_out: float = 0.3
    architecture: Architecture = "mlp"
    hidden: tuple[int, ...] = (784, 784)
    start: Attack | None = None
    pretrain: Recipe = _PRETRAINING
    reconstruction: float | None = None
    unroll_steps: int = 20
    inverse: Inverse = "minres"
    hessian_share: float = 1.0
    refresh: int = 10
    unit_steps: bool = False
    damping: float = 1e-2
    tol: float = 0.1
    max_solve_steps: int = 16
    precision: Precision = "highest"

    trial: ClassVar[AttackTrial] = AttackTrial(
        small={"hidden": (8,), "defender_steps": 2},
        effective={
            "placement": "perturb",
            "epochs": 100,
            "hidden": (8,),
            "defender_steps": 2,
            "attacker_rate": 1.0,
            "pretrain": Recipe(epochs=5, batch_size=20, optimizer="adam", learning_rate=1e-2),
        },
    )

    def __post_init__(self) -> None:
        check_choice("placement", self.placement, Placement)
        check_choice("solver", self.solver, SolverName)
        check_choice("leads", self.leads, Side)
        check_choice("architecture", self.architecture, Architecture)
        check_choice("inverse", self.inverse, Inverse)
        check_choice("precision", self.precision, Precision)
        check_share(self.held_out)
        self._check_inverse()
        check_start(self.start)
        if self.start is not None and self.bounds.radius is not None:
            raise ValueError(
                "start needs bounds without a radius, which is a distance from the examples that "
                f"the poisons stand for; got radius={self.bounds.radius}"
            )
        if self.cold_start and self.leads == "defender":
            raise ValueError("cold_start needs leads='attacker': a leader has no response to redo")
        counts = ("epochs", "attacker_steps", "unroll_steps", "max_solve_steps", "refresh")
        check_at_least(self, 1, *counts)
        check_at_least(self, 2, "batch_size")
        check_at_least(self, 0 if self.leads == "attacker" else 1, "defender_steps")
        check_above(self, 0, "attacker_rate", "defender_rate", "tol")
        check_at_least(self, 0, "damping")
        if self.reconstruction is not None:
            check_above(self, 0, "reconstruction")

    def _check_inverse(self) -> None:
        solves = self.inverse not in ("none", "kfac")
        if not 0 < self.hessian_share <= 1:
            raise ValueError(f"hessian_share must be in (0, 1], got {self.hessian_share}")
        if not solves and (self.solver != "tgda" or self.leads != "attacker"):
            raise ValueError(
                f"inverse={self.inverse!r} needs solver='tgda' and leads='attacker', whose one "
                f"response it approximates; got solver={self.solver!r}, leads={self.leads!r}: "
                "choose inverse='minres'"
            )
        if self.hessian_share < 1 and (self.solver != "tgda" or self.leads != "attacker"):
            raise ValueError(
                "hessian_share < 1 needs solver='tgda' and leads='attacker', got "
                f"solver={self.solver!r}, leads={self.leads!r}"
            )
        if self.inverse == "kfac" and not self.damping > 0:
            raise ValueError(f"inverse='kfac' needs damping > 0, got {self.damping}")

    def __call__(
        self, key: Key[Array, ""], model: Model, variables: Variables, task: Task
    ) -> Poisoned:
        """Returns the poisoned training set; the defender starts at `variables`.

        Raises:
          ValueError: a task or variables that do not fit the model, a batch larger than the data,
            bounds that exclude a training image, or a start that makes another number of poisons,
            poisons of no example, or other labels.
          DivergedError: a loss or a weight is no longer finite.
        """
        check_task(task, model)
        check_continuous(task.retain, method="TotalGradientAttack")
        check_variables(variables, model)
        clean = task.train
        history: dict[str, list[float]] = {}
        with Stopwatch() as watch:
            start = self.begin(key, model, variables, task)
            theta, w = start.theta, variables.params
            for epoch in range(self.epochs):
                theta, w, metrics = play_epoch(
                    theta,
                    w,
                    start.setup.data,
                    start.keys,
                    jnp.int32(epoch),
                    game=start.game,
                    sizes=start.setup.sizes,
                )
                for name, value in metrics.items():
                    history.setdefault(name, []).append(float(value))
                refuse_divergence(history, epoch)
            x = start.generate(theta, clean)
        return self.finish(start, clean, x, history, watch)

    def begin(self, key: Key[Array, ""], model: Model, variables: Variables, task: Task) -> Start:
        """Returns what the first round needs, the generator pretrained.

        Args:
          key: drives the split, the generator's initialisation, its pretraining and the game.
          model: the defender's network.
          variables: its weights, trained on the clean data.
          task: `train` is what is poisoned, n examples.
        """
        clean = task.train
        split_key, init_key, pretrain_key, game_key = jax.random.split(key, 4)
        setup = self._set_up(split_key, task, model, variables)
        game = self._game(model, clean.size)
        if self.inverse == "kfac":  # a network that it does not know is refused before all else
            fresh = jax.eval_shape(game.generator.network.init, init_key).params
            jax.eval_shape(game.invert, fresh, variables.params, setup.data)
        examples = clean
        if self.start is not None:
            shown = clean.take(setup.base)._replace(x=setup.region.base)
            examples = concatenate(clean, shown)
        theta, pretraining = self._pretrain(init_key, pretrain_key, game, examples, setup.data)
        clean_key, held_out_key, poison_key = jax.random.split(game_key, 3)
        keys = (clean_key, held_out_key, poison_key)
        start = Start(setup, game, theta, keys, pretraining)
        return start._replace(error=self._look_at(start, clean))

    def _look_at(self, start: Start, clean: Dataset) -> dict[str, Array]:
        """Returns how far the poisons are from their images before the game, in pixel units."""
        normalisation = check_continuous(clean, method="TotalGradientAttack")
        away = start.generate(start.theta, clean) - start.setup.region.base
        away = away * jnp.asarray(normalisation.std, away.dtype)
        error, largest = jnp.sqrt(jnp.mean(away**2)), jnp.abs(away).max()
        return {"reconstruction_error": error, "largest_change": largest}

    def finish(
        self,
        start: Start,
        clean: Dataset,
        x: Float[Array, "m ..."],
        history: dict[str, list[float]],
        watch: Stopwatch,
    ) -> Poisoned:
        """Returns the poisoned training set after the last round.

        Args:
          start: what `begin` returned.
          clean: the training set that it was given.
          x: [m, ...] the poisons.
          history: of each epoch, by name.
          watch: that timed the game.
        """
        _warn_unsolved(history)
        setup = start.setup
        dataset, is_poison = place(clean, x, clean.y[setup.base], setup.base, self.placement)
        examples = start.pretraining + self._count(history, setup, start.game)
        info = PoisonInfo(
            setup.base,
            self.bounds,
            {name: jnp.asarray(values) for name, values in history.items()},
            Cost(examples, watch.seconds, watch.compile_seconds),
            extras=start.error,
        )
        return Poisoned(dataset, is_poison, info)

    def _set_up(
        self, key: Key[Array, ""], task: Task, model: Model, variables: Variables
    ) -> _SetUp:
        """Returns the parts of the clean set, and the examples that the poisons are made of.

        They are drawn from the defender's part as long as it lasts, or those of the start.
        """
        clean, n = task.train, task.train.size
        if self.batch_size > n:
            raise ValueError(
                f"batch_size={self.batch_size} is larger than the training set ({n} examples); "
                f"choose batch_size <= {n}"
            )
        m = self.budget.of(n)
        ours, theirs = hold_out(key, n, self.held_out)
        normalisation = check_continuous(clean, method="TotalGradientAttack")
        if self.start is None:
            order = np.concatenate([ours, theirs])
            base = jnp.asarray(np.sort(order[:m]), jnp.int32)
            rows = jnp.asarray(order[: min(m, len(ours))])
            shown, played = clean.x[base], clean.x[rows]
        else:
            start_key = jax.random.fold_in(key, 1)
            base, shown = start_from(self.start, start_key, model, variables, task, m)
            rows, played = base, shown
        region = self.bounds.region(clean.x[base], normalisation)._replace(base=shown)
        data = GameData(
            clean=clean.take(ours),
            held_out=clean.take(theirs),
            region=region._replace(base=played),
            labels=clean.y[rows],
            box=Box(region.low, region.high),
            state=variables.state,
            start=variables.params,
        )
        v = min(max(round(self.held_out * self.batch_size), 1), len(theirs), self.batch_size - 1)
        b = min(self.batch_size - v, len(ours))
        sizes = (b, v, min(len(rows), max(1, round(m / n * b))))
        return _SetUp(data, region, base, sizes)

    def _game(self, model: Model, n: int) -> Game:
        m = self.budget.of(n)
        weights = (n / (n + m), m / (n + m)) if self.placement == "add" else (1 - m / n, m / n)
        generator = make_generator(
            self.architecture,
            tuple(model.input_shape),
            model.n_classes,
            hidden=self.hidden,
            in_box=self.bounds.box is not None,
        )
        named = {field.name for field in dataclasses.fields(Game)}
        shared = {k: v for k, v in _shallow(self).items() if k in named}
        return Game(model, generator, *weights, **shared)

    def _pretrain(
        self,
        init_key: Key[Array, ""],
        key: Key[Array, ""],
        game: Game,
        clean: Dataset,
        data: GameData,
    ) -> tuple[Params, float]:
        fresh = jax.jit(game.generator.network.init)(init_key)
        if self.pretrain.epochs == 0 or game.generator.residual:
            return fresh.params, 0.0
        normalisation = check_continuous(clean, method="TotalGradientAttack")
        objective = Reconstruction(game.generator, normalisation.std)
        gate = None if self.reconstruction is None else _Gate(self.reconstruction)
        try:
            trained = descend(
                key,
                objective,
                self.pretrain,
                clean,
                fresh,
                context=data.box,
                on_epoch=None if gate is None else gate.measure,
                on_snapshot=None if gate is None else gate.pass_through,
            )
        except _Reconstructs as done:
            taken = dataclasses.replace(self.pretrain, epochs=done.epochs)
            return done.params, taken.example_gradients(clean.size)
        if gate is not None:
            warn(
                f"the generator reconstructs its images with a root mean square error of "
                f"{gate.error:.3g} pixels after {self.pretrain.epochs} epochs, "
                f"{self.reconstruction:g} was wanted: the game starts from other images than the "
                "clean ones; pretrain for more epochs, or at another rate"
            )
        return trained.variables.params, trained.info.cost.example_gradients

    def _count(self, history: dict[str, list[float]], setup: _SetUp, game: Game) -> float:
        """Returns the example-gradients of the game; a poison passes through two networks."""
        b, v, p = setup.sizes
        data = setup.data
        rounds = self.epochs * min(data.clean.size // b, data.held_out.size // v)
        batch = b * (game.clean_weight > 0) + 2 * p
        attacks = self.leads == "attacker"
        leads, follows = self.attacker_steps, self.defender_steps
        if not attacks:
            leads, follows = follows, leads
        # One step of the side that follows; the attacker's goes through a step of the defender.
        response = batch if attacks or self.zero_sum else 3 * batch + v
        if self.solver == "ugda":
            return rounds * (leads * (3 * self.unroll_steps * response + v) + follows * response)
        if self.inverse in ("none", "kfac"):
            made = self.hessian_share * batch * (FORWARD + game.model.n_classes * BACKWARD)
            factors = made / self.refresh if self.inverse == "kfac" else 0.0
            return rounds * (leads * (3 * response + v) + factors + follows * response)
        solves = 1 if self.solver == "tgda" else 2
        steps = sum(history["solve_steps"]) / self.epochs  # of a round, all solves
        # Each solve: its residual, and one cross product, which is of all examples.
        products = (steps + leads * solves) * self.hessian_share + leads * solves
        return rounds * ((2 * products + leads) * response + leads * v + follows * response)


class _SetUp(NamedTuple):
    """The data of the game; region and base rows of all poisons; batch sizes of a round."""

    data: GameData
    region: Region
    base: Int[Array, " m"]
    sizes: tuple[int, int, int]


class Start(NamedTuple):
    """The game before its first round.

    Attributes:
      setup: its data and sizes.
      game: its rules.
      theta: the generator's weights.
      keys: of the order of examples.
      pretraining: example-gradients that the generator took.
      error: how far its poisons are from their images, in pixel units: `reconstruction_error`, the
        root mean square, and `largest_change`.
    """

    setup: _SetUp
    game: Game
    theta: Params
    keys: Keys
    pretraining: float
    error: Mapping[str, Float[Array, ""]] = {}

    def generate(self, theta: Params, clean: Dataset) -> Float[Array, "m ..."]:
        """Returns all poisons that the generator makes."""
        labels = clean.y[self.setup.base]
        return _generate(theta, self.setup.region, labels, self.setup.data.box, self.game.generator)


class _Reconstructs(Exception):
    """Ends a pretraining whose generator reconstructs well enough."""

    def __init__(self, epochs: int, params: Params) -> None:
        super().__init__(epochs)
        self.epochs, self.params = epochs, params


class _Gate:
    """Watches a pretraining, and ends it at the wanted error.

    Attributes:
      error: root mean square of the last epoch, in pixel units.
    """

    def __init__(self, wanted: float) -> None:
        self._wanted, self.error = wanted, np.inf

    def measure(self, epoch: int, metrics: Mapping[str, float]) -> None:
        """Notes the error of an epoch."""
        self.error = float(np.sqrt(metrics["squared_pixels"]))

    def pass_through(self, epoch: int, variables: Variables) -> None:
        """Ends the pretraining if the epoch's error was small enough."""
        if self.error <= self._wanted:
            raise _Reconstructs(epoch, variables.params)


def _generate(
    theta: Params, region: Region, labels: Int[Array, " m"], box: Box, generator: Generator
) -> Float[Array, "m ..."]:
    """Returns all poisons, chunk by chunk."""
    m = labels.shape[0]
    chunks = [np.arange(start, min(start + _CHUNK, m)) for start in range(0, m, _CHUNK)]
    parts = [
        generate(theta, region.take(rows), labels[rows], box, generator=generator)
        for rows in chunks
    ]
    found: Array = jax.block_until_ready(jnp.concatenate(parts))
    return found


def _shallow(attack: TotalGradientAttack) -> dict[str, Any]:
    return {field.name: getattr(attack, field.name) for field in dataclasses.fields(attack)}


def refuse_divergence(history: dict[str, list[float]], epoch: int) -> None:
    """Raises DivergedError if a loss is no longer finite after an epoch."""
    wrong = [name for name, values in history.items() if not np.isfinite(values[-1])]
    if wrong:
        raise DivergedError(
            f"the game diverged in epoch {epoch + 1}: {', '.join(wrong)} not finite; lower "
            "attacker_rate or defender_rate, or raise damping"
        )


def _warn_unsolved(history: dict[str, list[float]]) -> None:
    residual = history.get("residual", [0.0])[-1]
    if residual > _UNSOLVED:
        warn(
            f"the solves of the last epoch ended at a relative residual of {residual:.2f}: the "
            "total gradient is little more than the direct one; raise damping or max_solve_steps"
        )
