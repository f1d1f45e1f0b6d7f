"""Claims of papers, judged from our figures with their standard errors, never typed.

A difference counts where its 95 % interval over the seeds (Student's t, paired by seed; Welch's
where the two ends are trained on different examples) leaves out zero: the claim then "holds" or
"does not hold". Else it is "undecided" at this scale. The verdicts on one result hold `together`.

What is claimed stands in claims.toml, which says what its fields mean; the code of a paper says
only how a figure is computed from records.
"""

from __future__ import annotations

import dataclasses
import functools
import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from unlearnkit.reporting.intervals import FINEST
from unlearnkit.reporting.intervals import in_words as in_words
from unlearnkit.reporting.intervals import interval as interval
from unlearnkit.studies import Runs as Runs
from unlearnkit.studies.declared import make_part

Verdict = Literal["holds", "does not hold", "undecided"]
Values = Sequence[float] | np.ndarray
"""Of a figure, one per seed."""
NO_NUMBER = "a figure without numbers"
FILE = Path(__file__).with_name("claims.toml")


def read_toml(code: str, name: str = "paper.toml") -> dict[str, Any]:
    """Returns what the TOML file of that name says which is beside a file of code (`__file__`)."""
    return tomllib.loads(Path(code).with_name(name).read_text(encoding="utf-8"))


@dataclasses.dataclass(frozen=True)
class Claim:
    """A claim and its fate.

    Attributes:
      text: what is claimed.
      where: in the paper.
      ours: our figures.
      paper: the paper's figures.
      verdict: judged from ours.
      id: of the statement, as `tgda.over_label_flip`.
      among: judges it by the interval of one of as many claims; None where no interval does.
    """

    text: str
    where: str
    ours: str
    paper: str
    verdict: Verdict
    id: str = ""
    among: Callable[[int], Claim] | None = dataclasses.field(default=None, compare=False)


@dataclasses.dataclass(frozen=True)
class Statement:
    """What a paper claims, before it is judged: a table of claims.toml.

    Attributes:
      id: the paper's folder and the name of the table.
      text: of the claim; names in braces stand for what is filled in when it is judged.
      where: the paper makes it.
      figure: the name of our figure, by which the code of the paper finds how it is computed.
      sign: +1 or -1, the sign that differences are claimed to have; 0 where nothing is subtracted.
      threshold: what values are compared with.
      rows: of the table that is judged, as the names of methods.
      metric: which one.
      ours: the words around our figure, which is {}.
      paper: the paper's figures, where they are no part of its quoted tables.
    """

    id: str
    text: str
    where: str
    figure: str
    sign: int = 0
    threshold: float = 0.0
    rows: tuple[str, ...] = ()
    metric: str = ""
    ours: str = "{}"
    paper: str = NO_NUMBER

    def judge(
        self, values: Values, among: int = 1, apart: Values | None = None, /, *,
        ours: str | None = None, paper: str | None = None, **names: Any,
    ) -> Claim:  # fmt: skip
        """Returns the claim that values, less the threshold, have its sign.

        Args:
          values: one per seed; without any, nothing is judged.
          among: how many claims share the 5 % of wrong verdicts.
          apart: values of other runs, whose mean is subtracted; no seed of theirs belongs to one of
            the first.
          ours: in the place of the statement's.
          paper: likewise.
          names: what stands in the place of names in braces.
        """
        if not len(values) or (apart is not None and not len(apart)):
            return self.decide("undecided", "no result", paper=paper, **names)
        less = np.asarray(values, float) - self.threshold
        mean, reach = interval(less, among, apart)
        verdict = holds(mean * self.sign > 0) if abs(mean) > max(reach, FINEST) else "undecided"
        figure = in_words(less, verdict == "undecided", among, apart)
        said = (self.ours if ours is None else ours).format(figure, **names)
        claim = self.decide(verdict, said, paper=paper, **names)

        def again(many: int) -> Claim:
            return self.judge(values, many, apart, ours=ours, paper=paper, **names)

        return claim if np.isnan(reach) else dataclasses.replace(claim, among=again)

    def order(self, ours: float, paper: float, **names: Any) -> Claim:
        """Returns the claim that a figure is of the paper's order: within a factor (threshold)."""
        near = ours > 0 and paper / self.threshold <= ours <= self.threshold * paper
        return self.decide(near, f"{ours:.2g}", paper=f"{paper:.2g}", **names)

    def decide(
        self, verdict: Verdict | bool, ours: str, *, paper: str | None = None, **names: Any
    ) -> Claim:
        """Returns the claim with a verdict that is judged otherwise.

        Args:
          verdict: on it; or what is seen, True for "holds".
          ours: our figures.
          paper: in the place of the statement's.
          names: what stands in the place of names in braces.
        """
        if not isinstance(verdict, str):
            verdict = holds(verdict)
        said = self.paper if paper is None else paper
        text, where, said = (part.format(**names) for part in (self.text, self.where, said))
        return Claim(text, where, ours, said, verdict, self.id)


Judge = Callable[[Statement], Iterable[Claim]]
"""Computes the figure of a statement; none where the records do not have it."""


@functools.cache
def statements(paper: str) -> dict[str, Statement]:
    """Returns what a paper claims, by name, in the order of claims.toml."""
    said = read_toml(__file__, FILE.name)[paper].items()
    return {n: make_part(n, Statement, {"id": f"{paper}.{n}", **of}) for n, of in said}


def judge_all(paper: str, *parts: Mapping[str, Judge]) -> list[Claim]:
    """Returns the claims of a paper whose figures are given, `together`.

    Args:
      paper: the folder of its results.
      parts: of a result, one after the other: what computes each figure, by its name; the claims of
        a part are in the order of claims.toml.
    """
    known = statements(paper).values()
    asked = [(part[one.figure], one) for part in parts for one in known if one.figure in part]
    return together([claim for judge, statement in asked for claim in judge(statement)])


def together(claims: Sequence[Claim]) -> list[Claim]:
    """Returns the claims of one result, of which any verdict is wrong with at most 5 %.

    By Holm's step-down procedure: m claims are judged by intervals of 1 - 0.05 / m; what this
    decides is done, and the k others are judged by those of 1 - 0.05 / k, until none is decided.
    The interval that is shown is the last by which a claim was judged.

    Source: Holm 1979.
    """
    found = list(claims)
    left = {i: claim.among for i, claim in enumerate(claims) if claim.among is not None}
    while left:
        found = [left[i](len(left)) if i in left else claim for i, claim in enumerate(found)]
        undecided = {i: of for i, of in left.items() if found[i].verdict == "undecided"}
        if len(undecided) == len(left):
            break
        left = undecided
    return found


def in_order(paper: str, claims: Iterable[Claim]) -> list[Claim]:
    """Returns claims in the order of claims.toml."""
    places = [statement.id for statement in statements(paper).values()]
    return sorted(claims, key=lambda claim: places.index(claim.id))


def holds(condition: bool) -> Verdict:
    """Returns the verdict on what is seen or not, without an interval."""
    return "holds" if condition else "does not hold"
