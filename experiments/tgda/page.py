"""The page: our figures beside the paper's, each claim with its verdict, the pictures."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments.claims import claims_markdown, claims_table
from experiments.frame import Scale, load_result
from experiments.tgda import figures
from experiments.tgda.claims import Runs, judge, judge_sizes
from experiments.tgda.paper import (
    CLEAN,
    DATASETS,
    DEFENDED,
    MISPRINTED,
    NETWORKS,
    TABLES,
    TRANSFER,
    PaperTable,
    quote,
    title,
)
from experiments.tgda.settings import Target
from unlearnkit.io.files import write_text
from unlearnkit.reporting import (
    Column,
    compose_page,
    figure_section,
    html_table,
    rows,
    settings_section,
)
from unlearnkit.studies import Record

LEAD = (
    "Mean ± standard deviation over the seeds. A drop is the accuracy of a network trained from "
    "scratch on the clean training set less that of one trained in the same way on the poisoned "
    "set, in points of test accuracy. ε is 3 % of the training set where a name says no other. A "
    "claim is judged by the 95 % interval of its figure over our seeds, paired by seed. Where TGDA "
    "was played for longer too, that run is compared with the other attacks, the shorter one with "
    "its ablations."
)
HEAD = (
    "Attack", "accuracy, %", "drop, points", "paper's drop", "poisons", "largest change of a pixel",
    "seconds", "gradients",
)  # fmt: skip
COLUMNS = (
    Column("accuracy, %", lambda record: 100 * record.metrics["accuracy"], 2, ""),
    Column("drop, points", lambda record: 100 * record.metrics["drop"], 2, ""),
    Column("poisons", lambda record: record.metrics["poisons"], 0, "", spread=False),
    Column("seconds", lambda record: record.cost.seconds, 1, "", spread=False),
    Column("gradients", lambda record: record.cost.example_gradients, 0, "", spread=False),
)
PICTURE = (
    "Above the images that poisons are made of, in the middle the poisons, below ten times their "
    "difference on grey. Poisons made of no image stand alone (Figures 3 and 5)."
)
LATER = " An attack that was played again later is drawn again below, and that picture counts."


def result_path(folder: Path, name: str, scale: Scale) -> Path:
    """Returns where the result of a target is kept."""
    return folder / "tgda" / f"{name}-{scale}.json"


def picture_path(result: Path, attack: str | None = None) -> Path:
    """Returns where the poisons of a result are drawn: of all attacks, or of one added later."""
    name = "poisons" if attack is None else f"poisons-{attack}"
    return result.with_name(f"{result.stem}-{name}.svg")


def make_page(folder: Path, scale: Scale, targets: Mapping[str, Target]) -> str:
    """Returns the page of all results of a scale that are in `folder`.

    Raises:
      FileNotFoundError: there are none.
    """
    found = _load(folder, scale, targets)
    if not found:
        raise FileNotFoundError(f"no result of scale {scale} in {folder / 'tgda'}")
    sections: list[str] = []
    for name, (run, records) in found.items():
        sections += _section(result_path(folder, name, scale), targets[name], run, records)
    sections += _sizes(targets, {name: records for name, (_, records) in found.items()})
    sections += [_paper(table) for table in TABLES]
    runs = {name: run for name, (run, _) in found.items()}
    heading = f"Total gradient descent ascent (Lu et al. 2022), scale {scale}"
    return compose_page([*sections, settings_section(runs)], title=heading, lead=LEAD)


def write_tables(folder: Path, scale: Scale, targets: Mapping[str, Target]) -> None:
    """Writes the tables and the judged claims beside the results, in Markdown."""
    found = _load(folder, scale, targets)
    for name, (run, records) in found.items():
        text = make_table(targets[name], run, records)
        write_text(result_path(folder, name, scale).with_suffix(".md"), text)
    sizes = judge_sizes(targets, {name: records for name, (_, records) in found.items()})
    if sizes:
        write_text(folder / "tgda" / f"sizes-{scale}.md", claims_markdown(sizes))


def make_table(target: Target, run: Mapping[str, Any], records: Sequence[Record]) -> str:
    """Returns the tables, the judged claims and the warnings of a target, in Markdown."""
    parts = [
        _markdown(HEAD, _rows(target, records)),
        *(_markdown(head, body) for head, body in _further(target, records)),
        claims_markdown(judge(target, records)),
        *(f"{title(attack)}: {note}\n" for attack, note in _notes(run)),
    ]
    return "\n".join(parts)


def _load(
    folder: Path, scale: Scale, targets: Mapping[str, Target]
) -> dict[str, tuple[dict[str, Any], list[Record]]]:
    paths = {name: result_path(folder, name, scale) for name in targets}
    return {name: load_result(path) for name, path in paths.items() if path.exists()}


def _section(
    path: Path, target: Target, run: Mapping[str, Any], records: Sequence[Record]
) -> list[str]:
    heading = f"{target.source}, {NETWORKS[target.model]}"
    if target.train is not None:
        heading += f", {target.train:,} training examples"
    sections = [
        f"<h2>{html.escape(heading)}</h2>",
        html_table(HEAD, _rows(target, records)),
        *(html_table(head, body) for head, body in _further(target, records)),
        claims_table(judge(target, records)),
    ]
    notes = "".join(
        f"<li>{html.escape(title(attack))}: {html.escape(note)}</li>"
        for attack, note in _notes(run)
    )
    sections += [f"<ul>{notes}</ul>"] if notes else []
    epsilon = figures.epsilon_figure(records)
    if epsilon is not None:
        caption = "Means and 95 % intervals over the seeds (Figure 4)."
        sections.append(figure_section(f"{heading}: the budget", epsilon, caption))
    for attack in (None, *run.get("added", {})):
        picture = picture_path(path, attack)
        if picture.exists():
            drawn = picture.read_text(encoding="utf-8")
            name = f"{heading}: poisons" + ("" if attack is None else f" of {title(attack)}")
            caption = PICTURE + (LATER if attack is None and run.get("added") else "")
            sections.append(figure_section(name, drawn, caption))
    return sections


def _rows(target: Target, records: Sequence[Record]) -> list[list[str]]:
    """Returns a line per attack, in the order in which they were run."""
    runs = Runs(records)
    body: list[list[str]] = []
    for name in dict.fromkeys(record.method for record in records):
        own = [record for record in records if record.method == name]
        quoted = quote(target.source, target.model, name)
        drop = f"{quoted.drop:.2f}" if quoted is not None else ""
        if name == "clean":
            clean = CLEAN.get((DATASETS.get(target.source, ""), NETWORKS[target.model]))
            drop = f"clean {clean:.2f} %" if clean is not None else ""
        changes = list(runs.metric(name, "change").values())
        label, *cells = rows(own, COLUMNS)[0]
        label = label.replace(name, title(name))
        if cells[0] == "diverged":
            body.append([label, "diverged", *("" for _ in HEAD[2:])])
            continue
        accuracy, lost, poisons, seconds, gradients = cells
        change = f"{np.mean(changes) / 100:.3f}" if changes else ""
        body.append([label, accuracy, lost, drop, poisons, change, seconds, gradients])
    return body


def _further(
    target: Target, records: Sequence[Record]
) -> list[tuple[Sequence[str], list[list[str]]]]:
    """Returns the tables of transfer (Table 9) and of defences (Tables 10 and 11) that there are.

    They hold TGDA's drop on other networks, and after a defence.
    """
    runs = Runs(records)
    tables: list[tuple[Sequence[str], list[list[str]]]] = []
    own = NETWORKS[target.model]
    found = [name for r in records if r.method == "tgda" for name in r.metrics]
    for prefix, head, quote_drop in (
        ("drop_on_", "Poisons of TGDA, trained on by", lambda n: TRANSFER.get((own, NETWORKS[n]))),
        ("drop_after_", "TGDA after", lambda n: DEFENDED.get((own, n))),
    ):
        filters = ("precision", "recall") if prefix == "drop_after_" else ()
        body = []
        for name in dict.fromkeys(n for n in found if n.startswith(prefix)):
            other = name.removeprefix(prefix)
            quoted = quote_drop(other) if target.source == "mnist" else None
            cells = [_spread(runs, name), "" if quoted is None else f"{quoted:.2f}"]
            cells += [_spread(runs, f"{metric}_of_{other}") for metric in filters]
            body.append([NETWORKS.get(other, other), *cells])
        if body:
            scores = [f"{metric} on the poisons, %" for metric in filters]
            tables.append(((head, "drop, points", "paper's drop", *scores), body))
    return tables


def _spread(runs: Runs, metric: str) -> str:
    """Returns mean and standard deviation of a metric of TGDA, in %; nothing where it has none."""
    values = list(runs.metric("tgda", metric).values())
    if not values:
        return ""
    spread = f"±{np.std(values, ddof=1):.2f}" if len(values) > 1 else ""
    return f"{np.mean(values):.2f}{spread}"


def _notes(run: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [
        (attack, note) for attack, messages in run.get("notes", {}).items() for note in messages
    ]


def _sizes(targets: Mapping[str, Target], records: Mapping[str, Sequence[Record]]) -> list[str]:
    claims = judge_sizes(targets, records)
    if not claims:
        return []
    by_size = {
        targets[name].train or 0: found
        for name, found in records.items()
        if targets[name].classes is not None
    }
    caption = "Accuracy drop of a logistic regression on ones and sevens (Figure 1)."
    drawn = figure_section("The training set's size", figures.size_figure(by_size), caption)
    return ["<h2>The training set's size</h2>", claims_table(claims), drawn]


def _paper(table: PaperTable) -> str:
    body = []
    for network, entries in table.entries.items():
        for name, entry in entries.items():
            note = " (misprinted)" if (table.number, network, name) in MISPRINTED else ""
            hours = "" if entry.hours is None else f"{entry.hours:g}"
            cells = [f"{entry.accuracy:.2f}", f"{entry.drop:.2f}{note}", hours]
            body.append([network, title(name), *cells])
    head = ["Network", "Attack", "accuracy, %", "drop, points", "hours"]
    caption = html.escape(f"The paper's Table {table.number}, {table.dataset}")
    return f"<details><summary>{caption}</summary>{html_table(head, body)}</details>"


def _markdown(head: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    lines = [f"| {' | '.join(head)} |", "|" + " --- |" * len(head)]
    return "\n".join([*lines, *(f"| {' | '.join(cells)} |" for cells in body)]) + "\n"
