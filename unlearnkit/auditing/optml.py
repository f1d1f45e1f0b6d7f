"""The four numbers of the OPTML group's tables: UA, RA, TA and MIA-efficacy, and their gap."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import ClassVar

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key
from sklearn.svm import SVC

from unlearnkit.auditing.intervals import rate
from unlearnkit.base import Audited, Model, Task, Variables
from unlearnkit.kernels import membership_features
from unlearnkit.training import DivergedError, predict
from unlearnkit.trials import AuditTrial
from unlearnkit.validation import check_above, check_task, check_variables

OPTML_METRICS = ("optml_ua", "optml_ra", "optml_ta", "optml_mia_efficacy")
"""The metrics whose absolute differences to Retrain make the published gap."""


@dataclasses.dataclass(frozen=True)
class OptmlScores:
    """Measures what the tables of Jia et al. 2023, Fan et al. 2024 and many after them hold.

    UA = 1 - Acc(forget),  RA = Acc(retain),  TA = Acc(test),
    MIA-efficacy = share of the forget set that the attack calls non-member.

    The attack is a support vector machine (RBF kernel, γ = 1 / features = 1) on the confidence p_y:
    it learns the first k retain examples (members) against the test set (non-members), k the size
    of the test set, and is asked for the forget set. All are shares here; the tables have percent.

    Attributes:
      C: inverse strength of the machine's penalty.
      limit: examples of each set, the first ones, that the machine learns at most; None has no
        bound. Its time grows as their square: on one core 2 s for 5,000 and 5,000 examples, 8 s for
        10,000 and 10,000. The result is the published one where the test set has no more.

    Example:
      audit = auditing.OptmlScores(limit=5000)
      metrics, curves = audit(key, model, variables, task)

    Source: Jia et al. 2023, Model sparsity can simplify machine unlearning, §5 and the
    public code (OPTML-Group/Unlearn-Sparse), of which `confidence` is the attack that its tables
    report; the average gap is that of Fan et al. 2024, SalUn. The code needs a retain set at least
    as large as the test set; a smaller one is taken whole here.
    """

    C: float = 3.0
    limit: int | None = 5000

    trial: ClassVar[AuditTrial] = AuditTrial(
        tells=("optml_mia_efficacy", -1), key_may_not_matter=True
    )

    def __post_init__(self) -> None:
        check_above(self, 0, "C")
        if self.limit is not None and self.limit < 1:
            raise ValueError(f"limit must be >= 1, or None for no bound, got {self.limit}")

    def __call__(
        self, key: Key[Array, ""], model: Model, variables: Variables, task: Task
    ) -> Audited:
        """Returns UA, RA, TA and MIA-efficacy; the key is not used.

        Metrics: `OPTML_METRICS`, and of the last the exact 95 % interval `_low`, `_high` over the
        forget examples, the machine given.

        Raises:
          ValueError: a task or variables that do not fit the model.
          DivergedError: outputs that are not finite.
        """
        check_task(task, model)
        check_variables(variables, model)
        logits = {
            name: predict(model, variables, getattr(task, name).x)
            for name in ("retain", "forget", "test")
        }
        for name, values in logits.items():
            if not bool(jnp.isfinite(values).all()):
                raise DivergedError(f"outputs on {name} must be finite: the network has diverged")
        labels = {name: getattr(task, name).y for name in logits}
        return Audited(self.score(logits, labels))

    def score(
        self, logits: Mapping[str, Float[Array, "n c"]], labels: Mapping[str, Int[Array, " n"]]
    ) -> dict[str, float]:
        """Returns the metrics of given outputs.

        Args:
          logits: of `retain`, `forget` and `test`, in evaluation mode.
          labels: that they are compared with, of the same sets.
        """
        right, confidence = {}, {}
        for name in ("retain", "forget", "test"):
            y = labels[name]
            right[name] = float(jnp.mean(jnp.argmax(logits[name], -1) == y))
            confidence[name] = np.asarray(membership_features("confidence", logits[name], y))
        called = self._attack(confidence["retain"], confidence["test"]).predict(
            confidence["forget"]
        )
        return {
            "optml_ua": 1 - right["forget"],
            "optml_ra": right["retain"],
            "optml_ta": right["test"],
            **rate("optml_mia_efficacy", int(np.sum(called == 0)), len(called)),
        }

    def _attack(self, retain: Float[np.ndarray, "r 1"], test: Float[np.ndarray, "t 1"]) -> SVC:
        test = test[: self.limit]
        retain = retain[: len(test)]
        y = np.repeat([1, 0], [len(retain), len(test)])
        machine = SVC(C=self.C, kernel="rbf", gamma="auto")
        return machine.fit(np.concatenate([retain, test]), y)


def optml_gap(metrics: Mapping[str, float], reference: Mapping[str, float]) -> float:
    """Returns the mean absolute difference of `OPTML_METRICS` to those of a retrained network.

    `average_gap` differs in its fourth number: the cross-validated accuracy of a loss attack that
    tells the forget set from the test set.

    Source: Fan et al. 2024 (average gap).
    """
    return float(np.mean([abs(metrics[name] - reference[name]) for name in OPTML_METRICS]))
