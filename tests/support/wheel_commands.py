"""The commands of an installed wheel, as someone types them who has no repository.

    python wheel_commands.py FOLDER_OF_COMMANDS

runs them where nothing of the repository is in reach, and ends with an error where one does.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np


def call(*command, **options):
    """Returns what a command printed."""
    found = subprocess.run(
        [*map(str, command)], capture_output=True, text=True, check=False, **options
    )
    assert found.returncode == 0, f"{command}: {found.stdout}{found.stderr}"
    return found.stdout


def run_all(installed: Path, folder: Path) -> None:
    """Runs `quickstart`, `resume`, `audit --logits`, `train` and `recommend` in `folder`."""
    environment = {n: v for n, v in os.environ.items() if n != "PYTHONPATH"}

    def run(command, *arguments):
        return call(installed / command, *arguments, cwd=folder, env=environment)

    where = run("python", "-c", "import unlearnkit; print(unlearnkit.__file__)")
    assert where.startswith(str(installed.parent)), where
    assert "fine_tune" in run("unlearnkit", "list", "methods")
    options = ("--scale", "smoke", "--model", "logistic", "--methods", "fine_tune", "--seeds", "1")
    said = run("unlearnkit", "quickstart", "--out", "run", "--no-cache", *options)
    assert "3 records in run" in said
    assert "3 records in run" in run("unlearnkit", "resume", "run", "--no-cache")
    assert (folder / "run" / "report.html").is_file()
    generator = np.random.default_rng(0)
    sets = {"forget": 40, "test": 200}
    logits = {f"logits_{name}": generator.normal(size=(n, 10)) for name, n in sets.items()}
    labels = {f"labels_{name}": generator.integers(0, 10, n) for name, n in sets.items()}
    np.savez(folder / "after.npz", **logits, **labels)
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


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        run_all(Path(sys.argv[1]).absolute(), Path(scratch))
