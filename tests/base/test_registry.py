"""Names of methods: this library's, other packages', and those that nobody knows."""

import sys
import types
from importlib.metadata import EntryPoint

import pytest

from unlearnkit import auditing, defences, forging, models, poisoning, registry, unlearning
from unlearnkit.data import loading
from unlearnkit.registry import Registry

KINDS = {
    "unlearner": unlearning.UNLEARNERS,
    "attack": poisoning.ATTACKS,
    "audit": auditing.AUDITS,
    "defence": defences.DEFENCES,
    "forger": forging.FORGERS,
    "network": models.MODELS,
    "dataset": loading.DATASETS,
}
imported = []


class Foreign:
    """What another package adds."""

    def __init__(self, strength=1.0):
        imported.append(strength)
        self.strength = strength


@pytest.fixture
def added(monkeypatch):
    """Registers values of this module as another package would; returns the groups asked for."""
    asked = []

    def entry_points(*, group):
        asked.append(group)
        values = {"foreign": "foreign_package:Foreign", "broken": "no_such_package:Method"}
        values |= {"text": "foreign_package:TEXT", "retrain": "foreign_package:Foreign"}
        return [EntryPoint(name, value, group) for name, value in values.items()]

    monkeypatch.setattr(registry, "entry_points", entry_points)
    package = types.SimpleNamespace(Foreign=Foreign, TEXT="not a class")
    monkeypatch.setitem(sys.modules, "foreign_package", package)
    return asked


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_a_registry_that_others_may_join(kind, added):
    names = KINDS[kind]
    assert isinstance(names, Registry)
    assert names.kind == kind
    assert len(names) == len(set(names)) > 0
    assert names.create("foreign", strength=2.0).strength == 2.0
    assert added[0] == f"unlearnkit.{kind}s"


def test_other_packages_are_asked_for_unknown_names_only(added):
    assert unlearning.create("retrain") == unlearning.Retrain()  # not the other package's
    assert loading.describe("digits").n_classes == 10
    assert added == []
    assert isinstance(unlearning.UNLEARNERS.create("foreign"), Foreign)
    assert "foreign" not in unlearning.UNLEARNERS  # a mapping of this library's
    assert unlearning.UNLEARNERS.known()[-3:] == ("foreign", "broken", "text")


def test_unknown_names_are_told_with_the_nearest_ones(added):
    with pytest.raises(ValueError, match="unknown unlearner 'scrubb'; .*; did you mean scrub"):
        unlearning.create("scrubb")
    with pytest.raises(ValueError, match="did you mean foreign"):
        poisoning.create("foregn")
    with pytest.raises(ValueError, match="known: greedy") as raised:
        forging.create("zzzzzz")
    assert "did you mean" not in str(raised.value)


def test_what_another_package_got_wrong_is_told(added):
    with pytest.raises(ValueError, match="registered as no_such_package:Method, which cannot be"):
        auditing.create("broken")
    with pytest.raises(ValueError, match="which is no class but 'not a class'"):
        auditing.create("text")


def test_networks_and_datasets_of_other_packages_are_checked_as_ours(added, monkeypatch):
    with pytest.raises(ValueError, match="network 'foreign' has no option wide"):
        models.create("foreign", input_shape=(4,), n_classes=2, wide=True)
    with pytest.raises(ValueError, match="dataset must be one of digits, .*foreign"):
        loading.load("digitz", split="train")
