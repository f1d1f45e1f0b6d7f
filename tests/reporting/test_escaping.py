"""Names of users and values that are not numbers, in every form in which a run is shown."""

import io
import json
import math
import re
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from unlearnkit.base import (
    Cost,
)
from unlearnkit.io.files import as_json, numbers_from_json
from unlearnkit.reporting import (
    ReportOptions,
    RunFolder,
    figure_section,
    html_table,
    points_chart,
    present,
    read_records,
    read_run,
    report_figures,
    report_page,
    rows,
    to_latex,
    to_markdown,
    to_rich,
    to_svg,
)
from unlearnkit.reporting.escaping import latex_cell, markdown_name, slug
from unlearnkit.reporting.figures import Point
from unlearnkit.studies import ORIGINAL, RETRAIN, Record

RUN = {"experiment": "test"}
DASH = "\N{EN DASH}"
HOSTILE = (
    "../../x",
    "",
    ".",
    "..",
    "/etc/passwd",
    "a/b",
    "a\\b",
    "con|pipe",
    "two\nlines",
    "ends\r\n",
    "\x1b[2J\x1b[1;1HVALID",
    "back\\",
    "# ~ ^ { } \\ & % $ _",
    r"\input{secret}",
    "$\\undefined{$",
    "[x]",
    "*star*",
    "_hidden",
    "_both_",
    "`code`",
    "<script>alert(1)</script>",
    "<!--",
    "&amp;",
    "[bold]red[/bold]",
    "right\u202eleft",
    "line\u2028separator",
    "null\0",
    "x" * 5000,
    f"Größe 3 {DASH} ±",
    "file",
)
METRICS = {
    "accuracy_retain": 1.0,
    "accuracy_forget": 0.95,
    "accuracy_test": 0.9,
    "mia_loss_logistic_accuracy": 0.55,
    "mia_loss_logistic_auc_max": 0.6,
    "ks_statistic": 0.125,
    "wasserstein": 0.25,
    "activation_distance_forget": 0.5,
    "average_gap": 0.01,
}


def make(method, seed=0, **metrics):
    rates = np.array([0.0, 0.5, 1.0])
    curves = {
        "loss_forget": np.array([0.1, 0.2]),
        "loss_test": np.array([0.1, 0.3]),
        "mia_loss_logistic_fpr": rates,
        "mia_loss_logistic_tpr": rates,
    }
    return Record(method, seed, {**METRICS, **metrics}, Cost(10.0, 0.5), curves=curves)


RECORDS = [make(name) for name in HOSTILE]


def test_curves_stay_in_their_folder_and_apart(tmp_path):
    outer = tmp_path / "outer"
    folder = RunFolder(outer / "deep" / "run", RUN)
    for index, name in enumerate(HOSTILE):
        record = make(name)
        folder.add(record._replace(curves={"loss_test": np.array([float(index)])}))
    assert folder.problem is None
    files = [path for path in outer.rglob("*") if path.is_file()]
    curves = [path for path in files if path.parent == folder.path / "curves"]
    assert len(curves) == len(HOSTILE)
    assert {path.parent for path in files} == {folder.path, folder.path / "curves"}
    back = read_records(folder.path)
    assert [record.method for record in back] == list(HOSTILE)
    assert [record.curves["loss_test"][0] for record in back] == list(range(len(HOSTILE)))


@given(st.text(), st.text())
def test_different_names_have_different_slugs_on_every_disk(one, other):
    assert re.fullmatch(r"[a-z0-9][a-z0-9._~-]{0,90}", slug(one))
    assert (slug(one) == slug(other)) == (one == other)


def test_names_that_look_alike_have_slugs_of_their_own():
    alike = [
        "a b",
        "A b",
        "a/b",
        "a-b",
        "A-b",
        "a_b",
        "a b ",
        "ä",
        "ö",
        "",
        " ",
        "x" * 81,
        "x" * 82,
    ]
    assert len({slug(name).lower() for name in alike}) == len(alike)
    assert slug("gradient_ascent-0.5") == "gradient_ascent-0.5"
    assert slug(slug("a b")) != slug("a b")


@pytest.mark.parametrize("name", ["../x.md", "a/b.md", "", ".", "..", "run.json", "metrics.jsonl"])
def test_a_page_is_written_into_the_folder_only(tmp_path, name):
    folder = RunFolder(tmp_path / "run", RUN)
    with pytest.raises(ValueError, match="plain file name other than"):
        folder.write(name, "text")
    assert read_run(folder.path) == RUN


@pytest.mark.parametrize("name", ["file", "args", "allow_pickle", "a/b", "../x"])
def test_curves_of_any_name_come_back(tmp_path, name):
    folder = RunFolder(tmp_path, RUN)
    folder.add(make("m")._replace(curves={name: np.arange(3)}))
    np.testing.assert_array_equal(read_records(tmp_path)[0].curves[name], [0, 1, 2])


