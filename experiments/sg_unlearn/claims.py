"""What Di et al. 2024 claim, judged from our figures; see `experiments.claims`."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

from experiments import claims as shared
from experiments.claims import Claim, Judge, Runs, Statement, Verdict, holds, judge_all
from experiments.sg_unlearn.paper import LABELS, NAMES, TABLES, PaperTable
from experiments.sg_unlearn.runs import Ablation
from unlearnkit.studies import ORIGINAL, Record

SG, FT, RETRAIN = "stackelberg", "fine_tune", "retrain"
MIA = "mia_loss_logistic_accuracy"
Means = Mapping[str, Mapping[str, float]]


def tables_of(kind: str) -> list[PaperTable]:
    """Returns the paper's tables of random or class-wise forgetting."""
    return [table for table in TABLES if table.kind == kind]


def random_claims(records: Sequence[Record]) -> list[Claim]:
    """Returns the claims on random forgetting (section 6.3.1)."""
    runs = Runs([record for record in records if record.method != ORIGINAL])
    means = _means(runs)
    others = [name for name in runs.methods() if name not in (SG, RETRAIN)]

    def against(claim: Statement) -> Iterator[Claim]:
        def pair(of: Means) -> str:
            return " against ".join(f"{of[name][claim.metric]:.4f}" for name in (SG, FT))

        paper = _quote("random", lambda table: pair(table.mean))
        gaps = runs.gaps(claim.metric, SG, FT)
        yield claim.judge(gaps, paper=paper, means=pair(means))

    def toward(claim: Statement) -> Iterator[Claim]:
        def distances(of: Means) -> list[float]:
            return [abs(of[n][claim.metric] - of[RETRAIN][claim.metric]) for n in (SG, FT)]

        def nearer(found: Mapping[str, Record]) -> float:
            sg, ft = distances({name: record.metrics for name, record in found.items()})
            return sg - ft

        paper = _quote("random", lambda t: " against ".join(f"{d:.4f}" for d in distances(t.mean)))
        yield claim.judge(runs.paired(nearer, SG, FT, RETRAIN), paper=paper)

    def best(claim: Statement) -> Iterator[Claim]:
        def value(metrics: Mapping[str, float]) -> float:
            utility = claim.metric == "utility"
            return metrics["accuracy_test"] - metrics[MIA] if utility else metrics[claim.metric]

        def best_of(of: Means) -> str:
            return max((n for n in of if n in others), key=lambda n: claim.sign * value(of[n]))

        def quote(table: PaperTable) -> str:
            own, rival = table.mean[SG], best_of(table.mean)
            return f"{value(own):.4f}, best other {NAMES[rival]} {value(table.mean[rival]):.4f}"

        rival = best_of(means)
        gaps = runs.paired(lambda r: value(r[SG].metrics) - value(r[rival].metrics), SG, rival)
        own, theirs = (f"{value(means[name]):.4f}" for name in (SG, rival))
        yield claim.judge(
            gaps, paper=_quote("random", quote), own=own, best=NAMES[rival],
            others=len(others), theirs=theirs,
        )  # fmt: skip

    def closest(claim: Statement) -> Iterator[Claim]:
        count, of = _closest_counts(means)[SG], f"of {len(LABELS)}"
        paper = _quote("random", lambda table: f"{_closest_counts(table.mean)[SG]} {of}")
        most = holds(count > claim.threshold * len(LABELS))
        yield claim.decide(most, f"{count} {of} columns", paper=paper)

    figures = {"against": against, "toward": toward, "best": best, "closest": closest}
    return _all(runs, {**figures, "time": _cheaper(runs, "random")})


def class_claims(records: Sequence[Record]) -> list[Claim]:
    """Returns the claims on class-wise forgetting (section 6.3.2)."""
    runs = Runs([record for record in records if record.method != ORIGINAL])

    def beyond(claim: Statement) -> Iterator[Claim]:
        paper = _quote("class", lambda table: f"{table.mean[SG][claim.metric]:.4f}")
        kept = f"; retain accuracy {runs.mean(SG, 'accuracy_retain'):.4f}"
        yield claim.judge(runs.values(SG, claim.metric), paper=paper, ours=claim.ours + kept)

    def leader(claim: Statement) -> Iterator[Claim]:
        counts = _closest_counts(_means(runs))
        none = holds(max(counts.values()) <= claim.threshold * len(LABELS))
        paper = _quote("class", lambda table: _leader(_closest_counts(table.mean)))
        yield claim.decide(none, f"most: {_leader(counts)} columns", paper=paper)

    figures = {"beyond": beyond, "leader": leader}
    return _all(runs, {**figures, "time": _cheaper(runs, "class")})


