"""TGDA against the attacks of Lu et al. 2022: its Tables 2 to 13 and Figures 1, 3, 4, 5.

Command:   python -m experiments.tgda --scale cpu --data-dir DIR
           python -m experiments.tgda --scale cpu --target mnist-lr     (one network)
           python -m experiments.tgda --target mnist-lr --attack tgda   (put into its result)
           python -m experiments.tgda --target mnist-lr --first-seed 3  (seeds from 3 on, as well)
           python -m experiments.tgda --scale cpu --page                (the page from results)
Time:      smoke: about a minute, of compilation. cpu, on one core: mnist-lr 48 minutes,
           mnist-nn 39 (its TGDA twice), mnist-cnn 32, cifar10-cnn 21, mnist17-lr 1 to 10 each.
Expected:  TGDA drops the accuracy of LR on MNIST by more than label flip does at ε = 3 %, where
           it is played for long; min-max drops it further. The page says of each claim whether it
           holds.
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

from experiments import frame, pages
from experiments.frame import Data, PaperCommand, Result
from experiments.pages import (
    Section,
    Table,
    column,
    formatted_table,
    plain_table,
    read_columns,
)
from experiments.tgda import figures, paper
from experiments.tgda.claims import Drops, judge, judge_sizes
from experiments.tgda.runs import CLEAN, attack_all, load_data
from experiments.tgda.settings import Target, targets
from unlearnkit.reporting import MISSING, present, rows
from unlearnkit.studies import OnStage, Record
from unlearnkit.training import Recipe
from unlearnkit.validation import check_known

COLUMNS = read_columns("tgda")


@dataclasses.dataclass(frozen=True)
class Tgda(PaperCommand):
    """Compares TGDA with other poisoning attacks, and judges the claims of its paper."""

    paper, chosen_by = "tgda", "target"
    target: str | None = None
    """One network of the scale, as mnist-lr; by default all whose data are present."""
    attack: str | None = None
    """One attack of --target, which is put into the result that is there; by default all."""
    seeds: int | None = None
    """Repetitions; by default the scale's."""
    first_seed: int = 0
    """Runs seeds from this one on, and puts them into the result that is there; needs --target."""
    page: bool = False
    """Makes the tables and the page again from results that are there."""

    def settings(self) -> Mapping[str, Target]:
        return frame.with_seeds(targets(self.scale), self.seeds)

    def chosen(self) -> dict[str, Target]:
        chosen = super().chosen()
        if self.target is None and (self.attack or self.first_seed):
            asked = "attack" if self.attack else "first_seed"
            raise ValueError(f"{asked} needs a target; choose one by --target")
        if self.attack is None:
            return chosen
        ((name, target),) = chosen.items()
        check_known("attack", self.attack, target.attacks)
        alone = {self.attack: target.attacks[self.attack]}
        return {name: dataclasses.replace(target, attacks=alone)}

    def load(self, setting: Target) -> Data:
        return load_data(setting, self.data_dir)

    def run_setting(self, name: str, setting: Target, data: Data, on_stage: OnStage) -> None:
        started, path = time.perf_counter(), self.path(name)
        shared = ("model", "train", "seeds", "transfer")
        settings = {"target": name, "dataset": setting.source}
        settings |= {field: getattr(setting, field) for field in shared}
        run = self.describe(settings, recipe=dataclasses.asdict(setting.recipe))
        adds = self.attack is not None or self.first_seed > 0
        earlier = _load_earlier(path, run, self.first_seed) if adds else None
        key = jax.random.key(self.seed)
        outcome = attack_all(key, setting, data, on_stage, self.store, self.first_seed)
        run["attacks"] = {attack: repr(made) for attack, made in setting.attacks.items()}
        run |= {"notes": outcome.notes, "seconds": round(time.perf_counter() - started, 1)}
        result = run, outcome.records
        frame.save_result(path, *(_add(earlier, *result) if earlier else result))
        if outcome.samples and self.first_seed == 0:
            drawn = "poisons" if self.attack is None else f"poisons-{self.attack}"
            pages.draw(path, drawn, figures.poison_figure(outcome.samples))

    def section(self, name: str, run: dict[str, Any], records: list[Record]) -> Section:
        target = self.settings()[name]
        heading = f"{target.source}, {paper.NETWORKS[target.model]}"
        heading += f", {target.train:,} training examples" if target.train else ""
        drawn = ["poisons", *(f"poisons-{attack}" for attack in run.get("added", ()))]
        told = [f"{paper.title(a)}: {note}" for a, notes in run["notes"].items() for note in notes]
        return Section(
            heading,
            [*_attacks(target, records), *_further(target, records)],
            judge(target, records),
            [*_seeds(records), *told],
            {"budget": figures.epsilon_figure(Drops(records)), **dict.fromkeys(drawn)},
        )

    def overview(self, found: Mapping[str, Result]) -> frame.Overview:
        records, known = {name: made for name, (_, made) in found.items()}, self.settings()
        after = {}
        if claims := judge_sizes(known, records):
            sizes = {known[n].train or 0: Drops(r) for n, r in records.items() if known[n].classes}
            drawn = {"sizes": figures.size_figure(sizes)}
            after["sizes"] = Section("The training set's size", claims=claims, pictures=drawn)
        needs = [[name, said] for name, said in paper.NOT_HERE.items()]
        missing = pages.details("What is not here, and what it needs", ["What", "Needs"], needs)
        return frame.Overview(after=after, more=[missing, *map(_paper, paper.TABLES)])


