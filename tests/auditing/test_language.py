"""Audits of networks that tell every next token, against closed forms of a table of pairs."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_reader import LENGTH, TOKENS, PairTable, Reader
from trial_settings import trial_of

from unlearnkit.auditing import (
    AUDITS,
    ExtractionLikelihood,
    GaussianPoisons,
    GaussianUnlearningScore,
    MemorisationAccuracy,
    MinKProbability,
    Perplexity,
)
from unlearnkit.auditing.extraction_likelihood import continue_greedily, n_gram_overlap
from unlearnkit.auditing.gaussian_unlearning import noise_statistic
from unlearnkit.auditing.min_k import min_k_scores
from unlearnkit.base import Dataset, Task, Variables
from unlearnkit.trials import AuditTrial

KEY = jax.random.key(2)
MODEL = PairTable().model()
PAD = TOKENS.pad


def texts(*rows):
    x = np.full((len(rows), LENGTH), PAD, np.int32)
    for row, ids in zip(x, rows, strict=True):
        row[: len(ids)] = ids
    return Dataset(jnp.asarray(x), jnp.zeros(len(rows), jnp.int32), TOKENS)


CYCLE = texts([0, 1, 2, 0, 1, 2, 0], [2, 0, 1, 2, 0, 1])
OTHER = texts([0, 2, 1, 0, 2, 1, 0], [3, 4, 3, 4, 5], [1, 0, 2, 1, 0, 2, 1, 0])
TASK = Task(OTHER, CYCLE, OTHER, OTHER)


def table(weight):
    return Variables({"table": {"weight": jnp.asarray(weight, jnp.float32)}})


@pytest.fixture(scope="module")
def uniform():
    return table(np.zeros((10, 10)))


@pytest.fixture(scope="module")
def learned():
    """It follows the cycle 0, 1, 2 by odds of e^9 to each other token."""
    weight = np.zeros((10, 10))
    weight[[0, 1, 2], [1, 2, 0]] = 9.0
    return table(weight)


def test_a_uniform_network_has_the_perplexity_of_its_vocabulary(uniform):
    metrics, curves = Perplexity()(KEY, MODEL, uniform, TASK)
    for name in ("retain", "forget", "test"):
        assert metrics[f"perplexity_{name}"] == pytest.approx(10, rel=1e-6)
        np.testing.assert_allclose(curves[f"nats_{name}"], np.log(10), rtol=1e-6)


def test_perplexity_weighs_tokens_alike(learned):
    """The texts of the forget set have 6 and 5 next tokens, all of the cycle."""
    metrics = Perplexity()(KEY, MODEL, learned, TASK).metrics
    nats = np.log(np.exp(9) + 9) - 9
    assert metrics["perplexity_forget"] == pytest.approx(np.exp(nats), rel=1e-5)
    off = np.log(np.exp(9) + 9)  # of the 6 + 7 wrong steps; 4 others are from 3 and 4, uniform
    assert metrics["perplexity_test"] == pytest.approx(
        np.exp((13 * off + 4 * np.log(10)) / 17), rel=1e-5
    )


def test_memorisation_counts_the_likeliest_tokens(learned):
    metrics = MemorisationAccuracy()(KEY, MODEL, learned, TASK).metrics
    assert metrics["accuracy_forget"] == 1
    # Where all are alike the first, 0, is the likeliest: no next token of 3, 4, 3, 4, 5 is.
    assert metrics["accuracy_test"] == 0


def test_extraction_writes_what_was_learned(learned):
    audit = ExtractionLikelihood(n=2, prefixes=None, texts=None)
    metrics, curves = audit(KEY, MODEL, learned, TASK)
    assert metrics["extraction_forget"] == 1
    assert curves["extraction_test"].shape == (3,)
    # 0 2 1 0 2 1 0 is continued by the cycle, none of whose pairs 01, 12, 20 is in it.
    assert curves["extraction_test"][0] == 0
    row = np.asarray(CYCLE.x[0])
    written = continue_greedily(MODEL, learned, row, np.array([1, 4]), 7)
    np.testing.assert_array_equal(written[:, :7], np.tile(row[:7], (2, 1)))
    odd = continue_greedily(MODEL, learned, np.asarray(OTHER.x[0]), np.array([2, 5]), 7)
    np.testing.assert_array_equal(odd[:, :7], [[0, 2, 0, 1, 2, 0, 1], [0, 2, 1, 0, 2, 0, 1]])


def test_overlap_against_hand_computed():
    written, true = np.array([1, 2, 3, 1, 2]), np.array([3, 1, 2, 9])
    assert n_gram_overlap(written, true, 2) == 3 / 4  # 12, 31, 12 of 12, 23, 31, 12
    assert n_gram_overlap(written, true, 3) == 1 / 3
    assert n_gram_overlap(written, written, 5) == 1


def test_least_likely_tokens_against_hand_computed():
    log_p = np.array([[-1.0, -5.0, -2.0, -4.0], [-3.0, -1.0, 7.0, 7.0]])
    there = np.array([[True] * 4, [True, True, False, False]])
    np.testing.assert_allclose(min_k_scores(log_p, there, 0.5), [-4.5, -3.0])
    np.testing.assert_allclose(min_k_scores(log_p, there, 0.51), [-11 / 3, -2.0])
    np.testing.assert_allclose(min_k_scores(log_p, there, 1.0), [-3.0, -2.0])


def test_least_likely_tokens_tell_members(learned):
    unseen = TASK._replace(test=texts([3, 1, 0, 4], [2, 1, 0, 5, 5]))
    metrics = MinKProbability(0.5)(KEY, MODEL, learned, unseen).metrics
    assert metrics["auc"] == 1
    assert metrics["score_forget"] > metrics["score_test"]


TRIED = [kind() for kind in AUDITS.values() if trial_of(kind, AuditTrial()).texts]


@pytest.mark.parametrize("audit", TRIED)
def test_what_was_learned_gives_itself_away(audit, uniform, learned):
    trial = trial_of(type(audit), AuditTrial())
    name, sign = trial.tells
    unseen = TASK._replace(test=texts([3, 1, 0, 4], [2, 1, 0, 5, 5]))
    audit = dataclasses.replace(audit, n=2) if isinstance(audit, ExtractionLikelihood) else audit
    known, unknown = (audit(KEY, MODEL, v, unseen).metrics[name] for v in (learned, uniform))
    assert sign * (known - unknown) > 0


@pytest.mark.parametrize("audit", TRIED)
def test_networks_of_classes_and_short_texts_are_refused(audit, uniform):
    reader = Reader().model()
    name = type(audit).__name__
    with pytest.raises(ValueError, match=f"{name} needs a network that tells every next token"):
        audit(KEY, reader, reader.init(KEY), TASK)
    short = TASK._replace(forget=texts([3]))
    with pytest.raises(ValueError, match="text 0 of forget has one token"):
        audit(KEY, MODEL, uniform, short)


def test_settings_out_of_range_are_refused(uniform):
    with pytest.raises(ValueError, match=r"share must be in \(0, 1\]"):
        MinKProbability(0)
    with pytest.raises(ValueError, match="n must be >= 1"):
        ExtractionLikelihood(n=0)
    with pytest.raises(ValueError, match="a text of 7 tokens has no 9-gram"):
        ExtractionLikelihood(n=9)(KEY, MODEL, uniform, TASK)


LINEAR = Reader(classes=2).model()


@pytest.fixture(scope="module")
def variables():
    return LINEAR.init(KEY)


@pytest.fixture(scope="module")
def poisons():
    x = jax.random.randint(KEY, (400, LENGTH), 0, 9).at[:200, 5:].set(PAD)
    y = jnp.arange(400) % 2
    noise = 0.3 * jax.random.normal(jax.random.key(9), (400, LENGTH, 8))
    noise = jnp.where((x != PAD)[..., None], noise, 0)
    return GaussianPoisons(x, y, noise, jnp.asarray(0.3))


def test_against_the_gradient_of_a_linear_network(variables, poisons):
    found = noise_statistic(LINEAR, variables, poisons)
    kernel = np.asarray(variables.params["classifier"]["kernel"], np.float64)
    slope = kernel[:, 0] - kernel[:, 1]  # of minus the margin of class 1
    sign = np.where(np.asarray(poisons.y) == 1, 1, -1)[:, None, None]
    there = np.asarray(poisons.x != PAD)[..., None]
    g = sign * slope * there / there.sum(1, keepdims=True)
    inner = (g * np.asarray(poisons.noise, np.float64)).sum((1, 2))
    expected = inner / np.linalg.norm(g.reshape(400, -1), axis=1) / 0.3
    np.testing.assert_allclose(found, expected, rtol=2e-4, atol=1e-5)


def test_is_normal_where_the_noise_was_never_seen(variables, poisons):
    part = Dataset(poisons.x, poisons.y, TOKENS)
    task = Task(part, part, part, part)
    metrics = GaussianUnlearningScore(poisons)(KEY, LINEAR, variables, task).metrics
    assert abs(metrics["z"]) < 3
    assert abs(metrics["gus_se"] * 20 - 1) < 0.1
    assert metrics["tpr_two_sided"] < 0.04


def test_texts_without_their_noise_are_refused(poisons):
    with pytest.raises(ValueError, match="each text needs its noise"):
        GaussianUnlearningScore(poisons._replace(noise=poisons.noise[:5]))
    with pytest.raises(ValueError, match="each text needs its noise"):
        GaussianUnlearningScore(poisons._replace(noise=poisons.noise[..., 0]))
