"""Student and teacher (SCRUB), with rewind (SCRUB+R)."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from types import MappingProxyType
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from unlearnkit.base import (
    Dataset,
    Model,
    OnEpoch,
    OnSnapshot,
    Params,
    State,
    Task,
    Unlearned,
    Variables,
)
from unlearnkit.costs import FORWARD, Stopwatch
from unlearnkit.host.order import epoch_rows, whole_rows
from unlearnkit.host.random import host_key
from unlearnkit.host.reserve import reserve
from unlearnkit.training import Recipe, cross_entropy, predict, rate_table
from unlearnkit.training.recipe import OptimizerName
from unlearnkit.training.step import Metrics, augment, forward_train
from unlearnkit.trials import NoEffect, UnlearnerTrial
from unlearnkit.unlearning._passes import (
    Pass,
    TwoSetSettings,
    descend_passes,
    gradients_on_forget,
    steps_of_whole_pass,
)
from unlearnkit.unlearning._rewind import Rewind
from unlearnkit.unlearning._sgd import with_preparation
from unlearnkit.validation import check_above, check_at_least, check_task, check_variables


@dataclasses.dataclass(frozen=True)
class Scrub(TwoSetSettings):
    """Trains a student towards its teacher on the retain set, away from it on the forget set.

    D(x) = T² KL(softmax f₀(x)/T ‖ softmax f_w(x)/T), f₀ the original network in evaluation mode.
    In each epoch, while it is among the first `max_epochs`, a pass over the forget set that
    descends -D; then a pass over the retain set that descends γ CE + α D. One optimiser for both;
    BatchNorm of the student in training mode in both (forget batches under 8: evaluation mode).
    The pass over the forget set uses every example. The schedule is the method's own.

    With `rewind` (SCRUB+R) the result is the network after that epoch whose error on the forget set
    is closest to the error of the last epoch's network on the validation examples of the forget
    set's classes; of equally close ones the latest. `kept` in the history marks it.

    Attributes:
      epochs: passes over the retain set.
      max_epochs: how many of them, the first, begin with a pass over the forget set.
      alpha: α, the weight of D on the retain set.
      gamma: γ, the weight of the cross-entropy on the retain set.
      temperature: T.
      optimizer: `sgd`, `adam` or `adamw`.
      milestones: epochs after which the learning rate is multiplied by `step_factor`.
      step_factor: see `milestones`.
      rewind: whether to return the best epoch's network in the place of the last's.

    The forget batch decides how many ascent steps a pass has. The default is that of the retain
    set, `batch_size`; `SCRUB_REFERENCES` has the reference's own settings, batches included.

    Example:
      unlearn = unlearning.Scrub(epochs=10, max_epochs=3, temperature=4.0)
      forgotten, info = unlearn(key, model, variables, task)

    Cost: `epochs * retain + min(max_epochs, epochs) * forget + (retain + forget) / 3`
    example-gradients, without augmentation and rewind.

    Source: Kurmanji et al. 2023; defaults of Di et al. 2024, Table 5 (learning rate 5e-4, 10
    epochs, T = 4, milestones 3, 5, 9) and §6.1 (momentum 0.9, weight decay 5e-4). Di et al. 2024 do
    not name α and γ: 0.001 and 0.99 are those of the large-scale reference (T = 4, `max_epochs` 2
    of 3). Its β = 0.1 has no counterpart there but the factor of the learning rate. Pawelczyk et
    al. 2024, A.2.6 has γ = 0.99, α = 0.999, β = 0.001. The reference's other settings are in
    `SCRUB_REFERENCES`.
    """

    learning_rate: float = 5e-4
    max_epochs: int = 3
    alpha: float = 0.001
    gamma: float = 0.99
    temperature: float = 4.0
    optimizer: OptimizerName = "sgd"
    milestones: tuple[int, ...] = (3, 5, 9)
    step_factor: float = 0.1
    rewind: bool = False

    trial: ClassVar[UnlearnerTrial] = UnlearnerTrial(
        small={"epochs": 3, "max_epochs": 2, "milestones": (1,), "rewind": True},
        effective={"epochs": 5, "max_epochs": 3, "learning_rate": 0.05},
        one_record=NoEffect(
            frozenset({"batch_norm"}),
            "Kurmanji et al. 2023: the gradient of the divergence is 0 where the student is the "
            "teacher, so that the first of three passes of one step does nothing; the retain "
            "passes renew the running statistics, which lose the record. "
            "Measured: -0.013 ± 0.004.",
        ),
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        check_at_least(self, 0, "max_epochs", "alpha", "gamma")
        check_above(self, 0, "temperature", "step_factor")
        if self.rewind and self.epochs < 1:
            raise ValueError(f"rewind needs epochs >= 1, got {self.epochs}")

    @property
    def prefix_stable(self) -> bool:
        """Whether a shorter run begins a longer one: not where the best of all epochs is kept."""
        return not self.rewind and super().prefix_stable

    def recipe(self) -> Recipe:
        """Returns the recipe of these settings."""
        return dataclasses.replace(
            super().recipe(),
            optimizer=self.optimizer,
            schedule="step",
            warmup_epochs=0.0,
            milestones=self.milestones,
            step_factor=self.step_factor,
        )

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
        """Returns the student.

        Raises:
          ValueError: a task or variables that do not fit the model, a batch larger than its set, or
            a rewind without validation examples of the forget set's classes.
          DivergedError: the loss is no longer finite.
        """
        check_task(task, model)
        check_variables(variables, model)
        on_retain, on_forget, adapted = self.fitted_pair(variables, task)
        retain_steps = on_retain.steps_per_epoch(task.retain.size)
        forget_steps = steps_of_whole_pass(task.forget.size, on_forget.batch_size)
        rewind = Rewind(model, task) if self.rewind else None
        augmented = on_retain.augmentation != "none"
        with Stopwatch() as watch:
            original = jax.tree.map(jnp.array, variables) if augmented else None
            retain = _distill_set(model, variables, task.retain, original)
            forget = _distill_set(model, variables, task.forget, original)
            jax.block_until_ready((retain, forget))
        ascent = _Distillation(model, on_forget, 0.0, -1.0, self.temperature)
        descent = _Distillation(model, on_retain, self.gamma, self.alpha, self.temperature)

        def plan(epoch: int) -> list[Pass]:
            forget_key, retain_key, step_key = host_key(key).fold_in(epoch).split(3)
            away = whole_rows(forget_key, 0, task.forget.size, on_forget.batch_size)
            back = epoch_rows(retain_key, 0, task.retain.size, on_retain.batch_size)
            typed = step_key.typed()
            passes = [
                Pass(ascent, forget.rows, away, typed, forget.targets, report={}),
                Pass(descent, retain.rows, back, typed, retain.targets),
            ]
            return passes if epoch < self.max_epochs else passes[1:]

        steps = self.epochs * (retain_steps + forget_steps)
        unlearned = descend_passes(
            plan,
            on_retain,
            variables,
            steps_per_epoch=retain_steps + forget_steps,
            rates=rate_table(self._recipe_in_steps(retain_steps, forget_steps), 1, steps),
            example_gradients=self._descent_gradients(on_retain, on_forget, task),
            adapted=adapted,
            on_epoch=on_epoch,
            on_snapshot=on_snapshot,
            after_epoch=rewind,
        )
        if rewind is not None:
            unlearned = rewind.choose(unlearned)
        return with_preparation(unlearned, self._looking_gradients(task), watch)

    def example_gradients(self, variables: Variables, task: Task) -> float:
        """Returns what a run takes, which follows from sizes alone; see `info.cost`."""
        on_retain, on_forget, _ = self.fitted_pair(variables, task)
        descent = self._descent_gradients(on_retain, on_forget, task)
        return descent + self._looking_gradients(task)

    def _descent_gradients(self, on_retain: Recipe, on_forget: Recipe, task: Task) -> float:
        ascending = dataclasses.replace(on_forget, epochs=min(self.max_epochs, self.epochs))
        seen = on_retain.example_gradients(task.retain.size)
        seen += gradients_on_forget(ascending, task.forget.size)
        # A teacher of augmented examples looks at each batch.
        return seen if on_retain.augmentation == "none" else seen * (1 + FORWARD)

    def _looking_gradients(self, task: Task) -> float:
        """Returns what looking takes: the teacher's, once, and rewinding's after each epoch."""
        rewound = self.epochs * Rewind.size(task) if self.rewind else 0
        return (task.retain.size + task.forget.size + rewound) * FORWARD

    def _recipe_in_steps(self, retain_steps: int, forget_steps: int) -> Recipe:
        """Returns the recipe with milestones in steps: epochs with a forget pass are longer."""
        milestones = tuple(
            m * retain_steps + min(m, self.max_epochs) * forget_steps for m in self.milestones
        )
        return dataclasses.replace(self.recipe(), milestones=milestones)


SCRUB_REFERENCES: Mapping[str, Scrub] = MappingProxyType(
    {
        "small_scale": Scrub(
            epochs=10,
            batch_size=32,
            forget_batch_size=64,
            max_epochs=3,
            alpha=0.5,
            gamma=1.0,
            temperature=2.0,
            optimizer="adam",
            weight_decay=0.1,
            milestones=(5, 8, 9),
        ),
        "large_scale": Scrub(epochs=3, batch_size=256, forget_batch_size=512, max_epochs=2),
        "large_scale_named": Scrub(epochs=3, batch_size=128, forget_batch_size=32, max_epochs=2),
        "membership": Scrub(
            epochs=5, batch_size=32, forget_batch_size=16, max_epochs=3, alpha=0.5, gamma=1.0
        ),
    }
)
"""The settings of the reference's notebooks (Kurmanji et al. 2023, meghdadk/SCRUB), by name.

