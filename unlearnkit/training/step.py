"""One step and one compiled epoch of stochastic gradient training, as pure functions."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from functools import partial
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Array, Float, Int, Key

from unlearnkit.base import Dataset, Model, Params, State, Variables
from unlearnkit.models.adapters import freeze_state
from unlearnkit.training.augmentation import flip_images, shift_images
from unlearnkit.training.recipe import Recipe, make_optimizer

Metrics = Mapping[str, Float[Array, "..."]]


class TrainState(NamedTuple):
    """What the next step needs.

    Attributes:
      variables: the network as it stands.
      opt_state: the optimiser's memory.
      step: how many steps were taken.
    """

    variables: Variables
    opt_state: Any
    step: Int[Array, ""]


@runtime_checkable
class Objective(Protocol):
    """What a step descends; a hashable value, so that it can be a static argument."""

    def __call__(
        self,
        params: Params,
        state: State,
        batch: Dataset,
        key: Key[Array, ""],
        context: Any,
    ) -> tuple[Float[Array, ""], tuple[State, Metrics]]: ...


@dataclasses.dataclass(frozen=True)
class CrossEntropy:
    """The mean cross-entropy of a batch in training mode, times `sign`.

    L = sign · mean_i [ -Σ_c q_ic log softmax(f(x_i))_c ],  q = (1 - s) onehot(y) + s / C

    Attributes:
      model: the network f.
      recipe: label smoothing s, augmentation, compute dtype and frozen state are read from it.
      sign: -1 ascends.
    """

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
        augment_key, dropout_key = jax.random.split(key)
        x = augment(augment_key, batch, self.recipe)
        logits, new_state = forward_train(
            self.model, self.recipe, Variables(params, state), x, dropout_key
        )
        loss = cross_entropy(logits, batch.y, self.recipe.label_smoothing)
        accuracy = jnp.mean(jnp.argmax(logits, -1) == batch.y)
        return self.sign * loss, (new_state, {"loss": loss, "accuracy": accuracy})


def cross_entropy(
    logits: Float[Array, "n c"], labels: Int[Array, " n"], smoothing: float = 0.0
) -> Float[Array, ""]:
    """Returns the mean cross-entropy against smoothed labels (1 - s) onehot(y) + s / C."""
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    if smoothing == 0.0:
        return losses.mean()
    uniform = -jnp.mean(jax.nn.log_softmax(logits), axis=-1)
    return jnp.mean((1 - smoothing) * losses + smoothing * uniform)


def augment(key: Key[Array, ""], batch: Dataset, recipe: Recipe) -> Float[Array, "n ..."]:
    """Returns the inputs of a batch under the recipe's random augmentation."""
    if recipe.augmentation == "none":
        return batch.x
    shift_key, flip_key = jax.random.split(key)
    black = batch.normalisation.apply(jnp.zeros(1))
    x = shift_images(shift_key, batch.x, by=recipe.shift, fill=black)
    return flip_images(flip_key, x) if recipe.augmentation == "shift_flip" else x


def forward_train(
    model: Model, recipe: Recipe, variables: Variables, x: Array, key: Key[Array, ""]
) -> tuple[Float[Array, "n c"], State]:
    """Returns float32 logits in training mode and the new state, computed as the recipe says."""
    if recipe.frozen_state:
        model = freeze_state(model)
    dtype = jnp.dtype(recipe.compute_dtype)
    params = jax.tree.map(lambda w: w.astype(dtype), variables.params)
    logits, state = model.apply_train(Variables(params, variables.state), x.astype(dtype), key)
    kept = jax.tree.map(lambda new, old: new.astype(old.dtype), state, variables.state)
    return logits.astype(jnp.float32), kept


def init_train_state(recipe: Recipe, steps_per_epoch: int, variables: Variables) -> TrainState:
    """Returns the state before the first step."""
    optimizer = make_optimizer(recipe, steps_per_epoch)
    return TrainState(variables, optimizer.init(variables.params), jnp.int32(0))


def train_step(
    objective: Objective,
    recipe: Recipe,
    steps_per_epoch: int,
    state: TrainState,
    batch: Dataset,
    key: Key[Array, ""],
    context: Any = None,
    *,
    shares: str | None = None,
) -> tuple[TrainState, Metrics]:
    """Returns the state after one step on `batch`, and the step's metrics.

    g = ∇L(w) + ξ, ξ ~ N(0, gradient_noise² I);  w <- w + optimizer(g).

    Args:
      objective: L.
      recipe: optimiser and gradient noise are read from it.
      steps_per_epoch: turns the recipe's epochs into steps.
      state: where the run stands.
      batch: the step's examples.
      key: the run's key; the step's own is `fold_in(key, state.step)`.
      context: passed on to the objective, as a teacher's weights.
      shares: the mapped axis over which devices hold equal shares of the step's examples, whose
        gradients, new states and metrics are averaged; None where `batch` is the whole step.
    """
    optimizer, noise = make_optimizer(recipe, steps_per_epoch), recipe.gradient_noise or None
    return take_step(objective, optimizer, noise, state, batch, key, context, shares=shares)


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
    """Returns what `train_step` does, with the optimiser and the strength of the noise given."""
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
    """Returns the batches of one epoch: the rows of a fresh permutation of range(n)."""
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
    shares: str | None = None,
) -> tuple[TrainState, Metrics]:
    """Returns the state after a step on each batch in turn, and the mean of the steps' metrics.

    Args:
      objective: what each step descends.
      recipe: how.
      state: where the run stands.
      dataset: the examples that `batches` indexes.
      batches: the indices of each step's examples.
      key: the run's step key.
      context: passed on to the objective.
      steps_per_epoch: turns the recipe's epochs into steps; None where an epoch is these batches.
      shares: see `train_step`.
    """
    steps = steps_per_epoch or batches.shape[0]
    state, metrics = run_steps(
        objective, recipe, steps, state, dataset, batches, key, context, shares=shares
    )
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
    *,
    shares: str | None = None,
) -> tuple[TrainState, Metrics]:
    """Returns the state after a step on each batch in turn, and the metrics of each step.

    See `run_epoch` for the arguments; `steps_per_epoch` turns the recipe's epochs into steps.
    """

    def body(carry: TrainState, indices: Array) -> tuple[TrainState, Metrics]:
        batch = dataset.take(indices)
        return train_step(
            objective, recipe, steps_per_epoch, carry, batch, key, context, shares=shares
        )

    return jax.lax.scan(body, state, batches)


