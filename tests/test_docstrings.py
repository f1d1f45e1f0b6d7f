"""What a docstring of a public function, method or class owes to its reader.

Public is what has no leading underscore, in a module without one; `__call__` and `__init__` too.
With three or more arguments besides `self`, a docstring has `Args:` with an entry for each. A
method whose name and arguments are those of a contract, a public Protocol of this package (the
verbs `(key, model, variables, task)` in `unlearnkit.base`, objectives, auditors, solvers), is
documented by that Protocol, and by the class's attributes.

The entry points (methods of every registry, the functions of `ENTRIES`, `unlearnkit.kernels`) also
show an `Example:`. It uses the packages and the names of `GIVEN` without more ado; its calls fit
the signatures, the settings in it are accepted, and those of the kernels are run.
"""

import ast
import builtins
import inspect
import re
from pathlib import Path

import pytest
from docstring_examples import EXAMPLES, PACKAGES, example

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
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and public(node.name):
            yield inside, node
        else:  # what is defined under a condition
            for branch in ("body", "orelse", "handlers", "finalbody"):
                nested = getattr(node, branch, [])
                if nested and not isinstance(node, ast.FunctionDef | ast.ClassDef):
                    yield from functions(ast.Module(nested, []), inside)


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


@pytest.mark.parametrize(
    "code",
    [
        "def f(a, b, c): ...",
        "async def f(a, b, *c): ...",
        "class C:\n  def f(self, a, b, *, c): ...",
        "if True:\n  pass\nelse:\n  def f(a, b, c): ...",
        "try:\n  import x\nexcept ImportError:\n  def f(a, b, c): ...",
    ],
)
def test_public_functions_are_found_wherever_they_are_defined(code):
    ((_, function),) = functions(ast.parse(code))
    assert arguments(function) == ("a", "b", "c")


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


GIVEN = {
    *("key", "model", "variables", "original", "retrained", "task", "train", "test"),
    *("poisoned", "step", "allowed", "study", "records"),
    *("apply", "loss", "params", "v", "dataset", "x", "y", "gains", "loses"),
}
"""What examples use without more ado."""


def names_in(tree):
    """Returns the names that code reads, and those that it makes."""
    nodes = [node for node in ast.walk(tree) if isinstance(node, ast.Name)]
    made = {node.id for node in nodes if not isinstance(node.ctx, ast.Load)}
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            made.add(node.name)
        if isinstance(node, ast.FunctionDef | ast.Lambda):
            made |= set(arguments(node))
    return {node.id for node in nodes if isinstance(node.ctx, ast.Load)}, made


def called(node):
    """Returns what a call of a package's name calls, or None for calls of other things."""
    parts, function = [], node.func
    while isinstance(function, ast.Attribute):
        parts.append(function.attr)
        function = function.value
    if not isinstance(function, ast.Name) or function.id not in PACKAGES:
        return None
    thing = PACKAGES[function.id]
    for part in reversed(parts):
        thing = getattr(thing, part)
    return thing


def bind(function, node, *, own=0):
    """Fails where a call does not fit a signature; `own` arguments come before the written ones."""
    signature = inspect.signature(function)
    keywords = {keyword.arg: None for keyword in node.keywords}
    spread = keywords.pop(None, keywords) is None
    bound = signature.bind_partial if spread else signature.bind
    bound(*[None] * (own + len(node.args)), **keywords)


def mentions(node):
    return {part.id for part in ast.walk(node) if isinstance(part, ast.Name)}


@pytest.mark.parametrize("name", EXAMPLES)
def test_examples_fit_what_they_show(name):
    code = example(EXAMPLES[name])
    assert code, f"{name} has no Example:"
    tree = ast.parse(code)
    read, made = names_in(tree)
    unknown = read - made - GIVEN - set(PACKAGES) - set(dir(builtins))
    assert not unknown, f"nothing says what {unknown} are"
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Call)
            and (thing := called(node))
            and "unlearnkit" in (getattr(thing, "__module__", None) or "")
        ):
            bind(thing, node)
    methods = {}
    for statement in tree.body:
        value = statement.value if isinstance(statement, ast.Assign) else None
        if isinstance(value, ast.Call) and inspect.isclass(thing := called(value)):
            methods[statement.targets[0].id] = thing
            if not mentions(value) & GIVEN:  # settings alone: they must be accepted
                eval(compile(ast.Expression(value), name, "eval"), dict(PACKAGES))
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and getattr(node.func, "id", None) in methods:
            bind(methods[node.func.id].__call__, node, own=1)
