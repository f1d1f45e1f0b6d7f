"""Numerical kernels: curvature, solvers, per-example gradients, NTK, differentiable SVMs."""

from unlearnkit.base import SolveInfo
from unlearnkit.kernels._chunks import by_chunks, map_batches
from unlearnkit.kernels._trees import Precision, rayleigh_quotient
from unlearnkit.kernels._trees import norm as tree_norm
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
from unlearnkit.kernels.empirical_risk import (
    risk_ggn_operator,
    risk_gradient,
    risk_hessian_operator,
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
from unlearnkit.kernels.kfac import KfacInverse, KroneckerFactors, kfac_factors, kfac_inverse
from unlearnkit.kernels.krylov import cg, cgnr, minres
from unlearnkit.kernels.membership_features import (
    FEATURES,
    MEMBER_SIGNS,
    FeatureName,
    cross_entropy_losses,
    margins,
    membership_features,
)
from unlearnkit.kernels.metagradient import Metagradient, metagradient, plan_checkpoints
from unlearnkit.kernels.ntk import empirical_ntk, jacobian, ntk_operator
from unlearnkit.kernels.per_example import GradientOperator, gradient_bank, gram
from unlearnkit.kernels.preconditioners import LowRank, jacobi, nystrom, sketched_ntk
from unlearnkit.kernels.solvers import Solver
from unlearnkit.kernels.stationary import lissa, neumann
from unlearnkit.kernels.svm import logistic_regression, one_vs_rest, svm
from unlearnkit.kernels.svm_solution import SvmInfo, SvmSolution, SvmStatus
from unlearnkit.kernels.top_eigenvector import TopEigenvector, top_eigenvector
from unlearnkit.kernels.total_gradient import response_gradient, total_gradient

__all__ = [
    "FEATURES",
    "MEMBER_SIGNS",
    "FeatureName",
    "GameInfo",
    "GameSolver",
    "GameState",
    "GradientOperator",
    "KfacInverse",
    "KroneckerFactors",
    "LowRank",
    "Metagradient",
    "Precision",
    "SolveInfo",
    "Solver",
    "SvmInfo",
    "SvmSolution",
    "SvmStatus",
    "TopEigenvector",
    "by_chunks",
    "cg",
    "cgnr",
    "cross_entropy_hessian",
    "cross_entropy_losses",
    "empirical_fisher_diagonal",
    "empirical_ntk",
    "fisher_diagonal",
    "follow_the_ridge",
    "ggn_operator",
    "ggn_vp",
    "gradient_bank",
    "gradient_descent_newton",
    "gram",
    "hvp",
    "hvp_operator",
    "jacobi",
    "jacobian",
    "jacobian_transpose_vp",
    "jacobian_vp",
    "kfac_factors",
    "kfac_inverse",
    "lissa",
    "logistic_regression",
    "map_batches",
    "margins",
    "membership_features",
    "metagradient",
    "minres",
    "neumann",
    "ntk_operator",
    "nystrom",
    "one_vs_rest",
    "output_hessian",
    "plan_checkpoints",
    "rayleigh_quotient",
    "response_gradient",
    "risk_ggn_operator",
    "risk_gradient",
    "risk_hessian_operator",
    "sketched_ntk",
    "squared_error_hessian",
    "svm",
    "tgda",
    "top_eigenvector",
    "total_gradient",
    "tree_norm",
    "ugda",
    "unrolled_gradient",
]
