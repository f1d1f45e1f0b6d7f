import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import softmax
from sklearn.decomposition import PCA

from unlearnkit.auditing import activation_distance, principal_paths, scrubbing_path
from unlearnkit.base import Dataset, Task
from unlearnkit.training import predict


def draw(seed, n):
    x = jax.random.normal(jax.random.key(seed), (n, 5))
    return Dataset(x, jnp.zeros(n, jnp.int32))


def linear_task():
    return Task(draw(1, 30), draw(2, 20), draw(3, 5), draw(4, 5))


def test_the_line_from_original_to_scrubbed(linear):
    task = linear_task()
    start, end, target = (linear.init(jax.random.key(k)) for k in range(3))
    alphas = np.array([0.0, 0.25, 1.0, 1.5])
    audited = scrubbing_path(linear, start, end, target, task, alphas=alphas)
    w0, w1, w = (np.asarray(v.params["w"], np.float64) for v in (start, end, target))
    for name in ("forget", "retain"):
        x = np.asarray(getattr(task, name).x, np.float64)
        expected = [
            np.abs(softmax(x @ (w0 + a * (w1 - w0)), -1) - softmax(x @ w, -1)).sum(-1).mean()
            for a in alphas
        ]
        np.testing.assert_allclose(audited.curves[name], expected, rtol=1e-4)
        assert audited.metrics[f"distance_{name}_original"] == pytest.approx(expected[0], rel=1e-4)
        assert audited.metrics[f"distance_{name}_scrubbed"] == pytest.approx(expected[2], rel=1e-4)
    best = alphas[np.argmin(audited.curves["forget"])]
    assert audited.metrics["best_alpha"] == best


def test_arriving_at_the_retrained_weights_is_no_distance(mlp, original, retrained, task):
    audited = scrubbing_path(mlp, original, retrained, retrained, task)
    assert audited.curves["alpha"].shape == (11,)
    assert audited.metrics["distance_forget_scrubbed"] == pytest.approx(0, abs=1e-6)
    assert audited.metrics["best_alpha"] == 1.0
    one, other = (predict(mlp, v, task.forget.x) for v in (original, retrained))
    assert audited.metrics["distance_forget_original"] == pytest.approx(
        activation_distance(one, other), rel=1e-5
    )


@pytest.mark.parametrize("alphas", [np.zeros(0), np.array([0.0, np.nan])])
def test_alphas_that_are_none_are_refused(linear, alphas):
    w = linear.init(jax.random.key(0))
    with pytest.raises(ValueError, match="alphas must be a list of finite numbers"):
        scrubbing_path(linear, w, w, w, linear_task(), alphas=alphas)


def walk(seed, t):
    """A random walk of 3 + 8 weights, away from the origin."""
    steps = np.random.default_rng(seed).normal(size=(t, 11)).cumsum(0) + 5
    return {
        "b": jnp.asarray(steps[:, :3], jnp.float32),
        "w": jnp.asarray(steps[:, 3:].reshape(t, 2, 4), jnp.float32),
    }


def flat(tree):
    return np.concatenate(
        [np.asarray(leaf, np.float64).reshape(len(leaf), -1) for leaf in jax.tree.leaves(tree)], 1
    )


def test_the_plane_is_that_of_a_dense_pca():
    paths = {"all": walk(0, 9), "retain": walk(1, 6)}
    plane = principal_paths(paths)
    points = np.concatenate([flat(path) for path in paths.values()])
    oracle = PCA(2, svd_solver="full").fit(points)
    np.testing.assert_allclose(plane.explained, oracle.explained_variance_ratio_, rtol=1e-4)
    found = np.concatenate([np.asarray(plane.coordinates[name]) for name in paths])
    expected = oracle.transform(points)
    sign = np.sign((found * expected).sum(0))
    np.testing.assert_allclose(found, sign * expected, atol=1e-3)
    assert np.all(found[np.abs(found).argmax(0), [0, 1]] > 0)
    directions = flat(plane.directions)
    np.testing.assert_allclose(directions @ directions.T, np.eye(2), atol=1e-4)
    cloud = walk(7, 4)
    np.testing.assert_allclose(
        plane.project(cloud), sign * oracle.transform(flat(cloud)), atol=1e-3
    )


def test_points_that_span_no_plane_are_refused():
    line = {"w": jnp.arange(12.0).reshape(4, 3)}
    with pytest.raises(ValueError, match="all points lie on one line"):
        principal_paths({"line": line})
    with pytest.raises(ValueError, match="at least 3 points, got 2"):
        principal_paths({"short": walk(0, 2)})
    with pytest.raises(ValueError, match="at least one path"):
        principal_paths({})
    with pytest.raises(ValueError, match="must be of one network"):
        principal_paths({"one": walk(0, 3), "other": {"b": jnp.ones((3, 4))}})
    broken = walk(0, 3) | {"b": jnp.full((3, 3), jnp.nan)}
    with pytest.raises(ValueError, match="path 'one' must be finite"):
        principal_paths({"one": broken})
    with pytest.raises(ValueError, match="its points in front"):
        principal_paths({"one": {"b": jnp.ones(3), "w": jnp.ones((4, 2))}})
