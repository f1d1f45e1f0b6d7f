"""Poisons whose gradient is that of a wanted mistake (gradient matching, Witches' Brew)."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from unlearnkit.base import Cost, Dataset, Model, Poisoned, Task, Variables
from unlearnkit.costs import Stopwatch
from unlearnkit.poisoning._gradients import mean_gradient
from unlearnkit.poisoning._matching import Match, Matching, judge_all, signed_adam, step_all
from unlearnkit.poisoning._surrogates import Surrogates, check_room
from unlearnkit.poisoning._targets import (
    check_right,
    check_targets,
    predicted_classes,
    rows_of_class,
)
from unlearnkit.poisoning.bounds import Bounds, Region
from unlearnkit.poisoning.budget import Budget
from unlearnkit.poisoning.placing import Placement, PoisonInfo, place, warn
from unlearnkit.rows import check_rows
from unlearnkit.training import DivergedError, Recipe
from unlearnkit.trials import AttackTrial
from unlearnkit.validation import (
    check_above,
    check_at_least,
    check_choice,
    check_continuous,
    check_task,
    check_variables,
)


@dataclasses.dataclass(frozen=True)
class GradientMatching:
    """Perturbs examples of a class so that training on them makes a target look like that class.

    min_Δ 1 - cos(∇_w CE(w; x_target, a), Σ_i ∇_w CE(w; x_i + Δ_i, a)),   ‖Δ_i‖ <= radius

    over all parameters of the trained network w in evaluation mode, a the adversarial class, which
    is the poisons' true one. A step is Adam on the sign of the gradient, at augmented poisons, and
    a projection; its rate falls tenfold after 3/8, 5/8 and 7/8 of the steps. Of all restarts, which
    are made together, the one of the lowest loss without augmentation is kept.

    Poisons for one network say little to another initialisation. With an ensemble the loss is the
    mean over k networks: w, and k - 1 that the attack trains, of k - 1 ages.

    Attributes:
      budget: how many poisons.
      bounds: within which they lie; a radius is needed.
      placement: `perturb`, each poison in the place of its clean example; or `add`.
      targets: rows of `task.validation` to be taken for the adversarial class, which w gets right;
        none draws one.
      adversarial_class: a; None draws one that is no target's.
      restarts: how many, from normal noise of the standard deviation of the radius.
      steps: of each restart.
      learning_rate: of Adam, in the units of the network.
      shift: the largest random shift of an image, in pixels; 0 for none.
      subpixel: whether shifts are by any distance, between pixels bilinearly, or by whole pixels.
      flip: whether images are mirrored at random.
      ensemble: k, how many surrogates.
      recipe: how those besides w are trained, from fresh initialisations to 1/k, 2/k, … of its
        epochs; needed for more than one.
      retrain_every: steps after which these train for an epoch on the training set with the best
        restart's poisons, one that had all its epochs from a fresh initialisation; 0 for never.
      chunk: poisons at a time, of every restart; bounds the memory, changes nothing else.

    Example:
      attack = poisoning.GradientMatching(budget=poisoning.Budget(0.015), restarts=2)
      poisoned = attack(key, model, variables, task)

    Cost: `3 * ensemble * restarts * steps` example-gradients for each poison, and the trainings of
    surrogates.

    Source: Geiping et al. 2021; Pawelczyk et al. 2024, A.1.1 and Algorithm 1 (ε 16/255, 750 of
    50,000 examples; 8 restarts of 250 steps at 0.1 by the public code, which has ensembles of
    staggered ages that are re-trained on the way). All poisons are matched at once, where that code
    takes batches, and w stays as it is, where it is re-trained too.
    """

    budget: Budget = Budget(0.015)  # noqa: RUF009 (frozen, and so safe to share)
    bounds: Bounds = Bounds(radius=16 / 255)  # noqa: RUF009
    placement: Placement = "perturb"
    targets: tuple[int, ...] = ()
    adversarial_class: int | None = None
    restarts: int = 8
    steps: int = 250
    learning_rate: float = 0.1
    shift: int = 4
    subpixel: bool = True
    flip: bool = True
    ensemble: int = 1
    recipe: Recipe | None = None
    retrain_every: int = 0
    chunk: int = 250

    trial: ClassVar[AttackTrial] = AttackTrial(
        small={"restarts": 2, "steps": 10, "shift": 1},
        effective={
            "bounds": Bounds(radius=0.3),
            "restarts": 2,
            "steps": 100,
            "shift": 0,
            "flip": False,
        },
    )

    def __post_init__(self) -> None:
        check_choice("placement", self.placement, Placement)
        if self.bounds.radius is None:
            raise ValueError("bounds need a radius, got None: restarts begin all over the ball")
        check_at_least(self, 1, "restarts", "steps", "ensemble", "chunk")
        check_above(self, 0, "learning_rate")
        check_at_least(self, 0, "shift", "retrain_every")
        if self.ensemble > 1 and self.recipe is None:
            raise ValueError(
                f"ensemble={self.ensemble} needs recipe, by which the attack trains "
                f"{self.ensemble - 1} of its surrogates"
            )
        if self.retrain_every and self.ensemble == 1:
            raise ValueError(
                f"retrain_every={self.retrain_every} needs ensemble >= 2: the network that is "
                "attacked stays as it is"
            )

    def __call__(
        self, key: Key[Array, ""], model: Model, variables: Variables, task: Task
    ) -> Poisoned:
        """Returns the training set with the best restart's poisons; `variables` are surrogate w.

        Raises:
          ValueError: a task or variables that do not fit the model, targets that are not there, of
            the adversarial class already or wrong without poisons, too few examples of that class,
            images to be shifted or mirrored that are none, bounds that exclude a training image, or
            more surrogates than fit in memory.
          DivergedError: a loss is not finite.
        """
        check_task(task, model)
        normalisation = check_continuous(task.retain, method="GradientMatching")
        check_variables(variables, model)
        self._check_images(model)
        clean = task.train
        m = self.budget.of(clean.size)
        if self.recipe is not None and self.ensemble > 1:
            self.recipe.steps_per_epoch(clean.size)
            check_room(self.ensemble, variables)
        target_key, row_key, start_key, step_key, network_key = jax.random.split(key, 5)
        targets, wanted = self._aim(target_key, model, variables, task.validation)
        base = rows_of_class(row_key, clean, wanted, m)
        region = self.bounds.region(clean.x[base], normalisation)
        rules = self._rules(model)
        with Stopwatch() as watch:
            black = normalisation.apply(jnp.zeros(1)).astype(clean.x.dtype)
            images = task.validation.x[targets]
            others = self._surrogates(network_key, model, clean)

            def match_all() -> list[Match]:
                networks = [variables, *([] if others is None else others.variables)]
                return [
                    self._match(model, network, images, wanted, region, black)
                    for network in networks
                ]

            matches, x = match_all(), self._start(start_key, region)
            memory, history = rules.optimizer.init(x), list[Array]()
            for step in range(self.steps):
                if others is not None and self._retrains(step):
                    best = int(np.argmin(np.asarray(history[-1])))
                    others.go_on(place(clean, x[best], clean.y[base], base, self.placement)[0])
                    matches = match_all()
                keys = jax.random.split(jax.random.fold_in(step_key, step), self.restarts)
                x, memory, losses = step_all(x, memory, matches, keys, rules=rules)
                history.append(losses)
            final = np.asarray(judge_all(x, matches, rules=rules))
        self._judge(final)
        best = int(np.argmin(final))
        dataset, is_poison = place(clean, x[best], clean.y[base], base, self.placement)
        examples = self.ensemble * (len(targets) + self.restarts * m * (3 * self.steps + 1))
        trained = 0.0 if others is None else others.example_gradients
        extras = {
            "targets": jnp.asarray(targets, jnp.int32),
            "adversarial_class": jnp.int32(wanted),
            "restart_loss": jnp.asarray(final),
        }
        info = PoisonInfo(
            base,
            self.bounds,
            {"loss": jnp.stack(history)[:, best]},
            Cost(examples + trained, watch.seconds, watch.compile_seconds),
            extras=extras,
        )
        return Poisoned(dataset, is_poison, info)

    def _check_images(self, model: Model) -> None:
        if (self.shift or self.flip) and len(model.input_shape) != 3:
            raise ValueError(
                f"shift={self.shift} and flip={self.flip} need images [height, width, channels], "
                f"got inputs {list(model.input_shape)}; choose shift=0, flip=False"
            )

    def _retrains(self, step: int) -> bool:
        return self.retrain_every > 0 and step > 0 and step % self.retrain_every == 0

    def _surrogates(self, key: Key[Array, ""], model: Model, clean: Dataset) -> Surrogates | None:
        """Returns the networks besides the one that is attacked, trained on clean examples."""
        if self.ensemble == 1 or self.recipe is None:
            return None
        return Surrogates(key, model, self.recipe, self.ensemble, clean)

    def _aim(
        self, key: Key[Array, ""], model: Model, variables: Variables, validation: Dataset
    ) -> tuple[np.ndarray, int]:
        """Returns the targets and the adversarial class, drawn where they are not given."""
        class_key, target_key = jax.random.split(key)
        y, n_classes = np.asarray(validation.y), model.n_classes
        given = check_rows(self.targets, len(y), name="targets", of="task.validation")
        wanted = self.adversarial_class
        if wanted is None:
            free = np.setdiff1d(np.arange(n_classes), y[given])
            if not len(free):
                raise ValueError(f"the targets are of all {n_classes} classes; name fewer")
            wanted = int(jax.random.choice(class_key, jnp.asarray(free)))
        check_targets(self.targets, wanted, validation, n_classes)
        if len(given):
            check_right(given, model, variables, validation)
            return given, wanted
        right = predicted_classes(model, variables, validation) == y
        others = np.flatnonzero(right & (y != wanted))
        if not len(others):
            raise ValueError(
                f"the clean network gets no validation example right that is not of class {wanted} "
                "already: no target is left; train it better, or choose another class"
            )
        return np.asarray(jax.random.choice(target_key, jnp.asarray(others), (1,))), wanted

    def _match(
        self,
        model: Model,
        variables: Variables,
        images: Float[Array, "t ..."],
        wanted: int,
        region: Region,
        black: Float[Array, " 1"],
    ) -> Match:
        """Returns what is matched, with the gradient of the mistake that the attacker wants."""
        mistaken = jnp.full(images.shape[0], wanted, jnp.int32)
        target = mean_gradient(model, variables, images, mistaken, chunk=self.chunk)
        labels = jnp.full(region.base.shape[0], wanted, jnp.int32)
        return Match(variables, target, region, labels, black)

    def _start(self, key: Key[Array, ""], region: Region) -> Float[Array, "restarts m ..."]:
        """Returns N(0, radius²) noise around the base images, projected."""
        shape = (self.restarts, *region.base.shape)
        # A ball of l2 has the same spread in every direction; its radius is in its own units.
        spread = jnp.where(jnp.isfinite(region.reach), region.reach, region.radius / region.scale)
        noise = spread * jax.random.normal(key, shape, region.base.dtype)
        found: Array = jax.vmap(region.project)(region.base + noise)
        return found

    def _rules(self, model: Model) -> Matching:
        optimizer = signed_adam(self.learning_rate, self.steps)
        return Matching(model, optimizer, self.shift, self.subpixel, self.flip, self.chunk)

    def _judge(self, losses: Float[np.ndarray, " restarts"]) -> None:
        if not np.all(np.isfinite(losses)):
            raise DivergedError(
                f"the losses of the restarts are {losses}; the network's gradients are not finite"
            )
        if losses.min() >= 1:
            warn(
                f"the poisons' gradient has a cosine of {1 - losses.min():.2f} with the target's: "
                "training on them does not lead to the mistake; raise steps, budget or radius"
            )
