"""`unlearnkit quickstart`: train, forget, audit; a study with everything chosen already."""

from __future__ import annotations

import dataclasses
import datetime
import json
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, TypeAlias

import tyro

from unlearnkit.cli.catalogue import Catalogue
from unlearnkit.cli.declaring import to_toml
from unlearnkit.cli.interruption import Interruption
from unlearnkit.cli.study import STORE
from unlearnkit.reading import AS_FOUND, Reading, is_table, said_of
from unlearnkit.registry import tell_known

if TYPE_CHECKING:
    from unlearnkit.cli.running import Asked

Scale: TypeAlias = Literal["smoke", "cpu", "paper"]
Settings: TypeAlias = Mapping[str, object]
PRIMARY = "average_gap"
"""The distance to Retrain that the verdicts are about."""


@dataclasses.dataclass(frozen=True)
class Preset:
    """What fits a dataset.

    Attributes:
      model: name of the network.
      recipe: settings of the training.
      methods: those that run, with their settings.
      others: settings of methods that run when they are asked for.
      forget: what is forgotten.
      audit: settings of the evaluation, where they are not its own defaults.
      options: settings of the network.
    """

    model: str
    recipe: Settings
    methods: Mapping[str, Settings]
    others: Mapping[str, Settings] = dataclasses.field(default_factory=dict)
    forget: str = "random:0.1"
    audit: Settings = dataclasses.field(default_factory=dict)
    options: Settings = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Quickstart:
    """Trains a network, forgets part of its data by several methods, audits against retraining.

    Attributes:
      dataset: digits, breast_cancer; mnist, fashion_mnist, cifar10, cifar100, svhn_cropped (TFDS);
        the path of an .npz, .csv or .parquet file, or of a folder of images, tables, IDX files or
        CIFAR's batches.
      data_dir: where prepared TFDS datasets are.
      download: download and prepare a TFDS dataset that is missing.
      model: name of the network; by default one that fits the dataset.
      forget: what to forget: random:0.1, random:500, within:3:0.5, class:3, file:PATH; by default a
        random tenth, of the digits a class.
      reading: how files of your own are read that do not say it themselves.
      methods: names of unlearners, or `all`; by default a few that show the most.
      scale: smoke (seconds), cpu (two cores), paper (accelerator: ResNet-18 on images in colour).
      seeds: repetitions, each with its own split, original and reference; 5 by default, of smoke 2.
      seed: the key of the whole run. Methods and settings were chosen with key 0.
      out: folder of the run; by default a new one under runs/.
      store: the folder that keeps the results of stages, so that a run goes on where it was ended.
      overwrite: replace the run that --out holds.
      results: also write results that can be committed to this folder.
      json: print the outcome as JSON.
      cache: keep compiled programs in the user's cache folder, so that the next run starts sooner.
    """

    dataset: Annotated[str, tyro.conf.arg(metavar="NAME|FILE.npz|FOLDER")] = "digits"
    data_dir: Path | None = None
    download: bool = False
    model: str | None = None
    forget: str | None = None
    reading: tyro.conf.OmitArgPrefixes[Reading] = AS_FOUND
    methods: tuple[str, ...] = ()
    scale: Scale = "cpu"
    seeds: int | None = None
    seed: int = 1
    out: Path | None = None
    store: Path = STORE
    overwrite: bool = False
    results: Path | None = None
    json: bool = False
    cache: bool = True

    @property
    def name(self) -> str:
        """The dataset's name, without folders."""
        return Path(self.dataset).name

    def __call__(self, interruption: Interruption) -> int:
        """Returns the exit code: 0, 1 where a method failed or not all could be written."""
        text = self.declare()
        out = self.out
        if out is None:
            stamp = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
            out = Path("runs") / f"quickstart-{self.name}-{stamp}"
        from unlearnkit.cli.running import Asked, run_study

        title = f"unlearnkit quickstart: {self.name}, forget {self._forget()}"
        asked = Asked(text, "the quickstart", out, self.store, as_json=self.json, title=title)
        code = run_study(asked, interruption, overwrite=self.overwrite, preview=not self.json)
        if self.results is not None:
            self._commit(asked, self.results / "quickstart")
        return code

    def declare(self) -> str:
        """Returns the study as the text of a TOML file.

        Raises:
          ValueError: a method that nobody knows, or fewer seeds than one.
        """
        preset = choose_preset(self)
        seeds = self.seeds if self.seeds is not None else (2 if self.scale == "smoke" else 5)
        if seeds < 1:
            raise ValueError(f"seeds must be >= 1, got {seeds}")
        known = {**preset.others, **preset.methods}
        names = self.methods or tuple(preset.methods)
        if "all" in names:
            names = tuple(Catalogue().names("methods"))
        for name in set(names) - set(Catalogue().names("methods")):
            raise ValueError(
                f"unknown method {name!r}; {tell_known(name, Catalogue().names('methods'))}"
            )
        data: dict[str, object] = {"name": self.dataset}
        if self.data_dir is not None:
            data["data_dir"] = str(self.data_dir)
        if self.download:
            data["download"] = True
        data |= said_of(self.reading)
        return to_toml(
            {
                "seeds": seeds,
                "seed": self.seed,
                "primary": PRIMARY,
                "data": {self.name: data},
                "networks": {self.model: {}} if self.model else {preset.model: preset.options},
                "recipes": {"recipe": preset.recipe},
                "forget": {self._forget(): self._forget()},
                "methods": {name: known.get(name, {}) for name in names},
                "audits": {"": {"use": "evaluation", **preset.audit}},
            }
        )

    def _forget(self) -> str:
        return self.forget or choose_preset(self).forget

    def _commit(self, asked: Asked, folder: Path) -> None:
        """Writes what a committed result holds."""
        from unlearnkit.io.files import as_json, write_json, write_text
        from unlearnkit.records import record_to_dict
        from unlearnkit.reporting import read_records, to_markdown

        said, verdicts = (
            tomllib.loads(asked.text),
            json.loads((asked.out / "verdicts.json").read_text()),
        )
        records = read_records(asked.out)
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{self.name}-{self.scale}.json"
        content: dict[str, object] = {
            "experiment": "quickstart",
            "settings": {
                "dataset": self.name,
                "model": next(iter(said["networks"])),
                "forget": self._forget(),
                "scale": self.scale,
                "seeds": said["seeds"],
                "seed": self.seed,
            },
            **verdicts,
            "records": [record_to_dict(record, curves=False) for record in records],
        }
        write_json(path, as_json(content))
        write_text(path.with_suffix(".md"), to_markdown(records))


