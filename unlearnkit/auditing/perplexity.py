"""How surprised a language network is by texts it trained on, and by others."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import numpy as np
from jaxtyping import Array, Key

from unlearnkit.auditing._next_tokens import check_texts_of, look_at, mean_where
from unlearnkit.auditing.intervals import mean_and_error
from unlearnkit.base import Audited, Model, Task, Variables
from unlearnkit.trials import AuditTrial


@dataclasses.dataclass(frozen=True)
class Perplexity:
    """Measures the perplexity of the retain, the forget and the test set.

    PPL(D) = exp( -1/N Σ_{x in D} Σ_t log p(x_t | x_<t) ),   over the N next tokens of D

    in evaluation mode, of a network with the head `tokens`. A uniform network has the size of the
    vocabulary.

    Example:
      audit = auditing.Perplexity()
      metrics, curves = audit(key, model, variables, task)

    Source: Jelinek et al. 1977; of the forget set as Jang et al. 2023 and Maini et al. 2024 report
    it.
    """

    trial: ClassVar[AuditTrial] = AuditTrial(
        tells=("perplexity_forget", -1), key_may_not_matter=True, texts=True
    )

    def __call__(
        self, key: Key[Array, ""], model: Model, variables: Variables, task: Task
    ) -> Audited:
        """Returns the perplexities.

        Metrics: `perplexity_{retain,forget,test}`; `nats_{retain,forget,test}`, the mean of a
        text's nats per token, and of two texts or more its standard error `_se`.

        Curves: `nats_{retain,forget,test}`, [n] of each text.

        Raises:
          ValueError: a network that does not tell every next token, or a task or variables that do
            not fit it.
        """
        pad = check_texts_of(model, variables, task, audit="Perplexity")
        metrics, curves = {}, {}
        for name in ("retain", "forget", "test"):
            found = look_at(model, variables, getattr(task, name), pad)
            nats = -found.log_p[found.there].mean(dtype=np.float64)
            each = -mean_where(found.log_p, found.there)
            metrics[f"perplexity_{name}"] = float(np.exp(nats))
            metrics[f"nats_{name}"] = float(each.mean())
            if len(each) > 1:
                metrics[f"nats_{name}_se"] = mean_and_error(each)[1]
            curves[f"nats_{name}"] = each
        return Audited(metrics, curves)
