import json

import numpy as np
import pytest

from experiments.forging.__main__ import Forging
from experiments.forging.claims import PAPER, by_question, forged_by_epoch, judge, judge_logs
from experiments.forging.settings import settings
from experiments.frame import load_result, main, rounded
from unlearnkit.base import Cost
from unlearnkit.forging import convert_error
from unlearnkit.reporting.charts import mosaic
from unlearnkit.studies import ORIGINAL, RETRAIN, Record


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("results")
    assert main(Forging(scale="smoke", results=folder)) == 0
    return folder / "forging"


@pytest.fixture(scope="module")
def network(results):
    return json.loads((results / "mlp-digits-20-smoke.json").read_text())


@pytest.fixture(scope="module")
def regression(results):
    return json.loads((results / "logistic-digits-20-smoke.json").read_text())


def verdicts(claims):
    return {claim.text: claim.verdict for claim in claims}


def test_honest_replays_are_exact_here_and_near_elsewhere(network, regression):
    for result in (network, regression):
        assert result["reproduction"]["verified"]["largest"] == 0
        assert result["reproduction"]["verified"]["segments"] == 4
        assert 1e-10 < result["reproduction"]["largest"] < 1e-5
        assert result["reproduction"]["tolerance"] == pytest.approx(
            2 * result["reproduction"]["largest"], rel=1e-3
        )


def test_every_attack_forges_its_triples(network, regression):
    for result, setting in zip((network, regression), settings("smoke").values(), strict=True):
        attacks = result["forged"]["attacks"]
        assert list(attacks) == list(setting.attacks)
        for name, attack in attacks.items():
            assert len(attack["errors"]) == setting.attacks[name].triples
        assert np.mean(attacks["swap"]["errors"]) < np.mean(attacks["greedy"]["errors"])
    curves = network["forged"]["attacks"]["adam"]["curves"]
    assert len(curves) == 3
    for curve, error in zip(curves, network["forged"]["attacks"]["adam"]["errors"], strict=True):
        assert [point[0] for point in curve] == list(range(60))
        assert min(point[1] for point in curve) == pytest.approx(error, rel=1e-3)


def test_exact_forgeries_of_regression_pass_but_are_no_images(regression):
    exact = regression["forged"]["attacks"]["logistic"]
    assert max(exact["errors"]) < 1e-6 < min(regression["forged"]["attacks"]["greedy"]["errors"])
    assert exact["out_of_domain"] == 1
    assert exact["traces"]["left_of_superposition"] < 0.01


def test_a_log_forged_to_forget_is_rejected_and_its_model_remembers(results):
    _, records = load_result(results / "mlp-digits-20-smoke.json")
    asked = by_question(records)
    assert list(asked) == ["1", "30", "noise"]
    for runs in asked.values():
        assert runs.values(RETRAIN, "substitution_valid") == [1, 1]
        assert runs.values(RETRAIN, "substitution_error_largest") == [0, 0]
        assert runs.values(ORIGINAL, "substitution_valid") == [0, 0]
        assert max(runs.values(ORIGINAL, "substitution_accepted")) < 1
        for method in (ORIGINAL, RETRAIN):
            assert min(runs.values(method, "accuracy_retain")) > 0.9
    one, many = (asked[name].mean(ORIGINAL, "substitution_error") for name in ("1", "30"))
    assert one < many
    assert min(asked["noise"].gaps("accuracy_forget", ORIGINAL, RETRAIN)) > 0.3
    assert np.abs(asked["noise"].values(RETRAIN, "gaussian_z")).max() < 3


