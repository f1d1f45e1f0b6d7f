"""What a report says, what its overview shows, and what it must not keep."""

import base64
import io
import json
import re

import numpy as np
import pytest
from PIL import Image
from scipy import stats

from unlearnkit.base import Cost
from unlearnkit.records import Record
from unlearnkit.reporting import Gallery, ReportOptions, report_figures, report_page, to_picture
from unlearnkit.reporting.figures import Point, loss_chart, points_chart, roc_chart
from unlearnkit.reporting.findings import find, request_in_words
from unlearnkit.reporting.glossary import meaning
from unlearnkit.reporting.overview import Interval, difference, level, measured, places, shade
from unlearnkit.studies import ORIGINAL, RETRAIN, significance

SEEDS = 4
STUDY = 'seeds = 4\n[forget]\nthree = "class:3"\n[methods.fine_tune]\nepochs = 4\n'
RUN = {"study": STUDY, "provenance": {"unlearnkit": "0", "date": "2026-01-02T03:04:05"}}
RATES = np.array([0.0, 0.1, 0.5, 1.0])


def make(method, seed, *, forget, gap=None, cost=10.0, examples=40, **more):
    generator = np.random.default_rng([seed, len(method)])
    metrics = {
        "accuracy_forget": forget,
        "accuracy_test": 0.9 + 0.01 * seed,
        "mia_loss_logistic_auc": 0.5 + 0.4 * forget,
        "wasserstein": 2 * forget,
    }
    if gap is not None:
        metrics["average_gap"] = gap
    curves = {
        "loss_forget": generator.exponential(1.0, examples),
        "loss_test": generator.exponential(2.0, 50),
        "confusion_test": np.diag([20, 30]),
        "mia_loss_logistic_fpr": RATES,
        "mia_loss_logistic_tpr": RATES**0.5,
    }
    return Record(method, seed, metrics, Cost(cost, 0.5), curves=curves, question="three", **more)


def study(examples=40, seeds=SEEDS):
    """One question: near forgets, far does not, over four seeds."""
    found = []
    for seed in range(seeds):
        wobble = 0.01 * (-1) ** seed + 0.001 * seed
        found += [
            make(ORIGINAL, seed, forget=0.98 + wobble / 10, gap=0.4 + wobble, examples=examples),
            make(RETRAIN, seed, forget=0.02 + wobble / 2, cost=1000.0, examples=examples),
            make("near", seed, forget=0.03 + wobble, gap=0.05 + wobble, examples=examples),
            make("far", seed, forget=0.97 + wobble / 10, gap=0.41 + wobble, examples=examples),
        ]
    return found


def said(records, **options):
    return find(records, places(records), STUDY, **options)


@pytest.fixture(scope="module")
def page():
    records = study()
    cells = significance(records, "average_gap")
    options = ReportOptions(cells=cells, primary="average_gap", command="unlearnkit report run")
    return report_page(records, RUN, title="Audit", options=options)


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        ("class:3", "all training examples of class 3"),
        ("random:0.1", "10 % of the training examples, drawn at random"),
        ("random:500", "500 of the training examples, drawn at random"),
        ("within:3:0.5", "50 % of the training examples of class 3, at random"),
        ("file:rows.csv#a@b#c", "the training examples that a file lists"),
        ("unheard:of", "unheard:of"),
    ],
)
def test_requests_are_told_in_words(request_, words):
    assert request_in_words(request_) == words


def test_the_first_screen_says_what_was_asked_and_found():
    records = study()
    found = said(records, cells=significance(records, "average_gap"), primary="average_gap")
    assert found.asked[0] == "To forget all training examples of class 3."
    assert any("40 examples" in line for line in found.asked)
    assert found.found[0].startswith("Nearer to Retrain than doing nothing: near (0.05")
    assert "the untouched network is 0.40" in found.found[0]
    assert "far" in " ".join(found.found[1:])
    attack = next(line for line in found.found if "membership attack" in line)
    assert "0.89 before and 0.51 for Retrain" in attack
    assert "near is closest with 0.51" in attack
    assert "4 repetitions" in found.sure[0]
    assert any("no certificate" in line for line in found.not_shown)


def test_one_repetition_and_few_examples_are_told_as_weak_evidence():
    found = said(study(examples=12, seeds=1))
    assert "there are no intervals" in found.sure[0]
    assert any("12 forgotten examples" in line for line in found.sure)


def test_without_a_retrained_network_no_distance_is_claimed():
    records = [record for record in study() if record.method != RETRAIN]
    records = [r._replace(metrics={**r.metrics, "average_gap": np.nan}) for r in records]
    assert any("No network was retrained" in line for line in said(records).found)
    text = report_page(records, RUN, title="t")
    assert 'id="overview"' not in text
    assert 'id="methods"' in text


