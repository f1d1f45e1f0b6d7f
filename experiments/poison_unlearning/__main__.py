"""Unlearning poisons, and why it fails: Figures 2 to 9 of Pawelczyk et al. 2024, for vision.

Command:   python -m experiments.poison_unlearning --scale cpu --data-dir DIR
           python -m experiments.poison_unlearning --scale cpu --part page   (the page from results)
Time:      smoke: of compilation (digits). cpu, on one core: CIFAR-10 (2,500 images, a small CNN) 32
           minutes, MNIST (6,000 images, an MLP) 10. paper: an accelerator.
Expected:  all kinds of poisons show in the network that trained on them and not after Retrain, and
           no method removes all of them for a tenth of its cost: surely so on MNIST, where there
           are more poisons. Poisons shift a regression further than as many clean samples do, and
           clean gradients do not lead back. The page says of each claim whether it holds.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np

from experiments import frame, pages
from experiments.frame import Data, PaperCommand, Result
from experiments.pages import Section, read_columns, records_table
from experiments.poison_unlearning import claims, figures
from experiments.poison_unlearning.figures import Shown
from experiments.poison_unlearning.least_squares import study_updates
from experiments.poison_unlearning.settings import POISONS, Poison, Setting, choose_settings
from experiments.poison_unlearning.shift import study_shift
from unlearnkit.base import Poisoned
from unlearnkit.poisoning import PoisonWarning
from unlearnkit.records import Record, row_name
from unlearnkit.studies import OnStage, poison_and_unlearn
from unlearnkit.training import fit

Part = Literal["all", "gaussian", "targeted", "indiscriminate", "shift", "updates", "page"]
KEPT = "gaussian_statistic"
"""The curve that is kept of the networks before unlearning and after Retrain, which are drawn."""
SYNTHETIC = "synthetic"
"""Stands for the dataset of Figure 5, which is drawn."""
PARTS = {
    "gaussian": "Gaussian poisons",
    "targeted": "Targeted poisons",
    "indiscriminate": "Indiscriminate poisons",
    "shift": "Hypothesis 1: poisons shift the model far",
    "updates": "Hypothesis 2: clean gradients do not lead back",
}


@dataclasses.dataclass(frozen=True)
class PoisonUnlearning(PaperCommand):
    """Poisons a training set three ways, unlearns the poisons, and measures what is left."""

    paper, large = "poison_unlearning", ("figure",)
    part: Part = "all"
    """One kind of poisons; shift (Figure 4); updates (Figure 5); page (from results); or all."""
    dataset: str | None = None
    """One dataset of the scale; by default all whose data are present."""
    seeds: int | None = None
    """Repetitions; by default the scale's."""

    def settings(self) -> Mapping[str, Setting]:
        return frame.with_seeds(choose_settings(self.scale), self.seeds)

    def runs_nothing(self) -> bool:
        return self.part in ("page", "updates")  # which needs no data

    def load(self, setting: Setting) -> Data:
        return frame.load_data(
            setting.dataset, setting.model, self.data_dir, normalisation="standard"
        )

    def run_all(self, on_stage: OnStage) -> None:
        super().run_all(on_stage)
        if self.part in ("all", "updates"):
            setting, own_stage = (
                next(iter(self.chosen().values())),
                frame.prefix_stage("updates", on_stage),
            )
            self._run_part(SYNTHETIC, setting, "updates", None, own_stage)

    def run_setting(self, name: str, setting: Setting, data: Data, on_stage: OnStage) -> None:
        for part in (*POISONS, "shift"):
            if self.part in ("all", part):
                own_stage = frame.prefix_stage(part, on_stage)
                self._run_part(name, setting, part, data, own_stage)

    def _run_part(
        self, name: str, setting: Setting, part: str, data: Data | None, on_stage: OnStage
    ) -> None:
        """Runs one part and writes its numbers."""
        started, notes, records = time.perf_counter(), list[str](), None
        key = jax.random.fold_in(jax.random.key(self.seed), list(PARTS).index(part))
        path = self.path(f"{name}-{part}")
        run = self.describe(dataclasses.asdict(setting), part=part, notes=notes)
        with frame.collect_warnings(notes, PoisonWarning):
            if data is None:
                on_stage("gradient descent on the synthetic regression", 0, 1)
                courses = study_updates(key, setting.least_squares)
                run["figure"] = {
                    name: [c._asdict() for c in made] for name, made in courses.items()
                }
            elif part == "shift":
                run["figure"] = _shift(key, setting, data, on_stage)
            else:
                poison = next(kind for kind in POISONS if kind == part)
                run["attacks"] = {name: repr(a) for name, a in setting.attacks(poison).items()}
                run["methods"] = {name: repr(method) for name, method in setting.methods().items()}
                records, shown = _grid(key, setting, poison, data, on_stage, self.store)
                pages.draw(path, "poisons", figures.poisons_figure({part: shown}))
        frame.save_result(path, run, records, started=started, curves=True)

    def names(self) -> list[str]:
        grids = [f"{name}-{part}" for name in self.settings() for part in (*POISONS, "shift")]
        return [*grids, f"{SYNTHETIC}-updates"]

    def section(self, name: str, run: dict[str, Any], records: list[Record]) -> Section:
        dataset, _, part = name.rpartition("-")
        title, notes = f"{dataset}: {PARTS[part]}", run["notes"]
        if part in POISONS:
            return _grid_section(part, title, notes, records)
        figure = run["figure"]
        if part == "shift":
            drawn = {"shifts": figures.shifts(figure)}
            return Section(title, (), claims.shift_claims(figure), notes, drawn)
        drawn = {"updates": figures.updates(figure)}
        return Section(title, (), claims.update_claims(figure), notes, drawn)

    def overview(self, found: Mapping[str, Result]) -> frame.Overview:
        summaries = {}
        for dataset in self.settings():
            names: dict[str, str] = {kind: f"{dataset}-{kind}" for kind in POISONS}
            grids = {kind: found[name][1] for kind, name in names.items() if name in found}
            if summary := claims.no_silver_bullet(grids):
                summaries[dataset] = Section(dataset, claims=summary)
        return frame.Overview(before=summaries)


