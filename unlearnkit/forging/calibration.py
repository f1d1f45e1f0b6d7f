"""What the reproduction of a log's steps varies by."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from unlearnkit.forging.limits import LARGEST_RATIO, Tolerance
from unlearnkit.forging.norms import Norm, check_norm

JUMP = 100
_ARRAYS = ("errors", "memory_errors", "statistics_errors", "ratios", "shares")


class Band(NamedTuple):
    """The errors of one benign or deliberate change of the computation.

    Attributes:
      name: what was changed.
      errors: [m] of the weights at the end of a segment, against the unchanged replay.
      memory_errors: [m] of the optimiser's memory.
      statistics_errors: [m] of BatchNorm's and other state.
      benign: whether an honest owner's computation may differ so.
      ratio: what share of a segment's move a limit may be.
      ratios: [m] the errors of the weights as a share of how far their segment moves.
      shares: [m, 3] the errors of all parts as a share of the largest limits that `verify` grants.
    """

    name: str
    errors: np.ndarray
    memory_errors: np.ndarray
    statistics_errors: np.ndarray
    benign: bool
    ratio: float
    ratios: np.ndarray
    shares: np.ndarray

    @property
    def jumped(self) -> np.ndarray:
        """Which replays err by more than `JUMP` times the median replay: [m]."""
        median = np.median(self.errors)
        found: np.ndarray = (median > 0) & (self.errors > JUMP * median)
        return found

    @property
    def carried_errors(self) -> np.ndarray:
        """The larger error of memory and statistics: [m]."""
        found: np.ndarray = np.maximum(self.memory_errors, self.statistics_errors)
        return found

    @property
    def largest(self) -> Tolerance:
        """The largest errors of the replays that did not jump."""
        kept = ~self.jumped
        parts = (self.errors, self.memory_errors, self.statistics_errors)
        return Tolerance(*(float(np.max(part[kept])) for part in parts))

    @property
    def largest_ratio(self) -> float:
        """The largest of `ratios`, of the replays that did not jump."""
        return float(np.max(self.ratios[~self.jumped]))

    @property
    def largest_share(self) -> Tolerance:
        """The largest of `shares`, of the replays that did not jump."""
        return Tolerance(*np.max(self.shares[~self.jumped], axis=0).tolist())

    def summary(self) -> str:
        """Returns a line, and one more where replays jumped."""
        counted = "" if self.benign else " (not counted: another precision than the log claims)"
        line = (
            f"{self.name}: weights median {np.median(self.errors):.3g}, largest "
            f"{np.max(self.errors):.3g}; memory largest {np.max(self.memory_errors):.3g}; "
            f"statistics largest {np.max(self.statistics_errors):.3g}{counted}"
        )
        jumps = int(np.sum(self.jumped))
        if not self.benign or jumps == 0:
            return line
        return (
            f"{line}\n  {jumps} of {len(self.errors)} replays jumped to over {JUMP} times the "
            "median, where a ReLU or a maximum fell otherwise and the difference grew with each "
            "step: not counted, an honest segment may be rejected so; fewer steps between "
            "checkpoints make it rare"
        )


class Calibration(NamedTuple):
    """What the reproduction of a log's steps varies by.

    Attributes:
      bands: one per change that could be made here.
      left_out: why others could not, by name.
      norm: the measure of all errors.
      margin: what the largest benign errors, jumps apart, are multiplied by.
      limits: the products, proposed for `verify`.
      ratio: the limit of the weights as a share of how far a segment moves, at most.
      head: of the log that was measured, the only one that this is for.
    """

    bands: tuple[Band, ...]
    left_out: Mapping[str, str]
    norm: Norm
    margin: float
    limits: Tolerance
    ratio: float
    head: str

    @property
    def tolerance(self) -> float:
        """The limit of the weights."""
        return self.limits.weights

    @property
    def band(self) -> tuple[float, float]:
        """The least and the largest error of the weights in benign replays that err at all."""
        benign = np.concatenate([band.errors[~band.jumped] for band in self.bands if band.benign])
        return float(np.min(benign[benign > 0], initial=np.max(benign))), float(np.max(benign))

    def as_json(self) -> dict[str, Any]:
        """Returns the calibration as JSON values."""
        return {
            "norm": self.norm,
            "margin": self.margin,
            "limits": self.limits._asdict(),
            "tolerance": self.tolerance,
            "ratio": self.ratio,
            "head": self.head,
            "band": list(self.band),
            "bands": [
                {
                    **{name: getattr(band, name).tolist() for name in _ARRAYS},
                    "name": band.name,
                    "benign": band.benign,
                    "ratio": band.ratio,
                    "carried_errors": band.carried_errors.tolist(),
                }
                for band in self.bands
            ],
            "left_out": dict(self.left_out),
        }

    @classmethod
    def from_json(cls, value: Any) -> Calibration:
        """Returns the calibration of which `as_json` made these values.

        Raises:
          ValueError: other values.
        """
        try:
            bands = tuple(
                Band(
                    name=str(band["name"]),
                    benign=bool(band["benign"]),
                    ratio=float(band["ratio"]),
                    **{name: np.array(band[name], float) for name in _ARRAYS},
                )
                for band in value["bands"]
            )
            limits = Tolerance(*(float(value["limits"][name]) for name in Tolerance._fields))
            margin, ratio, head = value["margin"], value["ratio"], value["head"]
            check_norm(value["norm"])
            return cls(
                bands, dict(value["left_out"]), value["norm"], margin, limits, ratio, str(head)
            )
        except (KeyError, TypeError, ValueError, AttributeError):
            raise ValueError("these values are no calibration that as_json wrote") from None

    def summary(self) -> str:
        """Returns one line per band, and the proposal."""
        lines = [band.summary() for band in self.bands]
        lines += [f"{name}: left out, {reason}" for name, reason in self.left_out.items()]
        reduced = ", of reduced precision or another device" if self.ratio > LARGEST_RATIO else ""
        return "\n".join(
            [
                *lines,
                f"tolerance ({self.norm}): {self.tolerance:.3g}, {self.margin:g} x the largest; "
                f"memory {self.limits.memory:.3g}, statistics {self.limits.statistics:.3g}",
                f"at most {self.ratio:.2g} of how far a segment moves{reduced}",
                f"for the log of head {self.head} alone",
            ]
        )
