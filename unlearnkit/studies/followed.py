"""Methods that are audited after each of their epochs."""

from __future__ import annotations

import dataclasses

import jax
import numpy as np
from jaxtyping import Array, Key

from unlearnkit.auditing import Case, MembershipInference, NotApplicable, Subject, evaluate
from unlearnkit.auditing.evaluate import HEADLINE_ATTACK
from unlearnkit.base import Audited, Model, OnEpoch, Task, Unlearned, Variables
from unlearnkit.host.arrays import put
from unlearnkit.studies.snapshots import PrefixStable


@dataclasses.dataclass(frozen=True)
class Followed:
    """A method that is audited after each epoch; its course is in the history.

    In a study, the audit `Course` turns it into curves.

    Attributes:
      method: one that takes `on_snapshot`.
      metrics: of `auditing.evaluate` that are kept.
      attack: the membership attack.

    Example:
      methods = {"scrub": studies.Followed(unlearning.Scrub(), ("accuracy_test", "wasserstein"))}
    """

    method: PrefixStable
    metrics: tuple[str, ...]
    attack: MembershipInference = HEADLINE_ATTACK

    def __call__(
        self,
        key: Key[Array, ""],
        model: Model,
        variables: Variables,
        task: Task,
        *,
        on_epoch: OnEpoch | None = None,
    ) -> Unlearned:
        """Returns what the method does with this key, and keeps its course."""
        course: dict[str, list[float]] = {name: [] for name in self.metrics}
        judge_key = jax.random.split(jax.random.clone(key))[1]

        def watch(epoch: int, now: Variables) -> None:
            own = jax.random.clone(judge_key)
            found = evaluate(own, model, now, task, attacks=(self.attack,), optml=None).metrics
            for name, values in course.items():
                values.append(found[name])

        done = self.method(key, model, variables, task, on_epoch=on_epoch, on_snapshot=watch)
        curves = {f"course_{name}": put(np.asarray(values)) for name, values in course.items()}
        return done._replace(info=done.info._replace(history={**done.info.history, **curves}))


@dataclasses.dataclass(frozen=True)
class Course:
    """What `Followed` measured after each epoch, as curves of a study."""

    def judge(self, key: Key[Array, ""], case: Case, subject: Subject) -> Audited:
        """Returns a curve [epochs] for each metric.

        Raises:
          NotApplicable: the method is not followed.
        """
        if not isinstance(subject.unlearner, Followed):
            raise NotApplicable("only methods that are followed have a course")
        names = subject.unlearner.metrics
        return Audited({}, {n: np.asarray(subject.history[f"course_{n}"]) for n in names})
