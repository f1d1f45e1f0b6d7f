"""What a study can name, read from the sources of this library: JAX is not imported for it."""

from __future__ import annotations

import ast
import functools
import inspect
import re
from collections.abc import Iterator, Mapping
from importlib.metadata import EntryPoint, EntryPoints, distributions
from pathlib import Path
from typing import Literal, NamedTuple, TypeAlias, get_args

PACKAGE = Path(__file__).parents[1]
Kind: TypeAlias = Literal[
    "methods", "attacks", "defences", "audits", "forgers", "networks", "datasets"
]
KINDS: tuple[Kind, ...] = get_args(Kind)
SINGULAR: Mapping[Kind, str] = {
    "methods": "unlearner",
    "attacks": "attack",
    "defences": "defence",
    "audits": "audit",
    "forgers": "forger",
    "networks": "network",
    "datasets": "dataset",
}
"""What the registry of each kind calls it; its group of entry points is `unlearnkit.<this>s`."""
_PLACES: Mapping[Kind, tuple[str, str]] = {
    "methods": ("unlearnkit.unlearning", "UNLEARNERS"),
    "attacks": ("unlearnkit.poisoning", "ATTACKS"),
    "defences": ("unlearnkit.defences", "DEFENCES"),
    "audits": ("unlearnkit.auditing", "AUDITS"),
    "forgers": ("unlearnkit.forging", "FORGERS"),
    "networks": ("unlearnkit.models", "MODELS"),
    "datasets": ("unlearnkit.data.loading", "DATASETS"),
}
_GIVEN = ("input_shape", "n_classes", "data_dir", "download")
"""Arguments of factories that a study fills in itself."""
_SECTIONS = ("Args", "Attributes", "Example", "Raises", "Returns", "Source", "Cost", "Warns")
_AUTHOR = r"[A-Z][\w'-]+"
_PAPER = re.compile(
    rf"{_AUTHOR}(?:, {_AUTHOR})*(?: et al\.|,? (?:&|and) {_AUTHOR})?,? \(?(?:19|20)\d\d[a-z]?\b"
)


class Setting(NamedTuple):
    """One setting of an entry.

    Attributes:
      name: of the field or argument.
      kind: its annotation, as the source has it.
      default: as the source has it; None where it must be given.
      says: what the docstring says of it.
    """

    name: str
    kind: str
    default: str | None
    says: str


class Entry(NamedTuple):
    """What stands behind a name.

    Attributes:
      kind: plural, as a study's file calls it.
      name: by which a study asks for it.
      target: `module:Class`, or of a function.
      line: the first sentence of its docstring.
      text: the docstring up to its sections.
      source: the docstring's paragraph on the source.
      cost: the docstring's paragraph on the cost.
      settings: in the order of the source; None where they are not known without importing it.
    """

    kind: Kind
    name: str
    target: str
    line: str
    text: str = ""
    source: str = ""
    cost: str = ""
    settings: tuple[Setting, ...] | None = ()

    @property
    def paper(self) -> str:
        """The first paper that the source names, or nothing."""
        found = _PAPER.search(self.source)
        return found[0].replace("(", "") if found else ""


