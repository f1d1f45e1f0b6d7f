"""The page: our tables beside the paper's, each claim with its verdict, the figures."""

from __future__ import annotations

import html
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments.claims import claims_markdown, claims_table
from experiments.frame import Scale, load_result
from experiments.sg_unlearn.claims import (
    LABELS,
    ablation_claims,
    class_claims,
    random_claims,
    tables_of,
)
from experiments.sg_unlearn.paper import METRICS, MISPRINTED, NAMES, PaperTable
from experiments.sg_unlearn.runs import Ablation
from unlearnkit.io.files import write_text
from unlearnkit.reporting import (
    Column,
    compose_page,
    figure_section,
    html_table,
    rows,
    settings_section,
    to_markdown,
)
from unlearnkit.studies import Record

LEAD = (
    "Mean ± standard deviation over the seeds. The membership attack is a logistic regression on "
    "the loss, ten-fold, forget set against test set; 0.5 is chance. A claim is judged by the 95 % "
    "interval of its figure over our seeds, paired by seed."
)
JUDGES = {"random": random_claims, "class": class_claims}
KINDS = {"random": "random forgetting", "class": "class-wise forgetting"}


def _metric(name: str) -> Column:
    return Column(LABELS[name], lambda record: record.metrics[name], 4, "")


COLUMNS = (
    *(_metric(name) for name in LABELS),
    Column("seconds", lambda record: record.cost.seconds, 2, "", spread=False),
    Column("gradients", lambda record: record.cost.example_gradients, 0, "", spread=False),
)


def result_path(folder: Path, dataset: str, part: str, scale: Scale) -> Path:
    """Returns where the result of a part on a dataset is kept."""
    return folder / "sg_unlearn" / f"{dataset}-{part}-{scale}.json"


def make_page(folder: Path, scale: Scale, datasets: Sequence[str]) -> str:
    """Returns the page of all results of a scale that are in `folder`.

    Raises:
      FileNotFoundError: there are none.
    """
    sections, run = [], {}
    for dataset, kind, path in _present(folder, scale, datasets):
        if kind in KINDS:
            settings, records = load_result(path)
            sections += _comparison(path, dataset, kind, records)
            sections += _choices(settings)
        else:
            settings, ablation = _load_ablation(path)
            sections += _ablation(path, dataset, ablation)
            sections += _choices(settings)
        run[path.stem] = {k: v for k, v in settings.items() if k != "retrain_losses"}
    if not sections:
        raise FileNotFoundError(f"no result of scale {scale} in {folder / 'sg_unlearn'}")
    title = f"SG-Unlearn (Di et al. 2024), scale {scale}"
    return compose_page([*sections, settings_section(run)], title=title, lead=LEAD)


def write_tables(folder: Path, scale: Scale, datasets: Sequence[str]) -> None:
    """Writes the tables and the judged claims beside the results, in Markdown."""
    for _, kind, path in _present(folder, scale, datasets):
        if kind in KINDS:
            records = load_result(path)[1]
            claims = claims_markdown(JUDGES[kind](records))
            text = f"{to_markdown(records, COLUMNS)}\n{claims}"
        else:
            text = claims_markdown(ablation_claims(_load_ablation(path)[1]))
        write_text(path.with_suffix(".md"), text)


def _present(
    folder: Path, scale: Scale, datasets: Sequence[str]
) -> Iterator[tuple[str, str, Path]]:
    for dataset in datasets:
        for kind in (*KINDS, "ablation"):
            path = result_path(folder, dataset, kind, scale)
            if path.exists():
                yield dataset, kind, path


def _load_ablation(path: Path) -> tuple[dict[str, Any], Ablation]:
    content = json.loads(path.read_text(encoding="utf-8"))
    return content, Ablation(**content.pop("ablation"))


def _comparison(path: Path, dataset: str, kind: str, records: Sequence[Record]) -> list[str]:
    head = ["Method", *(column.title for column in COLUMNS)]
    sections = [
        f"<h2>{html.escape(dataset)}: {KINDS[kind]}</h2>",
        html_table(head, rows(records, COLUMNS)),
        claims_table(JUDGES[kind](records)),
    ]
    sections += [_paper(table) for table in tables_of(kind)]
    for name, caption in (
        ("losses", "Cross-entropy of the forget and the test set (Figure 4)."),
        ("retrain", "Training loss of Retrain, a line per seed (Figure 5)."),
    ):
        figure = path.with_name(f"{path.stem}-{name}.svg")
        if figure.exists():
            sections.append(
                figure_section(f"{dataset}: {KINDS[kind]}, {name}", _read(figure), caption)
            )
    return sections


def _ablation(path: Path, dataset: str, ablation: Ablation) -> list[str]:
    sections = [
        f"<h2>{html.escape(dataset)}: the auditor</h2>",
        claims_table(ablation_claims(ablation)),
    ]
    for name, caption in (
        ("epochs", "SG with (SG-1) and without (SG-0) its auditor over the epochs: means and 95 % "
         "intervals over the seeds; epoch 0 is the original (Figures 1 and 3)."),
        ("alpha", "The end of SG at each alpha, mean over the seeds; dashed: Retrain (Figure 2)."),
    ):  # fmt: skip
        figure = path.with_name(f"{path.stem}-{name}.svg")
        if figure.exists():
            sections.append(figure_section(f"{dataset}: {name}", _read(figure), caption))
    return sections


def _choices(run: Mapping[str, Any]) -> list[str]:
    body = []
    for name, choice in run.get("choices", {}).items():
        tried = [
            f"{trial['value']:g}: {trial['accuracy'] - trial['mia_accuracy']:.4f}"
            + (f" ({trial['diverged']} diverged)" if trial["diverged"] else "")
            for trial in choice["tried"]
        ]
        body.append([NAMES[name], choice["hyperparameter"], "; ".join(tried)])
    if not body:
        return []
    head = ["Method", "hyperparameter", "value: validation accuracy less MIA accuracy"]
    caption = "Values that were tried on other examples; the largest mean difference was taken"
    return [f"<details><summary>{caption}</summary>{html_table(head, body)}</details>"]


def _paper(table: PaperTable) -> str:
    labels = {**LABELS, "mia_loss_logistic_f1": "MIA F1"}
    head = ["Di et al. 2024", *(labels.get(name, name) for name in METRICS)]
    body = []
    for name, values in table.mean.items():
        label = NAMES[name] + (" (misprinted)" if (table.number, name) in MISPRINTED else "")
        spread = table.std[name]
        cells = [
            f"{value:.4f}±{spread[metric]:.4f}" if metric in spread else f"{value:g}"
            for metric, value in values.items()
        ]
        body.append([label, *cells])
    caption = f"The paper's Table {table.number}, {table.dataset}, {KINDS[table.kind]}"
    return f"<details><summary>{html.escape(caption)}</summary>{html_table(head, body)}</details>"


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8")
