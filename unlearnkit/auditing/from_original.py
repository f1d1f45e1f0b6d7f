"""How far unlearning moved a network from the one that it began with."""

from __future__ import annotations

import dataclasses

from jaxtyping import Array, Key

from unlearnkit.auditing.case import Case, NotApplicable, Subject
from unlearnkit.auditing.evaluate import compare_logits
from unlearnkit.auditing.model_shift import model_shift
from unlearnkit.base import Audited
from unlearnkit.training import predict


@dataclasses.dataclass(frozen=True)
class FromOriginal:
    """Distances of a network to the one that was to forget; no reference is needed.

    Metrics: `agreement_{set}` and `activation_distance_{set}` of retain, forget and test, see
    `evaluate`, and `weights`, ‖w - w_original‖₂ / ‖w_original‖₂ over all parameters together.

    Example:
      study = studies.Study(
          data=studies.Pair(train, test),
          networks=model,
          recipes=training.Recipe(),
          forget=data.RandomForget(fraction=0.1),
          audits={"moved": auditing.FromOriginal()},
      )
    """

    def judge(self, key: Key[Array, ""], case: Case, subject: Subject) -> Audited:
        """Returns the distances.

        Raises:
          NotApplicable: the network is the original itself.
        """
        if subject.unlearner is None and not subject.is_reference:
            raise NotApplicable("the original has moved nowhere")
        parts = {"retain": case.task.retain, "forget": case.task.forget, "test": case.task.test}
        mine, before = (
            {name: predict(case.model, weights, part.x) for name, part in parts.items()}
            for weights in (subject.variables, case.original)
        )
        shift = model_shift(subject.variables.params, case.original.params)
        return Audited({**compare_logits(mine, before), "weights": shift.relative})
