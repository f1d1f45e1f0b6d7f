import json

import numpy as np
import pytest

from experiments.frame import load_result
from experiments.quickstart import Quickstart, choose_preset, main
from unlearnkit.reporting import read_records


def smoke(tmp_path, **options):
    settings = {"scale": "smoke", "seeds": 1, "out": tmp_path / "run", **options}
    return main(Quickstart(**settings))


def test_the_main_job_runs_from_data_to_page(tmp_path, capsys):
    assert smoke(tmp_path, results=tmp_path / "results") == 0
    printed = capsys.readouterr().out
    for name in ("original", "retrain", "fine_tune", "noisy_descent", "gradient_ascent"):
        assert name in printed
    assert "training the originals" in printed
    assert str(tmp_path / "run") in printed.replace("\n", "")
    files = {path.name for path in (tmp_path / "run").iterdir()}
    assert {"metrics.jsonl", "table.md", "table.tex", "report.html", "run.json"} <= files
    run = json.loads((tmp_path / "run" / "run.json").read_text())
    assert run["settings"]["dataset"] == "digits"
    assert {"commit", "device", "versions", "date"} <= set(run["provenance"])
    committed, records = load_result(tmp_path / "results" / "quickstart" / "digits-smoke.json")
    assert committed["provenance"] == run["provenance"]
    assert [r.metrics for r in records] == [r.metrics for r in read_records(tmp_path / "run")]


def test_a_user_s_own_arrays_are_welcome(tmp_path):
    generator = np.random.default_rng(0)
    y = generator.integers(0, 10, 400)
    x = generator.integers(0, 40, (400, 32, 32, 3)) + 20 * y[:, None, None, None]
    arrays = {"x_train": x[:300], "y_train": y[:300], "x_test": x[300:], "y_test": y[300:]}
    path = tmp_path / "mine.npz"
    np.savez(path, **{n: a.astype(np.uint8 if n[0] == "x" else int) for n, a in arrays.items()})
    assert smoke(tmp_path, dataset=str(path), model="logistic", forget="random:120") == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dataset": "mnis"}, "did you mean mnist?"),
        ({"model": "lenett"}, "unknown network 'lenett'; known: logistic"),
        ({"forget": "everything"}, "forget must be of a form"),
        ({"forget": "random:1.0"}, "1.0"),
        ({"forget": "class:11"}, "11"),
        ({"seeds": 0}, "seeds must be >= 1"),
        ({"dataset": "mnist", "data_dir": "nowhere"}, "nowhere"),
    ],
)
def test_mistakes_are_told_clearly(tmp_path, capsys, options, message):
    assert smoke(tmp_path, **options) == 2
    printed = capsys.readouterr().out
    assert "error:" in printed
    assert message in " ".join(printed.split())


def test_another_run_is_kept(tmp_path, capsys):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.json").write_text("{}")
    assert smoke(tmp_path) == 2
    assert "--overwrite" in capsys.readouterr().out


@pytest.mark.parametrize("scale", ["smoke", "cpu", "paper"])
@pytest.mark.parametrize("dataset", ["digits", "mnist", "cifar10", "svhn_cropped"])
def test_every_dataset_has_a_preset_with_the_same_methods(dataset, scale):
    preset = choose_preset(Quickstart(dataset=dataset, scale=scale))
    assert set(preset.methods) == {"retrain", "fine_tune", "noisy_descent", "gradient_ascent"}
    assert preset.methods["retrain"].recipe == preset.recipe
