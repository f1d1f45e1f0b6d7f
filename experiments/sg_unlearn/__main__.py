"""SG-Unlearn against every method of Di et al. 2024: its Tables 1, 2, 4, 6 and Figures 1 to 5.

Command:   python -m experiments.sg_unlearn --scale cpu --data-dir DIR
           python -m experiments.sg_unlearn --scale cpu --part page     (the page from results)
Time:      smoke: about two minutes, of compilation. cpu: MNIST's class-wise tables take 8 minutes
           on one core; CIFAR-10's, on the speed-run network, are slower. paper: an accelerator.
Expected:  SG lowers MIA accuracy, KS and Wasserstein distance toward Retrain against FT, at some
           cost of test accuracy; the page says of each claim whether it holds.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp

from experiments.frame import (
    Command,
    Scale,
    StageProgress,
    choose_named,
    load_present,
    prefix_stage,
    run_command,
    run_to_page,
    save_result,
)
from experiments.sg_unlearn import figures
from experiments.sg_unlearn.page import KINDS, make_page, result_path, write_tables
from experiments.sg_unlearn.runs import Choice, Kind, ablate, choose, compare_methods
from experiments.sg_unlearn.settings import Setting, settings
from unlearnkit import models
from unlearnkit.base import Dataset, Model
from unlearnkit.data import describe, load
from unlearnkit.io.files import as_json, write_json, write_text
from unlearnkit.io.provenance import provenance
from unlearnkit.reporting import loss_histograms
from unlearnkit.studies import OnStage
from unlearnkit.validation import check_at_least

Part = Literal["all", "random", "class", "ablation", "page"]
Choices: TypeAlias = dict[str, list[Choice]]
HELD_BACK = 4
"""Where there is something to choose, one of so many test examples is for that alone."""
CHOOSING = 1_000_000
"""Folded into a part's key, apart from the seeds 0, 1, ... of its tables."""


@dataclasses.dataclass(frozen=True)
class SgUnlearn(Command):
    """Compares SG-Unlearn with the methods of its paper, and judges the paper's claims."""

    scale: Scale = "cpu"
    """smoke (seconds, digits), cpu (MNIST and CIFAR-10 subsets), paper (the paper's own)."""
    part: Part = "all"
    """random (Tables 1 and 4), class (Tables 2 and 6), ablation (Figures 1 to 3), page (from
    results that are there), all."""
    dataset: str | None = None
    """One dataset of the scale; by default all whose data are present."""
    data_dir: Path | None = None
    """Where prepared TFDS datasets are."""
    seed: int = 0
    """The key of the whole run."""
    seeds: int | None = None
    """Repetitions; by default the scale's."""
    results: Path = Path("results")
    """Results go to its folder sg_unlearn."""


def main(config: SgUnlearn) -> int:
    """Runs the parts and writes the page; returns the exit code."""
    return run_to_page(partial(_run, config))


def _run(config: SgUnlearn, progress: StageProgress) -> Path:
    known = settings(config.scale)
    for setting in _choose(config, known).values():
        if config.part != "page":
            _run_dataset(config, setting, progress)
    page = config.results / "sg_unlearn" / f"{config.scale}.html"
    write_tables(config.results, config.scale, list(known))
    write_text(page, make_page(config.results, config.scale, list(known)))
    return page


def _choose(config: SgUnlearn, known: Mapping[str, Setting]) -> dict[str, Setting]:
    chosen = choose_named("dataset", known, config.dataset, config.scale)
    if config.seeds is None:
        return chosen
    check_at_least(config, 1, "seeds")
    return {
        name: dataclasses.replace(setting, seeds=config.seeds, traces=config.seeds)
        for name, setting in chosen.items()
    }


def _run_dataset(config: SgUnlearn, setting: Setting, progress: StageProgress) -> None:
    asked = config.dataset is not None
    data = load_present(
        lambda: _load(config, setting), setting.dataset, asked=asked, on_stage=progress
    )
    if data is None:
        return
    key = jax.random.key(config.seed)
    on_stage = prefix_stage(setting.dataset, progress)
    for index, kind in enumerate(KINDS):
        if config.part in ("all", kind):
            _compare(config, setting, kind, jax.random.fold_in(key, index), data, on_stage)
    if config.part in ("all", "ablation"):
        _ablate(config, setting, jax.random.fold_in(key, 2), data, on_stage)


