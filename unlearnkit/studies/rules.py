"""By which rule one of several settings of a method is chosen."""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple, Protocol, runtime_checkable

from unlearnkit.validation import check_at_least, check_known


class Measured(NamedTuple):
    """What a rule looks at, of a network on what is held out for choosing.

    Attributes:
      accuracy: on the validation examples of the choice.
      mia_accuracy: of the attack that tells the forget set from these.
      accuracy_retain: on the retain set.
      ks_statistic: between the losses of the forget set and of these validation examples.
    """

    accuracy: float
    mia_accuracy: float
    accuracy_retain: float
    ks_statistic: float


LOST = Measured(0.0, 1.0, 0.0, 1.0)
"""What a setting that diverged counts as."""
CHANCE = Measured(math.nan, 0.5, math.nan, 0.0)
"""How a network that never saw the forget set behaves where that is like other data."""


def measured_of(metrics: Mapping[str, float]) -> Measured:
    """Returns what a rule looks at, of the metrics of `auditing.evaluate`.

    Args:
      metrics: with those of the loss attack by logistic regression; the test set of their task is
        what is held out for choosing.
    """
    return Measured(
        metrics["accuracy_test"],
        metrics["mia_loss_logistic_accuracy"],
        metrics["accuracy_retain"],
        metrics["ks_statistic"],
    )


@runtime_checkable
class Rule(Protocol):
    """Says how good a setting is."""

    def score(self, measured: Measured, original: Measured, reference: Measured | None) -> float:
        """Returns how good a setting is, the larger the better; -inf where it will not do.

        Args:
          measured: of the setting.
          original: of the network before anything was forgotten.
          reference: of one that was retrained for choosing; None where there is none.
        """
        ...

    def refusal(self, original: Measured, reference: Measured | None) -> str:
        """Returns what a setting must keep, for a sentence that says that none does.

        Args:
          original: of the network before anything was forgotten.
          reference: of one that was retrained for choosing; None where there is none.
        """
        ...


@dataclasses.dataclass(frozen=True)
class AccuracyLessMia:
    """The validation accuracy less the accuracy of the membership attack.

    It prefers a ruined network, whose outputs tell nothing, to a weak one that remembers; and it
    forbids to forget a class, on which the attack succeeds against Retrain too.

    Source: Di et al. 2024, §6.1: "the hyper-parameters that maximize the difference between the
    validation accuracy and the MIA accuracy".
    """

    def score(self, measured: Measured, original: Measured, reference: Measured | None) -> float:
        """Returns the difference."""
        return measured.accuracy - measured.mia_accuracy

    def refusal(self, original: Measured, reference: Measured | None) -> str:
        """Returns that any setting will do."""
        return "does anything"


@dataclasses.dataclass(frozen=True)
class RetrainLike:
    """The nearest to how Retrain behaves, among those that keep the accuracies of the original.

    A setting will do where retain and validation accuracy are at most `tolerance` below the
    original's, or below the reference's where that is lower still: what Retrain loses too, as the
    accuracy on a forgotten class, is no loss. Of these the least

      (|MIA - MIA*| + |KS - KS*|) / 2

    is the best. MIA* and KS* are the reference's, a network retrained for choosing, which is seen
    by no method and in no table. Without one they are .5 and 0, which is what Retrain shows where
    the forget set is like other data; not so where a class is forgotten.

    Attributes:
      tolerance: in accuracy, >= 0.
    """

    tolerance: float = 0.02

    def __post_init__(self) -> None:
        check_at_least(self, 0, "tolerance")

    def score(self, measured: Measured, original: Measured, reference: Measured | None) -> float:
        """Returns minus the distance; -inf where the setting will not do."""
        least = _least(original, reference)
        kept = measured.accuracy_retain, measured.accuracy
        if not all(now >= bound - self.tolerance for now, bound in zip(kept, least, strict=True)):
            return -math.inf
        goal = CHANCE if reference is None else reference
        mia = abs(measured.mia_accuracy - goal.mia_accuracy)
        return -(mia + abs(measured.ks_statistic - goal.ks_statistic)) / 2

    def refusal(self, original: Measured, reference: Measured | None) -> str:
        """Returns the accuracies that are to be kept."""
        retain, validation = _least(original, reference)
        return (
            f"keeps a retain accuracy of {retain:.3f} and a validation accuracy of "
            f"{validation:.3f} within {self.tolerance:g}"
        )


