"""Scrubbing a fine-tuned network by its tangent kernel: Figures 1 to 4 of Golatkar et al. 2020b.

Command:   python -m experiments.ntk_scrubbing --scale cpu --data-dir DIR
Time:      smoke under a minute (digits), cpu about 15 minutes on one core (CIFAR-10); paper needs
           an accelerator.
Expected:  the original network errs on none of the forget set and relearns it at once; NTK
           scrubbing moves error, relearn time and outputs most of the way to the retrained
           network's at no test error; Fisher noise alone hurts the rest before it gets there, and
           the trapezium overshoots where the linearisation at the trained weights needs no help.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax

from experiments import frame
from experiments.frame import PaperCommand, StageProgress
from experiments.ntk_scrubbing import claims, figures, settings
from experiments.ntk_scrubbing.measure import by_seed, make_study
from experiments.pages import Section, read_columns, records_table, write_page
from unlearnkit import studies
from unlearnkit.studies import Record

READOUTS = read_columns("ntk_readouts")
COLUMNS = (*READOUTS, *read_columns("ntk_distances"))
LEAD = (
    "Mean ± standard deviation over the seeds. Distances are to a reference fine-tuned on the "
    "retain set with the original's seed; the row <em>retrain</em> is another fine-tuning with "
    "another key, the floor of every distance."
)


@dataclasses.dataclass(frozen=True)
class NtkScrubbing(PaperCommand):
    """Forgets part of a small fine-tuning set by NTK scrubbing, as Golatkar et al. 2020b do."""

    paper = "ntk_scrubbing"
    model: str | None = None
    """Another network, as allcnn_small."""
    seeds: int | None = None
    """Repetitions; by default the scale's."""
    page: bool = False
    """Makes the table, the page and the figures again from results that are there."""


def main(config: NtkScrubbing) -> int:
    """Runs the experiment and writes the page; returns the exit code."""
    return frame.run_to_page(partial(_run, config))


def _run(config: NtkScrubbing, progress: StageProgress) -> Path:
    setting = settings.choose_setting(config.scale)
    if config.model is not None:
        setting = dataclasses.replace(setting, model=config.model)
    if not config.page:
        (setting,) = frame.with_seeds({"": setting}, config.seeds).values()
        _run_study(config, setting, progress)
    sections, runs = {}, {}
    for name, path in config.present([setting.dataset]).items():
        run, records = frame.load_result(path)
        title = f"{run['settings']['model']} on {name}"
        sections[name] = _section(title, records, run.pop("figures"))
        runs[name] = run
    title = "NTK scrubbing (Golatkar et al. 2020b)"
    return write_page(config, sections, runs, title=title, lead=LEAD)


def _run_study(config: NtkScrubbing, setting: settings.Setting, progress: StageProgress) -> None:
    started = time.perf_counter()
    methods = {name: repr(method) for name, method in setting.methods().items()}
    run = config.describe(dataclasses.asdict(setting), methods=methods)
    pools = settings.load_pools(setting, config.data_dir)
    model = settings.make_model(setting.model, setting.dataset, settings.CLASSES, config.data_dir)
    pretrain_key, draw_key, key = jax.random.split(jax.random.key(config.seed), 3)
    run["pretrained_on"], figures = pools.pretrain_name, list[Any]()
    progress(f"pretraining on {pools.pretrain_name}", 0, 1)
    start = settings.pretrained(pretrain_key, setting, pools, model, config.data_dir)
    keys = [jax.random.fold_in(draw_key, seed) for seed in range(setting.seeds)]
    draws = [settings.draw_examples(own, setting, pools) for own in keys]
    study = make_study(setting, model, start, draws)
    found = studies.run(study, key, store=config.store, on_stage=progress, strict=True)
    records = list(by_seed(found, figures))
    run["figures"] = frame.rounded(figures)
    frame.save_result(config.path(setting.dataset), run, records, started=started)


def _section(title: str, records: Sequence[Record], curves: Sequence[dict[str, Any]]) -> Section:
    pictures = {
        "figure1": figures.training_paths(curves[0]["paths"]),
        "figure2": figures.readouts(records, READOUTS),
        "figure3": figures.information(curves),
        "figure4": figures.activations(curves),
    }
    table = records_table(records, COLUMNS)
    return Section(title, [table], claims.judge(records, curves), pictures=pictures)


if __name__ == "__main__":
    frame.run_command(main, NtkScrubbing)