class Catalogue:
    """Reads registries, classes and functions from the sources, each file once.

    Example:
      for entry in Catalogue().entries("methods"):
          print(entry.name, entry.line)
    """

    def __init__(self) -> None:
        self._modules: dict[str, _Module] = {}

    def entries(self, kind: Kind) -> list[Entry]:
        """Returns all entries of a kind, those of other packages last, which are not imported."""
        module, registry = _PLACES[kind]
        own = [
            self._entry(kind, name, self._module(module), value)
            for name, value in self._module(module).registry(registry)
        ]
        known = {entry.name for entry in own}
        return own + [_foreign(kind, p) for p in _points(kind) if p.name not in known]

    def find(self, name: str) -> list[Entry]:
        """Returns the entries of a name, which several kinds may have; none where nobody has it."""
        return [entry for kind in KINDS for entry in self.entries(kind) if entry.name == name]

    def names(self, kind: Kind) -> list[str]:
        """Returns the names of a kind."""
        module, registry = _PLACES[kind]
        own = [name for name, _ in self._module(module).registry(registry)]
        return list(dict.fromkeys([*own, *(point.name for point in _points(kind))]))

    def _module(self, name: str) -> _Module:
        if name not in self._modules:
            self._modules[name] = _Module(name)
        return self._modules[name]

    def _entry(self, kind: Kind, name: str, module: _Module, value: ast.expr) -> Entry:
        if isinstance(value, ast.Call):  # partial(function, …)
            value = value.args[0]
        place, node = self._definition(module, value)
        doc = _Docstring(ast.get_docstring(node) or "")
        settings = self._settings(place, node)
        return Entry(
            kind,
            name,
            f"{place.name}:{node.name}",
            doc.line,
            doc.text,
            doc.section("Source"),
            doc.section("Cost"),
            tuple(setting for setting in settings if setting.name not in _GIVEN),
        )

    def _definition(self, module: _Module, value: ast.expr) -> tuple[_Module, _Definition]:
        """Returns where a name is defined, and its definition."""
        *path, name = ast.unparse(value).split(".")
        if path:  # of an imported module
            module = self._module(module.imports[path[0]])
        while name not in module.definitions:
            module = self._module(module.origins[name])
        return module, module.definitions[name]

    def _settings(self, module: _Module, node: _Definition) -> list[Setting]:
        says = _Docstring(ast.get_docstring(node) or "").named()
        if isinstance(node, ast.FunctionDef):
            taken = node.args
            defaults = [None] * (len(taken.args) - len(taken.defaults)) + [*taken.defaults]
            pairs = [*zip(taken.args, defaults, strict=True)]
            pairs += [*zip(taken.kwonlyargs, taken.kw_defaults, strict=True)]
            return [
                Setting(
                    a.arg,
                    "" if a.annotation is None else ast.unparse(a.annotation),
                    module.default(value),
                    says.get(a.arg, ""),
                )
                for a, value in pairs
            ]
        found: dict[str, Setting] = {}
        for base in reversed(node.bases):
            root = base.value if isinstance(base, ast.Subscript) else base
            if isinstance(root, ast.Name) and root.id in (*module.definitions, *module.origins):
                found |= {s.name: s for s in self._settings(*self._definition(module, root))}
        for part in node.body:
            if not isinstance(part, ast.AnnAssign) or not isinstance(part.target, ast.Name):
                continue
            kind, name = ast.unparse(part.annotation), part.target.id
            if kind.startswith("ClassVar"):
                continue
            inherited = found[name].says if name in found else ""
            found[name] = Setting(name, kind, module.default(part.value), inherited)
        return [s._replace(says=_fuller(says.get(s.name, ""), s.says)) for s in found.values()]


_Definition: TypeAlias = ast.ClassDef | ast.FunctionDef


