import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from unlearnkit.auditing import Lira, Queries, margins
from unlearnkit.base import Dataset, Task
from unlearnkit.models import from_functions
from unlearnkit.training import Recipe

KEY = jax.random.key(4)


def images(seed, n):
    x_key, y_key = jax.random.split(jax.random.key(seed))
    y = jax.random.randint(y_key, (n,), 0, 3, jnp.int32)
    return Dataset(jax.random.normal(x_key, (n, 3, 4, 1)), y)


def test_the_default_is_the_example_itself():
    x = jnp.ones((5, 7))
    assert Queries().count == 1
    assert Queries().views(x)[0] is x


def test_views_are_shifted_with_reflected_borders_and_mirrored():
    x = images(0, 2).x
    queries = Queries(shift=1, mirror=True)
    views = queries.views(x)
    assert len(views) == queries.count == 18
    padded = np.pad(np.asarray(x), ((0, 0), (1, 1), (1, 1), (0, 0)), mode="reflect")
    np.testing.assert_array_equal(views[4], x)
    np.testing.assert_array_equal(views[1], padded[:, 0:3, 1:5])
    np.testing.assert_array_equal(views[5], padded[:, 1:4, 2:6])
    np.testing.assert_array_equal(views[9 + 4], x[:, :, ::-1])
    np.testing.assert_array_equal(views[9 + 5], np.flip(padded[:, 1:4, 0:4], axis=2))
    assert Queries(shift=2, stride=2).count == 9
    np.testing.assert_array_equal(Queries(mirror=True).views(x)[1], x[:, :, ::-1])


def test_shadows_and_network_are_asked_the_same_queries():
    model = from_functions(
        lambda key: {"w": 0.1 * jax.random.normal(key, (12, 3))},
        lambda params, x: x.reshape(len(x), -1) @ params["w"],
        input_shape=(3, 4, 1),
    )
    task = Task(images(1, 30), images(2, 10), images(3, 10), images(4, 10))
    variables = model.init(KEY)
    attack = Lira(Recipe(epochs=2, batch_size=10), count=4, queries=Queries(mirror=True))
    candidates, is_member, shadows = attack.train(KEY, model, task)
    assert shadows.margins.shape == (4, 20, 2)
    alone = dataclasses.replace(attack, queries=Queries()).train(KEY, model, task)[2]
    np.testing.assert_allclose(shadows.margins[..., 0], alone.margins, rtol=1e-5, atol=1e-5)
    assert not np.allclose(shadows.margins[..., 1], alone.margins, atol=1e-2)
    found = [
        margins(model.apply(variables, x), candidates.y)
        for x in (candidates.x, candidates.x[:, :, ::-1])
    ]
    stacked = np.stack([np.asarray(m, np.float64) for m in found], axis=1)
    expected = attack.attack(shadows, stacked, is_member).metrics
    assert attack(KEY, model, variables, task).metrics == pytest.approx(expected, abs=1e-6)


def test_queries_of_what_is_no_image_are_refused():
    with pytest.raises(ValueError, match="queries need images \\[n, h, w, c\\], got \\[5, 7\\]"):
        Queries(mirror=True).views(jnp.ones((5, 7)))
    with pytest.raises(ValueError, match="shift must be less than the image's sides 3 and 4"):
        Queries(shift=3).views(images(0, 2).x)
    with pytest.raises(ValueError, match="shift must be >= 0"):
        Queries(shift=-1)
    with pytest.raises(ValueError, match="stride must be >= 1"):
        Queries(stride=0)
