"""Hyperparameters of a training run, and the optimiser and learning rates that they give."""

from __future__ import annotations

import dataclasses
from functools import lru_cache
from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib
from jaxtyping import Array, Float

from unlearnkit.base import Params
from unlearnkit.validation import check_known

OptimizerName = Literal["sgd", "adam", "adamw", "muon"]
ScheduleName = Literal["constant", "cosine", "linear", "step"]
_RATES_AT_ONCE = 64
"""Learning rates computed per call, whatever the length of the run."""
DecayCentre = Literal["zero", "start"]
AugmentationName = Literal["none", "shift", "shift_flip"]
ComputeDtype = Literal["float32", "bfloat16"]


@dataclasses.dataclass(frozen=True)
class Recipe:
    """The hyperparameters of a training run.

    An epoch is ⌊n / batch_size⌋ steps over a fresh permutation of the data; the last partial batch
    is dropped.

    Attributes:
      epochs: passes over the data.
      batch_size: examples per step; at most the size of the data.
      optimizer: `sgd`, `adam`, `adamw` (decoupled weight decay), or `muon`: the momentum of every
        convolution kernel orthogonalised by three Newton-Schulz steps, and Nesterov's SGD for all
        other parameters.
      learning_rate: the peak rate; of `muon` that of the kernels.
      other_learning_rate: the peak rate of `muon` for what is not a convolution kernel.
      momentum: of `sgd` and `muon`; the first-moment decay of Adam stays at 0.9.
      nesterov: Nesterov's form of the momentum.
      weight_decay: λ in (λ/2)‖w - c‖², over all parameters.
      decay_toward: the centre c: `zero`, or `start`, the weights at which this run began (a fresh
        initialisation, or pretrained weights).
      schedule: `constant`; `cosine` to 0; `linear` to 0, by step; `step`, times `step_factor` at
        each milestone.
      warmup_epochs: length of the linear warm-up from 0, in epochs.
      milestones: epochs after which the schedule `step` lowers the rate.
      step_factor: the factor of `step`.
      gradient_noise: standard deviation of Gaussian noise added to each entry of each step's
        mean-loss gradient.
      clip_norm: the gradient's largest global norm, or None.
      label_smoothing: mass spread evenly over all classes, in [0, 1).
      augmentation: `none`, `shift` by up to `shift` pixels, `shift_flip` with a random mirror.
      shift: largest shift, in pixels; the border that it leaves is black.
      frozen_state: BatchNorm uses and keeps its running statistics, and dropout is off.
      compute_dtype: dtype of activations and of the weights' working copy; the weights themselves,
        the optimiser, the statistics and the loss stay float32.
    """

    epochs: int = 10
    batch_size: int = 128
    optimizer: OptimizerName = "sgd"
    learning_rate: float = 0.1
    other_learning_rate: float = 0.1
    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float = 0.0
    decay_toward: DecayCentre = "zero"
    schedule: ScheduleName = "constant"
    warmup_epochs: float = 0.0
    milestones: tuple[int, ...] = ()
    step_factor: float = 0.1
    gradient_noise: float = 0.0
    clip_norm: float | None = None
    label_smoothing: float = 0.0
    augmentation: AugmentationName = "none"
    shift: int = 4
    frozen_state: bool = False
    compute_dtype: ComputeDtype = "float32"

    def __post_init__(self) -> None:
        _require(self.epochs >= 0, "epochs must be >= 0", self.epochs)
        _require(self.batch_size >= 1, "batch_size must be >= 1", self.batch_size)
        check_known("optimizer", self.optimizer, get_args(OptimizerName))
        check_known("schedule", self.schedule, get_args(ScheduleName))
        check_known("decay_toward", self.decay_toward, get_args(DecayCentre))
        check_known("augmentation", self.augmentation, get_args(AugmentationName))
        check_known("compute_dtype", self.compute_dtype, get_args(ComputeDtype))
        _require(self.learning_rate > 0, "learning_rate must be > 0", self.learning_rate)
        _require(
            self.other_learning_rate > 0,
            "other_learning_rate must be > 0",
            self.other_learning_rate,
        )
        _require(0 <= self.momentum < 1, "momentum must be in [0, 1)", self.momentum)
        _require(self.weight_decay >= 0, "weight_decay must be >= 0", self.weight_decay)
        _require(
            not (self.optimizer == "adamw" and self.decay_toward == "start"),
            "decay_toward='start' needs optimizer sgd or adam",
            self.optimizer,
        )
        _require(self.warmup_epochs >= 0, "warmup_epochs must be >= 0", self.warmup_epochs)
        _require(
            self.schedule == "step" or not self.milestones,
            "milestones need schedule='step'",
            self.milestones,
        )
        _require(
            list(self.milestones) == sorted(set(self.milestones)),
            "milestones must increase",
            self.milestones,
        )
        _require(self.gradient_noise >= 0, "gradient_noise must be >= 0", self.gradient_noise)
        _require(
            self.clip_norm is None or self.clip_norm > 0, "clip_norm must be > 0", self.clip_norm
        )
        _require(
            0 <= self.label_smoothing < 1, "label_smoothing must be in [0, 1)", self.label_smoothing
        )
        _require(self.shift >= 0, "shift must be >= 0", self.shift)

    @property
    def prefix_stable(self) -> bool:
        """Whether the first epochs of a run do not depend on how many there are in all."""
        return self.schedule in ("constant", "step")

    def steps_per_epoch(self, n: int) -> int:
        """Returns ⌊n / batch_size⌋.

        Raises:
          ValueError: the data are fewer than one batch.
        """
        if n < self.batch_size:
            raise ValueError(
                f"batch_size={self.batch_size} is larger than the data ({n} examples); "
                f"choose batch_size <= {n}"
            )
        return n // self.batch_size

    def example_gradients(self, n: int) -> float:
        """Returns what the run takes on n examples: epochs · ⌊n / batch_size⌋ · batch_size.

        Raises:
          ValueError: the data are fewer than one batch.
        """
        return float(self.epochs * self.steps_per_epoch(n) * self.batch_size)


