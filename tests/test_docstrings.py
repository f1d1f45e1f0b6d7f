"""What a docstring of a public function, method or class owes to its reader.

Public is what has no leading underscore, in a module without one; `__call__` and `__init__` too.
With three or more arguments besides `self`, a docstring has `Args:` with an entry for each. A
method whose name and arguments are those of a contract, a public Protocol of this package (the
verbs `(key, model, variables, task)` in `unlearnkit.base`, objectives, auditors, solvers), is
documented by that Protocol, and by the class's attributes.
"""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
LEAST = 3


def public(name):
    return not name.startswith("_") or name in ("__call__", "__init__")


def modules():
    for path in sorted((ROOT / "unlearnkit").rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        if all(public(part) or part == "__main__" for part in parts if part != "__init__"):
            yield path.relative_to(ROOT), ast.parse(path.read_text(encoding="utf-8"))


def functions(tree, inside=()):
    """Yields (the classes around it, the function) of every public one."""
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and public(node.name):
            yield from functions(node, (*inside, node))
        elif isinstance(node, ast.FunctionDef) and public(node.name):
            yield inside, node


def arguments(function):
    a = function.args
    named = [*a.posonlyargs, *a.args, *a.kwonlyargs, *filter(None, (a.vararg, a.kwarg))]
    return tuple(arg.arg for arg in named if arg.arg not in ("self", "cls"))


def is_contract(inside):
    return bool(inside) and any(getattr(base, "id", "") == "Protocol" for base in inside[-1].bases)


FOUND = [
    (path, inside, function) for path, tree in modules() for inside, function in functions(tree)
]
CONTRACTS = {
    (function.name, arguments(function)) for _, inside, function in FOUND if is_contract(inside)
}


def owing():
    """Yields (where, arguments, docstring) of what must have `Args:` of its own."""
    for path, inside, function in FOUND:
        names = arguments(function)
        kept = (function.name, names) in CONTRACTS and not is_contract(inside)
        if len(names) >= LEAST and not kept:
            name = ".".join([*(node.name for node in inside), function.name])
            yield f"{path}:{function.lineno} {name}", names, ast.get_docstring(function) or ""


def entries(doc):
    """Returns the names that `Args:` explains."""
    section = re.search(r"^Args:\n((?:(?:  .*)?\n)*)", doc + "\n", re.MULTILINE)
    lines = re.findall(r"^  (?! )([\w, *`]+):", section[1], re.MULTILINE) if section else []
    return {name.strip(" *`") for line in lines for name in line.split(",")}


def test_contracts_are_found():
    assert ("__call__", ("key", "model", "variables", "task")) in CONTRACTS
    assert ("__call__", ("params", "state", "batch", "key", "context")) in CONTRACTS


def test_arguments_are_documented_where_there_are_three_or_more():
    missing = [where for where, _, doc in owing() if not entries(doc)]
    assert not missing, "no Args: in\n" + "\n".join(missing)


def test_every_argument_has_an_entry():
    missing = {
        where: sorted(set(names) - entries(doc))
        for where, names, doc in owing()
        if set(names) - entries(doc)
    }
    assert not missing, "\n".join(f"{where}: {names}" for where, names in missing.items())


def test_no_entry_is_of_an_argument_that_is_gone():
    gone = {
        where: sorted(entries(doc) - set(names))
        for where, names, doc in owing()
        if entries(doc) - set(names)
    }
    assert not gone, "\n".join(f"{where}: {names}" for where, names in gone.items())
