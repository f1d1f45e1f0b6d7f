"""What Pawelczyk et al. 2024 claim, judged from our figures; see `experiments.claims`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from operator import itemgetter
from typing import Any

import numpy as np
from scipy import stats

from experiments.claims import Claim, Verdict, interval, judge_difference
from experiments.poison_unlearning.least_squares import WEIGHINGS
from unlearnkit.auditing import clopper_pearson
from unlearnkit.studies import (
    ORIGINAL,
    RETRAIN,
    Record,
)

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
    "gaussian": "5.2, Figure 2 (a)",
    "targeted": "5.2, Figure 3 (a)",
    "indiscriminate": "5.2, Table 2",
}
NO_NUMBER = "a figure without numbers"
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


def first_attack(records: Sequence[Record]) -> str:
    """Returns the name of the smallest share of poisons, that of the main figures."""
    return records[0].question


def last_attack(records: Sequence[Record]) -> str:
    """Returns the name of the largest share of poisons, of which most is to be seen."""
    return records[-1].question


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
        found.append(_poisoned(kind, attack, seeds))
        if kind == "gaussian":
            found.append(_clean_after_retrain(attack, records))
        found += _left(kind, attack, records, seeds).values()
        if kind == "gaussian":
            found += _score(attack, records, seeds).values()
        if kind == "indiscriminate":
            found += _indiscriminate(attack, records, seeds)
    return found


def _poisoned(kind: str, attack: str, seeds: Sequence[Cells]) -> Claim:
    metric, sign = EFFECTS[kind]
    text = f"{attack} {kind} poisons show in the network that trained on them: {WORDS[kind]}"
    paper = TABLE_2[ORIGINAL] if kind == "indiscriminate" else NO_NUMBER
    row = (ORIGINAL, None)
    return _less_retrain(
        text, WHERE[kind], seeds, row, itemgetter(metric), sign, paper, "less Retrain: "
    )


def _clean_after_retrain(attack: str, records: Sequence[Record]) -> Claim:
    """The share of all seeds' poisons that a retrained network gives away, and its interval."""
    pooled = [
        np.concatenate(
            [
                np.asarray(r.curves["gaussian_statistic"])
                for r in records
                if (r.question, r.method) == (attack, method) and r.finished
            ]
        )
        for method in (ORIGINAL, RETRAIN)
    ]
    threshold = stats.norm.isf(FPR / 2)
    trained, retrained = (int(np.sum(np.abs(values) > threshold)) for values in pooled)
    low, high = clopper_pearson(retrained, len(pooled[1]))
    verdict: Any = "holds" if low <= FPR <= high else "does not hold"
    if verdict == "holds" and high >= trained / len(pooled[0]):
        verdict = "undecided"  # as wide as what it must be told from
    ours = (
        f"{retrained} of {len(pooled[1])} poisons, {low:.3f} … {high:.3f}; before: "
        f"{trained / len(pooled[0]):.3f}"
    )
    text = f"After Retrain the TPR of {attack} gaussian poisons equals the FPR of {FPR}"
    return Claim(text, f"section {WHERE['gaussian']}", ours, str(FPR), verdict)


def _left(
    kind: str, attack: str, records: Sequence[Record], seeds: Sequence[Cells]
) -> dict[str, Claim]:
    """Returns by method whether the effect of the poisons is larger than after Retrain."""
    metric, sign = EFFECTS[kind]
    most = largest_budget(records)
    found = {}
    for method in methods_of(records):
        text = f"{method} leaves {attack} {kind} poisons at {100 * most:g} % of Retrain's cost"
        paper = TABLE_2.get(method, NO_NUMBER) if kind == "indiscriminate" else NO_NUMBER
        unit = f"{WORDS[kind]} less Retrain's: "
        found[method] = _less_retrain(
            text, WHERE[kind], seeds, (method, most), itemgetter(metric), sign, paper, unit
        )
    return found


def _score(attack: str, records: Sequence[Record], seeds: Sequence[Cells]) -> dict[str, Claim]:
    """The same by the GUS, whose distance from 0 is the influence of the poisons (section 4.3)."""
    most = largest_budget(records)
    rows: dict[str, Row] = {ORIGINAL: (ORIGINAL, None)}
    rows |= {method: (method, most) for method in methods_of(records)}
    found = {}
    for name, row in rows.items():
        who = "training on them" if name == ORIGINAL else name
        text = f"{who} leaves the GUS of {attack} gaussian poisons further from 0 than Retrain"
        unit = "distance of the GUS from 0, less Retrain's: "
        found[name] = _less_retrain(
            text, "4.3, Figures 6 and 7", seeds, row, _distance_from_null, 1, NO_NUMBER, unit
        )
    return found


def _distance_from_null(metrics: Mapping[str, float]) -> float:
    return abs(metrics["gaussian_gus"])


def _indiscriminate(attack: str, records: Sequence[Record], seeds: Sequence[Cells]) -> list[Claim]:
    most = largest_budget(records)
    claims = []
    for text, method, other, sign in (
        ("fine_tune alleviates", ("fine_tune", most), (ORIGINAL, None), 1),
        ("training anew for as long beats fine_tune on", ("retrain", most), ("fine_tune", most), 1),
        ("training anew for as long beats scrub on", ("retrain", most), ("scrub", most), 1),
        ("catastrophic_last_layers makes worse", ("catastrophic_last_layers", most),
         (ORIGINAL, None), -1),
        ("exact_last_layers makes worse", ("exact_last_layers", most), (ORIGINAL, None), -1),
    ):  # fmt: skip
        done = [cells for cells in seeds if method in cells and other in cells]

        def value(cells: Cells, method: Any = method, other: Any = other) -> float:
            return cells[method]["accuracy_test"] - cells[other]["accuracy_test"]

        paper = f"{TABLE_2[method[0]]}; {TABLE_2[other[0]]}"
        where = WHERE["indiscriminate"]
        text = f"{text} {attack} indiscriminate poisons"
        claims.append(_difference(text, where, done, value, sign, paper, "test accuracy: "))
    return claims