@partial(
    jax.jit,
    static_argnames=("objective", "recipe", "batch_size", "mesh"),
    donate_argnames=("state",),
)
def train_epoch(
    state: TrainState,
    dataset: Dataset,
    order_key: Key[Array, ""],
    step_key: Key[Array, ""],
    context: Any = None,
    *,
    objective: Objective,
    recipe: Recipe,
    batch_size: int,
    mesh: Mesh | None = None,
) -> tuple[TrainState, Metrics]:
    """Returns the state after one compiled epoch over a fresh permutation, and its mean metrics.

    `state` is donated: its buffers are gone after the call. With a `mesh` of one axis, its devices
    take an equal share of every batch each.
    """
    epoch = partial(_epoch, objective, recipe, batch_size, mesh)
    return epoch(state, dataset, order_key, step_key, context)


@partial(
    jax.jit,
    static_argnames=("objective", "recipe", "batch_size", "epochs", "mesh"),
    donate_argnames=("state",),
)
def train_epochs(
    state: TrainState,
    dataset: Dataset,
    order_key: Key[Array, ""],
    step_key: Key[Array, ""],
    context: Any = None,
    *,
    objective: Objective,
    recipe: Recipe,
    batch_size: int,
    epochs: int,
    mesh: Mesh | None = None,
) -> tuple[TrainState, Metrics]:
    """Returns the state after several epochs in one compiled call, and each epoch's mean metrics.

    The same as `epochs` calls of `train_epoch`, without the way to the host between them. `state`
    is donated.
    """
    epoch = partial(_epoch, objective, recipe, batch_size, mesh)

    def one(state: TrainState, _: None) -> tuple[TrainState, Metrics]:
        return epoch(state, dataset, order_key, step_key, context)

    return jax.lax.scan(one, state, length=epochs)


def _epoch(
    objective: Objective,
    recipe: Recipe,
    batch_size: int,
    mesh: Mesh | None,
    state: TrainState,
    dataset: Dataset,
    order_key: Key[Array, ""],
    step_key: Key[Array, ""],
    context: Any,
) -> tuple[TrainState, Metrics]:
    epoch = state.step // (dataset.size // batch_size)
    batches = epoch_batches(order_key, epoch, dataset.size, batch_size)
    if mesh is None:
        return run_epoch(objective, recipe, state, dataset, batches, step_key, context)
    (axis,) = mesh.axis_names

    def share(
        state: TrainState,
        batches: Int[Array, "steps share"],
        dataset: Dataset,
        key: Key[Array, ""],
        context: Any,
    ) -> tuple[TrainState, Metrics]:
        return run_epoch(objective, recipe, state, dataset, batches, key, context, shares=axis)

    whole = PartitionSpec()
    run = jax.shard_map(
        share,
        mesh=mesh,
        in_specs=(whole, PartitionSpec(None, axis), whole, whole, whole),
        out_specs=whole,
        check_vma=False,
    )
    return run(state, batches, dataset, step_key, context)


@partial(jax.jit, static_argnames=("objective", "recipe", "steps_per_epoch"))
def train_segment(
    state: TrainState,
    dataset: Dataset,
    batches: Int[Array, "steps batch"],
    step_key: Key[Array, ""],
    context: Any = None,
    *,
    objective: Objective,
    recipe: Recipe,
    steps_per_epoch: int,
) -> tuple[TrainState, Metrics]:
    """Returns the state after one compiled run of steps on these batches, and each step's metrics.

    What writes a trajectory and what replays it call this one function, so that the same program
    computes both. `state` is kept: it is being written while the next segment runs.
    """
    return run_steps(objective, recipe, steps_per_epoch, state, dataset, batches, step_key, context)


@partial(jax.jit, static_argnames=("epochs", "n", "batch_size"))
def all_batches(
    order_key: Key[Array, ""], *, epochs: int, n: int, batch_size: int
) -> Int[Array, "steps batch"]:
    """Returns the batches of every epoch of a run, one after another."""
    batches = jax.lax.map(
        lambda epoch: epoch_batches(order_key, epoch, n, batch_size), jnp.arange(epochs)
    )
    return batches.reshape(-1, batch_size)
