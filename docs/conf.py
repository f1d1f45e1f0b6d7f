"""The documentation's settings: Sphinx with furo, pages in MyST, examples that are run by myst-nb.

Command:   sphinx-build -W -b html docs docs/_build/html     (the extra `docs`)

The pages of the API and of the results are written when a build begins, from the packages' public
names and from the tables in results/; they are not committed.
"""

from __future__ import annotations

import importlib
import os
import re
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))
os.environ.setdefault("JAX_PLATFORMS", "cpu")  # the tutorials print the same everywhere

import unlearnkit  # noqa: E402

project, author, copyright = "unlearnkit", "the unlearnkit authors", "the unlearnkit authors"
release = version = unlearnkit.__version__
extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
]
exclude_patterns, smartquotes = ["_build"], False
html_theme, html_title = "furo", f"unlearnkit {release}"
html_theme_options = {"source_directory": "docs/"}

myst_enable_extensions = ["dollarmath", "colon_fence", "deflist"]
myst_heading_anchors = 3
nb_execution_mode, nb_execution_raise_on_error, nb_execution_timeout = "force", True, 300
nb_merge_streams = True

default_role = "code"  # docstrings write `name` for code
autodoc_typehints, autodoc_member_order = "none", "bysource"
autodoc_default_options = {"members": True}
napoleon_numpy_docstring, napoleon_use_ivar, napoleon_use_rtype = False, True, False
napoleon_attr_annotations = False
napoleon_custom_sections = [
    ("Attributes", "params_style"),
    ("Cost", "notes_style"),
    ("Source", "notes_style"),
    ("Metrics", "params_style"),
    ("Metrics with a reference", "params_style"),
    ("Metrics with before", "params_style"),
]

ROOMS = {
    "base": "the nouns and the contracts of the verbs",
    "data": "datasets, splits, forget requests",
    "models": "networks, and models of your own",
    "training": "recipes, training, logs, checkpoints",
    "unlearning": "methods that forget",
    "poisoning": "attacks",
    "defences": "filters and training behind them",
    "forging": "proofs of learning: forgers, verification",
    "auditing": "what is left to see",
    "kernels": "curvature, solvers, tangent kernels, SVM",
    "studies": "any attack x defence x method x audit",
    "reporting": "tables, figures, pages",
}
"""The public packages, and what is in them."""
PAPERS = {
    "forging": "Suliman et al. 2024",
    "sg_unlearn": "Di et al. 2024",
    "poison_unlearning": "Pawelczyk et al. 2024",
    "tgda": "Lu et al. 2022",
    "ntk_scrubbing": "Golatkar et al. 2020b",
}
"""The folders of results, and the papers whose claims they judge."""
_LITERAL = re.compile(r"(``.*?``|`[^`]*`)", re.DOTALL)
_LETTER = re.compile(r"^( *(?:[\w.*]+: )?)(?=[A-Za-z][.)](?:\s|$))", re.MULTILINE)
_EXAMPLE = re.compile(r"^Example:\n((?:(?: .*)?\n)*)", re.MULTILINE)


def to_rst(text: str) -> str:
    """Returns a docstring whose example is code, and whose formulas (|x|, a * b) are text.

    So is a description of one letter (`leader: x.`), which would begin a numbered list.
    """
    example = _EXAMPLE.search(text)
    prose, rest = (text[: example.start()], text[example.end() :]) if example else (text, "")
    code = f"Example:\n  .. code-block:: python\n\n{_indent(example[1])}\n" if example else ""
    return f"{_escape(prose)}{code}{_escape(rest)}"


def _escape(text: str) -> str:
    parts = _LITERAL.split(_LETTER.sub(r"\1\\", text))
    parts[::2] = [re.sub(r"([*|])|(?<=\w)(_)(?!\w)", r"\\\1\2", part) for part in parts[::2]]
    return "".join(parts)


def _indent(code: str) -> str:
    return "".join(f"    {line}\n" if line else "\n" for line in code.split("\n"))


def _read(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    lines[:] = to_rst("\n".join([*lines, ""])).split("\n")


def _skip(app: Any, what: str, name: str, obj: Any, skip: bool, options: Any) -> bool | None:
    """Leaves out what says nothing: the fields of tuples, which `Attributes` explains."""
    return True if (getattr(obj, "__doc__", None) or "").startswith("Alias for field") else None


def write_pages(app: Any) -> None:
    """Writes the pages of the API and of the results, and their lists."""
    rooms = {f"unlearnkit.{room}": f"{room}: {what}" for room, what in ROOMS.items()}
    api = {name: f"# {name}\n\n{_api(name)}" for name in rooms}
    _write(Path(app.srcdir) / "api", "The API", api, rooms)
    results = {paper: _results(paper, cited) for paper, cited in PAPERS.items()}
    _write(Path(app.srcdir) / "results", "Results", results, PAPERS)


def _api(name: str) -> str:
    names = importlib.import_module(name).__all__ if name != "unlearnkit.base" else []
    imported = "   :imported-members:\n" if names else ""
    return f"```{{eval-rst}}\n.. automodule:: {name}\n{imported}```\n"


def _results(paper: str, cited: str) -> str:
    parts = [f"# {cited}\n\n`python -m experiments.{paper} --scale cpu` made these tables.\n"]
    for path in sorted((ROOT / "results" / paper).glob("*.md")):
        parts.append(f"## {path.stem}\n\n{path.read_text(encoding='utf-8')}")
    return "\n".join(parts)


def _write(folder: Path, title: str, pages: dict[str, str], listed: dict[str, str]) -> None:
    folder.mkdir(exist_ok=True)
    for name, text in pages.items():
        write_if_changed(folder / f"{name}.md", text)
    entries = "\n".join(f"{text} <{name}>" for name, text in listed.items())
    write_if_changed(
        folder / "index.md", f"# {title}\n\n```{{toctree}}\n:maxdepth: 1\n\n{entries}\n```\n"
    )


def write_if_changed(path: Path, text: str) -> None:
    """Writes a page that Sphinx then reads again, unless it is there."""
    if not path.is_file() or path.read_text(encoding="utf-8") != text:
        path.write_text(text, encoding="utf-8")


def setup(app: Any) -> None:
    """Registers what Sphinx calls: pages first, and docstrings before napoleon reads them."""
    app.connect("builder-inited", write_pages)
    app.connect("autodoc-process-docstring", _read, priority=100)
    app.connect("autodoc-skip-member", _skip)
