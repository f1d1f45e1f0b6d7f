import warnings

import pytest

from experiments.frame import collect_warnings


def test_warnings_of_the_category_are_told_once_and_others_go_on():
    told = ["before"]

    def hear():
        with collect_warnings(told, UserWarning):
            for text in ("before", "first", "second", "first"):
                warnings.warn(text, UserWarning, stacklevel=1)
            assert told == ["before", "first", "second"]  # at once
            warnings.warn("another", RuntimeWarning, stacklevel=1)

    with pytest.warns(RuntimeWarning, match="another"):
        hear()
    assert told == ["before", "first", "second"]
