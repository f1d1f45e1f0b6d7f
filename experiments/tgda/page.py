"""The page: our figures beside the paper's, each claim with its verdict, the pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments.charts import Picture
from experiments.frame import PaperCommand, load_result
from experiments.pages import Section, Table, details, plain_table, read_columns, write_page
from experiments.tgda import figures, paper
from experiments.tgda.claims import Drops, judge, judge_sizes
from experiments.tgda.settings import Target
from unlearnkit.reporting import rows
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
COLUMNS = read_columns("tgda")


def make_page(command: PaperCommand, targets: Mapping[str, Target]) -> Path:
    """Writes the page of all results of a scale that are there; returns its path."""
    found = {name: load_result(path) for name, path in command.present(targets).items()}
    records = {name: made for name, (_, made) in found.items()}
    runs = {name: run for name, (run, _) in found.items()}
    sections = {name: section(targets[name], runs[name], records[name]) for name in found}
    if claims := judge_sizes(targets, records):
        sizes = {targets[n].train or 0: Drops(r) for n, r in records.items() if targets[n].classes}
        drawn = {"sizes": figures.size_figure(sizes)}
        sections["sizes"] = Section("The training set's size", claims=claims, pictures=drawn)
    heading = "Total gradient descent ascent (Lu et al. 2022)"
    quoted = [_paper(table) for table in paper.TABLES]
    return write_page(command, sections, runs, title=heading, lead=LEAD, more=quoted)


def section(target: Target, run: Mapping[str, Any], records: Sequence[Record]) -> Section:
    """Returns the tables, the judged claims, the warnings and the pictures of a target."""
    heading = f"{target.source}, {paper.NETWORKS[target.model]}"
    if target.train is not None:
        heading += f", {target.train:,} training examples"
    later = [f"poisons-{attack}" for attack in run.get("added", {})]
    return Section(
        heading,
        [_attacks(target, records), *_further(target, records)],
        judge(target, records),
        [f"{paper.title(name)}: {note}" for name, told in run["notes"].items() for note in told],
        {
            "budget": figures.epsilon_figure(Drops(records)),
            **dict.fromkeys(("poisons", *later), Picture(None, figures.IMAGES)),
        },
    )


def _attacks(target: Target, records: Sequence[Record]) -> Table:
    """Returns a line per attack, in the order in which they were run."""
    drops = Drops(records)
    body: list[list[str]] = []
    for name in dict.fromkeys(record.method for record in records):
        own = [record for record in records if record.method == name]
        quoted = paper.quote(target.source, target.model, name)
        drop = f"{quoted.drop:.2f}" if quoted is not None else ""
        if name == "clean":
            dataset = paper.DATASETS.get(target.source, "")
            clean = paper.CLEAN.get((dataset, paper.NETWORKS[target.model]))
            drop = f"clean {clean:.2f} %" if clean is not None else ""
        changes = list(drops.percent(name, "change").values())
        label, *cells = rows(own, COLUMNS)[0]
        label = label.replace(name, paper.title(name))
        if cells[0] == "diverged":
            body.append([label, "diverged", *("" for _ in HEAD[2:])])
            continue
        change = f"{np.mean(changes) / 100:.3f}" if changes else ""
        body.append([label, *cells[:2], drop, cells[2], change, *cells[3:]])
    return plain_table(HEAD, body)


def _further(target: Target, records: Sequence[Record]) -> list[Table]:
    """Returns TGDA's drop on other networks (Table 9), and after defences (Tables 10 and 11)."""
    drops, own, tables = Drops(records), paper.NETWORKS[target.model], []
    found = dict.fromkeys(name for r in records if r.method == "tgda" for name in r.metrics)
    for prefix, head, filters in (
        ("drop_on_", "Poisons of TGDA, trained on by", ()),
        ("drop_after_", "TGDA after", ("precision", "recall")),
    ):
        body = []
        for other in (n.removeprefix(prefix) for n in found if n.startswith(prefix)):
            label = paper.NETWORKS.get(other, other)
            quoted = paper.DEFENDED.get((own, other)) or paper.TRANSFER.get((own, label))
            theirs = "" if quoted is None or target.source != "mnist" else f"{quoted:.2f}"
            scores = [_spread(drops, f"{score}_of_{other}") for score in filters]
            cells = [_spread(drops, f"{prefix}{other}"), theirs, *scores]
            body.append([label, *cells])
        if body:
            scores = [f"{score} on the poisons, %" for score in filters]
            tables.append(plain_table([head, "drop, points", "paper's drop", *scores], body))
    return tables


def _spread(drops: Drops, name: str) -> str:
    """Returns mean and standard deviation of a metric of TGDA, in %; nothing where it has none."""
    values = list(drops.percent("tgda", name).values())
    if not values:
        return ""
    spread = f"±{np.std(values, ddof=1):.2f}" if len(values) > 1 else ""
    return f"{np.mean(values):.2f}{spread}"


def _paper(table: paper.PaperTable) -> str:
    body = []
    for network, entries in table.entries.items():
        for name, entry in entries.items():
            note = " (misprinted)" if (table.number, network, name) in paper.MISPRINTED else ""
            hours = "" if entry.hours is None else f"{entry.hours:g}"
            cells = [f"{entry.accuracy:.2f}", f"{entry.drop:.2f}{note}", hours]
            body.append([network, paper.title(name), *cells])
    head = ["Network", "Attack", "accuracy, %", "drop, points", "hours"]
    return details(f"The paper's Table {table.number}, {table.dataset}", head, body)
