"""One step and one epoch of stochastic gradient training, as pure functions."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from functools import partial
from typing import Any, ClassVar, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, Key, Num

from unlearnkit.base import Dataset, Model, Params, State, Variables
from unlearnkit.models.adapters import freeze_state
from unlearnkit.training.augmentation import flip_images, shift_images
from unlearnkit.training.recipe import Recipe, make_optimizer
from unlearnkit.validation import check_continuous

Metrics = Mapping[str, Float[Array, "..."]]


class TrainState(NamedTuple):
    """The state of a training run between steps.

    Attributes:
      variables: the current network.
      opt_state: the optimiser's memory.
      step: the number of steps taken.
    """

    variables: Variables
    opt_state: Any
    step: Int[Array, ""]


@runtime_checkable
class Objective(Protocol):
    """The objective that a step minimises; hashable, so that it can be a static argument."""

    def __call__(
        self,
        params: Params,
        state: State,
        batch: Dataset,
        key: Key[Array, ""],
        context: Any,
    ) -> tuple[Float[Array, ""], tuple[State, Metrics]]:
        """Returns the loss, and the new state with metrics of the batch by name.

        Args:
          params: to differentiate by.
          state: before the batch.
          batch: the step's examples.
          key: of augmentation and dropout.
          context: further inputs of the objective, such as a teacher's weights.
        """
        ...


@dataclasses.dataclass(frozen=True)
class CrossEntropy:
    """The mean cross-entropy of a batch in training mode, times `sign`.

    L = sign · mean_i [ -Σ_c q_ic log softmax(f(x_i))_c ],  q = (1 - s) onehot(y) + s / C

    Attributes:
      model: the network f.
      recipe: label smoothing s, augmentation, compute dtype and frozen state are read from it.
      sign: -1 for gradient ascent.
    """

    NUMBERS: ClassVar[tuple[str, ...]] = ()

    model: Model
    recipe: Recipe
    sign: float = 1.0

    def __call__(
        self,
        params: Params,
        state: State,
        batch: Dataset,
        key: Key[Array, ""],
        context: Any = None,
    ) -> tuple[Float[Array, ""], tuple[State, Metrics]]:
        """Returns the loss, and the new state with `loss` and `accuracy` of the batch."""
        variables = Variables(params, state)
        logits, new_state = forward_augmented(self.model, self.recipe, variables, batch, key)
        loss = cross_entropy(logits, batch.y, self.recipe.label_smoothing)
        accuracy = jnp.mean(jnp.argmax(logits, -1) == batch.y)
        return self.sign * loss, (new_state, {"loss": loss, "accuracy": accuracy})


def forward_augmented(
    model: Model, recipe: Recipe, variables: Variables, batch: Dataset, key: Key[Array, ""]
) -> tuple[Float[Array, "n ... c"], State]:
    """Returns the logits of an augmented batch in training mode, and the new state.

    Args:
      model: the network.
      recipe: says how examples are augmented, and in what dtype is computed.
      variables: of the network.
      batch: [n] examples.
      key: of augmentation and dropout.
    """
    augment_key, dropout_key = jax.random.split(key)
    x = augment(augment_key, batch, recipe)
    return forward_train(model, recipe, variables, x, dropout_key)


def cross_entropy(
    logits: Float[Array, "n c"], labels: Int[Array, " n"], smoothing: float = 0.0
) -> Float[Array, ""]:
    """Returns the mean cross-entropy against smoothed labels (1 - s) onehot(y) + s / C.

    Args:
      logits: [n, c].
      labels: [n] classes.
      smoothing: s, in [0, 1).
    """
    found: Array = example_losses(logits, labels, smoothing).mean()
    return found


def example_losses(
    logits: Float[Array, "n c"], labels: Int[Array, " n"], smoothing: float = 0.0
) -> Float[Array, " n"]:
    """Returns each example's cross-entropy; see `cross_entropy`.

    Args:
      logits: [n, c].
      labels: [n] classes.
      smoothing: s, in [0, 1).

    Raises:
      ValueError: logits of something else than labels, as of every next token.
    """
    if logits.ndim != 2:
        raise ValueError(
            f"logits of a batch's labels are [n, c], got {list(logits.shape)}; a network that "
            "tells every next token is trained with objective=CausalCrossEntropy(model, recipe), "
            "or built with head='answer'"
        )
    losses: Array = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    if smoothing == 0.0:
        return losses
    uniform = -jnp.mean(jax.nn.log_softmax(logits), axis=-1)
    return (1 - smoothing) * losses + smoothing * uniform


def augment(key: Key[Array, ""], batch: Dataset, recipe: Recipe) -> Num[Array, "n ..."]:
    """Returns the inputs of a batch under the recipe's random augmentation.

    Args:
      key: draws it anew for each example.
      batch: [n] examples; images unless the recipe has no augmentation.
      recipe: which augmentation, and by how many pixels.
    """
    if recipe.augmentation == "none":
        return batch.x
    shift_key, flip_key = jax.random.split(key)
    normalisation = check_continuous(batch, method="augmentation")
    black = normalisation.apply(jnp.zeros(1))
    x = shift_images(shift_key, batch.x, by=recipe.shift, fill=black)
    return flip_images(flip_key, x) if recipe.augmentation == "shift_flip" else x


def forward_train(
    model: Model, recipe: Recipe, variables: Variables, x: Array, key: Key[Array, ""]
) -> tuple[Float[Array, "n ... c"], State]:
    """Returns float32 logits in training mode and the new state, computed as the recipe says.

    Args:
      model: the network.
      recipe: whether the state is frozen, and the compute dtype.
      variables: weights and state before the batch.
      x: [n, ...] inputs.
      key: of dropout.
    """
    if recipe.frozen_state:
        model = freeze_state(model)
    dtype = jnp.dtype(recipe.compute_dtype)
    params = jax.tree.map(lambda w: w.astype(dtype), variables.params)
    x = x.astype(dtype) if jnp.issubdtype(x.dtype, jnp.floating) else x
    logits, state = model.apply_train(Variables(params, variables.state), x, key)
    kept = jax.tree.map(lambda new, old: new.astype(old.dtype), state, variables.state)
    return logits.astype(jnp.float32), kept


def init_train_state(recipe: Recipe, steps_per_epoch: int, variables: Variables) -> TrainState:
    """Returns the state before the first step.

    Args:
      recipe: of the optimiser.
      steps_per_epoch: turns the recipe's epochs into steps.
      variables: where to start.
    """
    optimizer = make_optimizer(recipe, steps_per_epoch)
    return TrainState(variables, optimizer.init(variables.params), jnp.int32(0))


@partial(jax.jit, static_argnames=("recipe",))
def start_state(variables: Variables, *, recipe: Recipe) -> TrainState:
    """Returns the state before the first step, in arrays of its own; see `split_recipe`.

    Args:
      variables: where the run begins; not donated with the state.
      recipe: its form.
    """
    copied = jax.tree.map(jnp.copy, variables)
    return init_train_state(recipe, 1, copied)


def train_step(
    objective: Objective,
    recipe: Recipe,
    steps_per_epoch: int,
    state: TrainState,
    batch: Dataset,
    key: Key[Array, ""],
    context: Any = None,
) -> tuple[TrainState, Metrics]:
    """Returns the state after one step on `batch`, and the step's metrics.

    g = ∇L(w) + ξ, ξ ~ N(0, gradient_noise² I);  w <- w + optimizer(g).

    Args:
      objective: L.
      recipe: optimiser and gradient noise are read from it.
      steps_per_epoch: turns the recipe's epochs into steps.
      state: before the step.
      batch: the step's examples.
      key: the run's key; the step's own is `fold_in(key, state.step)`.
      context: passed on to the objective, such as a teacher's weights.
    """
    optimizer, noise = make_optimizer(recipe, steps_per_epoch), recipe.gradient_noise or None
    return take_step(objective, optimizer, noise, state, batch, key, context)


def take_step(
    objective: Objective,
    optimizer: optax.GradientTransformation,
    gradient_noise: Float[Array, ""] | float | None,
    state: TrainState,
    batch: Dataset,
    key: Key[Array, ""],
    context: Any = None,
    *,
    shares: str | None = None,
) -> tuple[TrainState, Metrics]:
    """Returns what `train_step` does, with its optimiser and the strength of its noise given.

    Args:
      objective: L.
      optimizer: turns gradients into updates.
      gradient_noise: the noise's standard deviation; None for none.
      state: before the step.
      batch: the step's examples.
      key: the run's key.
      context: passed on to the objective.
      shares: the mapped axis over which devices hold equal shares of the step's examples, whose
        gradients, new states and metrics are averaged; None where `batch` is the whole step.
    """
    objective_key, noise_key = jax.random.split(jax.random.fold_in(key, state.step))
    if shares is not None:
        objective_key = jax.random.fold_in(objective_key, jax.lax.axis_index(shares))
    params = state.variables.params
    (_, (new_state, metrics)), gradient = jax.value_and_grad(objective, has_aux=True)(
        params, state.variables.state, batch, objective_key, context
    )
    if shares is not None:
        gradient, new_state, metrics = jax.lax.pmean((gradient, new_state, metrics), shares)
    if gradient_noise is not None:
        noise = optax.tree.random_like(noise_key, gradient)
        gradient = optax.tree.add_scale(gradient, gradient_noise, noise)
    updates, opt_state = optimizer.update(gradient, state.opt_state, params)
    variables = Variables(optax.apply_updates(params, updates), new_state)
    return TrainState(variables, opt_state, state.step + 1), metrics


def epoch_batches(
    key: Key[Array, ""], epoch: Int[Array, ""] | int, n: int, batch_size: int
) -> Int[Array, "steps batch"]:
    """Returns the batches of one epoch: the rows of a fresh permutation of range(n).

    Args:
      key: the run's order key; the epoch's own is `fold_in(key, epoch)`.
      epoch: its number, from 0.
      n: examples; the last partial batch is dropped.
      batch_size: examples per step.
    """
    order = jax.random.permutation(jax.random.fold_in(key, epoch), n)
    steps = n // batch_size
    return order[: steps * batch_size].reshape(steps, batch_size).astype(jnp.int32)


def run_epoch(
    objective: Objective,
    recipe: Recipe,
    state: TrainState,
    dataset: Dataset,
    batches: Int[Array, "steps batch"],
    key: Key[Array, ""],
    context: Any = None,
    *,
    steps_per_epoch: int | None = None,
) -> tuple[TrainState, Metrics]:
    """Returns the state after a step on each batch in turn, and the mean of the steps' metrics.

    Args:
      objective: what each step descends.
      recipe: how.
      state: before the step.
      dataset: the examples that `batches` indexes.
      batches: the indices of each step's examples.
      key: the run's step key.
      context: passed on to the objective.
      steps_per_epoch: turns the recipe's epochs into steps; None where an epoch is these batches.
    """
    steps = steps_per_epoch or batches.shape[0]
    state, metrics = run_steps(objective, recipe, steps, state, dataset, batches, key, context)
    return state, jax.tree.map(lambda m: m.mean(0), metrics)


def run_steps(
    objective: Objective,
    recipe: Recipe,
    steps_per_epoch: int,
    state: TrainState,
    dataset: Dataset,
    batches: Int[Array, "steps batch"],
    key: Key[Array, ""],
    context: Any = None,
) -> tuple[TrainState, Metrics]:
    """Returns the state after a step on each batch in turn, and the metrics of each step.

    Args:
      objective: what each step descends.
      recipe: how.
      steps_per_epoch: turns the recipe's epochs into steps.
      state: before the step.
      dataset: the examples that `batches` indexes.
      batches: the indices of each step's examples.
      key: the run's step key.
      context: passed on to the objective.
    """

    def body(carry: TrainState, indices: Array) -> tuple[TrainState, Metrics]:
        batch = dataset.take(indices)
        return train_step(objective, recipe, steps_per_epoch, carry, batch, key, context)

    return jax.lax.scan(body, state, batches)
