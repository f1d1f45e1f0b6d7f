"""Whether forgetting can be claimed by a forged log: each step's error, and who accepts it."""

from __future__ import annotations

import dataclasses
import shutil
import tempfile
import weakref
from pathlib import Path
from typing import ClassVar, NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Key

from unlearnkit.auditing.case import Case, NotApplicable, Subject
from unlearnkit.base import Audited, Dataset, Forger
from unlearnkit.forging import (
    Calibration,
    GreedyForger,
    SubstitutionForger,
    VerificationReport,
    calibrate,
    check_forgeable_recipe,
    check_stateless,
    forge_steps,
    forge_trajectory,
    touched_steps,
    verify,
    verify_exchanged,
)
from unlearnkit.forging.limits import as_tolerance
from unlearnkit.host.random import AnyKey, host_key
from unlearnkit.training import Recipe, Trajectory, TrajectoryError, fit, read_trajectory
from unlearnkit.trials import AuditTrial
from unlearnkit.validation import check_at_least

_KEYS = 0x666F7267
"""What the audit's key is folded with, so that no other audit draws from it."""


_SUBSTITUTION = SubstitutionForger()


@dataclasses.dataclass(frozen=True)
class ForgedForgetting:
    """Asks whether the owner of a network could show a log that claims it never saw the forget set.

    A network like the original is trained on the whole training set, with a log of each step. A
    forger exchanges the batches that hold a forgotten example, and each forged step is replayed by
    the verifier, whose tolerance was calibrated on the true log. A step is accepted where

      ‖θ' - θ̂'‖₂ <= min(tolerance, 1e-4 ‖θ' - θ‖₂).

    Without `epochs` every such step is forged: then the whole log is written and verified, and its
    verdict told, which is INVALID even where each step is accepted, for the log's key draws other
    batches. The reference's row is of an honest log: a network is trained on the retain set, and
    its log verified. Networks that a method made have no log of training, and are left out.

    The logs are kept in the folder for temporary files while a question is answered: a copy of the
    weights, and of the optimiser's memory, for each step.

    Attributes:
      forger: makes the batches; one that chooses among examples.
      epochs: of the run, from 1, whose steps are forged; none forges all.
      most_steps: of each of `epochs` at most so many, drawn at random.
      recipe: how the logged network is trained; None takes that of the question.
      segments: steps that the calibration replays.
      shuffles: orders of these steps' batches that it tries.
      tolerance: in the place of the calibrated one, of the weights alone.

    Example:
      study = studies.Study(
          data=studies.Pair(train, test),
          networks=model,
          recipes=training.Recipe(epochs=11, learning_rate=0.01, momentum=0.0),
          forget={"one": data.RandomForget(count=1), "ten": data.RandomForget(count=10)},
          audits={"forged": auditing.ForgedForgetting(epochs=(1, 4, 11))},
          seeds=10,
      )

    Source: Suliman et al. 2024, definitions 1 and 2; the substitution of single examples is ours.
    """

    forger: Forger = _SUBSTITUTION
    epochs: tuple[int, ...] = ()
    most_steps: int = 20
    recipe: Recipe | None = None
    segments: int = 5
    shuffles: int = 20
    tolerance: float | None = None

    trial: ClassVar[AuditTrial] = AuditTrial(
        small={
            "recipe": Recipe(epochs=1, batch_size=50, learning_rate=0.05, momentum=0.0),
            "forger": GreedyForger(60, 20),
            "tolerance": 1e-6,
        },
        tells=("accepted", -1),
    )

    def __post_init__(self) -> None:
        check_at_least(self, 1, "most_steps", "segments", "shuffles")
        if not isinstance(self.forger, Forger):
            raise TypeError(f"forger must be a forger, as SubstitutionForger(), got {self.forger}")
        if any(epoch < 1 for epoch in self.epochs) or len(set(self.epochs)) < len(self.epochs):
            raise ValueError(f"epochs must be different and >= 1, got {self.epochs}")
        if self.tolerance is not None and not self.tolerance >= 0:
            raise ValueError(f"tolerance must be >= 0, got {self.tolerance}")

    def judge(self, key: Key[Array, ""], case: Case, subject: Subject) -> Audited:
        """Returns how the forged steps, or those of the reference's honest log, fare.

        Metrics: `accepted`, the share of the steps; `error`, their median ‖θ' - θ̂'‖₂, and
        `error_largest`; `tolerance`; `accepted_epoch_<e>` and `error_epoch_<e>` of each epoch with
        a forged step; of a whole log `valid`, whether the verdict is VALID, and `replays_pass`,
        whether every segment is accepted.

        Curves: `step`, `errors`, `limits` and `step_accepted`, [k] each.

        Raises:
          NotApplicable: a network that a method made; a network or recipe whose batch gradient is
            no mean over examples; no step of the epochs holds a forgotten example; honest replays
            differ too much to tell a forgery, as where the run stands still.
          ValueError: an epoch beyond the run's, or see the forger.
        """
        if subject.unlearner is not None:
            raise NotApplicable(
                "a network that a method made has no log of training: only the original's could "
                "be forged"
            )
        recipe = self.recipe or case.recipe
        if beyond := [epoch for epoch in self.epochs if epoch > recipe.epochs]:
            raise ValueError(f"epochs must be in 1 … {recipe.epochs}, got {beyond[0]}")
        try:
            check_forgeable_recipe(recipe)
            check_stateless(case.original)
        except ValueError as error:
            raise NotApplicable(str(error)) from error
        own = host_key(key).fold_in(_KEYS)
        if subject.is_reference:
            return self._honest(own.fold_in(1), case, recipe)
        found = case.share(
            "forged_forgetting",
            {"audit": self, "recipe": recipe},
            lambda: self._forge(own, case, recipe),
        )
        return _summary(found, recipe.steps_per_epoch(case.task.train.size))

    def _forge(self, key: AnyKey, case: Case, recipe: Recipe) -> Replayed:
        """Returns how the forged steps fare, and of a whole log its verdict."""
        train_key, calibrate_key, choose_key, forge_key = key.split(4)
        data = case.task.train
        forget = np.arange(case.task.retain.size, data.size)
        log = _trained(case, recipe, train_key)
        limits = as_tolerance(self.tolerance or 0.0)
        if self.tolerance is None:
            try:
                limits = self._calibrated(case, log, calibrate_key).limits
            except TrajectoryError as error:
                raise NotApplicable(f"no tolerance tells a forgery here: {error}") from error
        steps = self._choose(choose_key, log.trajectory, forget)
        if not self.epochs:
            with tempfile.TemporaryDirectory() as folder:
                made = forge_trajectory(
                    forge_key.typed(),
                    log.folder,
                    data,
                    forget=forget,
                    forger=self.forger,
                    folder=Path(folder) / "forged",
                    model=case.model,
                )
                left = data.take(made.kept)
                report = verify(made.folder, left, tolerance=limits, model=case.model)
            return _whole(report, made.steps, limits.weights)
        with jax.default_matmul_precision("highest"):
            forged = forge_steps(
                forge_key.typed(),
                log.trajectory,
                case.model,
                data,
                forget=forget,
                forger=self.forger,
                steps=steps,
            )
            batches = np.stack([one.rows for one in forged])
        found = verify_exchanged(
            log.trajectory, case.model, data, steps=steps, batches=batches, tolerance=limits
        )
        return Replayed(steps, *found, limits.weights)

    def _calibrated(self, case: Case, log: _Log, key: AnyKey) -> Calibration:
        return case.scratch(
            "calibration",
            {"log": log.trajectory.head, "segments": self.segments, "shuffles": self.shuffles},
            lambda: calibrate(
                key.typed(),
                log.folder,
                case.task.train,
                model=case.model,
                segments=min(self.segments, log.trajectory.segments),
                shuffles=self.shuffles,
            ),
        )

    def _choose(self, key: AnyKey, log: Trajectory, forget: np.ndarray) -> np.ndarray:
        """Returns the steps to forge: all with a forgotten example, or some of each epoch."""
        touched = touched_steps(log, forget)
        if self.epochs:
            at = touched // log.claim.steps_per_epoch
            chosen = []
            for epoch in self.epochs:
                own = touched[at == epoch - 1]
                order = key.fold_in(epoch).permutation(len(own))
                chosen.append(own[order[: self.most_steps]])
            touched = np.sort(np.concatenate(chosen))
        if len(touched) == 0:
            raise NotApplicable("no step of these epochs holds a forgotten example")
        return touched

    def _honest(self, key: AnyKey, case: Case, recipe: Recipe) -> Audited:
        data = case.task.retain
        per_epoch = recipe.steps_per_epoch(data.size)

        def verified() -> Replayed:
            with tempfile.TemporaryDirectory() as folder:
                _fit_logged(case, recipe, key, data, Path(folder), every=per_epoch)
                report = verify(folder, data, model=case.model)
            return _whole(report, report.steps - 1, 0.0)

        found = case.share("honest_log", {"recipe": recipe}, verified)
        return _summary(found, per_epoch)


