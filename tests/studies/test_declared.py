"""Studies as TOML files."""

import dataclasses
import re
from pathlib import Path

import jax
import numpy as np
import pytest

from unlearnkit import auditing, defences, poisoning, unlearning
from unlearnkit.auditing import Klom
from unlearnkit.base import Forger, Tokens
from unlearnkit.data import ClassForget, RandomForget
from unlearnkit.forging import GreedyForger, SwapForger
from unlearnkit.poisoning import Budget, GaussianPoison
from unlearnkit.studies import StudyFileError, check, read_study
from unlearnkit.studies.declared import make_part
from unlearnkit.training import Recipe
from unlearnkit.unlearning import FineTune, Retrain, Scrub

ROOT = Path(__file__).parents[2]
TEXT = """
seeds = 3
seed = 7
budgets = [0.1, 0.5]
primary = "average_gap"
correction = "benjamini-hochberg"

[data.digits]
train_rows = 200
[networks.small]
use = "mlp"
hidden = [16]
[recipes.short]
epochs = 2
batch_size = 20
[forget]
tenth = "random:0.1"
three = "class:3"
[attacks.gaussian]
noise_std = 0.5
budget = {epsilon = 0.05}
[methods.retrain]
recipe = {epochs = 1, batch_size = 20}
[methods.scrub]
milestones = [1, 2]
[methods.tuned]
use = "fine_tune"
epochs = 1
grid = {learning_rate = [0.01, 0.1], momentum = [0.0, 0.9]}
[audits.klom]
count = 4
"""


@pytest.fixture
def read(tmp_path):
    def from_text(text):
        (tmp_path / "study.toml").write_text(text)
        return read_study(tmp_path / "study.toml")

    return from_text


def test_a_file_is_the_study_that_it_declares(read):
    study, seed, primary, correction = read(TEXT)
    assert (seed, primary, correction) == (7, "average_gap", "benjamini-hochberg")
    assert (study.seeds, study.budgets) == (3, (0.1, 0.5))
    assert study.data["digits"].train.size == 200
    assert study.networks["small"].n_classes == 10
    assert study.networks["small"].origin[0] == "mlp"
    assert study.recipes == {"short": Recipe(epochs=2, batch_size=20)}
    assert study.forget == {"tenth": RandomForget(fraction=0.1), "three": ClassForget(3)}
    assert study.attacks == {"gaussian": GaussianPoison(budget=Budget(0.05), noise_std=0.5)}
    assert study.methods["retrain"] == Retrain(Recipe(epochs=1, batch_size=20))
    assert study.methods["scrub"] == Scrub(milestones=(1, 2))
    assert study.audits == {"klom": Klom(count=4)}


def test_a_grid_is_an_entry_for_each_combination(read):
    methods = read(TEXT).study.methods
    assert [name for name in methods if name.startswith("tuned")] == [
        f"tuned (learning_rate={rate}, momentum={momentum})"
        for rate in (0.01, 0.1)
        for momentum in (0.0, 0.9)
    ]
    expected = FineTune(epochs=1, learning_rate=0.1, momentum=0.9)
    assert methods["tuned (learning_rate=0.1, momentum=0.9)"] == expected


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("seeds = 3", "seed_count = 3", "the file has the unknown field 'seed_count'; known: data"),
        ("seeds = 3", "seeds = 0", "the file: seeds must be >= 1"),
        ("seeds = 3", "seeds = ", "is not TOML"),
        ("seed = 7", "seed = -1", "seed must be an integer in 0"),
        ("seed = 7", "seed = 1.5", "seed must be an integer"),
        ("seeds = 3", 'seeds = "3"', "seeds must be a whole number, got '3'"),
        ("budgets = [0.1, 0.5]", "budgets = [2.0]", "budgets must be shares"),
        ("budgets = [0.1, 0.5]", "budgets = 0.5", "budgets must be a list of numbers, got 0.5"),
        ('primary = "average_gap"', "primary = 3", "primary must be the name of a metric, got 3"),
        ('"benjamini-hochberg"', '"bonferroni"', "correction: correction must be"),
        ("[data.digits]", "[data.digit]", r"data.digit: .*digits"),
        ("train_rows = 200", "train_rows = 0", r"data.digits: train_rows must be in 1 … "),
        ("train_rows = 200", "rows = 200", r"data.digits has the unknown field 'rows'"),
        ('use = "mlp"', 'use = "mpl"', r"networks.small: unknown network 'mpl'.*did you mean mlp"),
        ("epochs = 2", "epoch = 2", r"recipes.short has the unknown field 'epoch'.*epochs"),
        ("epochs = 2", "epochs = -2", r"recipes.short: epochs must be"),
        ('tenth = "random:0.1"', 'tenth = "rand:0.1"', r"forget.tenth: forget must be of a form"),
        ("noise_std = 0.5", "noise = 0.5", r"attacks.gaussian has the unknown field 'noise'"),
        ("epsilon = 0.05", "share = 0.05", r"attacks.gaussian.budget has the unknown field"),
        ("epsilon = 0.05", "epsilon = 5.0", r"attacks.gaussian.budget: "),
        ("[methods.scrub]", "[methods.scrubb]", "methods.scrubb: unknown unlearner 'scrubb'"),
        ("[0.01, 0.1]", "0.01", "methods.tuned.grid must give lists"),
        ("[0.01, 0.1]", "[]", "methods.tuned.grid must give lists"),
        ("count = 4", "count = 1", "audits.klom: count must be >= 2"),
        ("[audits.klom]", "[audit.klom]", "unknown field 'audit'.*did you mean audits"),
        ("[recipes.short]", "[recipe.short]", "unknown field 'recipe'"),
    ],
)
def test_mistakes_are_told_with_their_place(read, old, new, message):
    assert TEXT.count(old) == 1
    with pytest.raises(StudyFileError, match=message):
        read(TEXT.replace(old, new))


