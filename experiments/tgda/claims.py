"""What Lu et al. 2022 claim, judged from our figures; see `experiments.claims`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from experiments.claims import NO_NUMBER, Claim, Runs, Statement, judge_all
from experiments.tgda.paper import NETWORKS, quote
from experiments.tgda.settings import LONG, Target
from unlearnkit.studies import Record

EPSILON = 0.03
"""Of every attack whose name says no other."""


class Drops(Runs):
    """Records by attack and seed; drops of the accuracy in points."""

    def run_of(self, name: str) -> str:
        """Returns the name itself; of TGDA for longer that of TGDA, where it was not run."""
        return "tgda" if name == LONG and LONG not in self.methods() else name

    def of(self, name: str, metric: str = "drop") -> dict[int, float]:
        """Returns the drop, or another metric, of an attack by seed, in %."""
        return {seed: 100 * value for seed, value in self.by_seed(name, metric).items()}

    def average(self, name: str) -> float:
        """Returns the mean drop."""
        return float(np.mean(list(self.of(name).values())))

    def sweep(self, attack: str) -> dict[float, str]:
        """Returns the names under which an attack was run, by ε, ascending."""
        names = self.methods()
        found = {float(n.partition("@")[2]): n for n in names if n.startswith(f"{attack}@")}
        if attack in names:
            found.setdefault(EPSILON, attack)
        return dict(sorted(found.items()))


def judge(target: Target, records: Sequence[Record]) -> list[Claim]:
    """Returns the claims that the records of a target can judge; drops are in points."""
    drops = Drops(records)

    def compare(claim: Statement) -> Iterator[Claim]:
        more, less = map(drops.run_of, claim.rows)
        if differences := _paired(drops.of(more), drops.of(less)):
            ours = f"{drops.average(more):.2f} against {drops.average(less):.2f} points; {{}}"
            paper = _quoted(target, more, less) if claim.paper == NO_NUMBER else claim.paper
            yield claim.judge(differences, ours=ours, paper=paper)

    def drop(claim: Statement) -> Iterator[Claim]:
        if hurts := list(drops.of(drops.run_of(*claim.rows)).values()):
            quoted = quote(target.source, target.model, "tgda")
            paper = "not given" if quoted is None else f"{quoted.drop:.2f}"
            yield claim.judge(hurts, paper=paper, network=NETWORKS[target.model])

    def grow(claim: Statement) -> Iterator[Claim]:
        names = drops.sweep("tgda")
        if len(names) < 2:
            return
        least, most = min(names), max(names)
        small, large = drops.of(names[least]), drops.of(names[most])
        ends = ", ".join(f"{drops.average(names[e]):.2f} at {100 * e:g} %" for e in (least, most))
        values = _paired(large, small)
        if values and claim.figure == "below":
            values = [100 * most - large[s] for s in sorted(small.keys() & large.keys())]
        if values:
            yield claim.judge(values, ends=ends)

    figures = {"drops": compare, "drop": drop, "growth": grow, "below": grow}
    return judge_all("tgda", figures)


def _paired(one: Mapping[int, float], other: Mapping[int, float]) -> list[float]:
    return [one[seed] - other[seed] for seed in sorted(one.keys() & other.keys())]


def _quoted(target: Target, more: str, less: str) -> str:
    """Returns the paper's drops on this network, or, where it has none, on MNIST's."""
    for dataset in (target.source, "mnist"):
        pair = [quote(dataset, target.model, name) for name in (more, less)]
        if all(entry is not None for entry in pair):
            drops = " against ".join(f"{entry.drop:.2f}" for entry in pair if entry is not None)
            return drops if dataset == target.source else f"{drops} (MNIST)"
    return "not given"


def judge_sizes(
    targets: Mapping[str, Target], records: Mapping[str, Sequence[Record]]
) -> list[Claim]:
    """Returns the claim of Figure 1, from targets that differ in their training examples alone."""
    present = [name for name, target in targets.items() if target.classes and name in records]
    if len(present) < 2:
        return []
    present.sort(key=lambda name: targets[name].train or 0)
    ends = present[0], present[-1]
    few, many = (targets[name].train for name in ends)

    def compare(claim: Statement) -> Iterator[Claim]:
        small, large = (Drops(records[name]).of(*claim.rows) for name in ends)
        if differences := _paired(small, large):
            means = " against ".join(f"{np.mean(list(d.values())):.2f}" for d in (small, large))
            yield claim.judge(differences, few=few, many=many, means=means)

    return judge_all("tgda", {"sizes": compare})
