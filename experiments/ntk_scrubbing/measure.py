"""The study of a scale: what is read out of each network, and the numbers of the figures."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import numpy as np
import optax
from jaxtyping import Array, Key

from experiments.ntk_scrubbing.settings import Setting
from unlearnkit import auditing
from unlearnkit.auditing import Case, GaussianWeights, NotApplicable, Subject
from unlearnkit.base import Audited, Model, Task, Variables
from unlearnkit.data import IndexForget
from unlearnkit.studies import RETRAIN, Pair, Record, Study
from unlearnkit.training import predict, weight_path
from unlearnkit.unlearning import NtkScrub, Retrain
from unlearnkit.unlearning.fisher_forgetting import fisher_noise_variance, gaussian_around

ORIGINAL, OTHER = "original", "retrain"
CLOUD = 60
"""Draws of the noise in Figure 1."""
CRAFTED = 8
"""Queries that are crafted from the forget set's."""
DRAW = "draw "
"""Begins the names of datasets: each seed has examples of its own."""


def make_study(
    setting: Setting, model: Model, start: Variables, draws: Sequence[Pair], first: int = 0
) -> Study:
    """Returns the study of some seeds; Figure 1 is of seed 0 alone, being two trainings more.

    The reference is fine-tuned on the retain set with the key of the original. The row `retrain` is
    another fine-tuning with another key: its distance to the reference is the floor.

    Args:
      setting: of the scale.
      model: the network.
      start: its pretrained weights.
      draws: of each seed the examples, those to be forgotten first.
      first: seed of these.
    """
    return Study(
        data={f"{DRAW}{seed}": pair for seed, pair in enumerate(draws, first)},
        networks=model,
        recipes=setting.tune,
        forget=IndexForget(tuple(range(setting.forget))),
        methods={OTHER: Retrain(), **setting.methods()},
        audits={
            "": Readouts(setting),
            "figures": Figures(setting, first == 0),
            "told": Told(setting),
        },
        start=start,
        paired=True,
    )


def by_seed(records: Iterator[Record], figures: list[Any]) -> Iterator[Record]:
    """Yields the rows of a study by seed, and adds the figures of each seed."""
    for record in records:
        if record.curves:
            figures.append({name.partition("_")[2]: c for name, c in record.curves.items()})
        if record.method != RETRAIN:
            seed = int(record.dataset.removeprefix(DRAW))
            yield record._replace(dataset="", seed=seed, curves={}, left_out={})


@dataclasses.dataclass(frozen=True)
class Readouts:
    """The readouts of Golatkar et al. 2020b, §5.4, and distances to the reference."""

    setting: Setting

    def judge(self, key: Key[Array, ""], case: Case, subject: Subject) -> Audited:
        """Returns errors, the share called member, the relearn time and the distances."""
        attack_key, relearn_key = jax.random.split(key)
        model, task, variables = case.model, case.task, subject.variables
        reference, tune = case.retrained.variables, self.setting.tune
        metrics = {
            f"error_{name}": 1 - auditing.accuracy(model, variables, getattr(task, name))
            for name in ("retain", "forget", "test")
        }
        attacked = auditing.EntropySvm(balanced=False)(attack_key, model, variables, task).metrics
        metrics["member_share_forget"] = attacked["member_share_forget"]
        relearn = auditing.RelearnTime(
            cap=self.setting.relearn_cap, learning_rate=self.setting.relearn_rate, samples=None,
            momentum=tune.momentum, batch_size=min(tune.batch_size, task.train.size),
        )  # fmt: skip
        metrics |= relearn.judge(relearn_key, case, subject).metrics
        public = dataclasses.replace(
            relearn, momentum=0.0, weight_decay=tune.weight_decay, decay_toward="start",
            check_first=True,
        )  # fmt: skip
        counted = public.judge(relearn_key, case, subject).metrics
        metrics["relearn_time_public"] = counted["relearn_time"]
        for name in ("retain", "forget"):
            x = getattr(task, name).x
            one, other = (predict(model, weights, x) for weights in (variables, reference))
            metrics[f"activation_distance_{name}"] = auditing.activation_distance(one, other)
        away = optax.tree.sub(variables.params, reference.params)
        metrics["weight_distance"] = float(optax.tree.norm(away))
        return Audited(metrics)


