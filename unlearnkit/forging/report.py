"""What a verification found."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from unlearnkit.base import Cost
from unlearnkit.forging.norms import Norm


class VerificationReport(NamedTuple):
    """What replaying a log of training gave.

    A segment is the steps between two checkpoints; its error is the distance between the checkpoint
    that ends it and the replay's, so the error of every step where a checkpoint was kept each step.

    Attributes:
      steps: [m] the steps of the checkpoints that end the replayed segments.
      errors: [m] of the weights, in `norm`.
      carried_errors: [m] of what else the next step starts from, optimiser memory and BatchNorm
        statistics, in `norm`.
      distances: [segments] how far each segment moved the weights, ‖θ' - θ‖₂.
      tolerance: the largest error that is accepted.
      norm: the measure.
      n_parameters: dim(θ).
      replayed_steps: how many steps were replayed.
      logged_steps: how many the log holds.
      claimed_steps: how many its run takes.
      head: the last link of the log's chain.
      differences: (name, the log's, ours) of device, versions and flags that differ.
      cost: of the replay.
    """

    steps: np.ndarray
    errors: np.ndarray
    carried_errors: np.ndarray
    distances: np.ndarray
    tolerance: float
    norm: Norm
    n_parameters: int
    replayed_steps: int
    logged_steps: int
    claimed_steps: int
    head: str
    differences: tuple[tuple[str, str, str], ...]
    cost: Cost

    @property
    def accepted(self) -> np.ndarray:
        """Which replayed segments are within the tolerance: [m]; NaN is not."""
        return (self.errors <= self.tolerance) & (self.carried_errors <= self.tolerance)

    @property
    def valid(self) -> bool:
        """Whether every replayed segment is within the tolerance, and there is one."""
        return bool(self.accepted.size > 0 and self.accepted.all())

    @property
    def complete(self) -> bool:
        """Whether the log reaches the end of its run."""
        return self.logged_steps == self.claimed_steps

    def distribution(self) -> dict[str, float]:
        """Returns mean, least, median, 95th percentile and largest error of the weights."""
        quantiles = dict(zip(("least", "median", "p95", "largest"), (0, 50, 95, 100), strict=True))
        with np.errstate(invalid="ignore"):  # NaN stays NaN
            values = {name: float(np.percentile(self.errors, q)) for name, q in quantiles.items()}
            return {"mean": float(np.mean(self.errors)), **values}

    def as_json(self) -> dict[str, Any]:
        """Returns the report as JSON values; an error that is not finite is written as text."""
        return {
            "valid": self.valid,
            "complete": self.complete,
            "distribution": {name: _json(v) for name, v in self.distribution().items()},
            **{name: [_json(v) for v in getattr(self, name).tolist()] for name in _ARRAYS},
            **{name: value for name, value in self._asdict().items() if name not in _ARRAYS},
            "differences": [list(row) for row in self.differences],
            "cost": self.cost._asdict(),
        }

    def summary(self) -> str:
        """Returns the verdict in a few lines."""
        spread = self.distribution()
        carried = float(np.max(self.carried_errors))
        rejected = self.steps[~self.accepted]
        lines = [
            f"{'VALID' if self.valid else 'INVALID'}: {self.replayed_steps} of "
            f"{self.logged_steps} logged steps replayed in {len(self.steps)} segments",
            f"error ({self.norm}): median {spread['median']:.3g}, 95 % {spread['p95']:.3g}, "
            f"largest {spread['largest']:.3g}; optimiser memory and statistics: largest "
            f"{carried:.3g}; tolerance {self.tolerance:.3g}",
        ]
        if len(rejected):
            lines.append(f"{len(rejected)} segments rejected, the first ends at step {rejected[0]}")
        if not self.complete:
            lines.append(
                f"INCOMPLETE: the log ends at step {self.logged_steps} of {self.claimed_steps}"
            )
        lines += [
            f"{name} differs: log {log!r}, here {here!r}" for name, log, here in self.differences
        ]
        return "\n".join([*lines, f"head {self.head}"])


_ARRAYS = ("steps", "errors", "carried_errors", "distances")


def _json(value: float) -> float | str:
    return value if np.isfinite(value) else str(value)
