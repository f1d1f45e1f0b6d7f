"""What Pawelczyk et al. 2024 claim, judged from our figures; see `experiments.claims`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from operator import itemgetter
from typing import Any

import numpy as np
from scipy import stats

from experiments.claims import NO_NUMBER, Claim, Verdict, claim_difference, holds, interval
from experiments.poison_unlearning.least_squares import WEIGHINGS
from unlearnkit.auditing import clopper_pearson
from unlearnkit.studies import ORIGINAL, RETRAIN, Record

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
WHERE = {
    "gaussian": "section 5.2, Figure 2 (a)",
    "targeted": "section 5.2, Figure 3 (a)",
    "indiscriminate": "section 5.2, Table 2",
}
TABLE_2: dict[str, str] = {
    ORIGINAL: "81.67, 77.20, 69.62 % at 1.5, 2, 2.5 % poisons",
    "retrain": "89.24 % with 10 epochs",
    "fine_tune": "87.71, 87.57, 86.69 %",
    "gradient_ascent": "10 %",
    "neg_grad_plus": "10 %",
    "catastrophic_last_layers": "71.20, 72.69, 63.80 %",
    "exact_last_layers": "49.90, 50.65, 43.26 %",
    "scrub": "85.48, 85.45, 84.15 %",
}
"""Test accuracies of Pawelczyk et al. 2024, Table 2, after 10 of 100 epochs."""
Row = tuple[str, float | None]
"""A method and its budget."""
Cells = Mapping[Row, Mapping[str, float]]


def by_seed(records: Sequence[Record], attack: str) -> list[Cells]:
    """Returns the metrics of one attack by method and budget, seed by seed; without failures.

    A seed without a poisoned and a retrained network has nothing to compare.
    """
    own = [r for r in records if r.question == attack and r.finished]
    seeds = sorted({record.seed for record in own})
    cells = [{(r.method, r.budget): r.metrics for r in own if r.seed == s} for s in seeds]
    return [one for one in cells if {(ORIGINAL, None), (RETRAIN, None)} <= one.keys()]


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
    found: list[Claim] = []
    for attack in dict.fromkeys(record.question for record in records):
        seeds = by_seed(records, attack)
        text = f"{attack} {kind} poisons show in the network that trained on them: {WORDS[kind]}"
        found.append(_effect(kind, seeds, (ORIGINAL, None), text, "less Retrain: "))
        if kind == "gaussian":
            found.append(_clean_after_retrain(attack, records))
        found += _left(kind, attack, records, seeds).values()
        if kind == "gaussian":
            found += _score(attack, records, seeds).values()
        if kind == "indiscriminate":
            found += _indiscriminate(attack, records, seeds)
    return found


def _clean_after_retrain(attack: str, records: Sequence[Record]) -> Claim:
    """The share of all seeds' poisons that a retrained network gives away, and its interval."""
    threshold = stats.norm.isf(FPR / 2)
    before, after = (np.abs(pooled(records, attack, m)) > threshold for m in (ORIGINAL, RETRAIN))
    low, high = clopper_pearson(int(after.sum()), len(after))
    verdict = holds(low <= FPR <= high)
    if verdict == "holds" and high >= before.mean():
        verdict = "undecided"  # as wide as what it must be told from
    ours = f"{after.sum()} of {len(after)} poisons, {low:.3f} … {high:.3f}; "
    ours += f"before: {before.mean():.3f}"
    text = f"After Retrain the TPR of {attack} gaussian poisons equals the FPR of {FPR}"
    return Claim(text, WHERE["gaussian"], ours, str(FPR), verdict)


def _left(
    kind: str, attack: str, records: Sequence[Record], seeds: Sequence[Cells]
) -> dict[str, Claim]:
    """Returns by method whether the effect of the poisons is larger than after Retrain."""
    most = largest_budget(records)
    text, unit = (
        f"leaves {attack} {kind} poisons at {100 * most:g} % of Retrain's cost",
        WORDS[kind],
    )
    return {
        method: _effect(kind, seeds, (method, most), f"{method} {text}", f"{unit} less Retrain's: ")
        for method in methods_of(records)
    }


def _effect(kind: str, seeds: Sequence[Cells], row: Row, text: str, unit: str) -> Claim:
    """Returns the claim that a row shows more of the poisons than the retrained network."""
    metric, sign = EFFECTS[kind]
    paper = TABLE_2.get(row[0], NO_NUMBER) if kind == "indiscriminate" else NO_NUMBER
    values = _less_retrain(seeds, row, itemgetter(metric))
    return claim_difference(text, WHERE[kind], values, sign, f"{unit}{{}}", paper)


def _less_retrain(
    seeds: Sequence[Cells], row: Row, read: Callable[[Mapping[str, float]], float]
) -> list[float]:
    """Returns what a row reads, less what the retrained network does, on the seeds that have it."""
    return [read(cells[row]) - read(cells[RETRAIN, None]) for cells in seeds if row in cells]


