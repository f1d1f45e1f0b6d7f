import re

import pytest

from docs.readme import ROOT, Readme, main, regenerate
from unlearnkit import cli


def test_the_readme_says_what_the_results_say():
    assert main(Readme(check=True)) == 0


def test_a_typed_figure_is_found(tmp_path):
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert "±" in text
    changed = tmp_path / "README.md"
    changed.write_text(text.replace("±", "± ", 1), encoding="utf-8")
    assert main(Readme(check=True, path=changed)) == 1
    assert main(Readme(path=changed)) == 0
    assert changed.read_text(encoding="utf-8") == text


def test_a_block_of_a_missing_result_is_refused():
    block = "<!-- generated: {} -->\n<!-- end -->"
    with pytest.raises(FileNotFoundError):
        regenerate(block.format("results/quickstart/none.json"))
    with pytest.raises(ValueError, match="no block is made from"):
        regenerate(block.format("results/none.json"))


def test_the_readme_s_examples_run_as_written(capsys, tmp_path, monkeypatch):
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    names = {}
    for example in re.findall(r"```python\n(.*?)```", text, re.DOTALL):
        exec(compile(example, "README.md", "exec"), names)
    lines = capsys.readouterr().out.splitlines()
    cost, gap, gram, solve, gradient, poisoned, clean, *left, verdict = lines[:11]
    assert float(poisoned) < 0.05 < float(clean)
    rows = {name: [float(n) for n in numbers] for name, *numbers in map(str.split, left)}
    assert rows.keys() == {"original", "retrained", "fine_tune"}
    assert abs(rows["original"][0]) > abs(rows["retrained"][0])
    assert verdict.startswith("VALID: 1680 of 1680")
    command = re.search(r"python -m unlearnkit (verify .*)\n", text)[1]
    assert cli.run(command.split()) == 0
    assert "rows of digits train, in another order\nVALID: 1680" in capsys.readouterr().out
    assert "example_gradients=" in cost
    assert 0 <= float(gap) < 0.2
    n = names["task"].forget.size
    assert gram == f"({n}, {n})"
    assert solve.endswith("True")
    assert gradient == f"({n}, 10)"
