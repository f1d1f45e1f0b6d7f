"""The experiment from its settings to its page."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path
from typing import Any

import jax

from experiments.claims import claims_markdown, claims_table
from experiments.frame import (
    USER_ERRORS,
    Command,
    Scale,
    StageProgress,
    load_result,
    make_console,
    report_error,
    save_result,
)
from experiments.ntk_scrubbing import claims, figures
from experiments.ntk_scrubbing.measure import Seed, run_seed
from experiments.ntk_scrubbing.setting import (
    CLASSES,
    choose_setting,
    draw_task,
    load_data,
    make_model,
    pretrained,
)
from unlearnkit.io.files import write_text
from unlearnkit.io.provenance import provenance
from unlearnkit.reporting import (
    Column,
    compose_page,
    figure_section,
    settings_section,
    table_section,
    to_markdown,
    to_rich,
)
from unlearnkit.studies import Record


def _metric(name: str, scale: float = 1.0) -> Any:
    return lambda record: scale * record.metrics[name]


READOUTS = (
    Column("Forget error, %", _metric("error_forget", 100), 1, "error on the forget set"),
    Column("Retain error, %", _metric("error_retain", 100), 1, "error on what stays"),
    Column("Test error, %", _metric("error_test", 100), 1, "error on unseen data"),
    Column(
        "Called member, %",
        _metric("member_share_forget", 100),
        1,
        "share of the forget set that an SVM on the output entropy takes for training data",
    ),
    Column(
        "Relearn time",
        _metric("relearn_time"),
        1,
        "rounds of training on all until the forget loss is the original's",
    ),
)
COLUMNS = (
    *READOUTS,
    Column(
        "L1 forget",
        _metric("activation_distance_forget"),
        3,
        "mean L1 distance of the probabilities to the reference's, forget set",
    ),
    Column("L1 retain", _metric("activation_distance_retain"), 3, "the same, retain set"),
    Column(
        "L2 weights", _metric("weight_distance"), 3, "distance of the weights to the reference's"
    ),
    Column(
        "Gradients",
        lambda record: record.cost.example_gradients,
        0,
        "cost in example-gradients",
        spread=False,
    ),
)


@dataclasses.dataclass(frozen=True)
class NtkScrubbing(Command):
    """Forgets part of a small fine-tuning set by NTK scrubbing, as Golatkar et al. 2020b do."""

    scale: Scale = "cpu"
    """smoke (digits, seconds), cpu (CIFAR-10, a small network), paper (All-CNN, accelerator)."""
    data_dir: Path | None = None
    """Where prepared TFDS datasets are."""
    model: str | None = None
    """Another network, as allcnn_small."""
    seeds: int | None = None
    """Repetitions; by default the scale's."""
    seed: int = 0
    """The key of the whole run."""
    results: Path = Path("results")
    """Where results go: ntk_scrubbing/<dataset>-<scale>.json, its table, page and figures."""
    page: bool = False
    """Makes the table, the page and the figures again from results that are there."""


def main(config: NtkScrubbing) -> int:
    """Runs the experiment; returns the exit code."""
    console, started = make_console(), time.perf_counter()
    setting = choose_setting(config.scale)
    changes: dict[str, Any] = {"model": config.model, "seeds": config.seeds}
    setting = dataclasses.replace(setting, **{k: v for k, v in changes.items() if v is not None})
    path = config.results / "ntk_scrubbing" / f"{setting.dataset}-{config.scale}.json"
    try:
        run, records = load_result(path) if config.page else _run(config, setting, console)
    except USER_ERRORS as error:
        return report_error(console, error)
    title = f"NTK scrubbing: {run['settings']['model']} on {setting.dataset}"
    console.print(to_rich(records, title=title, columns=COLUMNS))
    if not config.page:
        run["seconds"] = round(time.perf_counter() - started, 1)
    _write(path, title, records, run)
    console.print(f"{run['seconds']} s; all of it is in {path.parent}", highlight=False)
    return 0


def _run(config: NtkScrubbing, setting: Any, console: Any) -> tuple[dict[str, Any], list[Record]]:
    run: dict[str, Any] = {
        "experiment": "ntk_scrubbing",
        "settings": {"scale": config.scale, "seed": config.seed, **dataclasses.asdict(setting)},
        "methods": {name: repr(method) for name, method in setting.methods().items()},
        "provenance": provenance(),
    }
    with StageProgress(console) as progress:
        seeds = _run_seeds(config, setting, run, progress)
    run["figures"] = [seed.figures for seed in seeds]
    return run, [record for seed in seeds for record in seed.records]


def _run_seeds(
    config: NtkScrubbing, setting: Any, run: dict[str, Any], progress: Any
) -> list[Seed]:
    data = load_data(setting, config.data_dir)
    model = make_model(setting.model, setting.dataset, CLASSES, config.data_dir)
    pretrain_key, run_key = jax.random.split(jax.random.key(config.seed))
    run["pretrained_on"] = data.pretrain_name
    progress(f"pretraining on {data.pretrain_name}", 0, 1)
    start = pretrained(pretrain_key, setting, data, model, config.data_dir)
    seeds = []
    for seed in range(setting.seeds):
        task_key, seed_key = jax.random.split(jax.random.fold_in(run_key, seed))

        def on_stage(what: str, seed: int = seed) -> None:
            progress(f"{what}, seed {seed + 1} of {setting.seeds}", 0, 1)

        task = draw_task(task_key, setting, data)
        seeds.append(run_seed(seed_key, seed, setting, model, start, task, on_stage))
    return seeds


def _write(path: Path, title: str, records: list[Record], run: dict[str, Any]) -> None:
    """Writes the numbers, and the table, the claims, the figures and the page made of them."""
    curves = run["figures"]
    judged = claims.judge(records, curves)
    drawn = {
        "Figure 1: training paths": (
            figures.training_paths(curves[0]["paths"]),
            "Weights along fine-tuning on all data and on the retain set, in the plane of their "
            "principal directions (first seed); at their ends, each method's weights and noise.",
        ),
        "Figure 2: readouts": (
            figures.readouts(records, READOUTS),
            "Mean and standard deviation over the seeds; the band is Retrain's.",
        ),
        "Figure 3: information and error": (
            figures.information(curves),
            "Upper bounds on what the weights and the answer to one query tell of the forget set, "
            "as the noise grows, against the test error; right, at the default noise.",
        ),
        "Figure 4: activations": (
            figures.activations(curves),
            "Mean L1 distance of the probabilities to the reference's, on the way from the "
            "original to the scrubbed weights.",
        ),
    }
    table = f"{to_markdown(records, COLUMNS)}\n{claims_markdown(judged)}"
    save_result(path, records, run, table=table)
    for number, (svg, _) in enumerate(drawn.values(), start=1):
        write_text(path.with_name(f"{path.stem}-figure{number}.svg"), svg)
    lead = (
        "Mean ± standard deviation over the seeds. Distances are to a reference fine-tuned on the "
        "retain set with the original's seed; the row <em>retrain</em> is another fine-tuning with "
        "another key, the floor of every distance."
    )
    sections = [table_section(records, COLUMNS), "<h2>Claims</h2>", claims_table(judged)]
    sections += [figure_section(name, svg, text) for name, (svg, text) in drawn.items()]
    shown = {name: value for name, value in run.items() if name != "figures"}
    page = compose_page([*sections, settings_section(shown)], title=title, lead=lead)
    write_text(path.with_suffix(".html"), page)
