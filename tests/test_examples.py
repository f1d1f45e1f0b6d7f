"""Every example of a docstring of an entry point runs on tiny data as it is written.

What the examples are, and that their calls fit the signatures, is in `test_docstrings.py`.
"""

import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from bright_rows import MODEL as LINEAR
from bright_rows import draw as two_classes
from docstring_examples import EXAMPLES, PACKAGES, example

from unlearnkit import data, forging, models, poisoning, studies, training, unlearning
from unlearnkit.base import Dataset, Tokens

KEY = jax.random.key(1)
QUICK = training.Recipe(epochs=2, batch_size=100, learning_rate=0.1)
TEXTS = Tokens(vocabulary=500, pad=499)
LONG_TEXT = 16
DECLARED = """
seeds = 2
[data.digits]
train_rows = 300
[networks.logistic]
[recipes.short]
epochs = 2
[forget]
tenth = "random:0.1"
[methods.fine_tune]
epochs = 1
"""


def images(seed, n):
    """Ten classes, of which a bright pixel tells."""
    x = 0.5 * jax.random.uniform(jax.random.key(seed), (n, 8, 8, 1))
    y = jnp.arange(n, dtype=jnp.int32) % 10
    return Dataset(x.at[jnp.arange(n), y // 5 + 2, y % 5 + 2, 0].set(1.0), y)


def texts(seed, n):
    """Texts that start with what tells the label; every fourth has a trigger."""
    y = jnp.arange(n, dtype=jnp.int32) % 2
    x = jax.random.randint(jax.random.key(seed), (n, LONG_TEXT), 0, 300).at[:, 0].set(300 + y)
    return Dataset(x.at[::4, 5].set(461), y, TEXTS)


def decoder(head, n_classes):
    return models.create(
        "gpt2_tiny", input_shape=(LONG_TEXT,), n_classes=n_classes, head=head, width=8, heads=2,
        vocabulary=TEXTS.vocabulary, pad_id=TEXTS.pad,
    )  # fmt: skip


def of_images():
    model = models.create("mlp", input_shape=(8, 8, 1), n_classes=10, hidden=(16,))
    return model, images(0, 1200), images(1, 400)


def of_two_classes():
    return LINEAR, two_classes(0, 200), two_classes(1, 80)


def of_texts():
    return decoder("classes", 2), texts(0, 120), texts(1, 60)


def of_next_tokens():
    return decoder("tokens", TEXTS.vocabulary), texts(0, 120), texts(1, 60)


def of_forging():
    return models.create("logistic", input_shape=(8, 8, 1), n_classes=10), *of_images()[1:]


KINDS = {
    **dict.fromkeys(("InfluenceAttack", "KktAttack", "PoisonSvm"), of_two_classes),
    **dict.fromkeys((kind.__name__ for kind in forging.FORGERS.values()), of_forging),
    **dict.fromkeys(("forging.calibrate", "forging.forge_trajectory"), of_forging),
    "TextTrigger": of_texts,
    "Perplexity": of_next_tokens,
    "MemorisationAccuracy": of_next_tokens,
    "ExtractionLikelihood": of_next_tokens,
    "MinKProbability": of_next_tokens,
}
"""What an example's `model`, `train` and `test` are, where not images of ten classes."""


def softmax_regression():
    """Returns a network, its data and a game: what the examples of kernels start from."""
    x_key, w_key, v_key = jax.random.split(jax.random.key(0), 3)
    x = jax.random.normal(x_key, (24, 3))
    y = jnp.arange(24) % 3
    params, v = ({"w": jax.random.normal(k, (3, 3)) / 3} for k in (w_key, v_key))

    def apply(params, x):
        return x @ params["w"]

    def loss(params, x, y):
        return training.cross_entropy(apply(params, x), y)

    return {
        "key": jax.random.key(1),
        "apply": apply,
        "loss": loss,
        "params": params,
        "v": v,
        "dataset": Dataset(x, y),
        "x": x,
        "y": y,
        "gains": lambda leader, follower: -jnp.sum((leader - follower) ** 2),
        "loses": lambda leader, follower: jnp.sum((follower - 1) ** 2 + leader * follower),
    }


@pytest.fixture(scope="module")
def worlds():
    """What the names in examples mean, by the kind of data; made where an example needs it."""
    return {}


def world(kind):
    model, train, test = kind()
    task = data.make_task(KEY, train, test, data.RandomForget(fraction=0.1))
    causal = (
        {"objective": training.CausalCrossEntropy(model, QUICK)} if kind is of_next_tokens else {}
    )
    original, retrained = (
        training.fit(KEY, model, rows, QUICK, **causal).variables for rows in (train, task.retain)
    )
    return {
        "key": KEY, "model": model, "train": train, "test": test, "task": task,
        "variables": original, "original": original, "retrained": retrained,
    }  # fmt: skip


def more_of(name, names):
    """Returns the names that only some examples have."""
    model, variables, train, task = (names[n] for n in ("model", "variables", "train", "task"))
    if name.startswith("kernels."):
        return softmax_regression()
    if KINDS.get(name) is of_forging:
        batch = train.take(np.arange(100))
        recipe = dataclasses.replace(QUICK, epochs=1)
        training.fit(KEY, model, train, recipe, trajectory="log", every=3)
        return {
            "batch": batch,
            "step": forging.honest_step(model, variables, batch, learning_rate=0.1),
            "allowed": train.take(np.arange(100, train.size)),
        }
    if name.startswith("studies."):
        study = studies.Study(
            data=studies.Pair(train, names["test"]), networks=model, recipes=QUICK,
            forget=data.RandomForget(fraction=0.1), methods={"tuned": unlearning.FineTune(1)},
            seeds=2,
        )  # fmt: skip
        Path("study.toml").write_text(DECLARED)
        return {"study": study, "records": list(studies.run(study, KEY))}
    if name == "data.load":
        Path("data").mkdir()
        held = {f"{name}_train": np.asarray(getattr(train, name)) for name in "xy"}
        held |= {f"{name}_test": np.asarray(getattr(names["test"], name)) for name in "xy"}
        np.savez("data/own.npz", **held)
    attack = {
        "GaussianUnlearningScore": poisoning.GaussianPoison(),
        "TargetedSuccess": poisoning.GradientMatching(steps=2, restarts=1),
    }.get(name, poisoning.LabelFlip())
    return {"poisoned": attack(KEY, model, variables, task)}


@pytest.mark.parametrize("name", EXAMPLES)
def test_runs(name, worlds, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    kind = KINDS.get(name, of_images)
    if kind not in worlds:
        worlds[kind] = world(kind)
    names = PACKAGES | worlds[kind] | more_of(name, worlds[kind])
    exec(compile(example(EXAMPLES[name]), name, "exec"), names)
    for solved in ("info", "found"):
        if name.startswith("kernels."):
            assert getattr(names.get(solved), "converged", True), f"{names[solved]}"
