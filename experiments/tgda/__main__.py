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
from collections.abc import Mapping, Sequence
from typing import Any

import jax

from experiments import frame, pages
from experiments.frame import Data, PaperCommand, Result
from experiments.pages import Section, Table, column, details, plain_table, read_columns
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
        if not self.adds:
            return chosen
        if self.target is None:
            asked = "first_seed" if self.attack is None else "attack"
            raise ValueError(f"{asked} needs a target; choose one by --target")
        ((name, target),) = chosen.items()
        if self.attack is not None:
            check_known("attack", self.attack, target.attacks)
            target = dataclasses.replace(target, attacks={self.attack: target.attacks[self.attack]})
        _load_earlier(self, name, target)
        return {name: target}

    @property
    def adds(self) -> bool:
        """Whether what is run is put into the result that is there."""
        return self.attack is not None or self.first_seed > 0

    def load(self, setting: Target) -> Data:
        return load_data(setting, self.data_dir)

    def run_setting(self, name: str, setting: Target, data: Data, on_stage: OnStage) -> None:
        started, path = time.perf_counter(), self.path(name)
        earlier = _load_earlier(self, name, setting) if self.adds else None
        key = jax.random.key(self.seed)
        outcome = attack_all(key, setting, data, on_stage, self.store, self.first_seed)
        attacks = {attack: repr(made) for attack, made in setting.attacks.items()}
        run = self.describe(**_shared(name, setting), attacks=attacks, notes=outcome.notes)
        run["seconds"] = round(time.perf_counter() - started, 1)
        result = run, outcome.records
        frame.save_result(path, *(result if earlier is None else _add(earlier, *result)))
        if outcome.samples and self.first_seed == 0:
            drawn = "poisons" if self.attack is None else f"poisons-{self.attack}"
            pages.draw(path, drawn, figures.poison_figure(outcome.samples))

    def section(self, name: str, run: dict[str, Any], records: list[Record]) -> Section:
        target = self.settings()[name]
        heading = f"{target.source}, {paper.NETWORKS[target.model]}"
        if target.train is not None:
            heading += f", {target.train:,} training examples"
        later = [f"poisons-{attack}" for attack in run.get("added", {}) if attack in run["attacks"]]
        drawn = dict.fromkeys(("poisons", *later))
        told = run["notes"].items()
        return Section(
            heading,
            [_attacks(target, records), *_further(target, records)],
            judge(target, records),
            [f"{paper.title(attack)}: {note}" for attack, notes in told for note in notes],
            {"budget": figures.epsilon_figure(Drops(records)), **drawn},
        )

    def overview(self, found: Mapping[str, Result]) -> frame.Overview:
        records, known = {name: made for name, (_, made) in found.items()}, self.settings()
        after, quoted = {}, [_paper(table) for table in paper.TABLES]
        if claims := judge_sizes(known, records):
            sizes = {known[n].train or 0: Drops(r) for n, r in records.items() if known[n].classes}
            drawn = {"sizes": figures.size_figure(sizes)}
            after["sizes"] = Section("The training set's size", claims=claims, pictures=drawn)
        return frame.Overview(after=after, more=quoted)


def _shared(name: str, target: Target) -> dict[str, Any]:
    """Returns what all attacks and seeds of a result share."""
    fields = ("model", "train", "seeds")
    settings = {"target": name, "dataset": target.source, "transfer": list(target.transfer)}
    settings |= {field: getattr(target, field) for field in fields}
    return {"settings": settings, "recipe": dataclasses.asdict(target.recipe)}


def _load_earlier(config: Tgda, name: str, target: Target) -> Result:
    """Returns the result that is there; refuses one that was made otherwise, or of fewer seeds."""
    path, asked = config.path(name), config.describe(**_shared(name, target))
    if not path.exists():
        raise FileNotFoundError(f"no {path} to add to; run it without --attack and --first-seed")
    run, records = frame.load_result(path)
    there, wanted = (
        {**made["settings"], **dataclasses.asdict(Recipe(**made["recipe"]))}
        for made in (run, json.loads(json.dumps(asked)))
    )
    held = there["seeds"]
    if config.first_seed > held or target.seeds < held:
        raise ValueError(
            f"{path} has seeds 0 to {held - 1}: those from {config.first_seed} to "
            f"{target.seeds - 1} would leave a gap or drop some; choose --first-seed and --seeds"
        )
    wanted["seeds"] = held
    if frame.rounded(there) != frame.rounded(wanted):
        raise ValueError(f"{path} was made with {there}, not with {wanted}")
    return run, records


def _add(earlier: Result, run: dict[str, Any], records: list[Record]) -> Result:
    """Returns the earlier result with rows of some attacks or seeds, in the place of their own."""
    merged, kept = earlier
    for part in ("attacks", "notes"):
        merged[part] = {**merged[part], **run[part]}
    merged["settings"] = {**merged["settings"], "seeds": run["settings"]["seeds"]}
    there = {(record.method, record.seed) for record in kept}
    new = {
        (record.method, record.seed): record
        for record in records
        if record.method != CLEAN or (CLEAN, record.seed) not in there
    }
    seeds = sorted({record.seed for record in records})
    name = f"seeds {seeds[0]} to {seeds[-1]}" if seeds[0] else ", ".join(run["attacks"])
    details = {"provenance": run["provenance"], "seconds": run["seconds"]}
    merged["added"] = {**merged.get("added", {}), name: details}
    held = [new.pop((record.method, record.seed), record) for record in kept]
    return merged, sorted([*held, *new.values()], key=lambda record: record.seed)


def _attacks(target: Target, records: Sequence[Record]) -> Table:
    """Returns a line per attack, in the order in which they were run."""
    body = []
    for label, accuracy, drop, *others in rows(records, COLUMNS):
        name = label.partition(" ")[0]
        said = paper.printed_drop(target.source, target.model, name)
        cells = [accuracy, drop, said, *others]
        shown = ("" if cell == MISSING else cell for cell in cells)
        body.append([label.replace(name, paper.title(name)), *shown])
    titles = [one.title for one in present(records, COLUMNS)]
    return plain_table(["Attack", *titles[:2], "paper's drop", *titles[2:]], body)


def _further(target: Target, records: Sequence[Record]) -> list[Table]:
    """Returns TGDA's drop on other networks (Table 9), and after defences (Tables 10 and 11)."""
    own = [record for record in records if record.method == "tgda"]
    printed = paper.ON_OTHERS[paper.NETWORKS[target.model]] if target.source == "mnist" else {}
    metrics, tables = dict.fromkeys(name for record in own for name in record.metrics), []
    for prefix, head, scores in (
        ("drop_on_", "Poisons of TGDA, trained on by", ()),
        ("drop_after_", "TGDA after", ("precision", "recall")),
    ):
        body = []
        for other in (n.removeprefix(prefix) for n in metrics if n.startswith(prefix)):
            label = paper.NETWORKS.get(other, other)
            theirs = f"{printed[label]:.2f}" if label in printed else ""
            measured = [_percent(own, f"{score}_of_{other}") for score in scores]
            body.append([label, _percent(own, f"{prefix}{other}"), theirs, *measured])
        if body:
            titles = [f"{score} on the poisons, %" for score in scores]
            tables.append(plain_table([head, "drop, points", "paper's drop", *titles], body))
    return tables


def _percent(records: Sequence[Record], metric: str) -> str:
    """Returns mean and deviation of a metric over the seeds, in %; nothing where it has none."""
    (row,) = rows(records, [column(metric, 100, title="", decimals=2, explanation="")])
    return "".join(row[1:])


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


if __name__ == "__main__":
    frame.run_command(Tgda)
