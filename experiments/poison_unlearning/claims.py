"""What Pawelczyk et al. 2024 claim, judged from our figures; see `experiments.claims`."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from scipy import stats

from experiments import claims as shared
from experiments.claims import Claim, Judge, Runs, Statement, Verdict, holds, judge_all, read_toml
from unlearnkit.auditing import clopper_pearson
from unlearnkit.studies import CONTROL, ORIGINAL, RETRAIN, Record

PAPER = "poison_unlearning"
FPR = 0.01
IDLE = "the attack had no effect on its own victim"
_SAID = read_toml(__file__)
EFFECTS: dict[str, tuple[str, int]] = {kind: tuple(said) for kind, said in _SAID["effects"].items()}
WORDS: dict[str, str] = _SAID["words"]
NAMES: dict[str, str] = _SAID["names"]
TABLE_2: dict[str, str] = _SAID["table_2"]


def at(method: str, budget: float | None) -> str:
    """Names a method at a budget: a row of the table."""
    return method if budget is None else f"{method} at {budget:g}"


def runs_of(records: Sequence[Record], attack: str, chance: float | None = None) -> Runs:
    """Returns the records of one attack, whose methods are rows; without failures.

    A seed without a poisoned and a retrained network has nothing to compare.
    With `chance`, methods that diverged are `guessing`, as in Table 2 of the paper.
    """
    asked = [r for r in records if r.question == attack and r.identified == 1]
    own = [r for r in (asked if chance is None else guessing(asked, chance)) if r.finished]
    before, after = ({r.seed for r in own if r.method == name} for name in (ORIGINAL, RETRAIN))
    complete = [r for r in own if r.seed in before & after]
    return Runs([r._replace(method=at(r.method, r.budget)) for r in complete])


def guessing(records: Sequence[Record], chance: float) -> list[Record]:
    """Returns the records with the accuracy of guessing where a method diverged."""
    guess: dict[str, Any] = {"metrics": {"accuracy_test": chance}, "diverged": None}
    return [r._replace(**guess) if r.diverged and r.budget else r for r in records]


def attacks_of(records: Sequence[Record]) -> list[str]:
    """Returns the attacks that are to be forgotten, in order; controls are not."""
    names = dict.fromkeys(record.question for record in records)
    return [name for name in names if not name.endswith(CONTROL)]


def pooled(records: Sequence[Record], attack: str, method: str) -> np.ndarray:
    """Returns the statistic of all poisons of all seeds under one network."""
    wanted = (attack, method, 1.0)
    own = [r for r in records if (r.question, r.method, r.identified) == wanted and r.finished]
    return np.concatenate([np.asarray(r.curves["gaussian_statistic"]) for r in own])


def methods_of(records: Sequence[Record]) -> list[str]:
    """Returns the methods that unlearn, in order; training anew for a few epochs is none."""
    names = dict.fromkeys(r.method for r in records if r.budget is not None)
    return [name for name in names if name != "retrain"]


def largest_budget(records: Sequence[Record]) -> float:
    """Returns the share of Retrain's cost at which methods are judged."""
    return max(r.budget for r in records if r.budget is not None)


def grid_claims(
    kind: str, records: Sequence[Record], chance: float = 0.1, texts: bool = False
) -> list[Claim]:
    """Returns the claims on one kind of poisons, at the largest budget and all their shares.

    Methods are judged on seeds where the poisons had an effect; one that diverged guesses.
    """
    parts = (_figures(kind, a, records, chance, texts) for a in attacks_of(records))
    found = judge_all(PAPER, *parts)
    return [*found, *_sizes_agree(found)] if texts and kind == "gaussian" else found


def _sizes_agree(judged: Sequence[Claim]) -> list[Claim]:
    """Returns whether the verdicts on methods of Figure 10 agree at all shares of poisons."""

    def judge(claim: Statement) -> Iterator[Claim]:
        for method in claim.rows:
            said = [
                one.verdict
                for one in judged
                if one.id == f"{PAPER}.imdb_gaussian_left" and one.text.startswith(f"{method} ")
            ]
            one_verdict = len(set(said)) == 1 and "undecided" not in said
            verdict: Verdict = "holds" if one_verdict else "undecided"
            if {"holds", "does not hold"} <= set(said):
                verdict = "does not hold"
            yield claim.decide(verdict, "; ".join(said), method=method)

    return judge_all(PAPER, {"text sizes": judge})


