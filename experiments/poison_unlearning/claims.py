"""What Pawelczyk et al. 2024 claim, judged from our figures; see `experiments.claims`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from scipy import stats

from experiments import claims as shared
from experiments.claims import Claim, Runs, Statement, Verdict, holds, judge_all
from unlearnkit.auditing import clopper_pearson
from unlearnkit.studies import ORIGINAL, RETRAIN, Record

PAPER = "poison_unlearning"
FPR = 0.01
EFFECTS: dict[str, tuple[str, int]] = {
    "gaussian": ("gaussian_tpr_two_sided", 1),
    "targeted": ("targets_adversarial_probability", 1),
    "indiscriminate": ("accuracy_test", -1),
}
"""By the kind of poisons: the metric that shows them, and +1 where more of it is more poison."""
WORDS = {
    "gaussian": "TPR at FPR 0.01, two-sided",
    "targeted": "probability of the adversarial class",
    "indiscriminate": "test accuracy",
}
TABLE_2: dict[str, str] = {
    "fine_tune": "87.71, 87.57, 86.69 %",
    "gradient_ascent": "10 %",
    "neg_grad_plus": "10 %",
    "catastrophic_last_layers": "71.20, 72.69, 63.80 %",
    "exact_last_layers": "49.90, 50.65, 43.26 %",
    "scrub": "85.48, 85.45, 84.15 %",
}
"""Test accuracies of Pawelczyk et al. 2024, Table 2, after 10 of 100 epochs."""


def at(method: str, budget: float | None) -> str:
    """Names a method at a budget: a row of the table."""
    return method if budget is None else f"{method} at {budget:g}"


def runs_of(records: Sequence[Record], attack: str) -> Runs:
    """Returns the records of one attack, whose methods are rows; without failures.

    A seed without a poisoned and a retrained network has nothing to compare.
    """
    own = [r for r in records if r.question == attack and r.finished]
    before, after = ({r.seed for r in own if r.method == name} for name in (ORIGINAL, RETRAIN))
    complete = [r for r in own if r.seed in before & after]
    return Runs([r._replace(method=at(r.method, r.budget)) for r in complete])


def pooled(records: Sequence[Record], attack: str, method: str) -> np.ndarray:
    """Returns the statistic of all poisons of all seeds under one network."""
    own = [r for r in records if (r.question, r.method) == (attack, method) and r.finished]
    return np.concatenate([np.asarray(r.curves["gaussian_statistic"]) for r in own])


def methods_of(records: Sequence[Record]) -> list[str]:
    """Returns the methods that unlearn, in order; training anew for a few epochs is none."""
    names = dict.fromkeys(r.method for r in records if r.budget is not None)
    return [name for name in names if name != "retrain"]


def largest_budget(records: Sequence[Record]) -> float:
    """Returns the share of Retrain's cost at which methods are judged."""
    return max(r.budget for r in records if r.budget is not None)


def grid_claims(kind: str, records: Sequence[Record]) -> list[Claim]:
    """Returns the claims on one kind of poisons, at the largest budget and all their shares."""
    attacks = dict.fromkeys(record.question for record in records)
    return [claim for attack in attacks for claim in _attack_claims(kind, attack, records)]


def _attack_claims(kind: str, attack: str, records: Sequence[Record]) -> list[Claim]:
    runs, most = runs_of(records, attack), largest_budget(records)
    named: dict[str, Any] = {"attack": attack, "share": 100 * most}
    methods = methods_of(records)

    def effect(claim: Statement) -> Iterator[Claim]:
        """Whether rows show more of the poisons than the retrained network."""
        for method in claim.rows or methods:
            row = method if claim.rows else at(method, most)
            quoted = TABLE_2.get(method, shared.NO_NUMBER)
            values = runs.gaps(claim.metric, row, RETRAIN)
            yield claim.judge(values, method=method, table_2=quoted, **named)

    def rate(claim: Statement) -> Iterator[Claim]:
        """The share of all seeds' poisons that a retrained network gives away, its interval."""
        threshold = stats.norm.isf(claim.threshold / 2)
        shown = (np.abs(pooled(records, attack, m)) > threshold for m in (ORIGINAL, RETRAIN))
        before, after = shown
        low, high = clopper_pearson(int(after.sum()), len(after))
        verdict = holds(low <= claim.threshold <= high)
        if verdict == "holds" and high >= before.mean():
            verdict = "undecided"  # as wide as what it must be told from
        ours = f"{after.sum()} of {len(after)} poisons, {low:.3f} … {high:.3f}; "
        yield claim.decide(verdict, f"{ours}before: {before.mean():.3f}", **named)

    def score(claim: Statement) -> Iterator[Claim]:
        """The same by the GUS, whose distance from 0 is the influence of the poisons."""
        rows = {ORIGINAL: "training on them"} | {at(method, most): method for method in methods}
        for row, who in rows.items():

            def further(r: Mapping[str, Record], row: str = row) -> float:
                one, other = (abs(r[name].metrics[claim.metric]) for name in (row, RETRAIN))
                return one - other

            yield claim.judge(runs.paired(further, row, RETRAIN), method=who, **named)

    def gap(claim: Statement) -> Iterator[Claim]:
        rows = (name if name == ORIGINAL else at(name, most) for name in claim.rows)
        yield claim.judge(runs.gaps(claim.metric, *rows), **named)

    figures = {"effect": effect, "rate": rate, "score": score, "gap": gap}
    return judge_all(PAPER, {f"{kind} {name}": made for name, made in figures.items()})