def test_differences_are_paired_by_seed_with_students_interval():
    records = study()
    (place,) = places(records)
    near, goal = place.rows["near"], place.rows[RETRAIN]
    found = difference(near, goal[::-1], "wasserstein")
    gaps = [
        a.metrics["wasserstein"] - b.metrics["wasserstein"] for a, b in zip(near, goal, strict=True)
    ]
    low, high = stats.t.interval(0.95, SEEDS - 1, np.mean(gaps), stats.sem(gaps))
    np.testing.assert_allclose(found[:3], [np.mean(gaps), low, high])
    assert found.seeds == SEEDS


def test_shares_and_their_differences_stay_within_reach():
    records = study()
    (place,) = places(records)
    spread = [
        r._replace(metrics={"accuracy_forget": v}) for r, v in zip(
            place.rows["near"], (1.0, 0.0, 1.0, 0.9), strict=True
        )
    ]  # fmt: skip
    found = level(spread, "accuracy_forget")
    assert found.high == 1.0
    goal = level(place.rows[RETRAIN], "accuracy_forget").mean
    assert difference(spread, place.rows[RETRAIN], "accuracy_forget").high <= 1 - goal
    text = json.dumps(points_chart([Point("a", 0.9, 0.7, 1.2)], title="t", domain=(0, 1)).to_dict())
    assert "1.2" not in text


def test_a_shade_is_for_what_is_told_from_retrain():
    assert shade(Interval(0.5, -0.1, 1.1, 3), 0.5) == 0
    assert shade(Interval(0.5, 0.4, 0.6, 3), 0.5) == 6
    assert shade(Interval(-0.01, -0.02, -0.001, 3), 0.5) == 1
    assert shade(Interval(0.25, np.nan, np.nan, 1), 0.5) == 3


def test_a_metric_is_known_by_the_longest_end_of_its_name():
    assert meaning("mia_loss_logistic_auc").title == "Attack AUC, loss"
    assert meaning("accuracy_test_forgotten").title.startswith("Accuracy, unseen, forgotten")
    assert meaning("accuracy_forget_low") is None
    (place,) = places(study())
    assert list(measured(place))[:2] == ["accuracy_forget", "accuracy_test"]


def test_distributions_end_at_all_examples():
    rows = rows_of(loss_chart({"this method": np.array([0.1, np.nan, 10.0])}))
    shares = [row["share"] for row in rows]
    assert shares == sorted(shares)
    assert (shares[0], shares[-1]) == (0, 100)
    drawn = rows_of(roc_chart({"Retrain": [(RATES, RATES)]}))
    assert len(drawn) > 60
    assert all(1e-3 <= row[name] <= 1 for row in drawn for name in ("fpr", "tpr"))


def inside(record, forgotten):
    """The record with what `auditing.Representation` measures."""
    sets = {"retain": np.zeros(30, int), "test": np.arange(20) % 2, "forget": forgotten}
    curves = {"inside_layer_moved": np.array([0.1, 0.4])}
    for name, labels in sets.items():
        curves[f"inside_plane_{name}"] = np.column_stack([labels + 0.25, np.arange(len(labels))])
        curves[f"inside_plane_class_{name}"] = labels
    return record._replace(curves={**record.curves, **curves})


def test_features_of_single_forgotten_examples_are_drawn_for_who_asks():
    forgotten = np.array([3] * 12 + [4] * 9)  # of class 4 too few for a mean
    records = [inside(record, forgotten) for record in study(examples=21, seeds=2)]

    def drawn(**options):
        found = {each.name: each for each in report_figures(records, ReportOptions(**options))}
        return found["layers-inside-near"], [
            row for row in rows_of(found["features-inside-this_method-near"].chart)
            if "forgotten" in row["set"]
        ]  # fmt: skip

    layers, kept = drawn()
    assert "layer 2 moved most, by 0.4" in layers.said
    assert kept == [{"set": "mean of forgotten", "one": 3.25, "two": 5.5, "class": "3"}]
    _, asked = drawn(show_examples=True)
    assert len(asked) == 21
    assert {row["set"] for row in asked} == {"forgotten"}


def rows_of(chart):
    return [row for rows in chart.to_dict()["datasets"].values() for row in rows]


def contents(text):
    """All that a report holds besides its scripts: text, and what is encoded in it."""
    own = re.sub(r'<script type="module">.*?</script>', "", text, flags=re.DOTALL)
    images = [base64.b64decode(code) for code in re.findall(r"data:image/png;base64,([^\"]+)", own)]
    return own, images


