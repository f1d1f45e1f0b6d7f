"""The gradient through a whole run of `fit`, by its data, their weights and its hyperparameters."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from functools import partial
from typing import ClassVar, Literal, NamedTuple, Protocol, TypeAlias, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from unlearnkit.base import Dataset, Model, Params, State, Variables
from unlearnkit.host.order import several_epochs
from unlearnkit.host.random import host_key
from unlearnkit.host.reserve import reserve
from unlearnkit.kernels import metagradient
from unlearnkit.kernels.metagradient import plan_checkpoints
from unlearnkit.rows import check_rows
from unlearnkit.training.divergence import DivergedError
from unlearnkit.training.fit import check_data
from unlearnkit.training.recipe import (
    Recipe,
    RecipeNumbers,
    optimizer_of_form,
    rate_table,
    split_recipe,
)
from unlearnkit.training.smoothness import check_smooth
from unlearnkit.training.step import (
    CrossEntropy,
    Metrics,
    TrainState,
    example_losses,
    forward_augmented,
    init_train_state,
    take_step,
)
from unlearnkit.validation import all_finite, check_choice, check_continuous, check_variables

Hyperparameter: TypeAlias = Literal["learning_rate", "momentum", "weight_decay"]
Rows: TypeAlias = Int[Array | np.ndarray, " m"] | Sequence[int]


@runtime_checkable
class Outcome(Protocol):
    """What becomes of a trained network, as a number; hashable, for `jax.jit`."""

    def __call__(self, variables: Variables, context: Params) -> Float[Array, ""]:
        """Returns the outcome of a trained network.

        Args:
          variables: of the network.
          context: arrays, as the examples it is judged by.
        """
        ...


class FitGradient(NamedTuple):
    """A run of `fit`, and how the outcome depends on what it was made from.

    Attributes:
      value: the outcome.
      variables: the trained network, as `fit` returns it.
      inputs: [m, ...] the derivative by the inputs of the rows that were asked for; no rows else.
      weights: [n] the derivative by each example's weight in the loss, at 1; no rows unless asked.
      hyperparameters: the derivative by each of those that were asked for.
    """

    value: Float[Array, ""]
    variables: Variables
    inputs: Float[Array, "m ..."]
    weights: Float[Array, " n"]
    hyperparameters: Mapping[str, Float[Array, ""]]


@dataclasses.dataclass(frozen=True)
class WeightedCrossEntropy:
    """The mean over a batch of each example's cross-entropy times its weight, the context.

    L = 1/n Σ_i w_i CE_i;   see `CrossEntropy`, which it is where all weights are 1.
    """

    NUMBERS: ClassVar[tuple[str, ...]] = ()

    model: Model
    recipe: Recipe

    def __call__(
        self,
        params: Params,
        state: State,
        batch: Dataset,
        key: Key[Array, ""],
        context: Float[Array, " n"],
    ) -> tuple[Float[Array, ""], tuple[State, Metrics]]:
        """Returns the loss, and the new state with the `loss` of the batch."""
        variables = Variables(params, state)
        logits, new_state = forward_augmented(self.model, self.recipe, variables, batch, key)
        losses = example_losses(logits, batch.y, self.recipe.label_smoothing)
        loss = jnp.mean(context * losses)
        return loss, (new_state, {"loss": loss})


def differentiate_fit(
    key: Key[Array, ""],
    model: Model,
    dataset: Dataset,
    recipe: Recipe,
    outcome: Outcome,
    context: Params = None,
    *,
    rows: Rows | None = None,
    weights: bool = False,
    hyperparameters: Sequence[Hyperparameter] = (),
    variables: Variables | None = None,
    checkpoints: int | None = None,
) -> FitGradient:
    """Returns `fit(key, model, dataset, recipe)`, its outcome, and the gradient of that.

    dL(w_T)/dz,   w_T the network that `fit` trains: from the same initialisation, on the same
    batches in the same order, with the same augmentation, at the same rates. z are the inputs of
    some rows, the weights of all examples in the mean loss, or hyperparameters. It takes the run
    about five times, and keeps about 2 √T of its T states.

    Args:
      key: a typed key; see `fit`.
      model: the network, smooth in training.
      dataset: [n] examples.
      recipe: how to train.
      outcome: (variables, context) -> scalar L; the same function each time compiles once.
      context: arrays that the outcome needs, as the examples it judges by.
      rows: [m] of the dataset, each once, by whose inputs L is differentiated; None for none.
      weights: whether L is differentiated by the examples' weights.
      hyperparameters: by which of `learning_rate` (the peak rate, the schedule's shape kept),
        `momentum` and `weight_decay`.
      variables: where to start; None starts from a fresh initialisation.
      checkpoints: the most states kept; see `unlearnkit.kernels.metagradient`.

    Raises:
      ValueError: data or variables that do not fit the model, a batch larger than the data, a run
        of no step, nothing to differentiate by, a network with max-pool or dropout, an optimiser
        that has no such derivative, or too few checkpoints.
      DivergedError: the outcome or its gradient is not finite.

    Example:
      def held_out_loss(variables, held):
          return training.cross_entropy(model.apply(variables, held.x), held.y)
      recipe = training.Recipe(epochs=2, batch_size=100, learning_rate=0.1)
      run = training.differentiate_fit(
          key, model, train, recipe, held_out_loss, test, rows=range(10)
      )
      harm = run.inputs  # of moving the first ten examples

    Source: Engstrom et al. 2025, §2 and §3.
    """
    _check(model, dataset, recipe, hyperparameters)
    if rows is not None:
        check_continuous(dataset, method="differentiate_fit by inputs")
    if rows is None and not weights and not hyperparameters:
        raise ValueError("give rows, weights=True or hyperparameters: what to differentiate by")
    steps = recipe.epochs * recipe.steps_per_epoch(dataset.size)
    if steps == 0:
        raise ValueError("a run of 0 epochs depends on none of these; give epochs >= 1")
    plan_checkpoints(steps, checkpoints)
    init_key, run_key = (half.typed() for half in host_key(key).split())
    if variables is None:
        variables = jax.jit(model.init)(init_key)
    check_variables(variables, model)
    order_key, drives = host_key(run_key).split()
    batches = several_epochs(order_key, range(recipe.epochs), dataset.size, recipe.batch_size)
    moved = _distinct(rows, dataset.size)
    asked = Asked(rows is not None, weights, tuple(sorted(hyperparameters)))
    schedule = Schedule(batches, rate_table(recipe, recipe.steps_per_epoch(dataset.size), steps))
    form, numbers, at = _split(recipe, asked)
    slots = _slots(batches, moved, dataset.size, recipe.batch_size) if asked.inputs else None
    value, gradient, end = _differentiate(
        variables,
        reserve(dataset),
        jax.device_put((moved, schedule, slots, numbers, at)),
        drives.typed(),
        context,
        outcome=outcome,
        model=model,
        recipe=form,
        asked=asked,
        checkpoints=checkpoints,
    )
    if not all_finite((value, gradient)):
        raise DivergedError(
            "the outcome of the run or its gradient is not finite: small changes grow without "
            f"bound along it; lower learning_rate={recipe.learning_rate:g} or epochs="
            f"{recipe.epochs}"
        )
    shape = tuple(model.input_shape)
    return FitGradient(
        value,
        end,
        gradient.get("inputs", jnp.zeros((0, *shape))),
        gradient["weights"][: dataset.size] if weights else jnp.zeros(0),
        {name: gradient[name] for name in asked.hyperparameters},
    )


@dataclasses.dataclass(frozen=True)
class Asked:
    """What is differentiated by; hashable, for `jax.jit`."""

    inputs: bool
    weights: bool
    hyperparameters: tuple[Hyperparameter, ...]


class Schedule(NamedTuple):
    """The rows and the learning rate of each step."""

    rows: Int[np.ndarray | Array, "steps batch"]
    rates: Float[np.ndarray | Array, " steps"]


class Slots(NamedTuple):
    """Where in each batch the rows stand that are differentiated by.

    Attributes:
      position: [steps, room] within the batch; the batch size for none.
      which: [steps, room] of the rows; 0 for none.
    """

    position: Int[np.ndarray | Array, "steps room"]
    which: Int[np.ndarray | Array, "steps room"]


@partial(jax.jit, static_argnames=("outcome", "model", "recipe", "asked", "checkpoints"))
def _differentiate(
    variables: Variables,
    dataset: Dataset,
    numbers: tuple[Array, Schedule, Slots | None, RecipeNumbers, Mapping[str, Array]],
    key: Key[Array, ""],
    context: Params,
    *,
    outcome: Outcome,
    model: Model,
    recipe: Recipe,
    asked: Asked,
    checkpoints: int | None,
) -> tuple[Array, dict[str, Array], Variables]:
    """Returns the outcome, its derivatives by name, and the trained network."""
    moved, schedule, slots, recipe_numbers, at = numbers
    objective = (WeightedCrossEntropy if asked.weights else CrossEntropy)(model, recipe)
    meta: dict[str, Array] = dict(at)
    if asked.inputs:
        meta["inputs"] = dataset.x[moved]
    if asked.weights:
        meta["weights"] = jnp.ones(dataset.size)

    def select(meta: dict[str, Array], plan: tuple[Schedule, Slots | None]) -> dict[str, Array]:
        now, slots = plan
        selected = {"rows": jnp.asarray(now.rows), "rate": jnp.asarray(now.rates)}
        if slots is not None:
            selected["position"] = jnp.asarray(slots.position)
            selected["inputs"] = meta["inputs"][slots.which]
        if asked.weights:
            selected["weights"] = meta["weights"][now.rows]
        return selected

    def step(state: TrainState, meta: dict[str, Array], now: dict[str, Array]) -> TrainState:
        rate = now["rate"]
        if "learning_rate" in meta:
            rate = rate * (meta["learning_rate"] / at["learning_rate"])
        held = {name: meta[name] for name in ("momentum", "weight_decay") if name in meta}
        optimizer = optimizer_of_form(recipe, recipe_numbers._replace(**held), lambda _: rate)
        batch = dataset.take(now["rows"])
        if asked.inputs:
            batch = batch._replace(
                x=batch.x.at[now["position"]].set(now["inputs"], mode="drop", unique_indices=False)
            )
        noise = recipe_numbers.gradient_noise
        weights = now.get("weights")
        return take_step(objective, optimizer, noise, state, batch, key, weights)[0]

    found = metagradient(
        step,
        lambda state, _: outcome(state.variables, context),
        init_train_state(recipe, 1, variables),
        meta,
        (schedule, slots),
        select=select,
        checkpoints=checkpoints,
    )
    return found.value, found.gradient, found.end.variables


def _split(recipe: Recipe, asked: Asked) -> tuple[Recipe, RecipeNumbers, dict[str, float]]:
    """Returns the form and numbers of a recipe, and the hyperparameters that were asked for.

    Its form has a term for each of them, even where it is 0.
    """
    names = asked.hyperparameters
    present = dataclasses.replace(
        recipe,
        momentum=recipe.momentum or (0.5 if "momentum" in names else 0.0),
        weight_decay=recipe.weight_decay or (0.5 if "weight_decay" in names else 0.0),
    )
    form, numbers = split_recipe(present)
    at: dict[str, float] = {name: float(getattr(recipe, name)) for name in names}
    for name in names:
        if name != "learning_rate":
            numbers = numbers._replace(**{name: at[name]})
    return form, numbers, at


def _slots(
    batches: Int[np.ndarray, "steps batch"], moved: Int[np.ndarray, " m"], n: int, batch_size: int
) -> Slots:
    """Returns where the rows stand; room is for the most in one batch, in few sizes."""
    which = np.full(n, -1, np.int32)
    which[moved] = np.arange(len(moved), dtype=np.int32)
    found = which[batches]
    most, grain = int((found >= 0).sum(1).max()), max(4, batch_size // 8)
    room = min(-(-max(most, 1) // grain) * grain, batch_size)
    position = np.argsort(found < 0, axis=1, kind="stable")[:, :room].astype(np.int32)
    held = np.take_along_axis(found, position, axis=1)
    return Slots(np.where(held >= 0, position, batch_size), np.maximum(held, 0))


def _distinct(rows: Rows | None, n: int) -> Int[np.ndarray, " m"]:
    if rows is None:
        return np.zeros(0, np.int32)
    found = np.asarray(check_rows(np.asarray(rows), n), np.int32)
    if len(np.unique(found)) != len(found) or len(found) == 0:
        raise ValueError(f"rows must name at least one example, each once, got {len(found)} rows")
    return found


def _check(
    model: Model,
    dataset: Dataset,
    recipe: Recipe,
    hyperparameters: Sequence[Hyperparameter],
) -> None:
    check_data(dataset, model, recipe)
    check_smooth(model, recipe)
    for name in hyperparameters:
        check_choice("hyperparameters", name, Hyperparameter)
    if "momentum" in hyperparameters and recipe.optimizer != "sgd":
        raise ValueError("hyperparameters: momentum is an argument of optimizer='sgd' alone")
