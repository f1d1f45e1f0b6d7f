"""The training step that a forger imitates."""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Bool, Float, Int, Num

from unlearnkit.base import Dataset, Model, Params, SoftDataset, Variables
from unlearnkit.kernels import GradientOperator, gram, tree_norm
from unlearnkit.rows import check_rows
from unlearnkit.validation import check_compatible, check_dataset


class LoggedBatch(NamedTuple):
    """The batch that took a step, for forgers that keep a part of it.

    Attributes:
      batch: [b] examples.
      forget: [b] which of them must not stand in the forged batch, at least one.
    """

    batch: Dataset
    forget: Bool[np.ndarray, " b"]


class Step(NamedTuple):
    """A step θ' = θ - η g that a forged batch is to take.

    Attributes:
      variables: θ, where it begins.
      gradient: g, a pytree like θ.
      batch_size: b, the examples of the batch.
      learning_rate: η.
      logged: the batch that took it, where it is known which of its examples are to be forgotten;
        None otherwise.
    """

    variables: Variables
    gradient: Params
    batch_size: int
    learning_rate: float
    logged: LoggedBatch | None = None


@dataclasses.dataclass(frozen=True)
class BatchLoss:
    """The mean cross-entropy of a batch in evaluation mode, as a hashable function.

    Labels may be real vectors y [n, c], distributions or not, whose loss is
    Σ_j y_j (log Σ_m exp z_m - z_j).

    Attributes:
      model: the network.
    """

    model: Model

    def __call__(self, params: Params, x: Array, y: Num[Array, ...]) -> Float[Array, ""]:
        """Returns the loss of examples x [n, ...].

        Args:
          params: the network's weights.
          x: [n, ...] inputs.
          y: [n] classes, or [n, c] soft labels.
        """
        logits = self.model.apply(Variables(params), x)
        if jnp.issubdtype(y.dtype, jnp.integer):
            y = jax.nn.one_hot(y, logits.shape[-1], dtype=logits.dtype)
        return -jnp.mean(jnp.sum(y * jax.nn.log_softmax(logits), axis=-1))


def honest_step(
    model: Model,
    variables: Variables,
    batch: Dataset | SoftDataset,
    learning_rate: float,
    *,
    forget: Int[np.ndarray | Array, " m"] | Bool[np.ndarray | Array, " b"] | None = None,
) -> Step:
    """Returns the step that `batch` takes from `variables`.

    Args:
      model: a network without state.
      variables: its weights before the step.
      batch: b examples, of classes or of soft labels.
      learning_rate: of plain SGD, > 0.
      forget: [m] places in the batch, or [b] booleans, of the examples that are to be forgotten:
        for forgers that keep the others; None tells a forger nothing of the batch.

    Raises:
      ValueError: a network with state, a batch that does not fit it, a rate <= 0, or `forget` that
        names no example of a batch of classes.

    Example:
      step = forging.honest_step(model, variables, train.take(np.arange(100)), learning_rate=0.01)
    """
    if not learning_rate > 0:
        raise ValueError(f"learning_rate must be > 0, got {learning_rate}")
    check_stateless(variables)
    if isinstance(batch, Dataset):
        check_dataset(batch, name="batch")
        check_compatible(batch, model, name="batch")
    logged = None if forget is None else _logged(batch, forget)
    gradient = batch_gradient(model, variables, batch)
    return Step(variables, gradient, len(batch.y), learning_rate, logged)


def _logged(batch: Dataset | SoftDataset, forget: object) -> LoggedBatch:
    if not isinstance(batch, Dataset):
        raise ValueError("forget names examples of a batch of classes, this one has soft labels")
    places = np.asarray(check_rows(forget, batch.size, name="forget", of="the batch"))
    if places.size == 0:
        raise ValueError(f"forget must name places 0 … {batch.size - 1} of the batch, got none")
    return LoggedBatch(batch, np.isin(np.arange(batch.size), places))


def batch_gradient(model: Model, variables: Variables, batch: Dataset | SoftDataset) -> Params:
    """Returns the gradient of the mean loss of a batch, at the highest matmul precision.

    Args:
      model: a network without state.
      variables: its weights.
      batch: b examples, of classes or of soft labels.
    """
    with jax.default_matmul_precision("highest"):
        return _gradient(BatchLoss(model), variables.params, batch.x, batch.y)


def step_error(model: Model, step: Step, batch: Dataset | SoftDataset) -> Float[Array, ""]:
    """Returns ‖θ'_forged - θ'‖₂ = η ‖∇L(batch) - g‖₂ of the step that `batch` takes.

    Args:
      model: a network without state.
      step: the logged one, with its gradient g and learning rate η.
      batch: the forged examples.
    """
    found: Array = _distance(
        batch_gradient(model, step.variables, batch), step.gradient, step.learning_rate
    )
    return found


def check_stateless(variables: Variables) -> None:
    """Raises ValueError if a batch's gradient is not the mean of its examples' gradients.

    Raises:
      ValueError: the network carries state.
    """
    if jax.tree.leaves(variables.state):
        raise ValueError(
            "forging needs a network without BatchNorm: the gradient of a batch must be the mean "
            "of its examples' gradients; forge a network that carries no state"
        )


def check_forgeable(model: Model, step: Step, allowed: Dataset) -> None:
    """Raises ValueError if a step cannot be forged from these examples.

    Args:
      model: the network that took the step.
      step: to be forged.
      allowed: the examples that a forger may use.

    Raises:
      ValueError: a network with state, or fewer allowed examples than the batch needs.
    """
    check_stateless(step.variables)
    check_dataset(allowed, name="allowed")
    check_compatible(allowed, model, name="allowed")
    if allowed.size < step.batch_size:
        raise ValueError(
            f"allowed holds {allowed.size} examples, but the batch needs {step.batch_size}"
        )


def difference_products(model: Model, step: Step, dataset: Dataset) -> Float[Array, "n n"]:
    """Returns K_ij = h_i·h_j for each example's gradient less the step's, h_i = ∇ℓ_i - g.

    A batch S errs by (η / b) ‖Σ_{i ∈ S} h_i‖₂ = (η / b) (1_Sᵀ K 1_S)^½. No gradient is stored.

    Args:
      model: a network without state.
      step: with its gradient g.
      dataset: n examples.
    """
    gradients = GradientOperator(BatchLoss(model), step.variables.params, dataset)
    return gram(gradients, centre=ravel_pytree(step.gradient)[0])


@partial(jax.jit, static_argnums=0)
def _gradient(loss: BatchLoss, params: Params, x: Array, y: Array) -> Params:
    return jax.grad(loss)(params, x, y)


@jax.jit
def _distance(one: Params, other: Params, scale: Any) -> Array:
    # An error of zero means equality: squares of tiny differences must not vanish.
    found: Array = scale * tree_norm(jax.tree.map(jnp.subtract, one, other))
    return found
