"""The membership attack of Golatkar et al. 2020b: a kernel machine on the outputs' entropy."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import jax
import numpy as np
from jaxtyping import Array, Key
from sklearn.svm import SVC

from unlearnkit.auditing.intervals import clopper_pearson
from unlearnkit.base import Audited, Model, Task, Variables
from unlearnkit.kernels import membership_features
from unlearnkit.training import predict
from unlearnkit.trials import AuditTrial
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
      balanced: whether the larger of retain and test is subsampled to the smaller. Golatkar et al.
        2020b train on 475 against 500 examples as they are (`False`); with a retain set many times
        the test set the machine would call everything a member.
      limit: examples at most of each set to train on; the machine's time grows as their square.
      repeats: subsamples that are drawn where the sets are subsampled; metrics are means over them.

    Example:
      audit = auditing.EntropySvm(repeats=5)
      metrics, curves = audit(key, model, variables, task)

    Source: Golatkar et al. 2020b, §5.4 (v); kernel and constants of its public code (RBF, γ = 1 /
    features).
    """

    C: float = 3.0
    balanced: bool = True
    limit: int = 5000
    repeats: int = 5

    # What it calls members moves from machine to machine, alike on both sets.
    trial: ClassVar[AuditTrial] = AuditTrial(
        tells=("member_share_forget", 1), less="member_share_test", key_may_not_matter=True
    )

    def __post_init__(self) -> None:
        check_above(self, 0, "C")
        check_at_least(self, 1, "limit")
        check_at_least(self, 2, "repeats")

    def __call__(
        self, key: Key[Array, ""], model: Model, variables: Variables, task: Task
    ) -> Audited:
        """Returns the share of each set called member, and the attack's accuracy on its own data.

        Metrics: `member_share_{forget,retain,test}`, of all examples of the set, and of the forget
        set the exact 95 % interval `_low`, `_high` over its examples, the machine given, and
        `_split_std`, the standard deviation over the subsamples, 0 where the sets are used whole;
        `fit_accuracy`, (share of retain called member + share of test called non-member) / 2.

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
        shares = self._shares(key, entropy)
        size = entropy["forget"].size
        metrics = {f"member_share_{name}": float(v.mean()) for name, v in shares.items()}
        ends = clopper_pearson(round(metrics["member_share_forget"] * size), size)
        metrics["member_share_forget_low"], metrics["member_share_forget_high"] = ends
        drawn = shares["forget"]
        metrics["member_share_forget_split_std"] = (
            float(drawn.std(ddof=1)) if len(drawn) > 1 else 0.0
        )
        hit, false = metrics["member_share_retain"], metrics["member_share_test"]
        metrics["fit_accuracy"] = (hit + 1 - false) / 2
        return Audited(metrics)

    def _shares(self, key: Key[Array, ""], entropy: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Returns the share of each set that each drawn machine calls member."""
        seed = int(jax.random.randint(key, (), 0, np.iinfo(np.int32).max))
        generator = np.random.default_rng(seed)
        retain, test = entropy["retain"], entropy["test"]
        most = min(len(retain), len(test)) if self.balanced else max(len(retain), len(test))
        size = min(most, self.limit)
        whole = size >= max(len(retain), len(test))
        shares: dict[str, list[float]] = {"forget": [], "retain": [], "test": []}
        for _ in range(1 if whole else self.repeats):
            chosen = [part[generator.permutation(len(part))[:size]] for part in (retain, test)]
            y = np.repeat([1, 0], [len(part) for part in chosen])
            machine = SVC(C=self.C, kernel="rbf", gamma="auto").fit(np.concatenate(chosen), y)
            for name, values in shares.items():
                values.append(float(np.mean(machine.predict(entropy[name]) == 1)))
        return {name: np.array(values) for name, values in shares.items()}