def _load_earlier(path: Path, run: dict[str, Any], first_seed: int) -> Result:
    """Returns the result that is there; refuses one that was made otherwise, or of fewer seeds."""
    if not path.exists():
        raise FileNotFoundError(f"no {path} to add to; run it without --attack and --first-seed")
    earlier, records = frame.load_result(path)
    there, wanted = (
        {**made["settings"], **dataclasses.asdict(Recipe(**made["recipe"]))}
        for made in (earlier, json.loads(json.dumps(run)))
    )
    held, seeds = there.pop("seeds"), wanted.pop("seeds")
    if not first_seed <= held <= seeds:
        raise ValueError(
            f"{path} has seeds 0 to {held - 1}: those from {first_seed} to {seeds - 1} would leave "
            "a gap or drop some; choose --first-seed and --seeds"
        )
    if frame.rounded(there) != frame.rounded(wanted):
        raise ValueError(f"{path} was made with {there}, not with {wanted}")
    return earlier, records


def _add(earlier: Result, run: dict[str, Any], records: list[Record]) -> Result:
    """Returns the earlier result with rows of some attacks or seeds, in the place of their own."""
    merged, kept = earlier
    for part in ("attacks", "notes"):
        merged[part] = {**merged[part], **run[part]}
    merged["settings"]["seeds"] = run["settings"]["seeds"]
    rows = {(record.method, record.seed): record for record in kept}
    # The clean networks are the same, but for what only TGDA's row asks of them.
    new = {
        (r.method, r.seed): r for r in records if r.method != CLEAN or (CLEAN, r.seed) not in rows
    }
    first = min(record.seed for record in records)
    name = ", ".join(run["attacks"]) + (f" from seed {first} on" if first else "")
    told = {"provenance": run["provenance"], "seconds": run["seconds"]}
    merged["added"] = {**merged.get("added", {}), name: told}
    return merged, sorted({**rows, **new}.values(), key=lambda record: record.seed)


def _seeds(records: Sequence[Record]) -> list[str]:
    """Returns how many seeds the rows have."""
    counts: dict[int, list[str]] = {}
    for name, seeds in Counter(record.method for record in records).items():
        counts.setdefault(seeds, []).append(paper.title(name))
    most = max(counts)
    fewer = (f"; {seeds}: {', '.join(names)}" for seeds, names in counts.items() if seeds < most)
    return [f"Seeds: {most}{''.join(fewer)}."]


def _attacks(target: Target, records: Sequence[Record]) -> list[Table]:
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
            tables.append(plain_table(columns, body))
    return tables


def _further(target: Target, records: Sequence[Record]) -> list[Table]:
    """Returns TGDA's drop on other networks (Table 9), and after defences (Tables 10 and 11)."""
    own = [record for record in records if record.method == "tgda"]
    printed = paper.ON_OTHERS[paper.NETWORKS[target.model]] if target.source == "mnist" else {}
    metrics = list(dict.fromkeys(name for record in own for name in record.metrics))

    def told(name: str, other: str) -> dict[str, str]:
        label = paper.NETWORKS.get(other, other)
        row = {"label": label, "drop": _percent(own, name)}
        row |= {score: _percent(own, f"{score}_of_{other}") for score in ("precision", "recall")}
        return row | {"printed": f"{printed[label]:.2f}" if label in printed else ""}

    tables = {
        table: [told(n, n.removeprefix(prefix)) for n in metrics if n.startswith(prefix)]
        for table, prefix in (("tgda_transfer", "drop_on_"), ("tgda_defended", "drop_after_"))
    }
    return [formatted_table(table, told) for table, told in tables.items() if told]


def _percent(records: Sequence[Record], metric: str) -> str:
    """Returns mean and deviation of a metric over the seeds, in %; nothing where it has none."""
    (row,) = rows(records, [column(metric, 100, title="", decimals=2, explanation="")])
    return "".join(row[1:])


def _paper(table: paper.PaperTable) -> str:
    body = []
    for (network, name), entry in table.rows():
        note = " (misprinted)" if (table.number, network, name) in paper.MISPRINTED else ""
        hours = "" if entry.hours is None else f"{entry.hours:g}"
        cells = [f"{entry.accuracy:.2f}", f"{entry.drop:.2f}{note}", hours]
        body.append([network, paper.title(name), *cells])
    head = ["Network", "Attack", "accuracy, %", "drop, points", "hours"]
    return pages.details(f"The paper's Table {table.number}, {table.dataset}", head, body)


if __name__ == "__main__":
    frame.run_command(Tgda)
