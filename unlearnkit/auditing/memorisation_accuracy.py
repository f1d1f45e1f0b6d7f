"""How much of a text a language network continues word for word."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from jaxtyping import Array, Key

from unlearnkit.auditing._next_tokens import check_texts_of, look_at, mean_where
from unlearnkit.auditing.intervals import mean_and_error
from unlearnkit.base import Audited, Model, Task, Variables
from unlearnkit.trials import AuditTrial


@dataclasses.dataclass(frozen=True)
class MemorisationAccuracy:
    """Counts the next tokens that a network has as the likeliest (MA).

    MA(x) = 1/(T - 1) Σ_{t=1}^{T-1} [argmax p(. | x_1 … x_t) = x_{t+1}]

    in evaluation mode, of a network with the head `tokens`. Texts are forgotten where MA is no
    larger than of texts that were never seen, as the test set.

    Example:
      audit = auditing.MemorisationAccuracy()
      metrics, curves = audit(key, model, variables, task)

    Source: Tirumala et al. 2022; Jang et al. 2023, equation (3).
    """

    trial: ClassVar[AuditTrial] = AuditTrial(
        tells=("accuracy_forget", 1), key_may_not_matter=True, texts=True
    )

    def __call__(
        self, key: Key[Array, ""], model: Model, variables: Variables, task: Task
    ) -> Audited:
        """Returns the accuracy of the retain, the forget and the test set.

        Metrics: `accuracy_{retain,forget,test}`, the mean over texts, and of two texts or more its
        standard error `_se`.

        Curves: `accuracy_{retain,forget,test}`, [n] of each text.

        Raises:
          ValueError: a network that does not tell every next token, or a task or variables that do
            not fit it.
        """
        pad = check_texts_of(model, variables, task, audit="MemorisationAccuracy")
        metrics, curves = {}, {}
        for name in ("retain", "forget", "test"):
            found = look_at(model, variables, getattr(task, name), pad)
            each = mean_where(found.right, found.there)
            metrics[f"accuracy_{name}"] = float(each.mean())
            if len(each) > 1:
                metrics[f"accuracy_{name}_se"] = mean_and_error(each)[1]
            curves[f"accuracy_{name}"] = each
        return Audited(metrics, curves)
