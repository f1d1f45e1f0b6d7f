"""What Suliman et al. 2024 claim, judged from our figures; see `experiments.claims`.

Most of its claims are of orders of magnitude: "orders of magnitude larger" is taken as at least a
hundredfold, for the best forged batch against the largest honest error, and "on the order of" as
within a factor of ten. "Reaches" is meant as it is written.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from experiments.claims import Claim, Runs, Statement, in_order, read_toml, statements, together
from experiments.forging.settings import NOISE, SECOND_ORDER
from unlearnkit.forging import convert_error
from unlearnkit.studies import ORIGINAL, RETRAIN, Record

RunResult = Mapping[str, Any]
NOT_THERE = "not in the paper"
PAPER = read_toml(__file__)
"""What the paper reports."""
KNOWN = statements("forging")
FIGURES: dict[str, Any] = PAPER["figures"]


def setup(result: RunResult) -> dict[str, Any] | None:
    """Returns what the paper reports of a result's network, dataset and batch size, if anything."""
    setups: dict[str, dict[str, Any]] = PAPER["setups"]
    return setups.get("{model}-{dataset}-{batch_size}".format(**result["settings"]))


def judge(result: RunResult, records: Sequence[Record] = ()) -> list[Claim]:
    """Returns the claims that one setting's result can judge, and its records of forged logs."""
    return together(in_order("forging", [*_judge(result), *judge_logs(records)]))


def _judge(result: RunResult) -> Iterator[Claim]:
    row, honest, forged = setup(result), result["reproduction"], result["forged"]
    attacks: dict[str, Any] = forged["attacks"]
    errors = {name: np.asarray(attack["errors"], float) for name, attack in attacks.items()}
    network, largest = result["settings"]["model"], honest["verified"]["largest"]
    yield KNOWN["same_device"].decide(largest == 0, f"largest error {largest:.2g}")
    for name in errors.keys() & {"greedy", "swap", "adam"}:
        claim, best = KNOWN[f"{name}_apart"], errors[name].min()
        ratio = best / honest["largest"] if honest["largest"] > 0 else math.inf
        quoted = row if name == "greedy" else None
        paper = "{forged:.2g} against {reproduction:.2g}".format(**quoted) if quoted else NOT_THERE
        ours = f"{best:.2g} against {honest['largest']:.2g}: {ratio:.0f} times"
        yield claim.decide(ratio >= claim.threshold, ours, paper=paper)
    if row is not None and "greedy" in errors:
        mean = float(errors["greedy"].mean())
        yield KNOWN["greedy_order"].order(mean, row["forged"], author=row["author"])
        pairs = result.get("elsewhere", ())
        others = [one["largest"] for one in pairs if one["made_on"] != one["verified_on"]]
        if others:
            yield KNOWN["two_devices"].order(max(others), row["reproduction"])
        else:
            ours = "one device; other orders, precisions and convolutions on it differ by up to "
            ours, printed = f"{ours}{honest['largest']:.2g}", f"{row['reproduction']:.2g}"
            yield KNOWN["two_devices"].decide("undecided", ours, paper=printed)
    if network in PAPER["conversions"]:
        claim, (norm, error, expected) = KNOWN["conversion"], PAPER["conversions"][network]
        found = convert_error(error, norm, "l2", honest["n_parameters"])
        ours = f"{found:.4g} for {honest['n_parameters']:,} parameters"
        same = abs(found / expected - 1) < claim.threshold
        yield claim.decide(same, ours, norm=norm, error=error, expected=expected)
    for name, attack in (("adam_reaches", "adam"), ("trust_region_reaches", SECOND_ORDER)):
        if attack in errors:
            begun = [curve[0][1] for curve in attacks[attack].get("curves", ())]
            drawn = FIGURES["adam"].get(network)
            yield _judge_reached(KNOWN[name], errors[attack].mean(), drawn, begun)
    if {"adam", "adam_grid"} <= errors.keys():
        pairs = min(len(errors["adam"]), len(errors["adam_grid"]))
        grid, free = (np.log10(errors[name][:pairs]) for name in ("adam_grid", "adam"))
        yield KNOWN["grid_higher"].judge(grid - free)
    if "exact" in forged:
        exact = forged["exact"]
        ours = f"{exact['exact']} of {exact['candidates']:,} batches; the nearest is off by "
        ours += f"{exact['nearest']:,} units of the last place"
        yield KNOWN["exact_search"].decide(exact["exact"] == 0, ours)
    if network == "logistic":
        yield from _judge_regression(result, errors)


def _judge_reached(
    claim: Statement, reached: float, drawn: float | None, begun: Sequence[float]
) -> Claim:
    """Returns whether an attack reaches the error that is drawn in the paper, from above it."""
    there = drawn is not None and bool(begun) and np.mean(begun) <= drawn  # nothing to descend
    ours = f"{reached:.2g}" + (f", but {np.mean(begun):.2g} before it began" if there else "")
    if drawn is None or there:
        return claim.decide("undecided", ours, paper=NOT_THERE if drawn is None else f"{drawn:.2g}")
    return claim.decide(reached <= drawn, ours, paper=f"{drawn:.2g}")