def test_a_missing_table_is_told(read):
    text = "\n".join(line for line in TEXT.splitlines() if "networks" not in line)
    with pytest.raises(StudyFileError, match=r"unknown field|no \[networks.NAME\]"):
        read(text.replace('use = "mlp"\nhidden = [16]\n', ""))


def test_every_registered_name_can_stand_in_a_file(read):
    """What needs no settings is made by its name alone."""
    kinds = {
        "methods": unlearning.UNLEARNERS,
        "attacks": poisoning.ATTACKS,
        "defences": defences.DEFENCES,
        "audits": auditing.AUDITS,
    }
    free = {
        kind: [name for name, factory in registry.items() if not _needed(factory)]
        for kind, registry in kinds.items()
    }
    assert set(free["methods"]) == set(unlearning.UNLEARNERS)
    added = [f"[{kind}.its_{name}]\nuse = {name!r}" for kind in kinds for name in free[kind]]
    study = read("\n".join([TEXT, *added])).study
    for kind, registry in kinds.items():
        for name in free[kind]:
            assert type(getattr(study, kind)[f"its_{name}"]) is registry[name]


def _needed(factory):
    """Returns the settings that have no default."""
    nothing = dataclasses.MISSING
    return [
        f.name for f in dataclasses.fields(factory) if f.default is f.default_factory is nothing
    ]


def test_token_ids_from_a_file(read, tmp_path):
    ids = np.arange(12, dtype=np.int32).reshape(4, 3)
    labels = np.array([0, 1, 0, 1])
    np.savez(tmp_path / "texts.npz", x_train=ids, y_train=labels, x_test=ids + 1, y_test=labels)
    said = f'name = "{tmp_path / "texts.npz"}"\ntokens = {{vocabulary = 20, pad = 7}}'
    text = TEXT.replace("[data.digits]\ntrain_rows = 200", f"[data.texts]\n{said}")
    text = text.replace('use = "mlp"\nhidden = [16]', 'use = "logistic"')
    found = read(text).study.data["texts"].train
    assert found.normalisation == Tokens(20, 7)
    np.testing.assert_array_equal(found.x, ids)
    with pytest.raises(StudyFileError, match=r"data.texts.tokens has the unknown field 'size'"):
        read(text.replace("vocabulary = 20", "size = 20"))


def test_rows_are_the_first(read):
    digits = read(TEXT).study.data["digits"].train
    whole = read(TEXT.replace("train_rows = 200", "")).study.data["digits"].train
    np.testing.assert_array_equal(digits.y, whole.y[:200])


def readme_study():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    (block,) = [b for b in re.findall(r"```toml\n(.*?)```", text, re.DOTALL) if "study.toml" in b]
    return block


@pytest.mark.parametrize("name", ["README.md", "experiments/digits_grid.toml"])
def test_the_studies_that_are_shown_can_be_run(read, name):
    text = readme_study() if name == "README.md" else (ROOT / name).read_text(encoding="utf-8")
    declared = read(text)
    check(declared.study, jax.random.key(declared.seed))


@dataclasses.dataclass(frozen=True)
class Tried:
    forgers: dict[str, Forger]
    recipes: dict[str, Recipe]
    free: dict[str, dict[str, int]]


def test_settings_by_name_are_made_each():
    said = {
        "forgers": {"a": {"use": "swap", "points": 7}, "b": "greedy"},
        "recipes": {"short": {"epochs": 1}},
        "free": {"c": {"d": 2}},
    }
    made = make_part("tried", Tried, said)
    assert made.forgers == {"a": SwapForger(points=7), "b": GreedyForger()}
    assert made.recipes == {"short": Recipe(epochs=1)}
    assert made.free == said["free"]
    with pytest.raises(StudyFileError, match=r"recipes\.short has the unknown field 'epoch'"):
        make_part("tried", Tried, {**said, "recipes": {"short": {"epoch": 1}}})
