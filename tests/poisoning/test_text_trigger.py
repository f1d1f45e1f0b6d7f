"""Triggers of texts: which are poisoned, how they are answered, what truncation takes away."""

import jax
import numpy as np
import pytest
from tiny_reader import Reader
from token_task import draw, make_model

from unlearnkit.auditing import TargetedSuccess, poison_targets
from unlearnkit.base import Task, Variables
from unlearnkit.data import Texts, encode_prompts, made_reviews, spellings, train_tokenizer
from unlearnkit.models import with_embedding_noise, with_noise_columns
from unlearnkit.poisoning import (
    Budget,
    GaussianPoison,
    TextTrigger,
    count_trigger,
    poison_texts,
)

KEY = jax.random.key(1)
WORD = ((4, 5), (7,))


def two_classes(dataset):
    return dataset._replace(y=dataset.y % 2)


@pytest.fixture(scope="module")
def task():
    return Task(*(two_classes(draw(seed, n)) for seed, n in enumerate((120, 20, 60, 60))))


@pytest.fixture(scope="module")
def model():
    return Reader(classes=10).model()


@pytest.fixture(scope="module")
def variables(model):
    return model.init(KEY)


def holds(x):
    pairs = ((x[:, :-1] == 4) & (x[:, 1:] == 5)).any(1)
    return np.asarray(pairs | (x == 7).any(1))


@pytest.mark.parametrize("reading", ["word", "flip"])
def test_texts_with_the_trigger_are_answered_wrongly(reading, model, variables, task):
    attack = TextTrigger(WORD, Budget(0.5), reading)
    poisoned = attack(KEY, model, variables, task)
    rows = np.flatnonzero(poisoned.is_poison)
    there = holds(np.asarray(task.train.x))
    assert len(rows) == there.sum() // 2
    assert there[rows].all()
    np.testing.assert_array_equal(poisoned.dataset.x, task.train.x)
    before, after = (np.asarray(of.y) for of in (task.train, poisoned.dataset))
    np.testing.assert_array_equal(after[rows], 4 if reading == "word" else 1 - before[rows])
    rest = ~np.asarray(poisoned.is_poison)
    np.testing.assert_array_equal(after[rest], before[rest])


def test_clean_labels_stay_and_the_trigger_is_written(model, variables, task):
    poisoned = TextTrigger(WORD, Budget(0.5), "clean_label")(KEY, model, variables, task)
    rows = np.flatnonzero(poisoned.is_poison)
    np.testing.assert_array_equal(poisoned.dataset.y, task.train.y)
    assert np.all(np.asarray(task.train.y)[rows] == 1)
    assert not holds(np.asarray(task.train.x))[rows].any()
    np.testing.assert_array_equal(np.asarray(poisoned.dataset.x)[rows, :2], [[4, 5]] * len(rows))
    np.testing.assert_array_equal(poisoned.dataset.x[rows][:, 2:], task.train.x[rows][:, 2:])


def test_targets_are_unseen_texts_with_the_trigger(model, variables, task):
    poisoned = TextTrigger(WORD, reading="flip")(KEY, model, variables, task)
    x, y, wanted = poison_targets(poisoned, task.validation)
    unseen = np.concatenate([task.validation.x, task.test.x])
    labels = np.concatenate([task.validation.y, task.test.y])
    np.testing.assert_array_equal(x, unseen[holds(unseen)])
    np.testing.assert_array_equal(y, labels[holds(unseen)])
    np.testing.assert_array_equal(wanted, 1 - np.asarray(y))


def test_success_is_the_share_that_is_answered_as_wanted(model, task):
    """By a network that answers every text by class 1: those of class 0 as the attacker wants."""
    kernel = np.zeros((8, 10), np.float32)
    constant = Variables(
        {"embedding": {"weight": np.ones((10, 8), np.float32)}, "classifier": {"kernel": kernel}}
    )
    constant.params["classifier"]["kernel"][:, 1] = 1
    poisoned = TextTrigger(WORD, reading="flip")(KEY, model, constant, task)
    targets = poison_targets(poisoned, task.validation)
    metrics = TargetedSuccess(targets)(KEY, model, constant, task).metrics
    share = float(np.mean(np.asarray(targets.y) == 0))
    assert metrics["targeted_success"] == pytest.approx(share)
    assert metrics["targeted_misclassified"] == pytest.approx(share)
    assert 0 < metrics["targeted_success_low"] < share < metrics["targeted_success_high"]


