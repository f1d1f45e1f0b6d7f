"""What is trained on what: Golatkar et al. 2020b, §5.1 and §5.2, at three scales."""

from __future__ import annotations

import contextlib
import dataclasses
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Key

from experiments.frame import Data, load_data
from unlearnkit.base import Dataset, Unlearner, Variables
from unlearnkit.studies import Pair
from unlearnkit.training import Recipe, fit
from unlearnkit.unlearning import FineTune, FisherForgetting, GradientAscent, NtkScrub

FILE = Path(__file__).with_name("settings.toml")
CLASSES = 5
"""The first classes are fine-tuned on; the others pretrain."""


@dataclasses.dataclass(frozen=True)
class Setting:
    """One scale.

    Attributes:
      dataset: a name that `unlearnkit.data.load` knows, of ten classes.
      model: the network's name.
      width, implementation: of the network and of its convolutions, None for its own.
      pretrain: how it is trained on the other classes, or on CIFAR-100 where that is at hand.
      tune: how it is fine-tuned; its decay pulls to the pretrained weights.
      train, validation, test: examples per class.
      forget: examples of class 0.
      seeds: repetitions: other samples, another fine-tuning.
      fisher, ntk_noise: α of the Fisher noise alone, and after NTK scrubbing.
      relearn_cap, relearn_rate: rounds, and their step size; small where `tune` ends small.
      levels: the noises of the trade-off, as multiples of `ntk_noise`.
      asked, crafted: queries of the test set that show what the weights hide, and steps by which
        queries are crafted; 0 crafts none, whose gradients are of second order.
    """

    dataset: str
    model: str
    pretrain: Recipe
    tune: Recipe
    train: int = 100
    validation: int = 25
    test: int = 100
    forget: int = 25
    width: int | None = None
    implementation: str | None = None
    seeds: int = 3
    fisher: float = 1e-6
    ntk_noise: float = 1e-9
    relearn_cap: int = 100
    relearn_rate: float = 0.01
    levels: tuple[float, ...] = tuple(10.0**k for k in np.arange(-3, 5.5, 0.5))
    asked: int = 100
    crafted: int = 20

    def methods(self) -> dict[str, Unlearner]:
        """Returns the methods of Figure 2, gradient ascent, and the shift as others state it.

        `ntk_scaled` has the trapezium, `ntk_trapezium` is linearised before fine-tuning too.
        """
        tune, few, replace = self.tune, min(self.tune.batch_size, self.forget), dataclasses.replace
        scrub = NtkScrub(weight_decay=tune.weight_decay, noise=0.0, chunk=125)
        noisy = replace(scrub, noise=self.ntk_noise)
        return {
            "fine_tune": FineTune(
                epochs=10, batch_size=tune.batch_size, learning_rate=tune.learning_rate
            ),
            "gradient_ascent": GradientAscent(epochs=5, batch_size=few, learning_rate=1e-3),
            "fisher": FisherForgetting(self.fisher),
            "ntk": scrub,
            "ntk_fisher": noisy,
            "ntk_scaled": replace(noisy, scale="trapezium"),
            "ntk_trapezium": replace(noisy, linearise_at="pretrained", scale="trapezium"),
            "published": replace(noisy, form="public", scale="trapezium"),
            "published_unscaled": replace(noisy, form="public"),
        }


class Pools(NamedTuple):
    """What pretrains, by its name, and what tasks are drawn from; each with a network for it."""

    name: str
    pretrain: Data
    own: Data


def load_pools(setting: Setting, data_dir: Path | None) -> Pools:
    """Returns the data; CIFAR-100 pretrains where it is prepared, else the other classes do.

    Raises:
      FileNotFoundError: the dataset is not prepared.
    """
    own = {"width": setting.width, "implementation": setting.implementation}
    options: dict[str, Any] = {name: value for name, value in own.items() if value is not None}

    def load(name: str, **kept: Any) -> Data:
        return load_data(name, setting.model, data_dir, **kept, **options)

    first, others = (
        load(setting.dataset, normalisation="standard", classes=classes)
        for classes in (range(CLASSES), range(CLASSES, 10))
    )
    if setting.dataset == "cifar10":
        with contextlib.suppress(FileNotFoundError):
            cifar100 = load("cifar100", normalisation=first.train.normalisation)
            return Pools("cifar100", cifar100, first)
    return Pools(f"classes {CLASSES} … of {setting.dataset}", others, first)


def pretrain(key: Key[Array, ""], setting: Setting, pools: Pools) -> Variables:
    """Returns pretrained weights, with a fresh last layer for the classes that tasks have."""
    fit_key, head_key = jax.random.split(key)
    teacher, model = pools.pretrain, pools.own.model
    params, state = fit(fit_key, teacher.model, teacher.train, setting.pretrain).variables
    fresh = jax.jit(model.init)(head_key)

    def own(place: Any, body: Array, head: Array) -> Array:
        names = tuple(key.key for key in place)
        return head if any(names[: len(path)] == path for path in model.layers[-1]) else body

    return Variables(jax.tree.map_with_path(own, params, fresh.params), state)


def draw_examples(key: Key[Array, ""], setting: Setting, pool: Data) -> Pair:
    """Returns small sets of as many examples of each class; class 0, which is forgotten, first."""
    train_key, test_key = jax.random.split(key)
    drawn = _draw(train_key, pool.train, setting.train + setting.validation)
    kept, validation = (rows.reshape(-1) for rows in np.split(drawn, [setting.train], axis=1))
    test = _draw(test_key, pool.test, setting.test).reshape(-1)
    return Pair(pool.train.take(kept), pool.test.take(test), pool.train.take(validation))


def _draw(key: Key[Array, ""], pool: Dataset, count: int) -> np.ndarray:
    """Returns the indices of `count` random examples of each class, [classes, count]."""
    order = np.asarray(jax.random.permutation(key, pool.size))
    y = np.asarray(pool.y)[order]
    members = [order[y == label][:count] for label in range(CLASSES)]
    if (least := min(map(len, members))) < count:
        raise ValueError(f"{count} examples of every class are needed, but one has {least}")
    return np.stack(members)
