"""Methods that lose what they were to retain."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from unlearnkit.records import Record
from unlearnkit.studies import ORIGINAL

_METRIC = "accuracy_retain"


def retain_losses(records: Sequence[Record], tolerance: float) -> list[tuple[Record, float]]:
    """Returns a record of each method that loses more retain accuracy than is tolerated.

    Beside it stands its loss: Acc(original) - Acc(method) on the retain set, means over the seeds
    of the same question.

    Args:
      records: of one dataset, network and recipe; those without a result are left out.
      tolerance: the largest loss that is not told.

    Example:
      for record, loss in reporting.retain_losses(records, tolerance=0.05):
          print(record.method, loss)
    """
    named: dict[tuple[str, str, float | None, float], list[Record]] = {}
    for record in records:
        if _METRIC in record.metrics:
            place = (record.question, record.method, record.budget, record.identified)
            named.setdefault(place, []).append(record)
    means = {
        place: statistics.fmean(record.metrics[_METRIC] for record in mine)
        for place, mine in named.items()
    }
    lost = {
        place: means[place[0], ORIGINAL, None, 1.0] - mean
        for place, mean in means.items()
        if (place[0], ORIGINAL, None, 1.0) in means
    }
    return [(named[place][0], loss) for place, loss in lost.items() if loss > tolerance]
