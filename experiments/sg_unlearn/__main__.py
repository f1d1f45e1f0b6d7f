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
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import numpy as np

from experiments import frame, pages
from experiments.charts import Picture
from experiments.frame import Data, PaperCommand, StageProgress
from experiments.sg_unlearn.figures import LOSSES
from experiments.sg_unlearn.page import make_page
from experiments.sg_unlearn.runs import Choice, Kind, ablate, choose, compare_methods
from experiments.sg_unlearn.settings import Setting, settings
from unlearnkit.reporting import loss_histograms
from unlearnkit.studies import OnStage

Part = Literal["all", "random", "class", "ablation", "page"]
HELD_BACK = 4
"""Where there is something to choose, one of so many test examples is for that alone."""
CHOOSING = 1_000_000
"""Folded into a part's key, apart from the seeds 0, 1, ... of its tables."""
DESCRIBED = ("dataset", "model", "options", "forget", "train", "label")


@dataclasses.dataclass(frozen=True)
class SgUnlearn(PaperCommand):
    """Compares SG-Unlearn with the methods of its paper, and judges the paper's claims."""

    paper = "sg_unlearn"
    part: Part = "all"
    """random (Tables 1 and 4), class (Tables 2 and 6), ablation (Figures 1 to 3), page (from
    results that are there), all."""
    dataset: str | None = None
    """One dataset of the scale; by default all whose data are present."""
    seeds: int | None = None
    """Repetitions; by default the scale's."""


def main(config: SgUnlearn) -> int:
    """Runs the parts and writes the page; returns the exit code."""
    return frame.run_to_page(partial(_run, config))


def _run(config: SgUnlearn, progress: StageProgress) -> Path:
    known = settings(config.scale)
    chosen = frame.choose_named("dataset", known, config.dataset, config.scale)
    chosen = frame.with_seeds(chosen, config.seeds, "seeds", "traces")
    load, asked = partial(load_examples, data_dir=config.data_dir), config.dataset is not None
    to_run = {} if config.part == "page" else chosen
    for name, setting, found in frame.load_each(to_run, load, asked=asked, on_stage=progress):
        _run_parts(config, setting, found, frame.prefix_stage(name, progress))
    return make_page(config, list(known))


class Examples(NamedTuple):
    """Network and examples of the tables, and others that hyperparameters are chosen on."""

    tables: Data
    choosing: Data


def load_examples(setting: Setting, data_dir: Path | None) -> Examples:
    """Returns the examples; a quarter of the test set is held back if there is a choice."""
    model, train, test = frame.load_data(
        setting.dataset, setting.model, data_dir, normalisation="standard", **setting.options
    )
    n = setting.train or train.size
    others = train.take(frame.draw_order(train)[n : 2 * n])
    choosing = Data(model, others, test.take(np.arange(0, test.size, HELD_BACK)))
    if setting.grids:
        test = test.take(np.flatnonzero(np.arange(test.size) % HELD_BACK > 0))
    return Examples(Data(model, frame.subset(train, n), test), choosing)


def _run_parts(config: SgUnlearn, setting: Setting, examples: Examples, on_stage: OnStage) -> None:
    parts: tuple[Kind | Literal["ablation"], ...] = ("random", "class", "ablation")
    for index, part in enumerate(parts):
        if config.part in ("all", part):
            key = jax.random.fold_in(jax.random.key(config.seed), index)
            if part == "ablation":
                _ablate(config, setting, key, examples, on_stage)
            else:
                _compare(config, setting, part, key, examples, on_stage)


def _compare(
    config: SgUnlearn, setting: Setting, kind: Kind, key: Any, examples: Examples, on_stage: OnStage
) -> None:
    started = time.perf_counter()
    setting, choices = _choose_values(key, setting, kind, examples, on_stage)
    records, losses = compare_methods(key, setting, kind, examples.tables, on_stage, config.store)
    path = config.path(f"{setting.dataset}-{kind}")
    run = _describe(config, setting, kind, choices) | {"retrain_losses": losses}
    frame.save_result(path, run, records, started=started)
    finished = [record for record in records if record.diverged is None]
    pages.draw(path, "losses", Picture(loss_histograms(finished), LOSSES))


def _ablate(
    config: SgUnlearn, setting: Setting, key: Any, examples: Examples, on_stage: OnStage
) -> None:
    started = time.perf_counter()
    grids = {name: values for name, values in setting.grids.items() if name == "stackelberg"}
    setting = dataclasses.replace(setting, grids=grids)
    setting, choices = _choose_values(key, setting, "random", examples, on_stage)
    ablation = ablate(key, setting, examples.tables, on_stage)
    run = _describe(config, setting, "ablation", choices) | {"ablation": ablation._asdict()}
    frame.save_result(config.path(f"{setting.dataset}-ablation"), run, started=started)


def _choose_values(
    key: Any, setting: Setting, kind: Kind, examples: Examples, on_stage: OnStage
) -> tuple[Setting, dict[str, list[Choice]]]:
    if not setting.grids:
        return setting, {}
    return choose(jax.random.fold_in(key, CHOOSING), setting, kind, examples.choosing, on_stage)


def _describe(
    config: SgUnlearn, setting: Setting, part: str, choices: dict[str, list[Choice]]
) -> dict[str, Any]:
    told = {name: getattr(setting, name) for name in DESCRIBED}
    return config.describe(
        {"part": part, **told, "seeds": setting.traces if part == "ablation" else setting.seeds},
        recipe=dataclasses.asdict(setting.recipe),
        choices={
            name: {"hyperparameter": setting.grids[name][0], "tried": [c._asdict() for c in tried]}
            for name, tried in choices.items()
        },
        methods={name: repr(method) for name, method in setting.methods().items()},
    )


if __name__ == "__main__":
    frame.run_command(main, SgUnlearn)
