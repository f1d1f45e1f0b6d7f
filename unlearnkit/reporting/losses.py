"""Methods that lose what they were to retain."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence

from unlearnkit.records import Record
from unlearnkit.studies import ORIGINAL

_METRIC = "accuracy_retain"


def retain_losses(records: Sequence[Record], tolerance: float) -> list[tuple[Record, float]]:
    """Returns a record of each method that loses more retain accuracy than is tolerated.

    Beside it stands its loss: Acc(original) - Acc(method) on the retain set, means over the seeds
    of the same question; a network that diverged retains nothing.

    Args:
      records: of one dataset, network and recipe; those without a result are left out.
      tolerance: the largest loss that is not told.

    Example:
      for record, loss in reporting.retain_losses(records, tolerance=0.05):
          print(record.method, loss)
    """
    named: dict[tuple[str, str, float | None, float], list[Record]] = {}
    for record in records:
        ruined = record.diverged and record.method != ORIGINAL
        if _METRIC in record.metrics or ruined:
            place = (record.question, record.method, record.budget, record.identified)
            named.setdefault(place, []).append(record)
    means = {
        place: statistics.fmean(record.metrics.get(_METRIC, 0.0) for record in mine)
        for place, mine in named.items()
    }
    lost = {
        place: means[place[0], ORIGINAL, None, 1.0] - mean
        for place, mean in means.items()
        if (place[0], ORIGINAL, None, 1.0) in means
    }
    return [(named[place][0], loss) for place, loss in lost.items() if loss > tolerance]


def rates_told(
    factors: Mapping[str, float],
    losses: Mapping[str, Mapping[float, float] | Mapping[str, float]],
    *,
    tolerance: float,
    seeds: int,
) -> str:
    """Returns how `studies.search_rates` chose, in words: the factor of each method and its loss.

    Args:
      factors: by method, the one that was chosen; `RateSearch.factors`.
      losses: by method, of each factor the largest loss; `RateSearch.losses`, whose factors JSON
        makes words.
      tolerance: the largest loss that was allowed.
      seeds: networks of each attack.

    Example:
      print(reporting.rates_told(found.factors, found.losses, tolerance=0.03, seeds=3))
    """
    taken = []
    for name, by_factor in losses.items():
        lost = {float(factor): loss for factor, loss in by_factor.items()}
        best = factors.get(name)
        taken.append(
            f"{name} none" if best is None else f"{name} {best:g} (loses {100 * lost[best]:.1f})"
        )
    return (
        f"Rates are the best of some factors on {seeds} networks of their own for each share of "
        f"poisons, of those where this factor and the next larger one lose at most "
        f"{100 * tolerance:g} points of retain accuracy on every one of them: {', '.join(taken)}."
    )
