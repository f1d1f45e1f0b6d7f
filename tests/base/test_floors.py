"""Files import from lower floors only; the rooms of one floor do not import each other."""

import ast
from pathlib import Path

import pytest

import unlearnkit

PACKAGE = Path(unlearnkit.__file__).parent
FLOORS = [
    {"rows", "reading", "costs", "io", "host", "registry", "trials"},
    {"base"},
    {"validation", "records"},
    {"kernels"},
    {"models", "data"},
    {"training"},
    {"weights"},
    {"forging"},
    {"unlearning", "poisoning", "defences", "auditing"},
    {"studies"},
    {"reporting"},
    {"cli"},
    {"__main__"},
]
FLOOR_OF = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
ROOMS = sorted({path.relative_to(PACKAGE).parts[0] for path in PACKAGE.rglob("*.py")})


def imported_rooms(path):
    """Yields the rooms that a file imports from, function bodies included."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} has a relative import"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        yield from (name.split(".")[1] for name in names if name.startswith("unlearnkit."))


@pytest.mark.parametrize("room", [name for name in ROOMS if name != "__init__.py"])
def test_imports_come_from_lower_floors(room):
    name = room.removesuffix(".py")
    files = [PACKAGE / room] if room.endswith(".py") else (PACKAGE / room).rglob("*.py")
    for path in files:
        for other in imported_rooms(path):
            assert other == name or FLOOR_OF[other] < FLOOR_OF[name], f"{path} imports {other}"
