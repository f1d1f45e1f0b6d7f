"""TGDA against the attacks of paper 003: its Tables 2 to 9, 12, 13 and Figures 1, 3, 4, 5.

Command:   python -m experiments.tgda --scale cpu --data-dir DIR
           python -m experiments.tgda --scale cpu --target mnist-lr     (one network)
           python -m experiments.tgda --scale cpu --page                (the page from results)
Time:      smoke: about a minute, of compilation. cpu and paper were not timed.
Expected:  TGDA drops the accuracy of LR and NN on MNIST more than label flip and min-max do at
           ε = 3 %; the page says of each claim whether it holds.
"""

from __future__ import annotations

import dataclasses
import sys
import time
from pathlib import Path
from typing import Any

import jax
import tyro

from experiments.frame import Scale, StageProgress, make_console, save_result
from experiments.tgda import figures
from experiments.tgda.page import make_page, make_table, result_path, write_tables
from experiments.tgda.runs import attack_all, load_data
from experiments.tgda.settings import Target, targets
from unlearnkit.files import write_text
from unlearnkit.provenance import provenance
from unlearnkit.training import DivergedError


@dataclasses.dataclass(frozen=True)
class Tgda:
    """Compares TGDA with other poisoning attacks, and judges the claims of its paper."""

    scale: Scale = "cpu"
    """smoke (digits, seconds), cpu (MNIST, CIFAR-10 subsets), paper (the paper's own)."""
    target: str | None = None
    """One network of the scale, as mnist-lr; by default all whose data are present."""
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
    console = make_console()
    known = targets(config.scale)
    try:
        chosen = _choose(config, known)
        with StageProgress(console) as progress:
            for name, target in chosen.items():
                if not config.page:
                    _run(config, name, target, progress)
        page = config.results / "tgda" / f"{config.scale}.html"
        text = make_page(config.results, config.scale, known)
        write_tables(config.results, config.scale, known)
        write_text(page, text)
    except (ValueError, TypeError, ImportError, OSError, DivergedError) as error:
        console.print(f"error: {error}", style="bold red", markup=False, highlight=False)
        return 2
    console.print(f"open {page}", highlight=False)
    return 0


def _choose(config: Tgda, known: dict[str, Target]) -> dict[str, Target]:
    if config.target is not None and config.target not in known:
        raise ValueError(
            f"target must be one of {', '.join(known)} at scale {config.scale}, "
            f"got {config.target!r}"
        )
    if config.seeds is not None and config.seeds < 1:
        raise ValueError(f"seeds must be >= 1, got {config.seeds}")
    chosen = {n: t for n, t in known.items() if config.target in (None, n)}
    if config.seeds is None:
        return chosen
    return {n: dataclasses.replace(t, seeds=config.seeds) for n, t in chosen.items()}


def _run(config: Tgda, name: str, target: Target, progress: StageProgress) -> None:
    started = time.perf_counter()
    try:
        data = load_data(target, config.data_dir)
    except (ImportError, FileNotFoundError) as error:
        if config.target is not None:
            raise
        progress(f"{target.dataset} is not present ({error}); going on without it", 0, 1)
        return

    def on_stage(stage: str, done: int, total: int) -> None:
        progress(f"{name}: {stage}", done, total)

    outcome = attack_all(jax.random.key(config.seed), target, data, on_stage)
    path = result_path(config.results, name, config.scale)
    seconds = round(time.perf_counter() - started, 1)
    run = _describe(config, name, target, outcome.notes, seconds)
    save_result(path, outcome.records, run, table=make_table(target, run, outcome.records))
    if outcome.samples:
        picture = path.with_name(f"{path.stem}-poisons.svg")
        write_text(picture, figures.poison_figure(outcome.samples))


def _describe(
    config: Tgda, name: str, target: Target, notes: dict[str, list[str]], seconds: float
) -> dict[str, Any]:
    return {
        "experiment": "tgda",
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
        "attacks": {attack: repr(made) for attack, made in target.attacks.items()},
        "notes": notes,
        "provenance": provenance(),
        "seconds": seconds,
    }


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Tgda)))
