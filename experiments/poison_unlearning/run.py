"""The experiment from its settings to its page."""

from __future__ import annotations

import dataclasses
import time
from functools import partial
from pathlib import Path
from typing import Any, Literal

import jax
from jaxtyping import Array, Key

from experiments.frame import (
    Command,
    Scale,
    StageProgress,
    choose_named,
    collect_warnings,
    load_present,
    prefix_stage,
    run_to_page,
)
from experiments.poison_unlearning.grid import key_of, run_grid, save_grid
from experiments.poison_unlearning.least_squares import study_updates
from experiments.poison_unlearning.page import (
    PARTS,
    PARTS_OF_DATA,
    PARTS_OF_SYNTHETIC,
    result_path,
    write_page,
)
from experiments.poison_unlearning.pictures import gallery
from experiments.poison_unlearning.setting import (
    POISONS,
    Data,
    Setting,
    choose_settings,
    load_data,
    subset,
)
from experiments.poison_unlearning.shift import study_shift
from unlearnkit.io.files import as_json, write_json, write_text
from unlearnkit.io.provenance import provenance
from unlearnkit.poisoning import PoisonWarning
from unlearnkit.studies import OnStage
from unlearnkit.training import fit

Part = Literal["all", "gaussian", "targeted", "indiscriminate", "shift", "updates", "page"]


@dataclasses.dataclass(frozen=True)
class PoisonUnlearning(Command):
    """Poisons a training set three ways, unlearns the poisons, and measures what is left."""

    scale: Scale = "cpu"
    """smoke (digits), cpu (subsets of CIFAR-10 and MNIST), paper (ResNet-18, accelerator)."""
    part: Part = "all"
    """One kind of poisons; shift (Figure 4); updates (Figure 5); page (from results); or all."""
    dataset: str | None = None
    """One dataset of the scale; by default all whose data are present."""
    data_dir: Path | None = None
    """Where prepared TFDS datasets are."""
    seeds: int | None = None
    """Repetitions; by default the scale's."""
    seed: int = 0
    """The key of the whole run."""
    results: Path = Path("results")
    """Results go to its folder poison_unlearning."""


def main(config: PoisonUnlearning) -> int:
    """Runs the parts and writes the page; returns the exit code."""
    return run_to_page(partial(_run, config))


def _run(config: PoisonUnlearning, progress: StageProgress) -> Path:
    settings = choose_named(
        "dataset", choose_settings(config.scale), config.dataset, config.scale
    )  # fmt: skip
    if config.seeds is not None:
        settings = {
            name: dataclasses.replace(setting, seeds=config.seeds)
            for name, setting in settings.items()
        }
    chosen = PARTS if config.part == "all" else tuple(p for p in PARTS if p == config.part)
    of_data = [part for part in chosen if part in PARTS_OF_DATA]
    for name, setting in settings.items() if of_data else ():
        data = load_present(
            partial(load_data, setting, config.data_dir),
            name,
            asked=config.dataset is not None,
            on_stage=progress,
        )
        for part in of_data if data is not None else ():
            _run_part(config, setting, part, data, prefix_stage(f"{name}, {part}", progress))
    for part in chosen:
        if part in PARTS_OF_SYNTHETIC:
            setting = next(iter(settings.values()))
            _run_part(config, setting, part, None, prefix_stage(part, progress))
    return write_page(config.results, config.scale)


def _run_part(
    config: PoisonUnlearning, setting: Setting, part: str, data: Data | None, on_stage: OnStage
) -> None:
    """Runs one part and writes its numbers."""
    started = time.perf_counter()
    key = key_of(jax.random.key(config.seed), part, PARTS)
    path = result_path(config.results, part, setting.dataset, config.scale)
    notes: list[str] = []
    run: dict[str, Any] = {
        "experiment": "poison_unlearning",
        "part": part,
        "settings": {"scale": config.scale, "seed": config.seed, **dataclasses.asdict(setting)},
        "notes": notes,
        "provenance": provenance(),
    }
    with collect_warnings(notes, PoisonWarning):
        if part == "updates":
            on_stage("gradient descent on the synthetic regression", 0, 1)
            courses = study_updates(key, setting.least_squares)
            figure: Any = {name: [c._asdict() for c in runs] for name, runs in courses.items()}
        elif data is None:
            raise ValueError(f"part {part} needs data")
        elif part == "shift":
            figure = _shift(key, setting, data, on_stage)
        else:
            _grid(key, setting, part, data, on_stage, path, run, started)
            return
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, as_json({**run, "seconds": _since(started), "figure": figure}))


def _grid(
    key: Key[Array, ""],
    setting: Setting,
    part: str,
    data: Data,
    on_stage: OnStage,
    path: Path,
    run: dict[str, Any],
    started: float,
) -> None:
    poison = next(kind for kind in POISONS if kind == part)
    run["attacks"] = {name: repr(attack) for name, attack in setting.attacks(poison).items()}
    run["methods"] = {name: repr(method) for name, method in setting.methods().items()}
    records, shown = run_grid(key, setting, poison, data, on_stage)
    save_grid(path, records, {**run, "seconds": _since(started)})
    write_text(path.with_name(f"{path.stem}-poisons.svg"), gallery({part: shown}))


def _shift(
    key: Key[Array, ""], setting: Setting, data: Data, on_stage: OnStage
) -> list[dict[str, Any]]:
    body_key, key = jax.random.split(key)
    on_stage("training the network whose features are used", 0, 1)
    body = fit(body_key, data.model, data.train, setting.recipe).variables
    train = subset(data.whole, setting.features)
    found = []
    for seed in range(setting.seeds):
        on_stage(f"poisoning features, seed {seed + 1} of {setting.seeds}", 0, 1)
        seed_key = jax.random.fold_in(key, seed)
        shifts = study_shift(seed_key, data.model, body, train, data.test, setting)
        found.append(shifts._asdict())
    return found


def _since(started: float) -> float:
    return round(time.perf_counter() - started, 1)
