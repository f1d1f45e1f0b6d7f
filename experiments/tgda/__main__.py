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

from experiments.frame import (
    Command,
    Scale,
    StageProgress,
    choose_named,
    load_present,
    load_result,
    prefix_stage,
    run_command,
    run_to_page,
    save_result,
)
from experiments.tgda import figures
from experiments.tgda.page import (
    make_page,
    make_table,
    picture_path,
    result_path,
    write_tables,
)
from experiments.tgda.runs import attack_all, load_data
from experiments.tgda.settings import Target, targets
from unlearnkit.io.files import write_text
from unlearnkit.io.provenance import provenance
from unlearnkit.studies import Record
from unlearnkit.validation import check_at_least, check_known


@dataclasses.dataclass(frozen=True)
class Tgda(Command):
    """Compares TGDA with other poisoning attacks, and judges the claims of its paper."""

    scale: Scale = "cpu"
    """smoke (digits, seconds), cpu (MNIST, CIFAR-10 subsets), paper (the paper's own)."""
    target: str | None = None
    """One network of the scale, as mnist-lr; by default all whose data are present."""
    attack: str | None = None
    """One attack of --target, which is put into the result that is there; by default all."""
    data_dir: Path | None = None
    """Where prepared TFDS datasets are."""
    seed: int = 0
    """The key of the whole run."""
    seeds: int | None = None
    """Repetitions; by default the scale's."""
    results: Path = Path("results")
    """Results go to its folder tgda."""
    page: bool = False
    """Makes the tables and the page again from results that are there."""


def main(config: Tgda) -> int:
    """Attacks the targets and writes the page; returns the exit code."""
    return run_to_page(partial(_run, config))


def _run(config: Tgda, progress: StageProgress) -> Path:
    known = targets(config.scale)
    for name, target in _choose(config, known).items():
        if not config.page:
            _run_target(config, name, target, progress)
    page = config.results / "tgda" / f"{config.scale}.html"
    text = make_page(config.results, config.scale, known)
    write_tables(config.results, config.scale, known)
    write_text(page, text)
    return page


def _choose(config: Tgda, known: dict[str, Target]) -> dict[str, Target]:
    chosen = choose_named("target", known, config.target, config.scale)
    if config.attack is not None and config.target is None:
        raise ValueError("attack needs a target; choose one by --target")
    if config.seeds is None:
        return chosen
    check_at_least(config, 1, "seeds")
    return {n: dataclasses.replace(t, seeds=config.seeds) for n, t in chosen.items()}


def _run_target(config: Tgda, name: str, target: Target, progress: StageProgress) -> None:
    started = time.perf_counter()
    asked = config.target is not None
    path = result_path(config.results, name, config.scale)
    earlier = None
    if config.attack is not None:
        target = _alone(target, config.attack)
        earlier = _load_earlier(path, _settings(config, name, target))
    data = load_present(
        lambda: load_data(target, config.data_dir), target.dataset, asked=asked, on_stage=progress
    )
    if data is None:
        return
    key = jax.random.key(config.seed)
    outcome = attack_all(key, target, data, prefix_stage(name, progress))
    seconds = round(time.perf_counter() - started, 1)
    run, records = _describe(config, name, target, outcome.notes, seconds), outcome.records
    if earlier is not None:
        run, records = _add(earlier, run, records)
    save_result(path, records, run, table=make_table(target, run, records))
    if outcome.samples:
        drawn = figures.poison_figure(outcome.samples)
        write_text(picture_path(path, config.attack), drawn)


def _alone(target: Target, attack: str) -> Target:
    check_known("attack", attack, target.attacks)
    return dataclasses.replace(target, attacks={attack: target.attacks[attack]})


Result: TypeAlias = tuple[dict[str, Any], list[Record]]


def _load_earlier(path: Path, settings: dict[str, Any]) -> Result:
    """Returns the result that is there; refuses one that was made otherwise."""
    if not path.exists():
        raise FileNotFoundError(f"no {path} to put the attack into; run it without --attack first")
    run, records = load_result(path)
    there, wanted = {part: run[part] for part in settings}, json.loads(json.dumps(settings))
    if there != wanted:
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


def _describe(
    config: Tgda, name: str, target: Target, notes: dict[str, list[str]], seconds: float
) -> dict[str, Any]:
    return {
        "experiment": "tgda",
        **_settings(config, name, target),
        "attacks": {attack: repr(made) for attack, made in target.attacks.items()},
        "notes": notes,
        "provenance": provenance(),
        "seconds": seconds,
    }


def _settings(config: Tgda, name: str, target: Target) -> dict[str, Any]:
    """Returns what all attacks of a result share."""
    return {
        "settings": {
            "target": name,
            "scale": config.scale,
            "seed": config.seed,
            "dataset": target.source,
            "model": target.model,
            "train": target.train,
            "seeds": target.seeds,
            "transfer": list(target.transfer),
        },
        "recipe": dataclasses.asdict(target.recipe),
    }


if __name__ == "__main__":
    run_command(main, Tgda)
