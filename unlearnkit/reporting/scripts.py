"""The JavaScript of pages, from the packages that bring it: a page loads nothing."""

from __future__ import annotations

import base64
import contextlib
import functools
import hashlib
import importlib.util
from collections.abc import Sequence
from pathlib import Path

from unlearnkit.io.files import write_text

_END = "\n// all of it\n"
_TEMPLATES = Path(__file__).with_name("templates")


@functools.cache
def charts_script() -> str:
    """Returns Vega, Vega-Lite and vega-embed, as vl-convert brings them.

    Bundling takes seconds: where compiled programs are kept, the bundle is kept beside them, and
    trusted as they are.
    """
    import jax
    import vl_convert

    folder = jax.config.values["jax_compilation_cache_dir"]
    version = f"{vl_convert.get_vega_version()}-{vl_convert.get_vega_embed_version()}"
    kept = None if not folder else Path(str(folder)) / f"charts-{version}.js"
    with contextlib.suppress(OSError, UnicodeDecodeError):
        if kept is not None and (text := kept.read_text(encoding="utf-8")).endswith(_END):
            return text
    made = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;") + _END
    with contextlib.suppress(OSError):
        if kept is not None and kept.parent.is_dir():
            write_text(kept, made)
    return made


@functools.cache
def tables_script() -> str:
    """Returns DataTables, as itables brings it."""
    found = importlib.util.find_spec("itables")
    if found is None or found.origin is None:
        raise ImportError("itables is not installed; pip install itables")
    path = Path(found.origin).with_name("html") / "dt_bundle.js"
    text = path.read_text(encoding="utf-8")
    start = text.rindex("export{")
    exported = text[start + len("export{") : text.index("}", start)].split(",")
    (name,) = (
        pair.removesuffix(" as default") for pair in exported if pair.endswith(" as default")
    )
    return f"{text}\nwindow.DataTable = {name};"


@functools.cache
def page_script() -> str:
    """Returns what makes tables sort and charts appear."""
    return (_TEMPLATES / "script.js").read_text(encoding="utf-8")


@functools.cache
def style() -> str:
    """Returns the style sheet."""
    return (_TEMPLATES / "style.css").read_text(encoding="utf-8")


def policy(scripts: Sequence[str]) -> str:
    """Returns the Content-Security-Policy of a page: these scripts, this style, and no network.

    Args:
      scripts: the page's own, by whose hashes they are allowed.
    """
    allowed = " ".join(map(_hash, scripts)) or "'none'"
    return (
        f"default-src 'none'; script-src {allowed}; style-src {_hash(style())}; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
