"""Every planted bug still applies to the sources, and names tests that exist."""

import ast

import pytest

from tests.planted_bugs import BUGS, ROOT, Bug, locate, plant


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.name)
def test_applies_to_the_source(bug):
    path, qualified = locate(bug.symbol)
    sound = (ROOT / path).read_text(encoding="utf-8")
    planted = plant(sound, qualified, bug)
    assert ast.dump(ast.parse(planted)) != ast.dump(ast.parse(sound))


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.name)
def test_names_tests_that_exist(bug):
    assert bug.tests
    for test in bug.tests:
        file, _, name = test.partition("::")
        text = (ROOT / file).read_text(encoding="utf-8")
        assert not name or f"def {name.partition('[')[0]}(" in text


def test_names_are_told_apart():
    assert len({bug.name for bug in BUGS}) == len(BUGS)


def test_what_does_not_apply_is_said():
    bug = Bug("gone", "base:Cost", "no such text", "", ())
    with pytest.raises(LookupError, match="gone: 'no such text' stands 0 times"):
        plant("class Cost:\n    x = 1\n", "Cost", bug)
    with pytest.raises(LookupError, match="no Other in its file"):
        plant("class Cost:\n    x = 1\n", "Other", bug)