def test_the_page_shows_claims_and_figures_and_is_made_again(results):
    page = (results / "smoke.html").read_text()
    drawn = (results / "pictures").glob("mlp*.svg")
    names = {path.name.removeprefix("mlp-digits-20-smoke-") for path in drawn}
    assert names == {"errors.svg", "curves.svg", "pictures.svg", "shuffles.svg", "log.svg"}
    assert page.count("data:image/svg") == 5 + 3
    for words in (
        "Table 1",
        "l2_squared_per_parameter",
        "GTX 4090",
        "Keeping to images and classes",
        "never reaches",
    ):
        assert words in page
    table = (results / "mlp-digits-20-smoke.md").read_text()
    assert "| Claim | Where |" in table
    assert "exchanges" in table
    (results / "smoke.html").unlink()
    assert main(Forging(scale="smoke", part="page", results=results.parent)) == 0
    assert (results / "smoke.html").read_text() == page


def test_a_log_of_one_device_is_verified_on_another(results, tmp_path):
    options = {"scale": "smoke", "setting": "logistic-digits-20", "logs": tmp_path / "logs"}
    assert main(Forging(part="logs", results=tmp_path, **options)) == 0
    assert not (tmp_path / "forging").exists()
    assert main(Forging(part="reproduce", results=results.parent, **options)) == 0
    assert main(Forging(part="reproduce", results=results.parent, **options)) == 0
    result = json.loads((results / "logistic-digits-20-smoke.json").read_text())
    (row,) = result["elsewhere"]
    assert row["made_on"] == row["verified_on"]
    assert row["largest"] == 0
    assert row["segments"] == 20
    assert "log made on" in (results / "logistic-digits-20-smoke.md").read_text()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"setting": "lenet"}, "setting must be one of mlp-digits-20, logistic-digits-20"),
        ({"part": "logs"}, "part logs needs a folder for logs"),
        ({"part": "page"}, "no result of scale smoke"),
    ],
)
def test_mistakes_are_told_clearly(tmp_path, capsys, options, message):
    assert main(Forging(scale="smoke", results=tmp_path, **options)) == 2
    assert message in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("scale", ["smoke", "cpu", "paper"])
