"""The page: tables, claims with their verdicts, figures, from the results that are there."""

from __future__ import annotations

import html
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from experiments.claims import Claim, claims_markdown, claims_table
from experiments.frame import Scale
from experiments.poison_unlearning import claims, figures
from experiments.poison_unlearning.grid import as_rows, load_grid, over_budget
from experiments.poison_unlearning.setting import POISONS, choose_settings
from unlearnkit.io.files import write_text
from unlearnkit.reporting import (
    Column,
    compose_page,
    figure_section,
    settings_section,
    table_section,
    to_markdown,
)
from unlearnkit.studies import Record

SYNTHETIC = "synthetic"
"""Stands for the dataset of Figure 5, which is drawn."""
PARTS_OF_DATA = (*POISONS, "shift")
PARTS_OF_SYNTHETIC = ("updates",)
PARTS = (*PARTS_OF_DATA, *PARTS_OF_SYNTHETIC)
TITLES = {
    "gaussian": "Gaussian poisons",
    "targeted": "Targeted poisons",
    "indiscriminate": "Indiscriminate poisons",
    "shift": "Hypothesis 1: poisons shift the model far",
    "updates": "Hypothesis 2: clean gradients do not lead back",
}
LEAD = (
    "Mean ± standard deviation over the seeds. <em>original</em> trained on the poisons, and "
    "nothing was done to it; <em>retrained</em> never saw them. Costs are counted in "
    "example-gradients; <em>retrain</em> at a budget trains anew for as long as the others "
    "unlearn. A claim is judged by the 95 % interval of its figure over our seeds, paired by seed."
)


def _metric(name: str, scale: float = 1.0) -> Any:
    return lambda record: scale * record.metrics[name]


_OWN = {
    "gaussian": (
        Column(
            "TPR two-sided, %",
            _metric("gaussian_tpr_two_sided", 100),
            1,
            "poisons that |I_z| gives away at a false positive rate of 1 %",
        ),
        Column("TPR above, %", _metric("gaussian_tpr_above", 100), 1, "the same by I_z"),
        Column("TPR below, %", _metric("gaussian_tpr_below", 100), 1, "the same by -I_z"),
        Column("GUS", _metric("gaussian_gus"), 3, "mean I_z; N(0, 1/P) for a clean network"),
    ),
    "targeted": (
        Column(
            "Success, %",
            _metric("targets_targeted_success", 100),
            0,
            "targets that are taken for the adversarial class",
        ),
        Column(
            "p adversarial, %",
            _metric("targets_adversarial_probability", 100),
            1,
            "the targets' probability of that class",
        ),
    ),
    "indiscriminate": (
        Column(
            "Drop, points",
            _metric("accuracy_drop", 100),
            2,
            "test accuracy of a network trained on clean data, less this one's",
        ),
    ),
}
_SHARED = (
    Column("Test, %", _metric("accuracy_test", 100), 2, "accuracy on unseen data"),
    Column("Retain, %", _metric("accuracy_retain", 100), 1, "accuracy on what stays"),
    Column("Poisons, %", _metric("accuracy_forget", 100), 1, "accuracy on the poisons"),
    Column("Shift L2", _metric("shift_l2"), 3, "distance of the weights to the original's"),
    Column("Cost, %", _metric("compute", 100), 1, "of Retrain's example-gradients", spread=False),
)


def columns(kind: str) -> tuple[Column, ...]:
    """Returns the columns of the table of one kind of poisons."""
    return (*_OWN[kind], *_SHARED)


def result_path(folder: Path, part: str, dataset: str, scale: Scale) -> Path:
    """Returns where the result of a part is kept."""
    name = SYNTHETIC if part in PARTS_OF_SYNTHETIC else dataset
    return folder / "poison_unlearning" / f"{name}-{part}-{scale}.json"


