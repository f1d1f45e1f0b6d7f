"""Data forging: Tables 1 to 3, Figures 2 to 4 of Suliman et al. 2024, and audits of a forged log.

Command:   python -m experiments.forging --scale cpu --data-dir DIR
           python -m experiments.forging --scale cpu --part page     (the page from results)
Two devices (Tables 1 and 3):
           python -m experiments.forging --part logs --logs DIR       (on the one)
           python -m experiments.forging --part reproduce --logs DIR  (on the other)
Time:      smoke: two minutes. cpu: about an hour on one core: LeNet 30 and 9 minutes,
           logistic regression 2 and 3, VGGmini 11; a setting alone by --setting. paper: an
           accelerator, and 12 GB of disk for one log.
Expected:  honest replays differ by 1e-8 to 1e-6; greedy search and Adam err by 1e-3 to 1e-2, which
           a calibrated verifier rejects; logistic regression is forged to rounding, by batches that
           are no images; a log forged to forget is rejected.
"""

from __future__ import annotations

import dataclasses
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any, Literal

import jax

from experiments import frame, pages
from experiments.forging import measure
from experiments.forging.figures import pictures_figure
from experiments.forging.page import make_page
from experiments.forging.settings import Setting, settings
from experiments.frame import Data, PaperCommand, StageProgress
from unlearnkit.forging import verify
from unlearnkit.io.provenance import environment
from unlearnkit.studies import run
from unlearnkit.training import read_trajectory

Part = Literal["all", "logs", "reproduce", "page"]
DESCRIBED = ("title", "dataset", "model", "batch_size", "train", "epochs", "triples", "shuffles")
"""Of a setting; its attacks are listed with their results."""


@dataclasses.dataclass(frozen=True)
class Forging(PaperCommand):
    """Forges batches and logs, verifies and audits them, and judges the claims of the paper."""

    paper = "forging"
    part: Part = "all"
    """all; logs (only write them), reproduce (verify logs of another device), page (from results
    that are there)."""
    setting: str | None = None
    """One setting of the scale, as lenet-mnist-100; by default all whose data are present."""
    logs: Path | None = None
    """Where logs are kept; by default they are thrown away. A log that is there is kept."""


def main(config: Forging) -> int:
    """Runs the parts and writes the page; returns the exit code."""
    return frame.run_to_page(partial(_run, config))


def _run(config: Forging, progress: StageProgress) -> Path | None:
    """Returns the page, which the part that only writes logs does not make."""
    known = settings(config.scale)
    chosen = frame.choose_named("setting", known, config.setting, config.scale)
    if config.part in ("logs", "reproduce") and config.logs is None:
        raise ValueError(f"part {config.part} needs a folder for logs; give --logs DIR")
    with tempfile.TemporaryDirectory() as folder:
        load, asked = partial(_load, data_dir=config.data_dir), config.setting is not None
        to_run = {} if config.part == "page" else chosen
        for name, setting, data in frame.load_each(to_run, load, asked=asked, on_stage=progress):
            key = jax.random.fold_in(jax.random.key(config.seed), list(known).index(name))
            _run_setting(config, key, setting, data, Path(folder), progress)
    return None if config.part == "logs" else make_page(config, list(known))


def _load(setting: Setting, data_dir: Path | None) -> Data:
    data = frame.load_data(setting.dataset, setting.model, data_dir)
    return data._replace(train=frame.subset(data.train, setting.train))


def _run_setting(
    config: Forging, key: Any, setting: Setting, data: Data, scratch: Path, progress: StageProgress
) -> None:
    def on_work(stage: str) -> None:
        progress(f"{setting.title}: {stage}", 0, 1)

    log = (config.logs or scratch) / f"{setting.name}-{config.scale}"
    if config.part == "reproduce":
        on_work("verifying the log of another device")
        _add_device(config.path(setting.name), data, log)
        return
    started = time.perf_counter()
    log_key, *keys = jax.random.split(key, 4)
    on_work("training, logged")
    measure.write_log(log_key, setting, data, log)
    if config.part == "all":
        described = config.describe(
            {name: getattr(setting, name) for name in DESCRIBED}
            | {
                "recipe": dataclasses.asdict(setting.recipe),
                "exact": setting.exact,
                "forgetting": None if setting.forgetting is None else repr(setting.forgetting),
            }
        )
        described |= _measure(config.path(setting.name), keys, setting, data, log, on_work)
        on_stage = frame.prefix_stage(setting.title, progress)
        records = _study_logs(config, keys[2], setting, data, on_stage)
        frame.save_result(config.path(setting.name), described, records, started=started)


def _measure(
    path: Path, keys: list[Any], setting: Setting, data: Data, log: Path, on_work: measure.OnWork
) -> dict[str, Any]:
    """Returns all that is measured, and draws the batches while they are there."""
    on_work("replaying honestly")
    reproduction = measure.reproduce(keys[0], setting, data, log)
    forged, batches = measure.forge_triples(keys[1], setting, data, log, on_work)
    pages.draw(path, "pictures", pictures_figure(batches))
    return {"reproduction": reproduction, "forged": forged}


def _study_logs(config: Forging, key: Any, setting: Setting, data: Data, on_stage: Any) -> Any:
    """Returns the records of the study of forged logs, none where the setting has none."""
    if setting.forgetting is None:
        return None
    with measure.highest_precision():
        study = setting.forgetting.study(data)
        return list(run(study, key, store=config.store, on_stage=on_stage, strict=True))


def _add_device(path: Path, data: Data, log: Path) -> None:
    """Adds a row of Table 3 to the setting's result."""
    if not path.exists():
        raise FileNotFoundError(f"there is no {path}; run --part all first, on either device")
    result, records = frame.load_result(path)
    tolerance = result["reproduction"]["tolerance"]
    with measure.highest_precision():
        report = verify(log, data.train, tolerance=tolerance, model=data.model)
    places = (read_trajectory(log).claim.environment, environment())
    made_on, verified_on = (f"{one['device']} {one['processor']}".strip() for one in places)
    row = {"made_on": made_on, "verified_on": verified_on, **measure.verdict(report)}
    others = [
        one
        for one in result.get("elsewhere", [])
        if (one["made_on"], one["verified_on"]) != (made_on, verified_on)
    ]
    described = {**result, "elsewhere": [*others, row]}
    frame.save_result(path, described, records or None)


if __name__ == "__main__":
    frame.run_command(main, Forging)
