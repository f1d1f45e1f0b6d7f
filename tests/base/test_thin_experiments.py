"""Experiments say what is run and what is claimed; what runs it is in the library."""

import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
MOST = 4580
"""Lines of all experiments together. Lower it when they have become fewer."""


def test_experiments_do_not_grow_and_their_lines_do_not_become_longer():
    sources = sorted((ROOT / "experiments").rglob("*.py"))
    lines = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in sources}
    assert len({path.parent for path in sources}) == 6  # the shared part, and five papers
    assert sum(lines.values()) <= MOST, "move what several experiments do into the library"
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert settings["tool"]["ruff"]["line-length"] == 100
