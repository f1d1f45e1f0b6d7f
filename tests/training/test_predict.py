import jax
import numpy as np
import pytest

from unlearnkit import models
from unlearnkit.training import predict


@pytest.mark.parametrize("chunk", [1, 7, 20, 23, 50])
def test_the_chunk_does_not_matter(chunk):
    model = models.create("mlp", input_shape=(4, 4, 1), n_classes=3, hidden=(8,))
    variables = model.init(jax.random.key(0))
    x = jax.random.normal(jax.random.key(1), (23, 4, 4, 1))
    found = predict(model, variables, x, chunk=chunk)
    np.testing.assert_allclose(found, model.apply(variables, x), rtol=1e-5, atol=1e-6)
