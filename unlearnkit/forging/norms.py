"""How far apart two networks are: the error measures of the literature, and their conversions."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal, TypeAlias

import numpy as np

from unlearnkit.validation import check_choice

Norm: TypeAlias = Literal["l2", "l2_squared", "l2_squared_per_parameter", "linf", "cosine"]
_CONVERTIBLE = ("l2", "l2_squared", "l2_squared_per_parameter")


def check_norm(norm: str) -> None:
    """Raises ValueError if the name is unknown.

    Raises:
      ValueError: `norm` is none of `Norm`.
    """
    check_choice("norm", norm, Norm)


def error_between(
    one: Mapping[str, np.ndarray], other: Mapping[str, np.ndarray], norm: Norm = "l2"
) -> float:
    """Returns how far apart two sets of arrays are, all joined to one vector, in float64.

    l2: ‖a - b‖₂,  l2_squared: ‖a - b‖₂²,  l2_squared_per_parameter: ‖a - b‖₂² / dim,
    linf: max |a - b|,  cosine: 1 - cos(a, b).

    It is 0 exactly where both are equal, and NaN where a value is. Integers, which count steps,
    must be equal: the error is infinite otherwise.

    Args:
      one: arrays by name.
      other: arrays of the same names and shapes.
      norm: which measure.
    """
    check_norm(norm)
    floats = [name for name, array in one.items() if array.dtype.kind not in "iub"]
    if any(not np.array_equal(one[n], other[n]) for n in one.keys() - set(floats)):
        return math.inf
    pairs = [(one[n].astype(np.float64), other[n].astype(np.float64)) for n in floats]
    with np.errstate(all="ignore"):  # infinite and NaN errors are errors like others
        return _cosine(pairs) if norm == "cosine" else _distance(pairs, norm)


def convert_error(value: float, from_norm: Norm, to_norm: Norm, n_parameters: int) -> float:
    """Returns an error in another measure: ε = ‖a - b‖₂, ε², or ε² / dim(θ).

    Args:
      value: the error, >= 0; NaN stays NaN.
      from_norm: the measure of `value`.
      to_norm: the measure wanted.
      n_parameters: dim(θ).

    Raises:
      ValueError: a negative value, no parameters, or a measure (`linf`, `cosine`) that does not
        determine the others.

    Source: Suliman et al. 2024, Table 2 and A.3.1: 1e-6 of ε² is 1e-3 of ε; 1e-6 of ε² / dim(θ) at
    5.75 million parameters is 2.398.
    """
    if value < 0:
        raise ValueError(f"an error must be >= 0, got {value}")
    if n_parameters < 1:
        raise ValueError(f"n_parameters must be >= 1, got {n_parameters}")
    for norm in (from_norm, to_norm):
        check_norm(norm)
        if norm not in _CONVERTIBLE and from_norm != to_norm:
            raise ValueError(f"{norm} does not convert; measure anew with norm={to_norm!r}")
    if from_norm == to_norm:
        return value
    scale = {"l2": 1.0, "l2_squared": 1.0, "l2_squared_per_parameter": float(n_parameters)}
    squared = value * value if from_norm == "l2" else value * scale[from_norm]
    return math.sqrt(squared) if to_norm == "l2" else squared / scale[to_norm]


def _distance(pairs: Sequence[tuple[np.ndarray, np.ndarray]], norm: Norm) -> float:
    differences = [a - b for a, b in pairs]
    if norm == "linf":
        return float(np.max([np.max(np.abs(d), initial=0.0) for d in differences], initial=0.0))
    squared = float(np.sum([np.sum(d * d) for d in differences]))
    dimension = max(sum(d.size for d in differences), 1)
    return convert_error(squared, "l2_squared", norm, dimension)


def _cosine(pairs: Sequence[tuple[np.ndarray, np.ndarray]]) -> float:
    """Returns 1 - cos = ‖a/‖a‖ - b/‖b‖‖² / 2, which does not cancel for equal vectors."""
    norms = [
        math.sqrt(sum(float(np.sum(v * v)) for v in side)) for side in zip(*pairs, strict=True)
    ]
    if not norms or norms == [0.0, 0.0]:
        return 0.0
    if 0.0 in norms:
        return 1.0
    return sum(float(np.sum((a / norms[0] - b / norms[1]) ** 2)) for a, b in pairs) / 2