@dataclasses.dataclass(frozen=True)
class Figures:
    """The numbers of Figures 1, 3 and 4, of the weights that were scrubbed without noise."""

    setting: Setting
    paths: bool

    def judge(self, key: Key[Array, ""], case: Case, subject: Subject) -> Audited:
        """Returns the figures as curves."""
        method, model, task = subject.unlearner, case.model, case.task
        if not isinstance(method, NtkScrub) or method.noise:
            raise NotApplicable("the figures are of NTK scrubbing without noise")
        path_key, noise_key = jax.random.split(key)
        reference, scrubbed = case.retrained.variables, subject.variables
        named = {"fisher": case.original, "ntk": scrubbed, "reference": reference}
        shapes = {name: _noise(model, variables, task) for name, variables in named.items()}
        noisy = {name: _scaled(shape, self.setting.ntk_noise) for name, shape in shapes.items()}
        clouds = {"fisher": _scaled(shapes["fisher"], self.setting.fisher), "ntk": noisy["ntk"]}
        tradeoff = {
            name: auditing.information_tradeoff(
                jax.random.clone(noise_key), model, noisy[name], noisy["reference"], task,
                levels=self.setting.levels,
            ).curves
            for name in ("fisher", "ntk")
        }  # fmt: skip
        leakage = auditing.sample_leakage(model, noisy["ntk"], noisy["reference"], task, limit=100)
        on_the_way = auditing.scrubbing_path(model, case.original, scrubbed, reference, task)
        curves = {"leakage": leakage.curves, "activations": on_the_way.curves}
        if self.paths:
            curves["paths"] = _paths(path_key, case, clouds)
        return Audited({}, {**curves, "tradeoff": tradeoff})


@dataclasses.dataclass(frozen=True)
class Told:
    """What queries do not show, and what crafted ones do: §3.3, without noise in the scrub."""

    setting: Setting

    def judge(self, key: Key[Array, ""], case: Case, subject: Subject) -> Audited:
        """Returns them as curves: the null space of test queries, and nats of crafted ones."""
        method, model, task = subject.unlearner, case.model, case.task
        if not isinstance(method, NtkScrub) or method.noise:
            raise NotApplicable("the figures are of NTK scrubbing without noise")
        retrained, steps = case.retrained.variables, self.setting.crafted
        x = task.forget.x[:CRAFTED]
        asked = task.test.x[:: -(-task.test.size // self.setting.asked)]
        hidden = auditing.null_space_share(model, subject.variables, retrained, asked)
        curves: dict[str, Any] = {"null_space": hidden._asdict()}
        if steps:
            noisy, other = (
                _scaled(_noise(model, variables, task), self.setting.ntk_noise)
                for variables in (subject.variables, retrained)
            )
            radius = 0.05 * float(np.linalg.norm(x.reshape(len(x), -1), axis=1).mean())
            found = auditing.craft_queries(model, noisy, other, x, radius=radius, steps=steps)
            curves["crafted"] = {"before": found.before, "after": found.information}
        return Audited({}, curves)


def _noise(model: Model, variables: Variables, task: Task) -> GaussianWeights:
    """Returns weights with the Fisher noise of scale 1: a backward pass per class of retain."""
    return GaussianWeights(
        variables, fisher_noise_variance(model, variables, task.retain.x, alpha=1.0)
    )


def _scaled(shape: GaussianWeights, alpha: float) -> GaussianWeights:
    return GaussianWeights(shape.variables, optax.tree.scale(alpha, shape.covariance))


def _paths(key: Key[Array, ""], case: Case, clouds: dict[str, GaussianWeights]) -> dict[str, Any]:
    """Returns Figure 1: both trainings, and methods' weights with their noise, in their plane."""
    assert case.train_key is not None
    paths = {
        name: weight_path(
            jax.random.clone(case.train_key), case.model, examples, case.recipe,
            variables=case.start,
        )
        for name, examples in (("all", case.task.train), ("retain", case.task.retain))
    }  # fmt: skip
    plane = auditing.principal_paths(paths)
    figure: dict[str, Any] = {**plane.coordinates, "explained": plane.explained}
    for name, ((mean, _), variance) in clouds.items():
        draw = functools.partial(gaussian_around, mean=mean, variance=variance)
        figure[f"{name}_noise"] = plane.project(jax.lax.map(draw, jax.random.split(key, CLOUD)))
        figure[f"{name}_mean"] = plane.project(jax.tree.map(lambda w: w[None], mean))[0]
    return figure