def test_curves_that_would_be_pickled_are_refused(tmp_path):
    with pytest.raises(ValueError, match="[Oo]bject"):
        RunFolder(tmp_path, RUN).add(make("m")._replace(curves={"odd": np.array([{}])}))


def test_every_markdown_row_has_its_cells():
    lines = to_markdown(RECORDS).splitlines()
    assert len(lines) == len(HOSTILE) + 2
    for line in lines:
        assert len(re.findall(r"(?<!\\)(?:\\\\)*\|", line)) == len(present(RECORDS)) + 2
        assert line.isprintable()


@pytest.mark.parametrize(
    ("name", "cell"),
    [
        ("fine_tune", "fine_tune"),
        ("a|b", r"a\|b"),
        ("a\\|b", r"a\\\|b"),
        ("a\nb", "a b"),
        ("_a_b_", r"\_a_b\_"),
        ("*a*", r"\*a\*"),
        ("<b>", r"\<b\>"),
        ("[a](b)", r"\[a\](b)"),
        ("`a`", r"\`a\`"),
        ("\x1b[2J", r"\\x1b\[2J".replace(r"\\x", r"\\x")),
    ],
)
def test_markdown_shows_the_name_as_it_is(name, cell):
    assert markdown_name(name) == cell


@pytest.mark.parametrize(
    ("name", "cell"),
    [
        ("# ~ ^", r"\# \textasciitilde{} \textasciicircum{}"),
        ("{ } \\", r"\{ \} \textbackslash{}"),
        ("& % $ _", r"\& \% \$ \_"),
        ("a\nb", "a b"),
        ("[x]", "{[}x]"),
        ("*x", "{*}x"),
        ("_x", r"\_x"),
        ("a<b|c>", r"a\textless{}b\textbar{}c\textgreater{}"),
        (f"1±2 {DASH}", r"1$\pm$2 --"),
        ("", ""),
    ],
)
def test_latex_shows_the_name_as_it_is(name, cell):
    assert latex_cell(name) == cell


def test_every_latex_row_has_its_cells():
    body = to_latex(RECORDS).split("\\midrule\n")[1].split("\\bottomrule")[0].splitlines()
    assert len(body) == len(HOSTILE)
    for row in body:
        assert len(re.findall(r"(?<!\\)&", row)) == len(present(RECORDS))
        assert row.count(r"\\") == 1
        assert row.endswith(r" \\")
        plain = re.sub(r"\\[#%&_${}]|\\[a-z]+\{\}|\$\\pm\$", "", row.removesuffix(r" \\"))
        assert not set(plain.replace("{[}", "").replace("{*}", "")) & set("#%_$\\~^{}")


class _Cells(HTMLParser):
    """Collects the texts of cells, and the names of all elements."""

    def __init__(self):
        super().__init__()
        self.cells, self.tags = [], set()

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)
        if tag == "th" and ("scope", "row") in attributes:
            self.cells.append("")

    def handle_data(self, data):
        if self.cells:
            self.cells[-1] += data


def test_a_page_shows_every_name_and_runs_none():
    lost = [record._replace(diverged="<b>loss\x1b nan</b>") for record in RECORDS]
    page = report_page(lost, {**RUN, "<i>": "</pre><script>\x00"}, title="<script>\x1b")
    parser = _Cells()
    parser.feed(page)
    assert not {"b", "i"} & parser.tags
    body = re.sub(r'<script type="module">.*?</script>', "", page, flags=re.DOTALL)
    assert "<script>" not in body
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f\u202e]", body)
    parser = _Cells()
    parser.feed(html_table(["Name"], [[name] for name in HOSTILE]))
    assert parser.tags == {"div", "table", "thead", "tbody", "tr", "th"}
    assert len(parser.cells) == len(HOSTILE)
    for name, cell in zip(HOSTILE, parser.cells, strict=True):
        if name.isprintable():
            assert cell == name
    assert "&lt;b&gt;" in figure_section("<b>", "<svg/>", "<b>")


def test_a_chart_s_specification_does_not_end_its_element():
    name = "</script><b>"
    records = [make(method, seed) for method in (ORIGINAL, RETRAIN, name) for seed in range(2)]
    page = report_page(records, RUN, title="t", options=ReportOptions(primary="average_gap"))
    specifications = re.findall(r'<script type="application/json">(.*?)</script>', page, re.DOTALL)
    assert any(name in json.dumps(json.loads(text)) for text in specifications)
    parser = _Cells()
    parser.feed(page)
    assert "b" not in parser.tags


