"""What Sphinx is given to read in the place of a docstring."""

import pytest

from docs.conf import to_rst


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("Args:\n  leader: x.\n  follower: w.\n", "Args:\n  leader: \\x.\n  follower: \\w.\n"),
        ("Args:\n  *rest: r) of all.\n", "Args:\n  \\*rest: \\r) of all.\n"),
        ("Returns:\n  v. It is unit.\n", "Returns:\n  \\v. It is unit.\n"),
        ("Args:\n  x: inputs.\n  1. First.\n", "Args:\n  x: inputs.\n  1. First.\n"),
        ("|x| is `a * b`, of g.\n", "\\|x\\| is `a * b`, of g.\n"),
    ],
)
def test_formulas_are_read_as_text(text, read):
    assert to_rst(text) == read


def test_an_example_is_code():
    text = "Twice.\n\nExample:\n  y = f(a * b)\n\nSource:\n  Ours.\n"
    code = "Example:\n  .. code-block:: python\n\n      y = f(a * b)\n"
    assert code in to_rst(text)
