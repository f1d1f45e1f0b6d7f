"""Data forging: Tables 1 to 3, Figures 2 to 4 of Suliman et al. 2024, and audits of a forged log.

Command:   python -m experiments.forging --scale cpu --data-dir DIR
           python -m experiments.forging --scale cpu --part page     (the page from results)
Two devices (Tables 1 and 3):
           python -m experiments.forging --part logs --logs DIR       (on the one)
           python -m experiments.forging --part reproduce --logs DIR  (on the other)
Time:      smoke: under a minute of computing. cpu: half an hour on one core: LeNet 7 and 9 minutes,
           logistic regression 2 and 3, VGGmini 11; a setting alone by --setting. paper: an
           accelerator, and 12 GB of disk for one log.
Expected:  honest replays differ by 1e-8 to 1e-6; greedy search and Adam err by 1e-3 to 1e-2, which
           a calibrated verifier rejects; logistic regression is forged to rounding, by batches that
           are no images; a log forged to forget is rejected.
"""

from __future__ import annotations

import dataclasses
import json
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp

from experiments.forging import figures
from experiments.forging.forgetting import run_seed
from experiments.forging.measure import (
    OnStage,
    forge_triples,
    highest_precision,
    reproduce,
    verdict,
    write_log,
)
from experiments.forging.page import figure_path, result_path, write_pages
from experiments.forging.settings import Setting, settings
from experiments.frame import (
    Command,
    Scale,
    StageProgress,
    choose_named,
    load_present,
    run_command,
    run_to_page,
)
from unlearnkit import models
from unlearnkit.base import Dataset, Model
from unlearnkit.data import describe, load
from unlearnkit.forging import verify
from unlearnkit.io.files import write_json, write_text
from unlearnkit.io.provenance import environment, provenance
from unlearnkit.training import read_trajectory

Part = Literal["all", "logs", "reproduce", "page"]


@dataclasses.dataclass(frozen=True)
class Forging(Command):
    """Forges batches and logs, verifies and audits them, and judges the claims of the paper."""

    scale: Scale = "cpu"
    """smoke (digits), cpu (MNIST and a little CIFAR-10), paper (the paper's own, accelerator)."""
    part: Part = "all"
    """all; logs (only write them), reproduce (verify logs of another device), page (from results
    that are there)."""
    setting: str | None = None
    """One setting of the scale, as lenet-mnist-100; by default all whose data are present."""
    data_dir: Path | None = None
    """Where prepared TFDS datasets are."""
    logs: Path | None = None
    """Where logs are kept; by default they are thrown away. A log that is there is kept."""
    seed: int = 0
    """The key of the whole run."""
    results: Path = Path("results")
    """Results go to its folder forging."""


def main(config: Forging) -> int:
    """Runs the parts and writes the page; returns the exit code."""
    return run_to_page(partial(_run, config))


def _run(config: Forging, progress: StageProgress) -> Path | None:
    """Returns the page, which the part that only writes logs does not make."""
    known = settings(config.scale)
    chosen = choose_named("setting", known, config.setting, config.scale)
    if config.part in ("logs", "reproduce") and config.logs is None:
        raise ValueError(f"part {config.part} needs a folder for logs; give --logs DIR")
    if config.part != "page":
        with tempfile.TemporaryDirectory() as folder:
            for index, (name, setting) in enumerate(known.items()):  # keys come from the place
                if name in chosen:
                    _run_setting(config, index, setting, Path(folder), progress)
    return None if config.part == "logs" else write_pages(config.results, config.scale)