def numbers(text):
    return {float(each) for each in re.findall(r"-?\d+\.\d+(?:e-?\d+)?", text)}


@pytest.mark.parametrize("examples", [40, 3])
def test_a_report_keeps_no_score_and_no_image_of_a_forgotten_example(examples):
    records = study(examples=examples)
    image = np.random.default_rng(0).uniform(size=(8, 8, 1))
    gallery = Gallery("To be forgotten", "The first.", {"0: class 3": image})
    ways = {}
    for show in (False, True):
        options = ReportOptions(show_examples=show, galleries=[gallery])
        ways[show] = contents(report_page(records, RUN, title="t", options=options))
    losses = np.concatenate([r.curves["loss_forget"] for r in records if r.seed == 0])
    scores = {float(f"{loss:.3g}") for loss in losses} | {float(f"{loss:.4g}") for loss in losses}
    scores |= {float(loss) for loss in losses}
    places_of_axis = 61 * 4
    hidden, shown = (len(scores & numbers(ways[show][0])) for show in (False, True))
    assert shown >= len(losses) / 2
    # What is left are coincidences with the places of the axes, of three or four digits.
    assert hidden <= 0.05 * places_of_axis
    assert ways[False][1] == []
    (content,) = ways[True][1]
    np.testing.assert_allclose(
        np.asarray(Image.open(io.BytesIO(content))) / 255, image[..., 0], atol=0.5 / 255
    )
    assert "To be forgotten" not in ways[False][0]
    assert "kept, and deleted, as the data themselves" in ways[True][0]


def test_of_few_forgotten_examples_not_even_a_distribution_is_shown():
    few = [drawn.name for drawn in report_figures(study(examples=9))]
    many = [drawn.name for drawn in report_figures(study(examples=10))]
    assert not any(name.startswith(("losses", "roc", "examples")) for name in few)
    assert {"losses-near", "roc-mia_loss_logistic-near", "classes-test-near"} <= set(many)
    asked = report_figures(study(examples=9), ReportOptions(show_examples=True))
    assert {"losses-near", "examples-near"} <= {drawn.name for drawn in asked}
    assert "Fewer than 10 examples" in report_page(study(examples=9), RUN, title="t")


def test_what_records_lack_is_left_out():
    bare = [record._replace(curves={}) for record in study()]
    assert {drawn.name for drawn in report_figures(bare)} == {"distance", "cost"}
    path = {"way_alpha": np.linspace(0, 1, 3), "way_forget": np.ones(3), "way_retain": np.ones(3)}
    noise = {"noise_level": np.ones(3), "noise_white_box": np.array([3.0, 2.0, 1.0]),
             "noise_test_error": np.array([0.1, 0.2, 0.9])}  # fmt: skip
    course = {"course_accuracy_test": np.array([0.5, 0.9])}
    more = [
        r._replace(curves={**path, **noise, **course}) if r.method == "near" else r for r in bare
    ]
    names = {drawn.name for drawn in report_figures(more)}
    assert names == {"distance", "cost", "path-way-near", "information-noise-near", "course-near"}


def test_a_page_makes_no_request_and_names_nothing_twice(page):
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]*)"', page)[1]
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "unsafe" not in policy
    own, _ = contents(page)
    ids = re.findall(r'\sid="([^"]+)"', own)
    assert len(ids) == len(set(ids))
    assert not re.findall(r'(?:src|href)="(?!#|data:)', own)
    targets = set(re.findall(r'href="#([^"]+)"', own))
    assert targets <= set(ids)


def test_a_page_says_what_each_figure_is_made_by(page):
    names = [drawn.name for drawn in report_figures(study(), ReportOptions(primary="average_gap"))]
    pattern = r"<code>(unlearnkit report run --figures figures --only [^<]+)<"
    commands = re.findall(pattern, page)
    assert [command.rsplit(" ", 1)[1] for command in commands] == names
    assert 'scope="col"' in page
    assert 'scope="row"' in page


def test_pictures_are_drawn_on_white_from_the_same_specifications():
    drawn = next(report_figures(study()))
    svg = to_picture(drawn.chart, "svg", width=300).decode()
    assert svg.startswith("<svg")
    assert "var(--" not in svg
    assert to_picture(drawn.chart, "svg", width=300).decode() == svg
    image = Image.open(io.BytesIO(to_picture(drawn.chart, "png", width=300)))
    assert image.getpixel((1, 1))[:3] == (255, 255, 255)
    assert to_picture(drawn.chart, "pdf").startswith(b"%PDF")
