"""Claims of one result, judged by intervals that are corrected for their number."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import stats

from experiments.claims import Claim, Statement, Verdict, holds, interval, statements


class Family:
    """The claims of one result whose 95 % intervals hold together, by Bonferroni's correction.

    Args:
      paper: the folder of its results.
      figures: that are judged by an interval; each claim of theirs counts once.
    """

    def __init__(self, paper: str, *figures: str):
        said = statements(paper).values()
        self._size = sum(claim.figure in figures for claim in said)

    def interval(self, values: Sequence[float] | np.ndarray) -> tuple[float, float]:
        """Returns the mean and the half-width of its corrected interval; NaN for one value."""
        (mean, reach), free = interval(values), len(values) - 1
        return mean, reach * float(
            stats.t.ppf(1 - 0.025 / self._size, free) / stats.t.ppf(0.975, free)
        )

    def words(self, values: Sequence[float] | np.ndarray, verdict: Verdict) -> str:
        """Returns the mean with its interval, and what keeps it from being decided."""
        mean, reach = self.interval(values)
        limit = f", limited by the spread over {len(values)} seeds"
        return f"{mean:+.4f} ± {reach:.4f}" + (limit if verdict == "undecided" else "")

    def judge(
        self, claim: Statement, values: Sequence[float] | np.ndarray, *, paper: str | None = None,
        ours: str | None = None, **names: Any,
    ) -> Claim:  # fmt: skip
        """Returns the claim that values, less the threshold, have its sign; see `Statement`."""
        less = np.asarray(values, float) - claim.threshold
        mean, reach = self.interval(less)
        verdict: Verdict = holds(mean * claim.sign > 0) if abs(mean) > reach else "undecided"
        said = (claim.ours if ours is None else ours).format(self.words(less, verdict), **names)
        return claim.decide(verdict, said, paper=paper, **names)