class Replayed(NamedTuple):
    """How the steps of a log fare.

    Attributes:
      steps: [k] which, from 0.
      errors: [k] ‖θ' - θ̂'‖₂ of each.
      limits: [k] the largest that are accepted.
      accepted: [k] whether each is.
      tolerance: of the weights.
      valid: whether the verdict on the log is VALID; None of steps alone.
      replays_pass: whether every segment of the log is accepted; None of steps alone.
    """

    steps: np.ndarray
    errors: np.ndarray
    limits: np.ndarray
    accepted: np.ndarray
    tolerance: float
    valid: bool | None = None
    replays_pass: bool | None = None


class _Log(NamedTuple):
    """A log on the disk, which is removed when nobody holds it any more."""

    folder: Path
    trajectory: Trajectory


def _trained(case: Case, recipe: Recipe, key: AnyKey) -> _Log:
    """Returns the log of a network that was trained on everything, made once for all forgers."""

    def make() -> _Log:
        folder = Path(tempfile.mkdtemp(prefix="unlearnkit-log-"))
        try:
            _fit_logged(case, recipe, key, case.task.train, folder, every=1)
            log = _Log(folder, read_trajectory(folder))
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        weakref.finalize(log.trajectory, shutil.rmtree, folder, ignore_errors=True)
        return log

    words = tuple(np.asarray(jax.random.key_data(key.typed())).tolist())
    return case.scratch("log", {"key": words, "recipe": recipe}, make)


