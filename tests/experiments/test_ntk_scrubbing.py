import json

import numpy as np
import pytest

from experiments.frame import load_result, main
from experiments.ntk_scrubbing.__main__ import NtkScrubbing
from experiments.ntk_scrubbing.claims import judge
from unlearnkit.base import (
    Cost,
)
from unlearnkit.studies import Record


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("results")
    assert main(NtkScrubbing(scale="smoke", results=folder)) == 0
    return folder / "ntk_scrubbing"


def test_writes_numbers_table_page_and_figures(results):
    names = {path.name for path in results.iterdir()}
    figures = {f"digits-smoke-figure{number}.svg" for number in range(1, 5)}
    assert names == {"digits-smoke.json", "digits-smoke.md", "smoke.html", "pictures"}
    assert {path.name for path in (results / "pictures").iterdir()} == figures
    page = (results / "smoke.html").read_text()
    assert page.count("data:image/svg") == 4
    assert all((results / "pictures" / name).read_text().startswith("<svg") for name in figures)


def test_every_method_has_every_readout(results):
    run, records = load_result(results / "digits-smoke.json")
    methods = ["original", "retrain", "fine_tune", "gradient_ascent", "fisher"]
    methods += ["ntk", "ntk_fisher", "ntk_scaled", "ntk_trapezium"]
    methods += ["published", "published_unscaled"]
    assert [record.method for record in records] == 2 * methods
    for record in records:
        for name in ("error_retain", "error_forget", "error_test", "member_share_forget"):
            assert 0 <= record.metrics[name] <= 1
        assert 1 <= record.metrics["relearn_time"] <= 20
    assert json.loads(json.dumps(run))["provenance"]["versions"]
    for told in run["figures"]:
        assert 0 < told["null_space"]["share"] < 1
        assert np.all(np.array(told["crafted"]["after"]) >= told["crafted"]["before"])
    assert ["paths" in told for told in run["figures"]] == [True, False]


def test_scrubbing_moves_the_outputs_towards_the_reference(results):
    """On digits the fine-tuning is mild enough for its linearisation to see where it goes."""
    _, records = load_result(results / "digits-smoke.json")
    for seed in (0, 1):
        by_name = {r.method: r.metrics for r in records if r.seed == seed}
        original, scrubbed = by_name["original"], by_name["ntk"]
        assert scrubbed["activation_distance_forget"] < 0.7 * original["activation_distance_forget"]
        assert scrubbed["error_retain"] <= original["error_retain"] + 0.05
        assert original["relearn_time"] == 1


def test_the_page_is_made_again_from_its_numbers(results):
    page = (results / "smoke.html").read_text()
    (results / "smoke.html").unlink()
    assert main(NtkScrubbing(scale="smoke", page=True, results=results.parent)) == 0
    assert (results / "smoke.html").read_text() == page


def made_up(ntk, fisher, seeds=4):
    """Records in which NTK scrubbing and Fisher forgetting miss Retrain's readouts by so much."""
    rng = np.random.default_rng(0)
    for seed in range(seeds):
        for method, miss in {
            "original": 0.5, "retrain": 0.0, "fine_tune": 0.4, "fisher": fisher, "ntk": ntk,
            "ntk_fisher": ntk,
        }.items():  # fmt: skip
            names = ("error_forget", "relearn_time", "member_share_forget", "error_retain")
            names += ("error_test", "weight_distance", "activation_distance_forget")
            value = 0.3 + miss + 0.01 * rng.random()
            metrics = dict.fromkeys(names, value)
            yield Record(method, seed, metrics, Cost(0.0, 0.0))


def made_up_figures(black_box):
    curves = {"white_box": [1e6, 1e3], "black_box": black_box, "test_error": [0.1, 0.3]}
    other = {"white_box": [1e6, 1e3], "black_box": [1e3, 1e0], "test_error": [0.1, 0.3]}
    leakage = {"forget": [10.0, 20.0], "retain": [1.0, 2.0], "test": [1.0, 2.0]}
    path = {"forget": [0.8, 0.5, 0.2], "retain": [0.02, 0.021, 0.02]}
    return {"tradeoff": {"ntk": curves, "fisher": other}, "leakage": leakage, "activations": path}


