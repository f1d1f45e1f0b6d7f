"""A study that begins from weights that are trained already, and one without a reference."""

import jax
import numpy as np
import pytest
from tiny_study import KEY, RECIPE, draw, network, study, table

from unlearnkit import training
from unlearnkit.auditing import Evaluation, FromOriginal
from unlearnkit.auditing.evaluate import HEADLINE_ATTACK
from unlearnkit.poisoning import LabelFlip
from unlearnkit.studies import (
    ORIGINAL,
    RETRAIN,
    Store,
    compare,
    count_records,
    parse_study,
    run,
    train,
)
from unlearnkit.training.checkpoint import same_bits
from unlearnkit.unlearning import FineTune

AUDITS = {"": Evaluation((HEADLINE_ATTACK,), optml=None), "moved": FromOriginal()}


@pytest.fixture(scope="module")
def weights():
    return training.fit(jax.random.key(5), network(), draw(0, 120), RECIPE).variables


@pytest.fixture(scope="module")
def found(weights, tmp_path_factory):
    """Records, and the networks that they judge, of given weights without a reference."""
    networks, told = [], []
    asked = study(original=weights, reference="none", audits=AUDITS)
    records = list(
        run(
            asked,
            KEY,
            store=tmp_path_factory.mktemp("store"),
            on_record=told.append,
            on_network=lambda record, variables: networks.append((record, variables)),
        )
    )
    assert len(records) == count_records(asked) == 6
    return records, networks, told


def test_nothing_is_trained_and_nothing_compared_with_retrain(found, weights):
    records, networks, told = found
    assert told == records
    assert [r.method for r in records] == [ORIGINAL, "fine_tune", "ascent"] * 2
    assert all(same_bits(v, weights) for r, v in networks if r.method == ORIGINAL)
    assert not any(same_bits(v, weights) for r, v in networks if r.method != ORIGINAL)
    for record in records:
        assert "average_gap" not in record.metrics
        assert ("moved_weights" in record.metrics) == (record.method != ORIGINAL)
    assert records[0].left_out == {"moved": "the original has moved nowhere"}


def test_given_weights_and_trained_ones_of_the_same_bits_answer_alike(tmp_path):
    """The store is shared: what is unlearned of the given weights is not computed again."""
    asked = study(seeds=1, audits=AUDITS)
    kept = []
    plain = list(run(asked, KEY, store=tmp_path, on_network=lambda r, v: kept.append((r, v))))
    given = study(seeds=1, audits=AUDITS, original=kept[0][1])
    before = len(Store(tmp_path).folders())
    again = list(run(given, KEY, store=tmp_path))
    assert table(again) == table(plain)
    assert len(Store(tmp_path).folders()) == before


def test_budgets_are_shares_of_what_the_recipe_would_cost(weights):
    asked = study(
        original=weights, reference="none", seeds=1, budgets=(0.25, 0.5),
        methods={"fine_tune": FineTune(batch_size=20, learning_rate=0.1)},
    )  # fmt: skip
    full = RECIPE.example_gradients(100)
    costs = [r.cost.example_gradients for r in run(asked, KEY) if r.method != ORIGINAL]
    assert costs == [0.25 * full, 0.5 * full]


def test_a_recipe_that_trains_nothing_need_not_fit(weights):
    asked = study(original=weights, reference="none", recipes=training.Recipe(batch_size=1000))
    assert next(run(asked, KEY)).method == ORIGINAL
    with pytest.raises(ValueError, match="batch_size"):
        run(study(original=weights, recipes=training.Recipe(batch_size=1000)), KEY)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"reference": "none", "attacks": LabelFlip()}, "of attacks 'clean' retrains nothing"),
        ({"attacks": LabelFlip(), "given": True}, "original is of forget requests"),
        ({"networks": {"a": network(), "b": network()}, "given": True}, "by the name of its"),
        ({"original": training.Recipe}, None),
    ],
)
def test_bad_input(weights, changes, message):
    if changes.pop("given", False):
        changes["original"] = weights
    with pytest.raises((ValueError, AttributeError, TypeError), match=message):
        study(**changes)


def test_weights_of_another_network_are_refused(weights):
    other = jax.tree.map(lambda leaf: np.zeros((*leaf.shape, 2), np.float32), weights)
    with pytest.raises(ValueError, match="original: "):
        study(original=other)


def test_an_executor_keeps_its_networks(weights, tmp_path):
    with pytest.raises(ValueError, match="the weights stay with the workers"):
        run(
            study(original=weights), KEY, store=tmp_path, executor="processes:2",
            on_network=lambda *_: None,
        )  # fmt: skip


def test_a_file_names_the_original(tmp_path):
    trained = training.fit(
        jax.random.key(0), *_digits(), training.Recipe(epochs=1, batch_size=20)
    ).variables
    training.save_variables(tmp_path / "w.safetensors", trained)
    declared = parse_study(
        f"""
        reference = "none"
        [data.digits]
        train_rows = 100
        [networks.logistic]
        original = "{tmp_path / "w.safetensors"}"
        [recipes.plain]
        [forget]
        some = "random:0.1"
        """
    )
    assert same_bits(declared.study.original["logistic"], trained)
    assert declared.study.start == {}
    assert declared.study.reference == "none"


def _digits():
    from unlearnkit import data, models

    model = models.create("logistic", input_shape=(8, 8, 1), n_classes=10)
    return model, data.load("digits", split="train", normalisation="standard").take(range(100))


def test_training_as_a_stage_is_fit_and_kept(tmp_path):
    key, model, data = jax.random.key(3), network(), draw(0, 120)
    first = train(key, model, data, RECIPE, store=tmp_path)
    assert same_bits(first.variables, training.fit(key, model, data, RECIPE).variables)
    said = []
    again = train(key, model, data, RECIPE, store=tmp_path, on_stage=lambda *s: said.append(s))
    assert same_bits(first.variables, again.variables)
    assert said == []


def test_a_tracker_is_told_of_each_record_of_a_comparison():
    told = []
    parts = (draw(0, 120), draw(1, 80))
    from unlearnkit.data import RandomForget

    found = compare(
        KEY, network(), *parts, forget=RandomForget(count=20), recipe=RECIPE, methods={},
        seeds=1, attacks=(HEADLINE_ATTACK,), on_record=told.append,
    )  # fmt: skip
    assert [r.method for r in found] == [ORIGINAL]
    assert [r.method for r in told] == [ORIGINAL, RETRAIN]
