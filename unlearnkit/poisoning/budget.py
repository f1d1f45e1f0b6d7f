"""How many examples an attacker may poison."""

from __future__ import annotations

import dataclasses
import math


@dataclasses.dataclass(frozen=True)
class Budget:
    """The number of poisons, as a fraction of the clean training set or as a count.

    m = ⌊ε n⌋, n the size of the clean training set `task.train`.

    Attributes:
      epsilon: ε in (0, 1]; with ε = 1 as many poisons as clean examples.
      count: the number itself, in place of ε; at most n.

    Source: Lu et al. 2022, §3.2; its default is ε = 3 %.
    """

    epsilon: float = 0.03
    count: int | None = None

    def __post_init__(self) -> None:
        if not 0 < self.epsilon <= 1:
            raise ValueError(
                f"epsilon must be in (0, 1], a fraction of the training set, got {self.epsilon}; "
                "for a number of poisons use count"
            )
        if self.count is not None and self.count < 1:
            raise ValueError(f"count must be >= 1, got {self.count}")

    def of(self, n: int) -> int:
        """Returns the number of poisons for a clean training set of n examples.

        Raises:
          ValueError: ε n is less than one poison, or the count is greater than n.
        """
        if self.count is not None:
            if self.count > n:
                raise ValueError(
                    f"count must be <= {n}, the size of the training set, got {self.count}"
                )
            return self.count
        m = math.floor(self.epsilon * n * (1 + 1e-12))  # .29 * 100 is 28.999…
        if m < 1:
            raise ValueError(
                f"epsilon={self.epsilon:g} of {n} examples is less than one poison; "
                f"choose epsilon >= {1 / n:g}, or count=1"
            )
        return m