def _fit_logged(
    case: Case, recipe: Recipe, key: AnyKey, data: Dataset, folder: Path, *, every: int
) -> None:
    with jax.default_matmul_precision("highest"):
        fit(key.typed(), case.model, data, recipe, trajectory=folder, every=every)


def _whole(report: VerificationReport, steps: np.ndarray, tolerance: float) -> Replayed:
    """Returns how steps fare by the verification of a whole log."""
    at = np.searchsorted(report.steps, steps + 1)
    return Replayed(
        steps,
        report.errors[at],
        report.limits[at, 0],
        report.accepted[at],
        tolerance,
        report.valid,
        bool(report.accepted.all()),
    )


def _summary(found: Replayed, per_epoch: int) -> Audited:
    metrics = {
        "accepted": float(np.mean(found.accepted)),
        "error": float(np.median(found.errors)),
        "error_largest": float(np.max(found.errors)),
        "tolerance": found.tolerance,
    }
    if found.valid is not None and found.replays_pass is not None:
        metrics |= {"valid": float(found.valid), "replays_pass": float(found.replays_pass)}
    epochs = found.steps // per_epoch + 1
    for epoch in np.unique(epochs).tolist():
        there = epochs == epoch
        metrics[f"accepted_epoch_{epoch}"] = float(np.mean(found.accepted[there]))
        metrics[f"error_epoch_{epoch}"] = float(np.median(found.errors[there]))
    curves = {
        "step": found.steps.astype(float),
        "errors": found.errors,
        "limits": found.limits,
        "step_accepted": found.accepted.astype(float),
    }
    return Audited(metrics, curves)
