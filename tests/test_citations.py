"""Sources are cited by author and year, and `docs/papers.md` lists each of them once."""

import re
import unicodedata
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PLACES = ("unlearnkit", "experiments", "benchmarks", "tests", "docs", "results")
NAME = r"[A-Z][\w'-]+"
CITATION = re.compile(
    rf"\b({NAME})(?:, {NAME})*(?: et al\.|,? (?:and|&) {NAME})"  # one author or more
    r",? \(?((?:19|20)\d\d[a-z]?)\b"
)
NUMBER = re.compile(r"(?<![\w.,+-])(?<!\d\s)00[0-4](?![\w.,]*\d)\b")
"""A bare 0 to 4 of three digits, which is no part of a number as 0.001, 10,000 or 648 000 are."""


def texts():
    """The project's own texts by their paths, without pictures, records and what is recorded."""
    files = [ROOT / "README.md", ROOT / "pyproject.toml"]
    for place in PLACES:
        files += [path for kind in ("*.py", "*.md") for path in (ROOT / place).rglob(kind)]
    return {path.relative_to(ROOT): path.read_text(encoding="utf-8") for path in sorted(files)}


TEXTS = texts()


def listed():
    return re.findall(r"^@\w+\{(\w+),$", TEXTS[Path("docs/papers.md")], re.MULTILINE)


def key_of(author, year):
    plain = unicodedata.normalize("NFKD", author).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z]", "", plain) + year


def cited(text):
    """Yields (the citation, its key); one may go over the end of a line, of a comment too."""
    for match in CITATION.finditer(re.sub(r"\n\s*(?:#\s*)?", " ", text)):
        yield match[0], key_of(match[1], match[2])


def test_no_text_cites_a_paper_by_a_bare_number():
    found = [
        f"{path}:{row}: {line.strip()}"
        for path, text in TEXTS.items()
        for row, line in enumerate(text.splitlines(), 1)
        if NUMBER.search(line)
    ]
    assert not found, "cite by author and year: docs/papers.md\n" + "\n".join(found)


@pytest.mark.parametrize(
    ("line", "bad"),
    [
        ("Source: paper {}, section 3.", True),
        ("defaults of {}, Table 5", True),
        ("({})", True),
        ("of 0.{} and 10,{}, or 10_{}", False),
        ("648 {} gradients", False),
        ("1e-{}", False),
    ],
)
def test_a_bare_number_is_told_from_a_part_of_a_number(line, bad):
    assert bool(NUMBER.search(line.replace("{}", "00" + "1"))) is bad


def test_every_source_that_is_cited_is_listed():
    known = set(listed())
    missing = {
        f"{path}: {citation}"
        for path, text in TEXTS.items()
        for citation, key in cited(text)
        if key not in known
    }
    assert not missing, "list these in docs/papers.md:\n" + "\n".join(sorted(missing))


def test_every_source_is_listed_once_and_cited():
    keys = listed()
    assert len(keys) == len(set(keys))
    everything = " ".join(
        re.sub(r"\s+", " ", text) for path, text in TEXTS.items() if path.parts[0] != "docs"
    )
    pairs = re.findall(  # a lookahead, for a name may stand within what follows another
        rf"\b(?=({NAME})[^.;:]{{0,60}}?(?:\bal\. )?\(?((?:19|20)\d\d[a-z]?))", everything
    )
    mentioned = {key_of(*pair) for pair in pairs}
    unused = [key for key in keys if re.sub(r"(\d{4}[ab]?)\w*", r"\1", key) not in mentioned]
    assert not unused, f"nothing cites {unused}"
