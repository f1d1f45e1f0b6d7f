"""`unlearnkit list` and `show`: what is read from the sources is what an import would find."""

import dataclasses
import importlib
import inspect
import json
import re
import subprocess
import sys
from functools import partial
from importlib.metadata import EntryPoint, EntryPoints

import jax
import jax.numpy as jnp
import pytest

from unlearnkit import auditing, cli, defences, forging, models, poisoning, unlearning
from unlearnkit.base import Dataset, Task
from unlearnkit.cli import catalogue
from unlearnkit.cli.catalogue import KINDS, SINGULAR, Catalogue
from unlearnkit.data import loading
from unlearnkit.studies.budget import CountsItself
from unlearnkit.training import Recipe

REGISTRIES = {
    "methods": unlearning.UNLEARNERS,
    "attacks": poisoning.ATTACKS,
    "defences": defences.DEFENCES,
    "audits": auditing.AUDITS,
    "forgers": forging.FORGERS,
    "networks": models.MODELS,
    "datasets": loading.DATASETS,
}
CATALOGUE = Catalogue()
ENTRIES = {(kind, entry.name): entry for kind in KINDS for entry in CATALOGUE.entries(kind)}


def registered(kind, name):
    found = REGISTRIES[kind][name]
    return found.func if isinstance(found, partial) else found


def test_every_name_is_listed_in_the_order_of_its_registry():
    assert tuple(REGISTRIES) == KINDS
    for kind, registry in REGISTRIES.items():
        assert [name for known, name in ENTRIES if known == kind] == list(registry)
        assert registry.kind == SINGULAR[kind]


@pytest.mark.parametrize(("kind", "name"), ENTRIES, ids=map("-".join, ENTRIES))
def test_an_entry_says_what_its_class_says(kind, name):
    entry, found = ENTRIES[kind, name], registered(kind, name)
    assert entry.target == f"{found.__module__}:{found.__qualname__}"
    assert entry.line == inspect.getdoc(found).splitlines()[0]
    if not dataclasses.is_dataclass(found):
        taken = inspect.signature(found).parameters.values()
        expected = {p.name: p.default for p in taken if p.name not in catalogue._GIVEN}
        assert [s.name for s in entry.settings] == list(expected)
        assert [s.default is None for s in entry.settings] == [
            default is inspect.Parameter.empty for default in expected.values()
        ]
        return
    fields = {f.name: f for f in dataclasses.fields(found) if f.init}
    assert [setting.name for setting in entry.settings] == list(fields)
    for setting in entry.settings:
        field = fields[setting.name]
        if field.default_factory is not dataclasses.MISSING:
            expected = field.default_factory()
        else:
            expected = None if field.default is dataclasses.MISSING else field.default
        assert (setting.default is None) == (
            field.default is field.default_factory is dataclasses.MISSING
        )
        if setting.default is not None:
            owner = next(c for c in found.__mro__ if setting.name in c.__annotations__)
            names = vars(importlib.import_module(owner.__module__))
            assert eval(setting.default, dict(names)) == expected


def test_methods_and_attacks_have_a_paper_and_their_settings_are_explained():
    for (kind, name), entry in ENTRIES.items():
        if kind in ("methods", "attacks"):
            assert entry.paper, name
        unexplained = [s.name for s in entry.settings if not s.says]
        assert kind in ("networks", "datasets") or not unexplained, (name, unexplained)


def test_settings_of_a_base_are_explained_where_its_class_only_points_at_it():
    (momentum,) = [s for s in ENTRIES["methods", "fine_tune"].settings if s.name == "momentum"]
    assert momentum == ("momentum", "float", "0.9", "heavy-ball momentum.")


def test_papers_are_found_in_the_source_s_own_words():
    papers = {name: ENTRIES["methods", name].paper for name in ("gradient_ascent", "influence")}
    assert papers == {"gradient_ascent": "Graves et al. 2021", "influence": "Koh & Liang 2017"}


def test_names_of_other_packages_are_listed_and_not_imported(monkeypatch, capsys):
    points = EntryPoints([EntryPoint("ours", "no_such_package:Method", "unlearnkit.unlearners")])
    monkeypatch.setattr(catalogue, "_all_points", lambda: points)
    assert Catalogue().entries("methods")[-1].line == "Of the package no_such_package."
    assert cli.run(["show", "ours"]) == 0
    assert "settings are known to its package alone" in " ".join(capsys.readouterr().out.split())


def test_the_list_fits_eighty_columns(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    assert cli.run(["list"]) == 0
    assert cli.run(["show", "influence"]) == 0
    said = capsys.readouterr().out
    assert max(map(len, said.splitlines())) <= 80
    assert all(f"{kind}:" in said for kind in KINDS)
    assert said.count("settings:") == 3  # a method, an attack and a defence


def test_json_holds_what_is_shown(capsys):
    assert cli.run(["list", "defences", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert [entry["name"] for entry in listed] == list(defences.DEFENCES)
    assert cli.run(["show", "influence", "--kind", "defences", "--json"]) == 0
    (shown,) = json.loads(capsys.readouterr().out)
    assert shown["settings"][0] == {
        "name": "fraction", "kind": "float", "default": "0.03",
        "says": "of each set that is dropped, in (0, 1).",
    } | {"says": shown["settings"][0]["says"]}  # fmt: skip
    assert shown["paper"] == "Koh and Liang 2017"


def test_an_unknown_name_is_told_with_the_nearest_ones(capsys):
    assert cli.run(["show", "scrubb"]) == 2
    assert "unknown name 'scrubb'" in (said := capsys.readouterr().err)
    assert "did you mean scrub or ntk_scrub?" in said


def test_listing_imports_neither_jax_nor_numpy():
    code = (
        "import sys; from unlearnkit import cli; cli.run(['list']); cli.run(['show', 'scrub']); "
        "print([name for name in ('jax', 'numpy', 'sklearn', 'scipy') if name in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.splitlines()[-1] == "[]"


def test_costs_are_told_of_all_that_a_study_pays_for():
    for (kind, name), entry in ENTRIES.items():
        assert entry.cost or kind not in ("methods", "attacks", "defences"), name


@pytest.mark.parametrize("name", unlearning.UNLEARNERS)
def test_the_cost_that_a_method_tells_is_the_one_that_it_counts(name):
    """The formulas of the docstrings, where there is one, on sets that whole batches fill."""
    formula = re.match(r"`(.+?)` example-gradients", ENTRIES["methods", name].cost)
    made = unlearning.create(name) if name != "retrain" else unlearning.Retrain(Recipe(epochs=3))
    if not isinstance(made, CountsItself):
        assert formula is None
        return
    if name == "stackelberg":  # its own step follows from the classes that there are
        assert formula is None
        return
    y = jnp.arange(1024) % 2
    whole = Dataset(jnp.zeros((1024, 4, 4, 1)), y)
    retain, forget = whole.take(range(768)), whole.take(range(256))
    task = Task(retain, forget, forget, forget)
    model = models.create("logistic", input_shape=(4, 4, 1), n_classes=2)
    counted = made.example_gradients(jax.eval_shape(model.init, jax.random.key(0)), task)
    settings = {f.name: getattr(made, f.name) for f in dataclasses.fields(made)}
    told = eval(formula[1], {"retain": 768, "forget": 256, "min": min, **settings})
    assert counted == pytest.approx(told)
