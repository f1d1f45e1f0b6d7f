"""The page: our tables beside the paper's, each claim with its verdict, the figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments.charts import Picture
from experiments.frame import PaperCommand, load_result
from experiments.pages import Section, Table, column, details, read_columns, write_page
from experiments.sg_unlearn import claims, figures
from experiments.sg_unlearn.paper import METRICS, MISPRINTED, NAMES, PaperTable
from experiments.sg_unlearn.runs import Ablation
from unlearnkit.reporting import html_table, rows, to_markdown
from unlearnkit.studies import Record

LEAD = (
    "Mean ± standard deviation over the seeds. The membership attack is a logistic regression on "
    "the loss, ten-fold, forget set against test set; 0.5 is chance. A claim is judged by the 95 % "
    "interval of its figure over our seeds, paired by seed."
)
JUDGES = {"random": claims.random_claims, "class": claims.class_claims}
KINDS = {"random": "random forgetting", "class": "class-wise forgetting"}
COLUMNS = (
    *(
        column(name, title=label, decimals=4, explanation="")
        for name, label in claims.LABELS.items()
    ),
    *read_columns("costs"),
)


def make_page(command: PaperCommand, datasets: Sequence[str]) -> Path:
    """Writes the page of all results of a scale that are there; returns its path."""
    parts = {f"{dataset}-{kind}": kind for dataset in datasets for kind in (*KINDS, "ablation")}
    sections, runs = {}, {}
    for name, path in command.present(parts).items():
        run, records = load_result(path)
        dataset = run["settings"]["dataset"]
        if parts[name] == "ablation":
            sections[name] = _ablation(dataset, run, Ablation(**run.pop("ablation")))
        else:
            losses = run.pop("retrain_losses")
            sections[name] = _comparison(dataset, parts[name], run, records, losses)
        runs[path.stem] = run
    return write_page(command, sections, runs, title="SG-Unlearn (Di et al. 2024)", lead=LEAD)


def _comparison(
    dataset: str, kind: str, run: Mapping[str, Any], records: Sequence[Record], losses: Any
) -> Section:
    head = ["Method", *(column.title for column in COLUMNS)]
    return Section(
        f"{dataset}: {KINDS[kind]}",
        [Table(to_markdown(records, COLUMNS), html_table(head, rows(records, COLUMNS)))],
        JUDGES[kind](records),
        pictures={
            "losses": Picture(None, figures.LOSSES),
            "retrain": figures.retrain_figure(losses),
        },
        more=[*map(_paper, claims.tables_of(kind)), *_choices(run)],
    )


def _ablation(dataset: str, run: Mapping[str, Any], ablation: Ablation) -> Section:
    pictures = {
        "epochs": figures.ablation_figure(ablation),
        "alpha": figures.sweep_figure(ablation),
    }
    judged, more = claims.ablation_claims(ablation), _choices(run)
    return Section(f"{dataset}: the auditor", claims=judged, pictures=pictures, more=more)


def _choices(run: Mapping[str, Any]) -> list[str]:
    body = []
    for name, choice in run["choices"].items():
        tried = [
            f"{trial['value']:g}: {trial['accuracy'] - trial['mia_accuracy']:.4f}"
            + (f" ({trial['diverged']} diverged)" if trial["diverged"] else "")
            for trial in choice["tried"]
        ]
        body.append([NAMES[name], choice["hyperparameter"], "; ".join(tried)])
    head = ["Method", "hyperparameter", "value: validation accuracy less MIA accuracy"]
    caption = "Values that were tried on other examples; the largest mean difference was taken"
    return [details(caption, head, body)] if body else []


def _paper(table: PaperTable) -> str:
    labels = {**claims.LABELS, "mia_loss_logistic_f1": "MIA F1"}
    body = []
    for name, values in table.mean.items():
        label = NAMES[name] + (" (misprinted)" if (table.number, name) in MISPRINTED else "")
        spread = table.std[name]
        cells = [
            f"{value:.4f}±{spread[metric]:.4f}" if metric in spread else f"{value:g}"
            for metric, value in values.items()
        ]
        body.append([label, *cells])
    head = ["Di et al. 2024", *(labels.get(name, name) for name in METRICS)]
    caption = f"The paper's Table {table.number}, {table.dataset}, {KINDS[table.kind]}"
    return details(caption, head, body)
