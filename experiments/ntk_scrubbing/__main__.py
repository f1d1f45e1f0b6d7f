"""Scrubbing a fine-tuned network by its tangent kernel: Figures 1 to 4 of Golatkar et al. 2020b.

Command:   python -m experiments.ntk_scrubbing --scale cpu --data-dir DIR
Time:      smoke under a minute (digits), cpu about an hour on one core (CIFAR-10), in
           three settings (`--setting`); paper needs an accelerator.
Expected:  the original network errs on none of the forget set and relearns it at once; NTK
           scrubbing moves error, relearn time and outputs most of the way to the retrained
           network's at no test error; Fisher noise alone hurts the rest before it gets there, and
           the trapezium overshoots where the linearisation at the trained weights needs no help.
           Narrow networks with BatchNorm do not fit all examples, and show less of it.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping
from typing import Any

import jax

from experiments import frame
from experiments.frame import PaperCommand
from experiments.ntk_scrubbing import claims, figures, settings
from experiments.ntk_scrubbing.measure import by_seed, make_study
from experiments.ntk_scrubbing.settings import FILE, Pools, Setting, load_pools
from experiments.pages import Section, read_columns, records_table
from unlearnkit import studies
from unlearnkit.reporting import scrubbing
from unlearnkit.studies import OnStage, Record

READOUTS = read_columns("ntk_readouts")
COLUMNS = (*READOUTS, *read_columns("ntk_distances"))


@dataclasses.dataclass(frozen=True)
class NtkScrubbing(PaperCommand):
    """Forgets part of a small fine-tuning set by NTK scrubbing, as Golatkar et al. 2020b do."""

    paper, large, chosen_by = "ntk_scrubbing", ("figures",), "setting"
    setting: str | None = None
    """One of the scale's, as allcnn; by default all."""
    model: str | None = None
    """Another network, as allcnn_small."""
    seeds: int | None = None
    """Repetitions; by default the scale's."""
    page: bool = False
    """Makes the table, the page and the figures again from results that are there."""

    def settings(self) -> Mapping[str, Setting]:
        known = frame.with_seeds(frame.read_scale(FILE, self.scale, Setting), self.seeds)
        return {
            name: dataclasses.replace(setting, model=self.model or setting.model)
            for name, setting in known.items()
        }

    def load(self, setting: Setting) -> Pools:
        return load_pools(setting, self.data_dir)

    def run_setting(self, name: str, setting: Setting, data: Pools, on_stage: OnStage) -> None:
        started, figures, records = time.perf_counter(), list[Any](), list[Record]()
        methods = {name: repr(method) for name, method in setting.methods().items()}
        run = self.describe(dataclasses.asdict(setting), methods=methods)
        run["pretrained_on"] = data.name
        pretrain_key, draw_key, key = jax.random.split(jax.random.key(self.seed), 3)
        on_stage(f"pretraining on {data.name}", 0, 1)
        start = settings.pretrain(pretrain_key, setting, data)
        keys = [jax.random.fold_in(draw_key, seed) for seed in range(setting.seeds)]
        draws = [settings.draw_examples(own, setting, data.own) for own in keys]
        for first, part in ((0, draws[:1]), (1, draws[1:])):
            if part:
                study = make_study(setting, data.own.model, start, part, first)
                own = jax.random.fold_in(key, first)
                found = studies.run(study, own, store=self.store, on_stage=on_stage, strict=True)
                records += by_seed(found, figures)
        run["figures"] = frame.rounded(figures)
        frame.save_result(self.path(name), run, records, started=started)

    def section(self, name: str, run: dict[str, Any], records: list[Record]) -> Section:
        curves = run["figures"]
        pictures: dict[str, str | None] = {
            "figure1": scrubbing.training_paths(curves[0]["paths"]),
            "figure2": figures.readouts(records, READOUTS),
            "figure3": scrubbing.information(curves),
            "figure4": scrubbing.activations(curves),
        }
        title, table = _title(run["settings"]), records_table(records, COLUMNS)
        return Section(title, [table], claims.judge(records, curves), pictures=pictures)


def _title(settings: Mapping[str, Any]) -> str:
    width = settings.get("width")
    of_width = "" if width is None else f" of width {width}"
    return f"{settings['model']}{of_width} on {settings['dataset']}"


if __name__ == "__main__":
    frame.run_command(NtkScrubbing)
