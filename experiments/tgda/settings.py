"""What each scale attacks: networks, their training, and the attacks with their ablations."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from experiments.frame import Scale
from unlearnkit import poisoning
from unlearnkit.base import Attack, Defence, RobustTrainer
from unlearnkit.defences import InfluenceFilter, LossFilter, MaxUp, Sever
from unlearnkit.training import Recipe

LONG = "tgda_long"
"""TGDA for more epochs than its ablations; what it is compared with other attacks by."""

VARIANTS: dict[str, dict[str, Any]] = {
    "defender_leads": {"leads": "defender"},
    "zero_sum": {"zero_sum": True},
    "no_pretraining": {"pretrain": Recipe(epochs=0)},
    "cold_start": {"cold_start": True},
    "m1_n0": {"defender_steps": 0},
    "m1_n1": {"defender_steps": 1},
    "m20_n1": {"attacker_steps": 20, "defender_steps": 1},
    "m20_n20": {"attacker_steps": 20},
    "fr": {"solver": "fr"},
    "gdn": {"solver": "gdn"},
    "ugda": {"solver": "ugda"},
}
"""Tables 4 to 8 and appendix C: what is changed of TGDA."""


@dataclasses.dataclass(frozen=True)
class Target:
    """One network on one dataset, and what it is attacked by.

    Attributes:
      dataset: as `unlearnkit.data.load` calls it.
      model: as `unlearnkit.models.create` calls it.
      recipe: by which it is trained, on clean and on poisoned data alike.
      attacks: by name; `tgda@0.1` is TGDA with ε = 0.1.
      train: training examples, None for all.
      classes: those that are kept and counted anew from 0, None for all.
      transfer: networks that are trained on the poisons of TGDA too (Table 9).
      defences: by name, what TGDA is tried against (Tables 10 and 11).
      seeds: repetitions: other networks, other poisons.
    """

    dataset: str
    model: str
    recipe: Recipe
    attacks: Mapping[str, Attack]
    train: int | None = None
    classes: tuple[int, ...] | None = None
    transfer: tuple[str, ...] = ()
    defences: Mapping[str, Defence | RobustTrainer] = dataclasses.field(default_factory=dict)
    seeds: int = 3

    @property
    def source(self) -> str:
        """The dataset and its classes, as `mnist17`."""
        return self.dataset + "".join(str(label) for label in self.classes or ())


def targets(scale: Scale) -> dict[str, Target]:
    """Returns the targets of a scale by name."""
    return {"smoke": _smoke, "cpu": _cpu, "paper": _paper}[scale]()


def ablation(base: poisoning.TotalGradientAttack, names: Sequence[str]) -> dict[str, Attack]:
    """Returns TGDA, and TGDA with one thing changed for each name."""
    changed = {name: dataclasses.replace(base, **VARIANTS[name]) for name in names}
    return {"tgda": base, **changed}


def sweep(name: str, attack: Any, epsilons: Sequence[float]) -> dict[str, Attack]:
    """Returns the attack at every ε of Figure 4."""
    return {
        f"{name}@{e:g}": dataclasses.replace(attack, budget=poisoning.Budget(e)) for e in epsilons
    }


def unlearnable(
    base: poisoning.TotalGradientAttack, noise: poisoning.ErrorMinimizing, shares: Sequence[float]
) -> dict[str, Attack]:
    """Returns both attacks of Table 13, which perturb a share of the training set in place."""
    game = dataclasses.replace(base, placement="perturb", zero_sum=True)
    in_place = dataclasses.replace(noise, placement="perturb")
    return {**sweep("unlearnable_tgda", game, shares), **sweep("unlearnable_emn", in_place, shares)}


def defend(recipe: Recipe) -> dict[str, Defence | RobustTrainer]:
    """Returns the defences of section 5.6; each filter drops 3 % of the training set."""
    return {
        "loss_filter": LossFilter(),
        "influence_filter": InfluenceFilter(),
        "sever": Sever(recipe=recipe),
        "max_up": MaxUp(),
    }


def _smoke() -> dict[str, Target]:
    recipe = Recipe(epochs=20, batch_size=100, learning_rate=0.3)
    game = poisoning.TotalGradientAttack(
        epochs=2, batch_size=200, defender_steps=3, attacker_rate=0.1, hidden=(32,),
        pretrain=Recipe(epochs=5, batch_size=200, optimizer="adam", learning_rate=1e-2),
        max_solve_steps=4,
    )  # fmt: skip
    brief: dict[str, Attack] = {
        "label_flip": poisoning.LabelFlip(rule="mirror"),
        "min_max": poisoning.MinMax(burn_in=10, batch_size=100),
    }
    linear = {
        **brief,
        **ablation(game, ("defender_leads", "no_pretraining")),
        **sweep("label_flip", poisoning.LabelFlip(), (0.03, 0.3)),
    }
    return {
        "digits-lr": Target(
            "digits", "logistic", recipe, linear, transfer=("mlp",), defences=defend(recipe),
            seeds=2,
        ),
        **_binary("digits", recipe, game, sizes=(60, 160), steps=2, seeds=2),
    }  # fmt: skip


def _binary(
    dataset: str,
    recipe: Recipe,
    game: poisoning.TotalGradientAttack,
    *,
    sizes: Sequence[int],
    steps: int,
    seeds: int,
) -> dict[str, Target]:
    """Returns the targets of Figure 1: ones against sevens, a logistic regression at each size."""
    made = {}
    for size in sizes:
        pretrain = dataclasses.replace(
            game.pretrain, batch_size=min(game.pretrain.batch_size, size)
        )
        batch_size = min(game.batch_size, size)
        fitted = dataclasses.replace(recipe, batch_size=min(recipe.batch_size, size // 2))
        attacks: dict[str, Attack] = {
            "label_flip": poisoning.LabelFlip(),
            "poison_svm": poisoning.PoisonSvm(steps=steps),
            "back_gradient": poisoning.BackGradient(steps=steps, unroll_steps=10 * steps),
            "influence": poisoning.InfluenceAttack(steps=5 * steps),
            "kkt": poisoning.KktAttack(),
            "min_max": poisoning.MinMax(),
            "improved_min_max": poisoning.ImprovedMinMax(recipe=fitted),
            "tgda": dataclasses.replace(game, batch_size=batch_size, pretrain=pretrain),
        }
        made[f"{dataset}17-lr-{size}"] = Target(
            dataset, "logistic", fitted, attacks, train=size, classes=(1, 7), seeds=seeds
        )
    return made


def _cpu() -> dict[str, Target]:
    """Returns MNIST in full for LR and NN; the CNNs, and ones against sevens, on subsets.

    Momentum makes few epochs of training what a hundred are in the paper. The games are cut in
    epochs, and a higher rate of the attacker makes up for some of them; LR's has a smaller
    generator, since its ablations are many, and once is played for longer than they are. NN's game
    has more rounds for the same work, of smaller batches and fewer steps of the defender, and a
    damping under which its solves end.
    """
    recipe = Recipe(epochs=10, batch_size=1000, learning_rate=0.1)
    dense_recipe = dataclasses.replace(recipe, epochs=5)
    small = dataclasses.replace(recipe, epochs=20, batch_size=100, learning_rate=0.05)
    pretrain = Recipe(epochs=3, batch_size=1000, optimizer="adam", learning_rate=1e-3)
    game = poisoning.TotalGradientAttack(
        epochs=3, attacker_rate=0.3, hidden=(256, 256), pretrain=pretrain
    )
    dense_game = dataclasses.replace(
        game, batch_size=250, defender_steps=5, damping=1.0, max_solve_steps=8
    )
    conv_game = dataclasses.replace(game, batch_size=500, max_solve_steps=8)
    colour_game = dataclasses.replace(conv_game, architecture="autoencoder")
    binary_game = dataclasses.replace(game, epochs=20)
    flips, hardest = poisoning.LabelFlip(rule="mirror"), poisoning.MinMax()
    canceling = poisoning.GradientCanceling(
        poisoning.Budget(), poisoning.Bounds(), corruption=poisoning.GradPC(radius=1.0), steps=300,
        learning_rate=100.0,
    )  # fmt: skip
    rivals: dict[str, Attack] = {"label_flip": flips, "min_max": hardest}
    # The influence filter had not ended after four minutes for the CNN and fifteen for NN.
    cheap: dict[str, Defence | RobustTrainer] = {"loss_filter": LossFilter(), "max_up": MaxUp()}
    linear: dict[str, Attack] = {
        **rivals,
        "back_gradient": poisoning.BackGradient(group=1800, unroll_steps=20),
        "meta_poison": poisoning.MetaPoison(networks=8, steps=20),
        "error_minimizing": poisoning.ErrorMinimizing(
            poisoning.Budget(), placement="add", rounds=20
        ),
        LONG: dataclasses.replace(game, epochs=60),
        "gradient_canceling": canceling,
        "gradient_canceling_unbounded": dataclasses.replace(
            canceling, bounds=poisoning.Bounds(box=None)
        ),
        **ablation(game, [name for name in VARIANTS if not name.startswith("m20")]),
        **sweep("tgda", game, (0.01, 0.1, 0.3, 1.0)),
        **sweep("label_flip", poisoning.LabelFlip(), (0.01, 0.03, 0.1, 0.3, 1.0)),
        **sweep("min_max", hardest, (0.01, 0.1)),
    }
    dense: dict[str, Attack] = {**rivals, "tgda": dense_game}
    conv: dict[str, Attack] = {"label_flip": flips, **ablation(conv_game, ("no_pretraining",))}
    colour: dict[str, Attack] = {
        "label_flip": flips,
        "meta_poison": poisoning.MetaPoison(networks=4, steps=20, horizon=200),
        "error_minimizing": poisoning.ErrorMinimizing(
            poisoning.Budget(), placement="add", rounds=10
        ),
        "tgda": colour_game,
        **unlearnable(colour_game, poisoning.ErrorMinimizing(rounds=10), (0.2, 1.0)),
    }
    return {
        "mnist-lr": Target(
            "mnist", "logistic", recipe, linear, transfer=("nn",), defences=defend(recipe)
        ),
        "mnist-nn": Target(
            "mnist", "nn", dense_recipe, dense, transfer=("logistic",), defences=cheap
        ),
        "mnist-cnn": Target("mnist", "cnn_mnist", small, conv, train=5000, defences=cheap),
        "cifar10-cnn": Target("cifar10", "cnn_cifar", small, colour, train=5000, seeds=2),
        **_binary("mnist", small, binary_game, sizes=(100, 300, 1000), steps=5, seeds=3),
    }


def _paper() -> dict[str, Target]:
    """Returns section 5.1: SGD at 0.1, 100 epochs, and 200 of the game; ResNet-18 on CIFAR-10."""
    recipe = Recipe(epochs=100, batch_size=1000, learning_rate=0.1, momentum=0.0)
    colour_recipe = dataclasses.replace(recipe, batch_size=256)
    game = poisoning.TotalGradientAttack()
    pretrain = dataclasses.replace(game.pretrain, batch_size=256)
    colour_game = dataclasses.replace(
        game, batch_size=256, architecture="autoencoder", pretrain=pretrain
    )
    flips = poisoning.LabelFlip(rule="mirror")
    epsilons = (0.01, 0.03, 0.1, 0.3, 1.0)
    noise = poisoning.ErrorMinimizing()
    grey: dict[str, Attack] = {
        "label_flip": flips,
        "min_max": poisoning.MinMax(),
        "improved_min_max": poisoning.ImprovedMinMax(recipe=recipe),
        "back_gradient": poisoning.BackGradient(group=60),
        **ablation(game, tuple(VARIANTS)),
        **sweep("tgda", game, [e for e in epsilons if e != 0.03]),
        **sweep("label_flip", poisoning.LabelFlip(), epsilons),
        **sweep("min_max", poisoning.MinMax(), (0.01, 0.1)),
    }
    colour: dict[str, Attack] = {
        "label_flip": flips,
        "meta_poison": poisoning.MetaPoison(),
        "error_minimizing": dataclasses.replace(noise, budget=poisoning.Budget(), placement="add"),
        "tgda": colour_game,
        **unlearnable(colour_game, noise, (0.2, 0.4, 0.6, 0.8, 1.0)),
        **sweep("tgda", colour_game, [e for e in epsilons if e != 0.03]),
        **sweep("label_flip", poisoning.LabelFlip(), epsilons),
    }
    networks = ("logistic", "nn", "cnn_mnist")
    mnist = {
        f"mnist-{short}": Target(
            "mnist", name, recipe, grey, transfer=tuple(n for n in networks if n != name),
            defences=defend(recipe),
        )
        for short, name in zip(("lr", "nn", "cnn"), networks, strict=True)
    }  # fmt: skip
    return {
        **mnist,
        "cifar10-cnn": Target("cifar10", "cnn_cifar", colour_recipe, colour),
        "cifar10-resnet18": Target("cifar10", "resnet18", colour_recipe, colour),
        **_binary("mnist", recipe, game, sizes=(100, 1000, 10_000), steps=20, seeds=10),
    }