def speedrun_recipe(
    *, epochs: int = 5, batch_size: int = 400, optimizer: OptimizerName = "muon"
) -> Recipe:
    """Returns how `models.speedrun` is trained on CIFAR-10, with rates falling linearly by step.

    Args:
      epochs: passes over the data.
      batch_size: examples per step; the rates are tuned for a few hundred.
      optimizer: `muon` for the convolutions and Nesterov's SGD for the rest, or `sgd` for all, for
        methods that follow the gradient flow or differentiate through the training.

    Raises:
      ValueError: the optimiser is neither.

    Source: the settings of Jordan's airbench (2024), for smaller batches.
    """
    if optimizer not in ("muon", "sgd"):
        raise ValueError(f"optimizer must be muon or sgd, got {optimizer!r}")
    shared = Recipe(
        epochs=epochs,
        batch_size=batch_size,
        optimizer=optimizer,
        schedule="linear",
        label_smoothing=0.1,
        augmentation="shift_flip",
        shift=2,
    )
    if optimizer == "sgd":
        return dataclasses.replace(
            shared, learning_rate=0.5, momentum=0.9, nesterov=True, weight_decay=5e-4
        )
    return dataclasses.replace(shared, learning_rate=0.24, other_learning_rate=0.3, momentum=0.6)


