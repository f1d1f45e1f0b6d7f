"""What is left of poisons as more of them are identified."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from unlearnkit.records import Record
from unlearnkit.reporting.table import why_lost


def identified_shares(records: Sequence[Record]) -> list[float]:
    """Returns the shares of the poisons that methods were told of, where there are several."""
    shares = sorted({record.identified for record in records})
    return shares if len(shares) > 1 else []


def by_identified(
    records: Sequence[Record], metric: str, *, question: str, budget: float | None = None
) -> dict[str, list[float]]:
    """Returns the mean of a metric by method, one for each of `identified_shares`.

    Over the seeds that have all shares; NaN where none has a result, and the untouched network,
    which no share changes, is left out.

    Args:
      records: of a study with `identified`.
      metric: its name.
      question: the attack.
      budget: of methods that have one.

    Example:
      curves = reporting.by_identified(records, "accuracy_test", question="gaussian", budget=0.1)
    """
    shares = identified_shares(records)
    own = [r for r in records if r.question == question and r.budget in (budget, None)]
    seeds = {r.seed for r in own if r.identified < 1}
    curves: dict[str, list[float]] = {}
    for method in dict.fromkeys(r.method for r in own if r.identified < 1):
        mine = [r for r in own if r.method == method and r.seed in seeds and metric in r.metrics]
        values = [[r.metrics[metric] for r in mine if r.identified == share] for share in shares]
        curves[method] = [float(np.mean(each)) if each else float("nan") for each in values]
    return curves


def identified_rows(
    records: Sequence[Record], metric: str, *, question: str, budget: float | None = None
) -> list[list[str]]:
    """Returns the curves of `by_identified` as cells: a method's name, then a mean for each share.

    In the place of a mean that is missing stands why there is none, as `over budget`.

    Args:
      records: of a study with `identified`.
      metric: its name.
      question: the attack.
      budget: of methods that have one.

    Example:
      rows = reporting.identified_rows(records, "accuracy_test", question="gaussian", budget=0.1)
    """
    shares = identified_shares(records)

    def cell(method: str, share: float, mean: float) -> str:
        if not np.isnan(mean):
            return f"{mean:.3f}"
        where = (question, method, share)
        return why_lost([r for r in records if (r.question, r.method, r.identified) == where])

    curves = by_identified(records, metric, question=question, budget=budget)
    return [
        [name, *(cell(name, *point) for point in zip(shares, means, strict=True))]
        for name, means in curves.items()
    ]
