"""`unlearnkit audit`: what outputs alone tell of an unlearned network."""

from __future__ import annotations

import dataclasses
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from unlearnkit.cli.interruption import Interruption
from unlearnkit.cli.verification import check_outputs

if TYPE_CHECKING:
    from unlearnkit.auditing import Outputs

_AUC = "mia_loss_logistic_auc"
_NOT_SHOWN = (
    "This cannot show that the examples have no influence: another attack may find what this one "
    "does not, and a network may answer as if it had forgotten and still hold them. It is no "
    "certificate."
)


@dataclasses.dataclass(frozen=True)
class AuditLogits:
    """Audits an unlearned network by its outputs alone: no network, no training.

    A membership attack on the losses tells the forget set from examples that no network was
    trained on, or does not. Exit code: 0 it does not, 1 it does, 2 no audit was possible.

    Attributes:
      logits: an .npz file of the outputs after unlearning: logits_forget [m, c], labels_forget [m],
        logits_test, labels_test, and maybe those of retain; [n, 1, queries, c] are averaged.
      before: the same of the network that was to forget.
      reference: the same of a network that was retrained without the forget set: it then is what
        the attack's success is compared with, in the place of chance.
      probabilities: the files hold probabilities.
      attacks: features that further attacks look at: confidence, entropy, modified_entropy, margin,
        probabilities, logits.
      seed: of the attacks' subsamples and folds.
      json: a file for all metrics.
    """

    logits: Path
    before: Path | None = None
    reference: Path | None = None
    probabilities: bool = False
    attacks: tuple[str, ...] = ()
    seed: int = 0
    json: Path | None = None

    def __call__(self, interruption: Interruption) -> int:
        """Returns the exit code."""
        import jax

        from unlearnkit.auditing import MembershipInference, audit_outputs
        from unlearnkit.io.files import write_json
        from unlearnkit.kernels import FEATURES, FeatureName
        from unlearnkit.validation import check_known

        check_outputs(self.json)
        for feature in self.attacks:
            check_known("attacks", feature, FEATURES)
        named = set(self.attacks) - {"loss"}
        found = audit_outputs(
            jax.random.key(self.seed),
            after := self._read(self.logits),
            before=None if self.before is None else self._read(self.before),
            reference=None if self.reference is None else self._read(self.reference),
            attacks=[
                MembershipInference("loss", "logistic"),
                *(
                    MembershipInference(name, "logistic")
                    for name in get_args(FeatureName)
                    if name in named
                ),
            ],
        )
        sizes = {name: len(y) for name, y in after.labels.items()}
        verdict = judge(found.metrics)
        print("\n".join(summary(found.metrics, sizes, verdict)))
        if self.json is not None:
            write_json(self.json, {"verdict": verdict, "sizes": sizes, **found.metrics})
        return 0 if verdict == "not told apart" else 1

    def _read(self, path: Path) -> Outputs:
        from unlearnkit.auditing import read_outputs

        return read_outputs(path, probabilities=self.probabilities)


def judge(metrics: Mapping[str, float]) -> str:
    """Returns `told apart` where the interval of the AUC excludes the reference's, or chance."""
    goal = metrics.get(f"reference_{_AUC}", 0.5)
    inside = metrics[f"{_AUC}_low"] <= goal <= metrics[f"{_AUC}_high"]
    return "not told apart" if inside else "told apart"


def summary(metrics: Mapping[str, float], sizes: Mapping[str, int], verdict: str) -> list[str]:
    """Returns the lines that are printed.

    Args:
      metrics: of `audit_outputs`.
      sizes: examples by set.
      verdict: of `judge`.
    """

    def bounded(name: str) -> str:
        low, high = metrics[f"{name}_low"], metrics[f"{name}_high"]
        return f"{metrics[name]:.3f} [{low:.3f}, {high:.3f}]"

    counts = ", ".join(f"{name} {count}" for name, count in sizes.items())
    lines = [
        f"examples           {counts}",
        f"accuracy, forget   {bounded('accuracy_forget')}",
        f"accuracy, unseen   {metrics['accuracy_test']:.3f}",
        f"attack's AUC       {bounded(_AUC)}",
    ]
    if f"before_{_AUC}" in metrics:
        lines += [
            f"  before           {bounded('before_' + _AUC)}",
            f"loss, change       forget {bounded('change_loss_forget')}",
            f"                   unseen {bounded('change_loss_test')}",
        ]
    if f"reference_{_AUC}" in metrics:
        lines.append(f"  of the reference {metrics[f'reference_{_AUC}']:.3f}")
        lines.append(f"L1 to reference    forget {metrics['activation_distance_forget']:.3f}")
    against = "the reference's" if f"reference_{_AUC}" in metrics else "chance, 0.5"
    told = {
        "told apart": f"The forget set is told apart: the attack's AUC is not {against}.",
        "not told apart": f"The forget set is not told apart: the AUC may well be {against}.",
    }[verdict]
    few = sizes["forget"] < 30
    weak = f" With {sizes['forget']} examples only a gross difference could be seen." if few else ""
    return [*lines, "", *textwrap.wrap(told + weak, 79), *textwrap.wrap(_NOT_SHOWN, 79)]