RuleName = Literal["accuracy_less_mia", "retrain_like"]
RULES: dict[str, Rule] = {"accuracy_less_mia": AccuracyLessMia(), "retrain_like": RetrainLike()}
"""Every rule by name, with its defaults."""


class ToleranceError(ValueError):
    """No setting will do: the rule asks for more than any of them keeps."""


def choose(
    rule: RuleName | Rule,
    trials: Sequence[Measured],
    *,
    original: Measured,
    reference: Measured | None = None,
) -> int:
    """Returns the place of the best of several settings, of equally good ones the first.

    Args:
      rule: a name in `RULES`, or a rule with settings of its own.
      trials: of each setting, on one network; see `choose_on_networks` for several.
      original: of the network before anything was forgotten.
      reference: of one that was retrained for choosing; None where there is none.

    Raises:
      ToleranceError: none will do.
      ValueError: no settings, or an unknown rule.

    Example:
      best = studies.choose("retrain_like", trials, original=before, reference=retrained)
    """
    references = None if reference is None else [reference]
    return choose_on_networks(
        rule, [[trial] for trial in trials], originals=[original], references=references
    )


def choose_on_networks(
    rule: RuleName | Rule,
    trials: Sequence[Sequence[Measured]],
    *,
    originals: Sequence[Measured],
    references: Sequence[Measured] | None = None,
) -> int:
    """Returns the place of the best of several settings that met several networks each.

    argmax over settings of the mean over networks of score(setting, network)

    A network that a setting is refused for refuses the setting: an average would hide the one
    network of many that it ruins.

    Args:
      rule: a name in `RULES`, or a rule with settings of its own.
      trials: of each setting, what it made of each network.
      originals: each network before anything was forgotten.
      references: those that were retrained for choosing, likewise; None where there are none.

    Raises:
      ToleranceError: none will do.
      ValueError: no settings, or an unknown rule.
    """
    if not trials:
        raise ValueError("trials must hold at least one setting, got none")
    judge = rule_of(rule)
    goals = [None] * len(originals) if references is None else references
    scores = [statistics.fmean(map(judge.score, trial, originals, goals)) for trial in trials]
    best = max(range(len(scores)), key=lambda place: scores[place])
    if scores[best] == -math.inf:
        kept = max(map(mean_of, trials), key=lambda trial: trial.accuracy_retain)
        goal = None if references is None else mean_of(references)
        each = f" on each of {len(originals)} networks" if len(originals) > 1 else ""
        raise ToleranceError(
            f"none of {len(trials)} settings {judge.refusal(mean_of(originals), goal)}{each}; the "
            f"one with the best retain accuracy has {kept.accuracy_retain:.3f} and "
            f"{kept.accuracy:.3f}; try milder settings, or allow a larger tolerance"
        )
    return best


def mean_of(networks: Sequence[Measured]) -> Measured:
    """Returns what a rule looks at, on average over networks."""
    return Measured(*map(statistics.fmean, zip(*networks, strict=True)))


def rule_of(rule: RuleName | Rule) -> Rule:
    """Returns the rule of a name.

    Raises:
      ValueError: an unknown name.
    """
    if not isinstance(rule, str):
        return rule
    check_known("rule", rule, RULES)
    return RULES[rule]


def _least(original: Measured, reference: Measured | None) -> tuple[float, float]:
    """Returns the retain and the validation accuracy that losses are counted from."""
    both = [original] if reference is None else [original, reference]
    return min(one.accuracy_retain for one in both), min(one.accuracy for one in both)
