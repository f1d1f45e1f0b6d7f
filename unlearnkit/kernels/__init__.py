"""Curvature, solvers, per-example gradients, tangent kernels and the differentiable auditor."""

from unlearnkit.kernels.svm import logistic_regression, one_vs_rest, svm
from unlearnkit.kernels.svm_solution import SvmInfo, SvmSolution, SvmStatus

__all__ = [
    "SvmInfo",
    "SvmSolution",
    "SvmStatus",
    "logistic_regression",
    "one_vs_rest",
    "svm",
]
