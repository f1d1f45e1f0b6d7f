"""Claims of papers, judged from our figures with their standard errors, never typed.

A difference counts where its 95 % interval over the seeds (Student's t, paired by seed) leaves out
zero: the claim then "holds" or "does not hold". Else it is "undecided" at this scale.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Literal

import numpy as np
from scipy import stats

from unlearnkit.reporting import html_table, markdown_cell

Verdict = Literal["holds", "does not hold", "undecided"]


@dataclasses.dataclass(frozen=True)
class Claim:
    """A claim and its fate.

    Attributes:
      text: what is claimed.
      where: in the paper.
      ours: our figures.
      paper: the paper's figures.
      verdict: judged from ours.
    """

    text: str
    where: str
    ours: str
    paper: str
    verdict: Verdict


def judge_difference(values: Sequence[float] | np.ndarray, *, sign: int) -> tuple[Verdict, str]:
    """Returns whether differences have this sign, and the figures that say so.

    Args:
      values: one difference per seed.
      sign: +1 or -1, as claimed.
    """
    mean, reach = interval(values)
    if np.isnan(reach):
        return "undecided", f"{mean:+.4f} (one seed)"
    verdict: Verdict = "undecided"
    if abs(mean) > reach:
        verdict = "holds" if mean * sign > 0 else "does not hold"
    return verdict, f"{mean:+.4f} ± {reach:.4f}"


def interval(values: Sequence[float] | np.ndarray) -> tuple[float, float]:
    """Returns the mean and the half-width of its 95 % interval; NaN for one value."""
    array = np.asarray(values, float)
    if len(array) < 2:
        return float(array.mean()), float("nan")
    error = array.std(ddof=1) / np.sqrt(len(array))
    return float(array.mean()), float(stats.t.ppf(0.975, len(array) - 1) * error)


def claims_markdown(claims: Sequence[Claim]) -> str:
    """Returns the claims with their verdicts as a Markdown table."""
    lines = ["| Claim | Where | Ours | Paper | Verdict |", "| --- | --- | --- | --- | --- |"]
    for claim in claims:
        cells = (claim.text, claim.where, claim.ours, claim.paper, f"**{claim.verdict}**")
        lines.append(f"| {' | '.join(map(markdown_cell, cells))} |")
    return "\n".join(lines) + "\n"


def claims_table(claims: Sequence[Claim]) -> str:
    """Returns the claims with their verdicts as an HTML table."""
    head = ["Claim of the paper", "Verdict", "Ours", "The paper's", "Where"]
    body = [[c.text, c.verdict, c.ours, c.paper, c.where] for c in claims]
    return html_table(head, body, prose=True)
