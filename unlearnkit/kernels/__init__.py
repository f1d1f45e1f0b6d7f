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
from unlearnkit.kernels.games import (
    GameInfo,
    GameSolver,
    GameState,
    follow_the_ridge,
    gradient_descent_newton,
    tgda,
    ugda,
    unrolled_gradient,
)
from unlearnkit.kernels.krylov import cg, cgnr, minres
from unlearnkit.kernels.solvers import Solver
from unlearnkit.kernels.stationary import lissa, neumann
from unlearnkit.kernels.total_gradient import total_gradient

__all__ = [
    "GameInfo",
    "GameSolver",
    "GameState",
    "SolveInfo",
    "Solver",
    "cg",
    "cgnr",
    "cross_entropy_hessian",
    "empirical_fisher_diagonal",
    "fisher_diagonal",
    "follow_the_ridge",
    "ggn_operator",
    "ggn_vp",
    "gradient_descent_newton",
    "hvp",
    "hvp_operator",
    "jacobian_transpose_vp",
    "jacobian_vp",
    "lissa",
    "minres",
    "neumann",
    "output_hessian",
    "squared_error_hessian",
    "tgda",
    "total_gradient",
    "ugda",
    "unrolled_gradient",
]
