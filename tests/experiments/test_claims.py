"""The claims of the papers are frozen: none is changed, weakened or dropped, and all are judged."""

import hashlib
import importlib
import json
import shutil
import tomllib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from experiments import claims, frame, pages
from experiments.claims import FILE, Statement, judge_all, statements, together
from unlearnkit.reporting import charts

ROOT = Path(__file__).parents[2]
FROZEN = Path(__file__).with_name("frozen_claims.json")
PAPERS = ("forging", "ntk_scrubbing", "poison_unlearning", "sg_unlearn", "tgda")
COMMANDS = {
    "forging": ("Forging", {"part": "page"}),
    "ntk_scrubbing": ("NtkScrubbing", {"page": True}),
    "poison_unlearning": ("PoisonUnlearning", {"part": "page"}),
    "sg_unlearn": ("SgUnlearn", {"part": "page"}),
    "tgda": ("Tgda", {"page": True}),
}
NOT_RUN_AT_CPU_SCALE = {
    "tgda.twenty_steps_of_the_attacker",
}
"""Judged by made-up records in the tests of their papers."""


def digest(*parts):
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:12]


def declared():
    """Every statement of claims.toml by its id."""
    said = tomllib.loads(FILE.read_text(encoding="utf-8"))
    return {s.id: s for paper in said for s in statements(paper).values()}


def rows_of(text):
    """The texts of the claims in a page's Markdown."""
    return [line.split(" | ")[0].removeprefix("| ") for line in text.splitlines()
            if line.endswith("** |")]  # fmt: skip


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """By paper: the folder of its pages, made from committed results, and the ids judged there."""
    return {}


@pytest.fixture
def page(request, made, tmp_path, monkeypatch):
    paper = request.param
    if paper not in made:
        judged = set()
        write = pages.claims_table
        monkeypatch.setattr(charts, "to_svg", lambda figure: "<svg></svg>")
        monkeypatch.setattr(
            pages, "claims_table", lambda c: judged.update(one.id for one in c) or write(c)
        )
        shutil.copytree(ROOT / "results" / paper, tmp_path / paper)
        module = importlib.import_module(f"experiments.{paper}.__main__")
        name, options = COMMANDS[paper]
        command = getattr(module, name)(scale="cpu", results=tmp_path, **options)
        assert frame.main(command) == 0
        texts = {p.name: p.read_text(encoding="utf-8") for p in (tmp_path / paper).glob("*.md")}
        made[paper] = texts, judged
    return paper, *made[paper]


@pytest.mark.parametrize("page", PAPERS, indirect=True)
def test_committed_pages_come_from_committed_results(page):
    paper, texts, _ = page
    committed = (ROOT / "results" / paper).glob("*.md")
    assert texts == {path.name: path.read_text(encoding="utf-8") for path in committed}


@pytest.mark.parametrize("page", PAPERS, indirect=True)
def test_every_claim_is_judged(page):
    paper, _, judged = page
    wanted = {name for name in declared() if name.partition(".")[0] == paper}
    assert wanted - judged - NOT_RUN_AT_CPU_SCALE == set()


def frozen_now():
    """What must be in the file of what is frozen."""
    pages_of = sorted((ROOT / "results").glob("*/*-cpu.md"))
    found = {f"{p.parent.name}/{p.stem}": rows_of(p.read_text(encoding="utf-8")) for p in pages_of}
    return {
        "statements": {s.id: digest(s.text, s.sign, s.threshold) for s in declared().values()},
        "rows": {page: [digest(row) for row in rows] for page, rows in found.items() if rows},
    }


def test_no_statement_is_changed_or_dropped_and_new_ones_are_frozen():
    frozen = json.loads(FROZEN.read_text())["statements"]
    now = frozen_now()["statements"]
    assert frozen == {name: now.get(name) for name in frozen}
    assert set(now) <= set(frozen), f"freeze the new ones: python {Path(__file__).name}"


def test_no_claim_of_a_committed_page_is_dropped():
    frozen, now = json.loads(FROZEN.read_text())["rows"], frozen_now()["rows"]
    assert sum(map(len, frozen.values())) >= 302
    for name, rows in frozen.items():
        assert set(rows) <= set(now[name]), name


def test_a_changed_word_sign_or_threshold_is_noticed():
    one = Statement("a.b", "It falls below 0.9", "here", "f", sign=-1, threshold=0.9)
    same = digest(one.text, one.sign, one.threshold)
    assert same == digest("It falls below 0.9", -1, 0.9)
    for other in (("It falls below 0.8", -1, 0.9), (one.text, 1, 0.9), (one.text, -1, 0.8)):
        assert digest(*other) != same


def test_a_statement_is_judged_by_its_sign_beyond_its_threshold():
    one = Statement(
        "a.b", "{who} is above 0.5", "Table {n}", "f", sign=1, threshold=0.5, ours="by {}",
        paper="{n}",
    )  # fmt: skip
    claim = one.judge([0.9, 1.0, 0.8], who="It", n=3)
    assert (claim.text, claim.where, claim.paper, claim.id) == ("It is above 0.5", "Table 3", "3",
                                                                "a.b")  # fmt: skip
    assert claim.ours == "by +0.4000 ± 0.2484"
    assert claim.verdict == "holds"
    assert one.judge([0.1, 0.2, 0.0], who="It", n=3).verdict == "does not hold"
    assert one.judge([0.1, 0.9, 0.5], who="It", n=3).verdict == "undecided"
    nothing = one.judge([], who="It", n=3, paper="other")
    assert (nothing.ours, nothing.verdict, nothing.paper) == ("no result", "undecided", "other")


