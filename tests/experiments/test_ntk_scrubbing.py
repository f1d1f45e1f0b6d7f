import json

import pytest

from experiments.frame import load_result
from experiments.ntk_scrubbing.run import NtkScrubbing, main


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("results")
    assert main(NtkScrubbing(scale="smoke", results=folder)) == 0
    return folder / "ntk_scrubbing"


def test_writes_numbers_table_page_and_figures(results):
    names = {path.name for path in results.iterdir()}
    figures = {f"digits-smoke-figure{number}.svg" for number in range(1, 5)}
    assert names == {"digits-smoke.json", "digits-smoke.md", "digits-smoke.html", *figures}
    page = (results / "digits-smoke.html").read_text()
    assert page.count("<svg") == 4
    assert all((results / name).read_text().startswith("<svg") for name in figures)


def test_every_method_has_every_readout(results):
    run, records = load_result(results / "digits-smoke.json")
    methods = ["original", "retrain", "fine_tune", "gradient_ascent", "fisher"]
    methods += ["ntk", "ntk_fisher", "ntk_trapezium"]
    assert [record.method for record in records] == 2 * methods
    for record in records:
        for name in ("error_retain", "error_forget", "error_test", "member_share_forget"):
            assert 0 <= record.metrics[name] <= 1
        assert 1 <= record.metrics["relearn_time"] <= 20
    assert json.loads(json.dumps(run))["provenance"]["versions"]


def test_scrubbing_moves_the_outputs_towards_the_reference(results):
    """On digits the fine-tuning is mild enough for its linearisation to see where it goes."""
    _, records = load_result(results / "digits-smoke.json")
    for seed in (0, 1):
        by_name = {r.method: r.metrics for r in records if r.seed == seed}
        original, scrubbed = by_name["original"], by_name["ntk"]
        assert scrubbed["activation_distance_forget"] < 0.7 * original["activation_distance_forget"]
        assert scrubbed["error_retain"] <= original["error_retain"] + 0.05
        assert original["relearn_time"] == 1


def test_missing_data_is_told(tmp_path, capsys):
    config = NtkScrubbing(scale="cpu", data_dir=tmp_path, results=tmp_path)
    assert main(config) == 2
    assert "error:" in capsys.readouterr().out
