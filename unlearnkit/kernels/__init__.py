"""The numerical kernels: curvature, solvers, per-example gradients, NTK, total gradients."""

from unlearnkit.base import SolveInfo
from unlearnkit.kernels.curvature import (
    cross_entropy_hessian,
    empirical_fisher_diagonal,
    fisher_diagonal,
    ggn_operator,
    ggn_vp,
    hvp,
    hvp_operator,
    jacobian_transpose_vp,
    jacobian_vp,
    output_hessian,
    squared_error_hessian,
)
from unlearnkit.kernels.krylov import cg, cgnr, minres
from unlearnkit.kernels.solvers import Solver
from unlearnkit.kernels.stationary import lissa, neumann

__all__ = [
    "SolveInfo",
    "Solver",
    "cg",
    "cgnr",
    "cross_entropy_hessian",
    "empirical_fisher_diagonal",
    "fisher_diagonal",
    "ggn_operator",
    "ggn_vp",
    "hvp",
    "hvp_operator",
    "jacobian_transpose_vp",
    "jacobian_vp",
    "lissa",
    "minres",
    "neumann",
    "output_hessian",
    "squared_error_hessian",
]