def no_silver_bullet(grids: Mapping[str, Sequence[Record]]) -> list[Claim]:
    """Returns the claim that no method removes every kind of poisons, where all kinds were run."""
    if set(grids) != set(EFFECTS):
        return []
    left = {kind: _verdicts(kind, records) for kind, records in grids.items()}
    methods = methods_of(next(iter(grids.values())))
    fails = {m: [kind for kind in left if left[kind].get(m) == "holds"] for m in methods}
    ours = "; ".join(
        f"{m} leaves {', '.join(kinds) or 'none surely'}" for m, kinds in fails.items()
    )
    verdict: Any = "holds" if all(fails.values()) else "undecided"
    if any(all(left[kind].get(m) == "does not hold" for kind in left) for m in methods):
        verdict = "does not hold"
    most = largest_budget(next(iter(grids.values())))
    text = f"No method reaches Retrain on all kinds of poisons at {100 * most:g} % of its cost"
    return [Claim(text, "section 5.2", ours, "none of seven", verdict)]


def _verdicts(kind: str, records: Sequence[Record]) -> dict[str, Verdict]:
    """Returns by method whether it leaves the poisons of the largest share.

    Gaussian ones are left where their TPR or their GUS shows it.
    """
    attack = last_attack(records)
    seeds = by_seed(records, attack)
    found = {method: c.verdict for method, c in _left(kind, attack, records, seeds).items()}
    if kind == "gaussian":
        scores = _score(attack, records, seeds)
        found |= {method: "holds" for method in found if scores[method].verdict == "holds"}
    return found


def shift_claims(seeds: Sequence[Mapping[str, Any]]) -> list[Claim]:
    """Returns hypothesis 1: poisons move a model further than as many clean samples."""
    claims = []
    for kind in ("indiscriminate", "targeted"):
        for norm, words in (("l1", "L1"), ("l2", "L2")):
            ratios = [np.log10(s[norm][kind][-1] / s[norm]["random"][-1]) for s in seeds]
            verdict, ours = judge_difference(ratios, sign=1)
            sizes = [f"{np.mean([s[norm][k][-1] for s in seeds]):.3g}" for k in (kind, "random")]
            text = (
                f"Unlearning {kind} poisons shifts the model more than random samples, in {words}"
            )
            figures = f"{sizes[0]} against {sizes[1]}; decades: {ours}"
            where = "section 6, hypothesis 1, Figure 4"
            claims.append(Claim(text, where, figures, NO_NUMBER, verdict))
    return claims


def update_claims(courses: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[Claim]:
    """Returns hypothesis 2: clean gradients do not lead where unlearning poisons has to go."""
    claims = []
    where = "section 6, hypothesis 2, Figure 5"
    for weighing in WEIGHINGS:
        poisons, random = courses[weighing], courses["random"]
        blue = [float(np.mean(np.abs(c["from_trained"]))) for c in poisons]
        red = [float(np.mean(np.abs(c["from_random"]))) for c in poisons]
        clean = [float(np.mean(np.abs(c["from_trained"]))) for c in random]
        name = f"poisons ({weighing} weighing)"
        for text, values in (
            (f"Clean gradients are less aligned with the shift of {name} than with that from "
             "random weights", np.subtract(blue, red)),
            (f"Clean gradients are less aligned with the shift of {name} than with that of random "
             "samples", np.subtract(blue, clean)),
        ):  # fmt: skip
            verdict, ours = judge_difference(values, sign=-1)
            mean, reach = interval(blue)
            figures = f"mean absolute cosine {mean:.3f} ± {reach:.3f}; difference {ours}"
            claims.append(Claim(text, where, figures, "near 0, figure (a)", verdict))
    for weighing in (*WEIGHINGS, "random"):
        mean, reach = interval([c["shift_l1"] for c in courses[weighing]])
        what = "random samples" if weighing == "random" else f"poisons ({weighing} weighing)"
        near: Any = "holds" if 3.3 / 1.5 <= mean <= 3.3 * 1.5 else "does not hold"
        text = f"The L1 shift of {what} is about 3.3 (within a factor of 1.5)"
        claims.append(Claim(text, "C.2", f"{mean:.2f} ± {reach:.2f}", "3.3", near))
    return claims


def _less_retrain(
    text: str,
    where: str,
    seeds: Sequence[Cells],
    row: Row,
    read: Callable[[Mapping[str, float]], float],
    sign: int,
    paper: str,
    unit: str,
) -> Claim:
    """Judges what a row reads, less what the retrained network does, on the seeds that have it."""

    def value(cells: Cells) -> float:
        return read(cells[row]) - read(cells[RETRAIN, None])

    done = [cells for cells in seeds if row in cells]
    return _difference(text, where, done, value, sign, paper, unit)


def _difference(
    text: str,
    where: str,
    seeds: Sequence[Cells],
    value: Callable[[Cells], float],
    sign: int,
    paper: str,
    unit: str,
) -> Claim:
    where = f"section {where}"
    if not seeds:
        return Claim(text, where, "no result", paper, "undecided")
    verdict, ours = judge_difference([value(cells) for cells in seeds], sign=sign)
    return Claim(text, where, unit + ours, paper, verdict)
