"""What Suliman et al. 2024 claim, judged from our figures; see `experiments.claims`.

Most of its claims are of orders of magnitude: "orders of magnitude larger" is taken as at least a
hundredfold, for the best forged batch against the largest honest error, and "on the order of" as
within a factor of ten.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from experiments.claims import Claim, Verdict, judge_difference
from experiments.forging import paper
from experiments.forging.forgetting import MODELS, differences
from unlearnkit.forging import convert_error

Result = Mapping[str, Any]
FAR = 100.0
NEAR = 10.0
BEYOND = 1.96
"""Standard deviations that noise exceeds once in twenty times."""


def judge(result: Result) -> list[Claim]:
    """Returns the claims that one setting's result can judge."""
    claims = [_same_device(result), *_searches(result)]
    claims += _network_claims(result)
    claims += _regression_claims(result)
    if "exact" in result["forged"]:
        claims.append(_exact(result["forged"]["exact"]))
    if result.get("forgetting"):
        claims += forgetting_claims(result["forgetting"])
    return claims


def _holds(condition: bool) -> Verdict:
    return "holds" if condition else "does not hold"


def _setup(result: Result) -> tuple[str, str, int]:
    settings = result["settings"]
    return settings["model"], settings["dataset"], settings["batch_size"]


def _of_order(
    text: str, where: str, ours: float, theirs: float | None, *, at_most: bool = False
) -> Claim:
    """Returns the claim that a figure is of the paper's order; without one, nothing is judged.

    Args:
      text: of the claim.
      where: the paper makes it.
      ours: our figure.
      theirs: the paper's.
      at_most: whether a smaller figure is as good: that of an attack that is to be exact.
    """
    if theirs is None:
        return Claim(text, where, f"{ours:.2g}", "not in the paper", "undecided")
    near = ours > 0 and (at_most or ours * NEAR >= theirs) and ours <= NEAR * theirs
    return Claim(text, where, f"{ours:.2g}", f"{theirs:.2g}", _holds(near))


def _same_device(result: Result) -> Claim:
    largest = result["reproduction"]["verified"]["largest"]
    return Claim(
        "A device that does not tune itself reproduces its own log exactly",
        "Table 3, A.3.2",
        f"largest error {largest:.2g}",
        "0 on a V100, 1.3e-8 and more on a GTX 4090",
        _holds(largest == 0),
    )


def _searches(result: Result) -> list[Claim]:
    greedy = result["forged"]["attacks"].get("greedy")
    if greedy is None:
        return []
    row = paper.TABLE_1.get(_setup(result))
    claims = [_apart(result, greedy, "greedy search", "Table 1", row)]
    if row is not None:
        text = f"The greedy attack errs by the order that {row.author} report, on average"
        claims.append(_of_order(text, "Table 1", float(np.mean(greedy["errors"])), row.forged))
        claims.append(_two_devices(result, row))
    if "swap" in result["forged"]["attacks"]:
        swap = result["forged"]["attacks"]["swap"]
        claims.append(_apart(result, swap, "exchanges (ours)", "Table 1", None))
    return claims


def _two_devices(result: Result, row: paper.Setup) -> Claim:
    text = "Two kinds of devices differ by the order of the paper's, at most"
    others = [
        one["largest"]
        for one in result.get("elsewhere", ())
        if one["made_on"] != one["verified_on"]
    ]
    if others:
        return _of_order(text, "Tables 1 and 3", max(others), row.reproduction)
    ours = "one device; other orders, precisions and convolutions on it differ by up to "
    ours += f"{result['reproduction']['largest']:.2g}"
    return Claim(text, "Tables 1 and 3", ours, f"{row.reproduction:.2g}", "undecided")


def _apart(
    result: Result, attack: Mapping[str, Any], words: str, where: str, row: paper.Setup | None
) -> Claim:
    best, largest = min(attack["errors"]), result["reproduction"]["largest"]
    ratio = best / largest if largest > 0 else math.inf
    theirs = (
        "not in the paper" if row is None else f"{row.forged:.2g} against {row.reproduction:.2g}"
    )
    return Claim(
        f"The best batch by {words} errs by orders of magnitude more than any honest replay",
        where,
        f"{best:.2g} against {largest:.2g}: {ratio:.0f} times",
        theirs,
        _holds(ratio >= FAR),
    )


def _network_claims(result: Result) -> list[Claim]:
    attacks, (network, _, _) = result["forged"]["attacks"], _setup(result)
    claims = []
    if network in paper.CONVERSIONS:
        norm, error, expected = paper.CONVERSIONS[network]
        dimension = result["reproduction"]["n_parameters"]
        ours = convert_error(error, norm, "l2", dimension)
        claims.append(
            Claim(
                f"An error of {error:g} in {norm} is {expected:g} in l2",
                "Table 2, A.3.1",
                f"{ours:.4g} for {dimension:,} parameters",
                f"{expected:g}",
                _holds(abs(ours / expected - 1) < 1e-3),
            )
        )
    if "adam" in attacks:
        claims.append(_apart(result, attacks["adam"], "unconstrained Adam", "Figure 2", None))
        reached = float(np.mean(attacks["adam"]["errors"]))
        text = "Unconstrained Adam reaches the error of Figure 2 or less, on average"
        drawn = paper.FIGURE_2.get(network)
        claims.append(_of_order(text, "Figure 2", reached, drawn, at_most=True))
    if "adam" in attacks and "adam_grid" in attacks:
        claims.append(_constrained(attacks["adam"]["errors"], attacks["adam_grid"]["errors"]))
    return claims