def no_silver_bullet(grids: Mapping[str, Sequence[Record]]) -> list[Claim]:
    """Returns the claim that no method removes every kind of poisons, where all kinds were run."""
    if set(grids) != set(EFFECTS):
        return []
    left = {kind: _verdicts(kind, records) for kind, records in grids.items()}
    records = next(iter(grids.values()))
    methods = methods_of(records)
    fails = {m: [kind for kind in left if left[kind].get(m) == "holds"] for m in methods}
    ours = "; ".join(
        f"{m} leaves {', '.join(kinds) or 'none surely'}" for m, kinds in fails.items()
    )
    verdict: Verdict = "holds" if all(fails.values()) else "undecided"
    if any(all(left[kind].get(m) == "does not hold" for kind in left) for m in methods):
        verdict = "does not hold"
    share = 100 * largest_budget(records)
    return judge_all(PAPER, {"summary": lambda c: [c.decide(verdict, ours, share=share)]})


def _verdicts(kind: str, records: Sequence[Record]) -> dict[str, Verdict]:
    """Returns by method whether it leaves the poisons of the largest share, which is the last.

    Gaussian ones are left where their TPR or their GUS shows it.
    """
    found: dict[str, list[Verdict]] = {"left": [], "gus_left": []}
    for claim in _attack_claims(kind, records[-1].question, records):
        found.setdefault(claim.id.partition(f"{kind}_")[2], []).append(claim.verdict)
    scores = found["gus_left"][1:] or found["left"]
    pairs = zip(found["left"], scores, strict=True)
    verdicts = ("holds" if score == "holds" else left for left, score in pairs)
    return dict(zip(methods_of(records), verdicts, strict=True))


def shift_claims(seeds: Sequence[Mapping[str, Any]]) -> list[Claim]:
    """Returns hypothesis 1: poisons move a model further than as many clean samples."""

    def shift(claim: Statement) -> Iterator[Claim]:
        ends = {k: [s[claim.metric][k][-1] for s in seeds] for k in (*claim.rows, "random")}
        poisons, random = ends.values()
        sizes = " against ".join(f"{np.mean(of):.3g}" for of in ends.values())
        yield claim.judge(np.log10(np.divide(poisons, random)), sizes=sizes)

    return judge_all(PAPER, {"shift": shift})


def update_claims(courses: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[Claim]:
    """Returns hypothesis 2: clean gradients do not lead where unlearning poisons has to go."""

    def cosines(name: str, start: str) -> list[float]:
        return [float(np.mean(np.abs(course[start]))) for course in courses[name]]

    def aligned(claim: Statement) -> Iterator[Claim]:
        weighing, other, start = claim.rows
        blue = cosines(weighing, "from_trained")
        mean, reach = shared.interval(blue)
        yield claim.judge(np.subtract(blue, cosines(other, start)), mean=mean, reach=reach)

    def size(claim: Statement) -> Iterator[Claim]:
        mean, reach = shared.interval([course["shift_l1"] for course in courses[claim.rows[0]]])
        wanted, factor = float(claim.paper), claim.threshold
        near = holds(wanted / factor <= mean <= wanted * factor)
        yield claim.decide(near, f"{mean:.2f} ± {reach:.2f}")

    return judge_all(PAPER, {"aligned": aligned, "size": size})
