"""The numerical kernels: curvature, solvers, per-example gradients, NTK, total gradients."""

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

__all__ = [
    "cross_entropy_hessian",
    "empirical_fisher_diagonal",
    "fisher_diagonal",
    "ggn_operator",
    "ggn_vp",
    "hvp",
    "hvp_operator",
    "jacobian_transpose_vp",
    "jacobian_vp",
    "output_hessian",
    "squared_error_hessian",
]
