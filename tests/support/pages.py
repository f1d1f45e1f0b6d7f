"""The examples of the pages in docs/."""

import re
from pathlib import Path

DOCS = Path(__file__).parents[2] / "docs"


def blocks(page):
    """Returns the Python examples of a page, in their order."""
    text = (DOCS / page).read_text(encoding="utf-8")
    return re.findall(r"```python\n(.*?)```", text, re.DOTALL)


def lines_of(block):
    return [line for line in block.splitlines() if line.strip()]


def needs_torch(block):
    return block.startswith("# needs PyTorch")
