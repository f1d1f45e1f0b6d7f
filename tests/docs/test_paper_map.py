"""What docs/from_paper_to_code/ leads to is there, and nothing of the papers is left out."""

import ast
import functools
import importlib
import re
import shlex
import shutil
import tomllib
from collections import Counter

import optax
import pytest
import tyro

from docs.blocks import ROOT
from docs.paper_map import FOLDER, Mapped, PaperMap, Row, judged_on, main, make_block, read_map
from experiments.claims import FILE
from unlearnkit import (
    auditing,
    defences,
    forging,
    kernels,
    poisoning,
    studies,
    training,
    unlearning,
)

MAP = read_map()
ROWS = [(name, row) for name, paper in MAP.items() for row in paper.rows]
PAGES = {name: (FOLDER / f"{name}.md").read_text(encoding="utf-8") for name in MAP}
COMMANDS = {
    "forging": "Forging", "ntk_scrubbing": "NtkScrubbing", "sg_unlearn": "SgUnlearn",
    "poison_unlearning": "PoisonUnlearning", "tgda": "Tgda",
}  # fmt: skip
"""The class that each paper's command line is made of."""
EXAMPLES = {
    "auditing": auditing, "defences": defences, "forging": forging, "kernels": kernels,
    "optax": optax, "poisoning": poisoning, "studies": studies, "training": training,
    "unlearning": unlearning,
}  # fmt: skip
"""What an example of a page may use."""
SYMBOL = re.compile(r"`((?:unlearnkit|experiments)(?:\.\w+)+)`")
TEST = re.compile(r"`(tests/[\w/]+\.py(?:::\w+)+)`")
MATH = re.compile(r"^\$\$\n(.*?)\n\$\$$|(?<!\$)\$([^$]+)\$", re.MULTILINE | re.DOTALL)


def resolve(name):
    """The object of a dotted name: the longest part that is a module, and its attributes."""
    parts = name.split(".")
    for count in range(len(parts), 0, -1):
        try:
            found = importlib.import_module(".".join(parts[:count]))
        except ModuleNotFoundError:
            continue
        return functools.reduce(getattr, parts[count:], found)
    raise ModuleNotFoundError(name)


@functools.cache
def defined_in(path):
    """The tests of a file, as `test_a` and `TestB::test_c`."""
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    bodies = [("", tree.body)]
    bodies += [(f"{n.name}::", n.body) for n in tree.body if isinstance(n, ast.ClassDef)]
    return {
        prefix + node.name
        for prefix, body in bodies for node in body
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    }  # fmt: skip


def is_there(test):
    path, _, name = test.partition("::")
    return (ROOT / path).is_file() and name in defined_in(path)


def test_the_pages_say_what_the_map_says():
    assert main(PaperMap(check=True)) == 0


def test_a_typed_cell_is_found_and_written_over(tmp_path, capsys):
    folder = tmp_path / "pages"
    shutil.copytree(FOLDER, folder)
    page = folder / "tgda.md"
    page.write_text(PAGES["tgda"].replace("| eq. 17 |", "| eq. 71 |"), encoding="utf-8")
    assert main(PaperMap(check=True, folder=folder)) == 1
    assert "tgda.md differs" in capsys.readouterr().out
    assert main(PaperMap(folder=folder)) == 0
    assert page.read_text(encoding="utf-8") == PAGES["tgda"]


def test_every_page_has_the_three_tables():
    for text in PAGES.values():
        assert re.findall(r"<!-- generated: (\w+) -->", text) == ["items", "figures", "claims"]


def test_every_symbol_can_be_imported():
    named = {symbol for _, row in ROWS for symbol in row.symbols}
    named |= {symbol for text in PAGES.values() for symbol in SYMBOL.findall(text)}
    assert len(named) > 200
    for name in sorted(named):
        try:
            resolve(name)
        except (AttributeError, ModuleNotFoundError):
            pytest.fail(f"{name} is no symbol")


def test_every_test_exists():
    named = {test for _, row in ROWS for test in row.tests}
    named |= {test for text in PAGES.values() for test in TEST.findall(text)}
    assert len(named) > 150
    assert [test for test in sorted(named) if not is_there(test)] == []


def test_every_result_exists():
    named = {result for _, row in ROWS for result in row.results}
    assert [name for name in sorted(named) if not (ROOT / name).is_file()] == []


