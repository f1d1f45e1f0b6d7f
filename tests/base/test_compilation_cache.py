"""The suite's own cache of compiled programs."""

import os
import subprocess
import sys
from pathlib import Path

import compilation_cache
import jax
import jax.numpy as jnp
import pytest
from compilation_cache import ROOT, delete_oldest


@pytest.fixture
def counted():
    """What counts as read back, and as compiled."""
    events = []

    def listen(event, *_, **__):
        events.append(event)

    jax.monitoring.register_event_listener(listen)
    jax.monitoring.register_event_duration_secs_listener(listen)
    yield events
    jax.monitoring.unregister_event_listener(listen)
    jax.monitoring.unregister_event_duration_listener(listen)


@pytest.fixture
def every_program_kept():
    before = jax.config.jax_persistent_cache_min_compile_time_secs
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    yield
    jax.config.update("jax_persistent_cache_min_compile_time_secs", before)


def test_a_program_is_read_back_after_caches_were_cleared(counted, every_program_kept):
    def compiled():
        return jax.jit(lambda x: jnp.sin(x) * 2718.28)(jnp.ones(3))

    compiled()
    jax.clear_caches()
    del counted[:]
    compiled()
    assert "/jax/compilation_cache/cache_hits" in counted
    # Tests that count compilations count what is read back too, and so still find a second tracing.
    assert "/jax/core/compile/backend_compile_duration" in counted


def test_started_processes_use_the_same_folder():
    code = "import jax; print(jax.config.jax_compilation_cache_dir)"
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert child.stdout.strip() == jax.config.jax_compilation_cache_dir


def test_the_folder_is_in_the_checkout_and_ignored_unless_one_is_given(monkeypatch):
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "/elsewhere")
    assert compilation_cache.folder() == "/elsewhere"
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR")
    own = Path(compilation_cache.folder()).relative_to(ROOT).parts[0]
    assert f"{own}/" in (ROOT / ".gitignore").read_text(encoding="utf-8").splitlines()


def test_the_oldest_programs_go_first(tmp_path):
    for age, name in enumerate(("new", "old", "older")):
        path = tmp_path / "kind" / f"{name}-cache"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(bytes(10))
        os.utime(path, (1000 - age, 1000 - age))
    delete_oldest(tmp_path, max_bytes=30)
    assert len(list(tmp_path.rglob("*-cache"))) == 3
    delete_oldest(tmp_path, max_bytes=15)
    assert [path.name for path in tmp_path.rglob("*-cache")] == ["new-cache"]
