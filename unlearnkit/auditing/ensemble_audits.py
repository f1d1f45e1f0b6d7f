"""Audits of a study that compare many networks with many: KLoM and the forgetting quality.

Each trains `count` originals and `count` references of a case, once for all methods, and runs each
method on every original. They cost that many trainings, and are worth it: one network's margin says
little of a distribution.
"""

from __future__ import annotations

import dataclasses
from typing import ClassVar, Literal

import jax
from jaxtyping import Array, Key

from unlearnkit.auditing.case import Case, Subject
from unlearnkit.auditing.ensembles import (
    Ensemble,
    answer_together,
    retrained_ensemble,
    unlearn_many,
)
from unlearnkit.auditing.forgetting_quality import forgetting_quality
from unlearnkit.auditing.klom import klom
from unlearnkit.base import Audited, Trained, Unlearner
from unlearnkit.host.random import host_key
from unlearnkit.training import fit_many, train_from
from unlearnkit.trials import AuditTrial
from unlearnkit.validation import check_at_least, check_choice

_RETRAINED, _ORIGINALS, _UNLEARNED, _AGAIN = range(0x656E73, 0x656E73 + 4)
"""What the keys of ensembles are folded with, so that no audit draws from them."""

SetName = Literal["forget", "retain", "test"]


@dataclasses.dataclass(frozen=True)
class Klom:
    """How far a method's margins are from those of retrained networks, see `klom`.

    Many networks are trained on everything and unlearned by the method; as many are retrained
    without the forget set. The untouched network's row compares the trained networks themselves;
    the reference's row a second retrained ensemble, which is the floor of finite ensembles.

    Attributes:
      count: networks in each ensemble.
      on: the set whose margins are compared.
      bins: of each example's histograms.
      smoothing: added to every bin's share.

    Example:
      study = studies.Study(
          data=studies.Pair(train, test),
          networks=model,
          recipes=training.Recipe(),
          forget=data.RandomForget(fraction=0.1),
          audits={"klom": auditing.Klom(count=16)},
      )

    Source: Rinberg et al. 2025.
    """

    count: int = 16
    on: SetName = "forget"
    bins: int = 20
    smoothing: float = 1e-5

    trial: ClassVar[AuditTrial] = AuditTrial(tells=("klom_mean", 1))

    def __post_init__(self) -> None:
        check_at_least(self, 2, "count", "bins")
        check_choice("on", self.on, SetName)

    def judge(self, key: Key[Array, ""], case: Case, subject: Subject) -> Audited:
        """Returns the metrics and the curve of `klom`.

        Raises:
          DivergedError: a network of an ensemble diverged.
        """
        ours, theirs = ensembles_of(key, case, subject, self.count)
        margins = ours.margins[self.on], theirs.margins[self.on]
        return klom(*margins, bins=self.bins, smoothing=self.smoothing)


@dataclasses.dataclass(frozen=True)
class ForgettingQuality:
    """How hard a method's networks are to tell from retrained ones, see `forgetting_quality`.

    Attributes:
      count: networks in each ensemble, which are those of `Klom`.
      delta: δ of (ε, δ)-unlearning.

    Example:
      study = studies.Study(
          data=studies.Pair(train, test),
          networks=model,
          recipes=training.Recipe(),
          forget=data.RandomForget(fraction=0.1),
          audits={"quality": auditing.ForgettingQuality(count=16)},
      )

    Source: Triantafillou et al. 2024.
    """

    count: int = 16
    delta: float = 0.0

    trial: ClassVar[AuditTrial] = AuditTrial(tells=("forgetting_quality", -1))

    def __post_init__(self) -> None:
        check_at_least(self, 2, "count")
        check_at_least(self, 0, "delta")

    def judge(self, key: Key[Array, ""], case: Case, subject: Subject) -> Audited:
        """Returns the metrics and the curves of `forgetting_quality`.

        Raises:
          DivergedError: a network of an ensemble diverged.
        """
        ours, theirs = ensembles_of(key, case, subject, self.count)
        return forgetting_quality(
            ours.margins["forget"], theirs.margins["forget"], delta=self.delta
        )


def ensembles_of(
    key: Key[Array, ""], case: Case, subject: Subject, count: int
) -> tuple[Ensemble, Ensemble]:
    """Returns what many networks like the subject answer, and as many retrained ones.

    Args:
      key: of the case's audits.
      case: the question.
      subject: what is judged: the original, the reference, or what a method left.
      count: networks in each ensemble.

    Raises:
      DivergedError: a network diverged.
    """
    drawn = host_key(key)
    model, task, settings = case.model, case.task, {"count": count}

    def retrained(number: int, kind: str) -> Ensemble:
        own = drawn.fold_in(number).typed()
        return case.share(
            kind,
            settings,
            lambda: retrained_ensemble(
                own, model, task, case.recipe, count=count, start=case.start
            ),
        )

    def originals() -> Trained:
        keys = jax.random.split(drawn.fold_in(_ORIGINALS).typed(), count)
        return case.share(
            "originals",
            settings,
            lambda: fit_many(keys, model, task.train, case.recipe, variables=case.start),
        )

    def unlearned(method: Unlearner) -> Ensemble:
        networks = originals()
        own = drawn.fold_in(_UNLEARNED).typed()
        run = train_from(method, case.start)
        variables, spent = unlearn_many(own, model, networks.variables, [task] * count, run)
        answered = answer_together(model, variables, task, networks.info.cost.plus(spent))
        return answered._replace(originals="many")

    theirs = retrained(_RETRAINED, "retrained_ensemble")
    if subject.is_reference:
        return retrained(_AGAIN, "retrained_ensemble_again"), theirs
    method = subject.unlearner
    if method is None:
        networks = originals()
        return answer_together(model, networks.variables, task, networks.info.cost), theirs
    asked = {**settings, "method": method}
    return case.share("unlearned_ensemble", asked, lambda: unlearned(method)), theirs