def _constrained(free: Sequence[float], grid: Sequence[float]) -> Claim:
    pairs = min(len(free), len(grid))
    decades = np.log10(grid[:pairs]) - np.log10(free[:pairs])
    verdict, ours = judge_difference(decades, sign=1)
    return Claim(
        "Keeping to images and classes makes the error of optimisation higher",
        "section 4",
        f"{ours} decades",
        "expected, not measured",
        verdict,
    )


def _regression_claims(result: Result) -> list[Claim]:
    attacks, tolerance = result["forged"]["attacks"], result["reproduction"]["tolerance"]
    if _setup(result)[0] != "logistic":
        return []
    shuffled = _band(result, "batch order")
    text = "Shuffling a batch of logistic regression moves the step by about 1e-8, at the median"
    claims = [_of_order(text, "Figure 4", float(np.median(shuffled)), paper.FIGURE_4)]
    if "logistic" in attacks:
        exact = attacks["logistic"]
        errors = np.asarray(exact["errors"])
        text = "Logistic regression is forged to the order of rounding or better, at the median"
        median = float(np.median(errors))
        claims.append(_of_order(text, "Figure 3", median, paper.FIGURE_3, at_most=True))
        accepted = float(np.mean(errors <= tolerance))
        claims.append(
            Claim(
                "A verifier accepts these forgeries of logistic regression",
                "Proposition 2",
                f"{accepted:.0%} within {tolerance:.2g}; largest {errors.max():.2g}",
                "acceptable for a verifier",
                _holds(accepted == 1),
            )
        )
        claims += [_outside(exact), _superposed(exact, result["forged"]["honest"])]
    if "grid_logistic" in attacks:
        claims.append(_open_question(attacks["grid_logistic"]["errors"], tolerance))
    return claims


def _band(result: Result, name: str) -> list[float]:
    bands = {band["name"]: band["errors"] for band in result["reproduction"]["bands"]}
    return bands[name]


def _outside(exact: Mapping[str, Any]) -> Claim:
    share = exact["out_of_domain"]
    return Claim(
        "Their examples are no images with classes",
        "section 4",
        f"{share:.0%} of the examples are outside of the domain",
        "not guaranteed to be inside",
        _holds(share == 1),
    )


def _superposed(exact: Mapping[str, Any], honest: Mapping[str, Any]) -> Claim:
    """Where the batch spans all images, being a superposition of it says nothing."""
    forged = exact["traces"]["left_of_superposition"]
    others = honest["traces"]["left_of_superposition"]
    verdict: Verdict = _holds(forged < 0.01) if others > 0.1 else "undecided"
    return Claim(
        "Their images are the original batch's, superimposed",
        "Figure 3",
        f"{forged:.1%} of an image is not; of other honest images {others:.1%}",
        "seen in the figure",
        verdict,
    )


def _open_question(errors: Sequence[float], tolerance: float) -> Claim:
    best = min(errors)
    return Claim(
        "Open in the paper: some batch of images with classes passes the verifier",
        "section 4",
        f"best {best:.2g}, tolerance {tolerance:.2g}",
        "open",
        _holds(best <= tolerance),
    )


def _exact(found: Mapping[str, int]) -> Claim:
    return Claim(
        "Greedy search in integer arithmetic never reaches an error of zero",
        "section 3, of Baluta et al. (2023)",
        f"{found['exact']} of {found['candidates']:,} batches; the nearest is off by "
        f"{found['nearest']:,} units of the last place",
        "none",
        _holds(found["exact"] == 0),
    )


def forgetting_claims(seeds: Sequence[Mapping[str, Any]]) -> list[Claim]:
    """Returns the claims on a whole log that is forged to forget, and on its model."""
    claims = []
    judged = next(seed for seed in seeds if "logs" in seed)
    logs = judged["logs"]
    for name in (name for name in logs if name != "true"):
        true, forged = logs["true"], logs[name]
        claims.append(
            Claim(
                f"The calibrated verifier tells the log forged by {name} from the true one",
                "section 5",
                f"true: {true['accepted']} of {true['segments']} steps accepted; forged: "
                f"{forged['accepted']} of {forged['segments']}, largest {forged['largest']:.2g} "
                f"at a tolerance of {judged['tolerance']:.2g}",
                "easily told apart",
                _holds(true["valid"] and not forged["valid"]),
            )
        )
    for metric, words in (
        ("mia_auc", "the loss attack knows the forgotten better (AUC)"),
        ("accuracy_forget", "accuracy on the forgotten is higher"),
    ):
        verdict, ours = judge_difference(differences(seeds, metric), sign=1)
        claims.append(
            Claim(
                f"A forged log is no unlearning: {words} than after retraining",
                "abstract, section 1",
                f"claimed less retrained {ours}",
                "said, not measured",
                verdict,
            )
        )
    return [*claims, _remembered(seeds)]


def _remembered(seeds: Sequence[Mapping[str, Any]]) -> Claim:
    """Pools z over the runs, Σ z / √runs: N(0, 1) of a model that never saw the noise."""
    claimed, retrained = (
        sum(seed["audits"][name]["z"] for seed in seeds) / math.sqrt(len(seeds)) for name in MODELS
    )
    found = abs(claimed) > BEYOND and abs(claimed) > abs(retrained)
    return Claim(
        "A forged log is no unlearning: GUS finds the forgotten noise in the claimed model",
        "abstract, section 1; Pawelczyk et al. 2024",
        f"z over all runs {claimed:+.2f}, after retraining {retrained:+.2f}; N(0, 1) without it",
        "said, not measured",
        _holds(found),
    )
