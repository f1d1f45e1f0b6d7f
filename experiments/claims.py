"""Claims of papers, judged from our figures with their standard errors, never typed.

A difference counts where its 95 % interval over the seeds (Student's t, paired by seed) leaves out
zero: the claim then "holds" or "does not hold". Else it is "undecided" at this scale.

What is claimed stands in claims.toml, which says what its fields mean; the code of a paper says
only how a figure is computed from records.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from scipy import stats

from experiments.paper import read_toml
from unlearnkit.studies import Runs as Runs

Verdict = Literal["holds", "does not hold", "undecided"]
NO_NUMBER = "a figure without numbers"
FILE = Path(__file__).with_name("claims.toml")


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
    """

    text: str
    where: str
    ours: str
    paper: str
    verdict: Verdict
    id: str = ""


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
        self,
        values: Sequence[float] | np.ndarray,
        *,
        ours: str | None = None,
        paper: str | None = None,
        **names: Any,
    ) -> Claim:
        """Returns the claim that values, less the threshold, have its sign.

        Args:
          values: one per seed; without any, nothing is judged.
          ours: in the place of the statement's.
          paper: likewise.
          names: what stands in the place of names in braces.
        """
        if not len(values):
            return self.decide("undecided", "no result", paper=paper, **names)
        less = np.asarray(values, float) - self.threshold
        verdict, figures = judge_difference(less, sign=self.sign)
        words = self.ours if ours is None else ours
        return self.decide(verdict, words.format(figures, **names), paper=paper, **names)

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
    said = read_toml(__file__, FILE.name)[paper]
    return {
        name: Statement(f"{paper}.{name}", **{**fields, "rows": tuple(fields.get("rows", ()))})
        for name, fields in said.items()
    }


def judge_all(paper: str, figures: Mapping[str, Judge]) -> list[Claim]:
    """Returns the claims of a paper whose figures are given, in the order of claims.toml.

    Args:
      paper: the folder of its results.
      figures: computes each, by its name.
    """
    asked = (statement for statement in statements(paper).values() if statement.figure in figures)
    return [claim for statement in asked for claim in figures[statement.figure](statement)]


def in_order(paper: str, claims: Iterable[Claim]) -> list[Claim]:
    """Returns claims in the order of claims.toml."""
    places = [statement.id for statement in statements(paper).values()]
    return sorted(claims, key=lambda claim: places.index(claim.id))


def judge_values(
    paper: str, figures: Mapping[str, Callable[[Statement], Sequence[float]]]
) -> list[Claim]:
    """Returns the claims of a paper that need no more than values, one per seed.

    Args:
      paper: the folder of its results.
      figures: computes the values of a statement, by the name of its figure.
    """

    def judging(values: Callable[[Statement], Sequence[float]]) -> Judge:
        return lambda claim: [claim.judge(values(claim))]

    return judge_all(paper, {name: judging(values) for name, values in figures.items()})


def holds(condition: bool) -> Verdict:
    """Returns the verdict on what is seen or not, without an interval."""
    return "holds" if condition else "does not hold"


def judge_difference(values: Sequence[float] | np.ndarray, *, sign: int) -> tuple[Verdict, str]:
    """Returns whether differences have this sign, and the figures that say so.

    Args:
      values: one difference per seed.
      sign: +1 or -1, as claimed.
    """
    mean, reach = interval(values)
    if np.isnan(reach):
        return "undecided", f"{mean:+.4f} (one seed)"
    verdict = holds(mean * sign > 0) if abs(mean) > reach else "undecided"
    return verdict, f"{mean:+.4f} ± {reach:.4f}"


def interval(values: Sequence[float] | np.ndarray) -> tuple[float, float]:
    """Returns the mean and the half-width of its 95 % interval; NaN for one value."""
    array = np.asarray(values, float)
    if len(array) < 2:
        return float(array.mean()), float("nan")
    error = array.std(ddof=1) / np.sqrt(len(array))
    return float(array.mean()), float(stats.t.ppf(0.975, len(array) - 1) * error)