def test_an_interval_of_several_is_wider():
    values = [0.1, 0.2, 0.6]
    for many in (1, 8):
        mean, reach = claims.interval(values, many)
        wanted = stats.t.interval(1 - 0.05 / many, 2, np.mean(values), stats.sem(values))
        np.testing.assert_allclose([mean - reach, mean + reach], wanted)


ABOVE = Statement("a.b", "It is above 0", "here", "f", sign=1)


def test_runs_that_come_in_no_pairs_are_judged_by_all_of_them():
    many, few = np.linspace(0.9, 1.1, 40), [0.2, 0.4]
    claim = ABOVE.judge(many, 1, few)
    oracle = stats.ttest_ind(many, few, equal_var=False).confidence_interval()
    mean, reach = claims.interval(many, 1, few)
    np.testing.assert_allclose([mean - reach, mean + reach], oracle)
    assert claim.verdict == "undecided"  # of two runs, 1.3 deviations wide
    assert "limited by the spread over 40 and 2 seeds" in claim.ours
    assert ABOVE.judge(many, 1, [0.2, 0.3, 0.4, 0.2]).verdict == "holds"
    assert claims.together([claim, claim])[0].ours != claim.ours  # judged again, and wider
    assert ABOVE.judge(many, 1, []).ours == "no result"


def holm_by_p_values(samples):
    """Holm's verdicts written out: the i-th smallest of m p-values is below 0.05 / (m - i)."""
    p = np.array([stats.ttest_1samp(values, 0).pvalue for values in samples])
    verdicts = ["undecided"] * len(p)
    for rank, i in enumerate(np.argsort(p)):
        if not p[i] < 0.05 / (len(p) - rank):
            break
        verdicts[i] = "holds" if np.mean(samples[i]) > 0 else "does not hold"
    return verdicts


@given(st.integers(0, 2**31), st.integers(1, 12))
@settings(deadline=None, max_examples=60)
def test_claims_of_one_result_are_decided_as_by_holm(seed, many):
    rng = np.random.default_rng(seed)
    samples = rng.normal(rng.choice([-1.5, -0.7, 0, 0.7, 1.5], size=(many, 1)), 1.0, (many, 6))
    found = together([ABOVE.judge(values) for values in samples])
    assert [claim.verdict for claim in found] == holm_by_p_values(samples)


def test_the_last_interval_of_a_claim_is_shown_and_what_needs_none_does_not_count():
    sure, unsure = [0.9, 1.0, 0.9], [0.17, 0.27, 0.27]
    seen, none, one = ABOVE.decide(True, "seen"), ABOVE.judge([]), ABOVE.judge([0.5])
    found = together([ABOVE.judge(sure), seen, ABOVE.judge(unsure), ABOVE.judge([0.1, 0.9, 0.5]),
                      none, one])  # fmt: skip
    verdicts = ["holds", "holds", "holds", "undecided", "undecided", "undecided"]
    assert [claim.verdict for claim in found] == verdicts
    shown = [claims.in_words(sure, False, 3), claims.in_words(unsure, False, 2)]
    assert [found[0].ours, found[2].ours] == shown
    assert found[3].ours.endswith("limited by the spread over 3 seeds")
    assert [claim.ours for claim in found[4:]] == ["no result", "+0.5000 (one seed)"]
    said = together([ABOVE.judge(unsure, ours="{} in {unit}", unit="points")])
    assert said[0].ours.endswith("in points")


@pytest.mark.parametrize(("size", "verdict"), [(4e-5, "undecided"), (6e-5, "holds")])
def test_a_difference_that_is_shown_as_zero_decides_nothing(size, verdict):
    claim = ABOVE.judge([size, 1.01 * size, 0.99 * size])
    assert claim.verdict == verdict
    assert claim.ours.endswith("limited by its last digit") == (verdict == "undecided")


def test_a_figure_of_an_order_lies_within_a_factor_of_the_paper_s():
    one = Statement("a.b", "It is about 1e-8", "here", "f", threshold=10)
    found = {ours: one.order(ours, 1e-8).verdict for ours in (0.0, 2e-9, 9e-8, 2e-7, 5e-10)}
    assert list(found.values()) == ["does not hold", "holds", "holds", *["does not hold"] * 2]
    assert (one.order(2e-9, 1e-8).ours, one.order(2e-9, 1e-8).paper) == ("2e-09", "1e-08")


def test_figures_that_are_not_given_are_not_judged():
    assert judge_all("tgda", {}) == []
    found = judge_all("ntk_scrubbing", {"rise": lambda claim: [claim.judge([1.0, 1.1])]})
    assert [claim.id for claim in found] == ["ntk_scrubbing.information_costs_error"]
    assert claims.statements("tgda")["over_min_max"].rows == ("tgda_long", "min_max")


if __name__ == "__main__":
    kept = json.loads(FROZEN.read_text()) if FROZEN.exists() else {"statements": {}, "rows": {}}
    new = frozen_now()
    merged = {part: {**new[part], **kept[part]} for part in new}
    FROZEN.write_text(json.dumps(merged, indent=1, sort_keys=True) + "\n")
