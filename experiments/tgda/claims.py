"""What Lu et al. 2022 claim, judged from our figures; see `experiments.claims`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from experiments.claims import Claim, Runs, claim_difference
from experiments.tgda.paper import NETWORKS, quote, title
from experiments.tgda.settings import LONG, Target
from unlearnkit.studies import Record

EPSILON = 0.03
"""Of every attack whose name says no other."""
AFTER = "Pawelczyk et al. 2024, §5.1, after Lu et al. 2023"
RIVALS = (
    *(
        (f"TGDA drops the accuracy more than {title(name)}", where, "tgda", name)
        for name, where in (
            ("label_flip", "section 5.2, Tables 2 and 3"),
            ("min_max", "section 5.2, Table 2"),
            ("improved_min_max", "section 5.2, Table 2"),
            ("back_gradient", "section 5.2, Table 2"),
            ("meta_poison", "section 5.2, Table 3"),
            ("error_minimizing", "appendix B.2, Table 12"),
        )
    ),
    ("Gradient canceling drops the accuracy more than TGDA", AFTER, "gradient_canceling", "tgda"),
    ("Gradient canceling without bounds drops the accuracy more than TGDA", AFTER,
     "gradient_canceling_unbounded", "tgda"),
)  # fmt: skip
"""Text, place in the paper, and the attack that drops the accuracy more than the other.

Here `tgda` is that which was played for longest.
"""
ABLATIONS = (
    ("The attacker as leader beats the defender as leader", "section 5.3, Table 4",
     "tgda", "defender_leads"),
    ("The non-zero-sum game beats the zero-sum one", "Table 5", "tgda", "zero_sum"),
    ("Pretraining the leader matters", "Table 6", "tgda", "no_pretraining"),
    ("A warm start beats a cold start", "Table 8", "tgda", "cold_start"),
    ("Without steps of the defender (n = 0) the attack is weaker", "Table 7", "tgda", "m1_n0"),
    ("Twenty steps of the defender beat one (m = 1)", "Table 7", "tgda", "m1_n1"),
    ("m = 20, n = 1 beats m = 1, n = 20", "Table 7", "m20_n1", "tgda"),
    ("TGDA beats follow the ridge", "appendix C", "tgda", "fr"),
    ("TGDA beats Newton steps of the follower", "appendix C", "tgda", "gdn"),
    ("TGDA beats unrolling", "section 3.2, appendix C", "tgda", "ugda"),
)  # fmt: skip
"""Likewise, of TGDA with one thing changed, for as many epochs."""
UNLEARNABLE = ("unlearnable_tgda@1", "unlearnable_emn@1")


class Drops(Runs):
    """Records by attack and seed; drops of the accuracy in points."""

    @property
    def longest(self) -> str:
        """The name of TGDA played for longest."""
        return LONG if LONG in self.methods() else "tgda"

    def percent(self, name: str, metric: str) -> dict[int, float]:
        """Returns a metric of an attack by seed, in %."""
        return {seed: 100 * value for seed, value in self.by_seed(name, metric).items()}

    def of(self, name: str) -> dict[int, float]:
        """Returns the drop by seed."""
        return self.percent(name, "drop")

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
    claims = []
    for contrasts, tgda in ((RIVALS, drops.longest), (ABLATIONS, "tgda")):
        for text, where, *names in contrasts:
            more, less = (tgda if name == "tgda" else name for name in names)
            claims += _compare(drops, text, where, (more, less), _quoted(target, more, less))
    if hurts := list(drops.of(drops.longest).values()):
        quoted = quote(target.source, target.model, "tgda")
        text = f"TGDA drops the accuracy of {NETWORKS[target.model]} at ε = 3 %"
        paper = "not given" if quoted is None else f"{quoted.drop:.2f}"
        claims.append(claim_difference(text, "Tables 2 and 3", hurts, 1, "{} points", paper))
    for text, words, value in (
        ("The drop grows with ε", "difference", lambda small, large, _: large - small),
        ("At a large ε the drop is less than ε", "below ε by", lambda _, large, e: 100 * e - large),
    ):
        claims += _over_epsilon(drops, text, words, value)
    text = "With all examples perturbed TGDA leaves less accuracy than EMN"
    paper = "78.30 against 75.02 (ResNet-18)"
    return claims + _compare(drops, text, "appendix B.2, Table 13", UNLEARNABLE, paper)


def _compare(
    drops: Drops, text: str, where: str, names: tuple[str, str], paper: str
) -> list[Claim]:
    """Returns the claim that the first drop exceeds the second, where both were run."""
    first, second = map(drops.of, names)
    differences = [first[seed] - second[seed] for seed in sorted(first.keys() & second.keys())]
    if not differences:
        return []
    ours = " against ".join(f"{drops.average(name):.2f}" for name in names) + " points; {}"
    return [claim_difference(text, where, differences, 1, ours, paper)]


def _quoted(target: Target, more: str, less: str) -> str:
    """Returns the paper's drops on this network, or, where it has none, on MNIST's."""
    for dataset in (target.source, "mnist"):
        pair = [quote(dataset, target.model, name) for name in (more, less)]
        if all(entry is not None for entry in pair):
            drops = " against ".join(f"{entry.drop:.2f}" for entry in pair if entry is not None)
            return drops if dataset == target.source else f"{drops} (MNIST)"
    return "not given"


def _over_epsilon(
    drops: Drops, text: str, words: str, value: Callable[[float, float, float], float]
) -> list[Claim]:
    """Returns a claim on TGDA at the smallest and the largest ε, judged seed by seed."""
    names = drops.sweep("tgda")
    if len(names) < 2:
        return []
    least, most = min(names), max(names)
    small, large = drops.of(names[least]), drops.of(names[most])
    values = [value(small[s], large[s], most) for s in sorted(small.keys() & large.keys())]
    if not values:
        return []
    ends = ", ".join(f"{drops.average(names[e]):.2f} at {100 * e:g} %" for e in (least, most))
    return [claim_difference(text, "section 5.3, Figure 4", values, 1, f"{ends}; {words} {{}}")]


def judge_sizes(
    targets: Mapping[str, Target], records: Mapping[str, Sequence[Record]]
) -> list[Claim]:
    """Returns the claim of Figure 1, from targets that differ in their training examples alone."""
    present = [name for name, target in targets.items() if target.classes and name in records]
    if len(present) < 2:
        return []
    present.sort(key=lambda name: targets[name].train or 0)
    few, many = present[0], present[-1]
    sizes = f"{targets[few].train} against {targets[many].train} examples"
    claims = []
    for attack in ("poison_svm", "back_gradient"):
        small, large = (Drops(records[name]).of(attack) for name in (few, many))
        differences = [small[s] - large[s] for s in sorted(set(small) & set(large))]
        if differences:
            means = " against ".join(f"{np.mean(list(d.values())):.2f}" for d in (small, large))
            text = f"A larger training set is harder to poison ({title(attack)})"
            where, ours = "section 4.1, Figure 1", f"{sizes}: {means}; {{}}"
            claims.append(claim_difference(text, where, differences, 1, ours))
    return claims
