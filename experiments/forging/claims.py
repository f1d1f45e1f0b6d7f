"""What Suliman et al. 2024 claim, judged from our figures; see `experiments.claims`.

Most of its claims are of orders of magnitude: "orders of magnitude larger" is taken as at least a
hundredfold, for the best forged batch against the largest honest error, and "on the order of" as
within a factor of ten.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from experiments.claims import Claim, Verdict, claim_difference, holds
from experiments.forging import paper
from experiments.forging.forgetting import MODELS, differences
from unlearnkit.forging import convert_error

Result = Mapping[str, Any]
FAR = 100.0
NEAR = 10.0
BEYOND = 1.96
"""Standard deviations that noise exceeds once in twenty times."""
NOT_THERE = "not in the paper"


def judge(result: Result) -> list[Claim]:
    """Returns the claims that one setting's result can judge."""
    claims = [_same_device(result), *_searches(result), *_network_claims(result)]
    if setup(result)[0] == "logistic":
        claims += _regression_claims(result)
    if "exact" in result["forged"]:
        claims.append(_exact(result["forged"]["exact"]))
    if result.get("forgetting"):
        claims += forgetting_claims(result["forgetting"])
    return claims


def setup(result: Result) -> tuple[str, str, int]:
    """Returns network, dataset and batch size."""
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
        return Claim(text, where, f"{ours:.2g}", NOT_THERE, "undecided")
    near = ours > 0 and (at_most or ours * NEAR >= theirs) and ours <= NEAR * theirs
    return Claim(text, where, f"{ours:.2g}", f"{theirs:.2g}", holds(near))


def _same_device(result: Result) -> Claim:
    largest = result["reproduction"]["verified"]["largest"]
    text = "A device that does not tune itself reproduces its own log exactly"
    paper_says = "0 on a V100, 1.3e-8 and more on a GTX 4090"
    ours = f"largest error {largest:.2g}"
    return Claim(text, "Table 3, A.3.2", ours, paper_says, holds(largest == 0))


def _searches(result: Result) -> Iterator[Claim]:
    attacks, row = result["forged"]["attacks"], paper.TABLE_1.get(setup(result))
    if "greedy" not in attacks:
        return
    yield _apart(result, "greedy", "greedy search", "Table 1", row)
    if row is not None:
        text = f"The greedy attack errs by the order that {row.author} report, on average"
        mean = float(np.mean(attacks["greedy"]["errors"]))
        yield _of_order(text, "Table 1", mean, row.forged)
        yield _two_devices(result, row)
    if "swap" in attacks:
        yield _apart(result, "swap", "exchanges (ours)", "Table 1")


def _two_devices(result: Result, row: paper.Setup) -> Claim:
    text, where = (
        "Two kinds of devices differ by the order of the paper's, at most",
        "Tables 1 and 3",
    )
    elsewhere = result.get("elsewhere", ())
    others = [one["largest"] for one in elsewhere if one["made_on"] != one["verified_on"]]
    if others:
        return _of_order(text, where, max(others), row.reproduction)
    ours = "one device; other orders, precisions and convolutions on it differ by up to "
    ours += f"{result['reproduction']['largest']:.2g}"
    return Claim(text, where, ours, f"{row.reproduction:.2g}", "undecided")


def _apart(
    result: Result, name: str, words: str, where: str, row: paper.Setup | None = None
) -> Claim:
    best = min(result["forged"]["attacks"][name]["errors"])
    largest = result["reproduction"]["largest"]
    ratio = best / largest if largest > 0 else math.inf
    theirs = NOT_THERE if row is None else f"{row.forged:.2g} against {row.reproduction:.2g}"
    text = f"The best batch by {words} errs by orders of magnitude more than any honest replay"
    ours = f"{best:.2g} against {largest:.2g}: {ratio:.0f} times"
    return Claim(text, where, ours, theirs, holds(ratio >= FAR))


def _network_claims(result: Result) -> Iterator[Claim]:
    attacks, (network, _, _) = result["forged"]["attacks"], setup(result)
    if network in paper.CONVERSIONS:
        norm, error, expected = paper.CONVERSIONS[network]
        dimension = result["reproduction"]["n_parameters"]
        converted = convert_error(error, norm, "l2", dimension)
        text = f"An error of {error:g} in {norm} is {expected:g} in l2"
        ours = f"{converted:.4g} for {dimension:,} parameters"
        same = abs(converted / expected - 1) < 1e-3
        yield Claim(text, "Table 2, A.3.1", ours, f"{expected:g}", holds(same))
    if "adam" in attacks:
        yield _apart(result, "adam", "unconstrained Adam", "Figure 2")
        text = "Unconstrained Adam reaches the error of Figure 2 or less, on average"
        reached, drawn = float(np.mean(attacks["adam"]["errors"])), paper.FIGURE_2.get(network)
        yield _of_order(text, "Figure 2", reached, drawn, at_most=True)
    if "adam" in attacks and "adam_grid" in attacks:
        free, grid = attacks["adam"]["errors"], attacks["adam_grid"]["errors"]
        pairs = min(len(free), len(grid))
        decades = np.log10(grid[:pairs]) - np.log10(free[:pairs])
        text = "Keeping to images and classes makes the error of optimisation higher"
        theirs = "expected, not measured"
        yield claim_difference(text, "section 4", decades, 1, "{} decades", theirs)


