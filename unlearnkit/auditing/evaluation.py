"""`evaluate` as an audit of a study: every membership audit, and the distances to Retrain."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from jaxtyping import Array, Key

from unlearnkit.auditing.case import Case, Subject
from unlearnkit.auditing.evaluate import (
    DEFAULT_ATTACKS,
    DEFAULT_OPTML,
    HEADLINE_ATTACK,
    Reference,
    audit_reference,
    evaluate,
)
from unlearnkit.auditing.membership import MembershipInference
from unlearnkit.auditing.optml import OptmlScores
from unlearnkit.base import Audited
from unlearnkit.trials import AuditTrial


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """Accuracies, membership attacks, and how far a network answers from the case's reference.

    Attributes:
      attacks: membership attacks; the loss attack by logistic regression must be among them.
      optml: the scores that published tables hold; None leaves them out.

    See `evaluate` for the metrics. The reference itself is judged without the distances, which
    would be 0; a case without a reference has none.

    Example:
      study = studies.Study(
          data=studies.Pair(train, test),
          networks=model,
          recipes=training.Recipe(),
          forget=data.RandomForget(fraction=0.1),
          audits={"": auditing.Evaluation((auditing.MembershipInference(),))},
      )
    """

    attacks: tuple[MembershipInference, ...] = DEFAULT_ATTACKS
    optml: OptmlScores | None = DEFAULT_OPTML

    trial: ClassVar[AuditTrial] = AuditTrial(
        small={"attacks": (HEADLINE_ATTACK,)}, tells=("mia_loss_logistic_auc", 1)
    )

    def __post_init__(self) -> None:
        if HEADLINE_ATTACK not in self.attacks:
            raise ValueError(f"the distance to a reference needs {HEADLINE_ATTACK} among attacks")

    def judge(self, key: Key[Array, ""], case: Case, subject: Subject) -> Audited:
        """Returns the metrics and curves of `evaluate`.

        Raises:
          ValueError: a task or variables that do not fit the model.
          DivergedError: outputs that are not finite.
        """

        def audited() -> Reference:
            return audit_reference(
                key, case.model, case.retrained.variables, case.task, optml=self.optml
            )

        reference = None
        if case.reference is not None and not subject.is_reference:
            reference = case.share("reference_audit", {"optml": self.optml}, audited)
        return evaluate(
            key,
            case.model,
            subject.variables,
            case.task,
            reference=reference,
            attacks=self.attacks,
            optml=self.optml,
        )