def _figures(
    kind: str, attack: str, records: Sequence[Record], chance: float, texts: bool
) -> dict[str, Judge]:
    """Returns how the figures of an attack are computed."""
    guess, most = chance if kind == "indiscriminate" else None, largest_budget(records)
    runs = runs_of(records, attack, guess)
    bitten = runs_of([r for r in records if r.no_effect is None], attack, guess)
    idle = not bitten.methods() and bool(runs.methods())
    named: dict[str, Any] = {"attack": attack, "share": 100 * most}
    methods, unmet = methods_of(records), {r.method: r.failed for r in records if r.failed}

    def judge(claim: Statement, values: Sequence[float], of_attack: bool, **names: str) -> Claim:
        asked = (names.get("method", ""), *claim.rows)
        why = [IDLE] * (idle and not of_attack) + [unmet[name] for name in asked if name in unmet]
        if why:
            return claim.decide("undecided", why[0], **{**named, "table_2": "", **names})
        return claim.judge(values, **named, **names)

    def effect(claim: Statement) -> Iterator[Claim]:
        """Whether rows show more of the poisons than the retrained network."""
        for method in claim.rows or methods:
            row = method if claim.rows else at(method, most)
            quoted = TABLE_2.get(method, shared.NO_NUMBER)
            values = (runs if claim.rows else bitten).gaps(claim.metric, row, RETRAIN)
            yield judge(claim, values, bool(claim.rows), method=method, table_2=quoted)

    def rate(claim: Statement) -> Iterator[Claim]:
        """The share of all seeds' poisons that a retrained network gives away, its interval."""
        threshold = stats.norm.isf(claim.threshold / 2)
        before, after = (abs(pooled(records, attack, m)) > threshold for m in (ORIGINAL, RETRAIN))

        def among(many: int) -> Claim:
            low, high = clopper_pearson(int(after.sum()), len(after), confidence=1 - 0.05 / many)
            verdict = holds(low <= claim.threshold <= high)
            if verdict == "holds" and high >= before.mean():
                verdict = "undecided"  # as wide as what it must be told from
            ours = f"{after.sum()} of {len(after)} poisons, {low:.3f} … {high:.3f}; before: "
            found = claim.decide(verdict, f"{ours}{before.mean():.3f}", **named)
            return dataclasses.replace(found, among=among)

        yield among(1)

    def score(claim: Statement) -> Iterator[Claim]:
        """The same by the GUS, whose distance from 0 is the influence of the poisons."""
        rows = {ORIGINAL: "training on them"} | {at(method, most): method for method in methods}
        for row, who in rows.items():

            def further(r: Mapping[str, Record], row: str = row) -> float:
                one, other = (abs(r[name].metrics[claim.metric]) for name in (row, RETRAIN))
                return one - other

            own = runs if row == ORIGINAL else bitten
            yield judge(claim, own.paired(further, row, RETRAIN), row == ORIGINAL, method=who)

    def gap(claim: Statement) -> Iterator[Claim]:
        rows = (name if name == ORIGINAL else at(name, most) for name in claim.rows)
        yield judge(claim, bitten.gaps(claim.metric, *rows), False)

    def control(claim: Statement) -> Iterator[Claim]:
        """What the poisons do beyond random ones of their norms."""
        other = runs_of(records, f"{attack}{CONTROL}").by_seed(ORIGINAL, claim.metric)
        mine = runs.by_seed(ORIGINAL, claim.metric)
        if other:
            yield judge(claim, [mine[s] - other[s] for s in mine if s in other], True)

    def level(claim: Statement) -> Iterator[Claim]:
        """What a network shows of the poisons, less a threshold."""
        values = [*runs.by_seed(claim.rows[0], claim.metric).values()]
        yield judge(claim, values, claim.rows[0] == ORIGINAL)

    def shown(claim: Statement) -> Iterator[Claim]:
        """The share of all seeds' poisons that the trained network gives away, its interval."""
        given = np.abs(pooled(records, attack, ORIGINAL)) > stats.norm.isf(claim.threshold / 2)
        low, high = clopper_pearson(int(given.sum()), len(given))
        verdict = "undecided" if low <= claim.threshold <= high else holds(low > claim.threshold)
        yield claim.decide(verdict, f"{given.mean():.3f}, {low:.3f} … {high:.3f}", **named)

    def steps(claim: Statement) -> Iterator[Claim]:
        """What a method leaves at its largest budget, less what it leaves at its smallest."""
        least = min(r.budget for r in records if r.budget is not None)
        ends = (at(claim.rows[0], budget) for budget in (most, least))
        yield judge(claim, bitten.gaps(claim.metric, *ends), False)

    figures = {"effect": effect, "rate": rate, "score": score, "gap": gap, "control": control}
    figures |= {"level": level, "shown": shown, "steps": steps}
    before = "text " if texts else ""
    return {f"{before}{kind} {name}": made for name, made in figures.items()}


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
    methods, found = methods_of(records), dict[str, list[Verdict]]()
    for claim in grid_claims(kind, records):
        found.setdefault(claim.id.partition(f"{kind}_")[2], []).append(claim.verdict)
    left, scores = (found.get(n, found["left"])[-len(methods) :] for n in ("left", "gus_left"))
    pairs = zip(left, scores, strict=True)
    verdicts = ("holds" if score == "holds" else left for left, score in pairs)
    return dict(zip(methods, verdicts, strict=True))


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
