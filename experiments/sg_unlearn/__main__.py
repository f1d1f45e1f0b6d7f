"""SG-Unlearn against every method of paper 001: its Tables 1, 2, 4, 6 and Figures 1 to 5.

Command:   python -m experiments.sg_unlearn --scale cpu --data-dir DIR
           python -m experiments.sg_unlearn --scale cpu --part page     (the page from results)
Time:      smoke: about two minutes, of compilation. cpu: CIFAR-10's tables take 6 minutes each on
           one core and its figures 7; MNIST was not timed. paper: an accelerator.
Expected:  SG lowers MIA accuracy, KS and Wasserstein distance toward Retrain against FT, at some
           cost of test accuracy; the page says of each claim whether it holds.
"""

from __future__ import annotations

import dataclasses
import sys
import time
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import tyro

from experiments.frame import Scale, StageProgress, make_console, save_result
from experiments.sg_unlearn import figures
from experiments.sg_unlearn.page import KINDS, make_page, result_path, write_tables
from experiments.sg_unlearn.runs import ablate, compare_methods
from experiments.sg_unlearn.settings import Setting, settings
from unlearnkit import models
from unlearnkit.base import Dataset, Model
from unlearnkit.data import describe, load
from unlearnkit.files import write_json, write_text
from unlearnkit.provenance import provenance
from unlearnkit.reporting import loss_histograms
from unlearnkit.study import OnStage
from unlearnkit.training import DivergedError

Part = Literal["all", "random", "class", "ablation", "page"]


@dataclasses.dataclass(frozen=True)
class SgUnlearn:
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
    console = make_console()
    try:
        chosen = _choose(config)
        with StageProgress(console) as progress:
            for setting in chosen.values():
                if config.part != "page":
                    _run_dataset(config, setting, progress)
        page = config.results / "sg_unlearn" / f"{config.scale}.html"
        names = list(settings(config.scale))
        write_tables(config.results, config.scale, names)
        write_text(page, make_page(config.results, config.scale, names))
    except (ValueError, TypeError, ImportError, OSError, DivergedError) as error:
        console.print(f"error: {error}", style="bold red", markup=False, highlight=False)
        return 2
    console.print(f"open {page}", highlight=False)
    return 0


def _choose(config: SgUnlearn) -> dict[str, Setting]:
    known = settings(config.scale)
    if config.dataset is not None and config.dataset not in known:
        raise ValueError(
            f"dataset must be one of {', '.join(known)} at scale {config.scale}, "
            f"got {config.dataset!r}"
        )
    if config.seeds is not None and config.seeds < 1:
        raise ValueError(f"seeds must be >= 1, got {config.seeds}")
    names = list(known) if config.dataset is None else [config.dataset]
    chosen = {name: known[name] for name in names}
    if config.seeds is None:
        return chosen
    return {
        name: dataclasses.replace(setting, seeds=config.seeds, traces=config.seeds)
        for name, setting in chosen.items()
    }


def _run_dataset(config: SgUnlearn, setting: Setting, progress: StageProgress) -> None:
    try:
        model, train, test = _load(config, setting)
    except (ImportError, FileNotFoundError) as error:
        if config.dataset is not None:
            raise
        progress(f"{setting.dataset} is not present ({error}); going on without it", 0, 1)
        return
    key = jax.random.key(config.seed)

    def on_stage(stage: str, done: int, total: int) -> None:
        progress(f"{setting.dataset}: {stage}", done, total)

    for index, kind in enumerate(KINDS):
        if config.part in ("all", kind):
            _compare(
                config,
                setting.of(kind),
                kind,
                jax.random.fold_in(key, index),
                (model, train, test),
                on_stage,
            )
    if config.part in ("all", "ablation"):
        _ablate(config, setting, jax.random.fold_in(key, 2), (model, train, test), on_stage)


def _load(config: SgUnlearn, setting: Setting) -> tuple[Model, Dataset, Dataset]:
    where: dict[str, Any] = {"data_dir": config.data_dir}
    train, test = (
        load(setting.dataset, split=split, normalisation="standard", **where)
        for split in ("train", "test")
    )
    description = describe(setting.dataset, **where)
    model = models.create(
        setting.model, input_shape=description.input_shape, n_classes=description.n_classes
    )
    if setting.train is not None:
        order = jax.random.permutation(jax.random.key(0), train.size)
        train = train.take(jnp.sort(order[: setting.train]))
    return model, train, test


def _compare(
    config: SgUnlearn,
    setting: Setting,
    kind: Any,
    key: Any,
    data: tuple[Model, Dataset, Dataset],
    on_stage: OnStage,
) -> None:
    started = time.perf_counter()
    records, losses = compare_methods(key, setting, kind, *data, on_stage)
    path = result_path(config.results, setting.dataset, kind, config.scale)
    run = {**_describe(config, setting, kind, started), "retrain_losses": losses}
    save_result(path, records, run)
    finished = [record for record in records if record.diverged is None]
    write_text(path.with_name(f"{path.stem}-losses.svg"), loss_histograms(finished))
    write_text(path.with_name(f"{path.stem}-retrain.svg"), figures.retrain_figure(losses))


def _ablate(
    config: SgUnlearn,
    setting: Setting,
    key: Any,
    data: tuple[Model, Dataset, Dataset],
    on_stage: OnStage,
) -> None:
    started = time.perf_counter()
    ablation = ablate(key, setting, *data, on_stage)
    path = result_path(config.results, setting.dataset, "ablation", config.scale)
    path.parent.mkdir(parents=True, exist_ok=True)
    run = _describe(config, setting, "ablation", started)
    write_json(path, {**run, "ablation": ablation._asdict()})
    write_text(path.with_name(f"{path.stem}-epochs.svg"), figures.ablation_figure(ablation))
    write_text(path.with_name(f"{path.stem}-alpha.svg"), figures.sweep_figure(ablation))


def _describe(config: SgUnlearn, setting: Setting, part: str, started: float) -> dict[str, Any]:
    return {
        "experiment": "sg_unlearn",
        "settings": {
            "part": part,
            "scale": config.scale,
            "seed": config.seed,
            **{
                name: getattr(setting, name)
                for name in ("dataset", "model", "forget", "train", "label", "alpha")
            },
            "seeds": setting.traces if part == "ablation" else setting.seeds,
        },
        "recipe": dataclasses.asdict(setting.recipe),
        "methods": {name: repr(method) for name, method in setting.methods().items()},
        "provenance": provenance(),
        "seconds": round(time.perf_counter() - started, 1),
    }


if __name__ == "__main__":
    sys.exit(main(tyro.cli(SgUnlearn)))