def _grid(
    key: Any,
    setting: Setting,
    poison: Poison,
    data: Data,
    on_stage: OnStage,
    store: Path | None,
) -> tuple[list[Record], Shown]:
    """Returns the records of one kind of poisons, and some of the first attack's."""
    attacks, train = setting.attacks(poison), frame.subset(data.train, setting.train)
    first, shown = next(iter(attacks)), list[Shown]()

    def keep(name: str, seed: int, poisoned: Poisoned) -> None:
        if (name, seed) == (first, 0):
            shown.append(figures.show(poisoned, train))

    records = [
        record._replace(curves=_kept(record))
        for record in poison_and_unlearn(
            key, data.model, train, data.test, attacks=attacks, recipe=setting.recipe,
            methods=setting.methods(), budgets=setting.budgets, seeds=setting.seeds,
            on_stage=on_stage, on_poisoned=keep, store=store,
        )
    ]  # fmt: skip
    if not shown:
        raise ValueError(f"{poison} poisons of the first seed: {records[0].diverged}")
    return records, shown[0]


def _kept(record: Record) -> dict[str, list[float]]:
    """Returns the curve of a record that is drawn, with the digits that are seen."""
    if record.budget is not None or KEPT not in record.curves:
        return {}
    return {KEPT: np.round(record.curves[KEPT], 4).tolist()}


def _shift(key: Any, setting: Setting, data: Data, on_stage: OnStage) -> list[dict[str, Any]]:
    body_key, key = jax.random.split(key)
    on_stage("training the network whose features are used", 0, 1)
    own = frame.subset(data.train, setting.train)
    body = fit(body_key, data.model, own, setting.recipe).variables
    features = data._replace(train=frame.subset(data.train, setting.features))
    found = []
    for seed in range(setting.seeds):
        on_stage(f"poisoning features, seed {seed + 1} of {setting.seeds}", 0, 1)
        seed_key = jax.random.fold_in(key, seed)
        found.append(study_shift(seed_key, body, features, setting)._asdict())
    return found


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


def _grid_section(
    kind: str, title: str, notes: Sequence[str], records: Sequence[Record]
) -> Section:
    pictures: dict[str, str | None] = {
        "poisons": None,
        "methods": figures.methods_against_retrain(kind, records),
        "budgets": figures.budgets(kind, records),
    }
    if kind == "gaussian":
        pictures["statistics"] = figures.statistics(records)
        pictures["sizes"] = figures.sizes(records)
    table = records_table(as_rows(records), read_columns(f"poisons_{kind}", "poisons_shared"))
    notes = [*notes, *over_budget(records)]
    return Section(title, [table], claims.grid_claims(kind, records), notes, pictures)


if __name__ == "__main__":
    frame.run_command(PoisonUnlearning)
