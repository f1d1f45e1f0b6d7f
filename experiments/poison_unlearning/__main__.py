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
from functools import partial
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np

from experiments import frame, pages
from experiments.frame import Data, PaperCommand, StageProgress
from experiments.poison_unlearning import page
from experiments.poison_unlearning.figures import Shown, poisons_figure, show
from experiments.poison_unlearning.least_squares import study_updates
from experiments.poison_unlearning.settings import POISONS, Poison, Setting, choose_settings
from experiments.poison_unlearning.shift import study_shift
from unlearnkit.base import Poisoned
from unlearnkit.poisoning import PoisonWarning
from unlearnkit.records import Record
from unlearnkit.studies import OnStage, poison_and_unlearn
from unlearnkit.training import fit

Part = Literal["all", "gaussian", "targeted", "indiscriminate", "shift", "updates", "page"]
KEPT = "gaussian_statistic"
"""The curve that is kept of the networks before unlearning and after Retrain, which are drawn."""


@dataclasses.dataclass(frozen=True)
class PoisonUnlearning(PaperCommand):
    """Poisons a training set three ways, unlearns the poisons, and measures what is left."""

    paper = "poison_unlearning"
    part: Part = "all"
    """One kind of poisons; shift (Figure 4); updates (Figure 5); page (from results); or all."""
    dataset: str | None = None
    """One dataset of the scale; by default all whose data are present."""
    seeds: int | None = None
    """Repetitions; by default the scale's."""


def main(config: PoisonUnlearning) -> int:
    """Runs the parts and writes the page; returns the exit code."""
    return frame.run_to_page(partial(_run, config))


def _run(config: PoisonUnlearning, progress: StageProgress) -> Path:
    known = choose_settings(config.scale)
    settings = frame.with_seeds(
        frame.choose_named("dataset", known, config.dataset, config.scale), config.seeds
    )
    chosen = [part for part in page.PARTS if config.part in ("all", part)]
    of_data = [part for part in chosen if part in page.PARTS_OF_DATA]
    asked, to_run = config.dataset is not None, settings if of_data else {}
    load = partial(_load, data_dir=config.data_dir)
    for name, setting, data in frame.load_each(to_run, load, asked=asked, on_stage=progress):
        for part in of_data:
            _run_part(config, setting, part, data, frame.prefix_stage(f"{name}, {part}", progress))
    for part in chosen:
        if part in page.PARTS_OF_SYNTHETIC:
            setting = next(iter(settings.values()))
            _run_part(config, setting, part, None, frame.prefix_stage(part, progress))
    return page.make_page(config, list(known))


def _load(setting: Setting, data_dir: Path | None) -> Data:
    return frame.load_data(setting.dataset, setting.model, data_dir, normalisation="standard")


def _run_part(
    config: PoisonUnlearning, setting: Setting, part: str, data: Data | None, on_stage: OnStage
) -> None:
    """Runs one part and writes its numbers."""
    started, notes = time.perf_counter(), list[str]()
    key = jax.random.fold_in(jax.random.key(config.seed), page.PARTS.index(part))
    path = config.path(page.result_name(part, setting.dataset))
    run = config.describe(dataclasses.asdict(setting), part=part, notes=notes)
    records: list[Record] | None = None
    figure: Any = None
    with frame.collect_warnings(notes, PoisonWarning):
        if data is None:
            on_stage("gradient descent on the synthetic regression", 0, 1)
            courses = study_updates(key, setting.least_squares)
            figure = {name: [c._asdict() for c in made] for name, made in courses.items()}
        elif part == "shift":
            figure = _shift(key, setting, data, on_stage)
        else:
            poison = next(kind for kind in POISONS if kind == part)
            run["attacks"] = {name: repr(a) for name, a in setting.attacks(poison).items()}
            run["methods"] = {name: repr(method) for name, method in setting.methods().items()}
            records, shown = _grid(key, setting, poison, data, on_stage, config.store)
            pages.draw(path, "poisons", poisons_figure({part: shown}))
    run |= {} if figure is None else {"figure": figure}
    frame.save_result(path, run, records, started=started, curves=True)


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
            shown.append(show(poisoned, train))

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


if __name__ == "__main__":
    frame.run_command(main, PoisonUnlearning)
