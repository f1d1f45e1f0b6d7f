"""Train, forget, audit: unlearning methods against retraining, over seeds.

Command:   python -m experiments.quickstart
           python -m experiments.quickstart --dataset mnist --data-dir DIR
Time:      under 90 s on two cores (digits), about 20 minutes (MNIST).
Expected:  the original network is better on the forget set than on unseen data; Retrain is not;
           the other methods lie between.
"""

from __future__ import annotations

import dataclasses
import datetime
import time
from pathlib import Path
from typing import Annotated, Any

import jax
import tyro

from experiments import frame
from unlearnkit import models
from unlearnkit.base import Unlearner
from unlearnkit.data import describe, load, parse_forget
from unlearnkit.io.files import write_text
from unlearnkit.io.provenance import provenance
from unlearnkit.reporting import RunFolder, report_page, to_latex, to_markdown, to_rich
from unlearnkit.studies import Record, compare
from unlearnkit.training import Recipe
from unlearnkit.unlearning import FineTune, GradientAscent, NoisyDescent, Retrain


@dataclasses.dataclass(frozen=True)
class Preset:
    """What fits a dataset: network, training, unlearning."""

    model: str
    recipe: Recipe
    methods: dict[str, Unlearner]
    forget: str = "random:0.1"


@dataclasses.dataclass(frozen=True)
class Quickstart(frame.Command):
    """Trains a network, forgets part of its data by several methods, audits against retraining."""

    dataset: Annotated[str, tyro.conf.arg(metavar="NAME|FILE.npz|FOLDER")] = "digits"
    """digits; mnist, fashion_mnist, cifar10, cifar100, svhn_cropped (TFDS); or your own arrays."""
    data_dir: Path | None = None
    """Where prepared TFDS datasets are."""
    download: bool = False
    """Download and prepare a TFDS dataset that is missing."""
    model: str | None = None
    """Name of the network; by default one that fits the dataset."""
    forget: str | None = None
    """What to forget: random:0.1, random:500, within:3:0.5, class:3, file:PATH; by default a
    random tenth, of the digits a fifth."""
    scale: frame.Scale = "cpu"
    """smoke (seconds), cpu (two cores), paper (accelerator: ResNet-18 on images in colour)."""
    seeds: int | None = None
    """Repetitions, each with its own split, original and reference; 5 by default, 2 for smoke."""
    seed: int = 0
    """The key of the whole run."""
    out: Path | None = None
    """Folder of the run; by default a new one under runs/."""
    overwrite: bool = False
    """Replace the run that --out holds."""
    results: Path | None = None
    """Also write results that can be committed to this folder."""


def main(config: Quickstart) -> int:
    """Runs the comparison; returns the exit code."""
    console = frame.make_console()
    started = time.perf_counter()
    try:
        run, records, folder = _run(config, frame.StageProgress(console))
    except frame.USER_ERRORS as error:
        return frame.report_error(console, error)
    settings = run["settings"]
    title = f"unlearnkit quickstart: {settings['dataset']}, forget {settings['forget']}"
    console.print(to_rich(records, title=title))
    run["seconds"] = round(time.perf_counter() - started, 1)
    folder.write("table.md", to_markdown(records))
    folder.write("table.tex", to_latex(records))
    folder.write("report.html", report_page(records, run, title=title))
    if config.results is not None:
        path = config.results / "quickstart" / f"{settings['dataset']}-{config.scale}.json"
        frame.save_result(path, run, records)
        write_text(path.with_suffix(".md"), to_markdown(records))
    if folder.problem is not None:
        console.print(f"error: not all was written: {folder.problem}", style="bold red")
        return 1
    console.print(f"{run['seconds']} s; all of it is in {folder.path}", highlight=False)
    console.print(f"open {folder.path / 'report.html'}", highlight=False)
    return 0