def write_page(folder: Path, scale: Scale) -> Path:
    """Writes tables, figures and the page of all results of a scale; returns the page's path.

    Raises:
      FileNotFoundError: there are none.
    """
    summaries: list[str] = []
    sections: list[str] = []
    runs: dict[str, Any] = {}
    for dataset in (*choose_settings(scale), SYNTHETIC):
        grids: dict[str, Sequence[Record]] = {}
        for part in PARTS_OF_SYNTHETIC if dataset == SYNTHETIC else PARTS_OF_DATA:
            path = result_path(folder, part, dataset, scale)
            if not path.is_file():
                continue
            title = f"{dataset}: {TITLES[part]}"
            made, runs[title], grids[part] = _part(part, path)
            sections += [f"<h2>{html.escape(title)}</h2>", *made]
        summary = claims.no_silver_bullet({k: v for k, v in grids.items() if v})
        if summary:
            path = folder / "poison_unlearning" / f"{dataset}-{scale}.md"
            write_text(path, claims_markdown(summary))
            summaries += [f"<h2>{html.escape(dataset)}</h2>", claims_table(summary)]
    if not runs:
        raise FileNotFoundError(f"no result of scale {scale} in {folder / 'poison_unlearning'}")
    title = f"Machine unlearning and data poisoning (Pawelczyk et al. 2024), scale {scale}"
    page = folder / "poison_unlearning" / f"{scale}.html"
    body = [*summaries, *sections, settings_section(runs)]
    write_text(page, compose_page(body, title=title, lead=LEAD))
    return page


def _part(part: str, path: Path) -> tuple[list[str], dict[str, Any], Sequence[Record]]:
    """Writes what a result says; returns its sections, its settings, and the records of a grid."""
    records: Sequence[Record] = ()
    sections: list[str] = []
    if part in POISONS:
        run, records = load_grid(path)
        judged, drawn = _grid(part, records)
        rows = as_rows(records)
        sections += [table_section(rows, columns(part)), _gallery(path)]
        table = to_markdown(rows, columns(part)) + "\n"
    else:
        run = json.loads(path.read_text(encoding="utf-8"))
        judged, drawn = _study(part, run.pop("figure"))
        table = ""
    notes = [*run["notes"], *over_budget(records)]
    notes_text = "".join(f"\n{note}\n" for note in notes)
    write_text(path.with_suffix(".md"), table + claims_markdown(judged) + notes_text)
    sections += [claims_table(judged), *(f"<p>{html.escape(note)}</p>" for note in notes)]
    for name, (svg, caption) in drawn.items():
        write_text(path.with_name(f"{path.stem}-{name}.svg"), svg)
        sections.append(figure_section(caption.partition(":")[0], svg, caption))
    return sections, run, records


def _grid(kind: str, records: Sequence[Record]) -> tuple[list[Claim], dict[str, tuple[str, str]]]:
    drawn = {
        "methods": (
            figures.methods_against_retrain(kind, records),
            {"gaussian": "Figure 2", "targeted": "Figure 3", "indiscriminate": "Table 2"}[kind]
            + ": what each method leaves at the largest budget. The lines are the network that "
            "nothing was done to (solid) and Retrain (dashed).",
        ),
        "budgets": (
            figures.budgets(kind, records),
            "Figure 8: what is left as the budget grows. The dashed line is Retrain.",
        ),
    }
    if kind == "gaussian":
        drawn["statistics"] = (
            figures.statistics(records),
            "Figures 6 and 7: the statistic of all poisons of all seeds, and how many it gives "
            "away at each false positive rate.",
        )
        drawn["sizes"] = (
            figures.sizes(records),
            "Figure 9: the same attack on other shares of the training set.",
        )
    return claims.grid_claims(kind, records), drawn


def _study(part: str, figure: Any) -> tuple[list[Claim], dict[str, tuple[str, str]]]:
    if part == "shift":
        caption = (
            "Figure 4: distance between logistic regressions on features with the poisons, and "
            "without a share β of them, against as many random clean samples."
        )
        return claims.shift_claims(figure), {"shifts": (figures.shifts(figure), caption)}
    caption = (
        "Figure 5: cosine of each mini-batch gradient of what stays with the way from where "
        "descent begins to where training without the poisons ends."
    )
    return claims.update_claims(figure), {"updates": (figures.updates(figure), caption)}


def _gallery(path: Path) -> str:
    picture = path.with_name(f"{path.stem}-poisons.svg")
    if not picture.is_file():
        return ""
    caption = "Base images, poisons, and their difference times ten around grey."
    return figure_section("Poisons", picture.read_text(encoding="utf-8"), caption)
