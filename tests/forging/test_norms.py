import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from unlearnkit.forging import convert_error, error_between
from unlearnkit.forging.norms import check_norm

RNG = np.random.default_rng(0)
ONE = {"w": RNG.normal(size=(3, 4)).astype(np.float32), "b": RNG.normal(size=5).astype(np.float32)}
OTHER = {name: array + np.float32(0.1) * np.float32(RNG.normal()) for name, array in ONE.items()}
NORMS = ("l2", "l2_squared", "l2_squared_per_parameter", "linf", "cosine")


def joined(arrays):
    return np.concatenate([array.ravel() for array in arrays.values()]).astype(np.float64)


DIRECT = {
    "l2": lambda a, b: np.linalg.norm(a - b),
    "l2_squared": lambda a, b: np.linalg.norm(a - b) ** 2,
    "l2_squared_per_parameter": lambda a, b: np.linalg.norm(a - b) ** 2 / a.size,
    "linf": lambda a, b: np.abs(a - b).max(),
    "cosine": lambda a, b: 1 - a @ b / np.linalg.norm(a) / np.linalg.norm(b),
}


@pytest.mark.parametrize("norm", NORMS)
def test_each_measure_is_that_of_the_joined_vectors(norm):
    expected = DIRECT[norm](joined(ONE), joined(OTHER))
    np.testing.assert_allclose(error_between(ONE, OTHER, norm), expected, rtol=1e-9)
    assert error_between(ONE, ONE, norm) == 0.0


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("where", [0, 1])
def test_nan_is_never_within_a_tolerance(norm, where):
    spoilt = {name: array.copy() for name, array in ONE.items()}
    spoilt["wb"[where]].flat[1] = np.nan
    for error in (error_between(spoilt, ONE, norm), error_between(ONE, spoilt, norm)):
        assert not error <= 1e9


def test_a_small_angle_does_not_cancel():
    turned = {"v": np.array([1.0, 1e-9])}
    assert error_between({"v": np.array([1.0, 0.0])}, turned, "cosine") == pytest.approx(5e-19)


def test_vectors_of_zeros_have_no_angle_but_are_equal():
    zeros, ones = {"v": np.zeros(3)}, {"v": np.ones(3)}
    assert error_between(zeros, zeros, "cosine") == 0
    assert error_between(zeros, ones, "cosine") == 1
    assert error_between({}, {}, "linf") == error_between({}, {}, "l2") == 0


def test_step_counters_must_be_equal():
    one, other = {"count": np.array(3)}, {"count": np.array(4)}
    assert error_between(one, one, "cosine") == 0
    assert error_between(one, other, "cosine") == math.inf


def test_the_papers_conversions():
    assert convert_error(1e-6, "l2_squared", "l2", 61_706) == pytest.approx(1e-3)
    per_parameter = convert_error(1e-6, "l2_squared_per_parameter", "l2", 5_750_000)
    assert per_parameter == pytest.approx(2.398, abs=5e-4)


@given(
    st.floats(0, 1e6),
    st.sampled_from(NORMS[:3]),
    st.sampled_from(NORMS[:3]),
    st.integers(1, 10**9),
)
def test_conversions_go_back_and_agree_with_direct_computation(value, one, other, dimension):
    vector = np.zeros(1)
    vector[0] = value
    there = convert_error(value, "l2", one, dimension)
    assert there == pytest.approx(
        {"l2": value, "l2_squared": value**2}.get(one, value**2 / dimension), rel=1e-12, abs=1e-300
    )
    onward = convert_error(there, one, other, dimension)
    assert convert_error(onward, other, "l2", dimension) == pytest.approx(
        value, rel=1e-9, abs=1e-150
    )


def test_what_does_not_convert_is_refused():
    assert math.isnan(convert_error(math.nan, "l2", "l2_squared", 3))
    assert convert_error(0.3, "linf", "linf", 3) == 0.3
    with pytest.raises(ValueError, match="linf does not convert"):
        convert_error(0.3, "linf", "l2", 3)
    with pytest.raises(ValueError, match="an error must be >= 0, got -1"):
        convert_error(-1, "l2", "l2_squared", 3)
    with pytest.raises(ValueError, match="n_parameters must be >= 1, got 0"):
        convert_error(1, "l2", "l2_squared", 0)
    with pytest.raises(ValueError, match="norm must be one of"):
        check_norm("l1")