class _Module:
    """The source of one module of this library."""

    def __init__(self, name: str) -> None:
        self.name = name
        path = PACKAGE.joinpath(*name.split(".")[1:])
        path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
        self._body = ast.parse(path.read_text(encoding="utf-8")).body
        self.definitions: dict[str, _Definition] = {
            node.name: node
            for node in self._body
            if isinstance(node, ast.ClassDef | ast.FunctionDef)
        }
        self.origins: dict[str, str] = {}
        self.imports: dict[str, str] = {}
        for node in self._body:
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("unlearnkit"):
                for alias in node.names:
                    self.origins[alias.asname or alias.name] = str(node.module)
                    self.imports[alias.asname or alias.name] = f"{node.module}.{alias.name}"

    def registry(self, name: str) -> Iterator[tuple[str, ast.expr]]:
        """Yields names and values of a `Registry(kind, {…})`."""
        call = self._assigned(name)
        if not isinstance(call, ast.Call) or not isinstance(call.args[1], ast.Dict):
            raise LookupError(f"{self.name} has no {name} = Registry(kind, {{…}})")
        for key, value in zip(call.args[1].keys, call.args[1].values, strict=True):
            if not isinstance(key, ast.Constant):
                raise LookupError(f"{name} of {self.name} must give each entry by itself")
            yield str(key.value), value

    def default(self, value: ast.expr | None) -> str | None:
        """Returns a default as text, a constant of the module by its value."""
        if value is None:
            return None
        if isinstance(value, ast.Call) and ast.unparse(value.func).endswith("field"):
            given = {keyword.arg: keyword.value for keyword in value.keywords}
            if "default_factory" in given:
                made = given["default_factory"]
                return ast.unparse(made.body if isinstance(made, ast.Lambda) else made) + (
                    "" if isinstance(made, ast.Lambda) else "()"
                )
            return self.default(given.get("default"))
        if isinstance(value, ast.Name):
            known = self._assigned(value.id)
            if known is not None and _is_literal(known):
                value = known
        return ast.unparse(value)

    def _assigned(self, name: str) -> ast.expr | None:
        for node in self._body:
            if isinstance(node, ast.AnnAssign):
                targets: list[ast.expr] = [node.target]
            elif isinstance(node, ast.Assign):
                targets = node.targets
            else:
                continue
            if any(isinstance(target, ast.Name) and target.id == name for target in targets):
                return node.value
        return None


class _Docstring:
    """A docstring, by its parts."""

    def __init__(self, text: str) -> None:
        cleaned = inspect.cleandoc(text)
        headed = "|".join(_SECTIONS)
        before, *parts = re.split(rf"^({headed}):", cleaned, flags=re.MULTILINE)
        self._parts: dict[str, str] = {}
        texts = [before]
        for name, part in zip(parts[::2], parts[1::2], strict=True):
            # A section is indented, or one paragraph; what follows is text again.
            end = re.search(r"\n\n(?=\S)", part)
            self._parts[name] = part[: end.start()] if end else part
            texts.append(part[end.end() :] if end else "")
        self.text = "\n\n".join(text.strip() for text in texts if text.strip())
        self.line = self.text.partition("\n")[0]

    def section(self, name: str) -> str:
        """Returns a section as one line; nothing where there is none."""
        return " ".join(self._parts.get(name, "").split())

    def named(self) -> dict[str, str]:
        """Returns what the docstring says of each argument or attribute."""
        said: dict[str, str] = {}
        for section in ("Args", "Attributes"):
            text = inspect.cleandoc(self._parts.get(section, ""))
            for names, meaning in re.findall(
                r"^([\w, *]+): (.*?)(?=^\S|\Z)", text, re.MULTILINE | re.DOTALL
            ):
                line = " ".join(meaning.split())
                said |= {name.strip(" *"): line for name in names.split(",")}
        return said


def _fuller(says: str, inherited: str) -> str:
    """Returns what a class says of a setting, or its base where that only refers to the base."""
    return inherited if not says or (says.startswith("see `") and inherited) else says


def _is_literal(node: ast.expr) -> bool:
    try:
        ast.literal_eval(node)
    except ValueError:
        return False
    return True


def _points(kind: Kind) -> tuple[EntryPoint, ...]:
    found = _all_points().select(group=f"unlearnkit.{SINGULAR[kind]}s")
    return tuple({point.name: point for point in found}.values())


@functools.lru_cache(maxsize=1)
def _all_points() -> EntryPoints:
    """Returns the entry points of all packages, whose files are read once."""
    return EntryPoints(point for package in distributions() for point in package.entry_points)


def _foreign(kind: Kind, point: EntryPoint) -> Entry:
    package = point.value.partition(":")[0].partition(".")[0]
    package = point.dist.name if point.dist is not None else package
    return Entry(kind, point.name, point.value, f"Of the package {package}.", settings=None)
