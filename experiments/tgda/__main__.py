"""TGDA against the attacks of Lu et al. 2022: its Tables 2 to 13 and Figures 1, 3, 4, 5.

Command:   python -m experiments.tgda --scale cpu --data-dir DIR
           python -m experiments.tgda --scale cpu --target mnist-lr     (one network)
           python -m experiments.tgda --store DIR  (keeps stages: more seeds need only the new ones)
           python -m experiments.tgda --scale cpu --page                (the page from results)
Time:      smoke: a minute, of compilation. cpu: mnist17-lr 1 to 10 minutes each, others 20 to 50.
Expected:  TGDA drops the accuracy of LR on MNIST by more than label flip does at ε = 3 %, where
           it is played for long; min-max and metagradients drop it further.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import jax

from experiments import frame, pages
from experiments.frame import Data, PaperCommand, Result
from experiments.tgda import figures, paper
from experiments.tgda.claims import Drops, judge, judge_sizes
from experiments.tgda.runs import CLEAN, PGAN, PGAN_DEFENCE, TGDA, attack_all
from experiments.tgda.settings import Target, targets
from unlearnkit.reporting import MISSING, present, rows
from unlearnkit.studies import OnStage, Record

COLUMNS = pages.read_columns("tgda")


@dataclasses.dataclass(frozen=True)
class Tgda(PaperCommand):
    """Compares TGDA with other poisoning attacks, and judges the claims of its paper."""

    paper, chosen_by = "tgda", "target"
    target: str | None = None
    """One network of the scale, as mnist-lr; by default all whose data are present."""
    seeds: int | None = None
    """Repetitions; by default the scale's."""
    page: bool = False
    """Makes the tables and the page again from results that are there."""

    def settings(self) -> Mapping[str, Target]:
        return frame.with_seeds(targets(self.scale), self.seeds)

    def load(self, setting: Target) -> Data:
        options: dict[str, Any] = {"classes": setting.classes}
        data = frame.load_data(setting.dataset, setting.model, self.data_dir, **options)
        return data._replace(train=frame.subset(data.train, setting.train))

    def run_setting(self, name: str, setting: Target, data: Data, on_stage: OnStage) -> None:
        started, path = time.perf_counter(), self.path(name)
        parts = ("model", "train", "seeds", "victims", "transfer")
        kept = {part: getattr(setting, part) for part in parts}
        settings = {"target": name, "dataset": setting.source, **kept}
        outcome = attack_all(jax.random.key(self.seed), setting, data, on_stage, self.store)
        run = self.describe(settings, recipe=dataclasses.asdict(setting.recipe))
        run["attacks"] = {attack: repr(made) for attack, made in setting.attacks.items()}
        run["notes"] = outcome.notes
        frame.save_result(path, run, outcome.records, started=started)
        pages.draw(path, "poisons", figures.poison_figure(outcome.samples))

    def section(self, name: str, run: dict[str, Any], records: list[Record]) -> pages.Section:
        target = self.settings()[name]
        heading = f"{target.source}, {paper.NETWORKS[target.model]}"
        heading += f", {target.train:,} training examples" if target.train else ""
        drawn = ["poisons", *(f"poisons-{attack}" for attack in run.get("added", ()))]
        counts = Counter(record.method for record in records).values()
        told = [f"Seeds of each row: {min(counts)} to {max(counts)}."]
        told += [f"{paper.title(a)}: {note}" for a, notes in run["notes"].items() for note in notes]
        return pages.Section(
            heading,
            [*_attacks(target, records), *_further(target, records)],
            judge(target, records),
            told,
            {"budget": figures.epsilon_figure(Drops(records)), **dict.fromkeys(drawn)},
        )

    def overview(self, found: Mapping[str, Result]) -> frame.Overview:
        records, known = {name: made for name, (_, made) in found.items()}, self.settings()
        after = {}
        if claims := judge_sizes(known, records):
            sizes = {known[n].train or 0: Drops(r) for n, r in records.items() if known[n].classes}
            drawn = {"sizes": figures.size_figure(sizes)}
            after["sizes"] = pages.Section("The training set's size", claims=claims, pictures=drawn)
        return frame.Overview(after=after, more=[_printed(known)])