def _judge_regression(result: RunResult, errors: Mapping[str, Any]) -> Iterator[Claim]:
    attacks, honest = result["forged"]["attacks"], result["reproduction"]
    bands, tolerance = {b["name"]: b["errors"] for b in honest["bands"]}, honest["tolerance"]
    yield KNOWN["shuffles"].order(float(np.median(bands["batch order"])), FIGURES["shuffles"])
    if "logistic" in errors:
        exact, share = errors["logistic"], attacks["logistic"]["out_of_domain"]
        median, claim, drawn = np.median(exact), KNOWN["regression_order"], FIGURES["regression"]
        at_most = 0 < median <= claim.threshold * drawn
        yield claim.decide(at_most, f"{median:.2g}", paper=f"{drawn:.2g}")
        accepted = float(np.mean(exact <= tolerance))
        ours = f"{accepted:.0%} within {tolerance:.2g}; largest {exact.max():.2g}"
        yield KNOWN["regression_accepted"].decide(accepted == 1, ours)
        ours = f"{share:.0%} of the examples are outside of the domain"
        yield KNOWN["regression_outside"].decide(share == 1, ours)
        traces = (attacks["logistic"]["traces"], result["forged"]["honest"]["traces"])
        left, others = (trace["left_of_superposition"] for trace in traces)
        ours = f"{left:.1%} of an image is not; of other honest images {others:.1%}"
        # Where the batch spans all images, being a superposition of it says nothing.
        told: bool = left < KNOWN["superposed"].threshold
        yield KNOWN["superposed"].decide(told if others > 0.1 else "undecided", ours)
    if "grid_logistic" in errors:
        best = errors["grid_logistic"].min()
        ours = f"best {best:.2g}, tolerance {tolerance:.2g}"
        yield KNOWN["grid_passes"].decide(best <= tolerance, ours)


def judge_logs(records: Sequence[Record]) -> Iterator[Claim]:
    """Yields the claims on logs that are forged to forget, and on their model."""
    asked = by_question(records)
    for name in forgers_of(records):
        true, valid, shares = (
            [v for runs in asked.values() for v in runs.values(method, f"{name}_{metric}")]
            for method, metric in ((RETRAIN, "valid"), (ORIGINAL, "valid"), (ORIGINAL, "accepted"))
        )
        # A log of which some steps were forged is told by one of them that is rejected.
        passed = sum(valid) if valid else sum(share == 1 for share in shares)
        ours = f"{sum(true):.0f} of {len(true)} honest logs are valid, {passed:.0f} of "
        ours += f"{len(shares)} forged ones; {np.mean(shares):.0%} of forged steps accepted"
        yield KNOWN["told_apart"].decide(all(true) and passed == 0, ours, name=name)
        if name == "substitution" and "1" in asked:
            yield KNOWN["substitution_accepted"].judge(late_shares(records, "1", name))
    for question in [question for question in asked if question != NOISE][-1:]:
        for claim in (KNOWN["membership_told"], KNOWN["accuracy_told"]):
            yield claim.judge(asked[question].gaps(claim.metric, ORIGINAL, RETRAIN))
    if NOISE in asked:
        # z pooled over the runs, Σ z / √runs, is N(0, 1) of a model that never saw the noise.
        claim = KNOWN["noise_told"]
        scores = (asked[NOISE].values(name, claim.metric) for name in (ORIGINAL, RETRAIN))
        claimed, retrained = (sum(z) / math.sqrt(len(z)) for z in scores)
        ours = f"z over all runs {claimed:+.2f}, after retraining {retrained:+.2f}; N(0, 1) "
        beyond = abs(claimed) > max(claim.threshold, abs(retrained))
        yield claim.decide(beyond, ours + "without it")


def by_question(records: Sequence[Record]) -> dict[str, Runs]:
    """Returns the records of each question."""
    names = dict.fromkeys(record.question for record in records)
    return {name: Runs([r for r in records if r.question == name]) for name in names}


def forgers_of(records: Sequence[Record]) -> list[str]:
    """Returns the names of the forgers of whole logs."""
    names = (name for record in records for name in record.metrics if name.endswith("_accepted"))
    return list(dict.fromkeys(name.removesuffix("_accepted") for name in names))


def by_epoch(record: Record, name: str, metric: str = "accepted") -> dict[int, float]:
    """Returns a metric of the forged steps by epoch; the share that is accepted, or the error."""
    prefix = f"{name}_{metric}_epoch_"
    found = {int(m.removeprefix(prefix)): v for m, v in record.metrics.items() if prefix in m}
    return dict(sorted(found.items()))


def forged_by_epoch(
    records: Sequence[Record], metric: str = "accepted"
) -> dict[tuple[str, str], dict[int, float]]:
    """Returns a metric of forged logs by epoch, its mean over the seeds, by question and forger."""
    found: dict[tuple[str, str], dict[int, float]] = {}
    for question, name in itertools.product(by_question(records), forgers_of(records)):
        asked = [r for r in records if (r.question, r.method) == (question, ORIGINAL)]
        lines = [by_epoch(record, name, metric) for record in asked]
        epochs = sorted(set[int]().union(*lines))
        means = {e: float(np.mean([line[e] for line in lines if e in line])) for e in epochs}
        found[question, name] = means
    return found


def late_shares(
    records: Sequence[Record], question: str, name: str, method: str = ORIGINAL
) -> list[float]:
    """Returns the mean share in the last quarter of the epochs, one per seed."""
    asked = [r for r in records if (r.question, r.method) == (question, method)]
    shares = [by_epoch(record, name) for record in asked]
    return [float(np.mean([v for e, v in s.items() if e > 0.75 * max(s)])) for s in shares if s]
