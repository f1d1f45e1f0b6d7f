"""Trains on the worst of several augmented copies of each example."""

from __future__ import annotations

import dataclasses
from typing import ClassVar, Literal, get_args

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Key

from unlearnkit.base import Dataset, Model, OnEpoch, Params, State, Trained, Variables
from unlearnkit.costs import FORWARD
from unlearnkit.training import CrossEntropy, Recipe, fit
from unlearnkit.training.step import Metrics, augment, forward_train
from unlearnkit.trials import DefenceTrial
from unlearnkit.validation import check_at_least, check_continuous, check_known

AugmentationName = Literal["noise", "shift", "shift_flip"]


@dataclasses.dataclass(frozen=True)
class MaxUp:
    """Minimises the mean over examples of the largest loss among `copies` augmented copies.

    min_w 1/n Σ_i max_{j ≤ m} ℓ(w; a_ij(x_i), y_i),   a_ij random, drawn anew at each step

    The gradient of a maximum is the gradient at the maximiser, so a step takes m forward passes to
    choose each example's copy and one gradient on the chosen ones: (m / 3 + 1) example-gradients
    per example in place of m.

    Attributes:
      copies: m.
      augmentation: `noise` adds Gaussian noise; `shift` moves images by up to `shift` pixels;
        `shift_flip` also mirrors at random.
      noise_std: of `noise`, in pixel units [0, 1].
      shift: of `shift`, in pixels.
      keep_original: whether the example itself is a candidate beside its copies, so that no step
        trains on a copy that is easier than the example.
      clip: whether the values of copies are clipped to pixels [0, 1].

    Example:
      trained = defences.MaxUp(copies=4).fit(key, model, train, training.Recipe(epochs=30))

    Cost: of the training, times 1 + `copies` / 3.

    Source: Gong et al. 2021, MaxUp; Lu et al. 2022, §5.6 (c) and Table 11. The code that Lu et al.
    name (github.com/Yunodo/maxup) keeps the example among the candidates and clips them, as
    `keep_original` and `clip` do; Gong et al. do neither. Both take the maximum over the copies of
    one example. With batch statistics (BatchNorm in training mode) the copies are compared under
    the statistics of their own batch.
    """

    copies: int = 4
    augmentation: AugmentationName = "noise"
    noise_std: float = 0.1
    shift: int = 2
    keep_original: bool = False
    clip: bool = False

    trial: ClassVar[DefenceTrial] = DefenceTrial(
        small={"copies": 2, "noise_std": 0.02}, effective={"copies": 4, "noise_std": 0.5}
    )

    def __post_init__(self) -> None:
        check_at_least(self, 1, "copies")
        check_known("augmentation", self.augmentation, get_args(AugmentationName))
        check_at_least(self, 0, "noise_std", "shift")

    def fit(
        self,
        key: Key[Array, ""],
        model: Model,
        dataset: Dataset,
        recipe: Recipe,
        *,
        variables: Variables | None = None,
        on_epoch: OnEpoch | None = None,
    ) -> Trained:
        """Returns a network trained from `variables`, or from a fresh initialisation.

        See `training.fit` for the arguments.

        Raises:
          ValueError: see `training.fit`; a recipe that augments too, or shifts of what is no image.
          DivergedError: the loss is no longer finite.
        """
        if recipe.augmentation != "none":
            raise ValueError(
                "MaxUp augments by itself and the maximum would be lost in a second augmentation; "
                f"set augmentation='none' in the recipe, got {recipe.augmentation!r}"
            )
        if self.augmentation != "noise" and dataset.x.ndim != 4:
            raise ValueError(
                f"augmentation={self.augmentation!r} needs images [n, height, width, channels], "
                f"got x {list(dataset.x.shape)}; choose augmentation='noise'"
            )
        check_continuous(dataset, method="MaxUp")
        objective = WorstCopy(CrossEntropy(model, recipe), self)
        trained = fit(
            key,
            model,
            dataset,
            recipe,
            variables=variables,
            objective=objective,
            on_epoch=on_epoch,
        )
        spent = trained.info.cost
        work = spent.example_gradients * (1 + (self.copies + self.keep_original) * FORWARD)
        cost = spent._replace(example_gradients=work)
        return Trained(trained.variables, trained.info._replace(cost=cost))

    def augment(self, key: Key[Array, ""], batch: Dataset) -> Float[Array, "n ..."]:
        """Returns one augmented copy of each example."""
        normalisation = check_continuous(batch, method="MaxUp")
        if self.augmentation == "noise":
            std = self.noise_std / jnp.asarray(normalisation.std)
            copy = batch.x + std * jax.random.normal(key, batch.x.shape, batch.x.dtype)
        else:
            copy = augment(key, batch, Recipe(augmentation=self.augmentation, shift=self.shift))
        if not self.clip:
            return copy
        black, white = (normalisation.apply(jnp.asarray(v, copy.dtype)) for v in (0.0, 1.0))
        return jnp.clip(copy, black, white)

    def candidates(self, key: Key[Array, ""], batch: Dataset) -> list[Float[Array, "n ..."]]:
        """Returns what is compared of each example: its copies, after itself where that is kept."""
        copies = [self.augment(one, batch) for one in jax.random.split(key, self.copies)]
        return [batch.x, *copies] if self.keep_original else copies


@dataclasses.dataclass(frozen=True)
class WorstCopy:
    """The cross-entropy of a batch at the worst of its augmented copies; an `Objective`.

    Attributes:
      objective: what is descended on the chosen copies.
      method: how copies are made.
    """

    objective: CrossEntropy
    method: MaxUp

    def __call__(
        self,
        params: Params,
        state: State,
        batch: Dataset,
        key: Key[Array, ""],
        context: None = None,
    ) -> tuple[Float[Array, ""], tuple[State, Metrics]]:
        """Returns the loss, and the new state with `loss` and `accuracy` of the chosen copies."""
        copies_key, step_key = jax.random.split(key)
        fixed = Variables(jax.lax.stop_gradient(params), state)
        # By this key the objective below draws its dropout: copies meet the mask they train by.
        _, dropout_key = jax.random.split(step_key)
        copies = self.method.candidates(copies_key, batch)
        losses = [self._losses(fixed, x, batch, jax.random.clone(dropout_key)) for x in copies]
        worst = jnp.argmax(jnp.stack(losses), axis=0)
        chosen = jnp.stack(copies)[worst, jnp.arange(batch.x.shape[0])]
        return self.objective(params, state, batch._replace(x=chosen), jax.random.clone(step_key))

    def _losses(
        self, variables: Variables, x: Array, batch: Dataset, key: Key[Array, ""]
    ) -> Float[Array, " n"]:
        """Returns the loss of every example."""
        smoothing = self.objective.recipe.label_smoothing
        logits, _ = forward_train(self.objective.model, self.objective.recipe, variables, x, key)
        targets = optax.smooth_labels(jax.nn.one_hot(batch.y, logits.shape[1]), smoothing)
        found: Array = optax.softmax_cross_entropy(logits, targets)
        return found
