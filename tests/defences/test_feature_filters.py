"""Spectral signatures, activation clustering and deep k-NN on planted activations."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unlearnkit import models
from unlearnkit.base import Dataset
from unlearnkit.defences import ActivationClustering, DeepKnn, SpectralSignature
from unlearnkit.defences.deep_knn import _disagreement
from unlearnkit.training import DivergedError

KEY = jax.random.key(3)
MODEL = models.create("logistic", input_shape=(6,), n_classes=3)
VARIABLES = MODEL.init(jax.random.key(0))
"""Logistic regression: the penultimate activations are the inputs."""


def dropped(defended):
    return set(np.flatnonzero(~np.asarray(defended.keep)).tolist())


def planted(n=120, poisons=8, seed=0):
    """Three blobs; the first examples bear label 0 and lie in the blob of label 1."""
    rng = np.random.default_rng(seed)
    y = np.arange(n) % 3
    place = y.copy()
    mine = np.flatnonzero(y == 0)[:poisons]
    place[mine] = 1
    x = 6 * np.eye(6)[place] + rng.standard_normal((n, 6))
    return Dataset(jnp.asarray(x, jnp.float32), jnp.asarray(y, jnp.int32)), set(mine.tolist())


def test_spectral_signature_is_the_top_singular_vector():
    data, _ = planted()
    method = SpectralSignature(fraction=0.2, tol=1e-8)
    defended = method(KEY, MODEL, VARIABLES, data)
    x, y = np.asarray(data.x, np.float64), np.asarray(data.y)
    for label in range(3):
        rows = np.flatnonzero(y == label)
        centred = x[rows] - x[rows].mean(axis=0)
        u, s, _ = np.linalg.svd(centred, full_matrices=False)
        wanted = (s[0] * u[:, 0]) ** 2
        np.testing.assert_allclose(defended.scores[rows], wanted, rtol=1e-3, atol=1e-5)
        assert len(dropped(defended) & set(rows.tolist())) == 8


def test_spectral_signature_finds_the_planted_blob():
    data, poisons = planted()
    assert poisons <= dropped(SpectralSignature(fraction=0.2)(KEY, MODEL, VARIABLES, data))


@pytest.mark.parametrize("whiten", [True, False])
def test_activation_clustering_drops_the_planted_blob_alone(whiten):
    data, poisons = planted()
    method = ActivationClustering(components=2, whiten=whiten, silhouette=0.45)
    defended = method(KEY, MODEL, VARIABLES, data)
    assert dropped(defended) == poisons
    history = defended.info.history
    assert history["smaller_share"][0] == pytest.approx(8 / 40)
    assert history["silhouette"][0] > max(history["silhouette"][1:])


def test_activation_clustering_keeps_a_cluster_that_is_too_large():
    data, _ = planted(poisons=16)  # 16 of the 40 examples of the class
    method = ActivationClustering(components=2, silhouette=0.45)
    assert not dropped(method(KEY, MODEL, VARIABLES, data))


def test_activation_clustering_ignores_components_of_rounding():
    """An activation that is constant but for rounding would split a class once it is scaled."""
    data, _ = planted()
    wide = jnp.zeros((data.size, 1)).at[::2].set(1e-12)

    def features(variables, x):
        return jnp.concatenate([x, wide], axis=1)

    method = ActivationClustering(components=7, silhouette=-1.0, features=features)
    plain = ActivationClustering(components=6, silhouette=-1.0)
    one, other = (m(KEY, MODEL, VARIABLES, data) for m in (method, plain))
    assert dropped(one) == dropped(other)


def test_activation_clustering_keeps_a_class_of_copies():
    data, _ = planted()
    same = data._replace(x=jnp.where((data.y == 2)[:, None], 1.0, data.x))
    defended = ActivationClustering(components=2, silhouette=0.45)(KEY, MODEL, VARIABLES, same)
    assert np.all(np.asarray(defended.keep)[np.asarray(data.y) == 2])
    assert defended.info.history["smaller_share"][2] == 0


def test_deep_knn_is_the_plurality_of_the_nearest():
    data, poisons = planted()
    defended = DeepKnn(k=9)(KEY, MODEL, VARIABLES, data)
    x, y = np.asarray(data.x, np.float64), np.asarray(data.y)
    distances = ((x[:, None] - x[None]) ** 2).sum(axis=-1)
    np.fill_diagonal(distances, np.inf)
    for i, row in enumerate(distances):
        votes = np.bincount(y[np.argsort(row)[:9]], minlength=3)
        wanted = (np.delete(votes, y[i]).max() - votes[y[i]]) / 9
        assert defended.scores[i] == pytest.approx(wanted)
        assert bool(defended.keep[i]) == (wanted <= 0)
    assert poisons <= dropped(defended)


@given(st.integers(0, 10_000), st.integers(1, 6), st.integers(1, 7), st.integers(2, 4))
@settings(max_examples=50)
def test_disagreement_counts_votes(seed, n, k, classes):
    rng = np.random.default_rng(seed)
    votes, labels = rng.integers(0, classes, (n, k)), rng.integers(0, classes, n)
    found = _disagreement(votes, labels, classes)
    for row, label, value in zip(votes, labels, found, strict=True):
        others = max(np.sum(row == c) for c in range(classes) if c != label)
        assert value == pytest.approx((others - np.sum(row == label)) / k)


def embed(variables, x):
    return x[:, :2]


@pytest.mark.parametrize("kind", [SpectralSignature, ActivationClustering, DeepKnn])
def test_a_users_features_take_their_place(kind):
    data, _ = planted()
    wide = data._replace(x=data.x.at[:, 2:].set(0.0))
    one = kind(features=embed)(KEY, MODEL, VARIABLES, data)
    other = kind()(KEY, MODEL, VARIABLES, wide)
    np.testing.assert_allclose(one.scores, other.scores, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("features", "error", "message"),
    [
        (lambda v, x: x[:3], ValueError, "features must map 120 examples to [120, d], got [3, 6]"),
        (lambda v, x: x[:, 0], ValueError, "got [120]"),
        (lambda v, x: x * jnp.nan, DivergedError, "a feature is not finite"),
    ],
)
def test_bad_features_are_refused(features, error, message):
    data, _ = planted()
    with pytest.raises(error, match=re.escape(message)):
        DeepKnn(features=features)(KEY, MODEL, VARIABLES, data)


def test_more_neighbours_than_examples_are_refused():
    data, _ = planted()
    with pytest.raises(ValueError, match="k must be < 120, the number of examples, got 120"):
        DeepKnn(k=120)(KEY, MODEL, VARIABLES, data)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: SpectralSignature(fraction=1.5), "fraction must be in (0, 1), got 1.5"),
        (lambda: SpectralSignature(tol=0.0), "tol must be > 0"),
        (lambda: SpectralSignature(max_steps=0), "max_steps must be >= 1"),
        (lambda: ActivationClustering(size=0.6), "size must be in (0, 0.5], got 0.6"),
        (lambda: ActivationClustering(silhouette=2.0), "silhouette must be in [-1, 1]"),
        (lambda: ActivationClustering(components=0), "components must be >= 1"),
        (lambda: ActivationClustering(restarts=0), "restarts must be >= 1"),
        (lambda: ActivationClustering(silhouette_examples=2), "silhouette_examples must be >= 3"),
        (lambda: DeepKnn(k=0), "k must be >= 1, got 0"),
    ],
)
def test_bad_settings_are_refused(build, message, unchecked_types):
    with pytest.raises(ValueError, match=re.escape(message)):
        build()