def _run(
    config: Quickstart, progress: frame.StageProgress
) -> tuple[dict[str, Any], list[Record], RunFolder]:
    """Returns settings and provenance, the records, and the folder that they are written to."""
    preset = choose_preset(config)
    network, forget = config.model or preset.model, config.forget or preset.forget
    request = parse_forget(forget)
    where: Any = {"data_dir": config.data_dir, "download": config.download}
    told = describe(config.dataset, **where)
    model = models.create(network, input_shape=told.input_shape, n_classes=told.n_classes)
    seeds = config.seeds if config.seeds is not None else (2 if config.scale == "smoke" else 5)
    settings = {
        "dataset": Path(config.dataset).name, "model": network, "forget": forget,
        "scale": config.scale, "seeds": seeds, "seed": config.seed,
    }  # fmt: skip
    run = {
        "experiment": "quickstart",
        "settings": settings,
        "recipe": dataclasses.asdict(preset.recipe),
        "methods": {name: repr(method) for name, method in preset.methods.items()},
        "provenance": provenance(),
    }
    stamp = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
    out = config.out or Path("runs") / f"quickstart-{settings['dataset']}-{stamp}"
    folder = RunFolder(out, run, overwrite=config.overwrite)
    where |= {"normalisation": "standard"}
    where["progress"] = lambda done, total: progress(f"reading {config.dataset}", done, total)
    records = []
    with progress:
        train, test = (load(config.dataset, split=split, **where) for split in ("train", "test"))
        for record in compare(
            jax.random.key(config.seed), model, train, test, forget=request, recipe=preset.recipe,
            methods=preset.methods, seeds=seeds, on_stage=progress,
        ):  # fmt: skip
            folder.add(record)
            records.append(record)
    return run, records, folder


def choose_preset(config: Quickstart) -> Preset:
    """Returns network, training and methods that fit the dataset and the scale.

    The unlearners' hyperparameters were chosen on validation sets of other keys, so that each
    visibly forgets without losing the retain set.
    """
    smoke = config.scale == "smoke"
    if config.dataset == "digits":
        recipe = Recipe(epochs=5 if smoke else 60, batch_size=32, learning_rate=0.01)
        methods = _methods(recipe, fine_tune=0.1, noise_std=0.1, ascent=0.009)
        return Preset("mlp", recipe, methods, forget="random:0.2")
    if config.dataset in ("mnist", "fashion_mnist"):
        recipe = Recipe(epochs=1 if smoke else 12, batch_size=100, learning_rate=0.02)
        methods = _methods(recipe, fine_tune=0.03, noise_std=0.01, ascent=1e-4)
        return Preset("lenet", recipe, methods)
    if config.scale == "paper":
        recipe = Recipe(
            epochs=160, batch_size=128, learning_rate=0.1, weight_decay=5e-4, schedule="cosine",
            augmentation="shift" if config.dataset == "svhn_cropped" else "shift_flip",
            compute_dtype="bfloat16",
        )  # fmt: skip
        methods = _methods(recipe, fine_tune=0.05, noise_std=1e-3, ascent=1e-3)
        return Preset("resnet18", recipe, methods)
    recipe = Recipe(epochs=1 if smoke else 20, batch_size=100, learning_rate=0.02)
    methods = _methods(recipe, fine_tune=0.05, noise_std=0.01, ascent=1e-3)
    return Preset("cnn_cifar", recipe, methods)


def _methods(
    recipe: Recipe, *, fine_tune: float, noise_std: float, ascent: float
) -> dict[str, Unlearner]:
    """Returns Retrain and three cheap methods at a tenth of its epochs or less.

    Args:
      recipe: of the original.
      fine_tune: learning rate of fine-tuning.
      noise_std: noise of noisy descent, at the recipe's learning rate.
      ascent: learning rate of gradient ascent.
    """
    batch_size, rate = recipe.batch_size, recipe.learning_rate
    brief: Any = {"epochs": max(1, recipe.epochs // 10), "batch_size": batch_size}
    return {
        "retrain": Retrain(recipe),
        "fine_tune": FineTune(**brief, learning_rate=fine_tune),
        "noisy_descent": NoisyDescent(**brief, learning_rate=rate, noise_std=noise_std),
        "gradient_ascent": GradientAscent(epochs=5, batch_size=batch_size, learning_rate=ascent),
    }


if __name__ == "__main__":
    frame.run_command(main, Quickstart)
