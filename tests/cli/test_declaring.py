import tomllib

import pytest

from unlearnkit.cli.declaring import declare, to_toml


def say(**changes):
    parts = {
        "data": ["digits:train_rows=200"],
        "networks": ["mlp:hidden=[8, 4]"],
        "recipe": ["epochs=2"],
        "forget": ["random:0.1"],
        "parts": {"methods": ["fine_tune:epochs=1,learning_rate=1e-2"]},
        "numbers": {"seeds": 2, "budgets": None},
    }
    return tomllib.loads(declare(**{**parts, **changes}))


def test_options_say_what_a_file_would():
    assert say() == {
        "seeds": 2,
        "data": {"digits": {"train_rows": 200}},
        "networks": {"mlp": {"hidden": [8, 4]}},
        "recipes": {"recipe": {"epochs": 2}},
        "forget": {"random:0.1": "random:0.1"},
        "methods": {"fine_tune": {"epochs": 1, "learning_rate": 0.01}},
    }


def test_one_name_with_two_settings_is_two_entries():
    methods = say(parts={"methods": ["scrub", "scrub:epochs=2", "scrub:epochs=3"]})["methods"]
    assert methods == {
        "scrub": {},
        "scrub (epochs=2)": {"use": "scrub", "epochs": 2},
        "scrub (epochs=3)": {"use": "scrub", "epochs": 3},
    }
    with pytest.raises(ValueError, match="--methods has 'scrub' twice"):
        say(parts={"methods": ["scrub", "scrub", "scrub"]})


def test_dotted_settings_are_tables_and_commas_in_brackets_stay():
    entries = ["gaussian:budget.epsilon=0.1,budget.per_class=true", "other:pair=[1, 2],text=a b"]
    assert say(parts={"attacks": entries})["attacks"] == {
        "gaussian": {"budget": {"epsilon": 0.1, "per_class": True}},
        "other": {"pair": [1, 2], "text": "a b"},
    }


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("scrub:epochs", "a setting must read name=value, got 'epochs'"),
        (":epochs=1", "--methods lacks a name"),
        ("scrub:a=1,a.b=2", "a is a value already, so it has no b"),
    ],
)
def test_what_cannot_be_read_is_told(entry, message):
    with pytest.raises(ValueError, match=message):
        say(parts={"methods": [entry]})


def test_any_text_comes_back_from_toml():
    said = {"a": 'q"\\\n é', "t": {"x y": {"b": False, "n": -1.5, "deep": {"z": [{"k": 1}]}}}}
    assert tomllib.loads(to_toml(said)) == said