def test_figures_hold_every_name():
    shown = ("_hidden", "<script>alert(1)</script>", "$\\undefined{$", "# ~ ^ { } \\ & % $ _")
    names = (*shown, "x" * 5000, "\x1b[2J\0")
    points = [Point(name, 0.5, 0.4, 0.6) for name in names]
    said = json.dumps(points_chart(points, title="t").to_dict(), ensure_ascii=False)
    for name in (*shown, "x" * 39 + "…", "\\x1b[2J\\x00"):
        assert json.dumps(name, ensure_ascii=False)[1:-1] in said
    root = ElementTree.fromstring(to_svg(points_chart(points, title="t")))
    texts = "\n".join(text for element in root.iter() for text in [element.text] if text)
    assert all(name in texts for name in ("_hidden", "<script>alert(1)</script>"))


def test_a_terminal_shows_names_and_obeys_none():
    console = Console(file=io.StringIO(), width=6000, force_terminal=True, no_color=True)
    console.print(to_rich(RECORDS, title="[bold]title\x1b[2J"))
    text = re.sub(r"\x1b\[[0-9;]*m", "", console.file.getvalue())
    assert "\x1b" not in text
    assert "[bold]red[/bold]" in text
    assert r"[bold]title\x1b[2J" in text
    assert r"\x1b[2J\x1b[1;1HVALID" in text


NOT_FINITE = {"average_gap": math.nan, "wasserstein": math.inf, "ks_statistic": -math.inf}


def no_constant(name):
    raise AssertionError(f"{name} is no JSON")


def test_values_that_are_not_finite_are_kept_in_valid_json(tmp_path):
    folder = RunFolder(tmp_path, {"settings": {"limit": math.inf, "rates": [math.nan, 1.0]}})
    folder.add(make("m", **NOT_FINITE)._replace(cost=Cost(math.nan, np.float32(1.5))))
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    metrics = json.loads(lines[0], parse_constant=no_constant)["metrics"]
    assert metrics["average_gap"] is None
    settings = json.loads((tmp_path / "run.json").read_text(), parse_constant=no_constant)
    assert settings == {"settings": {"limit": "inf", "rates": [None, 1.0]}}
    (back,) = read_records(tmp_path)
    np.testing.assert_equal(dict(back.metrics), {**METRICS, **NOT_FINITE})
    np.testing.assert_equal(tuple(back.cost), (math.nan, 1.5, 0.0))


@given(st.dictionaries(st.text(), st.floats()))
def test_numbers_come_back_from_json(values):
    text = json.dumps(as_json(values), allow_nan=False)
    np.testing.assert_equal(numbers_from_json(json.loads(text)), values)


def test_missing_values_are_shown_as_missing():
    records = [
        make("none", 0, **NOT_FINITE),
        make("none", 1, **NOT_FINITE),
        make("some", 0, average_gap=0.02, ks_statistic=0.1),
        make("some", 1, average_gap=math.nan, ks_statistic=math.inf),
        make("some", 2, average_gap=0.04, ks_statistic=math.nan),
    ]
    table = {
        name: dict(zip([c.title for c in present(records)], cells, strict=True))
        for name, *cells in rows(records)
    }
    assert [table["none"][title] for title in ("Gap", "W₁", "KS")] == [DASH] * 3
    assert table["none"]["Retain"] == "100.0±0.0"
    assert table["some"]["Gap"] == "3.00±1.41 (1 missing)"
    assert table["some"]["KS"] == "0.100 (2 missing)"
    page = report_page(records, {**RUN, "limit": math.inf, "rate": math.nan}, title="t")
    assert "&#34;limit&#34;: &#34;inf&#34;" in page
    assert "&#34;rate&#34;: null" in page
    page = report_page(records, RUN, title="t")
    shown = re.sub(r'<script type="module">.*?</script>', "", page, flags=re.DOTALL)
    for text in (to_markdown(records), to_latex(records), shown):
        assert not re.search(r"\b(nan|inf)\b", text)
    assert f"<dt>{DASH}</dt><dd>missing" in page
    assert f"<dt>{DASH}</dt>" not in report_page([make("m")], RUN, title="t")


def test_figures_leave_out_what_is_missing():
    odd = {"loss_forget": np.array([np.nan, np.inf, 0.1]), "loss_test": np.full(2, np.nan)}
    curves = {**make("m").curves, **odd}
    records = [make("whole"), make("odd", **NOT_FINITE)._replace(curves=curves)]
    drawn = {figure.name: json.dumps(figure.chart.to_dict()) for figure in report_figures(records)}
    assert "whole" in drawn["distance"]
    assert "odd" not in drawn["distance"]
    assert all("NaN" not in text and "Infinity" not in text for text in drawn.values())