def choose_preset(config: Quickstart) -> Preset:
    """Returns network, training and methods that fit the dataset and the scale.

    The settings of the digits were chosen on the five seeds of key 0; the default shows those of
    key 1, which had no part in it. Those of other datasets were chosen on validation sets of other
    keys, so that each visibly forgets without losing the retain set.
    """
    smoke = config.scale == "smoke"
    if config.dataset == "digits":
        recipe = {"epochs": 5 if smoke else 40, "batch_size": 32, "learning_rate": 0.02}
        return Preset("mlp", recipe, _DIGITS, _OTHERS, "class:3", _ONE_ATTACK)
    if config.dataset == "breast_cancer" or is_table(Path(config.dataset)):
        recipe = {"epochs": 2 if smoke else 40, "batch_size": 20, "learning_rate": 0.02}
        methods = _methods(recipe, fine_tune=0.05, noise_std=0.01, ascent=1e-3)
        return Preset("mlp", recipe, methods)
    if config.dataset in ("mnist", "fashion_mnist"):
        recipe = {"epochs": 1 if smoke else 12, "batch_size": 100, "learning_rate": 0.02}
        methods = _methods(recipe, fine_tune=0.03, noise_std=0.01, ascent=1e-4)
        return Preset("lenet", recipe, methods)
    if config.scale == "paper":
        paper = {
            "epochs": 160,
            "batch_size": 128,
            "learning_rate": 0.1,
            "weight_decay": 5e-4,
            "schedule": "cosine",
            "augmentation": "shift" if config.dataset == "svhn_cropped" else "shift_flip",
            "compute_dtype": "bfloat16",
        }
        methods = _methods(paper, fine_tune=0.05, noise_std=1e-3, ascent=1e-3)
        return Preset("resnet18", paper, methods)
    if config.dataset == "cifar10" and config.model in (None, "speedrun"):
        fast = {"epochs": 1 if smoke else 16, "batch_size": 100, **_FAST}
        methods = _methods(fast, fine_tune=0.2, noise_std=1e-3, ascent=0.01)
        return Preset("speedrun", fast, methods, options={"widths": [32, 64]})
    recipe = {"epochs": 1 if smoke else 20, "batch_size": 100, "learning_rate": 0.02}
    methods = _methods(recipe, fine_tune=0.05, noise_std=0.01, ascent=1e-3)
    return Preset("cnn_cifar", recipe, methods)


