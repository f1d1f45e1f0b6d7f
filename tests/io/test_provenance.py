import shutil
import subprocess

from unlearnkit.io import provenance


def test_only_code_that_is_not_committed_is_told(tmp_path, monkeypatch):
    """A result written a moment ago is no change of what the next figure depends on."""
    known = shutil.which("git") is not None  # without it nothing is said of changes

    def git(*arguments):
        who = ("-c", "user.name=a", "-c", "user.email=a@b")
        if known:
            subprocess.run(["git", *who, *arguments], cwd=tmp_path, check=True, capture_output=True)

    package = tmp_path / "package"
    package.mkdir()
    code, result = package / "code.py", tmp_path / "results.json"
    for path in (code, result):
        path.write_text("0", encoding="utf-8")
    git("init")
    git("add", ".")
    git("commit", "-m", "a")
    monkeypatch.setattr(provenance, "__file__", str(package / "provenance.py"))
    assert provenance.provenance()["uncommitted_changes"] is False
    result.write_text("1", encoding="utf-8")
    assert provenance.provenance()["uncommitted_changes"] is False
    code.write_text("1", encoding="utf-8")
    assert provenance.provenance()["uncommitted_changes"] is known