def test_claims_are_judged_by_the_figures():
    def verdicts(ntk, fisher, black_box):
        noise = [1.0, 1.1, 0.9, 1.05]
        figures = [made_up_figures([scale * v for v in black_box]) for scale in noise]
        return [claim.verdict for claim in judge(list(made_up(ntk, fisher)), figures)]

    found = verdicts(0.1, 0.3, [1e2, 1e-1])
    assert found[:10] == ["holds"] * 10
    found = verdicts(0.3, 0.1, [1e7, 1e4])
    nearer_than_fisher, bounds = found[1:6:2], found[8:10]
    assert nearer_than_fisher == ["does not hold"] * 3
    assert found[6] == "does not hold"
    assert bounds == ["does not hold"] * 2


def test_the_band_and_the_path_are_judged():
    def verdicts(ntk, fisher, forget, retain):
        figures = [made_up_figures([1e2 * scale, 1e-1]) for scale in (1.0, 1.1, 0.9, 1.05)]
        for i, figure in enumerate(figures):
            figure["activations"] = {"forget": [*forget, 0.2 + 0.01 * i], "retain": retain}
        found = {c.id.partition(".")[2]: c for c in judge(list(made_up(ntk, fisher)), figures)}
        return {name: claim.verdict for name, claim in found.items()}

    bands = [f"{name}_in_band" for name in ("forget_error", "retain_error", "test_error")]
    bands += ["relearn_time_in_band", "member_share_in_band"]
    found = verdicts(0.0, -0.2, [0.8, 0.5], [0.02, 0.03, 0.02])
    assert found["fisher_streisand"] == "holds"
    assert found["least_at_the_scrubbed"] == found["flat_on_retain"] == "holds"
    assert found["moves_toward_retrain"] == "holds"
    found = verdicts(0.1, 0.3, [0.8, 0.1], [0.02, 0.3, 0.02])
    assert [found[name] for name in bands] == ["does not hold"] * 5
    assert found["fisher_streisand"] == "does not hold"
    assert found["fisher_errs_more_on_test"] == "holds"
    assert found["least_at_the_scrubbed"] == found["flat_on_retain"] == "does not hold"


def test_the_published_algorithm_and_what_queries_show_are_judged():
    def verdicts(miss, share, after):
        rows = {"ntk_fisher": 0.1, "ntk_scaled": miss, "published": miss}
        rows["published_unscaled"] = (miss + 0.1) / 2
        records = [
            Record(name, seed, {"activation_distance_forget": value + 0.01 * seed}, Cost(0.0, 0.0))
            for seed in range(4)
            for name, value in rows.items()
        ]
        figures = [
            {**made_up_figures([1e2, 1e-1]), "null_space": {"share": share + 0.01 * i},
             "crafted": {"before": [1.0, 2.0], "after": [after + 0.01 * i, 2 * after]}}
            for i in range(4)
        ]  # fmt: skip
        found = {c.id.partition(".")[2]: c.verdict for c in judge(records, figures)}
        assert "error_nearer_than_fisher" not in found  # its rows are not there
        return {name: found[name] for name in found if name in ASKED}

    ASKED = [
        "nearer_than_published",
        "nearer_than_published_unscaled",
        "trapezium_hurts",
        "trapezium_hurts_published",
        "mostly_in_the_null_space",
        "crafted_queries_tell_more",
    ]
    assert verdicts(0.5, 0.9, 3.0) == dict.fromkeys(ASKED, "holds")
    assert verdicts(0.05, 0.1, 0.5) == dict.fromkeys(ASKED, "does not hold")


def test_missing_data_is_told(tmp_path, capsys):
    config = NtkScrubbing(scale="cpu", data_dir=tmp_path, results=tmp_path)
    assert main(config) == 2
    assert "error:" in capsys.readouterr().out