def ablation_claims(ablation: Ablation) -> list[Claim]:
    """Returns the claims on the auditor's effect (section 6.3.3)."""
    with_auditor, without = ablation.traces["1"], ablation.traces["0"]
    ends = {
        metric: np.subtract(with_auditor[metric], without[metric])[:, -1] for metric in with_auditor
    }
    ends["utility"] = ends["accuracy_test"] - ends[MIA]

    def auditor(claim: Statement) -> Iterator[Claim]:
        yield claim.judge(ends[claim.metric])

    def course(claim: Statement) -> Iterator[Claim]:
        trace = np.asarray(with_auditor[claim.metric])
        yield claim.judge(trace[:, -1] - trace[:, 0])

    def robust(claim: Statement) -> Iterator[Claim]:
        alphas = sorted(ablation.sweep, key=float)
        first, last = (np.asarray(ablation.sweep[alphas[i]][claim.metric]) for i in (0, -1))

        def among(many: int) -> Claim:
            mean, reach = shared.interval(last - first, many)
            verdict: Verdict = "undecided"
            if abs(mean) + reach < claim.threshold:
                verdict = "holds"
            elif abs(mean) - reach > claim.threshold:
                verdict = "does not hold"
            ours = shared.in_words(last - first, verdict == "undecided", many)
            found = claim.decide(verdict, ours, first=alphas[0], last=alphas[-1])
            return dataclasses.replace(found, among=among)

        yield among(1)

    return judge_all("sg_unlearn", {"auditor": auditor, "course": course, "robust": robust})


def _all(runs: Runs, figures: Mapping[str, Judge]) -> list[Claim]:
    """Returns the judged claims; none can be where a method that they are about has no result."""
    lost = ", ".join(NAMES[name] for name in (SG, FT, RETRAIN) if name not in runs.methods())
    if lost:
        figures = dict.fromkeys(
            figures, lambda claim: [claim.decide("undecided", f"no result of {lost}")]
        )
    return judge_all("sg_unlearn", figures)


def _means(runs: Runs) -> Means:
    return {m: {metric: runs.mean(m, metric) for metric in LABELS} for m in runs.methods()}


def _cheaper(runs: Runs, kind: str) -> Judge:
    """Returns what judges the time of SG as a share of Retrain's."""

    def shares(unit: str) -> list[float]:
        return runs.paired(
            lambda r: getattr(r[SG].cost, unit) / getattr(r[RETRAIN].cost, unit), SG, RETRAIN
        )

    def cheaper(claim: Statement) -> Iterator[Claim]:
        times, work = shares("seconds"), np.mean(shares("example_gradients"))
        ours = f"{np.mean(times):.1%} of its time, {work:.1%} of its example-gradients"
        paper = _quote(kind, lambda t: f"{t.mean[SG]['minutes'] / t.mean[RETRAIN]['minutes']:.1%}")
        yield claim.judge(times, paper=paper, ours=ours)

    return cheaper


def _closest_counts(means: Means) -> dict[str, int]:
    """Returns on how many columns each approximate method is the closest to Retrain."""
    counts = dict.fromkeys((name for name in means if name != RETRAIN), 0)
    for metric in LABELS:
        distances = {n: abs(means[n][metric] - means[RETRAIN][metric]) for n in counts}
        for name, distance in distances.items():
            counts[name] += distance == min(distances.values())
    return counts


def _leader(counts: Mapping[str, int]) -> str:
    best = max(counts, key=lambda name: counts[name])
    return f"{NAMES[best]}, {counts[best]} of {len(LABELS)}"


def _quote(kind: str, text: Callable[[PaperTable], str]) -> str:
    return "; ".join(f"{table.dataset}: {text(table)}" for table in tables_of(kind))
