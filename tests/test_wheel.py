"""The wheel works without the repository."""

import sys
import sysconfig
import venv
from pathlib import Path

import pytest
from wheel_commands import call, run_all

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.slow


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
    run_all(installed, tmp_path)
