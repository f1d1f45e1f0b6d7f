"""Records of one question by method and seed, to compare methods seed by seed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from unlearnkit.records import Record


class Runs:
    """Records by method and seed; those without a result are left out, with their pairs.

    Example:
      runs = studies.Runs(records)
      gaps = runs.gaps("accuracy_test", "fine_tune", studies.RETRAIN)  # paired by seed
    """

    def __init__(self, records: Sequence[Record]) -> None:
        self._records = {(r.method, r.seed): r for r in records if r.finished}

    def methods(self) -> list[str]:
        """Returns the names of the methods, in order."""
        return list(dict.fromkeys(method for method, _ in self._records))

    def by_seed(self, method: str, metric: str) -> dict[int, float]:
        """Returns a metric of a method by seed, where it was measured."""
        own = {seed: r.metrics for (name, seed), r in self._records.items() if name == method}
        return {seed: metrics[metric] for seed, metrics in own.items() if metric in metrics}

    def values(self, method: str, metric: str) -> list[float]:
        """Returns a metric of a method, one per seed."""
        return list(self.by_seed(method, metric).values())

    def mean(self, method: str, metric: str) -> float:
        """Returns the mean of a metric over the seeds."""
        return float(np.mean(self.values(method, metric)))

    def paired(self, value: Callable[[Mapping[str, Record]], float], *methods: str) -> list[float]:
        """Returns `value` of the methods' records, seed by seed.

        Args:
          value: takes the records of one seed by the names of their methods.
          *methods: that must all have a result of a seed for it to count.
        """
        seeds = sorted({seed for _, seed in self._records})
        groups = [{m: self._records.get((m, seed)) for m in methods} for seed in seeds]
        complete = ({m: r for m, r in group.items() if r is not None} for group in groups)
        return [value(group) for group in complete if len(group) == len(methods)]

    def gaps(self, metric: str, one: str, other: str) -> list[float]:
        """Returns a metric of one method less that of another, seed by seed.

        Args:
          metric: of both.
          one: method.
          other: method, whose values are subtracted.
        """
        return self.paired(lambda r: r[one].metrics[metric] - r[other].metrics[metric], one, other)

    def outside(self, metric: str, one: str, other: str) -> list[float]:
        """Returns how far a metric of one method lies outside the band of another, seed by seed.

        |value - mean| - deviation, with the other method's mean and standard deviation over the
        seeds; below 0 is inside.

        Args:
          metric: of both.
          one: method.
          other: method of the band, on two seeds or more.
        """
        ours = self.paired(lambda r: r[one].metrics[metric], one, other)
        band = np.array(self.paired(lambda r: r[other].metrics[metric], one, other))
        return list(np.abs(np.array(ours) - band.mean()) - band.std(ddof=1)) if ours else []