def _score(attack: str, records: Sequence[Record], seeds: Sequence[Cells]) -> dict[str, Claim]:
    """The same by the GUS, whose distance from 0 is the influence of the poisons (section 4.3)."""
    most = largest_budget(records)
    rows: dict[str, Row] = {ORIGINAL: (ORIGINAL, None)}
    rows |= {method: (method, most) for method in methods_of(records)}
    found = {}
    for name, row in rows.items():
        who = "training on them" if name == ORIGINAL else name
        text = f"{who} leaves the GUS of {attack} gaussian poisons further from 0 than Retrain"
        values = _less_retrain(seeds, row, lambda metrics: abs(metrics["gaussian_gus"]))
        ours = "distance of the GUS from 0, less Retrain's: {}"
        found[name] = claim_difference(text, "section 4.3, Figures 6 and 7", values, 1, ours)
    return found


def _indiscriminate(attack: str, records: Sequence[Record], seeds: Sequence[Cells]) -> list[Claim]:
    most = largest_budget(records)
    tuned, before, again = ("fine_tune", most), (ORIGINAL, None), ("retrain", most)
    claims = []
    for text, method, other, sign in (
        ("fine_tune alleviates", tuned, before, 1),
        ("training anew for as long beats fine_tune on", again, tuned, 1),
        ("training anew for as long beats scrub on", again, ("scrub", most), 1),
        ("catastrophic_last_layers makes worse", ("catastrophic_last_layers", most), before, -1),
        ("exact_last_layers makes worse", ("exact_last_layers", most), before, -1),
    ):
        values = [
            cells[method]["accuracy_test"] - cells[other]["accuracy_test"]
            for cells in seeds
            if method in cells and other in cells
        ]
        paper = f"{TABLE_2[method[0]]}; {TABLE_2[other[0]]}"
        text, where = f"{text} {attack} indiscriminate poisons", WHERE["indiscriminate"]
        claims.append(claim_difference(text, where, values, sign, "test accuracy: {}", paper))
    return claims


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
    text = f"No method reaches Retrain on all kinds of poisons at {share:g} % of its cost"
    return [Claim(text, "section 5.2", ours, "none of seven", verdict)]


def _verdicts(kind: str, records: Sequence[Record]) -> dict[str, Verdict]:
    """Returns by method whether it leaves the poisons of the largest share, which is the last.

    Gaussian ones are left where their TPR or their GUS shows it.
    """
    attack = records[-1].question
    seeds = by_seed(records, attack)
    found = {method: c.verdict for method, c in _left(kind, attack, records, seeds).items()}
    if kind == "gaussian":
        scores = _score(attack, records, seeds)
        found |= {method: "holds" for method in found if scores[method].verdict == "holds"}
    return found


def shift_claims(seeds: Sequence[Mapping[str, Any]]) -> list[Claim]:
    """Returns hypothesis 1: poisons move a model further than as many clean samples."""
    claims = []
    where = "section 6, hypothesis 1, Figure 4"
    for kind in ("indiscriminate", "targeted"):
        for norm in ("l1", "l2"):
            ratios = [np.log10(s[norm][kind][-1] / s[norm]["random"][-1]) for s in seeds]
            sizes = [f"{np.mean([s[norm][k][-1] for s in seeds]):.3g}" for k in (kind, "random")]
            text = f"Unlearning {kind} poisons shifts the model more than random samples, in "
            ours = f"{' against '.join(sizes)}; decades: {{}}"
            claims.append(claim_difference(text + norm.upper(), where, ratios, 1, ours))
    return claims


def update_claims(courses: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[Claim]:
    """Returns hypothesis 2: clean gradients do not lead where unlearning poisons has to go."""

    def cosines(name: str, start: str) -> list[float]:
        return [float(np.mean(np.abs(course[start]))) for course in courses[name]]

    claims = []
    where = "section 6, hypothesis 2, Figure 5"
    names = {weighing: f"poisons ({weighing} weighing)" for weighing in WEIGHINGS}
    for weighing, name in names.items():
        blue = cosines(weighing, "from_trained")
        mean, reach = interval(blue)
        ours = f"mean absolute cosine {mean:.3f} ± {reach:.3f}; difference {{}}"
        for other, start in ((weighing, "from_random"), ("random", "from_trained")):
            than = "that from random weights" if other == weighing else "that of random samples"
            text = f"Clean gradients are less aligned with the shift of {name} than with {than}"
            values, paper = np.subtract(blue, cosines(other, start)), "near 0, figure (a)"
            claims.append(claim_difference(text, where, values, -1, ours, paper))
    for weighing, name in {**names, "random": "random samples"}.items():
        mean, reach = interval([c["shift_l1"] for c in courses[weighing]])
        near = holds(3.3 / 1.5 <= mean <= 3.3 * 1.5)
        text = f"The L1 shift of {name} is about 3.3 (within a factor of 1.5)"
        claims.append(Claim(text, "C.2", f"{mean:.2f} ± {reach:.2f}", "3.3", near))
    return claims
