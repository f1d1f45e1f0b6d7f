"""Whether a trigger still makes a network answer as the attacker wants."""

from __future__ import annotations

import dataclasses
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Key

from unlearnkit.auditing.case import Case, NotApplicable, Subject, extras_of
from unlearnkit.auditing.intervals import rate
from unlearnkit.base import Audited, Model, Poisoned, Task, Variables
from unlearnkit.training import predict
from unlearnkit.trials import AuditTrial
from unlearnkit.validation import check_task, check_variables


class Trigger(NamedTuple):
    """A patch, and what it is for.

    Attributes:
      mask: [h, w, c] where it is.
      pattern: [h, w, c] what stands there, in the units of the network.
      target_class: what an image that carries it is to be taken for.
    """

    mask: Bool[Array, ...]
    pattern: Float[Array, ...]
    target_class: int

    def stamp(self, x: Float[Array, "n ..."]) -> Float[Array, "n ..."]:
        """Returns the images with the patch on each."""
        return jnp.where(self.mask, self.pattern, x)


def poison_trigger(poisoned: Poisoned) -> Trigger:
    """Returns the trigger that an attack kept of its poisons.

    Raises:
      ValueError: the attack has none.
    """
    extras = extras_of(poisoned)
    if missing := {"trigger_mask", "trigger", "target_class"} - extras.keys():
        raise ValueError(
            f"the poisoned set has no {', '.join(sorted(missing))}: only an attack with a trigger "
            "has a success to be asked for; make the poisons by BadNets"
        )
    return Trigger(extras["trigger_mask"], extras["trigger"], int(extras["target_class"]))


@dataclasses.dataclass(frozen=True, eq=False)
class TriggerSuccess:
    """Counts the test examples of other classes that a trigger turns into the target class.

    success = 1/n Σ_{i: y_i ≠ t} [argmax f(stamp(x_i)) = t]

    in evaluation mode, with n the test examples of other classes than t, and the same without the
    trigger, which is what mistakes the network makes anyway. Unlearning is judged by the distance
    to a retrained network's success.

    Attributes:
      trigger: see `poison_trigger`; None, in a study, takes that of each attack.

    Example:
      attack = poisoning.BadNets(target_class=7)
      poisoned = attack(key, model, variables, task)
      audit = auditing.TriggerSuccess(auditing.poison_trigger(poisoned))
      metrics, curves = audit(key, model, variables, task)

    Source: Gu et al. 2019, §4 (the error on backdoored images).
    """

    trigger: Trigger | None = None

    trial: ClassVar[AuditTrial] = AuditTrial(
        tells=("success", 1), key_may_not_matter=True, attack="bad_nets"
    )

    def __post_init__(self) -> None:
        if self.trigger is not None and self.trigger.mask.shape != self.trigger.pattern.shape:
            raise ValueError(
                f"mask and pattern must have one shape, got {list(self.trigger.mask.shape)} and "
                f"{list(self.trigger.pattern.shape)}"
            )

    def __call__(
        self, key: Key[Array, ""], model: Model, variables: Variables, task: Task
    ) -> Audited:
        """Returns the success on the test set.

        Metrics: `success` and `success_without_trigger` with exact 95 % intervals `_low`, `_high`;
        `probability`, the mean probability of the target class under the trigger.

        Curves: `probability`, [n].

        Raises:
          ValueError: a task, variables or trigger that do not fit the model, no trigger, or a test
            set of the target class alone.
        """
        if self.trigger is None:
            raise ValueError("a trigger must be given outside of a study; see poison_trigger")
        check_task(task, model)
        check_variables(variables, model)
        wanted = self.trigger.target_class
        if self.trigger.mask.shape != model.input_shape:
            raise ValueError(
                f"the trigger is of examples {list(self.trigger.mask.shape)}, the model takes "
                f"{list(model.input_shape)}"
            )
        if not 0 <= wanted < model.n_classes:
            raise ValueError(f"target_class must be in 0 … {model.n_classes - 1}, got {wanted}")
        others = task.test.take(np.asarray(task.test.y) != wanted)
        if others.size == 0:
            raise ValueError(f"all test examples are of the target class {wanted}")
        stamped = predict(model, variables, self.trigger.stamp(others.x))
        untouched = predict(model, variables, others.x)
        taken, mistaken = (
            int(np.sum(np.asarray(logits).argmax(-1) == wanted)) for logits in (stamped, untouched)
        )
        probability = np.asarray(jax.nn.softmax(stamped)[:, wanted])
        metrics = {
            **rate("success", taken, others.size),
            **rate("success_without_trigger", mistaken, others.size),
            "probability": float(probability.mean()),
        }
        return Audited(metrics, {"probability": probability})

    def judge(self, key: Key[Array, ""], case: Case, subject: Subject) -> Audited:
        """Returns the success of the trigger of the case's poisons, see `__call__`.

        Raises:
          NotApplicable: the training set was not poisoned, or by an attack without a trigger.
          ValueError: a trigger that does not fit the model.
        """
        audit = self
        if self.trigger is None:
            if case.poisoned is None or "trigger" not in extras_of(case.poisoned):
                raise NotApplicable(
                    "TriggerSuccess needs poisons with a trigger, as BadNets makes them"
                )
            audit = TriggerSuccess(poison_trigger(case.poisoned))
        return audit(key, case.model, subject.variables, case.task)