def test_every_result_of_the_papers_is_in_the_map():
    named = {result for _, row in ROWS for result in row.results}
    folders = [ROOT / "results" / name for name in MAP]
    there = {str(p.relative_to(ROOT)) for folder in folders for p in folder.glob("*.json")}
    assert there - named == set()


def test_every_claim_is_in_one_row():
    said = tomllib.loads(FILE.read_text(encoding="utf-8"))
    mapped = Counter((name, claim) for name, row in ROWS for claim in row.claims)
    assert mapped == Counter((name, claim) for name, known in said.items() for claim in known)


@pytest.mark.parametrize("name", MAP)
def test_every_number_of_the_paper_is_in_one_row(name):
    """An item may have parts, as Figure 2 (a) and (b), in rows of their own."""
    paper = MAP[name]
    items = [item for row in paper.rows for item in row.items]
    assert len(items) == len(set(items))
    found = {kind: set() for kind in paper.numbered}
    for row in paper.rows:
        for kind, number in row.numbered:
            found[kind].add(number)
    assert found == {kind: set(range(1, most + 1)) for kind, most in paper.numbered.items()}


def test_equations_are_numbered_as_the_papers_do():
    equations = {name: paper.numbered["eq."] for name, paper in MAP.items()}
    assert equations == {
        "forging": 14, "sg_unlearn": 9, "poison_unlearning": 4, "tgda": 51, "ntk_scrubbing": 12,
    }  # fmt: skip


def test_a_number_is_told_from_a_part_and_a_section():
    row = Row(items=("eq. 12", "Figure 2 (b)", "§4.4, four steps", "Table 13", "A.2.1, GD"))
    assert row.numbered == [("eq.", 12), ("Figure", 2), ("Table", 13)]


def test_what_is_not_implemented_says_so():
    for name, row in ROWS:
        where = (name, row.items or row.claims)
        assert bool(row.items) != bool(row.claims), where
        assert bool(row.items) == bool(row.says), where
        assert row.symbols or "ot implemented" in row.note, where
        assert row.tests or row.note, where
        assert row.results or row.note or not row.command, where


@pytest.mark.parametrize("name", MAP)
def test_every_command_is_understood(name):
    module = importlib.import_module(f"experiments.{name}.__main__")
    commands = {row.command for row in MAP[name].rows if row.command}
    assert commands
    for command in commands:
        python, dash, said, *options = shlex.split(command)
        assert (python, dash, said) == ("python", "-m", f"experiments.{name}")
        config = tyro.cli(getattr(module, COMMANDS[name]), args=options)
        assert config.chosen()


@pytest.mark.parametrize("name", MAP)
def test_claims_are_read_from_the_pages_of_results(name):
    judged = judged_on(name)
    assert sum(bool(pages) for pages in judged.values()) >= len(judged) - 1
    pages = {page for found in judged.values() for page in found}
    assert pages <= {path.stem for path in (ROOT / "results" / name).glob("*.md")}


def test_an_unknown_table_is_refused():
    with pytest.raises(ValueError, match="no table is called 'equations'; known: items"):
        make_block("tgda", Mapped("", {}, ()), "equations")


@pytest.mark.parametrize("name", MAP)
def test_mathematics_is_read_alike_by_both_renderers(name):
    """Markdown takes backslashes before punctuation away, and pairs stars, before TeX sees them."""
    text = re.sub(r"```.*?```|`[^`\n]+`", "", PAGES[name], flags=re.DOTALL)
    assert text.count("$$") % 2 == 0
    assert text.count("$") % 2 == 0
    formulas = [block or inline for block, inline in MATH.findall(text)]
    assert len(formulas) > 20
    for formula in formulas:
        assert not re.search(r"\\[^a-zA-Z]|\*|\n\n", formula), formula
        assert formula.count("{") == formula.count("}"), formula
        left, right = (len(re.findall(rf"\\{side}\b", formula)) for side in ("left", "right"))
        assert left == right, formula


@pytest.mark.parametrize("name", MAP)
def test_the_examples_of_a_page_run_as_written(name):
    names = dict(EXAMPLES)
    for block in re.findall(r"```python\n(.*?)```", PAGES[name], re.DOTALL):
        exec(compile(block, f"{name}.md", "exec"), names)
    assert len(names) > len(EXAMPLES)