def _run_setting(
    config: Forging, index: int, setting: Setting, scratch: Path, progress: StageProgress
) -> None:
    def on_stage(stage: str) -> None:
        progress(f"{setting.title}: {stage}", 0, 1)

    asked = config.setting is not None
    loaded = load_present(
        lambda: _load(config, setting),
        f"{setting.title}: {setting.dataset}",
        asked=asked,
        on_stage=progress,
    )
    if loaded is None:
        return
    model, train, test = loaded
    key = jax.random.fold_in(jax.random.key(config.seed), index)
    kept = scratch if config.logs is None else config.logs
    log = kept / f"{setting.name}-{config.scale}"
    if config.part == "reproduce":
        on_stage("verifying the log of another device")
        _add_device(config, setting, model, train, log)
        return
    started = time.perf_counter()
    log_key, *keys = jax.random.split(key, 4)
    on_stage("training, logged")
    write_log(log_key, setting, model, train, log)
    if config.part == "all":
        run = {"experiment": "forging", "settings": _describe(config, setting)}
        found = _measure(keys, setting, (model, train, test), log, scratch, on_stage)
        path = result_path(config.results, setting.name, config.scale)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(figure_path(path, "pictures"), figures.pictures_figure(found.pop("pictures")))
        seconds = round(time.perf_counter() - started, 1)
        write_json(path, {**run, "provenance": provenance(), "seconds": seconds, **found})


def _load(config: Forging, setting: Setting) -> tuple[Model, Dataset, Dataset]:
    where: dict[str, Any] = {"data_dir": config.data_dir}
    train, test = (load(setting.dataset, split=split, **where) for split in ("train", "test"))
    description = describe(setting.dataset, **where)
    model = models.create(
        setting.model, input_shape=description.input_shape, n_classes=description.n_classes
    )
    order = jax.random.permutation(jax.random.key(0), train.size)
    return model, train.take(jnp.sort(order[: setting.train])), test


def _measure(
    keys: list[Any],
    setting: Setting,
    data: tuple[Model, Dataset, Dataset],
    log: Path,
    scratch: Path,
    on_stage: OnStage,
) -> dict[str, Any]:
    model, train, test = data
    on_stage("replaying honestly")
    reproduction = reproduce(keys[0], setting, model, train, log)
    forged, pictures = forge_triples(keys[1], setting, model, train, log, on_stage)
    found = {"reproduction": reproduction, "forged": forged, "pictures": pictures}
    if setting.forgetting is None:
        return found
    seeds = []
    for seed in range(setting.forgetting.seeds):
        folder = scratch / f"{setting.name}-{seed}"

        def report(stage: str, seed: int = seed) -> None:
            on_stage(f"{stage}, seed {seed + 1}")

        seed_key, first = jax.random.fold_in(keys[2], seed), seed == 0
        arguments = (setting.forgetting, model, train, test, folder, report)
        seeds.append(run_seed(seed_key, *arguments, forge=first))
    return {**found, "forgetting": seeds}


def _add_device(config: Forging, setting: Setting, model: Model, train: Dataset, log: Path) -> None:
    """Adds a row of Table 3 to the setting's result."""
    path = result_path(config.results, setting.name, config.scale)
    if not path.exists():
        raise FileNotFoundError(f"there is no {path}; run --part all first, on either device")
    result = json.loads(path.read_text(encoding="utf-8"))
    tolerance = result["reproduction"]["tolerance"]
    with highest_precision():
        report = verify(log, train, tolerance=tolerance, model=model)
    made_on, verified_on = (
        f"{where['device']} {where['processor']}".strip()
        for where in (read_trajectory(log).claim.environment, environment())
    )
    row = {"made_on": made_on, "verified_on": verified_on, **verdict(report)}
    others = [
        one
        for one in result.get("elsewhere", [])
        if (one["made_on"], one["verified_on"]) != (made_on, verified_on)
    ]
    write_json(path, {**result, "elsewhere": [*others, row]})


def _describe(config: Forging, setting: Setting) -> dict[str, Any]:
    """Returns the setting as JSON values; attacks are listed with their results."""
    plain = {
        name: getattr(setting, name)
        for name in (
            "title", "dataset", "model", "batch_size", "train", "epochs", "triples", "shuffles"
        )
    }  # fmt: skip
    return {
        "scale": config.scale,
        "seed": config.seed,
        **plain,
        "recipe": dataclasses.asdict(setting.recipe),
        "exact": None if setting.exact is None else dataclasses.asdict(setting.exact),
        "forgetting": None if setting.forgetting is None else repr(setting.forgetting),
    }


if __name__ == "__main__":
    run_command(main, Forging)
