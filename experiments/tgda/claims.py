"""What Lu et al. 2022 claim, judged from our figures; see `experiments.claims`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from experiments.claims import Claim, judge_difference
from experiments.tgda.paper import NETWORKS, quote, title
from experiments.tgda.settings import LONG, Target
from unlearnkit.studies import Record

EPSILON = 0.03
"""Of every attack whose name says no other."""


class Contrast(NamedTuple):
    """An attack of which the paper says that it drops the accuracy more than another."""

    text: str
    where: str
    more: str
    less: str

    def of(self, longest: str) -> Contrast:
        """Returns the same on another run of TGDA."""
        more, less = (longest if name == "tgda" else name for name in (self.more, self.less))
        return self._replace(more=more, less=less)


def _rival(name: str, where: str) -> Contrast:
    return Contrast(f"TGDA drops the accuracy more than {title(name)}", where, "tgda", name)


RIVALS = (
    _rival("label_flip", "section 5.2, Tables 2 and 3"),
    _rival("min_max", "section 5.2, Table 2"),
    _rival("improved_min_max", "section 5.2, Table 2"),
    _rival("back_gradient", "section 5.2, Table 2"),
    _rival("meta_poison", "section 5.2, Table 3"),
    _rival("error_minimizing", "appendix B.2, Table 12"),
    Contrast(
        "Gradient canceling drops the accuracy more than TGDA",
        "Pawelczyk et al. 2024, §5.1, after Lu et al. 2023",
        "gradient_canceling",
        "tgda",
    ),
    Contrast(
        "Gradient canceling without bounds drops the accuracy more than TGDA",
        "Pawelczyk et al. 2024, §5.1, after Lu et al. 2023",
        "gradient_canceling_unbounded",
        "tgda",
    ),
)
"""Other attacks, against TGDA played for longest."""
ABLATIONS = (
    Contrast(
        "The attacker as leader beats the defender as leader",
        "section 5.3, Table 4",
        "tgda",
        "defender_leads",
    ),
    Contrast("The non-zero-sum game beats the zero-sum one", "Table 5", "tgda", "zero_sum"),
    Contrast("Pretraining the leader matters", "Table 6", "tgda", "no_pretraining"),
    Contrast("A warm start beats a cold start", "Table 8", "tgda", "cold_start"),
    Contrast(
        "Without steps of the defender (n = 0) the attack is weaker", "Table 7", "tgda", "m1_n0"
    ),
    Contrast("Twenty steps of the defender beat one (m = 1)", "Table 7", "tgda", "m1_n1"),
    Contrast("m = 20, n = 1 beats m = 1, n = 20", "Table 7", "m20_n1", "tgda"),
    Contrast("TGDA beats follow the ridge", "appendix C", "tgda", "fr"),
    Contrast("TGDA beats Newton steps of the follower", "appendix C", "tgda", "gdn"),
    Contrast("TGDA beats unrolling", "section 3.2, appendix C", "tgda", "ugda"),
)
"""TGDA with one thing changed, for as many epochs."""


def judge(target: Target, records: Sequence[Record]) -> list[Claim]:
    """Returns the claims that the records of a target can judge; drops are in points."""
    runs = Runs(records)
    contrasts = [*(contrast.of(runs.longest) for contrast in RIVALS), *ABLATIONS]
    made = [_judge_contrast(target, runs, contrast) for contrast in contrasts]
    made += [_hurts(target, runs), _grows(target, runs), _below_share(target, runs)]
    made += [_unlearnable(target, runs)]
    return [claim for claim in made if claim is not None]


def judge_sizes(
    targets: Mapping[str, Target], records: Mapping[str, Sequence[Record]]
) -> list[Claim]:
    """Returns the claim of Figure 1, from targets that differ in their training examples alone.

    Args:
      targets: by name.
      records: of those that were run, by name.
    """
    present = [name for name, target in targets.items() if target.classes and name in records]
    if len(present) < 2:
        return []
    present.sort(key=lambda name: targets[name].train or 0)
    few, many = present[0], present[-1]
    claims = []
    for attack in ("poison_svm", "back_gradient"):
        small, large = (Runs(records[name]).drops(attack) for name in (few, many))
        seeds = sorted(set(small) & set(large))
        if not seeds:
            continue
        verdict, ours = judge_difference([small[s] - large[s] for s in seeds], sign=1)
        sizes = f"{targets[few].train} against {targets[many].train} examples"
        claims.append(
            Claim(
                f"A larger training set is harder to poison ({title(attack)})",
                "section 4.1, Figure 1",
                f"{sizes}: {np.mean(list(small.values())):.2f} against "
                f"{np.mean(list(large.values())):.2f}; {ours}",
                "a figure without numbers",
                verdict,
            )
        )
    return claims


class Runs:
    """Drops in points by attack and seed; seeds that diverged are left out."""

    def __init__(self, records: Sequence[Record]):
        self._records = {
            (record.method, record.seed): record for record in records if record.diverged is None
        }

    def names(self) -> list[str]:
        return list(dict.fromkeys(name for name, _ in self._records))

    @property
    def longest(self) -> str:
        """The name of TGDA played for longest."""
        return LONG if LONG in self.names() else "tgda"

    def metric(self, name: str, metric: str) -> dict[int, float]:
        """Returns a metric of an attack by seed, in %."""
        return {
            seed: 100 * record.metrics[metric]
            for (method, seed), record in self._records.items()
            if method == name and metric in record.metrics
        }

    def drops(self, name: str) -> dict[int, float]:
        return self.metric(name, "drop")

    def mean(self, name: str) -> float:
        return float(np.mean(list(self.drops(name).values())))

    def paired(self, one: str, other: str) -> list[float]:
        """Returns by how much one drop exceeds the other, seed by seed."""
        first, second = self.drops(one), self.drops(other)
        return [first[seed] - second[seed] for seed in sorted(first.keys() & second.keys())]

    def sweep(self, attack: str) -> dict[float, str]:
        """Returns the names under which an attack was run, by ε, ascending."""
        found = {float(n.partition("@")[2]): n for n in self.names() if n.startswith(f"{attack}@")}
        if attack in self.names():
            found.setdefault(EPSILON, attack)
        return dict(sorted(found.items()))


def _judge_contrast(target: Target, runs: Runs, contrast: Contrast) -> Claim | None:
    more, less = contrast.more, contrast.less
    differences = runs.paired(more, less)
    if not differences:
        return None
    verdict, figures = judge_difference(differences, sign=1)
    return Claim(
        contrast.text,
        contrast.where,
        f"{runs.mean(more):.2f} against {runs.mean(less):.2f} points; {figures}",
        _quoted(target, more, less),
        verdict,
    )


def _quoted(target: Target, more: str, less: str) -> str:
    """Returns the paper's drops on this network, or, where it has none, on MNIST's."""
    for dataset in (target.source, "mnist"):
        pair = [quote(dataset, target.model, name) for name in (more, less)]
        if all(entry is not None for entry in pair):
            drops = " against ".join(f"{entry.drop:.2f}" for entry in pair if entry is not None)
            return drops if dataset == target.source else f"{drops} (MNIST)"
    return "not given"


def _hurts(target: Target, runs: Runs) -> Claim | None:
    drops = list(runs.drops(runs.longest).values())
    if not drops:
        return None
    verdict, ours = judge_difference(drops, sign=1)
    quoted = quote(target.source, target.model, "tgda")
    return Claim(
        f"TGDA drops the accuracy of {NETWORKS[target.model]} at ε = 3 %",
        "Tables 2 and 3",
        f"{ours} points",
        "not given" if quoted is None else f"{quoted.drop:.2f}",
        verdict,
    )


def _grows(target: Target, runs: Runs) -> Claim | None:
    return _over_epsilon(
        runs,
        "The drop grows with ε",
        lambda small, large, _: large - small,
        "difference",
    )


def _below_share(target: Target, runs: Runs) -> Claim | None:
    return _over_epsilon(
        runs,
        "At a large ε the drop is less than ε",
        lambda _, large, epsilon: 100 * epsilon - large,
        "below ε by",
    )


def _over_epsilon(
    runs: Runs, text: str, value: Callable[[float, float, float], float], words: str
) -> Claim | None:
    """Judges a claim on TGDA at the smallest and the largest ε, seed by seed."""
    names = runs.sweep("tgda")
    if len(names) < 2:
        return None
    least, most = min(names), max(names)
    small, large = runs.drops(names[least]), runs.drops(names[most])
    seeds = sorted(small.keys() & large.keys())
    if not seeds:
        return None
    verdict, ours = judge_difference([value(small[s], large[s], most) for s in seeds], sign=1)
    return Claim(
        text,
        "section 5.3, Figure 4",
        f"{runs.mean(names[least]):.2f} at {100 * least:g} %, {runs.mean(names[most]):.2f} at "
        f"{100 * most:g} %; {words} {ours}",
        "a figure without numbers",
        verdict,
    )


def _unlearnable(target: Target, runs: Runs) -> Claim | None:
    one, other = "unlearnable_tgda@1", "unlearnable_emn@1"
    differences = runs.paired(one, other)
    if not differences:
        return None
    verdict, figures = judge_difference(differences, sign=1)
    return Claim(
        "With all examples perturbed TGDA leaves less accuracy than EMN",
        "appendix B.2, Table 13",
        f"{runs.mean(one):.2f} against {runs.mean(other):.2f} points; {figures}",
        "78.30 against 75.02 (ResNet-18)",
        verdict,
    )
