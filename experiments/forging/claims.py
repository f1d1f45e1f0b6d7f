"""What Suliman et al. 2024 claim, judged from our figures; see `experiments.claims`.

Most of its claims are of orders of magnitude: "orders of magnitude larger" is taken as at least a
hundredfold, for the best forged batch against the largest honest error, and "on the order of" as
within a factor of ten. "Reaches" is meant as it is written.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from experiments.claims import Claim, Runs, Statement, holds, judge_all
from experiments.forging import paper
from experiments.forging.settings import NOISE
from unlearnkit.forging import convert_error
from unlearnkit.studies import ORIGINAL, RETRAIN, Record

Result = Mapping[str, Any]
NOT_THERE = "not in the paper"


def setup(result: Result) -> tuple[str, str, int]:
    """Returns network, dataset and batch size."""
    settings = result["settings"]
    return settings["model"], settings["dataset"], settings["batch_size"]


def _near(
    claim: Statement, ours: float, theirs: float, *, at_most: bool = False, **names: str
) -> Claim:
    """Returns the claim that a figure is of the paper's order."""
    factor = claim.threshold
    near = ours > 0 and (at_most or ours * factor >= theirs) and ours <= factor * theirs
    return claim.decide(holds(near), f"{ours:.2g}", paper=f"{theirs:.2g}", **names)


def judge(result: Result) -> list[Claim]:
    """Returns the claims that one setting's result can judge, but for those on whole logs."""
    network, _, _ = setup(result)
    row, honest = paper.TABLE_1.get(setup(result)), result["reproduction"]
    attacks: dict[str, Any] = result["forged"]["attacks"]
    errors = {name: np.asarray(attack["errors"], float) for name, attack in attacks.items()}
    tolerance = honest.get("tolerance", math.nan)

    def same_device(claim: Statement) -> Iterator[Claim]:
        largest = honest["verified"]["largest"]
        yield claim.decide(holds(largest == 0), f"largest error {largest:.2g}")

    def apart(claim: Statement) -> Iterator[Claim]:
        (name,) = claim.rows
        if name not in errors:
            return
        best, largest = errors[name].min(), honest["largest"]
        ratio = best / largest if largest > 0 else math.inf
        theirs = NOT_THERE
        if row is not None and name == "greedy":
            theirs = f"{row.forged:.2g} against {row.reproduction:.2g}"
        ours = f"{best:.2g} against {largest:.2g}: {ratio:.0f} times"
        yield claim.decide(holds(ratio >= claim.threshold), ours, paper=theirs)

    def greedy_order(claim: Statement) -> Iterator[Claim]:
        if row is not None and "greedy" in errors:
            yield _near(claim, errors["greedy"].mean(), row.forged, author=row.author)

    def two_devices(claim: Statement) -> Iterator[Claim]:
        if row is None or "greedy" not in errors:
            return
        pairs = result.get("elsewhere", ())
        others = [one["largest"] for one in pairs if one["made_on"] != one["verified_on"]]
        if others:
            yield _near(claim, max(others), row.reproduction)
            return
        ours = "one device; other orders, precisions and convolutions on it differ by up to "
        ours += f"{honest['largest']:.2g}"
        yield claim.decide("undecided", ours, paper=f"{row.reproduction:.2g}")

    def conversion(claim: Statement) -> Iterator[Claim]:
        if network in paper.CONVERSIONS:
            norm, error, expected = paper.CONVERSIONS[network]
            dimension = honest["n_parameters"]
            found = convert_error(error, norm, "l2", dimension)
            same = holds(abs(found / expected - 1) < claim.threshold)
            ours, names = f"{found:.4g} for {dimension:,} parameters", (error, norm, expected)
            named = dict(zip(("error", "norm", "expected"), names, strict=True))
            yield claim.decide(same, ours, **named)

    def reaches(claim: Statement) -> Iterator[Claim]:
        (name,), drawn = claim.rows, paper.FIGURE_2.get(network)
        if name not in errors:
            return
        reached = errors[name].mean()
        verdict = "undecided" if drawn is None else holds(reached <= drawn)
        theirs = NOT_THERE if drawn is None else f"{drawn:.2g}"
        yield claim.decide(verdict, f"{reached:.2g}", paper=theirs)

    def decades(claim: Statement) -> Iterator[Claim]:
        if set(claim.rows) <= errors.keys():
            more, less = (errors[name] for name in claim.rows)
            pairs = min(len(more), len(less))
            yield claim.judge(np.log10(more[:pairs]) - np.log10(less[:pairs]))

    def exact_search(claim: Statement) -> Iterator[Claim]:
        if "exact" in result["forged"]:
            found = result["forged"]["exact"]
            ours = f"{found['exact']} of {found['candidates']:,} batches; the nearest is off by "
            ours += f"{found['nearest']:,} units of the last place"
            yield claim.decide(holds(found["exact"] == 0), ours)

    def shuffles(claim: Statement) -> Iterator[Claim]:
        bands = {band["name"]: band["errors"] for band in honest["bands"]}
        yield _near(claim, float(np.median(bands["batch order"])), paper.FIGURE_4)

    def regression(claim: Statement) -> Iterator[Claim]:
        if "logistic" not in errors:
            return
        found, share = errors["logistic"], attacks["logistic"]["out_of_domain"]
        accepted = float(np.mean(found <= tolerance))
        told = f"{accepted:.0%} within {tolerance:.2g}; largest {found.max():.2g}"
        outside = f"{share:.0%} of the examples are outside of the domain"
        if claim.figure == "regression_order":
            yield _near(claim, float(np.median(found)), paper.FIGURE_3, at_most=True)
        elif claim.figure == "regression_accepted":
            yield claim.decide(holds(accepted == 1), told)
        else:
            yield claim.decide(holds(share == 1), outside)

    def superposed(claim: Statement) -> Iterator[Claim]:
        """Where the batch spans all images, being a superposition of it says nothing."""
        if "logistic" in errors:
            left, others = (
                one["traces"]["left_of_superposition"]
                for one in (attacks["logistic"], result["forged"]["honest"])
            )
            verdict = holds(left < claim.threshold) if others > 0.1 else "undecided"
            ours = f"{left:.1%} of an image is not; of other honest images {others:.1%}"
            yield claim.decide(verdict, ours)

    def grid_passes(claim: Statement) -> Iterator[Claim]:
        if "grid_logistic" in errors:
            best = errors["grid_logistic"].min()
            ours = f"best {best:.2g}, tolerance {tolerance:.2g}"
            yield claim.decide(holds(best <= tolerance), ours)

    figures = {
        made.__name__: made
        for made in (same_device, apart, greedy_order, two_devices, conversion, reaches, decades)
    } | {"exact_search": exact_search}
    if network == "logistic":
        names = ("regression_order", "regression_accepted", "regression_outside")
        figures |= dict.fromkeys(names, regression)
        figures |= {"shuffles": shuffles, "superposed": superposed, "grid_passes": grid_passes}
    return judge_all("forging", figures)


