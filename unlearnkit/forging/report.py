"""What a verification found."""

from __future__ import annotations

import enum
import math
from typing import Any, NamedTuple

import numpy as np

from unlearnkit.base import Cost
from unlearnkit.forging.findings import BatchFinding, MoveFinding, StartFinding
from unlearnkit.forging.limits import LARGEST_RATIO
from unlearnkit.forging.norms import Norm
from unlearnkit.io.text import escaped

_FULL_PRECISION = LARGEST_RATIO * (1 + 1e-6)
"""A ratio of a limit to a distance, both rounded, may be a little above its bound."""


class Verdict(enum.StrEnum):
    """What a verification says of a log; the command line has an exit code for each.

    Attributes:
      VALID: the log reaches the end of its run; every replayed segment, the start and the batches
        are what its key, recipe and data make of them.
      INVALID: one of these is not.
      INCOMPLETE: nothing is wrong as far as the log goes, but it ends before its run does.
      UNPROVEN: nothing is wrong, but what was checked does not prove that the run trained these
        weights from a fresh initialisation; the gaps say why.
      UNREADABLE: the log cannot be verified; `verify` raises then.
    """

    VALID = "VALID"
    INVALID = "INVALID"
    UNREADABLE = "UNREADABLE"
    INCOMPLETE = "INCOMPLETE"
    UNPROVEN = "UNPROVEN"


