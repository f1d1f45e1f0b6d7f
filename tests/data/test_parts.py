"""Parts of a dataset."""

import jax.numpy as jnp
import numpy as np

from unlearnkit.base import Dataset
from unlearnkit.data import draw_order, keep_classes, subset


def test_a_subset_is_random_in_order_and_always_the_same():
    data = Dataset(jnp.arange(50.0)[:, None], jnp.arange(50))
    rows = np.asarray(subset(data, 20).y)
    np.testing.assert_array_equal(rows, np.sort(rows))
    np.testing.assert_array_equal(rows, subset(data, 20).y)
    assert len(set(rows.tolist())) == 20
    assert rows.max() >= 20
    assert subset(data, None) is subset(data, 50) is data
    assert set(np.asarray(draw_order(data))[:20].tolist()) == set(rows.tolist())


def test_classes_that_are_kept_are_counted_from_zero():
    data = Dataset(jnp.arange(12.0)[:, None], jnp.arange(12) % 4)
    found = keep_classes(data, (1, 3))
    np.testing.assert_array_equal(found.x[:, 0], [1, 3, 5, 7, 9, 11])
    np.testing.assert_array_equal(found.y, [0, 1] * 3)
    assert found.y.dtype == jnp.int32
    np.testing.assert_array_equal(keep_classes(data, range(2, 4)).y, [0, 1] * 3)
