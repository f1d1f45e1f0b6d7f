"""TGDA against the attacks of Lu et al. 2022: its Tables 2 to 13 and Figures 1, 3, 4, 5.

Command:   python -m experiments.tgda --scale cpu --data-dir DIR
           python -m experiments.tgda --scale cpu --target mnist-lr     (one network)
           python -m experiments.tgda --target mnist-lr --attack tgda   (put into its result)
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
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import jax

from experiments import frame, pages
from experiments.frame import PaperCommand, StageProgress
from experiments.tgda.figures import poison_figure
from experiments.tgda.page import make_page
from experiments.tgda.runs import Data, attack_all, load_data
from experiments.tgda.settings import Target, targets
from unlearnkit.studies import OnStage, Record
from unlearnkit.validation import check_known

Result: TypeAlias = tuple[dict[str, Any], list[Record]]


@dataclasses.dataclass(frozen=True)
class Tgda(PaperCommand):
    """Compares TGDA with other poisoning attacks, and judges the claims of its paper."""

    paper = "tgda"
    target: str | None = None
    """One network of the scale, as mnist-lr; by default all whose data are present."""
    attack: str | None = None
    """One attack of --target, which is put into the result that is there; by default all."""
    seeds: int | None = None
    """Repetitions; by default the scale's."""
    page: bool = False
    """Makes the tables and the page again from results that are there."""


def main(config: Tgda) -> int:
    """Attacks the targets and writes the page; returns the exit code."""
    return frame.run_to_page(partial(_run, config))


def _run(config: Tgda, progress: StageProgress) -> Path:
    known = targets(config.scale)
    chosen = frame.choose_named("target", known, config.target, config.scale)
    if config.attack is not None and config.target is None:
        raise ValueError("attack needs a target; choose one by --target")
    chosen = frame.with_seeds(chosen, config.seeds)
    earlier = None
    if config.attack is not None:
        ((name, target),) = chosen.items()
        check_known("attack", config.attack, target.attacks)
        alone = {config.attack: target.attacks[config.attack]}
        chosen = {name: dataclasses.replace(target, attacks=alone)}
        earlier = _load_earlier(config, name, chosen[name])
    load, asked = partial(load_data, data_dir=config.data_dir), config.target is not None
    to_run = {} if config.page else chosen
    for name, target, data in frame.load_each(to_run, load, asked=asked, on_stage=progress):
        _run_target(config, name, target, data, earlier, frame.prefix_stage(name, progress))
    return make_page(config, known)


def _run_target(
    config: Tgda, name: str, target: Target, data: Data, earlier: Result | None, on_stage: OnStage
) -> None:
    started = time.perf_counter()
    outcome = attack_all(jax.random.key(config.seed), target, data, on_stage, config.store)
    attacks = {attack: repr(made) for attack, made in target.attacks.items()}
    run = config.describe(**_shared(name, target), attacks=attacks, notes=outcome.notes)
    run["seconds"] = round(time.perf_counter() - started, 1)
    records = outcome.records
    if earlier is not None:
        run, records = _add(earlier, run, records)
    path = config.path(name)
    frame.save_result(path, run, records)
    if outcome.samples:
        name = "poisons" if config.attack is None else f"poisons-{config.attack}"
        pages.draw(path, name, poison_figure(outcome.samples))


def _shared(name: str, target: Target) -> dict[str, Any]:
    """Returns what all attacks of a result share."""
    fields = ("model", "train", "seeds")
    settings = {"target": name, "dataset": target.source, "transfer": list(target.transfer)}
    settings |= {field: getattr(target, field) for field in fields}
    return {"settings": settings, "recipe": dataclasses.asdict(target.recipe)}


def _load_earlier(config: Tgda, name: str, target: Target) -> Result:
    """Returns the result that is there; refuses one that was made otherwise."""
    path, asked = config.path(name), config.describe(**_shared(name, target))
    if not path.exists():
        raise FileNotFoundError(f"no {path} to put the attack into; run it without --attack first")
    run, records = frame.load_result(path)
    parts = ("settings", "recipe")
    there, wanted = ({part: made[part] for part in parts} for made in (run, asked))
    if there != json.loads(json.dumps(wanted)):
        raise ValueError(f"{path} was made with {there}, not with {wanted}")
    return run, records


def _add(earlier: Result, run: dict[str, Any], records: list[Record]) -> Result:
    """Returns the earlier result with the rows of one attack; the clean networks are the same."""
    merged, kept = earlier
    (attack,) = run["attacks"]
    for part in ("attacks", "notes"):
        merged[part] = {**merged[part], **run[part]}
    details = {"provenance": run["provenance"], "seconds": run["seconds"]}
    merged["added"] = {**merged.get("added", {}), attack: details}
    rows = [record for record in records if record.method == attack]
    return merged, [*(record for record in kept if record.method != attack), *rows]


if __name__ == "__main__":
    frame.run_command(main, Tgda)
