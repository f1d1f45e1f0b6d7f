"""One question of unlearning on one seed, with the networks that its answers are compared with."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable, Hashable, Mapping
from typing import Any, NamedTuple, Protocol, TypeVar, runtime_checkable

from jaxtyping import Array, Key

from unlearnkit.base import (
    Audit,
    Audited,
    Cost,
    Dataset,
    Defence,
    Defended,
    Model,
    Poisoned,
    RobustTrainer,
    Task,
    Unlearned,
    Unlearner,
    Variables,
)
from unlearnkit.training import Recipe

T = TypeVar("T")


class NotApplicable(ValueError):
    """An audit has no answer for this question, as one of noise where the poisons have none."""


class Subject(NamedTuple):
    """A network that is judged.

    Attributes:
      variables: its weights.
      cost: of making them from the original.
      unlearner: the method that made them, as it was run; None where nothing was done, or where it
        is the reference.
      is_reference: whether it is the case's reference itself.
      history: what the method measured in its run, by name.
    """

    variables: Variables
    cost: Cost = Cost(0.0, 0.0)
    unlearner: Unlearner | None = None
    is_reference: bool = False
    history: Mapping[str, Array] = {}


@dataclasses.dataclass(frozen=True, eq=False)
class Case:
    """One question on one seed: what is to be forgotten, and the networks to compare with.

    Attributes:
      key: of the audits; every subject is judged with the same.
      model: the network.
      recipe: how every network of the case was trained.
      task: what is to be forgotten and kept, and the data to judge by.
      original: trained on all of `task.train`.
      reference: retrained without the forget set, and what that cost; no method gets to see it.
        None where nothing was retrained.
      clean: where the training set was poisoned: trained on the clean one; else None.
      poisoned: where the training set was poisoned: it, and what the attack kept; else None.
      start: weights from which the training of every network of the case began; None where each
        began from a fresh initialisation.
      train_key: with which the original was trained, so that an audit can train its like.
      clean_data: where the training set was poisoned: the clean one; else None.
      defence: behind which the network was trained; None where there is none.
      defended: behind a filter: what it trusts of the poisoned training set; else None.
      share: (kind, settings, compute) -> what `compute` returns, computed once for all subjects;
        a study keeps it in its store.
      scratch: likewise, for what no store holds, as a log on the disk: kept as long as the case.
    """

    key: Key[Array, ""]
    model: Model
    recipe: Recipe
    task: Task
    original: Variables
    reference: Unlearned | None
    clean: Variables | None = None
    poisoned: Poisoned | None = None
    start: Variables | None = None
    train_key: Key[Array, ""] | None = None
    clean_data: Dataset | None = None
    defence: Defence | RobustTrainer | None = None
    defended: Defended | None = None
    share: Share = dataclasses.field(default_factory=lambda: InMemory())
    scratch: Share = dataclasses.field(default_factory=lambda: InMemory())

    @property
    def retrained(self) -> Unlearned:
        """The reference.

        Raises:
          NotApplicable: nothing was retrained.
        """
        if self.reference is None:
            raise NotApplicable("nothing was retrained, so there is no reference to compare with")
        return self.reference

    @property
    def full_gradients(self) -> float:
        """The example-gradients of retraining; where that was not done, of its recipe."""
        if self.reference is None:
            return self.recipe.example_gradients(self.task.retain.size)
        return self.reference.info.cost.example_gradients


def extras_of(poisoned: Poisoned) -> Mapping[str, Any]:
    """Returns the arrays that an attack kept of its poisons by name, none where it kept none."""
    return getattr(poisoned.info, "extras", {})


class Share(Protocol):
    """Computes what several audits need, once."""

    def __call__(self, kind: str, settings: Mapping[str, Any], compute: Callable[[], T]) -> T:
        """Returns what `compute` makes, or what it made for the same kind and settings before.

        Args:
          kind: what is computed.
          settings: what it depends on besides the case.
          compute: makes it.
        """
        ...


class InMemory:
    """A `Share` that keeps results as long as the case lives.

    Settings are equal where they compare equal; those that cannot be hashed, where they are the
    same object.
    """

    def __init__(self) -> None:
        self._kept: dict[Hashable, tuple[Mapping[str, Any], Any]] = {}
        self._lock = threading.RLock()

    def __call__(self, kind: str, settings: Mapping[str, Any], compute: Callable[[], T]) -> T:
        name = kind, *((part, _identity(settings[part])) for part in sorted(settings))
        with self._lock:
            if name not in self._kept:
                self._kept[name] = settings, compute()
            found: T = self._kept[name][1]
            return found


def _identity(value: object) -> Hashable:
    try:
        hash(value)
    except TypeError:
        return id(value)  # of an object that is kept, so that no other gets its number
    return value


@runtime_checkable
class CaseAudit(Protocol):
    """An audit that needs more than a network and a task: references, poisons, ensembles.

    Its method is called `judge`, so that `isinstance` tells it from an `Audit`; a class may be
    both.
    """

    def judge(self, key: Key[Array, ""], case: Case, subject: Subject) -> Audited:
        """Returns scalars by name, and curves for plots.

        Args:
          key: drives all that is random; the same key gives the same bits.
          case: the question, and what to compare with.
          subject: what is judged.

        Raises:
          NotApplicable: the case has not what the audit measures.
        """
        ...


def judge(audit: Audit | CaseAudit, case: Case, subject: Subject) -> Audited:
    """Returns what an audit of either kind says of a network.

    Args:
      audit: an `Audit`, which sees the network and the task alone, or a `CaseAudit`.
      case: the question.
      subject: what is judged.

    Raises:
      NotApplicable: the case has not what the audit measures.
      TypeError: the audit returns something else than `Audited`.

    Example:
      found = auditing.judge(auditing.ThresholdAttack(), case, auditing.Subject(variables))
    """
    if isinstance(audit, CaseAudit):
        found = audit.judge(case.key, case, subject)
    else:
        found = audit(case.key, case.model, subject.variables, case.task)
    if not isinstance(found, Audited):
        raise TypeError(
            f"{type(audit).__name__} must return Audited(metrics, curves), "
            f"got {type(found).__name__}"
        )
    return found
