"""The public names, so that none appears, goes or changes by accident.

`public_names.txt` lists them; a change of it belongs in the same commit as its line in
CHANGELOG.md. Run as a script, this file writes the list anew.
"""

import importlib
import pkgutil
from pathlib import Path

import unlearnkit

ROOT = Path(__file__).parents[1]
LIST = Path(__file__).parent / "public_names.txt"


def public_names():
    """Returns `package.name` of everything in the `__all__` of a package or module."""
    modules = [unlearnkit, *map(importlib.import_module, module_names())]
    return sorted(
        f"{module.__name__.removeprefix('unlearnkit.')}.{name}"
        for module in modules
        for name in getattr(module, "__all__", ())
    )


def module_names():
    found = pkgutil.walk_packages(unlearnkit.__path__, "unlearnkit.")
    private = ("._", ".__main__")
    return [module.name for module in found if not any(part in module.name for part in private)]


def test_the_public_names_are_those_of_the_list():
    listed = LIST.read_text(encoding="utf-8").splitlines()
    found = public_names()
    new = sorted(set(found) - set(listed))
    assert new == [], "new names: python tests/test_public_names.py lists them"
    assert sorted(set(listed) - set(found)) == [], "names that are gone: say so in CHANGELOG.md"


def test_every_public_name_is_there():
    for listed in public_names():
        package, _, name = listed.rpartition(".")
        module = importlib.import_module(
            f"unlearnkit.{package}" if package != "unlearnkit" else package
        )
        assert hasattr(module, name), listed


if __name__ == "__main__":
    LIST.write_text("\n".join(public_names()) + "\n", encoding="utf-8")
