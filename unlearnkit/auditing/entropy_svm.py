"""The membership attack of paper 004: a kernel machine on the entropy of the outputs."""

from __future__ import annotations

import dataclasses

import jax
import numpy as np
from jaxtyping import Array, Key
from sklearn.svm import SVC

from unlearnkit.auditing.intervals import rate
from unlearnkit.base import Audited, Model, Task, Variables
from unlearnkit.kernels import membership_features
from unlearnkit.training import predict
from unlearnkit.validation import (
    check_above,
    check_at_least,
    check_held_out,
    check_task,
    check_variables,
)


@dataclasses.dataclass(frozen=True)
class EntropySvm:
    """Learns retain (member) against test (non-member), then asks for the forget set.

    It reports the share of the forget set that it calls *member*: high where the forget set is
    still known, near the retrained network's share where it is forgotten, below it where the
    network gives itself away by forgetting too much.

    Attributes:
      C: inverse strength of the support vector machine's penalty.
      balanced: whether the larger of retain and test is subsampled to the smaller. 004 trains on
        475 against 500 examples as they are (`False`); with a retain set many times the test set
        the machine would call everything a member.
      limit: examples at most of each set to train on; the machine's time grows as their square.

    Source: 004, section 5.4 (v); kernel and constants of its public code (RBF, γ = 1 / features).
    """

    C: float = 3.0
    balanced: bool = True
    limit: int = 5000

    def __post_init__(self) -> None:
        check_above(self, 0, "C")
        check_at_least(self, 1, "limit")

    def __call__(
        self, key: Key[Array, ""], model: Model, variables: Variables, task: Task
    ) -> Audited:
        """Returns the share of each set called member, and the attack's accuracy on its own data.

        Metrics: `member_share_{forget,retain,test}`, of all examples of the set, and of the forget
        set the exact 95 % interval `_low`, `_high`; `fit_accuracy`, (share of retain called member
        + share of test called non-member) / 2.

        Raises:
          ValueError: a task or variables that do not fit the model; outputs that are not finite.
        """
        check_task(task, model)
        check_held_out((task.retain, task.forget), task.test)
        check_variables(variables, model)
        entropy = {}
        for name in ("retain", "forget", "test"):
            part = getattr(task, name)
            logits = predict(model, variables, part.x)
            entropy[name] = np.asarray(membership_features("entropy", logits, part.y), np.float64)
            if not np.all(np.isfinite(entropy[name])):
                raise ValueError(
                    f"outputs on {name} must be finite, got NaN or infinity; "
                    "the network has diverged"
                )
        attacker = self._train(key, entropy["retain"], entropy["test"])
        called = {name: attacker.predict(values) == 1 for name, values in entropy.items()}
        metrics = rate("member_share_forget", int(called["forget"].sum()), called["forget"].size)
        metrics |= {
            f"member_share_{name}": float(called[name].mean()) for name in ("retain", "test")
        }
        hit, false = metrics["member_share_retain"], metrics["member_share_test"]
        metrics["fit_accuracy"] = (hit + 1 - false) / 2
        return Audited(metrics)

    def _train(self, key: Key[Array, ""], retain: np.ndarray, test: np.ndarray) -> SVC:
        seed = int(jax.random.randint(key, (), 0, np.iinfo(np.int32).max))
        generator = np.random.default_rng(seed)
        most = min(len(retain), len(test)) if self.balanced else max(len(retain), len(test))
        size = min(most, self.limit)
        chosen = [part[generator.permutation(len(part))[:size]] for part in (retain, test)]
        y = np.repeat([1, 0], [len(part) for part in chosen])
        return SVC(C=self.C, kernel="rbf", gamma="auto").fit(np.concatenate(chosen), y)
