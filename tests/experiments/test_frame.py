import warnings

import pytest

from experiments.frame import collect_warnings


def test_warnings_of_the_category_are_told_once_and_others_go_on():
    messages = ["before"]

    def hear():
        with collect_warnings(messages, UserWarning):
            for text in ("before", "first", "second", "first"):
                warnings.warn(text, UserWarning, stacklevel=1)
            assert messages == ["before", "first", "second"]  # at once
            warnings.warn("another", RuntimeWarning, stacklevel=1)

    with pytest.warns(RuntimeWarning, match="another"):
        hear()
    assert messages == ["before", "first", "second"]
