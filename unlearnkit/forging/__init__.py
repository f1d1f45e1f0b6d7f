"""Proofs of learning: `verify(log, dataset, tolerance=...) -> VerificationReport`.

A log of training (`unlearnkit.training.fit(..., trajectory=folder)`) is verified by replaying it; a
forger (`unlearnkit.base.Forger`) makes one of its steps say something else.
"""

from unlearnkit.forging.calibrate import Band, Calibration, calibrate
from unlearnkit.forging.greedy import GreedyForger, GreedyInfo
from unlearnkit.forging.norms import Norm, convert_error, error_between
from unlearnkit.forging.report import VerificationReport
from unlearnkit.forging.steps import Step, honest_step, step_error
from unlearnkit.forging.swap import SwapForger, SwapInfo
from unlearnkit.forging.verify import verify

FORGERS = {"greedy": GreedyForger, "swap": SwapForger}
"""The forgers by name."""

__all__ = [
    "FORGERS",
    "Band",
    "Calibration",
    "GreedyForger",
    "GreedyInfo",
    "Norm",
    "Step",
    "SwapForger",
    "SwapInfo",
    "VerificationReport",
    "calibrate",
    "convert_error",
    "error_between",
    "honest_step",
    "step_error",
    "verify",
]
