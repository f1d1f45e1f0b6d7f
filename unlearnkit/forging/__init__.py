"""Proofs of learning: `verify(log, dataset, tolerance=...) -> VerificationReport`.

A log of training (`unlearnkit.training.fit(..., trajectory=folder)`) is verified by replaying it,
and the verdict is one of VALID, INVALID, INCOMPLETE and UNPROVEN (`Verdict`); a forger
(`unlearnkit.base.Forger`) makes one of its steps say something else.
"""

from typing import Any

from unlearnkit.base import Forger
from unlearnkit.forging import detectors
from unlearnkit.forging.calibrate import calibrate
from unlearnkit.forging.calibration import Band, Calibration
from unlearnkit.forging.findings import (
    BatchFinding,
    MoveFinding,
    StartFinding,
    unlikely_initialisation,
)
from unlearnkit.forging.fixed_point import ExactSearch, search_exact
from unlearnkit.forging.forged_log import (
    ForgedLog,
    ForgedStep,
    LoggedStep,
    check_forgeable_recipe,
    forge_steps,
    forge_trajectory,
    logged_steps,
    touched_steps,
)
from unlearnkit.forging.greedy import GreedyForger, GreedyInfo
from unlearnkit.forging.levenberg_marquardt import LevenbergMarquardtForger, TrustRegionInfo
from unlearnkit.forging.limits import Tolerance
from unlearnkit.forging.logistic import LogisticForger, LogisticInfo
from unlearnkit.forging.logistic_grid import GridInfo, GridLogisticForger
from unlearnkit.forging.noise import NoiseForger, NoiseInfo, spoof_trajectory
from unlearnkit.forging.norms import Norm, convert_error, error_between
from unlearnkit.forging.opening import match_rows
from unlearnkit.forging.optimise import OptimiseForger, OptimiseInfo
from unlearnkit.forging.report import Verdict, VerificationReport
from unlearnkit.forging.spoofed_log import SpoofedLog, write_spoofed
from unlearnkit.forging.steps import (
    LoggedBatch,
    Step,
    check_stateless,
    honest_step,
    step_error,
)
from unlearnkit.forging.substitute import SubstitutionForger, SubstitutionInfo
from unlearnkit.forging.swap import SwapForger, SwapInfo
from unlearnkit.forging.verify import ExchangedSteps, verify, verify_exchanged
from unlearnkit.registry import Registry

FORGERS: Registry[Forger] = Registry(
    "forger",
    {
        "greedy": GreedyForger,
        "grid_logistic": GridLogisticForger,
        "levenberg_marquardt": LevenbergMarquardtForger,
        "logistic": LogisticForger,
        "noise": NoiseForger,
        "optimise": OptimiseForger,
        "substitution": SubstitutionForger,
        "swap": SwapForger,
    },
)
"""The forgers by name."""


def create(name: str, **settings: Any) -> Forger:
    """Returns the named forger with these settings.

    Args:
      name: a key of `FORGERS`, or a forger of another package.
      **settings: of the forger.

    Raises:
      ValueError: an unknown name, or a setting outside its range.
      TypeError: a setting that the forger does not have, or lacks.
    """
    return FORGERS.create(name, **settings)


__all__ = [
    "FORGERS",
    "Band",
    "BatchFinding",
    "Calibration",
    "ExactSearch",
    "ExchangedSteps",
    "ForgedLog",
    "ForgedStep",
    "GreedyForger",
    "GreedyInfo",
    "GridInfo",
    "GridLogisticForger",
    "LevenbergMarquardtForger",
    "LoggedBatch",
    "LoggedStep",
    "LogisticForger",
    "LogisticInfo",
    "MoveFinding",
    "NoiseForger",
    "NoiseInfo",
    "Norm",
    "OptimiseForger",
    "OptimiseInfo",
    "SpoofedLog",
    "StartFinding",
    "Step",
    "SubstitutionForger",
    "SubstitutionInfo",
    "SwapForger",
    "SwapInfo",
    "Tolerance",
    "TrustRegionInfo",
    "Verdict",
    "VerificationReport",
    "calibrate",
    "check_forgeable_recipe",
    "check_stateless",
    "convert_error",
    "create",
    "detectors",
    "error_between",
    "forge_steps",
    "forge_trajectory",
    "honest_step",
    "logged_steps",
    "match_rows",
    "search_exact",
    "spoof_trajectory",
    "step_error",
    "touched_steps",
    "unlikely_initialisation",
    "verify",
    "verify_exchanged",
    "write_spoofed",
]