class VerificationReport(NamedTuple):
    """What replaying a log of training gave.

    A segment is the steps between two checkpoints; its error is the distance between the checkpoint
    that ends it and the replay's, so the error of every step where a checkpoint was kept each step.

    Attributes:
      steps: [m] the steps of the checkpoints that end the replayed segments.
      errors: [m] of the weights, in `norm`.
      memory_errors: [m] of the optimiser's memory.
      statistics_errors: [m] of BatchNorm's and other state.
      limits: [m, 3] the largest errors of weights, memory and statistics that are accepted.
      ratios: [segments] the limit of the weights as a share of how far each segment moves them.
      distances: [segments] how far each segment moved the weights, ‖θ' - θ‖₂.
      tolerance: of the weights, as asked for; a limit is less where a segment moves too little
        for it.
      norm: the measure.
      chosen: which segments were to be replayed: all, random:n or top:q.
      drawn: how many of them were drawn at random.
      n_parameters: dim(θ).
      replayed_steps: how many steps were replayed.
      logged_steps: how many the log holds.
      claimed_steps: how many its run takes.
      start: where the run began.
      batches: how it used the data.
      moves: whether its steps train.
      about: network, data and recipe, in a line.
      head: the last link of the log's chain.
      differences: (name, the log's, ours) of device, versions and flags that differ.
      cost: of the replay.
    """

    steps: np.ndarray
    errors: np.ndarray
    memory_errors: np.ndarray
    statistics_errors: np.ndarray
    limits: np.ndarray
    ratios: np.ndarray
    distances: np.ndarray
    tolerance: float
    norm: Norm
    chosen: str
    drawn: int
    n_parameters: int
    replayed_steps: int
    logged_steps: int
    claimed_steps: int
    start: StartFinding
    batches: BatchFinding
    moves: MoveFinding
    about: str
    head: str
    differences: tuple[tuple[str, str, str], ...]
    cost: Cost

    @property
    def accepted(self) -> np.ndarray:
        """Which replayed segments are within their limits: [m]; NaN is not."""
        errors = np.stack([self.errors, self.memory_errors, self.statistics_errors], axis=1)
        within: np.ndarray = np.all(errors <= self.limits, axis=1)
        return within

    @property
    def carried_errors(self) -> np.ndarray:
        """The larger error of memory and statistics: [m]."""
        found: np.ndarray = np.maximum(self.memory_errors, self.statistics_errors)
        return found

    @property
    def complete(self) -> bool:
        """Whether the log reaches the end of its run."""
        return self.logged_steps == self.claimed_steps

    @property
    def slack(self) -> float:
        """How far all limits together could bend the way of the weights, as a share of it.

        Σ_i ratio_i ‖θ_{i+1} - θ_i‖₂ / ‖θ_T - θ_0‖₂
        """
        bent = float(np.sum(self.ratios * self.distances))
        return bent / self.moves.covered if self.moves.covered > 0 else math.inf * bent or 0.0

    @property
    def verdict(self) -> Verdict:
        """The verdict; the first of INVALID, INCOMPLETE and UNPROVEN that there is reason for."""
        if self.contradictions:
            return Verdict.INVALID
        if not self.complete:
            return Verdict.INCOMPLETE
        return Verdict.UNPROVEN if self.gaps else Verdict.VALID

    @property
    def valid(self) -> bool:
        """Whether the verdict is VALID."""
        return self.verdict is Verdict.VALID

    @property
    def contradictions(self) -> tuple[str, ...]:
        """Why the log is not what it says."""
        found = []
        rejected = self.steps[~self.accepted]
        if len(rejected) or self.steps.size == 0:
            first = f", the first ends at step {rejected[0]}" if len(rejected) else ""
            found.append(f"{len(rejected)} segments rejected{first}")
        if not self.start.right:
            source = "its key initialises" if self.start.derived else "was given as start"
            found.append(f"the start differs by {self.start.error:.3g} from what {source}")
        redrawn = self.batches.redrawn
        if len(redrawn):
            repeats = f", and {self.batches.repeated} examples occur again within an epoch"
            found.append(
                f"the batches of {len(redrawn)} of {self.claimed_steps} steps are not those that "
                f"the log's key draws, the first is step {redrawn[0]}"
                + (repeats if self.batches.repeated else "")
            )
        return tuple(found)

    @property
    def gaps(self) -> tuple[str, ...]:
        """Why what was checked is no proof, even if nothing contradicts the log."""
        found = []
        if not self.start.known:
            odd = self.start.unlikely
            look = f"; not distributed as an initialisation: {_list(odd)}" if odd else ""
            found.append(
                f"the run started from weights that were given (SHA-256 {self.start.sha256}), and "
                f"nothing says how they came about{look}"
            )
        if self.drawn == 0 and len(self.steps) < len(self.distances):
            found.append(
                "the segments that move the weights the furthest were replayed alone: a forger "
                "knows them; add some drawn at random, as top:2+random:5"
            )
        if self.norm == "cosine":
            found.append("the cosine does not see the weights' size; take norm l2 or linf")
        if 2 * self.moves.idle > self.logged_steps:
            found.append("most of the logged steps hardly train")
        if self.batches.missing_classes:
            missing = [str(label) for label in self.batches.missing_classes]
            found.append(f"classes of the data that no step used: {_list(missing)}")
        if self.slack >= 1:
            found.append(
                f"the limits together are {self.slack:.2g} times the way of the weights: the run "
                "could have been bent to end anywhere"
            )
        return tuple(found)

    def passing_probability(self, bad: int) -> float:
        """Returns the probability that a log with `bad` segments passes: C(S-bad, n) / C(S, n).

        Raises:
          ValueError: segments below 0, or more than there are.
        """
        total = len(self.distances)
        if not 0 <= bad <= total:
            raise ValueError(f"bad must be in 0 … {total}, the log's segments, got {bad}")
        drawn = total if len(self.steps) == total else self.drawn
        return math.comb(total - bad, drawn) / math.comb(total, drawn)

    def distribution(self) -> dict[str, float]:
        """Returns mean, least, median, 95th percentile and largest error of the weights."""
        quantiles = dict(zip(("least", "median", "p95", "largest"), (0, 50, 95, 100), strict=True))
        with np.errstate(invalid="ignore"):  # NaN stays NaN
            values = {name: float(np.percentile(self.errors, q)) for name, q in quantiles.items()}
            return {"mean": float(np.mean(self.errors)), **values}

    def as_json(self) -> dict[str, Any]:
        """Returns the report as JSON values; a value that is not finite is written as text."""
        return {
            "verdict": str(self.verdict),
            "valid": self.valid,
            "complete": self.complete,
            "contradictions": list(self.contradictions),
            "gaps": list(self.gaps),
            "slack": _json(self.slack),
            "distribution": _json(self.distribution()),
            **{name: _json(value) for name, value in self._asdict().items()},
        }

    def summary(self) -> str:
        """Returns the verdict in a few lines, escaped for a terminal."""
        spread = self.distribution()
        memory, statistics = np.max(self.memory_errors), np.max(self.statistics_errors)
        lines = [
            f"{self.verdict}: {self.replayed_steps} of {self.logged_steps} logged steps replayed "
            f"in {len(self.steps)} segments",
            *(f"- {reason}" for reason in (*self.contradictions, *self.gaps)),
        ]
        if not self.complete:
            lines.append(
                f"- the log ends at step {self.logged_steps} of the {self.claimed_steps} that its "
                "run takes"
            )
        lines += [
            self.about,
            f"error ({self.norm}): median {spread['median']:.3g}, 95 % {spread['p95']:.3g}, "
            f"largest {spread['largest']:.3g}; optimiser memory: largest {memory:.3g}; statistics: "
            f"largest {statistics:.3g}; tolerance {self.tolerance:.3g}",
            *self._remarks(),
        ]
        shown = self.differences[:20]
        lines += [
            f"{escaped(name)} differs: log {_quoted(log)}, here {_quoted(here)}"
            for name, log, here in shown
        ]
        return "\n".join([*lines, f"head {self.head}"])

    def _remarks(self) -> list[str]:
        lines = []
        largest = float(np.max(self.ratios, initial=0.0))
        if largest > 0:
            beyond = (
                "; less precise computations allow so much" if largest > _FULL_PRECISION else ""
            )
            lines.append(
                f"limits: at most {largest:.2g} of how far a segment moves the weights, together "
                f"{self.slack:.2g} of their whole way{beyond}"
            )
        if len(self.steps) < len(self.distances):
            total = len(self.distances)
            tenth = math.ceil(total / 10)
            one, more = self.passing_probability(1), self.passing_probability(tenth)
            lines.append(
                f"soundness: {self.drawn} of {total} segments were drawn at random; a log with 1 "
                f"bad segment passes with probability {one:.2g}, with {tenth} with {more:.2g}"
            )
        if self.start.derived:
            lines.append("start: what the key initialises")
        elif self.start.known:
            lines.append(f"start: the weights that were given, SHA-256 {self.start.sha256}")
        moves = self.moves
        relative = moves.covered / moves.size if moves.size > 0 else 0.0
        lines.append(f"way of the weights: {moves.covered:.3g}, {relative:.2g} of their norm")
        if len(moves.still):
            lines.append(
                f"{len(moves.still)} segments move the weights by less than rounding a step, the "
                f"first ends at step {moves.still[0]}"
            )
        if len(moves.slow):
            lines.append(
                f"{len(moves.slow)} steps have less than 1e-4 of the recipe's learning rate, the "
                f"first is step {moves.slow[0]}"
            )
        if len(self.batches.never):
            lines.append(f"{len(self.batches.never)} examples of the data were never used")
        return lines


def _list(names: tuple[str, ...] | list[str]) -> str:
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(escaped(name, 60) for name in names[:5]) + more


def _quoted(text: str) -> str:
    return f"'{escaped(text, 120)}'"


def _json(value: Any) -> Any:
    """Returns JSON values; arrays as lists, named tuples as objects, numbers not finite as text."""
    if isinstance(value, np.ndarray):
        return _json(value.tolist())
    if hasattr(value, "_asdict"):
        return {name: _json(one) for name, one in value._asdict().items()}
    if isinstance(value, dict):
        return {name: _json(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_json(one) for one in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value