def judge_logs(records: Sequence[Record]) -> list[Claim]:
    """Returns the claims on logs that are forged to forget, and on their model."""
    asked, forgers = by_question(records), forgers_of(records)
    most = [question for question in asked if question != NOISE][-1:]

    def told_apart(claim: Statement) -> Iterator[Claim]:
        for name in forgers:
            runs = asked.values()
            true = [v for run in runs for v in run.values(RETRAIN, f"{name}_valid")]
            valid = [v for run in runs for v in run.values(ORIGINAL, f"{name}_valid")]
            shares = [v for run in runs for v in run.values(ORIGINAL, f"{name}_accepted")]
            ours = f"{sum(true):.0f} of {len(true)} honest logs are valid, {sum(valid):.0f} of "
            ours += f"{len(valid)} forged ones; {np.mean(shares):.0%} of forged steps accepted"
            yield claim.decide(holds(all(true) and not any(valid)), ours, name=name)

    def substitution_accepted(claim: Statement) -> Iterator[Claim]:
        question, name = claim.rows
        if question in asked and name in forgers:
            yield claim.judge(late_shares(records, question, name))

    def audits(claim: Statement) -> Iterator[Claim]:
        for question in most:
            yield claim.judge(asked[question].gaps(claim.metric, ORIGINAL, RETRAIN))

    def noise(claim: Statement) -> Iterator[Claim]:
        # z pooled over the runs, Σ z / √runs, is N(0, 1) of a model that never saw the noise.
        if NOISE in asked:
            scores = (asked[NOISE].values(name, claim.metric) for name in (ORIGINAL, RETRAIN))
            claimed, retrained = (sum(z) / math.sqrt(len(z)) for z in scores)
            found = abs(claimed) > claim.threshold and abs(claimed) > abs(retrained)
            ours = f"z over all runs {claimed:+.2f}, after retraining {retrained:+.2f}; "
            yield claim.decide(holds(found), ours + "N(0, 1) without it")

    named = (told_apart, substitution_accepted, audits, noise)
    return judge_all("forging", {made.__name__: made for made in named})


def by_question(records: Sequence[Record]) -> dict[str, Runs]:
    """Returns the records of each question."""
    names = dict.fromkeys(record.question for record in records)
    return {name: Runs([r for r in records if r.question == name]) for name in names}


def forgers_of(records: Sequence[Record]) -> list[str]:
    """Returns the names of the forgers of whole logs."""
    names = (name for record in records for name in record.metrics if name.endswith("_valid"))
    return list(dict.fromkeys(name.removesuffix("_valid") for name in names))


def by_epoch(record: Record, name: str, metric: str = "accepted") -> dict[int, float]:
    """Returns a metric of the forged steps by epoch; the share that is accepted, or the error."""
    prefix = f"{name}_{metric}_epoch_"
    found = {int(m.removeprefix(prefix)): v for m, v in record.metrics.items() if prefix in m}
    return dict(sorted(found.items()))


def late_shares(
    records: Sequence[Record], question: str, name: str, method: str = ORIGINAL
) -> list[float]:
    """Returns the mean share in the last quarter of the epochs, one per seed."""
    asked = [r for r in records if (r.question, r.method) == (question, method)]
    shares = [by_epoch(record, name) for record in asked]
    return [float(np.mean([v for e, v in s.items() if e > 0.75 * max(s)])) for s in shares]