def learning_rate_schedule(recipe: Recipe, steps_per_epoch: int) -> optax.Schedule:
    """Returns the learning rate as a function of the step."""
    total = max(recipe.epochs * steps_per_epoch, 1)
    warmup = min(round(recipe.warmup_epochs * steps_per_epoch), total)
    peak = recipe.learning_rate
    if recipe.schedule == "linear":
        after: optax.Schedule = optax.linear_schedule(peak, 0.0, max(total - warmup, 1))
    elif recipe.schedule == "cosine":
        after = optax.cosine_decay_schedule(peak, max(total - warmup, 1))
    elif recipe.schedule == "step":
        boundaries = {m * steps_per_epoch - warmup: recipe.step_factor for m in recipe.milestones}
        after = optax.piecewise_constant_schedule(peak, boundaries)
    else:
        after = optax.constant_schedule(peak)
    if warmup == 0:
        return after
    return optax.join_schedules([optax.linear_schedule(0.0, peak, warmup), after], [warmup])


@lru_cache(maxsize=64)
def rate_table(recipe: Recipe, steps_per_epoch: int, steps: int) -> Float[np.ndarray, " steps"]:
    """Returns the learning rates of the first `steps` steps, by the schedule itself, on the host.

    Args:
      recipe: whose schedule.
      steps_per_epoch: turns the recipe's epochs into steps.
      steps: how many.

    Returns:
      [steps], read-only.
    """
    schedule = learning_rate_schedule(recipe, steps_per_epoch)
    dtype = jax.dtypes.canonicalize_dtype(float)
    if recipe.schedule == "constant" and recipe.warmup_epochs == 0:
        rates = np.full(steps, schedule(0), dtype)
    else:
        room = -(-steps // _RATES_AT_ONCE) * _RATES_AT_ONCE
        parts = np.arange(room, dtype=np.int32).reshape(-1, _RATES_AT_ONCE)
        # Without milestones a step schedule is one number.
        found = [np.broadcast_to(schedule(jnp.asarray(part)), part.shape) for part in parts]
        rates = np.concatenate([np.zeros(0, dtype), *found])[:steps].astype(dtype)
    rates.setflags(write=False)
    return rates


def make_optimizer(recipe: Recipe, steps_per_epoch: int) -> optax.GradientTransformation:
    """Returns the optimiser of a recipe; initialised at the weights where the run begins."""
    form, numbers = split_recipe(recipe)
    return optimizer_of_form(form, numbers, learning_rate_schedule(recipe, steps_per_epoch))


class RecipeNumbers(NamedTuple):
    """The numbers that a compiled step takes as arguments; `None` where the recipe lacks the term.

    Attributes:
      momentum: of `sgd`.
      weight_decay: see `Recipe`.
      gradient_noise: see `Recipe`.
      rate_ratio: of `muon`, the rate of what is not a convolution kernel over that of the kernels.
    """

    momentum: Any = None
    weight_decay: Any = None
    gradient_noise: Any = None
    rate_ratio: Any = None


@lru_cache(maxsize=256)
def split_recipe(recipe: Recipe) -> tuple[Recipe, RecipeNumbers]:
    """Splits a recipe into what a step is compiled for and the numbers that it takes as arguments.

    Recipes whose steps have the same terms share one form, whatever their rates, strengths and
    number of epochs. The clipping norm, the label smoothing and Muon's momentum stay in the form:
    XLA folds constants, so passing them as arguments would change the last bits of the result.

    Returns:
      The form: the recipe with a fixed value for every number that is an argument, and without a
      schedule.
      The numbers, as Python scalars, so that they adopt the precision of the weights.
    """
    numbers = RecipeNumbers(
        momentum=(recipe.momentum or None) if recipe.optimizer == "sgd" else None,
        weight_decay=recipe.weight_decay or None,
        gradient_noise=recipe.gradient_noise or None,
        rate_ratio=(
            recipe.other_learning_rate / recipe.learning_rate
            if recipe.optimizer == "muon"
            else None
        ),
    )
    form = dataclasses.replace(
        recipe,
        epochs=1,
        batch_size=1,
        learning_rate=1.0,
        other_learning_rate=1.0,
        momentum=_form_of_momentum(recipe),
        weight_decay=1.0 if recipe.weight_decay else 0.0,
        schedule="constant",
        warmup_epochs=0.0,
        milestones=(),
        step_factor=1.0,
        gradient_noise=1.0 if recipe.gradient_noise else 0.0,
    )
    return form, numbers


def _form_of_momentum(recipe: Recipe) -> float:
    if recipe.optimizer == "muon":
        return recipe.momentum
    return 0.5 if recipe.momentum and recipe.optimizer == "sgd" else 0.0


def optimizer_of_form(
    form: Recipe, numbers: RecipeNumbers, schedule: optax.Schedule
) -> optax.GradientTransformation:
    """Returns the optimiser of a form; see `split_recipe`.

    Args:
      form: which terms there are.
      numbers: their strengths, which may be traced.
      schedule: the learning rate as a function of the step.
    """
    parts: list[optax.GradientTransformation] = []
    if form.clip_norm is not None:
        parts.append(optax.clip_by_global_norm(form.clip_norm))
    decays = numbers.weight_decay is not None
    if decays and form.decay_toward == "start":
        parts.append(decay_toward_start(numbers.weight_decay))
    elif decays and form.optimizer != "adamw":
        parts.append(optax.add_decayed_weights(numbers.weight_decay))
    if form.optimizer == "sgd":
        parts.append(optax.sgd(schedule, numbers.momentum, nesterov=form.nesterov))
    elif form.optimizer == "muon":
        parts.append(_muon(form, numbers, schedule))
    elif form.optimizer == "adam":
        parts.append(optax.adam(schedule, nesterov=form.nesterov))
    else:
        decay = numbers.weight_decay if decays else 0.0
        parts.append(optax.adamw(schedule, weight_decay=decay, nesterov=form.nesterov))
    return optax.chain(*parts)


def _muon(
    form: Recipe, numbers: RecipeNumbers, schedule: optax.Schedule
) -> optax.GradientTransformation:
    """Returns Muon for kernels [height, width, channels, features], Nesterov's SGD for the rest.

    Source: Jordan et al. 2024, Muon; three Newton-Schulz steps, as in the speed runs of Jordan's
    airbench.
    """

    def rows_and_columns(params: Params) -> Any:
        axes = optax.contrib.MuonDimensionNumbers(reduction_axis=(0, 1, 2), output_axis=3)
        return jax.tree.map(lambda _: axes, params)

    kernels = optax.chain(
        optax.contrib.scale_by_muon(
            ns_steps=3, beta=form.momentum, weight_dimension_numbers=rows_and_columns
        ),
        optax.scale_by_learning_rate(schedule),
    )
    others = optax.sgd(
        lambda step: numbers.rate_ratio * schedule(step), form.momentum or None, nesterov=True
    )
    return optax.partition(
        {"kernels": kernels, "others": others},
        lambda params: jax.tree.map(lambda w: "kernels" if w.ndim == 4 else "others", params),
    )


class DecayTowardStartState(NamedTuple):
    """The weights at which the run began."""

    start: Params


def decay_toward_start(weight_decay: float | Float[Array, ""]) -> optax.GradientTransformation:
    """Returns a transformation that adds λ (w - w₀), the gradient of (λ/2)‖w - w₀‖².

    Source: Golatkar et al. 2020b, §5.2: the ridge of the NTK comes from decay toward the
    initialisation.
    """

    def init(params: Params) -> DecayTowardStartState:
        return DecayTowardStartState(jax.tree.map(jnp.array, params))

    def update(
        updates: Params, state: DecayTowardStartState, params: Params | None = None
    ) -> tuple[Params, DecayTowardStartState]:
        decayed = jax.tree.map(
            lambda g, w, w0: g + weight_decay * (w - w0), updates, params, state.start
        )
        return decayed, state

    return optax.GradientTransformation(init, update)


def _require(condition: bool, rule: str, value: Any) -> None:
    if not condition:
        raise ValueError(f"{rule}, got {value!r}")
