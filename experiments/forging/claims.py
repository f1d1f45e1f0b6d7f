"""What Suliman et al. 2024 claim, judged from our figures; see `experiments.claims`.

Most of its claims are of orders of magnitude: "orders of magnitude larger" is taken as at least a
hundredfold, for the best forged batch against the largest honest error, and "on the order of" as
within a factor of ten. "Reaches" is meant as it is written.
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments.claims import Claim, Runs, Verdict, holds, statements
from experiments.forging.settings import NOISE, SECOND_ORDER
from unlearnkit.forging import convert_error
from unlearnkit.studies import ORIGINAL, RETRAIN, Record

RunResult = Mapping[str, Any]
NOT_THERE = "not in the paper"
PAPER: dict[str, Any] = tomllib.loads(
    Path(__file__).with_name("paper.toml").read_text(encoding="utf-8")
)
"""What the paper reports."""
FIGURES: dict[str, Any] = PAPER["figures"]


def setup(result: RunResult) -> dict[str, Any] | None:
    """Returns what the paper reports of a result's network, dataset and batch size, if anything."""
    settings = result["settings"]
    name = f"{settings['model']}-{settings['dataset']}-{settings['batch_size']}"
    found: dict[str, Any] | None = PAPER["setups"].get(name)
    return found


class _Judged:
    """The claims that were judged so far."""

    def __init__(self) -> None:
        self.known, self._claims = statements("forging"), dict[str, list[Claim]]()

    def __call__(
        self, id: str, verdict: Verdict | bool, ours: str, paper: str | None = None, /, **names: Any
    ) -> None:
        """Adds a claim with its verdict, our figures and, where not in the file, the paper's."""
        verdict = holds(verdict) if isinstance(verdict, bool | np.bool_) else verdict
        made = self.known[id].decide(verdict, ours, paper=paper, **names)
        self._claims.setdefault(id, []).append(made)

    def order(self, name: str, ours: float, paper: float, **names: Any) -> None:
        """Adds the claim that a figure is of the paper's order: within a factor of it."""
        factor = self.known[name].threshold
        near = bool(ours > 0 and paper / factor <= ours <= factor * paper)
        self(name, near, f"{ours:.2g}", f"{paper:.2g}", **names)

    def difference(self, name: str, values: Any) -> None:
        """Adds the claim that differences, one per pair or seed, have a sign."""
        self._claims[name] = [self.known[name].judge(values)]

    def all(self) -> list[Claim]:
        """Returns the claims in the order of the file."""
        return [claim for name in self.known for claim in self._claims.get(name, ())]


def judge(result: RunResult) -> list[Claim]:
    """Returns the claims that one setting's result can judge, but for those on whole logs."""
    judged, row, honest = _Judged(), setup(result), result["reproduction"]
    attacks: dict[str, Any] = result["forged"]["attacks"]
    errors = {name: np.asarray(attack["errors"], float) for name, attack in attacks.items()}
    network, largest = result["settings"]["model"], honest["verified"]["largest"]
    judged("same_device", largest == 0, f"largest error {largest:.2g}")
    _judge_distances(judged, errors, honest["largest"], row)
    if row is not None and "greedy" in errors:
        judged.order("greedy_order", errors["greedy"].mean(), row["forged"], author=row["author"])
        pairs = result.get("elsewhere", ())
        others = [one["largest"] for one in pairs if one["made_on"] != one["verified_on"]]
        ours = "one device; other orders, precisions and convolutions on it differ by up to "
        if others:
            judged.order("two_devices", max(others), row["reproduction"])
        else:
            ours += f"{honest['largest']:.2g}"
            judged("two_devices", "undecided", ours, f"{row['reproduction']:.2g}")
    if network in PAPER["conversions"]:
        norm, error, expected = PAPER["conversions"][network]
        found = convert_error(error, norm, "l2", honest["n_parameters"])
        same = abs(found / expected - 1) < judged.known["conversion"].threshold
        ours = f"{found:.4g} for {honest['n_parameters']:,} parameters"
        judged("conversion", same, ours, norm=norm, error=error, expected=expected)
    for name, attack in (("adam_reaches", "adam"), ("trust_region_reaches", SECOND_ORDER)):
        if attack in errors:
            reached, drawn = errors[attack].mean(), FIGURES["adam"].get(network)
            verdict = "undecided" if drawn is None else holds(reached <= drawn)
            ours = f"{reached:.2g}"
            begun = [curve[0][1] for curve in attacks[attack].get("curves", ())]
            if drawn is not None and begun and np.mean(begun) <= drawn:  # nothing was descended to
                verdict, ours = "undecided", f"{ours}, but {np.mean(begun):.2g} before it began"
            judged(name, verdict, ours, f"{drawn:.2g}" if drawn else NOT_THERE)
    if {"adam", "adam_grid"} <= errors.keys():
        pairs = min(len(errors["adam"]), len(errors["adam_grid"]))
        grid, free = (np.log10(errors[name][:pairs]) for name in ("adam_grid", "adam"))
        judged.difference("grid_higher", grid - free)
    if "exact" in result["forged"]:
        exact = result["forged"]["exact"]
        ours = f"{exact['exact']} of {exact['candidates']:,} batches; the nearest is off by "
        ours += f"{exact['nearest']:,} units of the last place"
        judged("exact_search", exact["exact"] == 0, ours)
    if network == "logistic":
        _judge_regression(judged, result, errors)
    return judged.all()