def _regression_claims(result: Result) -> Iterator[Claim]:
    attacks, tolerance = result["forged"]["attacks"], result["reproduction"]["tolerance"]
    bands = {band["name"]: band["errors"] for band in result["reproduction"]["bands"]}
    text = "Shuffling a batch of logistic regression moves the step by about 1e-8, at the median"
    yield _of_order(text, "Figure 4", float(np.median(bands["batch order"])), paper.FIGURE_4)
    if "logistic" in attacks:
        exact = attacks["logistic"]
        errors = np.asarray(exact["errors"])
        text = "Logistic regression is forged to the order of rounding or better, at the median"
        median = float(np.median(errors))
        yield _of_order(text, "Figure 3", median, paper.FIGURE_3, at_most=True)
        accepted = float(np.mean(errors <= tolerance))
        text = "A verifier accepts these forgeries of logistic regression"
        ours = f"{accepted:.0%} within {tolerance:.2g}; largest {errors.max():.2g}"
        verdict = holds(accepted == 1)
        yield Claim(text, "Proposition 2", ours, "acceptable for a verifier", verdict)
        share = exact["out_of_domain"]
        ours = f"{share:.0%} of the examples are outside of the domain"
        text, paper_says = (
            "Their examples are no images with classes",
            "not guaranteed to be inside",
        )
        yield Claim(text, "section 4", ours, paper_says, holds(share == 1))
        yield _superposed(exact, result["forged"]["honest"])
    if "grid_logistic" in attacks:
        best = min(attacks["grid_logistic"]["errors"])
        text = "Open in the paper: some batch of images with classes passes the verifier"
        ours = f"best {best:.2g}, tolerance {tolerance:.2g}"
        yield Claim(text, "section 4", ours, "open", holds(best <= tolerance))


def _superposed(exact: Mapping[str, Any], honest: Mapping[str, Any]) -> Claim:
    """Where the batch spans all images, being a superposition of it says nothing."""
    forged = exact["traces"]["left_of_superposition"]
    others = honest["traces"]["left_of_superposition"]
    verdict: Verdict = holds(forged < 0.01) if others > 0.1 else "undecided"
    text = "Their images are the original batch's, superimposed"
    ours = f"{forged:.1%} of an image is not; of other honest images {others:.1%}"
    return Claim(text, "Figure 3", ours, "seen in the figure", verdict)


def _exact(found: Mapping[str, int]) -> Claim:
    text = "Greedy search in integer arithmetic never reaches an error of zero"
    ours = f"{found['exact']} of {found['candidates']:,} batches; the nearest is off by "
    ours += f"{found['nearest']:,} units of the last place"
    where = "section 3, of Baluta et al. (2023)"
    return Claim(text, where, ours, "none", holds(found["exact"] == 0))


def forgetting_claims(seeds: Sequence[Mapping[str, Any]]) -> list[Claim]:
    """Returns the claims on a whole log that is forged to forget, and on its model."""
    claims = []
    judged = next(seed for seed in seeds if "logs" in seed)
    true = judged["logs"]["true"]
    for name, forged in judged["logs"].items():
        if name != "true":
            text = f"The calibrated verifier tells the log forged by {name} from the true one"
            ours = f"true: {true['accepted']} of {true['segments']} steps accepted; forged: "
            ours += f"{forged['accepted']} of {forged['segments']}, largest {forged['largest']:.2g}"
            ours += f" at a tolerance of {judged['tolerance']:.2g}"
            told = holds(true["valid"] and not forged["valid"])
            claims.append(Claim(text, "section 5", ours, "easily told apart", told))
    text, paper_says = "A forged log is no unlearning: {}", "said, not measured"
    for metric, words in (
        ("mia_auc", "the loss attack knows the forgotten better (AUC) than after retraining"),
        ("accuracy_forget", "accuracy on the forgotten is higher than after retraining"),
    ):
        gaps, ours = differences(seeds, metric), "claimed less retrained {}"
        where = "abstract, section 1"
        claims.append(claim_difference(text.format(words), where, gaps, 1, ours, paper_says))
    # z pooled over the runs, Σ z / √runs, is N(0, 1) of a model that never saw the noise.
    claimed, retrained = (
        sum(seed["audits"][name]["z"] for seed in seeds) / math.sqrt(len(seeds)) for name in MODELS
    )
    found = holds(abs(claimed) > BEYOND and abs(claimed) > abs(retrained))
    text = text.format("GUS finds the forgotten noise in the claimed model")
    ours = f"z over all runs {claimed:+.2f}, after retraining {retrained:+.2f}; N(0, 1) without it"
    where = "abstract, section 1; Pawelczyk et al. 2024"
    return [*claims, Claim(text, where, ours, paper_says, found)]
