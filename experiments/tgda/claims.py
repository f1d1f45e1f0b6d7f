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
    """Records by attack and seed, their metrics in %: drops are in points."""

    def __init__(self, records: Sequence[Record]):
        points = [{name: 100 * value for name, value in r.metrics.items()} for r in records]
        super().__init__([r._replace(metrics=m) for r, m in zip(records, points, strict=True)])

    def run_of(self, name: str) -> str:
        """Returns the name itself; of TGDA for longer that of TGDA, where it was not run."""
        return "tgda" if name == LONG and LONG not in self.methods() else name

    def sweep(self, attack: str) -> dict[float, str]:
        """Returns the names under which an attack was run, by ε, ascending."""
        names = self.methods()
        found = {float(n.partition("@")[2]): n for n in names if n.startswith(f"{attack}@")}
        return dict(sorted({**({EPSILON: attack} if attack in names else {}), **found}.items()))


def judge(target: Target, records: Sequence[Record]) -> list[Claim]:
    """Returns the claims that the records of a target can judge; drops are in points."""
    drops = Drops(records)

    def compare(claim: Statement) -> Iterator[Claim]:
        more, less = map(drops.run_of, claim.rows)
        if differences := drops.gaps("drop", more, less):
            paper = _quoted(target, more, less) if claim.paper == NO_NUMBER else claim.paper
            yield claim.judge(differences, ours=f"{drops_of(more, less)}; {{}}", paper=paper)

    def drops_of(*names: str) -> str:
        return " against ".join(f"{drops.mean(name, 'drop'):.2f}" for name in names) + " points"

    def drop(claim: Statement) -> Iterator[Claim]:
        if hurts := drops.values(drops.run_of(*claim.rows), "drop"):
            quoted = quote(target.source, target.model, "tgda")
            paper = "not given" if quoted is None else f"{quoted.drop:.2f}"
            paper = paper if claim.paper == NO_NUMBER else claim.paper
            yield claim.judge(hurts, paper=paper, network=NETWORKS[target.model])

    def sweep(claim: Statement) -> Iterator[Claim]:
        """Whether the largest ε drops more than the least (`growth`), but less than ε (`below`)."""
        names = drops.sweep("tgda")
        if len(names) < 2:
            return
        (least, small), *_, (most, large) = names.items()
        values = drops.gaps("drop", large, small)
        if claim.figure == "below":
            values = drops.paired(lambda r: 100 * most - r[large].metrics["drop"], small, large)
        ends = ((least, small), (most, large))
        said = ", ".join(f"{drops.mean(n, 'drop'):.2f} at {100 * e:g} %" for e, n in ends)
        yield claim.judge(values, ends=said)

    figures = {"drops": compare, "drop": drop, "growth": sweep, "below": sweep}
    return judge_all("tgda", figures)


def _quoted(target: Target, more: str, less: str) -> str:
    """Returns the paper's drops on this network, or, where it has none, on MNIST's."""
    for dataset, note in ((target.source, ""), ("mnist", " (MNIST)")):
        pair = [quote(dataset, target.model, name) for name in (more, less)]
        printed = [f"{entry.drop:.2f}" for entry in pair if entry is not None]
        if len(printed) == 2:
            return " against ".join(printed) + note
    return "not given"


def judge_sizes(
    targets: Mapping[str, Target], records: Mapping[str, Sequence[Record]]
) -> list[Claim]:
    """Returns the claim of Figure 1, from targets that differ in their training examples alone."""
    sizes = {t.train or 0: name for name, t in targets.items() if t.classes and name in records}
    if len(sizes) < 2:
        return []
    few, many = min(sizes), max(sizes)

    def compare(claim: Statement) -> Iterator[Claim]:
        ends = (Drops(records[sizes[size]]) for size in (few, many))
        (attack,) = claim.rows
        small, large = (found.by_seed(attack, "drop") for found in ends)
        drops = [list(found.values()) for found in (small, large)]
        if all(drops):
            means = " against ".join(f"{np.mean(values):.2f}" for values in drops)
            yield claim.judge(drops[0], 1, drops[1], few=few, many=many, means=means)

    return judge_all("tgda", {"sizes": compare})
