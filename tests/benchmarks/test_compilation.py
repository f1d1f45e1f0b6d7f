"""What a study compiles: once for each kind of step, and never for a number."""

import pytest

from benchmarks.compilation import COMPILATIONS, STUDIES, measure


@pytest.fixture(scope="module")
def measured():
    return measure()


@pytest.mark.parametrize("name", STUDIES)
def test_a_study_compiles_no_more_than_its_goal(name, measured):
    assert measured[name]["compilations"] <= COMPILATIONS[name]


def test_compilations_are_seen(measured):
    assert measured["first"]["compilations"] > 10