_FAST: Settings = {
    "learning_rate": 0.5,
    "nesterov": True,
    "schedule": "linear",
    "label_smoothing": 0.1,
    "augmentation": "shift_flip",
    "shift": 2,
}
"""How the speed-run network is trained by SGD; its logits are divided by 9, so rates are large."""
_ONE_ATTACK: Settings = {"attacks": [{"feature": "loss", "attacker": "logistic"}]}
_DIGITS: Mapping[str, Settings] = {
    "retrain": {},
    "fine_tune": {"epochs": 4, "batch_size": 32, "learning_rate": 0.02},
    "gradient_ascent": {"epochs": 5, "batch_size": 32, "learning_rate": 0.01},
    "random_label": {"epochs": 4, "batch_size": 32, "learning_rate": 0.02},
}
_OTHERS: Mapping[str, Settings] = {
    "noisy_descent": {"epochs": 4, "batch_size": 32, "learning_rate": 0.02, "noise_std": 0.1},
    "neg_grad_plus": {"epochs": 4, "batch_size": 32, "learning_rate": 0.02, "beta": 0.95},
    "salun": {"epochs": 4, "learning_rate": 0.02},
    "l1_sparse": {"epochs": 4, "learning_rate": 0.05},
    "boundary_shrink": {"epochs": 5, "learning_rate": 1e-3, "box": "none"},
    "boundary_expand": {"epochs": 5, "learning_rate": 1e-3},
    "scrub": {"epochs": 4, "learning_rate": 5e-3},
    "exact_last_layers": {"epochs": 4, "learning_rate": 0.05, "k": 1},
    "catastrophic_last_layers": {"epochs": 4, "learning_rate": 0.05, "k": 1},
    "stackelberg": {"epochs": 4, "learning_rate": 0.02},
    "influence": {"weight_decay": 0.01},
    "newton_scrub": {"damping": 0.1},
    "fisher_forgetting": {"alpha": 1e-7},
    "ntk_scrub": {"weight_decay": 0.01},
}


def _methods(
    recipe: Mapping[str, object], *, fine_tune: float, noise_std: float, ascent: float
) -> dict[str, Settings]:
    """Returns Retrain and three cheap methods at a tenth of its epochs or less.

    Args:
      recipe: of the original.
      fine_tune: learning rate of fine-tuning.
      noise_std: noise of noisy descent, at the recipe's learning rate.
      ascent: learning rate of gradient ascent.
    """
    batch_size, rate = recipe["batch_size"], recipe["learning_rate"]
    epochs = int(str(recipe["epochs"]))
    brief = {"epochs": max(1, epochs // 10), "batch_size": batch_size}
    return {
        "retrain": {},
        "fine_tune": {**brief, "learning_rate": fine_tune},
        "noisy_descent": {**brief, "learning_rate": rate, "noise_std": noise_std},
        "gradient_ascent": {"epochs": 5, "batch_size": batch_size, "learning_rate": ascent},
    }