def _judge_distances(
    judged: _Judged, errors: Mapping[str, Any], largest: float, row: Mapping[str, Any] | None
) -> None:
    for name in errors.keys() & {"greedy", "swap", "adam"}:
        best, theirs = errors[name].min(), NOT_THERE
        ratio = best / largest if largest > 0 else math.inf
        if row is not None and name == "greedy":
            theirs = f"{row['forged']:.2g} against {row['reproduction']:.2g}"
        ours, claim = f"{best:.2g} against {largest:.2g}: {ratio:.0f} times", f"{name}_apart"
        judged(claim, ratio >= judged.known[claim].threshold, ours, theirs)


def _judge_regression(judged: _Judged, result: RunResult, errors: Mapping[str, Any]) -> None:
    attacks, honest = result["forged"]["attacks"], result["reproduction"]
    bands, tolerance = {b["name"]: b["errors"] for b in honest["bands"]}, honest["tolerance"]
    judged.order("shuffles", float(np.median(bands["batch order"])), FIGURES["shuffles"])
    if "logistic" in errors:
        exact, share = errors["logistic"], attacks["logistic"]["out_of_domain"]
        median, factor = float(np.median(exact)), judged.known["regression_order"].threshold
        at_most = 0 < median <= factor * FIGURES["regression"]
        judged("regression_order", at_most, f"{median:.2g}", f"{FIGURES['regression']:.2g}")
        accepted = float(np.mean(exact <= tolerance))
        ours = f"{accepted:.0%} within {tolerance:.2g}; largest {exact.max():.2g}"
        judged("regression_accepted", accepted == 1, ours)
        ours = f"{share:.0%} of the examples are outside of the domain"
        judged("regression_outside", share == 1, ours)
        traces = (attacks["logistic"]["traces"], result["forged"]["honest"]["traces"])
        left, others = (trace["left_of_superposition"] for trace in traces)
        # Where the batch spans all images, being a superposition of it says nothing.
        told = holds(left < judged.known["superposed"].threshold) if others > 0.1 else "undecided"
        ours = f"{left:.1%} of an image is not; of other honest images {others:.1%}"
        judged("superposed", told, ours)
    if "grid_logistic" in errors:
        best = errors["grid_logistic"].min()
        judged("grid_passes", best <= tolerance, f"best {best:.2g}, tolerance {tolerance:.2g}")


def judge_logs(records: Sequence[Record]) -> list[Claim]:
    """Returns the claims on logs that are forged to forget, and on their model."""
    judged, asked = _Judged(), by_question(records)
    for name in forgers_of(records):
        true, valid, shares = (
            [v for runs in asked.values() for v in runs.values(method, f"{name}_{metric}")]
            for method, metric in ((RETRAIN, "valid"), (ORIGINAL, "valid"), (ORIGINAL, "accepted"))
        )
        # A log of which some steps were forged is told by one of them that is rejected.
        passed = sum(valid) if valid else sum(share == 1 for share in shares)
        ours = f"{sum(true):.0f} of {len(true)} honest logs are valid, {passed:.0f} of "
        ours += f"{len(shares)} forged ones; {np.mean(shares):.0%} of forged steps accepted"
        judged("told_apart", all(true) and passed == 0, ours, name=name)
        if name == "substitution" and "1" in asked:
            judged.difference("substitution_accepted", late_shares(records, "1", name))
    for question in [question for question in asked if question != NOISE][-1:]:
        for name in ("membership_told", "accuracy_told"):
            metric = judged.known[name].metric
            judged.difference(name, asked[question].gaps(metric, ORIGINAL, RETRAIN))
    if NOISE in asked:
        # z pooled over the runs, Σ z / √runs, is N(0, 1) of a model that never saw the noise.
        scores = (asked[NOISE].values(name, "gaussian_z") for name in (ORIGINAL, RETRAIN))
        claimed, retrained = (sum(z) / math.sqrt(len(z)) for z in scores)
        beyond = abs(claimed) > max(judged.known["noise_told"].threshold, abs(retrained))
        ours = f"z over all runs {claimed:+.2f}, after retraining {retrained:+.2f}; N(0, 1) "
        judged("noise_told", beyond, ours + "without it")
    return judged.all()


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


def late_shares(
    records: Sequence[Record], question: str, name: str, method: str = ORIGINAL
) -> list[float]:
    """Returns the mean share in the last quarter of the epochs, one per seed."""
    asked = [r for r in records if (r.question, r.method) == (question, method)]
    shares = [by_epoch(record, name) for record in asked]
    return [float(np.mean([v for e, v in s.items() if e > 0.75 * max(s)])) for s in shares if s]
