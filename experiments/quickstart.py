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

from experiments.frame import (
    USER_ERRORS,
    Command,
    Scale,
    StageProgress,
    make_console,
    report_error,
    run_command,
    save_result,
)
from unlearnkit import models
from unlearnkit.base import (
    Unlearner,
)
from unlearnkit.data import describe, load, parse_forget
from unlearnkit.io.provenance import provenance
from unlearnkit.reporting import RunFolder, report_page, to_latex, to_markdown
from unlearnkit.reporting import to_rich as rich_table
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
class Quickstart(Command):
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
    scale: Scale = "cpu"
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
    console = make_console()
    started = time.perf_counter()
    try:
        preset = choose_preset(config)
        forget = parse_forget(config.forget or preset.forget)
        where: Any = {"data_dir": config.data_dir, "download": config.download}
        description = describe(config.dataset, **where)
        model = models.create(
            config.model or preset.model,
            input_shape=description.input_shape,
            n_classes=description.n_classes,
        )
        seeds = config.seeds if config.seeds is not None else (2 if config.scale == "smoke" else 5)
        run: dict[str, Any] = {
            "experiment": "quickstart",
            "settings": {
                "dataset": Path(config.dataset).name,
                "model": config.model or preset.model,
                "forget": config.forget or preset.forget,
                "scale": config.scale,
                "seeds": seeds,
                "seed": config.seed,
            },
            "recipe": dataclasses.asdict(preset.recipe),
            "methods": {name: repr(method) for name, method in preset.methods.items()},
            "provenance": provenance(),
        }
        folder = RunFolder(_folder(config), run, overwrite=config.overwrite)
        with StageProgress(console) as progress:

            def on_read(done: int, total: int) -> None:
                progress(f"reading {config.dataset}", done, total)

            train, test = (
                load(
                    config.dataset,
                    split=split,
                    normalisation="standard",
                    progress=on_read,
                    **where,
                )
                for split in ("train", "test")
            )
            records: list[Record] = []
            for record in compare(
                jax.random.key(config.seed),
                model,
                train,
                test,
                forget=forget,
                recipe=preset.recipe,
                methods=preset.methods,
                seeds=seeds,
                on_stage=progress,
            ):
                folder.add(record)
                records.append(record)
    except USER_ERRORS as error:
        return report_error(console, error)
    settings = run["settings"]
    title = f"unlearnkit quickstart: {settings['dataset']}, forget {settings['forget']}"
    console.print(rich_table(records, title=title))
    run["seconds"] = round(time.perf_counter() - started, 1)
    folder.write("table.md", to_markdown(records))
    folder.write("table.tex", to_latex(records))
    folder.write("report.html", report_page(records, run, title=title))
    if config.results is not None:
        name = f"{settings['dataset']}-{config.scale}.json"
        save_result(config.results / "quickstart" / name, records, run)
    if folder.problem is not None:
        console.print(f"error: not all was written: {folder.problem}", style="bold red")
        return 1
    console.print(f"{run['seconds']} s; all of it is in {folder.path}", highlight=False)
    console.print(f"open {folder.path / 'report.html'}", highlight=False)
    return 0


def choose_preset(config: Quickstart) -> Preset:
    """Returns network, training and methods that fit the dataset and the scale.

    The unlearners' hyperparameters were chosen on validation sets of other keys, so that each
    visibly forgets without losing the retain set.
    """
    if config.dataset == "digits":
        epochs = 5 if config.scale == "smoke" else 60
        recipe = Recipe(epochs=epochs, batch_size=32, learning_rate=0.01)
        methods = _methods(recipe, fine_tune=0.1, noise_std=0.1, ascent=0.009)
        return Preset("mlp", recipe, methods, forget="random:0.2")
    if config.dataset in ("mnist", "fashion_mnist"):
        epochs = 1 if config.scale == "smoke" else 12
        recipe = Recipe(epochs=epochs, batch_size=100, learning_rate=0.02)
        methods = _methods(recipe, fine_tune=0.03, noise_std=0.01, ascent=1e-4)
        return Preset("lenet", recipe, methods)
    if config.scale == "paper":
        recipe = Recipe(
            epochs=160,
            batch_size=128,
            learning_rate=0.1,
            weight_decay=5e-4,
            schedule="cosine",
            augmentation="shift" if config.dataset == "svhn_cropped" else "shift_flip",
            compute_dtype="bfloat16",
        )
        return Preset(
            "resnet18", recipe, _methods(recipe, fine_tune=0.05, noise_std=1e-3, ascent=1e-3)
        )
    epochs = 1 if config.scale == "smoke" else 20
    recipe = Recipe(epochs=epochs, batch_size=100, learning_rate=0.02)
    return Preset(
        "cnn_cifar", recipe, _methods(recipe, fine_tune=0.05, noise_std=0.01, ascent=1e-3)
    )


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
    batch, epochs = recipe.batch_size, max(1, recipe.epochs // 10)
    return {
        "retrain": Retrain(recipe),
        "fine_tune": FineTune(epochs=epochs, batch_size=batch, learning_rate=fine_tune),
        "noisy_descent": NoisyDescent(
            epochs=epochs,
            batch_size=batch,
            learning_rate=recipe.learning_rate,
            noise_std=noise_std,
        ),
        "gradient_ascent": GradientAscent(epochs=5, batch_size=batch, learning_rate=ascent),
    }


def _folder(config: Quickstart) -> Path:
    if config.out is not None:
        return config.out
    stamp = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
    return Path("runs") / f"quickstart-{Path(config.dataset).name}-{stamp}"


if __name__ == "__main__":
    run_command(main, Quickstart)
