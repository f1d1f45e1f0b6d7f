"""The rows that `python -m benchmarks curvature` measures, small and without peers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import curvature, problems


@pytest.fixture
def small(monkeypatch):
    for name, value in {"N": 20, "FEW": 10, "STEPS": 4, "SAMPLES": 2, "RANK": 8}.items():
        monkeypatch.setattr(curvature, name, value)
    monkeypatch.setattr(curvature, "REPEATS", 1)
    monkeypatch.setattr(curvature, "_there", lambda package: False)
    params = problems.init_lenet(jax.random.key(0))
    images, labels, _ = problems.mnist(20)
    return params, jnp.asarray(images), jnp.asarray(labels)


def test_every_row_is_measured_where_no_peer_is_installed(small):
    params, images, labels = small
    rows = [
        *curvature.product_rows(params, images, labels),
        *curvature.spectrum_rows(params, images),
        curvature.projection_row(params, images[:10]),
    ]
    assert [row.kernel.split(",")[0] for row in rows] == [
        "Hessian product",
        "Gauss-Newton product",
        "EK-FAC",
        "Lanczos",
        "log-determinant",
        "Jacobians of ten outputs on 8 random directions",
    ]
    assert all(row.ours is not None and row.ours.seconds > 0 and row.ratio is None for row in rows)
    assert all("not installed" in row.note for row in rows)


def test_the_network_that_kfac_reads_is_the_one_of_the_other_rows(small):
    params, images, _ = small
    one, other = problems.apply_lenet(params, images), problems.apply_lenet_by_xla(params, images)
    np.testing.assert_allclose(one, other, atol=1e-5)
