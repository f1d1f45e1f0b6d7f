"""Whether an attack had an effect on the network that trained on its poisons."""

from __future__ import annotations

from collections.abc import Mapping

from scipy import stats

LEVEL = 0.05
"""Of the one-sided tests."""


def lacks_effect(victim: Mapping[str, float], reference: Mapping[str, float]) -> str | None:
    """Returns why poisons count as without effect, in words; None where they had one.

    What has no effect cannot be forgotten: no verdict on unlearning follows from it. Poisons of
    noise had one where their GUS differs from 0, or more of them than the false positive rate are
    given away; poisons with targets, where more targets are taken for the adversarial class than by
    the reference; a trigger, where it works on more examples; all others, where the test accuracy
    fell below that of the network trained on clean data. Each is tested at a level of 5 %, where
    there is something to be tested.

    Args:
      victim: metrics of `PoisonEffects` of the network that trained on the poisons.
      reference: of the one that was retrained without them.

    Example:
      record.no_effect  # "0 of its targets are taken for ...", on every record of such an attack
    """
    if "gaussian_gus" in victim:
        p_value, low = victim["gaussian_p_value"], victim["gaussian_tpr_two_sided_low"]
        if p_value < LEVEL or low > 0.01:
            return None
        gus, error = victim["gaussian_gus"], victim["gaussian_gus_se"]
        return f"the noise does not show in its network: GUS {gus:+.3f} ± {error:.3f}"
    if "targets_targeted_success" in victim:
        found, without = (m["targets_targeted_success"] for m in (victim, reference))
        if found > without:
            return None
        return (
            f"{100 * found:.0f} % of its targets are taken for the adversarial class, "
            f"{100 * without:.0f} % without the poisons"
        )
    if "trigger_success" in victim:
        low, without = victim["trigger_success_low"], reference["trigger_success"]
        if low > without:
            return None
        found = victim["trigger_success"]
        return (
            f"its trigger works on {100 * found:.0f} %, {100 * without:.0f} % without the poisons"
        )
    drop, error = victim["accuracy_drop"], victim["accuracy_drop_se"]
    if drop > float(stats.norm.isf(LEVEL)) * error:
        return None
    return (
        f"the test accuracy of its network is {100 * drop:+.1f} ± {100 * error:.1f} points below "
        "that of one trained on clean data"
    )
