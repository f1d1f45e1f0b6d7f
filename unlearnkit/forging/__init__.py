"""Proofs of learning: `verify(log, dataset, tolerance=...) -> VerificationReport`.

A log of training (`unlearnkit.training.fit(..., trajectory=folder)`) is verified by replaying it; a
forger (`unlearnkit.base.Forger`) makes one of its steps say something else.
"""

from unlearnkit.forging.calibrate import Band, Calibration, calibrate
from unlearnkit.forging.norms import Norm, convert_error, error_between
from unlearnkit.forging.report import VerificationReport
from unlearnkit.forging.verify import verify

__all__ = [
    "Band",
    "Calibration",
    "Norm",
    "VerificationReport",
    "calibrate",
    "convert_error",
    "error_between",
    "verify",
]
