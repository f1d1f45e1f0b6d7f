"""Compiled programs kept for the next process: where, whose, how many, and that they are used."""

import os
import subprocess
import sys
import warnings
from pathlib import Path

import jax
import pytest

from unlearnkit.io import programs
from unlearnkit.io.programs import ProgramCacheWarning, keep_programs

ROOT = Path(__file__).parents[2]
COUNT = """
import jax
from unlearnkit.io.programs import keep_programs
print(keep_programs())
counts = {"hits": 0, "misses": 0}
def listen(event, **_):
    name = event.rpartition("cache_")[2]
    counts[name] = counts.get(name, 0) + 1
jax.monitoring.register_event_listener(listen)
print(float(jax.jit(lambda x: x * 3 + 1)(2.0)))
print(counts["hits"], counts["misses"])
"""


@pytest.fixture
def unset(monkeypatch):
    """JAX as it is where nobody chose a folder; what a test configures is undone."""
    names = (
        "jax_compilation_cache_dir",
        "jax_persistent_cache_min_compile_time_secs",
        "jax_persistent_cache_min_entry_size_bytes",
    )
    before = {name: getattr(jax.config, name) for name in names}
    jax.config.update("jax_compilation_cache_dir", None)
    yield
    for name, value in before.items():
        jax.config.update(name, value)


def run(code, cache, *arguments, **environment):
    left = {k: v for k, v in os.environ.items() if not k.startswith("JAX_")}
    environment = {**left, "PYTHONPATH": str(ROOT), "XDG_CACHE_HOME": str(cache), **environment}
    command = [sys.executable, *(["-c", code] if code else arguments)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, cwd=ROOT)


def test_the_second_process_takes_what_the_first_compiled(tmp_path):
    first, second = (run(COUNT, tmp_path).stdout.splitlines() for _ in range(2))
    assert first[0] == second[0]
    assert Path(first[0]).is_relative_to(tmp_path / "unlearnkit" / "programs")
    assert first[1] == second[1] == "7.0"
    hits, misses = (tuple(map(int, lines[2].split())) for lines in (first, second))
    assert hits == (0, misses[0])
    assert misses[0] > 0
    assert misses[1] == 0


def test_a_folder_that_was_chosen_elsewhere_stands(tmp_path):
    own = tmp_path / "own"
    told = run(COUNT, tmp_path / "cache", JAX_COMPILATION_CACHE_DIR=str(own)).stdout.splitlines()
    assert told[0] == str(own)
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("option", [(), ("--no-cache",)])
def test_the_command_line_keeps_them_unless_told_not_to(tmp_path, option):
    log = tmp_path / "none"
    arguments = ("-m", "unlearnkit", "verify", str(log), "--data", "digits", *option)
    assert run(None, tmp_path / "cache", *arguments).returncode == 2
    assert (tmp_path / "cache" / "unlearnkit" / "programs").exists() == (not option)


def test_the_folder_is_closed_to_others(tmp_path, unset):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        made = keep_programs(tmp_path / "new")
    assert made == tmp_path / "new"
    assert made.stat().st_mode & 0o777 == 0o700
    assert jax.config.jax_compilation_cache_dir == str(made)


def test_a_folder_that_others_read_is_closed(tmp_path, unset):
    (tmp_path / "open").mkdir(mode=0o755)
    made = keep_programs(tmp_path / "open")
    assert made.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("mode", [0o770, 0o777, 0o702])
def test_a_folder_that_others_write_to_is_not_used(tmp_path, unset, mode):
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(mode)
    with pytest.warns(ProgramCacheWarning, match="may be written to by others"):
        assert keep_programs(shared) is None
    assert jax.config.jax_compilation_cache_dir is None


def test_a_folder_of_somebody_else_is_not_used(tmp_path, unset, monkeypatch):
    monkeypatch.setattr(programs.os, "getuid", lambda: tmp_path.stat().st_uid + 1)
    with pytest.warns(ProgramCacheWarning, match="belongs to another user"):
        assert keep_programs(tmp_path) is None


def test_a_folder_that_cannot_be_made_is_told_of(tmp_path, unset):
    (tmp_path / "file").touch()
    with pytest.warns(ProgramCacheWarning, match="cannot be made"):
        assert keep_programs(tmp_path / "file" / "inside") is None


def test_what_was_used_least_recently_goes_first(tmp_path, unset):
    tmp_path.chmod(0o700)
    for age, name in enumerate(("new", "used", "old")):
        path = tmp_path / name
        path.write_bytes(b"x" * 100)
        os.utime(path, (1e9 - age, 1e9 - age))
    os.utime(tmp_path / "used", (2e9, 1e9 - 1))  # read after all were written
    keep_programs(tmp_path, max_bytes=250)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new", "used"]
    with pytest.raises(ValueError, match="max_bytes must be >= 1, got 0"):
        keep_programs(tmp_path, max_bytes=0)