`small_scale` and `large_scale` are the notebooks of these names as they run, `membership` that
against membership inference. `large_scale_named` is the large-scale one with the batches that it
names (`sgda_batch_size` 128, `del_batch_size` 32) and does not use: its loops run on loaders of 256
and 512, and so take a sixteenth of the ascent steps.
"""


class _DistillTargets(NamedTuple):
    """What is known of each example; a batch's `y` are rows in it.

    Attributes:
      labels: [n].
      teacher: [n, c] logits of the original network, computed once.
      original: the original network where examples are augmented, and it must see them as the
        student does; else None.
    """

    labels: Int[Array, " n"]
    teacher: Float[Array, "n c"]
    original: Variables | None


class _DistillSet(NamedTuple):
    """Examples whose `y` are rows in the targets."""

    rows: Dataset
    targets: _DistillTargets


def _distill_set(
    model: Model, variables: Variables, dataset: Dataset, original: Variables | None
) -> _DistillSet:
    rows = dataset._replace(y=jax.device_put(np.arange(dataset.size, dtype=np.int32)))
    known = reserve((dataset.y, predict(model, variables, dataset.x)))
    return _DistillSet(reserve(rows), _DistillTargets(*known, original))


@dataclasses.dataclass(frozen=True)
class _Distillation:
    """a CE + b T² KL(teacher ‖ student), both means over the batch."""

    NUMBERS: ClassVar[tuple[str, ...]] = (
        "cross_entropy_weight", "divergence_weight", "temperature"
    )  # fmt: skip

    model: Model
    recipe: Recipe
    cross_entropy_weight: float | Float[Array, ""]
    divergence_weight: float | Float[Array, ""]
    temperature: float | Float[Array, ""]

    def __call__(
        self,
        params: Params,
        state: State,
        batch: Dataset,
        key: Key[Array, ""],
        context: _DistillTargets,
    ) -> tuple[Float[Array, ""], tuple[State, Metrics]]:
        augment_key, dropout_key = jax.random.split(key)
        x = augment(augment_key, batch, self.recipe)
        labels, teacher = context.labels[batch.y], context.teacher[batch.y]
        if context.original is not None:
            teacher = self.model.apply(context.original, x)
        logits, new_state = forward_train(
            self.model, self.recipe, Variables(params, state), x, dropout_key
        )
        loss = cross_entropy(logits, labels, self.recipe.label_smoothing)
        divergence = distillation_loss(teacher, logits, self.temperature)
        accuracy = jnp.mean(jnp.argmax(logits, -1) == labels)
        metrics = {"loss": loss, "accuracy": accuracy, "divergence": divergence}
        weighted = self.cross_entropy_weight * loss + self.divergence_weight * divergence
        return weighted, (new_state, metrics)


def distillation_loss(
    teacher: Float[Array, "n c"],
    student: Float[Array, "n c"],
    temperature: float | Float[Array, ""],
) -> Float[Array, ""]:
    """Returns the mean of T² KL(softmax(teacher / T) ‖ softmax(student / T)), in nats.

    Args:
      teacher: [n, c] logits.
      student: [n, c] logits.
      temperature: T > 0.

    Source: Hinton et al. 2015; T² keeps the gradient's size independent of T.
    """
    log_p = jax.nn.log_softmax(teacher / temperature)
    log_q = jax.nn.log_softmax(student / temperature)
    return temperature**2 * jnp.mean(jnp.sum(jnp.exp(log_p) * (log_p - log_q), axis=-1))