def _attacks(target: Target, records: Sequence[Record]) -> list[pages.Table]:
    """Returns the attacks that keep the labels of what they poison, and those that choose them."""
    tables = []
    for head, free in (("Attack, labels kept", False), ("Attack, labels chosen", True)):
        mine = [r for r in records if r.method == CLEAN or paper.chooses_labels(r.method) == free]
        body = []
        for label, accuracy, drop, *others in rows(mine, COLUMNS):
            name = label.partition(" ")[0]
            said = paper.printed_drop(target.source, target.model, name)
            cells = [label.replace(name, paper.title(name)), accuracy, drop, said, *others]
            body.append(["" if cell == MISSING else cell for cell in cells])
        titles = [one.title for one in present(mine, COLUMNS)]
        if len(body) > 1:
            columns = [head, *titles[:2], "paper's drop", *titles[2:]]
            tables.append(pages.plain_table(columns, body))
    return tables


def _further(target: Target, records: Sequence[Record]) -> list[pages.Table]:
    """Returns drops on other networks (Table 9), and after defences (Tables 10 and 11)."""
    network, printed = paper.NETWORKS[target.model], paper.ON_OTHERS

    def told(attack: str, name: str, other: str) -> dict[str, str]:
        own = [record for record in records if record.method == attack]
        label, asked = paper.NETWORKS.get(other, other), other if attack == TGDA else ""
        asked = paper.NETWORKS.get(asked, asked) or f"{attack}_{other}"
        row = {"attack": paper.title(attack), "label": label, "drop": _percent(own, name)}
        row |= {score: _percent(own, f"{score}_of_{other}") for score in ("precision", "recall")}
        known = target.source == "mnist" and (network, asked) in printed
        return row | {"printed": f"{printed[network, asked]:.2f}" if known else ""}

    tables = {
        table: [
            told(attack, name, name.removeprefix(prefix))
            for attack in (TGDA, PGAN)
            for name in dict.fromkeys(n for r in records if r.method == attack for n in r.metrics)
            if name.startswith(prefix)
        ]
        for table, prefix in (("tgda_transfer", "drop_on_"), ("tgda_defended", "drop_after_"))
    }
    return [pages.formatted_table(table, told) for table, told in tables.items() if told]


def _percent(records: Sequence[Record], metric: str) -> str:
    """Returns mean and deviation of a metric over the seeds, in %; nothing where it has none."""
    (row,) = rows(records, [pages.column(metric, 100, title="", decimals=2, explanation="")])
    return "".join(row[1:])


def measured_rows(target: Target) -> list[str]:
    """Returns the names of the rows of the paper's tables that a target measures."""
    names = [*target.attacks, *target.defences, *(paper.NETWORKS[on] for on in target.transfer)]
    return names + [f"{PGAN}_{PGAN_DEFENCE}"] * (PGAN in names and PGAN_DEFENCE in names)


def _printed(known: Mapping[str, Target]) -> str:
    """Returns all rows of the paper's tables, and where each is measured, or what that needs."""
    here = {}
    for target, told in reversed(list(known.items())):
        place = paper.DATASETS.get(told.source), paper.NETWORKS[told.model]
        here.update({(*place, row): target for row in measured_rows(told)})
    body = []
    for table in paper.TABLES:
        for place, entry in table.rows():
            note = " (misprinted)" if (table.number, *place) in paper.MISPRINTED else ""
            numbers = ["" if math.isnan(value) else f"{value:g}" for value in entry]
            where = here.get((table.dataset, *place)) or paper.needed(table.number, *place)
            row = f"{table.number}", table.dataset, place[0], paper.title(place[1]) + note
            body.append([*row, *numbers, where])
    head = ["Table", "Data", "Network", "Row", "accuracy, %", "drop, points", "hours", "Where here"]
    return pages.details("The paper's Tables 1 to 13, row by row", head, body)


if __name__ == "__main__":
    frame.run_command(Tgda)
