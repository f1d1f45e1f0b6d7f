"""A headless Chromium for pages, and what it finds wrong with them."""

import shutil
import tempfile
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
)  # fmt: skip
GEOMETRY = Path(__file__).with_name("geometry.js").read_text(encoding="utf-8")
"""JavaScript that lists what is clipped, overlaps, is blank or leaves the page."""


def chromium():
    """Returns the path of Chromium, or None where there is none."""
    return next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)


def axe():
    """Returns the source of axe-core."""
    folder = Path(find_spec("axe_playwright_python").origin).parent
    return (folder / "axe.min.js").read_text(encoding="utf-8")


@contextmanager
def browser(width=1280, scheme="light"):
    """Yields a Chromium of its own profile."""
    from playwright.sync_api import sync_playwright

    folder = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
    with sync_playwright() as engine, folder as profile:
        context = engine.chromium.launch_persistent_context(
            profile,
            executable_path=chromium(),
            args=list(FLAGS),
            viewport={"width": width, "height": 900},
            color_scheme=scheme,
            chromium_sandbox=False,
        )
        try:
            yield context
        finally:
            context.close()


class Opened:
    """A page of a file, with all that it asked for and complained of."""

    def __init__(self, context, path, *, charts=True):
        self.page, self.requests, self.complaints = context.new_page(), [], []
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("console", lambda m: self.complaints.append(f"{m.type}: {m.text}"))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.path = Path(path).absolute()
        self.page.goto(self.path.as_uri())
        if charts:
            self.page.wait_for_selector("html[data-ready='yes']")

    def show(self, width, scheme):
        """Changes width and colours."""
        self.page.set_viewport_size({"width": width, "height": 900})
        self.page.emulate_media(color_scheme=scheme)
        self.page.wait_for_timeout(150)  # charts take their new width in the next frames

    def faults(self):
        """Returns what the eye would find wrong."""
        return self.page.evaluate(GEOMETRY)

    def violations(self):
        """Returns what axe-core finds."""
        if not self.page.evaluate("typeof axe !== 'undefined'"):
            self.page.evaluate(axe() + "; true")
        found = self.page.evaluate("axe.run(document, {resultTypes: ['violations']})")
        return [
            f"{rule['id']}: {rule['nodes'][0]['html'][:160]} ({len(rule['nodes'])})"
            for rule in found["violations"]
        ]
