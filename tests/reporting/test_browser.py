"""The report in Chromium: it renders, sorts and filters, asks for nothing, and all can be read."""

import numpy as np
import pytest
from browser import Opened, browser

from unlearnkit.base import Cost
from unlearnkit.records import Record
from unlearnkit.reporting import Gallery, ReportOptions, figure_section, report_page, to_svg
from unlearnkit.reporting.figures import Point, points_chart
from unlearnkit.reporting.page import compose_page, html_table
from unlearnkit.studies import ORIGINAL, RETRAIN, significance

LOOKS = [(width, scheme) for width in (360, 768, 1280) for scheme in ("light", "dark")]
SETTINGS = {
    ORIGINAL: (0.99, 0.4, 0.0),
    RETRAIN: (0.0, None, 1000.0),
    "fine_tune": (0.7, 0.3, 90.0),
    "a_method_with_a_very_long_name_that_nobody_can_read": (0.1, 0.05, 300.0),
}


def record(method, seed):
    forget, gap, cost = SETTINGS[method]
    generator = np.random.default_rng([seed, len(method)])
    rates = np.linspace(0, 1, 30)
    metrics = {
        "accuracy_retain": 1.0 - 0.01 * seed,
        "accuracy_forget": min(forget + 0.004 * seed, 1.0),
        "accuracy_test": 0.9,
        "mia_loss_logistic_auc": 0.5 + 0.1 * forget,
        "wasserstein": 12.0 * forget,
    }
    if gap is not None:
        metrics["average_gap"] = gap + 0.01 * seed
    curves = {
        "loss_forget": generator.exponential(2 - forget, 12),
        "loss_test": generator.exponential(1.0, 80),
        "mia_loss_logistic_fpr": rates,
        "mia_loss_logistic_tpr": rates ** (0.3 + forget),
        "confusion_forget": generator.integers(0, 9, (10, 10)),
        "confusion_test": generator.integers(0, 9, (10, 10)),
        "course_accuracy_forget": np.linspace(1, forget, 5),
        "course_accuracy_test": np.linspace(0.9, 0.95, 5),
        "way_alpha": np.linspace(0, 1, 11),
        "way_forget": np.linspace(1, 0.2, 11),
        "way_retain": np.linspace(0.1, 0.2, 11),
    }
    curves["inside_layer_moved"] = 0.1 * generator.uniform(size=4)
    for name, count in (("retain", 60), ("test", 30), ("forget", 12)):
        labels = np.arange(count) % 10 if name != "forget" else np.full(count, 3)
        plane = np.column_stack([np.cos(labels), np.sin(labels)])
        curves[f"inside_plane_{name}"] = 9 * plane + generator.normal(size=(count, 2))
        curves[f"inside_plane_class_{name}"] = labels
    return Record(method, seed, metrics, Cost(cost, 0.1), curves=curves, question="class:3")


@pytest.fixture(scope="module")
def chromium():
    with browser() as context:
        yield context


@pytest.fixture(scope="module")
def report(chromium, tmp_path_factory):
    records = [record(method, seed) for seed in range(3) for method in SETTINGS]
    cells = significance(records, "average_gap")
    image = np.random.default_rng(0).uniform(size=(8, 8, 1))
    options = ReportOptions(
        cells=cells,
        primary="average_gap",
        command="unlearnkit report run",
        show_examples=True,
        galleries=[Gallery("To be forgotten", "The first.", {"0: class 3": image})],
    )
    study = 'seeds = 3\n[forget]\n"class:3" = "class:3"\n' + 40 * "# a long line of a study\n"
    run = {"study": study, "provenance": {"unlearnkit": "0.1.0", "commit": "0" * 40}}
    text = report_page(records, run, title="An audit of a network", options=options)
    path = tmp_path_factory.mktemp("report") / "report.html"
    path.write_text(text, encoding="utf-8")
    return Opened(chromium, path)


@pytest.mark.parametrize(("width", "scheme"), LOOKS)
def test_everything_is_drawn_and_nothing_is_clipped_or_overlaps(report, width, scheme):
    report.show(width, scheme)
    assert report.faults() == []


@pytest.mark.parametrize(("width", "scheme"), [(360, "dark"), (1280, "light")])
def test_axe_finds_no_violation(report, width, scheme):
    report.show(width, scheme)
    assert report.violations() == []


def test_it_asks_for_nothing_and_complains_of_nothing(report):
    assert report.requests == [report.path.as_uri()]
    assert report.complaints == []


def first_column(report):
    return report.page.eval_on_selector_all(
        "#table tbody th", "cells => cells.map((cell) => cell.textContent)"
    )


def test_the_table_sorts_by_numbers_and_filters(report):
    report.show(1280, "light")
    assert first_column(report) == [*SETTINGS]
    head = report.page.locator("#table thead th", has_text="Gradients")
    costs = sorted(SETTINGS, key=lambda name: SETTINGS[name][2])
    head.click()
    assert first_column(report) == costs
    head.locator("[role=button]").focus()
    report.page.keyboard.press("Enter")
    report.page.wait_for_selector("#table thead th[aria-sort=descending]")
    assert first_column(report) == costs[::-1]
    report.page.locator("#table input").fill("fine_t")
    assert first_column(report) == ["fine_tune"]
    report.page.locator("#table input").fill("")
    assert len(first_column(report)) == len(SETTINGS)


def test_a_word_is_explained_on_hover_and_by_the_keyboard(report):
    report.show(360, "light")
    shown = "e => getComputedStyle(e, '::after').content"
    word = report.page.locator("a.term", has_text="Retrain").first
    assert word.evaluate(shown) == "none"
    word.focus()
    report.page.keyboard.press("Shift+Tab")
    report.page.keyboard.press("Tab")
    assert "without the forget set" in word.evaluate(shown)
    assert report.faults() == []


def test_it_prints_in_ink_on_white_whatever_the_screen_is(report):
    report.show(1280, "dark")
    report.page.emulate_media(media="print", color_scheme="dark")
    look = report.page.evaluate(
        "() => [getComputedStyle(document.body).backgroundColor,"
        " getComputedStyle(document.querySelector('.chart text')).fill]"
    )
    report.page.emulate_media(media="screen")
    assert look[0] == "rgb(255, 255, 255)"
    assert max(map(int, look[1][4:-1].split(","))) <= 0x33


def test_a_page_of_pictures_and_tables_has_no_script_and_is_as_clean(chromium, tmp_path):
    svg = to_svg(points_chart([Point("a", 0.5, 0.4, 0.6)], title="t"))
    body = [
        html_table(["Claim", "Verdict"], [["words " * 30, "holds"]], prose=True),
        html_table([f"Column {i}" for i in range(30)], [["1.000±0.001"] * 30]),
        figure_section("Figure 1", svg, "A caption."),
        figure_section("Figure 2", svg, "Another."),
    ]
    path = tmp_path / "page.html"
    path.write_text(compose_page(body, title="A page", lead="What it <em>is</em>."))
    opened = Opened(chromium, path, charts=False)
    for width, scheme in ((360, "light"), (1280, "dark")):
        opened.show(width, scheme)
        assert opened.faults() == []
        assert opened.violations() == []
    assert opened.complaints == []
    assert opened.page.evaluate("[...document.images].every((i) => i.naturalWidth > 0)")