def test_logs_hold_the_triples_and_forgers_have_the_points(scale):
    sizes = {"digits": 1500, "mnist": 60_000, "cifar10": 50_000}
    for setting in settings(scale).values():
        train = setting.train or sizes[setting.dataset]
        assert setting.epochs * (train // setting.batch_size) >= setting.triples
        for attack in setting.attacks.values():
            points = getattr(attack.forger, "points", setting.batch_size)
            assert setting.batch_size <= points <= train - setting.batch_size
            assert attack.triples <= setting.triples


def test_the_quoted_errors_agree_with_each_other():
    for row in PAPER["setups"].values():
        assert row["reproduction"] == pytest.approx(max(row["devices"]), rel=0.03)
    dimension = 61_706  # LeNet
    error = convert_error(1e-9, "l2_squared_per_parameter", "l2", dimension)
    assert error == pytest.approx(PAPER["setups"]["lenet-mnist-100"]["forged"], rel=0.01)


def made_up(*, honest, greedy, same=0.0, adam=9e-4, grid=2e-3):
    """A result of LeNet with these errors."""

    def attack(error):
        return {
            "errors": [error, 1.1 * error, 1.2 * error], "out_of_domain": 1.0,
            "traces": {"left_of_superposition": 0.0},
        }  # fmt: skip

    names = {"greedy": greedy, "swap": greedy / 2, "adam": adam, "adam_grid": grid}
    return {
        "settings": {"model": "lenet", "dataset": "mnist", "batch_size": 100},
        "reproduction": {
            "largest": honest, "tolerance": 2 * honest, "n_parameters": 61_706,
            "verified": {"largest": same}, "bands": [],
        },
        "forged": {
            "attacks": {name: attack(error) for name, error in names.items()},
            "exact": {"candidates": 100, "exact": 0, "nearest": 7},
        },
    }  # fmt: skip


def test_claims_are_judged_by_the_figures():
    far = made_up(honest=1e-6, greedy=9e-3)
    found = list(verdicts(judge(far)).values())
    assert found == [*["holds"] * 3, "undecided", *["holds"] * 6]
    devices = {"made_on": "one", "verified_on": "other"}
    for largest, verdict in ((1e-6, "holds"), (1e-8, "does not hold")):
        far["elsewhere"] = [{**devices, "largest": largest}]
        assert judge(far)[3].verdict == verdict
    far["elsewhere"] = [{"made_on": "one", "verified_on": "one", "largest": 0.0}]
    assert judge(far)[3].verdict == "undecided"
    assert judge(far)[7].id == "forging.adam_reaches"
    far["forged"]["attacks"]["adam"]["curves"] = [[[0, 9.9e-4], [1, 9e-4]]]
    assert judge(far)[7].verdict == "undecided"  # it began there
    near = made_up(honest=1e-3, greedy=9e-3, same=1e-9, adam=0.9, grid=0.1)
    near["forged"]["exact"]["exact"] = 1
    found = [claim.verdict for claim in judge(near)]
    assert found.count("holds") == 3
    assert [claim.text[:10] for claim in judge(near) if claim.verdict == "holds"] == [
        "The greedy", "An error o", "The best b",
    ]  # fmt: skip


def a_log(question, method, seed, *, valid, accepted, **metrics):
    found = {"valid": valid, "accepted": accepted, "accepted_epoch_4": accepted + seed / 100}
    metrics |= {f"substitution_{name}": value for name, value in found.items()}
    return Record(method, seed, metrics=metrics, cost=Cost(1.0, 0.0), question=question)


def logs(*, told):
    """Records of three seeds: the original's log is forged, and its model remembers, or not."""
    records = []
    for seed, noise in enumerate((0.01, 0.0, -0.01)):
        for method in (ORIGINAL, RETRAIN):
            knows = told == (method == ORIGINAL)
            auc, z = (0.8 + noise, -2.0) if knows else (0.5, 0.1 + noise)
            valid = float(method == RETRAIN or not told)
            asked = {"mia_loss_logistic_auc": auc, "accuracy_forget": auc}
            log = {"valid": valid, "accepted": 0.5 if method == ORIGINAL else 1.0}
            records.append(a_log("1", method, seed, **log, **asked))
            records.append(a_log("noise", method, seed, **log, gaussian_z=z))
    return records


def test_what_a_forged_log_s_model_knows_is_judged_over_the_seeds():
    found = verdicts(judge_logs(logs(told=True)))
    assert list(found.values()) == ["holds"] * 5
    found = judge_logs(logs(told=False))
    accepted = "forging.substitution_accepted"
    assert {c.verdict for c in found if c.id != accepted} == {"does not hold"}


def test_forged_steps_are_averaged_over_the_seeds_that_have_an_epoch():
    records = logs(told=True)
    own = [r for r in records if (r.question, r.method) == ("1", ORIGINAL)]
    own[0].metrics["substitution_accepted_epoch_2"] = 0.25
    found = forged_by_epoch(records)
    assert list(found) == [("1", "substitution"), ("noise", "substitution")]
    assert found["1", "substitution"] == {2: 0.25, 4: pytest.approx(0.51)}


def test_batches_are_laid_out_in_squares():
    images = np.arange(12.0)[:, None, None, None] * np.ones((12, 2, 3, 1)) / 12
    picture = mosaic(images)
    columns = 4
    lines, last = -(-len(images) // columns), divmod(len(images) - 1, columns)
    assert picture.shape == (lines * 3, columns * 4)
    assert picture[last[0] * 3, last[1] * 4] == images[-1, 0, 0, 0]
    assert picture[2, 0] == picture[0, 3] == 1  # white between the images


def test_numbers_are_written_with_five_digits_and_infinity_as_text():
    assert rounded({"a": [1 / 3, float("inf")], "b": (2, "x")}) == {
        "a": [0.33333, "inf"],
        "b": [2, "x"],
    }
