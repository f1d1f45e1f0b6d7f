"""Training the forget set on its nearest wrong classes (Boundary Shrink)."""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from unlearnkit.base import (
    Dataset,
    Model,
    Normalisation,
    OnEpoch,
    OnSnapshot,
    Task,
    Unlearned,
    Variables,
)
from unlearnkit.costs import FORWARD, Stopwatch
from unlearnkit.kernels import map_batches, margins
from unlearnkit.trials import UnlearnerTrial
from unlearnkit.unlearning._passes import descend_on_forget, gradients_on_forget
from unlearnkit.unlearning._sgd import SgdSettings, with_preparation
from unlearnkit.validation import check_above, check_continuous, check_task, check_variables

Box = tuple[float, float]


@dataclasses.dataclass(frozen=True)
class BoundaryShrink(SgdSettings):
    """Fine-tunes the forget set on the wrong class that lies nearest by one signed gradient step.

    x' = clip(x + step · sign ∇ₓ CE(f₀(x), y)),   y' = argmax_{c ≠ y} f₀(x')_c,
    min_w mean_forget CE(f_w(x), y')

    with x in pixels and f₀ the original network. BatchNorm is in evaluation mode in the search for
    y', in training mode in the descent (batches under 8: evaluation mode).

    Attributes:
      epochs: passes over the forget set; each uses every example, see `SgdSettings` for the rest.
      step: length of the gradient step in every pixel, in pixel units [0, 1].
      box: the range of pixels that x' is clipped to; None for inputs that are no pixels.

    Example:
      unlearn = unlearning.BoundaryShrink(epochs=5, step=0.1)
      forgotten, info = unlearn(key, model, variables, task)

    Cost: `(epochs + 4 / 3) * forget` example-gradients.

    Source: Chen et al. 2023 (step 0.1); defaults of Di et al. 2024, Table 5 (learning rate 1e-5, 10
    epochs) and §6.1 (momentum 0.9, weight decay 5e-4), at which the network barely moves. The
    public code takes the class predicted at x', which is y where the step does not cross the
    boundary, and would there train what is to be forgotten. Di et al. 2024, A.2.3 has the
    descriptions of Boundary Shrink and Boundary Expand exchanged.
    """

    learning_rate: float = 1e-5
    step: float = 0.1
    box: Box | None = (0.0, 1.0)

    on_forget: ClassVar[bool] = True

    trial: ClassVar[UnlearnerTrial] = UnlearnerTrial(
        small={"batch_size": 16, "learning_rate": 1e-3},
        effective={"epochs": 5, "batch_size": 10, "learning_rate": 0.02, "step": 0.5, "box": None},
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        check_above(self, 0, "step")
        if self.box is not None and not self.box[0] < self.box[1]:
            raise ValueError(f"box must be (least, most) with least < most, got {self.box}")

    def __call__(
        self,
        key: Key[Array, ""],
        model: Model,
        variables: Variables,
        task: Task,
        *,
        on_epoch: OnEpoch | None = None,
        on_snapshot: OnSnapshot | None = None,
    ) -> Unlearned:
        """Returns the network after fine-tuning on the nearest wrong classes.

        Raises:
          ValueError: a task or variables that do not fit the model, a model of one class, pixels
            outside the box, or a batch larger than the forget set.
          DivergedError: the loss is no longer finite.
        """
        check_task(task, model)
        check_continuous(task.retain, method="BoundaryShrink")
        check_variables(variables, model)
        if model.n_classes < 2:
            raise ValueError("Boundary Shrink needs a model of at least 2 classes, got 1")
        fitted = self.fitted(variables, task.forget)
        _check_box(task.forget, self.box)
        with Stopwatch() as watch:
            labels = nearest_wrong_classes(
                model,
                variables,
                task.forget,
                step=self.step,
                box=self.box,
                chunk=fitted.recipe.batch_size,
            )
            relabelled = task.forget._replace(y=jax.block_until_ready(labels))
        unlearned = descend_on_forget(
            key,
            model,
            variables,
            relabelled,
            fitted,
            on_epoch=on_epoch,
            on_snapshot=on_snapshot,
        )
        return with_preparation(unlearned, _search_gradients(task), watch)

    def example_gradients(self, variables: Variables, task: Task) -> float:
        """Returns what a run takes, which follows from sizes alone; see `info.cost`."""
        recipe, _ = self.fitted(variables, task.forget)
        return gradients_on_forget(recipe, task.forget.size) + _search_gradients(task)


def _search_gradients(task: Task) -> float:
    """Returns what the search for the nearest classes takes."""
    return task.forget.size * (1 + FORWARD)


@partial(jax.jit, static_argnames=("model", "step", "box", "chunk"))
def nearest_wrong_classes(
    model: Model,
    variables: Variables,
    dataset: Dataset,
    *,
    step: float,
    box: Box | None,
    chunk: int,
) -> Int[Array, " n"]:
    """Returns for every example the strongest class but its own after one signed gradient step.

    Args:
      model: the network, in evaluation mode.
      variables: its weights.
      dataset: examples and the labels that they are moved away from.
      step: in pixel units.
      box: range of the pixels, or None.
      chunk: examples a pass; the result does not depend on it beyond rounding.
    """
    normalisation = check_continuous(dataset, method="BoundaryShrink")

    def nearest(weights: Variables, x: Array, y: Array) -> Array:
        moved = fgsm(model, weights, x, y, normalisation=normalisation, step=step, box=box)
        logits = model.apply(weights, moved)
        own = jnp.arange(model.n_classes) == y[:, None]
        return jnp.argmax(jnp.where(own, -jnp.inf, logits), axis=-1).astype(y.dtype)

    found: Array = map_batches(nearest, variables, (dataset.x, dataset.y), chunk)
    return found


def fgsm(
    model: Model,
    variables: Variables,
    x: Float[Array, "n ..."],
    y: Int[Array, " n"],
    *,
    normalisation: Normalisation,
    step: float,
    box: Box | None,
) -> Float[Array, "n ..."]:
    """Returns normalised inputs moved by `step` pixel units along the sign of their loss gradient.

    CE = softplus(-m) rises as the margin m = f_y - logsumexp_{c≠y} f_c falls, so that the sign is
    that of -∇m, which stays exact where float32 rounds softmax to 0 and 1. It is the same in pixels
    as in normalised units, as the standard deviations are positive.

    Args:
      model: the network, asked in evaluation mode.
      variables: its weights and state.
      x: [n, ...] normalised inputs.
      y: [n] labels whose loss is to rise.
      normalisation: how the inputs were made from pixels.
      step: in pixel units, of [0, 1].
      box: range to which pixels are clipped; None for none.

    Source: Goodfellow et al. 2015, fast gradient sign method.
    """

    def margin(inputs: Array) -> Array:
        return jnp.sum(margins(model.apply(variables, inputs), y))

    pixels = normalisation.invert(x) - step * jnp.sign(jax.grad(margin)(x))
    return normalisation.apply(pixels if box is None else jnp.clip(pixels, *box))


def _check_box(forget: Dataset, box: Box | None) -> None:
    if box is None:
        return
    pixels = check_continuous(forget, method="BoundaryShrink").invert(forget.x)
    least, most = float(pixels.min()), float(pixels.max())
    slack = 1e-3 * (box[1] - box[0])
    if least < box[0] - slack or most > box[1] + slack:
        raise ValueError(
            f"pixels of forget must be in {box}, got {least:g} … {most:g}; give the dataset the "
            "normalisation that it was made with, or set box=None where inputs are no pixels"
        )
