"""The wheel works without the repository."""

import os
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.slow


def call(*command, **options):
    found = subprocess.run(
        [*map(str, command)], capture_output=True, text=True, check=False, **options
    )
    assert found.returncode == 0, f"{command}: {found.stdout}{found.stderr}"
    return found.stdout


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The folder of commands of an environment that has the wheel, and shares all else."""
    folder = tmp_path_factory.mktemp("wheel")
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet")
    call(*pip, "wheel", "--no-deps", "--wheel-dir", folder, ROOT)
    (wheel,) = folder.glob("unlearnkit-*.whl")
    venv.create(folder / "venv", symlinks=True)
    python = folder / "venv" / "bin" / "python"
    call(*pip, "--python", python, "install", "--no-deps", wheel)
    # A line of a .pth file adds a folder without what that folder's own .pth files add: the
    # packages of this environment are shared, and an editable install of the repository is not.
    shared = Path(call(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"))
    (Path(str(shared).strip()) / "shared.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return folder / "venv" / "bin"


def test_the_wheel_runs_the_commands_without_the_repository(installed, tmp_path):
    environment = {n: v for n, v in os.environ.items() if n != "PYTHONPATH"}

    def run(command, *arguments):
        return call(installed / command, *arguments, cwd=tmp_path, env=environment)

    where = run("python", "-c", "import unlearnkit; print(unlearnkit.__file__)")
    assert where.startswith(str(installed.parent))
    assert "fine_tune" in run("unlearnkit", "list", "methods")
    options = ("--scale", "smoke", "--model", "logistic", "--methods", "fine_tune", "--seeds", "1")
    said = run("unlearnkit", "quickstart", "--out", "run", "--no-cache", *options)
    assert "3 records in run" in said
    assert "3 records in run" in run("unlearnkit", "resume", "run", "--no-cache")
    assert (tmp_path / "run" / "report.html").is_file()
    generator = np.random.default_rng(0)
    sets = {"forget": 40, "test": 200}
    logits = {f"logits_{name}": generator.normal(size=(n, 10)) for name, n in sets.items()}
    labels = {f"labels_{name}": generator.integers(0, 10, n) for name, n in sets.items()}
    np.savez(tmp_path / "after.npz", **logits, **labels)
    assert "attack's AUC" in run("unlearnkit", "audit", "--logits", "after.npz")
    data = ("--data", "digits:train_rows=100,test_rows=100", "--model", "logistic", "--no-cache")
    recipe = ("--recipe", "epochs=2", "batch_size=20")
    run("unlearnkit", "train", *data, *recipe, "--out", "trained")
    said = run(
        "unlearnkit", "recommend", *data, "--weights", "trained/weights.safetensors", "--forget",
        "random:0.2", "--methods", "fine_tune:epochs=1,batch_size=20", "--seeds", "1",
        "--no-reference", "--budget", "1", "--tolerance", "1", "--out", "best",
    )  # fmt: skip
    assert "fine_tune" in said.splitlines()[0] + said.splitlines()[1]
