"""Numerical kernels: curvature, solvers, per-example gradients, NTK, differentiable SVMs."""

from unlearnkit.base import SolveInfo
from unlearnkit.kernels._chunks import by_chunks, map_batches
from unlearnkit.kernels._trees import Precision, rayleigh_quotient
from unlearnkit.kernels._trees import norm as tree_norm
from unlearnkit.kernels.block_cg import block_cg
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
from unlearnkit.kernels.ekfac import (
    EigenFactors,
    ekfac_factors,
    ekfac_inverse,
    ekfac_operator,
    ggn_diagonal,
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
from unlearnkit.kernels.gradient_flow import (
    SquaredErrorFlow,
    gradient_flow,
    squared_error_flow,
    weight_flow,
)
from unlearnkit.kernels.kfac import (
    KfacInverse,
    KroneckerFactors,
    kfac_factors,
    kfac_inverse,
    kfac_operator,
)
from unlearnkit.kernels.krylov import cg, cgnr, minres
from unlearnkit.kernels.lanczos import Eigenpairs, Tridiagonal, lanczos, lanczos_eigenpairs
from unlearnkit.kernels.membership_features import (
    FEATURES,
    MEMBER_SIGNS,
    FeatureName,
    cross_entropy_losses,
    margins,
    membership_features,
)
from unlearnkit.kernels.metagradient import Metagradient, metagradient, plan_checkpoints
from unlearnkit.kernels.neural_tangents_peer import Kernels, kernel_fn, neural_tangents
from unlearnkit.kernels.ntk import empirical_ntk, jacobian
from unlearnkit.kernels.ntk_operators import cross_ntk_operator, ntk_operator
from unlearnkit.kernels.operators import (
    SymmetricOperator,
    from_lineax,
    from_matfree,
    from_scipy,
    part_of,
)
from unlearnkit.kernels.per_example import GradientOperator, gradient_bank, gram
from unlearnkit.kernels.preconditioners import LowRank, jacobi, nystrom, sketched_ntk
from unlearnkit.kernels.solvers import Solver
from unlearnkit.kernels.stationary import lissa, neumann
from unlearnkit.kernels.stochastic import (
    Estimate,
    diagonal_form,
    estimate,
    gaussian,
    lanczos_quadrature,
    log_determinant,
    quadratic_form,
    rademacher,
    trace,
)
from unlearnkit.kernels.streamed_projection import StreamedProjection, stream_projection
from unlearnkit.kernels.svm import logistic_regression, one_vs_rest, svm
from unlearnkit.kernels.svm_solution import SvmInfo, SvmSolution, SvmStatus
from unlearnkit.kernels.tangent import (
    empirical_nngp,
    linearize,
    ntk_diagonal,
    pseudo_ntk,
    taylor_expand,
)
from unlearnkit.kernels.top_eigenvector import TopEigenvector, top_eigenvector
from unlearnkit.kernels.total_gradient import response_gradient, total_gradient

__all__ = [
    "FEATURES",
    "MEMBER_SIGNS",
    "EigenFactors",
    "Eigenpairs",
    "Estimate",
    "FeatureName",
    "GameInfo",
    "GameSolver",
    "GameState",
    "GradientOperator",
    "Kernels",
    "KfacInverse",
    "KroneckerFactors",
    "LowRank",
    "Metagradient",
    "Precision",
    "SolveInfo",
    "Solver",
    "SquaredErrorFlow",
    "StreamedProjection",
    "SvmInfo",
    "SvmSolution",
    "SvmStatus",
    "SymmetricOperator",
    "TopEigenvector",
    "Tridiagonal",
    "block_cg",
    "by_chunks",
    "cg",
    "cgnr",
    "cross_entropy_hessian",
    "cross_entropy_losses",
    "cross_ntk_operator",
    "diagonal_form",
    "ekfac_factors",
    "ekfac_inverse",
    "ekfac_operator",
    "empirical_fisher_diagonal",
    "empirical_nngp",
    "empirical_ntk",
    "estimate",
    "fisher_diagonal",
    "follow_the_ridge",
    "from_lineax",
    "from_matfree",
    "from_scipy",
    "gaussian",
    "ggn_diagonal",
    "ggn_operator",
    "ggn_vp",
    "gradient_bank",
    "gradient_descent_newton",
    "gradient_flow",
    "gram",
    "hvp",
    "hvp_operator",
    "jacobi",
    "jacobian",
    "jacobian_transpose_vp",
    "jacobian_vp",
    "kernel_fn",
    "kfac_factors",
    "kfac_inverse",
    "kfac_operator",
    "lanczos",
    "lanczos_eigenpairs",
    "lanczos_quadrature",
    "linearize",
    "lissa",
    "log_determinant",
    "logistic_regression",
    "map_batches",
    "margins",
    "membership_features",
    "metagradient",
    "minres",
    "neumann",
    "neural_tangents",
    "ntk_diagonal",
    "ntk_operator",
    "nystrom",
    "one_vs_rest",
    "output_hessian",
    "part_of",
    "plan_checkpoints",
    "pseudo_ntk",
    "quadratic_form",
    "rademacher",
    "rayleigh_quotient",
    "response_gradient",
    "risk_ggn_operator",
    "risk_gradient",
    "risk_hessian_operator",
    "sketched_ntk",
    "squared_error_flow",
    "squared_error_hessian",
    "stream_projection",
    "svm",
    "taylor_expand",
    "tgda",
    "top_eigenvector",
    "total_gradient",
    "trace",
    "tree_norm",
    "ugda",
    "unrolled_gradient",
    "weight_flow",
]