class _Data(NamedTuple):
    """The examples of the tables, and others that hyperparameters are chosen on."""

    model: Model
    train: Dataset
    test: Dataset
    choosing: tuple[Dataset, Dataset]


def _load(config: SgUnlearn, setting: Setting) -> _Data:
    where: dict[str, Any] = {"data_dir": config.data_dir}
    train, test = (
        load(setting.dataset, split=split, normalisation="standard", **where)
        for split in ("train", "test")
    )
    description = describe(setting.dataset, **where)
    model = models.create(
        setting.model,
        input_shape=description.input_shape,
        n_classes=description.n_classes,
        **setting.options,
    )
    n = train.size if setting.train is None else setting.train
    order = jax.random.permutation(jax.random.key(0), train.size)
    own, others = jnp.sort(order[:n]), order[n : 2 * n]
    choosing = train.take(others), test.take(jnp.arange(0, test.size, HELD_BACK))
    if setting.grids:
        kept = jnp.arange(test.size) % HELD_BACK > 0
        test = test.take(jnp.flatnonzero(kept))
    return _Data(model, train.take(own), test, choosing)


def _compare(
    config: SgUnlearn,
    setting: Setting,
    kind: Any,
    key: Any,
    data: _Data,
    on_stage: OnStage,
) -> None:
    started = time.perf_counter()
    setting, choices = _choose_values(key, setting, kind, data, on_stage)
    model, train, test, _ = data
    records, losses = compare_methods(key, setting, kind, model, train, test, on_stage)
    path = result_path(config.results, setting.dataset, kind, config.scale)
    run = _describe(config, setting, kind, choices, started) | {"retrain_losses": losses}
    save_result(path, records, run)
    finished = [record for record in records if record.diverged is None]
    write_text(path.with_name(f"{path.stem}-losses.svg"), loss_histograms(finished))
    write_text(path.with_name(f"{path.stem}-retrain.svg"), figures.retrain_figure(losses))


def _ablate(
    config: SgUnlearn,
    setting: Setting,
    key: Any,
    data: _Data,
    on_stage: OnStage,
) -> None:
    started = time.perf_counter()
    grids = {name: values for name, values in setting.grids.items() if name == "stackelberg"}
    setting = dataclasses.replace(setting, grids=grids)
    setting, choices = _choose_values(key, setting, "random", data, on_stage)
    ablation = ablate(key, setting, data.model, data.train, data.test, on_stage)
    path = result_path(config.results, setting.dataset, "ablation", config.scale)
    path.parent.mkdir(parents=True, exist_ok=True)
    run = _describe(config, setting, "ablation", choices, started)
    write_json(path, as_json({**run, "ablation": ablation._asdict()}))
    write_text(path.with_name(f"{path.stem}-epochs.svg"), figures.ablation_figure(ablation))
    write_text(path.with_name(f"{path.stem}-alpha.svg"), figures.sweep_figure(ablation))


def _choose_values(
    key: Any, setting: Setting, kind: Kind, data: _Data, on_stage: OnStage
) -> tuple[Setting, Choices]:
    if not setting.grids:
        return setting, {}
    choosing_key = jax.random.fold_in(key, CHOOSING)
    return choose(choosing_key, setting, kind, data.model, *data.choosing, on_stage)


def _describe(
    config: SgUnlearn, setting: Setting, part: str, choices: Choices, started: float
) -> dict[str, Any]:
    return {
        "experiment": "sg_unlearn",
        "settings": {
            "part": part,
            "scale": config.scale,
            "seed": config.seed,
            **{
                name: getattr(setting, name)
                for name in ("dataset", "model", "options", "forget", "train", "label")
            },
            "seeds": setting.traces if part == "ablation" else setting.seeds,
        },
        "recipe": dataclasses.asdict(setting.recipe),
        "choices": {
            name: {"hyperparameter": setting.grids[name][0], "tried": [c._asdict() for c in tried]}
            for name, tried in choices.items()
        },
        "methods": {name: repr(method) for name, method in setting.methods().items()},
        "provenance": provenance(),
        "seconds": round(time.perf_counter() - started, 1),
    }


if __name__ == "__main__":
    run_command(main, SgUnlearn)
