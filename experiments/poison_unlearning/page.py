"""The page: tables, claims with their verdicts, figures, from the results that are there."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from experiments.charts import Picture
from experiments.frame import PaperCommand, load_result
from experiments.pages import Section, read_columns, records_table, write_page
from experiments.poison_unlearning import claims, figures
from experiments.poison_unlearning.settings import POISONS
from unlearnkit.records import row_name
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


def result_name(part: str, dataset: str) -> str:
    """Returns the name of the result of a part."""
    return f"{SYNTHETIC if part in PARTS_OF_SYNTHETIC else dataset}-{part}"


def make_page(command: PaperCommand, datasets: Sequence[str]) -> Path:
    """Writes the page of all results of a scale that are there; returns its path."""
    summaries, sections, runs = {}, {}, {}
    for dataset in (*datasets, SYNTHETIC):
        grids: dict[str, list[Record]] = {}
        for part in PARTS_OF_SYNTHETIC if dataset == SYNTHETIC else PARTS_OF_DATA:
            name = result_name(part, dataset)
            for path in command.present([name]).values():
                run, records = load_result(path)
                title = f"{dataset}: {TITLES[part]}"
                if part in POISONS:
                    grids[part] = records
                    sections[name] = _grid(part, title, run["notes"], records)
                else:
                    sections[name] = _study(part, title, run["notes"], run.pop("figure"))
                runs[title] = run
        if summary := claims.no_silver_bullet(grids):
            summaries[dataset] = Section(dataset, claims=summary)
    title = "Machine unlearning and data poisoning (Pawelczyk et al. 2024)"
    return write_page(command, summaries | sections, runs, title=title, lead=LEAD)


def as_rows(records: Sequence[Record]) -> list[Record]:
    """Returns the records of a table, whose rows say that questions are shares of poisons.

    What no budget allowed has no row: see `over_budget`.
    """
    return [_of_poisons(record) for record in records if record.over_budget is None]


def over_budget(records: Sequence[Record]) -> list[str]:
    """Returns what a budget did not allow, in words."""
    beyond = [record for record in records if record.over_budget is not None]
    return list(dict.fromkeys(f"{row_name(_of_poisons(r))}: {r.over_budget}" for r in beyond))


def _of_poisons(record: Record) -> Record:
    return record._replace(question="", method=f"{record.question} poisons: {record.method}")


def _grid(kind: str, title: str, notes: Sequence[str], records: Sequence[Record]) -> Section:
    pictures = {
        "poisons": Picture(None, figures.IMAGES),
        "methods": figures.methods_against_retrain(kind, records),
        "budgets": figures.budgets(kind, records),
    }
    if kind == "gaussian":
        pictures["statistics"] = figures.statistics(records)
        pictures["sizes"] = figures.sizes(records)
    table = records_table(as_rows(records), read_columns(f"poisons_{kind}", "poisons_shared"))
    notes = [*notes, *over_budget(records)]
    return Section(title, [table], claims.grid_claims(kind, records), notes, pictures)


def _study(part: str, title: str, notes: Sequence[str], figure: Any) -> Section:
    judge, draw, name = (
        (claims.shift_claims, figures.shifts, "shifts")
        if part == "shift"
        else (claims.update_claims, figures.updates, "updates")
    )
    return Section(title, claims=judge(figure), notes=notes, pictures={name: draw(figure)})