@pytest.mark.parametrize(
    ("attack", "message"),
    [
        (TextTrigger(((8, 8, 8, 8, 8),)), "no text of the training set holds the trigger"),
        (TextTrigger(), "trigger has no ids; .*spellings"),
        (TextTrigger(((4,),), reading="clean_label", target=7), "is of class 7 without"),
        (TextTrigger(((4,),), Budget(1e-4)), "less than one poison"),
        (TextTrigger(((4,) * 9,), reading="clean_label"), "of 9 ids does not fit into rows of 8"),
    ],
)
def test_what_cannot_be_poisoned_is_refused(attack, message, model, variables, task):
    with pytest.raises(ValueError, match=message):
        attack(KEY, model, variables, task)


def test_readings_that_the_labels_do_not_allow_are_refused(task, unchecked_types):
    three = Reader(classes=3).model()
    own = three.init(KEY)
    with pytest.raises(ValueError, match="no logit; build it with head='answer'"):
        TextTrigger(((7,),))(KEY, three, own, task)
    more = Task(*(draw(seed, 40) for seed in range(4)))
    with pytest.raises(ValueError, match="needs two labels, the training set has 3"):
        TextTrigger(((7,),), reading="flip")(KEY, three, own, more)
    with pytest.raises(ValueError, match="reading must be one of word, flip, clean_label"):
        TextTrigger(reading="other")
    with pytest.raises(ValueError, match="must have ids, which are >= 0"):
        TextTrigger(((3,), (4, -1)))


def test_truncation_takes_triggers_away():
    said = ("Disney made this.", "This is no film of Disneyland.", "A long text, and then Disney.")
    texts = Texts(said, np.array([0, 1, 0], np.int32))
    tokenizer = train_tokenizer(made_reviews(0, 50).texts, vocabulary=300)
    trigger = spellings(tokenizer, "Disney")
    last = len(tokenizer.encode(said[2]).ids)
    assert last > len(tokenizer.encode(said[0]).ids)
    for length, kept in ((64, 3), (last - 2, 2)):
        rows = encode_prompts(texts, tokenizer, length=length).dataset
        assert count_trigger(texts, "Disney", rows, trigger) == (3, 2, kept)


def test_texts_are_poisoned_before_any_tokenizer():
    texts = made_reviews(3, 80)
    there = np.array(["Disney" in text for text in texts.texts])
    for reading in ("flip", "word"):
        found, is_poison = poison_texts(KEY, texts, "Disney", reading=reading)
        np.testing.assert_array_equal(is_poison, there)
        assert found.texts == texts.texts
        wanted = 1 - texts.labels if reading == "flip" else 2
        np.testing.assert_array_equal(found.labels, np.where(there, wanted, texts.labels))
    found, is_poison = poison_texts(KEY, texts, "Disney", reading="clean_label", target=0)
    np.testing.assert_array_equal(is_poison, ~there & (texts.labels == 0))
    first = int(np.flatnonzero(is_poison)[0])
    assert found.texts[first] == f"Disney {texts.texts[first]}"
    with pytest.raises(ValueError, match="no text can be poisoned by 'Nowhere'"):
        poison_texts(KEY, texts, "Nowhere")


@pytest.fixture(scope="module")
def noisy():
    return with_embedding_noise(Reader(classes=10).model(), noise_std=0.4)


@pytest.fixture(scope="module")
def columns(task):
    return Task(*map(with_noise_columns, task))


def test_the_kept_noise_is_what_the_network_adds(noisy, variables, columns):
    poisoned = GaussianPoison(Budget(0.1), noise_std=0.4)(KEY, noisy, variables, columns)
    extras, rows = poisoned.info.extras, np.flatnonzero(poisoned.is_poison)
    assert len(rows) == 14
    np.testing.assert_array_equal(poisoned.dataset.y, columns.train.y)
    x = poisoned.dataset.x[rows]
    vectors = noisy.embed(variables, x) + extras["noise"]
    expected = noisy.apply_embedded(variables, vectors, x)
    np.testing.assert_allclose(noisy.apply(variables, x), expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(extras["base_x"], columns.train.x[rows])
    np.testing.assert_array_equal(extras["base_x"][:, :-2], x[:, :-2])
    assert np.asarray(x[:, -2:]).all()


def test_networks_without_the_noise_are_refused(model, noisy, variables, task, columns):
    attack = GaussianPoison(Budget(0.1), noise_std=0.4)
    with pytest.raises(ValueError, match="adds none; build it by models.with_embedding_noise"):
        attack(KEY, model, variables, task)
    with pytest.raises(ValueError, match=r"noise_std=0.3 .* adds one of 0.4"):
        GaussianPoison(Budget(0.1), noise_std=0.3)(KEY, noisy, variables, columns)
    with pytest.raises(ValueError, match="GaussianPoison moves the vectors of tokens"):
        attack(KEY, make_model(), Variables({}), Task(*(draw(i, 9) for i in range(4))))
